//! The operations of the graph IR, one variant each with its typed attributes.
//!
//! An op is one mathematical operation; formats and granularity are in the types of its operands
//! and results. Operand lists are positional, optional ones last. To add an op: a variant here,
//! its row in [`OpKind::name`], its shapes in `infer.rs`, its attributes in the printer and the
//! parser, its meaning in `eval/`; the compiler's exhaustive matches lead the way.
//!
//! Ops with an [`Expr`] are fusion skeletons: the expression says what happens to each
//! accumulated element before it is stored. Without one they store the plain result named in
//! their description.

use super::WeightId;
use crate::DimExpr;
use crate::expr::named_enum;
use crate::expr::{BinaryFn, Expr, UnaryFn};

named_enum! {
    /// Reductions.
    ReduceFn {
        /// Sum
        Sum = "sum",
        /// Arithmetic mean
        Mean = "mean",
        /// Largest; NaN if any is
        Max = "max",
        /// Smallest; NaN if any is
        Min = "min",
        /// Product
        Prod = "prod",
    }
}

named_enum! {
    /// Poolings.
    PoolFn {
        /// Largest in the window
        Max = "max",
        /// Mean over the window, padding not counted
        Mean = "mean",
        /// Mean over the window, padding counted as zeros
        MeanPadded = "mean_padded",
    }
}

/// Window geometry of a convolution or pooling, one entry per spatial dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extent of the window.
    pub kernel: Vec<u64>,
    /// Step between windows.
    pub strides: Vec<u64>,
    /// Distance between taps within a window.
    pub dilations: Vec<u64>,
    /// Padding before each spatial dimension.
    pub pad_lo: Vec<u64>,
    /// Padding after each spatial dimension.
    pub pad_hi: Vec<u64>,
}

/// What attention sees and how its heads are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionAttrs {
    /// Query heads.
    pub heads: u64,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u64,
    /// Bits of the f32 factor on `q·kᵀ`.
    pub scale: u32,
    /// Whether operand 3 is a mask; further operands belong to the expression.
    pub mask: bool,
    /// Whether a query sees only keys at or before its own position; the last query is aligned
    /// with the last key (ONNX `Attention`, bottom-right).
    pub causal: bool,
}

/// Geometry of a rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RotaryAttrs {
    /// Heads in the last dimension of the first operand. A second tensor has as many heads of the
    /// same size as its columns hold.
    pub heads: u64,
    /// Whether the rotated pairs are neighbours (`x[2i], x[2i+1]`) instead of halves
    /// (`x[i], x[i + d/2]`).
    pub interleaved: bool,
}

