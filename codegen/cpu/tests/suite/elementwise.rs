//! Elementwise ops, casts, layout and reductions against the oracle.

use crate::common::{Close, F32, check};
use qcc_ir::expr::{BinaryFn, UnaryFn};

const SIZES: &[&[(&str, i64)]] = &[
    &[("n", 1), ("m", 1)],
    &[("n", 3), ("m", 7)],
    &[("n", 0), ("m", 5)],
    &[("n", 33), ("m", 1025)],
];

fn each(text: &str, ints: (i64, i64), close: Close) {
    for sizes in SIZES {
        check(
            &format!("qir 1\ndim n = 0..4096\ndim m = 0..4096\n{text}"),
            sizes,
            ints,
            close,
        );
    }
}

/// Results in a narrow float may differ by one unit of its last place.
fn tolerance(dtype: &str) -> Close {
    match dtype {
        "f16" => Close::Rel(1e-3, 1e-6),
        "bf16" => Close::Rel(8e-3, 1e-6),
        "e4m3" => Close::Rel(0.125, 2e-3),
        "e5m2" => Close::Rel(0.25, 1e-4),
        _ => F32,
    }
}

#[test]
fn unary_functions() {
    for dtype in ["f32", "f16", "bf16", "f64", "e4m3", "e5m2"] {
        for f in UnaryFn::ALL.iter().filter(|f| **f != UnaryFn::Not) {
            // Positive arguments for the functions that need them.
            let text = format!(
                "func @main(%x: {dtype}[n, m]) -> (y: {dtype}[n, m]) {{
                  %a: {dtype}[n, m] = abs %x
                  %c: {dtype}[] = splat {{ value = 0.25 }}
                  %p: {dtype}[n, m] = add %a, %c
                  %y: {dtype}[n, m] = {} {}
                  return %y
                }}",
                f.name(),
                if matches!(f.name(), "log" | "sqrt" | "rsqrt" | "recip") {
                    "%p"
                } else {
                    "%x"
                }
            );
            each(&text, (0, 2), tolerance(dtype));
        }
    }
    each(
        "func @main(%x: bool[n, m]) -> (y: bool[n, m]) {\n %y: bool[n, m] = not %x\n return %y }",
        (0, 2),
        Close::Exact,
    );
}

#[test]
fn binary_functions_broadcast() {
    for dtype in ["f32", "f16", "i64", "i32", "i8", "u8", "bool"] {
        for f in BinaryFn::ALL {
            let logical = matches!(f.name(), "and" | "or" | "xor");
            let both = matches!(f.name(), "eq" | "ne");
            if (dtype == "bool") != logical && !(both && dtype == "bool") {
                continue;
            }
            let out = if f.is_compare() { "bool" } else { dtype };
            let text = format!(
                "func @main(%x: {dtype}[n, m], %r: {dtype}[m], %c: {dtype}[n, 1]) -> (y: {out}[n, m], z: {out}[n, m], w: {out}[n, m]) {{
                  %y: {out}[n, m] = {0} %x, %x
                  %z: {out}[n, m] = {0} %x, %r
                  %w: {out}[n, m] = {0} %c, %x
                  return %y, %z, %w
                }}",
                f.name()
            );
            // Positive integers: no division by zero, no negative power.
            each(&text, (1, 5), tolerance(dtype));
        }
    }
}

#[test]
fn select_and_map() {
    each(
        "func @main(%c: bool[n, 1], %a: f32[n, m], %b: f32[m]) -> (y: f32[n, m], u: f16[n, m], v: i8[n, m], w: i64[n, m]) {
          %y: f32[n, m] = select %c, %a, %b
          %u: f16[n, m], %v: i8[n, m], %w: i64[n, m] = map %a, %b, %c { expr = {
            t0 = in0; t1 = in1; t2 = in2; t3 = add t0, t1; t4 = silu t3; t5 = select t2, t4, t0;
            t6 = cast bf16 t5; t7 = cast i8 t6; t8 = 3; t9 = mul t7, t8; t10 = cast i64 t2; t11 = add t9, t10;
            store t6; store t9; store t11 } }
          return %y, %u, %v, %w
        }",
        (0, 2),
        Close::Rel(1e-3, 1e-6),
    );
}

