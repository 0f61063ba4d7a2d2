//! Compiled row kernels against the kernel evaluator and against [`crate::math`].

use super::Jit;
use crate::kernels::rows::{Input, Output, Reduction, Rows};
use qcc_ir::DType;
use qcc_ir::expr::{BinaryFn, Expr, Node, UnaryFn};
use qcc_ir::format::BlockShape;
use qcc_ir::graph::QuantType;
use qcc_ir::kernel::eval::{self, Arg};

/// `(x, row vector, column) ↦ expression`, two results.
fn expression(f: impl Fn(&mut Expr) -> [qcc_ir::expr::NodeId; 2]) -> Expr {
    let mut e = Expr::default();
    for v in f(&mut e) {
        e.store(v);
    }
    e
}

fn floats(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 + 11) % 101) as f32 * 0.07 - 3.5)
        .collect()
}

fn bytes(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Runs a kernel by both; `args` beyond `begin, end, cols` are filled in by the caller.
fn both(
    rows: &Rows<'_>,
    n: usize,
    cols: usize,
    reads: &[Vec<u8>],
    writes: &[usize],
    order: &str,
) -> [Vec<Vec<u8>>; 2] {
    let kernel = rows.build().unwrap();
    let mut jit = Jit::new().unwrap();
    let code = jit.compile(&kernel).unwrap();
    let head = [0u64, n as u64, cols as u64];
    let run = |native: bool| {
        let mut out: Vec<Vec<u8>> = writes.iter().map(|n| vec![0u8; *n]).collect();
        let (mut r, mut w) = (reads.iter(), out.iter_mut());
        let mut words: Vec<u64> = head.to_vec();
        let mut args: Vec<Arg<'_>> = head.iter().map(|h| Arg::Scalar(*h)).collect();
        for c in order.chars() {
            match c {
                'r' => {
                    let r = r.next().unwrap();
                    words.push(r.as_ptr() as u64);
                    args.push(Arg::Read(r));
                }
                'w' => {
                    let w = w.next().unwrap();
                    words.push(w.as_mut_ptr() as u64);
                    args.push(Arg::Write(w));
                }
                // Distances of rows: the whole row, one element, none.
                'c' | '1' | '0' => {
                    let v = match c {
                        'c' => cols as u64,
                        '1' => 1,
                        _ => 0,
                    };
                    words.push(v);
                    args.push(Arg::Scalar(v));
                }
                _ => {
                    let v = u64::from(0.03f32.to_bits());
                    words.push(v);
                    args.push(Arg::Scalar(v));
                }
            }
        }
        if native {
            // SAFETY: the arguments are those of the kernel, with room for `n` rows of `cols`.
            unsafe { code.call(&words) }.unwrap();
        } else {
            eval::run(&kernel, [1, 1, 1], 0, &mut args).unwrap();
        }
        drop(args);
        out
    };
    [run(true), run(false)]
}

fn close(what: &str, got: &[u8], want: &[u8], rel: f32) {
    for (i, (g, w)) in got
        .as_chunks::<4>()
        .0
        .iter()
        .zip(want.as_chunks::<4>().0)
        .enumerate()
    {
        let (g, w) = (f32::from_le_bytes(*g), f32::from_le_bytes(*w));
        let ok = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= rel * w.abs().max(1e-2);
        assert!(ok, "{what}: element {i} is {g}, the evaluator has {w}");
    }
}

const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 4), (2, 7), (0, 5), (4, 0), (5, 33)];

#[test]
fn expressions_with_rows_and_columns() {
    let e = expression(|e| {
        let (x, r, c) = (
            e.push(Node::Input(0)),
            e.push(Node::Input(1)),
            e.push(Node::Input(2)),
        );
        let s = e.push(Node::Binary(BinaryFn::Mul, x, r));
        let s = e.push(Node::Binary(BinaryFn::Add, s, c));
        let k = e.constant(0.5);
        let less = e.push(Node::Binary(BinaryFn::Lt, s, k));
        let m = e.push(Node::Binary(BinaryFn::Max, s, r));
        let t = e.push(Node::Select(less, m, s));
        let u = e.push(Node::Unary(UnaryFn::HardSwish, t));
        [t, u]
    });
    let f32s = |at, columns| Input {
        at,
        dtype: DType::F32,
        columns,
    };
    let rows = Rows {
        expr: &e,
        reduction: Reduction::None,
        accs: 0,
        inputs: vec![f32s(0, true), f32s(1, true), f32s(2, false)],
        outputs: vec![Output::Plain(DType::F32); 2],
    };
    for (n, cols) in SHAPES {
        let reads = [
            bytes(&floats(n * cols)),
            bytes(&floats(cols)),
            bytes(&floats(n)),
        ];
        let [got, want] = both(&rows, n, cols, &reads, &[n * cols * 4; 2], "rcr0r1ww");
        assert_eq!(got, want, "{n} rows of {cols}");
    }
}

