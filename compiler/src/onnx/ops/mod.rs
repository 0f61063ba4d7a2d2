//! The operators: one line here, one function in the file of its family.
//!
//! An operator function reads the operands and attributes of a [`Node`] and adds ops to the
//! [`Scope`]. An operator that exporters use to compute shapes also has a function in
//! [`super::fold`], which is tried first when all its operands are small known integers.

mod attention;
mod binary;
mod constant;
mod conv;
pub(super) mod layout;
mod matmul;
mod norm;
pub(super) mod pick;
mod pool;
pub(super) mod reduce;
pub(super) mod reshape;
mod unary;

use qcc_ir::diag::Result;

use super::fold;
use super::node::{Node, Val};
use super::scope::Scope;
use super::sym::SymTensor;

type Import = fn(&mut Scope, &Node) -> Result<Vec<Val>>;
/// `None` when the result is not known at import.
type Fold = fn(&Scope, &Node, &[Option<SymTensor>]) -> Result<Option<Vec<SymTensor>>>;

/// One operator of the default domain.
pub(super) struct Row {
    name: &'static str,
    import: Import,
    fold: Option<Fold>,
}

const fn op(name: &'static str, import: Import) -> Row {
    Row {
        name,
        import,
        fold: None,
    }
}

const fn folded(name: &'static str, import: Import, fold: Fold) -> Row {
    Row {
        name,
        import,
        fold: Some(fold),
    }
}

/// Sorted by name.
#[rustfmt::skip]
static TABLE: &[Row] = &[
    folded("Abs",                   unary::simple,            fold::unary),
    folded("Add",                   binary::arithmetic,       fold::binary),
    folded("And",                   binary::arithmetic,       fold::binary),
    op    ("Attention",             attention::attention),
    op    ("AveragePool",           pool::average),
    op    ("BatchNormalization",    norm::batch),
    folded("Cast",                  unary::cast,              fold::cast),
    op    ("CastLike",              unary::cast_like),
    op    ("Ceil",                  unary::simple),
    op    ("Celu",                  unary::celu),
    op    ("Clip",                  unary::clip),
    folded("Concat",                layout::concat,           fold::concat),
    op    ("Constant",              constant::constant),
    op    ("ConstantOfShape",       constant::of_shape),
    op    ("Conv",                  conv::conv),
    op    ("Cos",                   unary::simple),
    op    ("CumSum",                reduce::cumulative),
    op    ("DepthToSpace",          layout::depth_to_space),
    folded("Div",                   binary::arithmetic,       fold::binary),
    op    ("Dropout",               unary::dropout),
    op    ("Elu",                   unary::elu),
    folded("Equal",                 binary::arithmetic,       fold::binary),
    op    ("Erf",                   unary::simple),
    op    ("Exp",                   unary::simple),
    folded("Expand",                layout::expand,           fold::expand),
    op    ("Flatten",               reshape::flatten),
    op    ("Floor",                 unary::simple),
    folded("Gather",                pick::gather,             fold::gather),
    op    ("GatherND",              pick::gather_nd),
    op    ("Gelu",                  unary::gelu),
    op    ("Gemm",                  matmul::gemm),
    op    ("GlobalAveragePool",     pool::global),
    op    ("GlobalMaxPool",         pool::global),
    folded("Greater",               binary::arithmetic,       fold::binary),
    folded("GreaterOrEqual",        binary::arithmetic,       fold::binary),
    op    ("GroupNormalization",    norm::group),
    op    ("HardSigmoid",           unary::hard_sigmoid),
    op    ("HardSwish",             unary::simple),
    folded("Identity",              unary::identity,          fold::unary),
    op    ("InstanceNormalization", norm::instance),
    op    ("IsInf",                 unary::is_inf),
    op    ("IsNaN",                 unary::is_nan),
    op    ("LayerNormalization",    norm::layer),
    op    ("LeakyRelu",             unary::leaky_relu),
    folded("Less",                  binary::arithmetic,       fold::binary),
    folded("LessOrEqual",           binary::arithmetic,       fold::binary),
    op    ("Log",                   unary::simple),
    op    ("LogSoftmax",            reduce::softmax),
    op    ("MatMul",                matmul::matmul),
    folded("Max",                   binary::variadic,         fold::binary),
    op    ("MaxPool",               pool::max),
    op    ("Mean",                  binary::variadic),
    folded("Min",                   binary::variadic,         fold::binary),
    op    ("Mish",                  unary::mish),
    folded("Mod",                   binary::arithmetic,       fold::binary),
    folded("Mul",                   binary::arithmetic,       fold::binary),
    folded("Neg",                   unary::simple,            fold::unary),
    folded("Not",                   unary::simple,            fold::unary),
    op    ("OneHot",                pick::one_hot),
    folded("Or",                    binary::arithmetic,       fold::binary),
    op    ("PRelu",                 unary::prelu),
    op    ("Pad",                   layout::pad),
    op    ("Pow",                   binary::power),
    op    ("RMSNormalization",      norm::rms),
    folded("Range",                 constant::range,          fold::range),
    op    ("Reciprocal",            unary::simple),
    op    ("ReduceL1",              reduce::reduce),
    op    ("ReduceL2",              reduce::reduce),
    op    ("ReduceLogSum",          reduce::reduce),
    op    ("ReduceLogSumExp",       reduce::reduce),
    op    ("ReduceMax",             reduce::reduce),
    op    ("ReduceMean",            reduce::reduce),
    op    ("ReduceMin",             reduce::reduce),
    folded("ReduceProd",            reduce::reduce,           fold::reduce_all),
    folded("ReduceSum",             reduce::reduce,           fold::reduce_all),
    op    ("ReduceSumSquare",       reduce::reduce),
    op    ("Relu",                  unary::simple),
    folded("Reshape",               reshape::reshape,         fold::reshape),
    op    ("RotaryEmbedding",       attention::rotary),
    op    ("Round",                 unary::simple),
    op    ("Selu",                  unary::selu),
    op    ("Shape",                 constant::shape),
    op    ("Sigmoid",               unary::simple),
    op    ("Sign",                  unary::sign),
    op    ("Sin",                   unary::simple),
    op    ("Size",                  constant::size),
    folded("Slice",                 pick::slice,              fold::slice),
    op    ("Softmax",               reduce::softmax),
    op    ("Softplus",              unary::softplus),
    op    ("Softsign",              unary::softsign),
    op    ("SpaceToDepth",          layout::space_to_depth),
    folded("Split",                 pick::split,              fold::split),
    op    ("Sqrt",                  unary::simple),
    folded("Squeeze",               reshape::squeeze,         fold::squeeze),
    folded("Sub",                   binary::arithmetic,       fold::binary),
    op    ("Sum",                   binary::variadic),
    op    ("Tanh",                  unary::simple),
    op    ("ThresholdedRelu",       unary::thresholded_relu),
    op    ("Tile",                  layout::tile),
    folded("Transpose",             layout::transpose,        fold::transpose),
    op    ("Trilu",                 layout::trilu),
    folded("Unsqueeze",             reshape::unsqueeze,       fold::unsqueeze),
    folded("Where",                 binary::choose,           fold::choose),
    folded("Xor",                   binary::arithmetic,       fold::binary),
];

