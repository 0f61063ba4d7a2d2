//! Each recogniser on every spelling that it knows, and on what only looks like one.

use crate::testing::{declines, difference, module, run};

/// Runs passes on a text; the result computes the same, has `wanted` in its text, and nothing
/// of `gone`.
fn finds(passes: &str, text: &str, wanted: &[&str], gone: &[&str]) {
    let before = module(text);
    let after = run(passes, before.clone()).unwrap_or_else(|e| panic!("{e}"));
    let printed = after.to_string();
    for w in wanted {
        assert!(printed.contains(w), "`{w}` is missing in\n{printed}");
    }
    for g in gone {
        assert!(!printed.contains(g), "`{g}` is left in\n{printed}");
    }
    let d = difference(&before, &after);
    assert!(d <= 1e-5, "results differ by {d}\n{printed}");
}

/// A function of `x[n, 8]` with these steps, the last of which is `%y`.
fn elementwise(steps: &str) -> String {
    format!(
        "dim n = 1..64\nfunc @main(%x: f32[n, 8]) -> (y: f32[n, 8]) {{\n{steps}\n  return %y\n}}"
    )
}

#[test]
fn gelu_by_the_error_function() {
    let half_last = "%r: f32[] = splat { value = 1.4142135 }
        %a: f32[n, 8] = div %x, %r
        %b: f32[n, 8] = erf %a
        %one: f32[] = splat { value = 1 }
        %c: f32[n, 8] = add %b, %one
        %d: f32[n, 8] = mul %x, %c
        %h: f32[] = splat { value = 0.5 }
        %y: f32[n, 8] = mul %d, %h @\"last\"";
    let half_first = "%r: f32[] = splat { value = 0.70710677 }
        %a: f32[n, 8] = mul %x, %r
        %b: f32[n, 8] = erf %a
        %one: f32[] = splat { value = 1 }
        %c: f32[n, 8] = add %one, %b
        %h: f32[] = splat { value = 0.5 }
        %d: f32[n, 8] = mul %x, %h
        %y: f32[n, 8] = mul %c, %d";
    for text in [half_last, half_first] {
        finds(
            "fold-gelu",
            &elementwise(text),
            &["= gelu %x"],
            &["erf", "mul"],
        );
    }
    finds("fold-gelu", &elementwise(half_last), &["@\"last\""], &[]);
    // Without the half, or with another root, it is something else.
    declines("fold-gelu", &elementwise(&half_last.replace("0.5", "0.75")));
    declines(
        "fold-gelu",
        &elementwise(&half_last.replace("1.4142135", "1.5")),
    );
    declines(
        "fold-gelu",
        &elementwise(&half_last.replace("mul %x, %c", "mul %a, %c")),
    );
}

#[test]
fn gelu_by_the_hyperbolic_tangent() {
    let tail = |inner: &str| {
        format!(
            "{inner}
             %k: f32[] = splat {{ value = 0.7978846 }}
             %t0: f32[n, 8] = mul %k, %in
             %t: f32[n, 8] = tanh %t0
             %u: f32[n, 8] = add %one, %t
             %v: f32[n, 8] = mul %x, %u
             %h: f32[] = splat {{ value = 0.5 }}
             %y: f32[n, 8] = mul %h, %v"
        )
    };
    let numbers = "%c: f32[] = splat { value = 0.044715 }
        %one: f32[] = splat { value = 1 }";
    let power = "%three: f32[] = splat { value = 3 }
        %x3: f32[n, 8] = pow %x, %three
        %cube: f32[n, 8] = mul %x3, %c
        %in: f32[n, 8] = add %x, %cube";
    let products = "%x2: f32[n, 8] = mul %x, %x
        %x3: f32[n, 8] = mul %x, %x2
        %cube: f32[n, 8] = mul %c, %x3
        %in: f32[n, 8] = add %cube, %x";
    let factored = "%x2: f32[n, 8] = mul %x, %x
        %c2: f32[n, 8] = mul %x2, %c
        %p: f32[n, 8] = add %c2, %one
        %in: f32[n, 8] = mul %x, %p";
    for inner in [power, products, factored] {
        let text = elementwise(&tail(&format!("{numbers}\n{inner}")));
        finds("fold-gelu", &text, &["= gelu_tanh %x"], &["tanh %t0"]);
    }
    let square = power.replace("value = 3", "value = 2");
    declines(
        "fold-gelu",
        &elementwise(&tail(&format!("{numbers}\n{square}"))),
    );
}