#[test]
fn every_format_is_loaded_and_stored() {
    let e = expression(|e| {
        let x = e.push(Node::Input(0));
        let y = e.push(Node::Cast(DType::BF16, x));
        [x, y]
    });
    for d in [DType::F16, DType::BF16, DType::E4M3, DType::E5M2] {
        let rows = Rows {
            expr: &e,
            reduction: Reduction::None,
            accs: 0,
            inputs: vec![Input {
                at: 0,
                dtype: d,
                columns: true,
            }],
            outputs: vec![Output::Plain(d), Output::Plain(DType::F32)],
        };
        let width = d.bits() as usize / 8;
        // Every code of the 8-bit formats, and as many of the others.
        let codes: Vec<u8> = (0..256 * width).map(|i| (i * 7 / width) as u8).collect();
        let [got, want] = both(&rows, 2, 128, &[codes], &[256 * width, 1024], "rcww");
        assert_eq!(got, want, "{d}");
    }
}

#[test]
fn functions_give_the_bits_of_the_rust_ones() {
    type Rust = fn(f32) -> f32;
    let fs: [(UnaryFn, Rust); 3] = [
        (UnaryFn::Exp, crate::math::exp),
        (UnaryFn::Tanh, crate::math::tanh),
        (UnaryFn::Erf, crate::math::erf),
    ];
    for (f, rust) in fs {
        let e = expression(|e| {
            let x = e.push(Node::Input(0));
            let y = e.push(Node::Unary(f, x));
            [y, y]
        });
        let rows = Rows {
            expr: &e,
            reduction: Reduction::None,
            accs: 0,
            inputs: vec![Input {
                at: 0,
                dtype: DType::F32,
                columns: true,
            }],
            outputs: vec![Output::Plain(DType::F32); 2],
        };
        let mut x: Vec<f32> = (0..4003).map(|i| (i as f32 - 2000.0) * 0.05).collect();
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1e-40,
            88.9,
            0.624_999,
            0.625,
        ]);
        let n = x.len();
        let [got, want] = both(&rows, 1, n, &[bytes(&x)], &[n * 4; 2], "rcww");
        close(f.name(), &got[0], &want[0], 3e-6);
        for (x, y) in x.iter().zip(got[0].as_chunks::<4>().0) {
            let (y, r) = (f32::from_le_bytes(*y), rust(*x));
            assert!(
                y.to_bits() == r.to_bits() || (y.is_nan() && r.is_nan()),
                "{} {x}: {y} {r}",
                f.name()
            );
        }
    }
    for f in [
        UnaryFn::Log,
        UnaryFn::Sin,
        UnaryFn::Cos,
        UnaryFn::Sqrt,
        UnaryFn::Rsqrt,
        UnaryFn::Recip,
        UnaryFn::Sigmoid,
        UnaryFn::Silu,
        UnaryFn::Gelu,
        UnaryFn::GeluTanh,
        UnaryFn::Floor,
        UnaryFn::Ceil,
        UnaryFn::Round,
        UnaryFn::Relu,
        UnaryFn::Abs,
        UnaryFn::Neg,
    ] {
        let e = expression(|e| {
            let x = e.push(Node::Input(0));
            let y = e.push(Node::Unary(f, x));
            [y, x]
        });
        let rows = Rows {
            expr: &e,
            reduction: Reduction::None,
            accs: 0,
            inputs: vec![Input {
                at: 0,
                dtype: DType::F32,
                columns: true,
            }],
            outputs: vec![Output::Plain(DType::F32); 2],
        };
        let x = [
            floats(100),
            vec![0.5, 1.5, 2.5, -0.5, f32::NAN, f32::INFINITY],
        ]
        .concat();
        let [got, want] = both(&rows, 1, 106, &[bytes(&x)], &[424; 2], "rcww");
        close(f.name(), &got[0], &want[0], 3e-6);
    }
}

fn scheme(storage: DType, narrow: bool, zero: Option<DType>) -> QuantType {
    QuantType {
        narrow,
        zero,
        ..QuantType::symmetric(storage, BlockShape::row(2))
    }
}

