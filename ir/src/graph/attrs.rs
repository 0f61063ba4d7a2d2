//! The attributes of every op, in the order in which the text form writes them.
//!
//! [`attrs`] is the only list: the printer writes what differs from its default, the parser
//! finds an attribute by its key and puts the value in its place. [`prototypes`] holds one op
//! of each kind for the parser to fill in. A new op needs its arm and its row here, nothing
//! else, to have a text form. The weights of `const` are written like operands instead.

use super::module::WeightId;
use super::op::{AttentionAttrs, OpKind, PoolFn, ReduceFn, RotaryAttrs, Window};
use super::parse::{dim, dims, expr};
use super::print::expr_text;
use crate::DimExpr;
use crate::diag::Result;
use crate::expr::{BinaryFn, Expr, UnaryFn};
use crate::text::{Cursor, codes, f64_text, real_text};

/// How a value is written after `key =`.
struct Syntax<T> {
    print: fn(&T) -> String,
    parse: fn(&mut Cursor) -> Result<T>,
    /// A flag is its key alone; it is there or not.
    flag: bool,
}

/// A place in an op that holds an attribute's value.
trait Slot {
    fn text(&self) -> String;
    fn parse(&mut self, c: &mut Cursor) -> Result<()>;
    fn is_default(&self) -> bool;
    /// Puts the default in; `false` if there is none.
    fn reset(&mut self) -> bool;
}

struct Field<'a, T> {
    at: &'a mut T,
    default: Option<T>,
    syntax: Syntax<T>,
}

impl<T: PartialEq + Clone> Slot for Field<'_, T> {
    fn text(&self) -> String {
        (self.syntax.print)(self.at)
    }

    fn parse(&mut self, c: &mut Cursor) -> Result<()> {
        if !self.syntax.flag {
            c.expect("=")?;
        }
        *self.at = (self.syntax.parse)(c)?;
        Ok(())
    }

    fn is_default(&self) -> bool {
        self.default.as_ref() == Some(self.at)
    }

    fn reset(&mut self) -> bool {
        if let Some(d) = &self.default {
            *self.at = d.clone();
        }
        self.default.is_some()
    }
}

/// One attribute of an op.
pub(super) struct Attr<'a> {
    pub(super) key: &'static str,
    slot: Box<dyn Slot + 'a>,
    flag: bool,
}

impl Attr<'_> {
    /// `key = value`, or the key of a flag; `None` when there is nothing to say.
    pub(super) fn text(&self) -> Option<String> {
        match (self.slot.is_default(), self.flag) {
            (true, _) => None,
            (false, true) => Some(self.key.to_string()),
            (false, false) => Some(format!("{} = {}", self.key, self.slot.text())),
        }
    }

    /// Reads what follows the key.
    pub(super) fn parse(&mut self, c: &mut Cursor) -> Result<()> {
        self.slot.parse(c)
    }

    /// Takes the default; `false` if the attribute must be written.
    pub(super) fn reset(&mut self) -> bool {
        self.slot.reset()
    }
}

fn attr<'a, T: PartialEq + Clone + 'a>(
    key: &'static str,
    at: &'a mut T,
    syntax: Syntax<T>,
    default: Option<T>,
) -> Attr<'a> {
    let flag = syntax.flag;
    Attr {
        key,
        slot: Box::new(Field {
            at,
            default,
            syntax,
        }),
        flag,
    }
}

fn must<'a, T: PartialEq + Clone + 'a>(
    key: &'static str,
    at: &'a mut T,
    syntax: Syntax<T>,
) -> Attr<'a> {
    attr(key, at, syntax, None)
}

fn flag<'a>(key: &'static str, at: &'a mut bool) -> Attr<'a> {
    let syntax = Syntax {
        print: |_| String::new(),
        parse: |_| Ok(true),
        flag: true,
    };
    attr(key, at, syntax, Some(false))
}

fn maybe_expr(at: &mut Option<Expr>) -> Attr<'_> {
    let syntax = Syntax {
        print: |e: &Option<Expr>| e.as_ref().map_or_else(String::new, expr_text),
        parse: |c| expr(c).map(Some),
        flag: false,
    };
    attr("expr", at, syntax, Some(None))
}

macro_rules! syntax {
    ($name:ident: $t:ty = $print:expr, $parse:expr) => {
        const $name: Syntax<$t> = Syntax {
            print: $print,
            parse: $parse,
            flag: false,
        };
    };
}

