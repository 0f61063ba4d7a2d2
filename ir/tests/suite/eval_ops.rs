//! The oracle on cases small enough to check by hand.

use qcc_ir::expr::{BinaryFn, Expr, Node, Store, UnaryFn};
use qcc_ir::format::BlockShape;
use qcc_ir::graph::{
    AttentionAttrs, Builder, Elem, Module, OpKind, QuantType, RotaryAttrs, TensorType, ValueId,
    Weight, WeightData, Window, verify,
};
use qcc_ir::{DType, DimExpr, Tensor, eval};

fn dims(d: &[u64]) -> Vec<DimExpr> {
    d.iter().map(|d| DimExpr::from(*d as i64)).collect()
}

fn f32s(d: &[u64]) -> TensorType {
    TensorType::fixed(DType::F32, d)
}

fn run(m: &Module, inputs: &[Tensor]) -> Vec<Tensor> {
    let problems = verify(m);
    assert!(problems.is_empty(), "{problems:?}");
    eval::run(m, inputs).unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.as_slice::<f32>().unwrap().to_vec()
}

fn finish(b: Builder, y: ValueId) -> Module {
    b.finish_module([("y", y)])
}

#[test]
fn integer_linear_is_exact_before_its_scales() {
    let mut b = Builder::new("main");
    let x = b.param("x", f32s(&[1, 2]));
    let row = QuantType {
        dynamic: true,
        narrow: true,
        ..QuantType::symmetric(DType::I8, BlockShape::row(2))
    };
    let xq = b.op(
        OpKind::Quantize,
        &[x],
        TensorType::quant(row, dims(&[1, 2])),
    );
    let mut m = Module::default();
    let weight = m.add_weight(Weight {
        name: "w".into(),
        dtype: DType::I8,
        dims: vec![2, 2],
        data: list(&[1.0, -2.0, 100.0, 3.0]),
    });
    let scale = m.add_weight(Weight {
        name: "s".into(),
        dtype: DType::F32,
        dims: vec![2, 1],
        data: list(&[0.5, 0.25]),
    });
    let channel = QuantType::symmetric(DType::I8, BlockShape::row(2));
    let kind = OpKind::Const {
        weight,
        scale: Some(scale),
        zero: None,
        global: None,
    };
    let w = b.op(kind, &[], TensorType::quant(channel, dims(&[2, 2])));
    let y = b
        .infer(
            OpKind::Linear {
                segments: vec![],
                accs: 1,
                expr: None,
            },
            &[xq, w],
            Elem::Plain(DType::F32),
        )
        .unwrap()[0];
    m.funcs.push(b.finish([("y", y)]));
    // absmax 2.54 gives the scale 0.02 and the codes 127 and 50.
    let out = run(&m, &[Tensor::f32(&[1, 2], &[2.54, 1.0]).unwrap()]);
    let s = 2.54f32 / 127.0;
    assert_eq!(
        values(&out[0]),
        [
            (127 - 100) as f32 * s * 0.5,
            (12700 + 150) as f32 * s * 0.25
        ]
    );
}

fn list(v: &[f64]) -> WeightData {
    WeightData::List(v.iter().map(|x| x.to_bits()).collect())
}

#[test]
fn two_accumulators_and_an_expression() {
    let mut b = Builder::new("main");
    let (x, w) = (b.param("x", f32s(&[1, 2])), b.param("w", f32s(&[4, 2])));
    let mut e = Expr::default();
    let (g, u) = (e.push(Node::Acc(0)), e.push(Node::Acc(1)));
    let g = e.push(Node::Unary(UnaryFn::Relu, g));
    let p = e.push(Node::Binary(BinaryFn::Mul, g, u));
    e.store(p);
    let kind = OpKind::Linear {
        segments: vec![],
        accs: 2,
        expr: Some(e),
    };
    let y = b.infer(kind, &[x, w], Elem::Plain(DType::F32)).unwrap()[0];
    let x = Tensor::f32(&[1, 2], &[1.0, 2.0]).unwrap();
    let w = Tensor::f32(&[4, 2], &[1.0, 1.0, -1.0, 0.0, 2.0, 0.0, 5.0, 5.0]).unwrap();
    let out = run(&finish(b, y), &[x, w]);
    assert_eq!(values(&out[0]), [3.0 * 2.0, 0.0]);
}

