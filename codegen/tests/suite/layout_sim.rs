//! Elementwise, layout, reduction, window and rotary kernels on the simulator, against the oracle.

use crate::common::{check, random};
use qcc_ir::DType::{self, Bool, F16, F32, I64};
use qcc_ir::Tensor;

/// A module of one op: `%y = BODY` on the given parameters.
fn one(params: &str, result: &str, body: &str) -> String {
    format!(
        "qir 1\ndim n = 1..64\ndim s = 1..64\nfunc @main({params}) -> (y: {result}) {{\n  %y: {result} = {body}\n  return %y\n}}\n"
    )
}

#[test]
fn elementwise_with_broadcasting() {
    for (d, tol) in [(F16, 1e-3), (F32, 1e-6), (DType::BF16, 4e-3)] {
        let x = random(1, d, &[3, 5, 70], 1.0);
        let b = random(2, d, &[5, 1], 1.0);
        let t = one(
            &format!("%x: {d}[n, 5, 70], %b: {d}[5, 1]"),
            &format!("{d}[n, 5, 70]"),
            "mul %x, %b",
        );
        check("mul", &t, &[x.clone(), b], tol);
        for f in [
            "gelu",
            "silu",
            "exp",
            "tanh",
            "sigmoid",
            "erf",
            "sin",
            "cos",
            "hard_swish",
            "gelu_tanh",
            "floor",
            "round",
        ] {
            let t = one(
                &format!("%x: {d}[n, 5, 70]"),
                &format!("{d}[n, 5, 70]"),
                &format!("{f} %x"),
            );
            check(f, &t, std::slice::from_ref(&x), tol.max(2e-6));
        }
    }
}

#[test]
fn casts_and_selects() {
    let x = random(1, F32, &[300], 50.0);
    for d in ["i64", "i32", "u8", "i8", "f16", "bf16", "bool"] {
        check(
            d,
            &one("%x: f32[n]", &format!("{d}[n]"), "cast %x"),
            std::slice::from_ref(&random(1, F32, &[60], 50.0)),
            4e-3,
        );
    }
    let c = random(3, Bool, &[300], 1.0);
    let y = random(4, F32, &[1], 1.0);
    check(
        "select",
        "qir 1\nfunc @main(%c: bool[300], %x: f32[300], %y: f32[1]) -> (z: f32[300]) {\n  %z: f32[300] = select %c, %x, %y\n  return %z\n}\n",
        &[c, x, y],
        0.0,
    );
    let i = random(5, I64, &[40], 9.0);
    check(
        "i64 to f32",
        &one("%x: i64[n]", "f32[n]", "cast %x"),
        std::slice::from_ref(&i),
        0.0,
    );
    check("i64 neg", &one("%x: i64[n]", "i64[n]", "neg %x"), &[i], 0.0);
}

#[test]
fn moving_elements() {
    for d in [F16, I64, Bool] {
        let x = random(1, d, &[3, 6, 10], 5.0);
        let p = format!("%x: {d}[n, 6, 10]");
        let cases = [
            (
                format!("{d}[10, n, 6]"),
                "transpose %x { perm = [2, 0, 1] }",
            ),
            (
                format!("{d}[n, 2, 7]"),
                "slice %x { starts = [0, 1, 3], ends = [n, 5, 10], steps = [1, 2, 1] }",
            ),
            (
                format!("{d}[n + 3, 6, 11]"),
                "pad %x { lo = [1, 0, 0], hi = [2, 0, 1], value = 1 }",
            ),
            (format!("{d}[n, 12, 10]"), "concat %x, %x { axis = 1 }"),
        ];
        for (result, body) in cases {
            check(body, &one(&p, &result, body), std::slice::from_ref(&x), 0.0);
        }
    }
    let table = random(1, F16, &[13, 40], 1.0);
    let ids = Tensor::i64(&[2, 3], &[0, 12, -1, 5, -13, 7]).unwrap();
    check(
        "embedding",
        &one(
            "%x: f16[13, 40], %i: i64[n, s]",
            "f16[n, s, 40]",
            "gather %x, %i { axis = 0 }",
        ),
        &[table.clone(), ids],
        0.0,
    );
    let columns = Tensor::i64(&[3, 2], &[0, 39, -1, 17, 5, 5]).unwrap();
    for (ty, d, tolerance) in [("f16", F16, 1e-3), ("f32", F32, 1e-6)] {
        check(
            "sparse",
            &one(
                &format!("%x: {ty}[n, s, 40], %c: i64[3, 2], %v: {ty}[3, 2]"),
                &format!("{ty}[n, s, 3]"),
                "sparse_linear %x, %c, %v",
            ),
            &[
                random(1, d, &[5, 7, 40], 1.0),
                columns.clone(),
                random(2, d, &[3, 2], 1.0),
            ],
            tolerance,
        );
    }
    let scalar = Tensor::i64(&[], &[3]).unwrap();
    check(
        "row",
        &one(
            "%x: f16[13, 40], %i: i64[]",
            "f16[13]",
            "gather %x, %i { axis = 1 }",
        ),
        &[table.clone(), scalar],
        0.0,
    );
    check(
        "expand",
        &one("%x: f16[13, 1]", "f16[4, 13, 9]", "expand %x"),
        &[random(1, F16, &[13, 1], 1.0)],
        0.0,
    );
    check(
        "iota",
        &one("%x: f16[n, 40]", "i64[n, 6]", "iota { axis = 0 }"),
        std::slice::from_ref(&table),
        0.0,
    );
    check(
        "dim",
        &one("%x: f16[n, 40]", "i64[]", "dim { value = [2*n + 1] }"),
        std::slice::from_ref(&table),
        0.0,
    );
}

