//! Dead code elimination: what no result needs is dropped.
//!
//! Drops ops whose results are not read on the way to a result of their function, and weights
//! that no op names. Parameters and symbols stay: they are the module's interface.

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Rewriter, rewrite};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Module, Op, OpKind, WeightId};

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
        let live = rewrite(module, &mut |_: &mut Rewriter<'_>, _: &Op| Ok(None))?.module;
        Ok(drop_unused_weights(live))
    }
}

/// Renumbers the weights without those that no op names.
pub(crate) fn drop_unused_weights(mut m: Module) -> Module {
    let mut used = vec![false; m.weights.len()];
    each_weight(&mut m, &mut |w| used[w.index()] = true);
    let mut next = 0;
    let renumbered: Vec<WeightId> = used
        .iter()
        .map(|u| {
            let id = WeightId(next);
            next += u32::from(*u);
            id
        })
        .collect();
    each_weight(&mut m, &mut |w| *w = renumbered[w.index()]);
    let mut keep = used.iter();
    m.weights.retain(|_| keep.next() == Some(&true));
    m
}

fn each_weight(m: &mut Module, f: &mut dyn FnMut(&mut WeightId)) {
    for op in m.funcs.iter_mut().flat_map(|f| &mut f.ops) {
        if let OpKind::Const {
            weight,
            scale,
            zero,
        } = &mut op.kind
        {
            f(weight);
            scale.iter_mut().for_each(&mut *f);
            zero.iter_mut().for_each(&mut *f);
        }
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
