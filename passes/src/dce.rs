//! Dead code elimination: what no result needs is dropped.
//!
//! Drops ops whose results are not read on the way to a result of their function, and weights
//! that no op names. Parameters and symbols stay: they are the module's interface.

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Rewriter, rewrite};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Module, Op};

/// The pass.
pub(crate) struct Dce;

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn summary(&self) -> &'static str {
        "drops ops and weights that no result needs"
    }

    fn run(&self, module: &Module, _: &mut PassContext<'_>) -> Result<Module> {
        Ok(rewrite(module, &mut |_: &mut Rewriter<'_>, _: &Op| Ok(None))?.module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manager, Options};
    use qcc_ir::DType;
    use qcc_ir::expr::BinaryFn::Add;
    use qcc_ir::expr::UnaryFn::Exp;
    use qcc_ir::graph::{Builder, TensorType, Weight, WeightData};

    #[test]
    fn unneeded_ops_and_weights_go_parameters_stay() {
        let mut weights = Module::default();
        let ids = ["a", "b", "c"].map(|name| {
            weights.add_weight(Weight {
                name: name.into(),
                dtype: DType::F32,
                dims: vec![2],
                data: WeightData::Splat(0),
            })
        });
        let mut b = Builder::new("main");
        let ty = TensorType::fixed(DType::F32, &[2]);
        let (x, _) = (b.param("x", ty.clone()), b.param("unread", ty));
        let values = ids.map(|id| b.constant(id, &weights));
        let dead = b.binary(Add, x, values[1]).unwrap();
        b.unary(Exp, dead).unwrap();
        let y = b.binary(Add, x, values[2]).unwrap();
        let mut m = b.finish_module([("y", y)]);
        m.weights = weights.weights;

        let options = Options::default();
        let out = Manager::new(vec![Box::new(Dce)]).run(m, &mut PassContext::new(&options));
        let m = out.unwrap().module;
        assert_eq!(m.funcs[0].ops.len(), 2);
        assert_eq!(m.funcs[0].params.len(), 2);
        assert_eq!(m.weights.len(), 1);
        assert_eq!(m.weights[0].name, "c");
    }
}
