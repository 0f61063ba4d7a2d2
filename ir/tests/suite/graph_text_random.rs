//! The text form under random input: modules of any content round-trip, and no text makes the
//! parser or the verifier panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use qcc_ir::expr::{BinaryFn, Expr, Node, NodeId, Store, UnaryFn};
use qcc_ir::format::{Block, BlockShape, PowerRound};
use qcc_ir::graph::{
    AttentionAttrs, Def, Elem, Func, Loc, Module, Op, OpId, OpKind, PoolFn, QuantType, ReduceFn,
    RotaryAttrs, ScaleType, Symbol, TensorType, Value, ValueId, Weight, WeightData, WeightId,
    Window, parse, verify,
};
use qcc_ir::{DType, DimExpr};

fn name() -> impl Strategy<Value = String> {
    let parts = [
        "x", "_1", "é", " ", "\"", "\\", "//", "/", ":", "\n", ".", "..", "min", "0", "\u{1}",
    ];
    vec(select(parts.to_vec()), 0..3).prop_map(|v| v.concat())
}

fn symbol() -> impl Strategy<Value = String> {
    select(vec!["n", "m", "min", "max", "a b", "x/y", "q", "1"]).prop_map(String::from)
}

fn dim() -> impl Strategy<Value = DimExpr> {
    let number = prop_oneof![-4..100i64, select(vec![i64::MIN, i64::MAX, 1 << 40])];
    let leaf = prop_oneof![
        number.prop_map(DimExpr::from),
        symbol().prop_map(DimExpr::sym)
    ];
    leaf.prop_recursive(4, 12, 2, |d| {
        (0..7u8, d.clone(), d).prop_map(|(op, a, b)| match op {
            0 | 1 => a + b,
            2 => a - b,
            3 => a * b,
            4 => a.floor_div(&b),
            5 => a.modulo(&b),
            _ => a.min_with(&b).max_with(&b),
        })
    })
}

fn dims() -> impl Strategy<Value = Vec<DimExpr>> {
    vec(dim(), 0..4)
}

fn dtype() -> impl Strategy<Value = DType> {
    select(DType::ALL.to_vec())
}

fn elem() -> impl Strategy<Value = Elem> {
    let block = vec(option::of(0..200u64), 0..4).prop_map(|v| {
        BlockShape(
            v.into_iter()
                .map(|b| b.map_or(Block::All, Block::Fixed))
                .collect(),
        )
    });
    let scale = prop_oneof![
        (dtype(), dtype()).prop_map(|(a, b)| ScaleType::TwoLevel(a, b)),
        dtype().prop_map(ScaleType::Plain),
        dtype().prop_map(ScaleType::Table),
        select(PowerRound::ALL.to_vec()).prop_map(ScaleType::Power),
    ];
    let quant = (
        dtype(),
        block,
        scale,
        option::of(dtype()),
        any::<[bool; 2]>(),
    )
        .prop_map(|(storage, block, scale, zero, [dynamic, narrow])| {
            Elem::Quant(QuantType {
                storage,
                block,
                scale,
                zero,
                dynamic,
                narrow,
            })
        });
    prop_oneof![dtype().prop_map(Elem::Plain), quant]
}

fn tensor_type() -> impl Strategy<Value = TensorType> {
    (elem(), dims()).prop_map(|(elem, shape)| TensorType { elem, shape })
}

/// Bits of floats, NaNs and infinities among them.
fn f32_bits() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        any::<i16>().prop_map(|v| f32::from(v).to_bits())
    ]
}

fn f64_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<i16>().prop_map(|v| f64::from(v).to_bits())
    ]
}

