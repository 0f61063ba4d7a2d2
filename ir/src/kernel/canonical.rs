//! Numbers values in the order in which the text defines them, so that equal kernels are equal
//! data: parameters, then for each statement its results, its regions' parameters, their bodies.

use super::body::{Kernel, Region, Value};

const UNSEEN: u32 = u32::MAX;

/// Renumbers every value; values that nothing defines keep a place at the end.
pub(crate) fn renumber(kernel: &mut Kernel) {
    let mut order = Vec::with_capacity(kernel.types.len());
    order.extend((0..kernel.params.len() as u32).map(Value));
    define(&kernel.body, &mut order);
    let mut new = vec![UNSEEN; kernel.types.len()];
    let mut next = 0;
    for old in order {
        if new[old.index()] == UNSEEN {
            new[old.index()] = next;
            next += 1;
        }
    }
    for slot in new.iter_mut().filter(|n| **n == UNSEEN) {
        *slot = next;
        next += 1;
    }
    let mut types = kernel.types.clone();
    for (old, &place) in new.iter().enumerate() {
        types[place as usize] = kernel.types[old];
    }
    kernel.types = types;
    rename(&mut kernel.body, &new);
}

fn define(region: &Region, order: &mut Vec<Value>) {
    order.extend(&region.params);
    for stmt in &region.stmts {
        order.extend(&stmt.results);
        for inner in &stmt.regions {
            define(inner, order);
        }
    }
}

fn rename(region: &mut Region, new: &[u32]) {
    let fix = |values: &mut Vec<Value>| values.iter_mut().for_each(|v| *v = Value(new[v.index()]));
    fix(&mut region.params);
    fix(&mut region.yields);
    for stmt in &mut region.stmts {
        fix(&mut stmt.results);
        fix(&mut stmt.args);
        for inner in &mut stmt.regions {
            rename(inner, new);
        }
    }
}
