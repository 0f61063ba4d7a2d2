//! The layers that can be quantized: linear layers and convolutions with constant weights.

use crate::analysis::DataFlow;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind, ValueId};
use std::collections::BTreeSet;

/// A layer of the entry function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// The op.
    pub(crate) op: OpId,
    /// Its source nodes; the name of its result where there are none.
    pub(crate) name: String,
    /// Name of its weight.
    pub(crate) weight: String,
    /// Its input.
    pub(crate) input: ValueId,
    /// The constant that is its weight.
    pub(crate) weight_value: ValueId,
    /// Whether it is a convolution.
    pub(crate) conv: bool,
    /// Whether it is the head: as wide as an embedding table has rows, and with nothing but
    /// elementwise and shape ops between it and a result.
    pub(crate) head: bool,
}

impl Site {
    /// Whether a pattern is found in the name of the layer or of its weight.
    pub(crate) fn matches(&self, pattern: &regex::Regex) -> bool {
        pattern.is_match(&self.name) || pattern.is_match(&self.weight)
    }
}

/// The layers of the entry function, in execution order.
pub(crate) fn sites(m: &Module) -> Vec<Site> {
    let Some(f) = m.funcs.first() else {
        return Vec::new();
    };
    let tables = embedding_rows(m, f);
    let flow = DataFlow::new(f);
    f.ops()
        .filter_map(|(id, op)| site(m, f, id, op, &tables, &flow))
        .collect()
}

fn site(
    m: &Module,
    f: &Func,
    id: OpId,
    op: &Op,
    tables: &BTreeSet<u64>,
    flow: &DataFlow,
) -> Option<Site> {
    let conv = match op.kind {
        OpKind::Linear { .. } => false,
        OpKind::Conv { .. } => true,
        _ => return None,
    };
    let [input, weight_value] = [*op.operands.first()?, *op.operands.get(1)?];
    let float = |v: ValueId| f.ty(v).elem.plain().is_some_and(|d| d.is_float());
    if !float(input) || !float(weight_value) {
        return None;
    }
    let OpKind::Const { weight, .. } = f.def_op(weight_value)?.kind else {
        return None;
    };
    let weight = m.weight(weight);
    let through = |id: OpId| is_elementwise_or_shape(&f.ops[id.index()].kind);
    let wide = weight.dims.first().is_some_and(|n| tables.contains(n));
    Some(Site {
        op: id,
        name: match op.loc.nodes.is_empty() {
            true => f.value(*op.results.first()?).name.clone(),
            false => op.loc.to_string(),
        },
        weight: weight.name.clone(),
        input,
        weight_value,
        conv,
        head: !conv && wide && flow.reaches_result(id, &through),
    })
}

/// Rows of all tables from which rows are gathered.
pub(crate) fn embedding_rows(m: &Module, f: &Func) -> BTreeSet<u64> {
    let table = |op: &Op| match (&op.kind, f.def_op(*op.operands.first()?)?.kind.clone()) {
        (OpKind::Gather { axis: 0 }, OpKind::Const { weight, .. }) => {
            let w = m.weight(weight);
            (w.dims.len() == 2 && w.dtype.is_float()).then(|| w.dims[0])
        }
        _ => None,
    };
    f.ops.iter().filter_map(table).collect()
}

fn is_elementwise_or_shape(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Unary(_)
            | OpKind::Binary(_)
            | OpKind::Select
            | OpKind::Cast
            | OpKind::Map(_)
            | OpKind::Quantize
            | OpKind::Dequantize
            | OpKind::Reshape
            | OpKind::Transpose { .. }
            | OpKind::Expand
            | OpKind::Slice { .. }
            | OpKind::Concat { .. }
            | OpKind::Pad { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::module;

    #[test]
    fn the_head_is_as_wide_as_the_embedding_and_feeds_the_result() {
        let m = module(
            r#"dim s = 1..9
             weight @embed: f32[7, 4] = normal(1, 1.0)
             weight @inner: f32[7, 4] = normal(2, 1.0)
             weight @back: f32[4, 7] = normal(3, 1.0)
             weight @head: f32[7, 4] = normal(4, 1.0)
             func @main(%ids: i64[s]) -> (logits: f32[1, s, 7]) {
               %embed: f32[7, 4] = const @embed
               %x: f32[s, 4] = gather %embed, %ids {axis = 0}
               %inner: f32[7, 4] = const @inner
               %h: f32[s, 7] = linear %x, %inner @"up"
               %s: f32[s, 7] = softmax %h {axis = 1}
               %back: f32[4, 7] = const @back
               %y: f32[s, 4] = linear %s, %back
               %head: f32[7, 4] = const @head
               %l: f32[s, 7] = linear %y, %head @"lm_head"
               %t: f32[s, 7] = tanh %l
               %r: f32[1, s, 7] = reshape %t
               return %r
             }"#,
        );
        let found: Vec<(String, String, bool)> = sites(&m)
            .into_iter()
            .map(|s| (s.name, s.weight, s.head))
            .collect();
        let expected = [
            ("up", "inner", false),
            ("y", "back", false),
            ("lm_head", "head", true),
        ];
        assert_eq!(found, expected.map(|(n, w, h)| (n.into(), w.into(), h)));
    }
}