#[test]
fn gates_of_oneself() {
    let silu = "%s: f32[n, 8] = sigmoid %x\n%y: f32[n, 8] = mul %s, %x";
    finds(
        "fold-silu",
        &elementwise(silu),
        &["= silu %x"],
        &["sigmoid"],
    );
    declines(
        "fold-silu",
        &elementwise(
            "%a: f32[n, 8] = neg %x\n%s: f32[n, 8] = sigmoid %a\n%y: f32[n, 8] = mul %s, %x",
        ),
    );
    let sixth = "%a: f32[] = splat { value = 0.16666667 }
        %half: f32[] = splat { value = 0.5 }
        %one: f32[] = splat { value = 1 }
        %zero: f32[] = splat { value = 0 }
        %l: f32[n, 8] = mul %x, %a
        %m: f32[n, 8] = add %l, %half
        %u: f32[n, 8] = min %m, %one
        %v: f32[n, 8] = max %u, %zero
        %y: f32[n, 8] = mul %x, %v";
    let six = "%three: f32[] = splat { value = 3 }
        %s: f32[n, 8] = add %x, %three
        %r: f32[n, 8] = relu %s
        %six: f32[] = splat { value = 6 }
        %c: f32[n, 8] = min %r, %six
        %p: f32[n, 8] = mul %x, %c
        %y: f32[n, 8] = div %p, %six";
    for text in [sixth, six] {
        finds(
            "fold-silu",
            &elementwise(text),
            &["= hard_swish %x"],
            &["min"],
        );
    }
    declines(
        "fold-silu",
        &elementwise(&sixth.replace("0.16666667", "0.2")),
    );
}

const CENTERED: &str = "%m: f32[n, 1] = reduce %x { f = mean, axes = [1], keep }
    %d: f32[n, 8] = sub %x, %m";

/// Gain and bias as parameters.
fn normalized(steps: &str) -> String {
    elementwise(steps).replace("(%x: f32[n, 8])", "(%x: f32[n, 8], %g: f32[8], %b: f32[8])")
}

#[test]
fn layer_normalization() {
    let square = "%two: f32[] = splat { value = 2 }\n%q: f32[n, 8] = pow %d, %two";
    let product = "%q: f32[n, 8] = mul %d, %d";
    let again = "%m2: f32[n, 1] = reduce %x { f = mean, axes = [1], keep }
        %d2: f32[n, 8] = sub %x, %m2
        %q: f32[n, 8] = mul %d2, %d2";
    let root = "%v: f32[n, 1] = reduce %q { f = mean, axes = [1], keep }
        %eps: f32[] = splat { value = 1e-5 }
        %w: f32[n, 1] = add %v, %eps
        %s: f32[n, 1] = sqrt %w";
    let divide = "%u: f32[n, 8] = div %d, %s";
    let multiply = "%r: f32[n, 1] = recip %s\n%u: f32[n, 8] = mul %d, %r";
    let affine = "%z: f32[n, 8] = mul %u, %g\n%y: f32[n, 8] = add %z, %b";
    for (q, u) in [(square, divide), (product, multiply), (again, divide)] {
        let text = normalized(&[CENTERED, q, root, u, affine].join("\n"));
        finds(
            "fold-layer-norm",
            &text,
            &["= layer_norm %x, %g, %b { eps = 1e-5 }"],
            &["reduce", "sqrt"],
        );
    }
    let plain = [CENTERED, product, root, &divide.replace("%u", "%y")].join("\n");
    finds(
        "fold-layer-norm",
        &elementwise(&plain),
        &["= layer_norm %x, %"],
        &["sqrt"],
    );
    // The variance of something else, another axis, no mean.
    let other = again
        .replace("reduce %x", "reduce %g0")
        .replace("sub %x", "sub %g0");
    let other = format!("%g0: f32[n, 8] = neg %x\n{other}");
    declines(
        "fold-layer-norm",
        &normalized(&[CENTERED, &other, root, divide, affine].join("\n")),
    );
    let sum = [
        CENTERED,
        product,
        &root.replace("f = mean", "f = sum"),
        divide,
        affine,
    ]
    .join("\n");
    declines("fold-layer-norm", &normalized(&sum));
}

