//! One block of the model before and after fusion, for the page to draw.
//!
//! A kernel holds the ops of the unfused module between what it reads and what it gives:
//!
//! ```text
//! ops(kernel) = { op reached from the kernel's results, not passing its operands }
//! ```
//!
//! Values keep their names when they are fused, so that both modules can be laid beside each other.
//! A model that repeats itself is shown by the second of the repeated blocks, from its first norm
//! on; of any other the beginning is shown.

use qcc_ir::graph::{Def, Func, Module, Op, OpKind, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Kernels that are shown of a model without repeated blocks, and at most.
const MOST: usize = 40;

/// A block before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagram {
    /// The ops that the kernels hold, in the order of execution.
    pub before: Vec<Shape>,
    /// The kernels.
    pub after: Vec<Shape>,
    /// How often the block occurs.
    pub times: usize,
}

/// An op or a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What it is.
    pub kind: &'static str,
    /// Nodes of the model that it comes from.
    pub nodes: Vec<String>,
    /// Formats of what it gives.
    pub gives: Vec<String>,
    /// Positions of the shapes whose values it reads.
    pub reads: Vec<usize>,
    /// Positions of the unfused ops that it holds; none for such an op.
    pub holds: Vec<usize>,
}

impl Diagram {
    /// The diagram of two modules that compute the same; `None` without ops.
    pub(crate) fn of(unfused: &Module, fused: &Module) -> Option<Diagram> {
        let (u, f) = (unfused.funcs.first()?, fused.funcs.first()?);
        let kernels: Vec<usize> = (0..f.ops.len()).filter(|i| runs(&f.ops[*i])).collect();
        let (shown, times) = block(f, &kernels);
        let held: Vec<BTreeSet<usize>> = shown.iter().map(|k| held(u, f, &f.ops[*k])).collect();
        let all: BTreeSet<usize> = held.iter().flatten().copied().collect();
        let ops: Vec<usize> = all.into_iter().collect();
        let mut after = shapes(f, &shown);
        for (shape, held) in after.iter_mut().zip(&held) {
            let at = held.iter().filter_map(|o| ops.binary_search(o).ok());
            shape.holds = at.collect();
        }
        (!after.is_empty()).then(|| Diagram {
            before: shapes(u, &ops),
            after,
            times,
        })
    }
}

/// Whether something is computed at run time.
fn runs(op: &Op) -> bool {
    !matches!(
        op.kind,
        OpKind::Const { .. } | OpKind::Splat { .. } | OpKind::Reshape
    )
}

/// The kernels of a block that repeats itself, and how often it does. What the model does once
/// (angles, masks) may stand between and is left out.
fn block(f: &Func, kernels: &[usize]) -> (Vec<usize>, usize) {
    let key = |k: &usize| {
        let op = &f.ops[*k];
        let types: Vec<String> = op.results.iter().map(|r| f.ty(*r).to_string()).collect();
        (op.kind.name(), types)
    };
    let mut alike: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for k in kernels {
        alike.entry(key(k)).or_default().push(*k);
    }
    let mut numbered: Vec<(usize, usize)> = Vec::new();
    for (number, same) in alike.values().filter(|s| s.len() > 1).enumerate() {
        numbered.extend(same.iter().map(|k| (*k, number)));
    }
    numbered.sort_unstable();
    let (often, keys): (Vec<usize>, Vec<usize>) = numbered.into_iter().unzip();
    let Some((first, period, covered)) = repetition(&keys) else {
        return (kernels[..kernels.len().min(MOST)].to_vec(), 1);
    };
    let norm = |i: &usize| {
        let kind = &f.ops[often[*i]].kind;
        matches!(kind, OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. })
    };
    let start = (first..first + period).find(norm).unwrap_or(first);
    let times = (first + covered - start) / period;
    let start = if times > 1 { start + period } else { start };
    let block = start..(start + period.min(MOST)).min(often.len());
    (often[block].to_vec(), times)
}

/// Where a sequence repeats itself longest: the beginning, the period and the length.
fn repetition(keys: &[usize]) -> Option<(usize, usize, usize)> {
    let mut best: Option<(usize, usize, usize)> = None;
    for period in 2..=keys.len() / 2 {
        let mut run = 0;
        for i in 0..keys.len() - period {
            run = if keys[i] == keys[i + period] {
                run + 1
            } else {
                0
            };
            let longest = best.map_or(0, |(_, _, l)| l);
            if run >= period && run + period > longest {
                best = Some((i + 1 - run, period, run + period));
            }
        }
    }
    best
}

