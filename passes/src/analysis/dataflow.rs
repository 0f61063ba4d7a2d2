//! Who needs whom: a function's ops as a directed graph along its values.

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeFiltered, EdgeRef, Reversed};
use qcc_ir::graph::{Func, OpId, ValueId};

/// The ops of a function; an edge runs from a value's definition to each op that reads it.
///
/// Node `i` is the op at position `i`; the last node stands for the function's results.
pub(crate) struct DataFlow {
    graph: DiGraph<(), ValueId>,
}

impl DataFlow {
    /// The graph of a function.
    pub(crate) fn new(f: &Func) -> Self {
        let mut graph = DiGraph::with_capacity(f.ops.len() + 1, f.values.len());
        for _ in 0..=f.ops.len() {
            graph.add_node(());
        }
        let sink = node(f.ops.len());
        let reads = f
            .ops()
            .flat_map(|(id, op)| op.operands.iter().map(move |v| (*v, node(id.index()))));
        let returns = f.results.iter().map(|(_, v)| (*v, sink));
        for (v, reader) in reads.chain(returns) {
            if let qcc_ir::graph::Def::Result(id, _) = f.value(v).def {
                graph.add_edge(node(id.index()), reader, v);
            }
        }
        DataFlow { graph }
    }

    fn sink(&self) -> NodeIndex {
        node(self.graph.node_count() - 1)
    }

    /// Whether a path from the op to a result of the function passes only ops for which
    /// `through` holds. The op itself is not asked.
    pub(crate) fn reaches_result(&self, from: OpId, through: &dyn Fn(OpId) -> bool) -> bool {
        let start = node(from.index());
        let open = EdgeFiltered::from_fn(&self.graph, |e| {
            e.source() == start || through(OpId(e.source().index() as u32))
        });
        let mut dfs = Dfs::new(&open, start);
        while let Some(n) = dfs.next(&open) {
            if n == self.sink() {
                return true;
            }
        }
        false
    }

    /// For each op, whether a result of the function depends on it.
    pub(crate) fn live(&self) -> Vec<bool> {
        let back = Reversed(&self.graph);
        let mut dfs = Dfs::new(back, self.sink());
        let mut live = vec![false; self.graph.node_count() - 1];
        while let Some(n) = dfs.next(back) {
            if n != self.sink() {
                live[n.index()] = true;
            }
        }
        live
    }
}

fn node(i: usize) -> NodeIndex {
    NodeIndex::new(i)
}

/// For each op, whether a result of the function depends on it.
pub(crate) fn live_ops(f: &Func) -> Vec<bool> {
    DataFlow::new(f).live()
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::DType;
    use qcc_ir::expr::UnaryFn::{Abs, Exp, Neg, Relu};
    use qcc_ir::graph::{Builder, OpKind, TensorType};

    #[test]
    fn paths_and_liveness() {
        let mut b = Builder::new("main");
        let x = b.param("x", TensorType::fixed(DType::F32, &[2]));
        let a = b.unary(Abs, x).unwrap();
        let dead = b.unary(Exp, a).unwrap();
        let n = b.unary(Neg, a).unwrap();
        let r = b.unary(Relu, n).unwrap();
        let f = b.finish([("y", r), ("x", x)]);
        let flow = DataFlow::new(&f);
        assert_eq!(flow.live(), [true, false, true, true]);

        let at = |id: OpId| f.ops[id.index()].kind.clone();
        let not_neg = |id: OpId| at(id) != OpKind::Unary(Neg);
        assert!(!flow.reaches_result(OpId(0), &not_neg));
        assert!(flow.reaches_result(OpId(0), &|_| true));
        assert!(flow.reaches_result(OpId(2), &|_| true));
        assert!(!flow.reaches_result(OpId(1), &|_| true));
        assert_eq!(f.ty(dead).rank(), 1);
    }
}
