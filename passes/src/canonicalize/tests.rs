//! Each rule fires on its form, and declines where a condition does not hold.

use crate::testing::{check, declines};

fn simplifies(text: &str, expected: &str) {
    check("canonicalize", text, expected);
}

fn stays(text: &str) {
    declines("canonicalize", text);
}

#[test]
fn casts() {
    simplifies(
        r#"func @main(%x: f16[4]) -> (y: f16[4], z: i64[4]) {
             %a: f16[4] = cast %x
             %b: f32[4] = cast %a
             %c: f16[4] = cast %b @"down"
             %d: f64[4] = cast %b
             %e: i64[4] = cast %d
             return %c, %e
           }"#,
        r#"func @main(%x: f16[4]) -> (y: f16[4], z: i64[4]) {
             %e: i64[4] = cast %x
             return %x, %e
           }"#,
    );
    // Narrowing first loses digits; truth values are not what they are cast from.
    stays(
        "func @main(%x: f32[4], %i: i64[4]) -> (y: f32[4], z: i64[4], w: bool[4]) {
           %a: f16[4] = cast %x
           %b: f32[4] = cast %a
           %c: bool[4] = cast %i
           %d: i64[4] = cast %c
           %e: f16[4] = cast %i
           %f: bool[4] = cast %e
           return %b, %d, %f
         }",
    );
}

#[test]
fn unary_functions_twice() {
    simplifies(
        "func @main(%x: f32[4]) -> (y: f32[4], z: f32[4]) {
           %a: f32[4] = neg %x
           %b: f32[4] = neg %a
           %c: f32[4] = relu %b
           %d: f32[4] = relu %c
           %e: f32[4] = exp %x
           %f: f32[4] = exp %e
           return %d, %f
         }",
        "func @main(%x: f32[4]) -> (y: f32[4], z: f32[4]) {
           %c: f32[4] = relu %x
           %e: f32[4] = exp %x
           %f: f32[4] = exp %e
           return %c, %f
         }",
    );
}

#[test]
fn constants_go_right_and_neutral_ones_go() {
    simplifies(
        "weight @one: f32[1] = [1.0]
         func @main(%x: f32[2, 3]) -> (y: f32[2, 3]) {
           %zero: f32[] = splat {value = 0.0}
           %one: f32[1] = const @one
           %two: f32[] = splat {value = 2.0}
           %a: f32[2, 3] = add %zero, %x
           %b: f32[2, 3] = mul %one, %a
           %c: f32[2, 3] = div %b, %one
           %d: f32[2, 3] = sub %c, %zero
           %e: f32[2, 3] = pow %d, %one
           %f: f32[2, 3] = mul %two, %e
           return %f
         }",
        "func @main(%x: f32[2, 3]) -> (y: f32[2, 3]) {
           %two: f32[] = splat {value = 2.0}
           %f: f32[2, 3] = mul %x, %two
           return %f
         }",
    );
    // A neutral operand that broadcasts, and ones that are not neutral on this side.
    stays(
        "func @main(%x: f32[3]) -> (y: f32[2, 3], z: f32[3], w: f32[3]) {
           %zero: f32[2, 1] = splat {value = 0.0}
           %none: f32[] = splat {value = 0.0}
           %one: f32[] = splat {value = 1.0}
           %a: f32[2, 3] = add %x, %zero
           %b: f32[3] = sub %none, %x
           %c: f32[3] = div %one, %x
           return %a, %b, %c
         }",
    );
}

#[test]
fn negations_and_selections() {
    simplifies(
        "func @main(%c: bool[3], %x: f32[3], %y: f32[3]) -> (a: f32[3], b: f32[3]) {
           %n: f32[3] = neg %y
           %s: f32[3] = sub %x, %n
           %not: bool[3] = not %c
           %a: f32[3] = select %not, %s, %x
           %b: f32[3] = select %c, %x, %x
           return %a, %b
         }",
        "func @main(%c: bool[3], %x: f32[3], %y: f32[3]) -> (a: f32[3], b: f32[3]) {
           %s: f32[3] = add %x, %y
           %a: f32[3] = select %c, %x, %s
           return %a, %x
         }",
    );
}