/// What an op computes. Operands in order are given as `(a, b, [optional])`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// `()` A weight. A quantized result names the tensors of its codes, scales and zero points,
    /// and of the scale above those of its blocks.
    Const {
        /// Values, or codes.
        weight: WeightId,
        /// Scales of a quantized constant.
        scale: Option<WeightId>,
        /// Zero points of a quantized constant.
        zero: Option<WeightId>,
        /// The scale of the whole tensor where scales have two levels.
        global: Option<WeightId>,
    },
    /// `()` Every element is this number: the bits of an f64, converted to the result's format.
    Splat {
        /// Bits of the f64.
        value: u64,
    },
    /// `()` The index along `axis`: 0, 1, 2, …
    Iota {
        /// The dimension that counts.
        axis: usize,
    },
    /// `()` A size as an i64 scalar.
    Dim {
        /// The size.
        value: DimExpr,
    },
    /// `(x)` Elementwise function.
    Unary(UnaryFn),
    /// `(a, b)` Elementwise function with NumPy broadcasting.
    Binary(BinaryFn),
    /// `(c, a, b)` Elementwise `c ? a : b` with NumPy broadcasting.
    Select,
    /// `(x)` Conversion to the result's plain format; float to integer truncates towards zero
    /// and saturates, float to float rounds to nearest even.
    Cast,
    /// `(operands…)` Any number of results from one elementwise expression.
    Map(Expr),
    /// `(x, [scale, [zero]])` Quantization to the result's type. A dynamic type takes no
    /// scale: it is computed from each block of `x`. Where scales have two levels, the last
    /// operand is the scale of the whole tensor: `(x, scale, global)`, or `(x, global)`.
    Quantize,
    /// `(x)` The real values of a quantized operand.
    Dequantize,
    /// `(x)` The same elements in another shape (that of the result).
    Reshape,
    /// `(x)` Result dimension `i` is operand dimension `perm[i]`.
    Transpose {
        /// A permutation of the dimensions.
        perm: Vec<usize>,
    },
    /// `(x)` NumPy broadcast to the result's shape.
    Expand,
    /// `(x)` Elements `start, start + step, …` below `end`, for each dimension. Steps are at
    /// least 1; a start never exceeds its end.
    Slice {
        /// First index per dimension.
        starts: Vec<DimExpr>,
        /// One past the last index per dimension.
        ends: Vec<DimExpr>,
        /// Step per dimension.
        steps: Vec<u64>,
    },
    /// `(a, b, …)` Concatenation along `axis`.
    Concat {
        /// The dimension that grows.
        axis: usize,
    },
    /// `(x)` Constant padding.
    Pad {
        /// Elements before each dimension.
        lo: Vec<u64>,
        /// Elements after each dimension.
        hi: Vec<u64>,
        /// Bits of the f64 to pad with.
        value: u64,
    },
    /// `(data, indices)` `data` sliced along `axis` by integer `indices`; the indices' shape
    /// replaces that dimension. A negative index counts from the end.
    Gather {
        /// The dimension of `data` that is indexed.
        axis: usize,
    },
    /// `(x)` Reduction over `axes`.
    Reduce {
        /// What is accumulated.
        f: ReduceFn,
        /// Dimensions, increasing.
        axes: Vec<usize>,
        /// Whether a reduced dimension stays as 1.
        keep: bool,
    },
    /// `(x)` Inclusive running sum along `axis`.
    CumSum {
        /// The dimension that is summed along.
        axis: usize,
    },
    /// `(x)` `e^(x−m) / Σ e^(x−m)` along `axis`, `m` the maximum.
    Softmax {
        /// The dimension that sums to 1.
        axis: usize,
    },
    /// `(a[…, m, k], b[…, k, n])` Product with NumPy batch broadcasting.
    MatMul,
    /// `(x[…, k], w[n, k], [bias[n]])` `x·wᵀ + bias`.
    ///
    /// With `segments` the columns are split over several results, in order. With two
    /// accumulators, `w` holds `[2n, k]`: `acc0` comes from the first half of the rows and
    /// `acc1` from the second (gate and up). An expression replaces `+ bias`.
    Linear {
        /// Width of each result's columns; empty for a single result.
        segments: Vec<u64>,
        /// Accumulators per output element: 1 or 2.
        accs: u8,
        /// What is stored; `None` is `acc0 + bias`.
        expr: Option<Expr>,
    },
    /// `(x[…, k], columns[n, s], values[n, s])` `y[…, j] = Σ_t values[j, t]·x[…, columns[j, t]]`:
    /// a product with a sparse weight of which every row holds as many elements. A negative column
    /// counts from the end; of a column that is named twice both elements count.
    SparseLinear,
    /// `(x[b, c, …], w[n, c/groups, …], [bias[n]])` Cross-correlation over 1 or 2 spatial
    /// dimensions, plus bias.
    Conv {
        /// Geometry.
        window: Window,
        /// Channel groups.
        groups: u64,
        /// What is stored; `None` is `acc0 + bias` (bias along the channels).
        expr: Option<Expr>,
    },
    /// `(x[b, c, …])` Pooling over the spatial dimensions.
    Pool {
        /// What is computed of a window.
        f: PoolFn,
        /// Geometry.
        window: Window,
    },
    /// `(x[…, n], gain[n], [bias[n]])` `acc0 = (x − mean)/√(var + eps)` along the last
    /// dimension; result `acc0·gain + bias`.
    LayerNorm {
        /// Bits of the f32 added to the variance.
        eps: u32,
        /// What is stored; `None` is `acc0·gain + bias`.
        expr: Option<Expr>,
    },
    /// `(x[…, n], gain[n])` `acc0 = x/√(mean(x²) + eps)` along the last dimension; result
    /// `acc0·gain`.
    RmsNorm {
        /// Bits of the f32 added to the mean square.
        eps: u32,
        /// What is stored; `None` is `acc0·gain`.
        expr: Option<Expr>,
    },
    /// `(q[b, s, h·d], k[b, t, g·d], v[b, t, g·d], [mask])` Softmax attention, heads side by
    /// side in the last dimension. `mask` broadcasts to `[b, h, s, t]`: bool keeps where true,
    /// a float is added to the scores. A row without any visible key gives zeros.
    Attention {
        /// Heads, scale and causality.
        attrs: AttentionAttrs,
        /// What is stored; `None` is `acc0`.
        expr: Option<Expr>,
    },
    /// `(x[b, s, h·d], cos, sin, [y[b, s, g·d]])` Rotation of each head's pairs by an angle; `cos`
    /// and `sin` are `[s, d/2]` or `[b, s, d/2]` (`b` or `s` may be 1). Heads of a second tensor
    /// (the keys beside the queries) turn by the same angles; it has a result of its own.
    Rotary(RotaryAttrs),
}