/// Steps in order, as a text can only say them.
fn expr() -> impl Strategy<Value = Expr> {
    let step = (0..8u8, any::<[u8; 3]>(), any::<i64>(), f32_bits(), dtype());
    let store = (
        any::<u8>(),
        option::of(any::<u8>()),
        option::of(any::<u8>()),
    );
    (vec(step, 0..8), vec(store, 0..3)).prop_map(|(steps, stores)| {
        let mut e = Expr::default();
        for (kind, args, int, bits, d) in steps {
            let len = e.nodes.len();
            let arg = |i: usize| NodeId(u32::from(args[i]) % len.max(1) as u32);
            let unary = UnaryFn::ALL[usize::from(args[2]) % UnaryFn::ALL.len()];
            let binary = BinaryFn::ALL[usize::from(args[2]) % BinaryFn::ALL.len()];
            e.nodes.push(match kind {
                4 if len > 0 => Node::Unary(unary, arg(0)),
                5 if len > 0 => Node::Binary(binary, arg(0), arg(1)),
                6 if len > 0 => Node::Select(arg(0), arg(1), arg(2)),
                7 if len > 0 => Node::Cast(d, arg(0)),
                0 => Node::Acc(args[0]),
                1 => Node::ConstI64(int),
                2 => Node::ConstF32(bits),
                _ => Node::Input(args[0]),
            });
        }
        for (v, scale, zero) in stores.into_iter().filter(|_| !e.nodes.is_empty()) {
            let value = NodeId(u32::from(v) % e.nodes.len() as u32);
            e.stores.push(Store { value, scale, zero });
        }
        e
    })
}

fn sizes() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![0..4u64, any::<u64>()], 0..4)
}

fn window() -> impl Strategy<Value = Window> {
    let tame = vec(1..5u64, 0..3).prop_map(|kernel| Window {
        strides: vec![1; kernel.len()],
        dilations: vec![1; kernel.len()],
        pad_lo: vec![0; kernel.len()],
        pad_hi: vec![0; kernel.len()],
        kernel,
    });
    let wild = [sizes(), sizes(), sizes(), sizes(), sizes()].prop_map(
        |[kernel, strides, dilations, pad_lo, pad_hi]| Window {
            kernel,
            strides,
            dilations,
            pad_lo,
            pad_hi,
        },
    );
    prop_oneof![tame, wild]
}

/// Any op; weights are 0 or 1.
fn kind() -> impl Strategy<Value = OpKind> {
    let axis = 0..5usize;
    let axes = vec(0..5usize, 0..4);
    let flag = any::<bool>();
    let weight = (0..2u32).prop_map(WeightId);
    let expr1 = || option::of(expr());
    let plain = prop_oneof![
        (
            weight.clone(),
            option::of(weight.clone()),
            option::of(weight.clone()),
            option::of(weight)
        )
            .prop_map(|(weight, scale, zero, global)| OpKind::Const {
                weight,
                scale,
                zero,
                global
            }),
        f64_bits().prop_map(|value| OpKind::Splat { value }),
        axis.clone().prop_map(|axis| OpKind::Iota { axis }),
        dim().prop_map(|value| OpKind::Dim { value }),
        select(UnaryFn::ALL).prop_map(OpKind::Unary),
        select(BinaryFn::ALL).prop_map(OpKind::Binary),
        Just(OpKind::Select),
        Just(OpKind::Cast),
        Just(OpKind::Quantize),
        Just(OpKind::Dequantize),
        Just(OpKind::Reshape),
        Just(OpKind::Expand),
        Just(OpKind::MatMul),
        Just(OpKind::SparseLinear),
        axes.clone().prop_map(|perm| OpKind::Transpose { perm }),
        (dims(), dims(), sizes()).prop_map(|(starts, ends, steps)| OpKind::Slice {
            starts,
            ends,
            steps
        }),
        axis.clone().prop_map(|axis| OpKind::Concat { axis }),
        (sizes(), sizes(), f64_bits()).prop_map(|(lo, hi, value)| OpKind::Pad { lo, hi, value }),
        axis.clone().prop_map(|axis| OpKind::Gather { axis }),
        (select(ReduceFn::ALL), axes, flag).prop_map(|(f, axes, keep)| OpKind::Reduce {
            f,
            axes,
            keep
        }),
        axis.clone().prop_map(|axis| OpKind::CumSum { axis }),
        axis.prop_map(|axis| OpKind::Softmax { axis }),
        (select(PoolFn::ALL), window()).prop_map(|(f, window)| OpKind::Pool { f, window }),
        (any::<u64>(), flag)
            .prop_map(|(heads, interleaved)| OpKind::Rotary(RotaryAttrs { heads, interleaved })),
    ];
    let heads = (0..9u64, 0..9u64, f32_bits(), any::<[bool; 2]>());
    let skeleton = prop_oneof![
        expr().prop_map(OpKind::Map),
        (sizes(), 0..4u8, expr1()).prop_map(|(segments, accs, expr)| OpKind::Linear {
            segments,
            accs,
            expr
        }),
        (window(), any::<u64>(), expr1()).prop_map(|(window, groups, expr)| OpKind::Conv {
            window,
            groups,
            expr
        }),
        (f32_bits(), expr1()).prop_map(|(eps, expr)| OpKind::LayerNorm { eps, expr }),
        (f32_bits(), expr1()).prop_map(|(eps, expr)| OpKind::RmsNorm { eps, expr }),
        (heads, expr1()).prop_map(|((heads, kv_heads, scale, [mask, causal]), expr)| {
            OpKind::Attention {
                attrs: AttentionAttrs {
                    heads,
                    kv_heads,
                    scale,
                    mask,
                    causal,
                },
                expr,
            }
        }),
    ];
    prop_oneof![3 => plain, 2 => skeleton]
}

