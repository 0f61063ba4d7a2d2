//! What no GPU kernel serves is refused with the constraint that fails and the op's place.

use qcc_codegen::lower::{LowerOptions, lower};
use qcc_codegen::target::Target;
use qcc_ir::graph::parse;

/// The messages for a function body over `%x: f16[n, 64]`, `%w: f16[8, 64]`, `%i: i64[n, 64]`.
fn refusals(body: &str) -> Vec<String> {
    let text = format!(
        "qir 1\ndim n = 1..64\ndim h = 1..64\nweight @c: u8[2] = normal(1, 9)\nweight @s: e4m3[1] = splat(0.5)\nfunc @main(%x: f16[n, 64], %w: f16[8, 64], %i: i64[n, 64], %p: f16[1, n, h]) -> (y: f16[n, 64]) {{\n{body}\n  return %x\n}}\n"
    );
    let m = parse(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    let errors = lower(&m, Target::find("sm_80").unwrap(), LowerOptions::default())
        .err()
        .unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_refused(body: &str, because: &str) {
    let found = refusals(body);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(because), "{found:?}");
    assert!(
        found[0].contains("Q0610") && found[0].contains("here"),
        "{found:?}"
    );
}

#[test]
fn each_constraint_names_itself() {
    let row = "q<i8, [1, *], scale=f32, dynamic>";
    assert_refused(
        &format!(
            "  %y: {row}[n, 8] = linear %x, %w {{ expr = {{ t0 = acc0; store t0 }} }} @\"here\""
        ),
        "whole rows",
    );
    assert_refused(
        &format!("  %y: {row}[n, 64] = map %x {{ expr = {{ t0 = in0; store t0 }} }} @\"here\""),
        "whole rows",
    );
    assert_refused(
        "  %y: q<i8, [*, *], scale=f32, dynamic>[n, 64] = quantize %x @\"here\"",
        "one symmetric scale per row",
    );
    assert_refused(
        "  %y: q<i4, [1, *], scale=f32, dynamic>[n, 64] = quantize %x @\"here\"",
        "packs codes in a byte",
    );
    assert_refused(
        "  %t: i64[64, n] = transpose %i { perm = [1, 0] }\n  %y: i64[n, n] = matmul %i, %t @\"here\"",
        "for floats",
    );
    assert_refused(
        "  %r: i64[1, n, 64] = reshape %i\n  %y: i64[1, n, 32] = pool %r { f = max, kernel = [2], strides = [2] } @\"here\"",
        "for floats",
    );
    assert_refused(
        "  %y: f16[1, n, h] = attention %p, %p, %p { heads = 1, scale = 1 } @\"here\"",
        "heads of a known size",
    );
    assert_refused(
        "  %y: f16[1, n, h] = rotary %p, %w, %w { heads = 1 } @\"here\"",
        "rotary head",
    );
}

#[test]
fn every_refusal_is_reported() {
    let row = "q<i8, [*, *], scale=f32, dynamic>[n, 64] = quantize %x";
    assert_eq!(refusals(&format!("  %a: {row}\n  %b: {row}")).len(), 2);
}