#[test]
fn results_that_are_inputs_or_returned_twice_are_copied() {
    let text = "qir 1\nfunc @main(%x: f32[7]) -> (a: f32[7], b: f32[7], c: f32[7, 1]) {\n  %y: f32[7] = neg %x\n  %z: f32[7, 1] = reshape %y\n  return %x, %y, %z\n}\n";
    check("copies", text, &[random(1, F32, &[7], 1.0)], 0.0);
}

#[test]
fn reductions() {
    let x = random(1, F32, &[3, 6, 300], 1.0);
    for f in ["sum", "mean", "max", "min", "prod"] {
        for (axes, result) in [
            ("[2]", "f32[n, 6, 1]"),
            ("[0, 2]", "f32[1, 6, 1]"),
            ("[0, 1, 2]", "f32[1, 1, 1]"),
        ] {
            let body = format!("reduce %x {{ f = {f}, axes = {axes}, keep }}");
            check(
                &body,
                &one("%x: f32[n, 6, 300]", result, &body),
                std::slice::from_ref(&x),
                1e-5,
            );
        }
    }
    let i = random(1, I64, &[5, 6], 4.0);
    for f in ["sum", "max", "min", "prod"] {
        let body = format!("reduce %x {{ f = {f}, axes = [1] }}");
        check(
            &body,
            &one("%x: i64[n, 6]", "i64[n]", &body),
            std::slice::from_ref(&i),
            0.0,
        );
    }
    check(
        "cumsum",
        &one("%x: i64[n, 6]", "i64[n, 6]", "cumsum %x { axis = 1 }"),
        &[i],
        0.0,
    );
    check(
        "cumsum f",
        &one(
            "%x: f32[n, 6, 300]",
            "f32[n, 6, 300]",
            "cumsum %x { axis = 1 }",
        ),
        std::slice::from_ref(&x),
        1e-6,
    );
    for axis in [1, 2] {
        let body = format!("softmax %x {{ axis = {axis} }}");
        check(
            &body,
            &one("%x: f32[n, 6, 300]", "f32[n, 6, 300]", &body),
            std::slice::from_ref(&x),
            1e-6,
        );
    }
    let low = Tensor::f32(&[2, 3], &[f32::NEG_INFINITY; 6]).unwrap();
    for axis in [0, 1] {
        let body = format!("softmax %x {{ axis = {axis} }}");
        check(
            &body,
            &one("%x: f32[n, 3]", "f32[n, 3]", &body),
            std::slice::from_ref(&low),
            0.0,
        );
    }
}

#[test]
fn rotary() {
    for interleaved in ["", ", interleaved"] {
        for (table, dims) in [("[s, 4]", vec![3, 4]), ("[n, s, 4]", vec![2, 3, 4])] {
            let body = format!("rotary %x, %c, %d {{ heads = 5{interleaved} }}");
            let p = format!("%x: f16[n, s, 40], %c: f16{table}, %d: f16{table}");
            let inputs = [
                random(1, F16, &[2, 3, 40], 1.0),
                random(2, F16, &dims, 0.5),
                random(3, F16, &dims, 0.5),
            ];
            check(&body, &one(&p, "f16[n, s, 40]", &body), &inputs, 1e-3);
        }
    }
}

#[test]
fn rotary_of_two_tensors() {
    for interleaved in ["", ", interleaved"] {
        let text = format!(
            "qir 1\ndim n = 1..64\ndim s = 1..64\nfunc @main(%x: f16[n, s, 40], %c: f16[s, 4], %d: f16[s, 4], %k: f32[n, s, 16]) -> (y: f16[n, s, 40], z: f32[n, s, 16]) {{\n  %y: f16[n, s, 40], %z: f32[n, s, 16] = rotary %x, %c, %d, %k {{ heads = 5{interleaved} }}\n  return %y, %z\n}}\n"
        );
        let inputs = [
            random(1, F16, &[2, 3, 40], 1.0),
            random(2, F16, &[3, 4], 0.5),
            random(3, F16, &[3, 4], 0.5),
            random(4, F32, &[2, 3, 16], 1.0),
        ];
        check("two tensors", &text, &inputs, 1e-3);
    }
}

#[test]
fn convolutions_and_poolings() {
    let x = random(1, F32, &[2, 4, 9, 7], 1.0);
    let w = random(2, F32, &[6, 2, 3, 2], 0.5);
    let b = random(3, F32, &[6], 0.5);
    let body = "conv %x, %w, %b { kernel = [3, 2], strides = [2, 1], dilations = [1, 2], pad_lo = [1, 0], pad_hi = [0, 1], groups = 2 }";
    let p = "%x: f32[n, 4, 9, 7], %w: f32[6, 2, 3, 2], %b: f32[6]";
    check(
        "conv",
        &one(p, "f32[n, 6, 4, 6]", body),
        &[x.clone(), w, b],
        1e-5,
    );
    for f in ["max", "mean", "mean_padded"] {
        let body = format!(
            "pool %x {{ f = {f}, kernel = [3, 3], strides = [2, 2], dilations = [1, 1], pad_lo = [1, 1], pad_hi = [1, 1] }}"
        );
        check(
            &body,
            &one("%x: f32[n, 4, 9, 7]", "f32[n, 4, 5, 4]", &body),
            std::slice::from_ref(&x),
            1e-6,
        );
    }
}