impl OpKind {
    /// The name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            OpKind::Const { .. } => "const",
            OpKind::Splat { .. } => "splat",
            OpKind::Iota { .. } => "iota",
            OpKind::Dim { .. } => "dim",
            OpKind::Unary(f) => f.name(),
            OpKind::Binary(f) => f.name(),
            OpKind::Select => "select",
            OpKind::Cast => "cast",
            OpKind::Map(_) => "map",
            OpKind::Quantize => "quantize",
            OpKind::Dequantize => "dequantize",
            OpKind::Reshape => "reshape",
            OpKind::Transpose { .. } => "transpose",
            OpKind::Expand => "expand",
            OpKind::Slice { .. } => "slice",
            OpKind::Concat { .. } => "concat",
            OpKind::Pad { .. } => "pad",
            OpKind::Gather { .. } => "gather",
            OpKind::Reduce { .. } => "reduce",
            OpKind::CumSum { .. } => "cumsum",
            OpKind::Softmax { .. } => "softmax",
            OpKind::MatMul => "matmul",
            OpKind::Linear { .. } => "linear",
            OpKind::SparseLinear => "sparse_linear",
            OpKind::Conv { .. } => "conv",
            OpKind::Pool { .. } => "pool",
            OpKind::LayerNorm { .. } => "layer_norm",
            OpKind::RmsNorm { .. } => "rms_norm",
            OpKind::Attention { .. } => "attention",
            OpKind::Rotary(_) => "rotary",
        }
    }

    /// The expression of a fusion skeleton, if it has one.
    pub fn expr(&self) -> Option<&Expr> {
        match self {
            OpKind::Map(e) => Some(e),
            OpKind::Linear { expr, .. }
            | OpKind::Conv { expr, .. }
            | OpKind::LayerNorm { expr, .. }
            | OpKind::RmsNorm { expr, .. }
            | OpKind::Attention { expr, .. } => expr.as_ref(),
            _ => None,
        }
    }

    /// The dimension of a first operand of this rank whose entries the second operand names.
    pub fn indexed(&self, rank: usize) -> Option<usize> {
        match self {
            OpKind::Gather { axis } => Some(*axis),
            OpKind::SparseLinear => rank.checked_sub(1),
            _ => None,
        }
    }

    /// Fewest and most operands.
    pub fn arity(&self) -> (usize, usize) {
        let many = usize::MAX;
        // An expression may read any number of further operands.
        let open = |lo: usize, hi: usize| match self.expr() {
            Some(_) => (lo, many),
            None => (lo, hi),
        };
        match self {
            OpKind::Const { .. }
            | OpKind::Splat { .. }
            | OpKind::Iota { .. }
            | OpKind::Dim { .. } => (0, 0),
            OpKind::Unary(_)
            | OpKind::Cast
            | OpKind::Dequantize
            | OpKind::Reshape
            | OpKind::Transpose { .. }
            | OpKind::Expand
            | OpKind::Slice { .. }
            | OpKind::Pad { .. }
            | OpKind::Reduce { .. }
            | OpKind::CumSum { .. }
            | OpKind::Softmax { .. }
            | OpKind::Pool { .. } => (1, 1),
            OpKind::Binary(_) | OpKind::Gather { .. } | OpKind::MatMul => (2, 2),
            OpKind::Select | OpKind::SparseLinear => (3, 3),
            OpKind::Rotary(_) => (3, 4),
            OpKind::Quantize => (1, 3),
            OpKind::Map(_) | OpKind::Concat { .. } => (1, many),
            OpKind::Linear { .. } | OpKind::Conv { .. } | OpKind::LayerNorm { .. } => open(2, 3),
            OpKind::RmsNorm { .. } => open(2, 2),
            OpKind::Attention { attrs, .. } => {
                let n = 3 + usize::from(attrs.mask);
                open(n, n)
            }
        }
    }
}