#[test]
fn rms_normalization() {
    let mean = "%two: f32[] = splat { value = 2 }
        %q: f32[n, 8] = pow %x, %two
        %v: f32[n, 1] = reduce %q { f = mean, axes = [1], keep }
        %eps: f32[] = splat { value = 1e-6 }
        %w: f32[n, 1] = add %v, %eps";
    let roots = [
        "%s: f32[n, 1] = sqrt %w\n%r: f32[n, 1] = recip %s\n%u: f32[n, 8] = mul %x, %r",
        "%s: f32[n, 1] = sqrt %w\n%one: f32[] = splat { value = 1 }\n%r: f32[n, 1] = div %one, %s\n%u: f32[n, 8] = mul %r, %x",
        "%s: f32[n, 1] = sqrt %w\n%u: f32[n, 8] = div %x, %s",
        "%u0: f32[n, 1] = rsqrt %w\n%u: f32[n, 8] = mul %x, %u0",
        "%e: f32[] = splat { value = -0.5 }\n%u0: f32[n, 1] = pow %w, %e\n%u: f32[n, 8] = mul %x, %u0",
    ];
    for root in roots {
        let text = normalized(&[mean, root, "%y: f32[n, 8] = mul %g, %u"].join("\n"));
        let text = text.replace(", %b: f32[8]", "");
        finds(
            "fold-rms-norm",
            &text,
            &["= rms_norm %x, %g { eps = 1e-6 }"],
            &["reduce"],
        );
    }
    let plain = [mean, &roots[2].replace("%u", "%y")].join("\n");
    finds(
        "fold-rms-norm",
        &elementwise(&plain),
        &["= rms_norm %x, %"],
        &["sqrt"],
    );
    let first = elementwise(&plain)
        .replace("axes = [1]", "axes = [0]")
        .replace("[n, 1]", "[1, 8]");
    declines("fold-rms-norm", &first);
}

#[test]
fn rms_normalization_in_a_wider_format() {
    let text = "dim n = 1..64
        func @main(%x: f16[n, 8], %g: f16[8]) -> (y: f16[n, 8]) {
          %x32: f32[n, 8] = cast %x
          %q: f32[n, 8] = mul %x32, %x32
          %v: f32[n, 1] = reduce %q { f = mean, axes = [1], keep }
          %eps: f32[] = splat { value = 1e-6 }
          %w: f32[n, 1] = add %v, %eps
          %s: f32[n, 1] = rsqrt %w
          %u: f32[n, 8] = mul %x32, %s
          %h: f16[n, 8] = cast %u
          %y: f16[n, 8] = mul %g, %h
          return %y
        }";
    let before = module(text);
    let after = run("fold-rms-norm", before.clone()).unwrap();
    assert!(
        after.to_string().contains("f16[n, 8] = rms_norm %x, %g"),
        "{after}"
    );
    assert!(difference(&before, &after) <= 2e-3, "one rounding less");
}

#[test]
fn positions_are_decided() {
    finds(
        "fold-positions",
        "dim n = 1..8
         func @main(%x: f32[n, 4], %t: f32[16, 4]) -> (y: f32[n, 4], z: f32[1, n, 4], c: bool[n]) {
           %i: i64[n] = iota { axis = 0 }
           %zero: i64[] = splat { value = 0 }
           %size: i64[] = dim { value = [n] }
           %neg: bool[n] = lt %i, %zero
           %wrapped: i64[n] = add %i, %size
           %j: i64[n] = select %neg, %wrapped, %i
           %y: f32[n, 4] = gather %x, %j { axis = 0 }
           %row: i64[1, n] = reshape %i
           %z: f32[1, n, 4] = gather %t, %row { axis = 0 }
           %ge: bool[n] = ge %i, %zero
           %three: i64[] = splat { value = 3 }
           %lt: bool[n] = lt %i, %three
           %c: bool[n] = and %ge, %lt
           return %y, %z, %c
         }",
        &[
            "slice %t { starts = [0, 0], ends = [n, 4] }",
            "lt %i, %three",
        ],
        &["gather", "select", "and"],
    );
    // Beyond 16 rows the lookup must fail when it runs, so it stays.
    declines(
        "fold-positions",
        "dim n = 1..64
         func @main(%t: f32[16, 4], %m: i64[n]) -> (y: f32[n, 4], z: f32[n, 4]) {
           %i: i64[n] = iota { axis = 0 }
           %y: f32[n, 4] = gather %t, %i { axis = 0 }
           %z: f32[n, 4] = gather %t, %m { axis = 0 }
           return %y, %z
         }",
    );
}