#[test]
fn layouts() {
    simplifies(
        r#"dim n = 1..9
           func @main(%x: f32[n, 2, 3]) -> (a: f32[n, 6], b: f32[3, n, 2], c: f32[n, 1, 2]) {
             %r: f32[2*n, 3] = reshape %x @"first"
             %s: f32[n, 6] = reshape %r @"second"
             %t: f32[2, 3, n] = transpose %x {perm = [1, 2, 0]}
             %u: f32[3, n, 2] = transpose %t {perm = [1, 2, 0]}
             %v: f32[n, 2, 2] = slice %x {starts = [0, 0, 1], ends = [n, 2, 3], steps = [1, 1, 1]}
             %w: f32[n, 1, 2] = slice %v {starts = [0, 1, 0], ends = [n, 2, 2], steps = [1, 1, 1]}
             %z: f32[n, 1, 2] = slice %w {starts = [0, 0, 0], ends = [n, 1, 2], steps = [1, 1, 1]}
             return %s, %u, %z
           }"#,
        r#"dim n = 1..9
           func @main(%x: f32[n, 2, 3]) -> (a: f32[n, 6], b: f32[3, n, 2], c: f32[n, 1, 2]) {
             %s: f32[n, 6] = reshape %x @"first", "second"
             %u: f32[3, n, 2] = transpose %x {perm = [2, 0, 1]}
             %w: f32[n, 1, 2] = slice %x {starts = [0, 1, 1], ends = [n, 2, 3], steps = [1, 1, 1]}
             return %s, %u, %w
           }"#,
    );
}

#[test]
fn splats_take_any_layout() {
    simplifies(
        "dim n = 1..9
         func @main(%x: f32[n, 3]) -> (y: f32[n, 3]) {
           %a: f32[] = splat {value = 2.0}
           %b: f32[1, 3] = expand %a
           %c: f32[3, 1] = transpose %b {perm = [1, 0]}
           %d: f32[3] = reshape %c
           %e: f32[n, 3] = mul %x, %d
           return %e
         }",
        "dim n = 1..9
         func @main(%x: f32[n, 3]) -> (y: f32[n, 3]) {
           %d: f32[3] = splat {value = 2.0}
           %e: f32[n, 3] = mul %x, %d
           return %e
         }",
    );
}

#[test]
fn broadcasts_are_implicit() {
    simplifies(
        "dim n = 1..9
         func @main(%x: f32[n, 3], %b: f32[3]) -> (y: f32[n, 3]) {
           %e: f32[n, 3] = expand %b
           %y: f32[n, 3] = add %x, %e
           return %y
         }",
        "dim n = 1..9
         func @main(%x: f32[n, 3], %b: f32[3]) -> (y: f32[n, 3]) {
           %y: f32[n, 3] = add %x, %b
           return %y
         }",
    );
    // One of the two has to bring the shape.
    simplifies(
        "func @main(%x: f32[3], %b: f32[1]) -> (y: f32[2, 3]) {
           %d: f32[2, 3] = expand %x
           %e: f32[2, 3] = expand %b
           %y: f32[2, 3] = add %d, %e
           return %y
         }",
        "func @main(%x: f32[3], %b: f32[1]) -> (y: f32[2, 3]) {
           %e: f32[2, 3] = expand %b
           %y: f32[2, 3] = add %x, %e
           return %y
         }",
    );
}

