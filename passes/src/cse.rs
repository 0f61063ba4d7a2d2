//! Common subexpression elimination: equal ops on equal operands are computed once.
//!
//! Two ops are equal when kind, attributes, operands (after replacement) and result types are.
//! Every op of the graph IR is a pure function, so the later one is replaced by the earlier,
//! whose name stays. The two operands of a commutative function may be exchanged.

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpKind, TensorType, ValueId};
use std::collections::HashMap;

/// The pass.
pub(crate) struct Cse;

type Key = (OpKind, Vec<ValueId>, Vec<TensorType>);

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn summary(&self) -> &'static str {
        "computes equal ops once"
    }

    fn run(&self, module: &Module, _: &mut PassContext<'_>) -> Result<Module> {
        Ok(rewrite(module, &mut Seen::default())?.module)
    }
}

/// Ops so far of the current function, with the values that hold their results.
#[derive(Default)]
struct Seen(HashMap<Key, Vec<ValueId>>);

impl Rule for Seen {
    fn enter(&mut self, _: &Func) {
        self.0.clear();
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let mut operands = rw.operands(op);
        if matches!(&op.kind, OpKind::Binary(f) if f.is_commutative()) {
            operands.sort_unstable();
        }
        let types = op.results.iter().map(|r| rw.src.ty(*r).clone()).collect();
        let key = (op.kind.clone(), operands, types);
        if let Some(first) = self.0.get(&key) {
            return Ok(Some(first.clone()));
        }
        let results = rw.copy(op);
        self.0.insert(key, results.clone());
        Ok(Some(results))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manager, Options};
    use qcc_ir::DType;
    use qcc_ir::expr::BinaryFn::{Add, Sub};
    use qcc_ir::graph::{Builder, TensorType};

    fn run(m: Module) -> Module {
        let options = Options::default();
        let mut manager = Manager::new(vec![Box::new(Cse), Box::new(crate::dce::Dce)]);
        let out = manager.run(m, &mut PassContext::new(&options));
        out.unwrap().module
    }

    #[test]
    fn equal_ops_are_computed_once_and_keep_the_first_name() {
        let mut b = Builder::new("main");
        let ty = TensorType::fixed(DType::F32, &[2]);
        let (x, y) = (b.param("x", ty.clone()), b.param("y", ty));
        let s = b.binary(Add, x, y).unwrap();
        let t = b.binary(Add, y, x).unwrap();
        let d = b.binary(Sub, s, t).unwrap();
        let m = run(b.finish_module([("d", d), ("t", t)]));
        let f = &m.funcs[0];
        assert_eq!(f.ops.len(), 2);
        assert_eq!(f.results[1].1, f.ops[0].results[0]);
        assert_eq!(f.ops[1].operands[0], f.ops[1].operands[1]);
    }

    #[test]
    fn order_and_type_distinguish_ops() {
        let mut b = Builder::new("main");
        let ty = TensorType::fixed(DType::F32, &[2]);
        let (x, y) = (b.param("x", ty.clone()), b.param("y", ty));
        let s = b.binary(Sub, x, y).unwrap();
        let t = b.binary(Sub, y, x).unwrap();
        let (u, v) = (b.cast(x, DType::F16), b.cast(x, DType::BF16));
        let m = run(b.finish_module([("s", s), ("t", t), ("u", u), ("v", v)]));
        assert_eq!(m.funcs[0].ops.len(), 4);
    }
}