/// The ops of the unfused function that a kernel computes.
fn held(u: &Func, f: &Func, kernel: &Op) -> BTreeSet<usize> {
    let named = |v: &ValueId| u.find(&f.value(*v).name);
    let given: BTreeSet<ValueId> = kernel.operands.iter().filter_map(named).collect();
    let mut stack: Vec<ValueId> = kernel.results.iter().filter_map(named).collect();
    let mut out = BTreeSet::new();
    while let Some(v) = stack.pop() {
        if given.contains(&v) {
            continue;
        }
        if let Def::Result(id, _) = u.value(v).def {
            let op = &u.ops[id.index()];
            let new = !runs(op) || out.insert(id.index());
            if new {
                stack.extend(&op.operands);
            }
        }
    }
    out
}

/// Ops of a function as shapes.
fn shapes(f: &Func, ops: &[usize]) -> Vec<Shape> {
    let shape = |at: &usize| {
        let op = &f.ops[*at];
        let reads = op.operands.iter().filter_map(|v| maker(f, *v));
        let reads: BTreeSet<usize> = reads.filter_map(|o| ops.binary_search(&o).ok()).collect();
        Shape {
            kind: op.kind.name(),
            nodes: op.loc.nodes.clone(),
            gives: op
                .results
                .iter()
                .map(|r| f.ty(*r).elem.storage().to_string())
                .collect(),
            reads: reads.into_iter().collect(),
            holds: Vec::new(),
        }
    };
    ops.iter().map(shape).collect()
}

/// The op that computes a value, seen through reshapes.
fn maker(f: &Func, v: ValueId) -> Option<usize> {
    match f.value(v).def {
        Def::Param(_) => None,
        Def::Result(id, _) => match &f.ops[id.index()] {
            op if op.kind == OpKind::Reshape => maker(f, *op.operands.first()?),
            _ => Some(id.index()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::graph::parse;

    /// Two blocks of norm, quantize and product with a residual.
    fn modules() -> (Module, Module) {
        let head = "qir 1\nweight @g: f32[4] = splat(1.0)\nweight @w: f32[4, 4] = normal(1, 1.0)\n\
                    func @main(%x0: f32[2, 4]) -> (y: f32[2, 4]) {\n%g: f32[4] = const @g\n\
                    %w: f32[4, 4] = const @w\n";
        let block = |i: usize, fused: bool| {
            let norm =
                format!("%n{i}: f32[2, 4] = rms_norm %x{i}, %g {{ eps = 1e-5 }} @\"n{i}\"\n");
            let next = i + 1;
            match fused {
                false => format!(
                    "{norm}%a{i}: f32[2, 4] = linear %n{i}, %w @\"l{i}\"\n\
                     %x{next}: f32[2, 4] = add %x{i}, %a{i} @\"r{i}\"\n"
                ),
                true => format!(
                    "{norm}%x{next}: f32[2, 4] = linear %n{i}, %w, %x{i} {{ expr = {{ t0 = in2; \
                     t1 = acc0; t2 = add t0, t1; store t2 }} }} @\"l{i}\", \"r{i}\"\n"
                ),
            }
        };
        let of = |fused: bool| {
            let body: String = (0..3).map(|i| block(i, fused)).collect();
            let text = format!("{head}{body}return %x3\n}}\n");
            parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"))
        };
        (of(false), of(true))
    }

    #[test]
    fn a_kernel_holds_what_lies_between_its_operands_and_results() {
        let (unfused, fused) = modules();
        let d = Diagram::of(&unfused, &fused).unwrap();
        let kinds = |s: &[Shape]| s.iter().map(|s| s.kind).collect::<Vec<_>>();
        assert_eq!(d.times, 3);
        assert_eq!(kinds(&d.before), ["rms_norm", "linear", "add"]);
        assert_eq!(kinds(&d.after), ["rms_norm", "linear"]);
        assert_eq!(
            (&d.after[0].holds, &d.after[1].holds),
            (&vec![0], &vec![1, 2])
        );
        assert_eq!(
            (&d.after[1].reads, &d.before[2].reads),
            (&vec![0], &vec![1])
        );
        assert_eq!(d.before[1].nodes, ["l1"], "the second block");
    }

    #[test]
    fn a_model_without_repetition_is_shown_from_its_beginning() {
        assert_eq!(repetition(&[1, 2, 3, 4]), None);
        assert_eq!(repetition(&[9, 1, 2, 1, 2, 1, 7]), Some((1, 2, 5)));
        let (unfused, _) = modules();
        let mut one = unfused.clone();
        one.funcs[0].ops.truncate(4);
        one.funcs[0].results = vec![("y".into(), one.funcs[0].find("a0").unwrap())];
        let d = Diagram::of(&one, &one).unwrap();
        assert_eq!((d.before.len(), d.after.len(), d.times), (2, 2, 1));
    }
}