/// Rotation of `%x[b, h, s, d]` by tables `%c` and `%s`.
fn rotation(tables: &str) -> String {
    format!(
        "dim b = 1..4
         dim s = 1..64
         func @main(%x: f32[b, 2, s, 4], %f: f32[1, s, 2]) -> (y: f32[b, 2, s, 4]) {{
           {tables}
           %straight: f32[b, 2, s, 4] = mul %x, %c4
           %hi: f32[b, 2, s, 2] = slice %x {{ starts = [0, 0, 0, 2], ends = [b, 2, s, 4] }}
           %lo: f32[b, 2, s, 2] = slice %x {{ starts = [0, 0, 0, 0], ends = [b, 2, s, 2] }}
           %neg: f32[b, 2, s, 2] = neg %hi
           %turn: f32[b, 2, s, 4] = concat %neg, %lo {{ axis = 3 }}
           %turned: f32[b, 2, s, 4] = mul %turn, %s4
           %y: f32[b, 2, s, 4] = add %straight, %turned
           return %y
         }}"
    )
}

#[test]
fn rotary_embeddings() {
    let angles = "%ff: f32[1, s, 4] = concat %f, %f { axis = 2 }
        %c: f32[1, s, 4] = cos %ff
        %s: f32[1, s, 4] = sin %ff
        %c4: f32[1, 1, s, 4] = reshape %c
        %s4: f32[1, 1, s, 4] = reshape %s";
    finds(
        "fold-rotary,canonicalize,dce",
        &rotation(angles),
        &["cos %f", "= rotary %", "{ heads = 2 }"],
        &["concat", "neg"],
    );
    // The halves of the table differ.
    declines(
        "fold-rotary",
        &rotation(
            &angles
                .replace("concat %f, %f", "concat %f, %f2")
                .replace("%ff:", "%f2: f32[1, s, 2] = neg %f\n%ff:"),
        ),
    );
    let heads_last = "dim b = 1..4
        dim s = 1..64
        func @main(%x: f32[b, s, 2, 4], %c: f32[s, 2], %s: f32[s, 2]) -> (y: f32[b, s, 2, 4]) {
          %c4: f32[1, s, 1, 2] = reshape %c
          %s4: f32[1, s, 1, 2] = reshape %s
          %lo: f32[b, s, 2, 2] = slice %x { starts = [0, 0, 0, 0], ends = [b, s, 2, 2] }
          %hi: f32[b, s, 2, 2] = slice %x { starts = [0, 0, 0, 2], ends = [b, s, 2, 4] }
          %a: f32[b, s, 2, 2] = mul %lo, %c4
          %d: f32[b, s, 2, 2] = mul %hi, %s4
          %re: f32[b, s, 2, 2] = sub %a, %d
          %e: f32[b, s, 2, 2] = mul %c4, %hi
          %g: f32[b, s, 2, 2] = mul %s4, %lo
          %im: f32[b, s, 2, 2] = add %g, %e
          %y: f32[b, s, 2, 4] = concat %re, %im { axis = 3 }
          return %y
        }";
    finds(
        "fold-rotary",
        heads_last,
        &["= rotary %"],
        &["concat", "sub"],
    );
    let swapped = heads_last.replace("sub %a, %d", "sub %d, %a");
    declines("fold-rotary", &swapped);
}