#[test]
fn casts_between_all_formats() {
    // Those that values without a scheme may have.
    let plain = |d: &&qcc_ir::DType| !["e2m1", "e8m0", "nf4", "i2", "u2"].contains(&d.name());
    let all: Vec<&str> = qcc_ir::DType::ALL
        .iter()
        .filter(plain)
        .map(|d| d.name())
        .collect();
    for from in &all {
        for to in &all {
            each(
                &format!(
                    "func @main(%x: {from}[n, m]) -> (y: {to}[n, m]) {{\n %y: {to}[n, m] = cast %x\n return %y }}"
                ),
                (0, 7),
                Close::Exact,
            );
        }
    }
}

#[test]
fn layout_in_every_width() {
    for d in ["f64", "f32", "f16", "i8", "i4", "u4", "bool"] {
        let text = format!(
            "func @main(%x: {d}[n, 5, m], %y: {d}[n, 2, m], %r: {d}[5, 1]) -> (a: {d}[m, n, 5], b: {d}[n, 5*m], c: {d}[n, 7, m], d: {d}[2, n, 5, m], e: {d}[n, 2, m], f: {d}[n + 1, 5, m + 3], g: {d}[3, 5, 4], h: {d}[n, 5, 1, m]) {{
              %a: {d}[m, n, 5] = transpose %x {{ perm = [2, 0, 1] }}
              %b: {d}[n, 5*m] = reshape %x
              %c: {d}[n, 7, m] = concat %x, %y {{ axis = 1 }}
              %d: {d}[2, n, 5, m] = expand %x
              %e: {d}[n, 2, m] = slice %x {{ starts = [0, 1, 0], ends = [n, 5, m], steps = [1, 2, 1] }}
              %f: {d}[n + 1, 5, m + 3] = pad %x {{ lo = [1, 0, 2], hi = [0, 0, 1], value = 1 }}
              %g0: {d}[5, 1] = reshape %r
              %g: {d}[3, 5, 4] = expand %g0
              %h: {d}[n, 5, 1, m] = reshape %x
              return %a, %b, %c, %d, %e, %f, %g, %h
            }}"
        );
        each(&text, (0, 7), Close::Exact);
    }
}

#[test]
fn gather_by_positive_and_negative_indices() {
    for d in ["f32", "f16", "i4"] {
        for axis in 0..2 {
            let shape = ["n, m, 5", "4, n, m"][axis];
            let text = format!(
                "func @main(%x: {d}[4, 5], %i: i64[n, m], %j: i32[n, m]) -> (y: {d}[{shape}], z: {d}[{shape}]) {{
                  %y: {d}[{shape}] = gather %x, %i {{ axis = {axis} }}
                  %z: {d}[{shape}] = gather %x, %j {{ axis = {axis} }}
                  return %y, %z
                }}"
            );
            each(&text, (-4, 4), Close::Exact);
        }
    }
}

#[test]
fn products_with_few_elements_of_each_row() {
    for d in ["f32", "f16", "bf16"] {
        let text = format!(
            "func @main(%x: {d}[n, m, 5], %c: i32[7, 3], %v: {d}[7, 3]) -> (y: {d}[n, m, 7]) {{
              %y: {d}[n, m, 7] = sparse_linear %x, %c, %v
              return %y
            }}"
        );
        each(&text, (-5, 4), tolerance(d));
    }
}

#[test]
fn values_without_operands() {
    each(
        "func @main(%x: f32[n, m]) -> (a: i64[2, m], b: i32[n, 3], c: i64[], d: f16[n], e: i4[3, n]) {
          %a: i64[2, m] = iota { axis = 1 }
          %b: i32[n, 3] = iota { axis = 0 }
          %c: i64[] = dim { value = [n*m + 3] }
          %d: f16[n] = splat { value = 0.1 }
          %e: i4[3, n] = splat { value = 100 }
          return %a, %b, %c, %d, %e
        }",
        (0, 2),
        Close::Exact,
    );
}