#[test]
fn segments_cut_the_columns() {
    let mut b = Builder::new("main");
    let (x, w, bias) = (
        b.param("x", f32s(&[2, 1])),
        b.param("w", f32s(&[3, 1])),
        b.param("b", f32s(&[3])),
    );
    let kind = OpKind::Linear {
        segments: vec![2, 1],
        accs: 1,
        expr: None,
    };
    let r = b
        .infer(kind, &[x, w, bias], Elem::Plain(DType::F32))
        .unwrap();
    let m = b.finish_module([("a", r[0]), ("b", r[1])]);
    let t = |d: &[u64], v: &[f32]| Tensor::f32(d, v).unwrap();
    let out = run(
        &m,
        &[
            t(&[2, 1], &[1.0, 2.0]),
            t(&[3, 1], &[1.0, 10.0, 100.0]),
            t(&[3], &[0.0, 0.0, 0.5]),
        ],
    );
    assert_eq!(values(&out[0]), [1.0, 10.0, 2.0, 20.0]);
    assert_eq!(values(&out[1]), [100.5, 200.5]);
}

#[test]
fn rms_norm_stores_a_float_and_a_quantized_copy() {
    let mut b = Builder::new("main");
    let (x, g, s) = (
        b.param("x", f32s(&[1, 2])),
        b.param("g", f32s(&[2])),
        b.param("s", f32s(&[])),
    );
    let mut e = Expr::default();
    let (acc, gain) = (e.push(Node::Acc(0)), e.push(Node::Input(1)));
    let v = e.push(Node::Binary(BinaryFn::Mul, acc, gain));
    e.store(v);
    e.stores.push(Store {
        value: v,
        scale: Some(2),
        zero: None,
    });
    let q = QuantType::symmetric(DType::I8, BlockShape::tensor(2));
    let types = vec![f32s(&[1, 2]), TensorType::quant(q, dims(&[1, 2]))];
    let r = b.push(
        OpKind::RmsNorm {
            eps: 0f32.to_bits(),
            expr: Some(e),
        },
        &[x, g, s],
        types,
        &[],
    );
    let d = b.op(OpKind::Dequantize, &[r[1]], f32s(&[1, 2]));
    let m = b.finish_module([("a", r[0]), ("d", d)]);
    let t = |d: &[u64], v: &[f32]| Tensor::f32(d, v).unwrap();
    let out = run(
        &m,
        &[
            t(&[1, 2], &[1.0, 7.0]),
            t(&[2], &[5.0, 5.0]),
            t(&[], &[0.5]),
        ],
    );
    // The mean square is 25, so the row becomes [0.2, 1.4]·5.
    assert_eq!(values(&out[0]), [1.0, 7.0]);
    assert_eq!(values(&out[1]), [1.0, 7.0]);
}

#[test]
fn causal_attention_with_grouped_heads() {
    let attrs = AttentionAttrs {
        heads: 2,
        kv_heads: 1,
        scale: 0f32.to_bits(),
        mask: false,
        causal: true,
    };
    let mut b = Builder::new("main");
    let (q, k, v) = (
        b.param("q", f32s(&[1, 2, 2])),
        b.param("k", f32s(&[1, 3, 1])),
        b.param("v", f32s(&[1, 3, 1])),
    );
    let y = b
        .same(OpKind::Attention { attrs, expr: None }, &[q, k, v])
        .unwrap();
    let t = |d: &[u64], v: &[f32]| Tensor::f32(d, v).unwrap();
    let out = run(
        &finish(b, y),
        &[
            t(&[1, 2, 2], &[1.0; 4]),
            t(&[1, 3, 1], &[1.0; 3]),
            t(&[1, 3, 1], &[1.0, 2.0, 6.0]),
        ],
    );
    // With a scale of 0 every visible key weighs the same; the last query sees all three.
    assert_eq!(values(&out[0]), [1.5, 1.5, 3.0, 3.0]);
}