fn weight() -> impl Strategy<Value = Weight> {
    let data = prop_oneof![
        Just(WeightData::Extern),
        f64_bits().prop_map(WeightData::Splat),
        vec(f64_bits(), 0..5).prop_map(WeightData::List),
        (any::<u64>(), f64_bits()).prop_map(|(s, d)| WeightData::Normal(s, d)),
    ];
    (name(), dtype(), sizes(), data).prop_map(|(name, dtype, dims, data)| Weight {
        name,
        dtype,
        dims,
        data,
    })
}

type RawOp = (OpKind, Vec<TensorType>, Vec<u8>, Vec<String>);

/// A function whose operands are any of its values.
fn func() -> impl Strategy<Value = Func> {
    let op = (
        kind(),
        vec(tensor_type(), 1..3),
        vec(any::<u8>(), 0..5),
        vec(name(), 0..3),
    );
    let result = (name(), any::<u8>());
    (
        name(),
        vec(tensor_type(), 1..4),
        vec(op, 0..8),
        vec(result, 0..3),
        vec(name(), 32),
    )
        .prop_map(build)
}
/// Name, parameter types, ops, results and value names of a function to be made valid.
type RawFunc = (
    String,
    Vec<TensorType>,
    Vec<RawOp>,
    Vec<(String, u8)>,
    Vec<String>,
);

fn build((name, params, ops, results, names): RawFunc) -> Func {
    let mut f = Func {
        name,
        ..Func::default()
    };
    let define = |f: &mut Func, ty, def| {
        let at = f.values.len();
        // Unique whatever the random part is.
        let name = format!("{}{at}", names[at]);
        f.values.push(Value { name, ty, def });
        ValueId(at as u32)
    };
    for (i, ty) in params.into_iter().enumerate() {
        let v = define(&mut f, ty, Def::Param(i as u32));
        f.params.push(v);
    }
    let mut uses = Vec::new();
    for (i, (kind, types, operands, nodes)) in ops.into_iter().enumerate() {
        let results = types
            .into_iter()
            .enumerate()
            .map(|(k, ty)| define(&mut f, ty, Def::Result(OpId(i as u32), k as u32)))
            .collect();
        // Weights are the operands of a constant.
        let is_const = matches!(kind, OpKind::Const { .. });
        uses.push(if is_const { Vec::new() } else { operands });
        f.ops.push(Op {
            kind,
            operands: Vec::new(),
            results,
            loc: Loc { nodes },
        });
    }
    let len = f.values.len() as u32;
    let pick = |v: u8| ValueId(u32::from(v) % len);
    for (op, operands) in f.ops.iter_mut().zip(uses) {
        op.operands = operands.into_iter().map(pick).collect();
    }
    f.results = results.into_iter().map(|(n, v)| (n, pick(v))).collect();
    f
}