syntax!(INDEX: usize = |v| v.to_string(), |c| c.int("an index"));
syntax!(INDICES: Vec<usize> = |v| list(v), |c| {
    c.expect("[")?;
    c.list("]", |c| c.int("an index"))
});
syntax!(SIZE: u64 = |v| v.to_string(), |c| c.int("a size"));
syntax!(SIZES: Vec<u64> = |v| list(v), |c| {
    c.expect("[")?;
    c.list("]", |c| c.int("a size"))
});
syntax!(COUNT: u8 = |v| v.to_string(), |c| c.int("a small count"));
syntax!(DIM: DimExpr = |d| format!("[{d}]"), |c| {
    c.expect("[")?;
    let d = dim(c)?;
    c.expect("]")?;
    Ok(d)
});
syntax!(DIMS: Vec<DimExpr> = |v| list(v), dims);
syntax!(F32: u32 = |b| real_text(*b), Cursor::f32_bits);
syntax!(F64: u64 = |b| f64_text(*b), Cursor::f64_bits);
syntax!(EXPR: Expr = expr_text, expr);
syntax!(REDUCE: ReduceFn = |f| f.name().into(), |c| {
    named(c, "a reduction", ReduceFn::from_name)
});
syntax!(POOL: PoolFn = |f| f.name().into(), |c| {
    named(c, "a pooling", PoolFn::from_name)
});

fn list<T: ToString>(v: &[T]) -> String {
    let parts: Vec<String> = v.iter().map(ToString::to_string).collect();
    format!("[{}]", parts.join(", "))
}

fn named<T>(c: &mut Cursor, what: &str, find: fn(&str) -> Option<T>) -> Result<T> {
    let pos = c.pos();
    let name = c.word(what)?;
    find(&name).ok_or_else(|| pos.error(codes::SYNTAX, format!("`{name}` is not {what}")))
}

fn window(w: &mut Window) -> Vec<Attr<'_>> {
    let ones = vec![1; w.kernel.len()];
    let zeros = vec![0; w.kernel.len()];
    vec![
        must("kernel", &mut w.kernel, SIZES),
        attr("strides", &mut w.strides, SIZES, Some(ones.clone())),
        attr("dilations", &mut w.dilations, SIZES, Some(ones)),
        attr("pad_lo", &mut w.pad_lo, SIZES, Some(zeros.clone())),
        attr("pad_hi", &mut w.pad_hi, SIZES, Some(zeros)),
    ]
}

/// The attributes of an op, in the order of the text form.
///
/// A default may follow from an earlier attribute, so that one must be in place before.
pub(super) fn attrs(kind: &mut OpKind) -> Vec<Attr<'_>> {
    match kind {
        OpKind::Const { .. }
        | OpKind::Unary(_)
        | OpKind::Binary(_)
        | OpKind::Select
        | OpKind::Cast
        | OpKind::Quantize
        | OpKind::Dequantize
        | OpKind::Reshape
        | OpKind::Expand
        | OpKind::MatMul
        | OpKind::SparseLinear => Vec::new(),
        OpKind::Splat { value } => vec![must("value", value, F64)],
        OpKind::Dim { value } => vec![must("value", value, DIM)],
        OpKind::Map(e) => vec![must("expr", e, EXPR)],
        OpKind::Transpose { perm } => vec![must("perm", perm, INDICES)],
        OpKind::Slice {
            starts,
            ends,
            steps,
        } => {
            let ones = vec![1; starts.len()];
            vec![
                must("starts", starts, DIMS),
                must("ends", ends, DIMS),
                attr("steps", steps, SIZES, Some(ones)),
            ]
        }
        OpKind::Pad { lo, hi, value } => vec![
            must("lo", lo, SIZES),
            must("hi", hi, SIZES),
            attr("value", value, F64, Some(0)),
        ],
        OpKind::Iota { axis }
        | OpKind::Concat { axis }
        | OpKind::Gather { axis }
        | OpKind::CumSum { axis }
        | OpKind::Softmax { axis } => vec![must("axis", axis, INDEX)],
        OpKind::Reduce { f, axes, keep } => vec![
            must("f", f, REDUCE),
            must("axes", axes, INDICES),
            flag("keep", keep),
        ],
        OpKind::Linear {
            segments,
            accs,
            expr,
        } => vec![
            attr("segments", segments, SIZES, Some(Vec::new())),
            attr("accs", accs, COUNT, Some(1)),
            maybe_expr(expr),
        ],
        OpKind::Conv {
            window: w,
            groups,
            expr,
        } => {
            let mut v = window(w);
            v.push(attr("groups", groups, SIZE, Some(1)));
            v.push(maybe_expr(expr));
            v
        }
        OpKind::Pool { f, window: w } => {
            let mut v = vec![must("f", f, POOL)];
            v.extend(window(w));
            v
        }
        OpKind::LayerNorm { eps, expr } | OpKind::RmsNorm { eps, expr } => {
            vec![must("eps", eps, F32), maybe_expr(expr)]
        }
        OpKind::Attention { attrs: a, expr } => {
            let heads = a.heads;
            vec![
                must("heads", &mut a.heads, SIZE),
                attr("kv_heads", &mut a.kv_heads, SIZE, Some(heads)),
                must("scale", &mut a.scale, F32),
                flag("mask", &mut a.mask),
                flag("causal", &mut a.causal),
                maybe_expr(expr),
            ]
        }
        OpKind::Rotary(RotaryAttrs { heads, interleaved }) => {
            vec![must("heads", heads, SIZE), flag("interleaved", interleaved)]
        }
    }
}