#[test]
fn a_masked_row_without_keys_gives_zeros() {
    let attrs = AttentionAttrs {
        heads: 1,
        kv_heads: 1,
        scale: 1f32.to_bits(),
        mask: true,
        causal: false,
    };
    let mut b = Builder::new("main");
    let (q, k, v) = (
        b.param("q", f32s(&[1, 2, 1])),
        b.param("k", f32s(&[1, 2, 1])),
        b.param("v", f32s(&[1, 2, 1])),
    );
    let mask = b.param("m", TensorType::fixed(DType::Bool, &[2, 2]));
    let y = b
        .same(OpKind::Attention { attrs, expr: None }, &[q, k, v, mask])
        .unwrap();
    let t = |v: &[f32]| Tensor::f32(&[1, 2, 1], v).unwrap();
    let mask = Tensor::from_bytes(DType::Bool, &[2, 2], &[0, 0, 0, 1]).unwrap();
    let out = run(
        &finish(b, y),
        &[t(&[1.0, 1.0]), t(&[1.0, 1.0]), t(&[3.0, 4.0]), mask],
    );
    assert_eq!(values(&out[0]), [0.0, 4.0]);
}

#[test]
fn rotary_turns_halves_and_neighbours() {
    for (interleaved, want) in [
        (false, [-3.0, -4.0, 1.0, 2.0]),
        (true, [-2.0, 1.0, -4.0, 3.0]),
    ] {
        let mut b = Builder::new("main");
        let (x, c, s) = (
            b.param("x", f32s(&[1, 1, 4])),
            b.param("c", f32s(&[1, 2])),
            b.param("s", f32s(&[1, 2])),
        );
        let y = b
            .same(
                OpKind::Rotary(RotaryAttrs {
                    heads: 1,
                    interleaved,
                }),
                &[x, c, s],
            )
            .unwrap();
        let t = |d: &[u64], v: &[f32]| Tensor::f32(d, v).unwrap();
        let out = run(
            &finish(b, y),
            &[
                t(&[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]),
                t(&[1, 2], &[0.0, 0.0]),
                t(&[1, 2], &[1.0, 1.0]),
            ],
        );
        assert_eq!(values(&out[0]), want);
    }
}

#[test]
fn grouped_convolution_with_padding_and_bias() {
    let window = Window {
        kernel: vec![3],
        strides: vec![2],
        dilations: vec![1],
        pad_lo: vec![1],
        pad_hi: vec![0],
    };
    let mut b = Builder::new("main");
    let (x, w, bias) = (
        b.param("x", f32s(&[1, 2, 4])),
        b.param("w", f32s(&[2, 1, 3])),
        b.param("b", f32s(&[2])),
    );
    let y = b
        .same(
            OpKind::Conv {
                window,
                groups: 2,
                expr: None,
            },
            &[x, w, bias],
        )
        .unwrap();
    assert_eq!(b.ty(y).shape, dims(&[1, 2, 2]));
    let t = |d: &[u64], v: &[f32]| Tensor::f32(d, v).unwrap();
    let x = t(&[1, 2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let out = run(
        &finish(b, y),
        &[
            x,
            t(&[2, 1, 3], &[1.0, 10.0, 100.0, 1.0, 1.0, 1.0]),
            t(&[2], &[0.0, 0.5]),
        ],
    );
    assert_eq!(values(&out[0]), [210.0, 432.0, 11.5, 21.5]);
}

#[test]
fn refusals_name_the_input_and_both_sides() {
    let mut b = Builder::new("main");
    let x = b.param(
        "x",
        TensorType::new(DType::F32, [DimExpr::sym("n"), DimExpr::from(2)]),
    );
    let y = b.unary(UnaryFn::Exp, x).unwrap();
    let m = finish(b, y);
    let err = |t: Tensor| eval::run(&m, &[t]).unwrap_err().to_string();
    assert!(err(Tensor::f32(&[1, 3], &[0.0; 3]).unwrap()).contains("[1, 3] was given"));
    assert!(err(Tensor::i64(&[1, 2], &[0; 2]).unwrap()).contains("i64[1, 2] was given"));
    assert!(
        err(Tensor::zeros(DType::F32, &[0, 2]).unwrap())
            .contains("outside the compiled range 1..65536")
    );
    assert!(
        eval::run(&m, &[])
            .unwrap_err()
            .to_string()
            .contains("0 inputs were given, 1 are needed")
    );
}
