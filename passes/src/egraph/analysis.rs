//! Types per e-class.
//!
//! A class holds values of one type, or tuples of the same types. A union of classes of
//! different types is a defect of a rule; it is noted as a fault and ends the pass, so that an
//! unsound rule shows at its first use.

use super::lang::{DerivedData, Interner, Node, OpData};
use egg::{Analysis, DidMerge, EGraph, Id};
use qcc_ir::graph::TensorType;
use std::rc::Rc;

/// The e-graph of one region.
pub(super) type Graph = EGraph<Node, Tables>;

/// What e-nodes refer to by number, and what went wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) ops: Interner<OpData>,
    pub(super) derived: Interner<DerivedData>,
    /// Types of the leaves.
    pub(super) leaves: Vec<TensorType>,
    /// The first union of different types.
    pub(super) fault: Option<String>,
}

/// The types of the values of a class: one for a value, several for a tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Types {
    pub(super) list: Rc<[TensorType]>,
    pub(super) tuple: bool,
}

impl Types {
    fn value(t: TensorType) -> Types {
        Types {
            list: Rc::new([t]),
            tuple: false,
        }
    }
}

impl Analysis<Node> for Tables {
    type Data = Types;

    fn make(g: &mut Graph, node: &Node, _: Id) -> Types {
        match node {
            Node::Leaf(k) => Types::value(g.analysis.leaves[*k as usize].clone()),
            Node::Derived(k) => Types::value(g.analysis.derived.get(*k).ty.clone()),
            Node::Op(k, _) => {
                let results = &g.analysis.ops.get(*k).results;
                Types {
                    list: results.as_slice().into(),
                    tuple: results.len() != 1,
                }
            }
            Node::Proj(i, [tuple]) => Types::value(g[*tuple].data.list[*i as usize].clone()),
        }
    }

    fn merge(&mut self, a: &mut Types, b: Types) -> DidMerge {
        if *a != b && self.fault.is_none() {
            let show = |t: &Types| {
                let list: Vec<String> = t.list.iter().map(ToString::to_string).collect();
                list.join(", ")
            };
            self.fault = Some(format!("{} was made equal to {}", show(a), show(&b)));
        }
        DidMerge(false, false)
    }
}