/// A module that a failure shows as text.
struct Shown(Module);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn module() -> impl Strategy<Value = Shown> {
    let symbol = (
        symbol(),
        any::<u64>(),
        any::<u64>(),
        vec(any::<u64>(), 0..3),
    )
        .prop_map(|(name, min, max, points)| Symbol {
            name,
            min,
            max,
            points,
        });
    (vec(symbol, 0..3), [weight(), weight()], vec(func(), 0..3)).prop_map(
        |(symbols, mut weights, funcs)| {
            for (i, w) in weights.iter_mut().enumerate() {
                w.name = format!("{}{i}", w.name);
            }
            Shown(Module {
                symbols,
                weights: weights.to_vec(),
                funcs,
            })
        },
    )
}

/// Everything of a module but weight bytes, comparable.
fn contents(m: &Module) -> (Vec<Symbol>, Vec<String>, Vec<Func>) {
    let weights = m.weights.iter().map(|w| format!("{w:?}")).collect();
    (m.symbols.clone(), weights, m.funcs.clone())
}

/// What must hold of any text.
fn never_panics(text: &str) {
    if let Ok(m) = parse(text) {
        verify(&m);
        let printed = m.to_string();
        let again = parse(&printed).map_err(|e| format!("{}\n{printed}", e[0]));
        assert_eq!(again.map(|m| m.to_string()), Ok(printed));
    }
}

const EXAMPLE: &str = r#"qir 1
dim n = 1..4096 @ 1, 16
weight @"a b": e4m3[8, 8] = [1, -0.5, inf]
weight @s: f32[8, 1] = normal(7, 0.1)
func @main(%x: f32[n, 8], %"x:0": q<i8, [1, *], scale=f16, zero=i8, dynamic, narrow>[2*n + 1, (n + 3)//4]) -> (y: f32[n, 8], z: f16[n, 8]) {
  %w: q<e4m3, [1, *], scale=e4m3/f32>[8, 8] = const @"a b", @s @"W", "V"
  %1: f32[n, 8] = linear %x, %w { segments = [4, 4], accs = 2, expr = { t0 = acc0; t1 = -0.5; t2 = add t0, t1; store t2 scale in4 zero in5 } }
  %2: f32[n, 8], %3: f16[n, 8] = map %x, %1 { expr = { t0 = in0; t1 = cast f16 t0; store t0; store t1 } }
  %4: f32[1, 4] = slice %x { starts = [0, min(n, 3)], ends = [1, n % 5], steps = [2, 1] } // cut
  return %2, %3
}
"#;

/// Pieces of text that the lexer and the parser treat specially.
fn soup() -> impl Strategy<Value = String> {
    let words: Vec<String> = EXAMPLE
        .split_inclusive([' ', '\n', '(', ')', '[', ']', ',', '<', '>'])
        .map(String::from)
        .collect();
    let odd = [
        "%",
        "@",
        "\"",
        "\\",
        "//",
        "{",
        "}",
        "(",
        "[",
        "..",
        "->",
        "-",
        "*",
        "é",
        "0x",
        "1e",
        "9223372036854775808",
        "expr",
        "=",
        "func @f(",
        "min(",
        "q<",
        "\n",
    ]
    .map(String::from);
    prop_oneof![3 => select(words), 1 => select(odd.to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn modules_round_trip(Shown(m) in module()) {
        let text = m.to_string();
        let back = parse(&text).map_err(|e| TestCaseError::fail(format!("{}\n{text}", e[0])))?;
        prop_assert_eq!(contents(&back), contents(&m), "{}", text);
        prop_assert_eq!(back.to_string(), text);
        verify(&m);
    }

    #[test]
    fn bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
        never_panics(&String::from_utf8_lossy(&bytes));
        never_panics(&format!("qir 1\n{}", String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn token_soups_do_not_panic(words in vec(soup(), 0..60)) {
        never_panics(&format!("qir 1\n{}", words.concat()));
    }

    /// One valid text with a few pieces lost, repeated or exchanged.
    #[test]
    fn damaged_texts_do_not_panic(cuts in vec((any::<u16>(), 0..20usize, soup()), 1..4)) {
        let mut text: Vec<char> = EXAMPLE.chars().collect();
        for (at, len, piece) in cuts {
            let at = usize::from(at) % (text.len() + 1);
            let end = (at + len).min(text.len());
            text.splice(at..end, piece.chars());
        }
        never_panics(&text.into_iter().collect::<String>());
    }
}