/// The op of this name with attributes still to be filled in.
pub(super) fn prototype(name: &str) -> Option<OpKind> {
    prototypes()
        .into_iter()
        .find(|k| k.name() == name)
        .or_else(|| UnaryFn::from_name(name).map(OpKind::Unary))
        .or_else(|| BinaryFn::from_name(name).map(OpKind::Binary))
}

/// One op of each kind but the elementwise functions.
fn prototypes() -> Vec<OpKind> {
    let window = Window {
        kernel: Vec::new(),
        strides: Vec::new(),
        dilations: Vec::new(),
        pad_lo: Vec::new(),
        pad_hi: Vec::new(),
    };
    vec![
        OpKind::Const {
            weight: WeightId(0),
            scale: None,
            zero: None,
            global: None,
        },
        OpKind::Splat { value: 0 },
        OpKind::Iota { axis: 0 },
        OpKind::Dim {
            value: DimExpr::default(),
        },
        OpKind::Select,
        OpKind::Cast,
        OpKind::Map(Expr::default()),
        OpKind::Quantize,
        OpKind::Dequantize,
        OpKind::Reshape,
        OpKind::Transpose { perm: Vec::new() },
        OpKind::Expand,
        OpKind::Slice {
            starts: Vec::new(),
            ends: Vec::new(),
            steps: Vec::new(),
        },
        OpKind::Concat { axis: 0 },
        OpKind::Pad {
            lo: Vec::new(),
            hi: Vec::new(),
            value: 0,
        },
        OpKind::Gather { axis: 0 },
        OpKind::Reduce {
            f: ReduceFn::Sum,
            axes: Vec::new(),
            keep: false,
        },
        OpKind::CumSum { axis: 0 },
        OpKind::Softmax { axis: 0 },
        OpKind::MatMul,
        OpKind::Linear {
            segments: Vec::new(),
            accs: 1,
            expr: None,
        },
        OpKind::SparseLinear,
        OpKind::Conv {
            window: window.clone(),
            groups: 1,
            expr: None,
        },
        OpKind::Pool {
            f: PoolFn::Max,
            window,
        },
        OpKind::LayerNorm { eps: 0, expr: None },
        OpKind::RmsNorm { eps: 0, expr: None },
        OpKind::Attention {
            attrs: AttentionAttrs {
                heads: 0,
                kv_heads: 0,
                scale: 0,
                mask: false,
                causal: false,
            },
            expr: None,
        },
        OpKind::Rotary(RotaryAttrs {
            heads: 0,
            interleaved: false,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers the kinds of ops; a kind that is not listed does not compile.
    macro_rules! kinds {
        ($($kind:pat),* $(,)?) => {
            const KINDS: usize = [$(stringify!($kind)),*].len();
            fn ordinal(kind: &OpKind) -> usize {
                let mut at = 0;
                $(if matches!(kind, $kind) { return at; } at += 1;)*
                let _ = at;
                match kind { $($kind => unreachable!(),)* }
            }
        };
    }

    kinds! {
        OpKind::Const { .. }, OpKind::Splat { .. }, OpKind::Iota { .. }, OpKind::Dim { .. },
        OpKind::Unary(_), OpKind::Binary(_), OpKind::Select, OpKind::Cast, OpKind::Map(_),
        OpKind::Quantize, OpKind::Dequantize, OpKind::Reshape, OpKind::Transpose { .. },
        OpKind::Expand, OpKind::Slice { .. }, OpKind::Concat { .. }, OpKind::Pad { .. },
        OpKind::Gather { .. }, OpKind::Reduce { .. }, OpKind::CumSum { .. },
        OpKind::Softmax { .. }, OpKind::MatMul, OpKind::Linear { .. }, OpKind::SparseLinear,
        OpKind::Conv { .. }, OpKind::Pool { .. }, OpKind::LayerNorm { .. }, OpKind::RmsNorm { .. },
        OpKind::Attention { .. }, OpKind::Rotary(_),
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        let mut all = prototypes();
        all.extend(UnaryFn::ALL.iter().map(|f| OpKind::Unary(*f)));
        all.extend(BinaryFn::ALL.iter().map(|f| OpKind::Binary(*f)));
        let mut seen = [false; KINDS];
        for kind in &all {
            seen[ordinal(kind)] = true;
            assert_eq!(
                prototype(kind.name()).as_ref(),
                Some(kind),
                "two ops of one name"
            );
        }
        assert_eq!(seen, [true; KINDS]);
    }
}
