//! Linear layers of f16 activations and 4-bit weights that lie as fragments, on the simulator against
//! the oracle: few rows by their own kernels, many by the tiles, both from the same bytes.

use crate::common::{check, random};
use qcc_ir::DType::F16;

fn text(weights: &str, ty: &str, of: &str, n: u64, k: u64, linear: &str, out: u64) -> String {
    format!(
        "qir 1\ndim m = 1..400\n{weights}weight @b: f16[{out}] = normal(9, 0.5)\nfunc @main(%x: f16[m, {k}]) -> (y: f16[m, {out}]) {{\n  %w: {ty}[{n}, {k}] = const {of}\n  %b: f16[{out}] = const @b\n  %y: f16[m, {out}] = linear %x, %w, %b{linear}\n  return %y\n}}\n"
    )
}

/// Every number of token tiles and the tiles of the many, on these weights.
fn rows(what: &str, text: &str, k: u64) {
    for m in [1, 8, 11, 17, 32, 33] {
        let x = random(m, F16, &[m, k], 1.0);
        check(&format!("{what}, {m} rows"), text, &[x], 1e-3);
    }
}

#[test]
fn groups_of_32_with_zero_points() {
    let weights = "weight @w: u4[48, 192] = normal(5, 5)\nweight @s: f16[48, 6] = normal(6, 0.02)\nweight @z: u4[48, 6] = normal(7, 6)\n";
    let t = text(
        weights,
        "q<u4, [1, 32], scale=f16, zero=u4>",
        "@w, @s, @z",
        48,
        192,
        "",
        48,
    );
    rows("groups of 32", &t, 192);
}

#[test]
fn groups_of_128_of_signed_codes() {
    let weights =
        "weight @w: i4[32, 640] = normal(5, 3)\nweight @s: f32[32, 5] = normal(6, 0.02)\n";
    let t = text(
        weights,
        "q<i4, [1, 128], scale=f32>",
        "@w, @s",
        32,
        640,
        "",
        32,
    );
    rows("groups of 128", &t, 640);
}

#[test]
fn a_scale_for_each_row_and_two_accumulators() {
    let weights = "weight @w: i4[64, 64] = normal(5, 3)\nweight @s: f16[64, 1] = normal(6, 0.05)\n";
    let gate = " { accs = 2, expr = { t0 = acc0; t1 = silu t0; t2 = acc1; t3 = mul t1, t2; t4 = in2; t5 = add t3, t4; store t5 } }";
    let t = text(
        weights,
        "q<i4, [1, *], scale=f16>",
        "@w, @s",
        64,
        64,
        gate,
        32,
    );
    rows("gate and up", &t, 64);
}