#[test]
fn norms_and_softmax_with_quantized_results() {
    let e = expression(|e| {
        let (a, g) = (e.push(Node::Acc(0)), e.push(Node::Input(1)));
        let v = e.push(Node::Binary(BinaryFn::Mul, a, g));
        [v, a]
    });
    for reduction in [
        Reduction::LayerNorm(1e-5),
        Reduction::RmsNorm(1e-6),
        Reduction::Softmax,
    ] {
        let softmax = if reduction == Reduction::Softmax {
            "w"
        } else {
            ""
        };
        for (storage, narrow) in [
            (DType::I8, true),
            (DType::I8, false),
            (DType::E4M3, false),
            (DType::E5M2, false),
        ] {
            let rows = Rows {
                expr: &e,
                reduction,
                accs: 1,
                inputs: vec![Input {
                    at: 1,
                    dtype: DType::F32,
                    columns: true,
                }],
                outputs: vec![
                    Output::Dynamic(scheme(storage, narrow, None)),
                    Output::Plain(DType::F32),
                ],
            };
            for (n, cols) in SHAPES {
                let reads = [bytes(&floats(n * cols)), bytes(&floats(cols))];
                let mut writes = vec![n * cols, n * 4, cols * 4, n * cols * 4];
                writes.extend((!softmax.is_empty()).then_some(cols * 4));
                let order = format!("rr0www{}{softmax}", "w");
                let [got, want] = both(&rows, n, cols, &reads, &writes, &order);
                close("scales", &got[1], &want[1], 1e-5);
                close("values", &got[3], &want[3], 1e-5);
                let off = got[0].iter().zip(&want[0]).filter(|(a, b)| a != b).count();
                assert!(
                    off * 20 <= n * cols + 20,
                    "{storage} {n}x{cols}: {off} codes differ"
                );
            }
        }
    }
}

#[test]
fn static_schemes_give_the_evaluators_codes() {
    let e = expression(|e| {
        let x = e.push(Node::Input(0));
        [x, x]
    });
    for storage in [DType::I8, DType::U8, DType::E4M3, DType::E5M2] {
        let zero = storage.is_int().then_some(storage);
        let rows = Rows {
            expr: &e,
            reduction: Reduction::None,
            accs: 0,
            inputs: vec![Input {
                at: 0,
                dtype: DType::F32,
                columns: true,
            }],
            outputs: vec![
                Output::Static(scheme(storage, false, zero)),
                Output::Static(scheme(storage, false, None)),
            ],
        };
        let x = [
            floats(61),
            vec![
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                0.015,
                0.045,
                1e9,
            ],
        ]
        .concat();
        // The zero point is the same 0.03 as the scale: any number shows that it is added.
        let order = if zero.is_some() { "rcwsswss" } else { "rcwsws" };
        let order = if zero.is_some() {
            "rcwssws".to_string()
        } else {
            order.to_string()
        };
        let [got, want] = both(&rows, 1, 67, &[bytes(&x)], &[67; 2], &order);
        assert_eq!(got, want, "{storage}");
    }
}

#[test]
fn truth_values_are_bytes() {
    let e = expression(|e| {
        let (c, x) = (e.push(Node::Input(0)), e.push(Node::Input(1)));
        let k = e.constant(0.25);
        let y = e.push(Node::Select(c, x, k));
        let less = e.push(Node::Binary(BinaryFn::Le, x, k));
        let both = e.push(Node::Binary(BinaryFn::And, less, c));
        let not = e.push(Node::Unary(UnaryFn::Not, both));
        [y, not]
    });
    let rows = Rows {
        expr: &e,
        reduction: Reduction::None,
        accs: 0,
        inputs: vec![
            Input {
                at: 0,
                dtype: DType::Bool,
                columns: true,
            },
            Input {
                at: 1,
                dtype: DType::F32,
                columns: true,
            },
        ],
        outputs: vec![Output::Plain(DType::F32), Output::Plain(DType::Bool)],
    };
    let c: Vec<u8> = (0..30).map(|i| u8::from(i % 3 == 0)).collect();
    let [got, want] = both(&rows, 3, 10, &[c, bytes(&floats(30))], &[120, 30], "rcrcww");
    assert_eq!(got, want);
}

#[test]
fn equal_kernels_are_compiled_once() {
    let e = Expr::identity();
    let rows = Rows {
        expr: &e,
        reduction: Reduction::None,
        accs: 1,
        inputs: vec![],
        outputs: vec![Output::Plain(DType::F32)],
    };
    let mut jit = Jit::new().unwrap();
    let a = jit.compile(&rows.build().unwrap()).unwrap();
    let b = jit.compile(&rows.build().unwrap()).unwrap();
    assert_eq!(a.entry as usize, b.entry as usize);
    assert_eq!(jit.known.len(), 1);
    drop(jit);
    // The code outlives its compiler.
    let (x, mut y) = ([1.5f32, 2.5], [0f32; 2]);
    let args = [0, 1, 2, x.as_ptr() as u64, y.as_mut_ptr() as u64];
    // SAFETY: one row of two columns.
    unsafe { b.call(&args) }.unwrap();
    assert_eq!(y, x);
    // SAFETY: nothing is read when the number of arguments is wrong.
    assert!(unsafe { b.call(&args[1..]) }.is_err());
}