/// Attention of 4 query heads over 2 key heads with a mask and a way to scale.
fn grouped(mask: &str, scores: &str) -> String {
    format!(
        "dim b = 1..4
         dim s = 1..64
         func @main(%q: f32[b, s, 16], %k: f32[b, s, 8], %v: f32[b, s, 8], %pad: i64[b, s]) -> (y: f32[b, s, 16]) {{
           %q4: f32[b, s, 4, 4] = reshape %q
           %qt: f32[b, 4, s, 4] = transpose %q4 {{ perm = [0, 2, 1, 3] }}
           %k4: f32[b, s, 2, 4] = reshape %k
           %kt: f32[b, 2, s, 4] = transpose %k4 {{ perm = [0, 2, 1, 3] }}
           %k5: f32[b, 2, 1, s, 4] = reshape %kt
           %ke: f32[b, 2, 2, s, 4] = expand %k5
           %kr: f32[b, 4, s, 4] = reshape %ke
           %kf: f32[4*b, s, 4] = reshape %kr
           %kp: f32[4*b, 4, s] = transpose %kf {{ perm = [0, 2, 1] }}
           %kk: f32[b, 4, 4, s] = reshape %kp
           %v4: f32[b, s, 2, 4] = reshape %v
           %vt: f32[b, 2, s, 4] = transpose %v4 {{ perm = [0, 2, 1, 3] }}
           %v5: f32[b, 2, 1, s, 4] = reshape %vt
           %ve: f32[b, 2, 2, s, 4] = expand %v5
           %vv: f32[b, 4, s, 4] = reshape %ve
           %half: f32[] = splat {{ value = 0.5 }}
           {mask}
           {scores}
           %p: f32[b, 4, s, s] = softmax %masked {{ axis = 3 }}
           %o: f32[b, 4, s, 4] = matmul %p, %vv
           %ot: f32[b, s, 4, 4] = transpose %o {{ perm = [0, 2, 1, 3] }}
           %y: f32[b, s, 16] = reshape %ot
           return %y
         }}"
    )
}

const TRIANGLE: &str = "%i: i64[s] = iota { axis = 0 }
    %row: i64[s, 1] = reshape %i
    %column: i64[1, s] = reshape %i
    %le: bool[s, s] = le %column, %row
    %le4: bool[1, 1, s, s] = reshape %le
    %zero: f32[] = splat { value = 0 }
    %low: f32[] = splat { value = -1000000000 }
    %m: f32[1, 1, s, s] = select %le4, %zero, %low";
const AFTER: &str = "%qk: f32[b, 4, s, s] = matmul %qt, %kk
    %scaled: f32[b, 4, s, s] = mul %qk, %half
    %masked: f32[b, 4, s, s] = add %scaled, %m";
const FOLD: &str = "canonicalize,fold-positions,canonicalize,fold-attention,canonicalize,dce";

#[test]
fn grouped_causal_attention() {
    let wanted = "= attention %q, %k, %v { heads = 4, kv_heads = 2, scale = 0.5, causal }";
    let gone = ["softmax", "matmul", "transpose", "select"];
    finds(FOLD, &grouped(TRIANGLE, AFTER), &[wanted], &gone);
    // The factor on either side, or split.
    let before = "%qs: f32[b, 4, s, 4] = mul %qt, %half
        %qk: f32[b, 4, s, s] = matmul %qs, %kk
        %masked: f32[b, 4, s, s] = add %m, %qk";
    finds(FOLD, &grouped(TRIANGLE, before), &[wanted], &gone);
    let split = "%root: f32[] = splat { value = 0.70710678 }
        %qs: f32[b, 4, s, 4] = mul %qt, %root
        %ks: f32[b, 4, 4, s] = mul %kk, %root
        %qk: f32[b, 4, s, s] = matmul %qs, %ks
        %masked: f32[b, 4, s, s] = add %m, %qk";
    finds(
        FOLD,
        &grouped(TRIANGLE, split),
        &["scale = 0.5, causal"],
        &gone,
    );
    // Hidden where above the diagonal, chosen instead of added, and guarded against NaN.
    let fill = "%gt: bool[s, s] = gt %column, %row
        %inf: f32[] = splat { value = -inf }
        %qk: f32[b, 4, s, s] = matmul %qt, %kk
        %scaled: f32[b, 4, s, s] = mul %qk, %half
        %masked: f32[b, 4, s, s] = select %gt, %inf, %scaled";
    finds(FOLD, &grouped(TRIANGLE, fill), &[wanted], &gone);
    let guard = "%nan: bool[b, 4, s, s] = ne %p, %p
        %safe: f32[b, 4, s, s] = select %nan, %zero, %p
        %o: f32[b, 4, s, 4] = matmul %safe, %vv";
    let text = grouped(TRIANGLE, AFTER).replace("%o: f32[b, 4, s, 4] = matmul %p, %vv", guard);
    finds(FOLD, &text, &[wanted], &gone);
}

