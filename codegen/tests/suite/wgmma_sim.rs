//! FP8 linear layers on Hopper's tensor cores, in the simulator, against the oracle: tails of every
//! size, two accumulators, segments, expressions, quantized results, more tiles than blocks.

use crate::common::{module, random};
use qcc_codegen::lower::emit_section;
use qcc_codegen::target::Target;
use qcc_ir::DType::F16;
use qcc_ir::Tensor;

/// Activations that a layer can have.
const ACTS: [&str; 2] = [
    "q<e4m3, [*, *], scale=f32>",
    "q<e4m3, [1, *], scale=f32, dynamic>",
];

/// A layer `n × k` over quantized `x`, then `tail`, which defines the results.
fn layer(acts: &str, n: u64, k: u64, results: &str, tail: &str) -> String {
    let scale = if acts.contains("dynamic") { "" } else { ", %s" };
    format!(
        "qir 1
dim m = 1..4096
weight @w: e4m3[{n}, {k}] = normal(5, 4)
weight @ws: f32[{n}, 1] = normal(6, 0.01)
weight @s: f32[] = [0.02]
weight @t: f32[] = [0.5]
weight @b: f32[{n}] = normal(7, 0.5)
func @main(%x: f16[m, {k}], %r: f16[m, {n}]) -> ({results}) {{
  %s: f32[] = const @s
  %t: f32[] = const @t
  %b: f32[{n}] = const @b
  %w: q<e4m3, [1, *], scale=f32>[{n}, {k}] = const @w, @ws
  %q: {acts}[m, {k}] = quantize %x{scale}
{tail}
}}
"
    )
}

/// Runs on the simulated Hopper, where the layer must have the way that needs `sm_90a`.
#[track_caller]
fn check(what: &str, text: &str, inputs: &[Tensor]) {
    let m = module(text);
    let target = Target::find("sm_90").unwrap();
    let (section, _) = emit_section(&m, "main", target).unwrap();
    let mut ways = section.steps.iter().flat_map(|s| &s.run);
    assert!(
        ways.any(|c| c.requires.as_deref() == Some("sm_90a")),
        "{what}"
    );
    crate::common::check(what, text, inputs, 1e-3);
}

fn inputs(m: u64, n: u64, k: u64) -> [Tensor; 2] {
    [
        random(m, F16, &[m, k], 1.0),
        random(m + 1, F16, &[m, n], 1.0),
    ]
}

#[test]
fn any_size() {
    for (i, (m, n, k)) in [
        (64, 128, 128),
        (65, 1, 16),
        (128, 70, 272),
        (200, 257, 144),
        (130, 136, 656),
    ]
    .into_iter()
    .enumerate()
    {
        let tail = format!("  %y: f16[m, {n}] = linear %q, %w, %b\n  return %y");
        let text = layer(ACTS[i % 2], n, k, &format!("y: f16[m, {n}]"), &tail);
        check(&format!("{m} × {n} × {k}"), &text, &inputs(m, n, k));
    }
}

#[test]
fn more_tiles_than_blocks() {
    let (m, n, k) = (64, 128 * 133, 16);
    let tail = format!("  %y: f32[m, {n}] = linear %q, %w\n  return %y");
    let text = layer(ACTS[0], n, k, &format!("y: f32[m, {n}]"), &tail);
    check("persistent blocks", &text, &inputs(m, n, k));
}

#[test]
fn expressions_and_quantized_results() {
    let (m, n, k) = (100, 144, 160);
    let tail = "  %y: f16[m, 144], %z: q<e4m3, [*, *], scale=f32>[m, 144] = linear %q, %w, %b, %r, %t { expr = { t0 = acc0; t1 = in2; t2 = add t0, t1; t3 = gelu t2; t4 = in3; t5 = add t3, t4; store t5; store t3 scale in4 } }\n  %d: f16[m, 144] = dequantize %z\n  return %y, %d";
    let text = layer(ACTS[0], n, k, "y: f16[m, 144], d: f16[m, 144]", tail);
    check("expression", &text, &inputs(m, n, k));
}

#[test]
fn gate_and_up() {
    for (m, half, k) in [(64, 64, 128), (140, 75, 272)] {
        let n = 2 * half;
        let tail = format!(
            "  %y: f16[m, {half}] = linear %q, %w {{ accs = 2, expr = {{ t0 = acc0; t1 = silu t0; t2 = acc1; t3 = mul t1, t2; store t3 }} }}\n  return %y"
        );
        let text = layer(ACTS[1], n, k, &format!("y: f16[m, {half}]"), &tail);
        check("gate and up", &text, &inputs(m, n, k));
    }
}

#[test]
fn segments() {
    let (m, n, k) = (70, 160, 128);
    let tail = "  %y: f16[m, 96], %z: f16[m, 64] = linear %q, %w, %b { segments = [96, 64] }\n  return %y, %z";
    let text = layer(ACTS[0], n, k, "y: f16[m, 96], z: f16[m, 64]", tail);
    check("segments", &text, &inputs(m, n, k));
}

#[test]
fn what_it_does_not_serve_has_no_such_way() {
    let none = |text: &str, target: &str| {
        let m = module(text);
        let (section, _) = emit_section(&m, "main", Target::find(target).unwrap()).unwrap();
        let mut ways = section.steps.iter().flat_map(|s| &s.run);
        assert!(ways.all(|c| c.requires.is_none()), "{text}");
    };
    let text = |k: u64| {
        let tail = "  %y: f16[m, 64] = linear %q, %w, %b\n  return %y";
        layer(ACTS[0], 64, k, "y: f16[m, 64]", tail)
    };
    none(&text(136), "sm_90");
    none(&text(128), "sm_80");
    none(&text(128).replace("e4m3", "e5m2"), "sm_90");
    none(&text(128).replace("[m, ", "[63, "), "sm_90");
}
