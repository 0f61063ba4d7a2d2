//! The text form of the graph IR: every op round-trips, errors are found and placed.

use qcc_ir::graph::{Module, parse, verify};

/// Canonical text with every kind of op, type, attribute, weight and name.
const ALL: &str = r#"qir 1
dim n = 1..4096 @ 1, 16
dim "past + seq" = 0..8
weight @fc.w: e4m3[8, 8] = extern
weight @fc.s: f32[8, 1] = splat(0.5)
weight @"a b": f32[8] = [1, 0.1, -0.0, inf, 1e-5, 0x7ff8000000000001, 2, 3]
weight @g: u4[2] = normal(7, 0.02)
weight @scalar: i64[] = [-3]

func @main(%x: f32[n, 8], %x.scale: f32[], %"x:0": i64[2*n + 1, (n + 3)//4, n % 4, min(1, n), max(n - 2, 4)]) -> (logits: f32[n, 8], "out 2": bool[]) {
  %w: q<e4m3, [1, *], scale=f32>[8, 8] = const @fc.w, @fc.s @"W"
  %z: q<u4, [*], scale=e4m3/f32, zero=u4>[2] = const @g, @fc.s, @g
  %y: q<u4, [1, 128], scale=f16, dynamic, narrow>[2, 2] = const @g, _, @"a b"
  %xq: q<e4m3, [*, *], scale=f32>[n, 8] = quantize %x, %x.scale @"a", "b\nc"
  %b: f32[8] = const @"a b"
  %0: f32[n, 8] = linear %xq, %w, %b { segments = [4, 4], accs = 2, expr = { t0 = acc0; t1 = in2; t2 = -0.5; t3 = 7; t4 = add t0, t1; t5 = select t4, t0, t1; t6 = cast f16 t5; t7 = gelu t6; store t7; store t2 scale in4 zero in5 } } @"MatMul_3"
  %1: f32[] = splat { value = 0.5 }
  %2: i64[8] = iota { axis = 0 }
  %3: i64[] = dim { value = [n//2 + 3] }
  %4: f32[n, 8] = gelu_tanh %x
  %5: f32[n, 8] = add %x, %4
  %6: bool[n, 8] = lt %x, %4
  %7: f32[n, 8] = select %6, %x, %4
  %8: f16[n, 8] = cast %x
  %9: f32[n, 8], %10: f16[n, 8] = map %x, %8 { expr = { t0 = in0; t1 = -inf; t2 = 0x7fc00001; store t0; store t0 } }
  %11: f32[n, 8] = dequantize %xq
  %12: f32[8*n] = reshape %x
  %13: f32[8, n] = transpose %x { perm = [1, 0] }
  %14: f32[2, n, 8] = expand %x
  %15: f32[1, 4] = slice %x { starts = [0, n - 1], ends = [1, n] }
  %16: f32[1, 4] = slice %x { starts = [0, 0], ends = [2, n], steps = [2, 1] }
  %17: f32[n, 16] = concat %x, %x { axis = 1 }
  %18: f32[n, 10] = pad %x { lo = [0, 1], hi = [0, 1], value = -1e30 }
  %19: f32[n, 10] = pad %x { lo = [0, 1], hi = [0, 1] }
  %20: f32[2, 8] = gather %x, %2 { axis = 0 }
  %21: f32[n, 1] = reduce %x { f = mean, axes = [1], keep }
  %22: f32[n] = reduce %x { f = max, axes = [1] }
  %23: f32[n, 8] = cumsum %x { axis = 0 }
  %24: f32[n, 8] = softmax %x { axis = 1 }
  %25: f32[n, n] = matmul %x, %13
  %26: f32[1, 8, 4, 4] = conv %x, %w { kernel = [3, 3], strides = [2, 2], pad_lo = [1, 1], pad_hi = [1, 1], groups = 4 }
  %27: f32[1, 8, 4] = pool %x { f = mean_padded, kernel = [3], dilations = [2] }
  %28: f32[n, 8] = layer_norm %x, %b, %b { eps = 1e-5 }
  %29: f32[n, 8] = rms_norm %x, %b { eps = 1e-6, expr = { t0 = acc0; store t0 } }
  %30: f32[1, n, 8] = attention %x, %x, %x { heads = 4, kv_heads = 2, scale = 0.125, causal }
  %31: f32[1, n, 8] = attention %x, %x, %x, %6 { heads = 4, scale = 1, mask }
  %32: f32[1, n, 8] = rotary %x, %x, %x { heads = 4, interleaved }
  %33: bool[] = lt %1, %1
  return %5, %33
}
"#;

fn ok(text: &str) -> Module {
    parse(text).unwrap_or_else(|e| panic!("{}", errors(&e)))
}

fn errors(e: &[qcc_ir::Diagnostic]) -> String {
    let lines: Vec<String> = e.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Compares line by line, so that a failure shows the line.
#[track_caller]
fn same(got: &str, want: &str) {
    for (g, w) in got.lines().zip(want.lines()) {
        assert_eq!(g, w);
    }
    assert_eq!(got.lines().count(), want.lines().count());
}

/// The errors of a text, one per line.
fn refusal(text: &str) -> String {
    match parse(text) {
        Ok(m) => format!("no error in\n{m}"),
        Err(e) => errors(&e),
    }
}

#[test]
fn every_op_round_trips() {
    same(&ok(ALL).to_string(), ALL);
}

#[test]
fn layout_and_comments_do_not_matter() {
    let spread = ALL
        .replace("{ ", "{\n   // a comment\n ")
        .replace(" = ", "\n = ");
    same(&ok(&spread).to_string(), ALL);
}

#[test]
fn the_documented_module_verifies() {
    let text = r#"
qir 1 // as in the module's documentation
dim n = 1..4096 @ 1, 16
weight @fc.w: e4m3[128, 784] = extern
weight @fc.scale: f32[128, 1] = splat(0.5)
weight @fc.b: f32[128] = normal(7, 0.1)

func @main(%x: f32[n, 784], %x.scale: f32[]) -> (logits: f32[n, 128]) {
  %xq: q<e4m3, [*, *], scale=f32>[n, 784] = quantize %x, %x.scale
  %w: q<e4m3, [1, *], scale=f32>[128, 784] = const @fc.w, @fc.scale
  %b: f32[128] = const @fc.b
  %y: f32[n, 128] = linear %xq, %w, %b @"MatMul_3"
  return %y
}
"#;
    let m = ok(text);
    assert_eq!(errors(&verify(&m)), "");
    assert_eq!(m.funcs[0].ops[0].kind.name(), "quantize");
    let b = &m.funcs[0].ops[2];
    assert_eq!(m.op_text(&m.funcs[0], b), "%b: f32[128] = const @fc.b");
}

#[test]
fn several_errors_are_reported_and_cause_no_others() {
    let text = "qir 1
dim n = 1..
weight @w: f33[2] = extern
func @main(%x: f32[2]) -> (y: f32[2]) {
  %a: f32[2] = frobnicate %x
  %b: f32[2] = add %a, %x
  %c: f32[2] = softmax %b { axis = 0, axis = 1 }
  %d: f32[2] = softmax %b { axes = 0 }
  %e: f32[2] = softmax %nowhere
  %f: f32[2 = relu %x
  %w: f32[2] = const @w
  %g: f32[2] = add %f, %later
  return %g
}
func @next() -> (y: f32[]) {
  return %z
";
    assert_eq!(
        refusal(text),
        "error[Q0303]: expected a size, found `weight` (at 3:1)
error[Q0308]: unknown number format `f33` (at 3:12)
  help: the formats are f64, f32, f16, bf16, e4m3, e5m2, e2m1, e8m0, nf4, i64, i32, i16, i8, i4, i2, u64, u32, u16, u8, u4, u2, bool
error[Q0304]: no op is named `frobnicate` (at 5:16)
error[Q0312]: `axis` is given twice (at 7:39)
error[Q0305]: `softmax` has no attribute `axes` (at 8:29)
  help: it has axis
error[Q0306]: `softmax` needs the attribute `axis` (at 9:16)
error[Q0303]: expected `,` or `]`, found `=` (at 10:13)
error[Q0309]: no value `%later` in this function (at 12:24)
error[Q0303]: expected `}`, found the end of the text (at 17:1)"
    );
}

#[test]
fn versions_that_are_not_read() {
    let v = |t| refusal(t);
    assert!(v("").starts_with("error[Q0302]: this is no graph IR text (at 1:1)"));
    assert!(v("qir").starts_with("error[Q0302]: the version is missing"));
    assert!(v("qir 2").starts_with("error[Q0302]: version 2 of the text form is not read"));
}

#[test]
fn hostile_sizes_are_refused() {
    let dim = |d: &str| {
        refusal(&format!(
            "qir 1\nfunc @f(%x: f32[{d}]) -> () {{\n return\n}}"
        ))
    };
    let deep = format!("{}n{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(dim(&deep).starts_with("error[Q0311]"));
    assert!(dim(&"min(1,".repeat(100_000)).starts_with("error[Q0311]"));
    assert!(dim(&format!("n{}", "//3".repeat(100_000))).starts_with("error[Q0311]"));
    assert!(dim(&["(a+b+c+d+e+f)"; 20].join("*")).starts_with("error[Q0311]"));
    let many: Vec<String> = (0..1000).map(|i| format!("s{i}")).collect();
    assert!(dim(&many.join(" + ")).starts_with("error[Q0311]"));
    assert!(dim("9223372036854775808").starts_with("error[Q0307]"));
    let smallest = "qir 1\n\nfunc @f(%x: f32[-9223372036854775808*n]) -> () {\n  return\n}\n";
    same(&ok(smallest).to_string(), smallest);
    ok(&smallest.replace("*n", "//-1").replace("//-1", "//(-1)"));
}