#[test]
fn reductions_and_running_sums() {
    for d in ["f32", "f16", "i64", "i8"] {
        for f in ["sum", "mean", "max", "min", "prod"] {
            let text = format!(
                "func @main(%x: {d}[3, n, m]) -> (a: {d}[3, n, 1], b: {d}[n], c: {d}[]) {{
                  %a: {d}[3, n, 1] = reduce %x {{ f = {f}, axes = [2], keep }}
                  %b: {d}[n] = reduce %x {{ f = {f}, axes = [0, 2] }}
                  %c: {d}[] = reduce %x {{ f = {f}, axes = [0, 1, 2] }}
                  return %a, %b, %c
                }}"
            );
            // The extremum of nothing is refused for integers; see `refusals`.
            for sizes in SIZES.iter().filter(|s| s[0].1 > 0) {
                let text = format!("qir 1\ndim n = 0..4096\ndim m = 0..4096\n{text}");
                check(&text, sizes, (-3, 4), tolerance(d));
            }
        }
        each(
            &format!(
                "func @main(%x: {d}[3, n, m]) -> (a: {d}[3, n, m], b: {d}[3, n, m]) {{
                  %a: {d}[3, n, m] = cumsum %x {{ axis = 1 }}
                  %b: {d}[3, n, m] = cumsum %x {{ axis = 2 }}
                  return %a, %b
                }}"
            ),
            (-3, 4),
            match d {
                "f32" => Close::Rel(1e-5, 1e-5),
                "f16" => Close::Rel(2e-3, 2e-3),
                _ => Close::Exact,
            },
        );
    }
}

#[test]
fn softmax_along_any_axis() {
    for d in ["f32", "f16"] {
        let text = format!(
            "func @main(%x: {d}[3, n, m]) -> (a: {d}[3, n, m], b: {d}[3, n, m], c: {d}[3, n, m]) {{
              %a: {d}[3, n, m] = softmax %x {{ axis = 2 }}
              %b: {d}[3, n, m] = softmax %x {{ axis = 1 }}
              %c: {d}[3, n, m] = softmax %x {{ axis = 0 }}
              return %a, %b, %c
            }}"
        );
        each(&text, (0, 2), tolerance(d));
    }
}

/// Expressions with an integer step are interpreted instead of compiled.
#[test]
fn interpreted_expressions() {
    for f in UnaryFn::ALL.iter().filter(|f| **f != UnaryFn::Not) {
        let text = format!(
            "func @main(%x: f32[n, m], %r: f16[m], %c: i32[n, 1], %b: bool[m]) -> (y: f32[n, m], z: bf16[n, m]) {{
              %y: f32[n, m], %z: bf16[n, m] = map %x, %r, %c, %b {{ expr = {{
                t0 = in0; t1 = in1; t2 = in2; t3 = in3; t4 = abs t0; t5 = 0.25; t6 = add t4, t5; t7 = {} {};
                t8 = cast f32 t2; t9 = mul t7, t8; t10 = max t9, t1; t11 = le t0, t1; t12 = and t11, t3;
                t13 = select t12, t10, t9; store t13; store t7 }} }}
              return %y, %z
            }}",
            f.name(),
            if matches!(f.name(), "log" | "sqrt" | "rsqrt" | "recip") {
                "t6"
            } else {
                "t0"
            }
        );
        each(&text, (-3, 4), tolerance("bf16"));
    }
    // A norm whose expression is interpreted.
    let text = "weight @g: f32[33] = normal(1, 1)
        func @main(%x: f32[n, 33], %c: i64[n, 1]) -> (y: f32[n, 33], z: f32[n, 33]) {
          %g: f32[33] = const @g
          %y: f32[n, 33] = layer_norm %x, %g, %c { eps = 1e-5, expr = { t0 = acc0; t1 = in1; t2 = in2; t3 = cast f32 t2; t4 = mul t0, t1; t5 = add t4, t3; store t5 } }
          %q: q<i8, [1, *], scale=f32, dynamic>[n, 33] = rms_norm %x, %g, %c { eps = 1e-5, expr = { t0 = acc0; t1 = in2; t2 = cast f32 t1; t3 = add t0, t2; store t3 } }
          %z: f32[n, 33] = dequantize %q
          return %y, %z
        }";
    each(text, (-3, 4), Close::Rel(1e-2, 1e-2));
}