#[test]
fn constants_are_laid_out_when_read() {
    simplifies(
        "weight @w: f16[2, 6] = normal(1, 1.0)
         func @main(%x: f32[4, 3]) -> (y: f32[4, 3]) {
           %w: f16[2, 6] = const @w
           %t: f16[6, 2] = transpose %w {perm = [1, 0]}
           %r: f16[4, 3] = reshape %t
           %f: f32[4, 3] = cast %r
           %y: f32[4, 3] = mul %x, %f
           return %y
         }",
        "weight @w: f32[4, 3] = extern
         func @main(%x: f32[4, 3]) -> (y: f32[4, 3]) {
           %w: f32[4, 3] = const @w
           %y: f32[4, 3] = mul %x, %w
           return %y
         }",
    );
}

#[test]
fn concats() {
    simplifies(
        "func @main(%x: f32[2], %y: f32[3]) -> (a: f32[7], b: f32[2]) {
           %p: f32[5] = concat %x, %y {axis = 0}
           %q: f32[7] = concat %p, %x {axis = 0}
           %r: f32[2] = concat %x {axis = 0}
           return %q, %r
         }",
        "func @main(%x: f32[2], %y: f32[3]) -> (a: f32[7], b: f32[2]) {
           %q: f32[7] = concat %x, %y, %x {axis = 0}
           return %q, %x
         }",
    );
}

#[test]
fn paddings() {
    let window = "strides = [1, 1], dilations = [1, 1]";
    simplifies(
        &format!(
            "weight @w: f32[2, 3, 3, 3] = normal(1, 1.0)
             func @main(%x: f32[1, 3, 5, 5]) -> (y: f32[1, 2, 7, 4]) {{
               %n: f32[1, 3, 5, 5] = pad %x {{lo = [0, 0, 0, 0], hi = [0, 0, 0, 0], value = 0.0}}
               %p: f32[1, 3, 8, 6] = pad %n {{lo = [0, 0, 1, 0], hi = [0, 0, 2, 1], value = 0.0}}
               %w: f32[2, 3, 3, 3] = const @w
               %y: f32[1, 2, 7, 4] = conv %p, %w {{kernel = [3, 3], {window}, pad_lo = [1, 0], pad_hi = [0, 0]}}
               return %y
             }}"
        ),
        &format!(
            "weight @w: f32[2, 3, 3, 3] = normal(1, 1.0)
             func @main(%x: f32[1, 3, 5, 5]) -> (y: f32[1, 2, 7, 4]) {{
               %w: f32[2, 3, 3, 3] = const @w
               %y: f32[1, 2, 7, 4] = conv %x, %w {{kernel = [3, 3], {window}, pad_lo = [2, 0], pad_hi = [2, 1]}}
               return %y
             }}"
        ),
    );
}

#[test]
fn products_with_constants_are_linear() {
    simplifies(
        r#"dim n = 1..9
           weight @w: f32[3, 4] = normal(1, 1.0)
           weight @v: f32[2, 4] = normal(2, 1.0)
           weight @b: f32[1, 4] = normal(3, 1.0)
           func @main(%x: f32[n, 3], %z: f32[n, 4]) -> (y: f32[n, 4], u: f32[n, 2]) {
             %w: f32[3, 4] = const @w
             %v: f32[2, 4] = const @v
             %b: f32[1, 4] = const @b
             %m: f32[n, 4] = matmul %x, %w @"MatMul_0"
             %y: f32[n, 4] = add %b, %m @"Add_1"
             %vt: f32[4, 2] = transpose %v {perm = [1, 0]}
             %u: f32[n, 2] = matmul %z, %vt
             return %y, %u
           }"#,
        r#"dim n = 1..9
           weight @v: f32[2, 4] = normal(2, 1.0)
           weight @w: f32[4, 3] = extern
           weight @b: f32[4] = normal(3, 1.0)
           func @main(%x: f32[n, 3], %z: f32[n, 4]) -> (y: f32[n, 4], u: f32[n, 2]) {
             %v: f32[2, 4] = const @v
             %w: f32[4, 3] = const @w
             %b: f32[4] = const @b
             %y: f32[n, 4] = linear %x, %w, %b @"MatMul_0", "Add_1"
             %u: f32[n, 2] = linear %z, %v
             return %y, %u
           }"#,
    );
}