#[test]
fn padding_masks() {
    // Every third key is padding; every row sees its first key.
    let keep = "%two: i64[] = splat { value = 2 }
        %keep: bool[b, s] = lt %pad, %two
        %flat: bool[b*s] = reshape %keep
        %bi: i64[b] = iota { axis = 0 }
        %b4: i64[b, 1, 1, 1] = reshape %bi
        %size: i64[] = dim { value = [s] }
        %off: i64[b, 1, 1, 1] = mul %b4, %size
        %c4: i64[1, 1, 1, s] = reshape %i
        %at: i64[b, 1, 1, s] = add %off, %c4
        %seen: bool[b, 1, 1, s] = gather %flat, %at { axis = 0 }";
    let both = format!(
        "{TRIANGLE}
        {keep}
        %and: bool[b, 1, s, s] = and %le4, %seen
        %m2: f32[b, 1, s, s] = select %and, %zero, %low"
    );
    let scores = AFTER.replace("%m", "%m2").replace("%m2asked", "%masked");
    finds(
        FOLD,
        &grouped(&both, &scores),
        &[
            "bool[b, 1, 1, s] = reshape %keep",
            "kv_heads = 2, scale = 0.5, mask, causal",
        ],
        &["gather", "softmax", "select"],
    );
    // Numbers from the model's inputs stay numbers.
    let floats = "%f: f32[b, s] = cast %pad
        %m: f32[b, 1, 1, s] = reshape %f";
    finds(
        FOLD,
        &grouped(floats, AFTER),
        &["mask }", "f32[b, 1, 1, s]"],
        &["softmax", "causal"],
    );
}

#[test]
fn a_constant_triangle_is_causal() {
    let text = |mask: &str| {
        format!(
            "weight @tri: bool[1, 1, 3, 3] = [{mask}]
             func @main(%q: f32[2, 2, 3, 4], %k: f32[2, 2, 4, 3], %v: f32[2, 2, 3, 4]) -> (y: f32[2, 2, 3, 4]) {{
               %tri: bool[1, 1, 3, 3] = const @tri
               %qk: f32[2, 2, 3, 3] = matmul %q, %k
               %low: f32[] = splat {{ value = -inf }}
               %masked: f32[2, 2, 3, 3] = select %tri, %qk, %low
               %p: f32[2, 2, 3, 3] = softmax %masked {{ axis = 3 }}
               %y: f32[2, 2, 3, 4] = matmul %p, %v
               return %y
             }}"
        )
    };
    let lower = "1, 0, 0, 1, 1, 0, 1, 1, 1";
    finds(
        "fold-attention",
        &text(lower),
        &["scale = 1, causal }"],
        &["softmax"],
    );
    let other = "1, 0, 0, 1, 1, 0, 1, 0, 1";
    finds(
        "fold-attention",
        &text(other),
        &["scale = 1, mask }"],
        &["softmax", "causal"],
    );
}

#[test]
fn what_only_looks_like_attention() {
    // A factor behind the mask would scale the mask too.
    let outside = "%qk: f32[b, 4, s, s] = matmul %qt, %kk
        %sum: f32[b, 4, s, s] = add %qk, %m
        %masked: f32[b, 4, s, s] = mul %sum, %half";
    declines("fold-attention", &grouped(TRIANGLE, outside));
    // Heads repeated as a whole, not each.
    let tiled =
        grouped(TRIANGLE, AFTER).replace("%k5: f32[b, 2, 1, s, 4]", "%k5: f32[b, 1, 2, s, 4]");
    declines("fold-attention", &tiled);
    // Softmax over queries.
    let columns = grouped(TRIANGLE, AFTER).replace(
        "softmax %masked { axis = 3 }",
        "softmax %masked { axis = 2 }",
    );
    declines("fold-attention", &columns);
}
