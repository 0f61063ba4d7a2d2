//! What is known of kernels must follow from the model.

use super::*;
use qcc_ir::format::{Block, BlockShape};
use qcc_ir::graph::QuantType;

/// Of a kernel in a graph.
const LAUNCH: f64 = GRAPH_LAUNCH + FIRST_RESULT;

fn linear() -> OpKind {
    OpKind::Linear {
        segments: vec![],
        accs: 1,
        expr: None,
    }
}

fn op(target: &str, kind: &OpKind, operands: &[&TensorType], y: &TensorType) -> f64 {
    let model = Roofline::new(Target::find(target).unwrap());
    model
        .op_micros(kind, operands, &[y], &|_| Some(1))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn micros(target: &str, x: &TensorType, w: &TensorType) -> f64 {
    let n = w.shape[0].clone();
    let y = TensorType::new(DType::F16, [x.shape[0].clone(), n]);
    op(target, &linear(), &[x, w], &y)
}

fn plain(d: &[i64]) -> TensorType {
    TensorType::new(DType::F16, d.iter().map(|d| DimExpr::from(*d)))
}

fn blocked(d: DType, block: BlockShape, dims: &[i64]) -> TensorType {
    let q = QuantType::symmetric(d, block);
    TensorType::quant(q, dims.iter().map(|d| DimExpr::from(*d)))
}

/// One scale for each row.
fn quant(d: DType, dims: &[i64]) -> TensorType {
    blocked(d, BlockShape::axis(2, 0), dims)
}

/// Four bits in groups of 128.
fn int4(dims: &[i64]) -> TensorType {
    blocked(DType::I4, BlockShape::group(2, 128), dims)
}

#[test]
fn small_batches_are_bound_by_weight_bytes() {
    let half = micros("sm_90", &plain(&[1, 8192]), &plain(&[8192, 8192]));
    let byte = micros(
        "sm_90",
        &quant(DType::I8, &[1, 8192]),
        &quant(DType::I8, &[8192, 8192]),
    );
    let ratio = (half - LAUNCH) / (byte - LAUNCH);
    assert!((1.9..2.1).contains(&ratio), "{half} {byte}");
}

#[test]
fn four_bit_weights_win_up_to_64_rows_and_lose_prefill_to_fp8_on_hopper() {
    // Crossovers of W4A16 lie near 40 to 76 rows, of W8A8 above 200 (H200 and H100).
    let n = 8192;
    let times = |rows| {
        let (x, x8) = (plain(&[rows, n]), quant(DType::E4M3, &[rows, n]));
        let half = micros("sm_90", &x, &plain(&[n, n]));
        let four = micros("sm_90", &x, &int4(&[n, n]));
        (
            half,
            four,
            micros("sm_90", &x8, &quant(DType::E4M3, &[n, n])),
        )
    };
    for rows in [1, 16, 64] {
        let (half, four, fp8) = times(rows);
        assert!(four < fp8 && four < half, "{rows}: {half} {four} {fp8}");
    }
    let (half, four, fp8) = times(4096);
    assert!(fp8 < 0.6 * four && half < four, "{half} {four} {fp8}");
}

#[test]
fn quantization_in_the_product_loses_to_the_producer() {
    // A product that reads 16-bit rows and converts as it goes, against codes that a norm has
    // stored instead of its 16-bit result: fewer bytes written, a faster product.
    let (rows, n) = (2048, 4096);
    let (x, codes) = (
        plain(&[rows, n]),
        blocked(DType::E4M3, BlockShape::tensor(2), &[rows, n]),
    );
    let (gain, w) = (plain(&[n]), quant(DType::E4M3, &[n, n]));
    let norm = OpKind::RmsNorm {
        eps: 1e-5f32.to_bits(),
        expr: None,
    };
    let stored = |y: &TensorType| op("sm_90", &norm, &[&x, &gain], y);
    let prologue = stored(&x) + micros("sm_90", &x, &w);
    let producer = stored(&codes) + micros("sm_90", &codes, &w);
    let apart = stored(&x) + op("sm_90", &OpKind::Quantize, &[&x], &codes);
    assert!(producer < 0.8 * prologue, "{producer} {prologue}");
    let alone = apart + micros("sm_90", &codes, &w);
    assert!(producer < alone, "{producer} {alone}");
}

#[test]
fn scales_of_the_data_cost_another_pass() {
    let x = plain(&[4096, 4096]);
    let rows = BlockShape::row(2);
    let fixed = blocked(DType::I8, BlockShape::tensor(2), &[4096, 4096]);
    let mut q = QuantType::symmetric(DType::I8, rows);
    q.dynamic = true;
    let of_data = TensorType::quant(q, x.shape.clone());
    let time = |y| op("sm_80", &OpKind::Quantize, &[&x], y) - LAUNCH;
    let ratio = time(&of_data) / time(&fixed);
    assert!((1.5..1.8).contains(&ratio), "{ratio}");
}

#[test]
fn block_scaled_fp8_loses_to_bf16_on_few_columns() {
    // vllm#23280: 8192 × 2112 × 7168 on an H100, 490 against 666 TFLOP/s with quantization.
    let (m, n, k) = (8192, 2112, 7168);
    let x = TensorType::new(DType::BF16, plain(&[m, k]).shape);
    let w = TensorType::new(DType::BF16, plain(&[n, k]).shape);
    let square = BlockShape(vec![Block::Fixed(128), Block::Fixed(128)]);
    let x8 = blocked(DType::E4M3, BlockShape::group(2, 128), &[m, k]);
    let half = micros("sm_90", &x, &w);
    let block = micros("sm_90", &x8, &blocked(DType::E4M3, square, &[n, k]));
    assert!(block > half, "{block} {half}");
}

#[test]
fn fp8_without_wgmma_gains_nothing_over_f16() {
    // Rows of 8,200 bytes are no multiple of 16: no tensor map, so `mma.sync`.
    for (target, k) in [("sm_80", 8192), ("sm_90", 8200)] {
        let x = |d| quant(d, &[4096, k]);
        let half = micros(target, &plain(&[4096, k]), &plain(&[4096, k]));
        let fp8 = micros(target, &x(DType::E4M3), &x(DType::E4M3));
        assert!(fp8 >= half, "{target}: {fp8} {half}");
    }
    let x = quant(DType::E4M3, &[4096, 8192]);
    let half = micros("sm_90", &plain(&[4096, 8192]), &plain(&[4096, 8192]));
    assert!(micros("sm_90", &x, &x) < 0.6 * half);
}

#[test]
fn int8_is_the_answer_to_prefill_on_ampere() {
    let (rows, n) = (8192, 8192);
    let half = micros("sm_80", &plain(&[rows, n]), &plain(&[n, n]));
    let four = micros("sm_80", &plain(&[rows, n]), &int4(&[n, n]));
    let e4m3 = micros(
        "sm_80",
        &quant(DType::E4M3, &[rows, n]),
        &quant(DType::E4M3, &[n, n]),
    );
    let int8 = micros(
        "sm_80",
        &quant(DType::I8, &[rows, n]),
        &quant(DType::I8, &[n, n]),
    );
    assert!((1.9..2.1).contains(&(half / int8)), "{half} {int8}");
    assert!(int8 < four && int8 < e4m3, "{int8} {four} {e4m3}");
}

#[test]
fn a_wave_that_is_not_full_costs_as_much_as_one_that_is() {
    // 132 tiles of 128 × 128 fill an H200 once; one column of tiles more takes a second wave.
    let (rows, k) = (128 * 12, 8192);
    let time = |n| micros("sm_90", &plain(&[rows, k]), &plain(&[n, k])) - LAUNCH;
    let (full, more) = (time(128 * 11), time(128 * 11 + 1));
    assert!((1.9..2.1).contains(&(more / full)), "{full} {more}");
}

#[test]
fn merged_products_fill_the_machine() {
    let (x, w) = (plain(&[16, 4096]), |n| plain(&[n, 4096]));
    let one = micros("sm_90", &x, &w(3072));
    let three = 3.0 * micros("sm_90", &x, &w(1024));
    assert!(one < 0.6 * three, "{one} {three}");
}

#[test]
fn what_no_kernel_serves_is_refused_with_its_reason() {
    let mut q = QuantType::symmetric(DType::I8, BlockShape::row(2));
    q.dynamic = true;
    let y = TensorType::quant(q, [DimExpr::from(4), DimExpr::from(64)]);
    let (x, w) = (plain(&[4, 64]), plain(&[64, 64]));
    let model = Roofline::new(Target::find("sm_80").unwrap());
    let e = model
        .op_micros(&linear(), &[&x, &w], &[&y], &|_| None)
        .unwrap_err();
    assert!(e.contains("whole rows"), "{e}");
}

#[test]
fn a_graph_saves_the_same_time_for_each_kernel_of_a_gpu_and_none_for_others() {
    let saved = |target: &str, kind: &OpKind, operands: &[&TensorType], y: &TensorType| {
        let graph = Roofline::new(Target::find(target).unwrap());
        let micros = |m: &Roofline| m.op_micros(kind, operands, &[y], &|_| Some(1)).unwrap();
        micros(&graph.launching(Launching::Stream)) - micros(&graph)
    };
    let (x, w) = (plain(&[4, 64]), plain(&[64, 64]));
    for rows in [1, 4096] {
        let (x, y) = (plain(&[rows, 64]), plain(&[rows, 64]));
        let linear = saved("sm_80", &linear(), &[&x, &w], &y);
        assert!((linear - (STREAM_LAUNCH - GRAPH_LAUNCH)).abs() < 1e-9);
        assert!((saved("sm_90", &OpKind::Cast, &[&x], &y) - linear).abs() < 1e-9);
    }
    assert_eq!(saved("sm_90", &OpKind::Reshape, &[&x], &plain(&[256])), 0.0);
    assert_eq!(saved("cpu", &linear(), &[&x, &w], &plain(&[4, 64])), 0.0);
}