/// The operator of this name; only the default domain has any.
pub(super) fn find(domain: &str, name: &str) -> Option<&'static Row> {
    if !domain.is_empty() {
        return None;
    }
    let at = TABLE.binary_search_by(|row| row.name.cmp(name)).ok()?;
    TABLE.get(at)
}

/// The results of a node.
///
/// # Errors
/// What the operator refuses; an attribute that it does not know (Q0105).
pub(super) fn apply(row: &Row, scope: &mut Scope, node: &Node) -> Result<Vec<Val>> {
    let known = |v: &Option<Val>| match v {
        Some(v) => scope.sym(v).map(Some),
        None => Some(None),
    };
    let inputs: Option<Vec<Option<SymTensor>>> = node.inputs.iter().map(known).collect();
    if let (Some(fold), Some(inputs)) = (row.fold, inputs)
        && let Some(results) = fold(scope, node, &inputs)?
    {
        node.attrs.finish()?;
        return Ok(results.into_iter().map(Val::Sym).collect());
    }
    let results = (row.import)(scope, node)?;
    node.finish()?;
    Ok(results)
}

/// The only result of an operator.
fn one(v: qcc_ir::graph::ValueId) -> Result<Vec<Val>> {
    Ok(vec![Val::Value(v)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_found() {
        assert!(TABLE.windows(2).all(|w| w[0].name < w[1].name));
        assert!(TABLE.iter().all(|row| find("", row.name).is_some()));
        assert!(find("", "NoSuchOperator").is_none());
        assert!(find("com.example", "Add").is_none());
    }
}