#[test]
fn a_product_that_is_read_twice_keeps_its_bias_apart() {
    stays(
        "weight @w: f32[4, 3] = normal(1, 1.0)
         weight @b: f32[4] = normal(2, 1.0)
         func @main(%x: f32[2, 3]) -> (y: f32[2, 4], m: f32[2, 4]) {
           %w: f32[4, 3] = const @w
           %b: f32[4] = const @b
           %m: f32[2, 4] = linear %x, %w
           %y: f32[2, 4] = add %m, %b
           return %y, %m
         }",
    );
}

#[test]
fn batch_normalization_folds_into_a_convolution() {
    let conv =
        "kernel = [1, 1], strides = [1, 1], dilations = [1, 1], pad_lo = [0, 0], pad_hi = [0, 0]";
    check(
        "canonicalize,fold-constants",
        &format!(
            r#"weight @w: f32[2, 3, 1, 1] = normal(1, 1.0)
             weight @b: f32[2] = [1.0, 2.0]
             weight @mean: f32[1, 2, 1, 1] = [0.5, -1.0]
             weight @scale: f32[2, 1, 1] = [2.0, 3.0]
             weight @shift: f32[2, 1, 1] = [0.25, 0.5]
             func @main(%x: f32[1, 3, 2, 2]) -> (y: f32[1, 2, 2, 2]) {{
               %w: f32[2, 3, 1, 1] = const @w
               %b: f32[2] = const @b
               %mean: f32[1, 2, 1, 1] = const @mean
               %scale: f32[2, 1, 1] = const @scale
               %shift: f32[2, 1, 1] = const @shift
               %c: f32[1, 2, 2, 2] = conv %x, %w, %b {{{conv}}} @"Conv"
               %d: f32[1, 2, 2, 2] = sub %c, %mean
               %e: f32[1, 2, 2, 2] = mul %d, %scale
               %y: f32[1, 2, 2, 2] = add %e, %shift @"BatchNorm"
               return %y
             }}"#
        ),
        &format!(
            r#"weight @w: f32[2, 3, 1, 1] = extern
             weight @y.bias: f32[2] = [1.25, 9.5]
             func @main(%x: f32[1, 3, 2, 2]) -> (y: f32[1, 2, 2, 2]) {{
               %w: f32[2, 3, 1, 1] = const @w
               %y.bias: f32[2] = const @y.bias @"BatchNorm"
               %y: f32[1, 2, 2, 2] = conv %x, %w, %y.bias {{{conv}}} @"Conv", "BatchNorm"
               return %y
             }}"#
        ),
    );
}

#[test]
fn rows_are_rearranged_behind_a_linear_layer() {
    simplifies(
        r#"dim b = 1..9
           dim s = 1..9
           weight @w: f32[4, 3] = normal(1, 1.0)
           func @main(%x: f32[b, s, 3]) -> (y: f32[b, s, 4]) {
             %w: f32[4, 3] = const @w
             %r: f32[b*s, 3] = reshape %x
             %l: f32[b*s, 4] = linear %r, %w @"Gemm"
             %y: f32[b, s, 4] = reshape %l
             return %y
           }"#,
        r#"dim b = 1..9
           dim s = 1..9
           weight @w: f32[4, 3] = normal(1, 1.0)
           func @main(%x: f32[b, s, 3]) -> (y: f32[b, s, 4]) {
             %w: f32[4, 3] = const @w
             %l.rows: f32[b, s, 4] = linear %x, %w @"Gemm"
             return %l.rows
           }"#,
    );
    // A reshape that cuts rows is not one of whole rows.
    stays(
        "weight @w: f32[4, 3] = normal(1, 1.0)
         func @main(%x: f32[2, 6]) -> (y: f32[4, 4]) {
           %w: f32[4, 3] = const @w
           %r: f32[4, 3] = reshape %x
           %y: f32[4, 4] = linear %r, %w
           return %y
         }",
    );
}
