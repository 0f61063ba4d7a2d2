//! Deliberately broken copies of the kernels that this project emits: every one is caught, as the
//! fault it is, with its PTX line and the kernel operation of that line.
//!
//! A copy is the emitted text with one edit. An edit names a line by what it holds and which of the
//! lines that hold it it is; a line that is not there fails the test. The text without the edit runs
//! without a fault and gives what the oracle gives.

use crate::broken::{Case, Edit, fp8_gemm, graph, w4a16};

/// The copy with this edit is caught as `fault`, at an operation whose name begins with `op`.
#[track_caller]
fn caught(case: &Case, edit: &Edit, fault: &str, op: &str) {
    let name = &case.name;
    let text = edit
        .apply(&case.text)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let Some(found) = case.judge(&text) else {
        panic!("{name}: nothing is found");
    };
    assert_eq!(found.kind, fault, "{name}: {found:?}");
    assert!(found.op.starts_with(op), "{name}: {found:?}");
    assert_eq!(found.line > 0, fault != "wrong result", "{name}: {found:?}");
}

const WAIT: &str = "cp.async.wait_group";

#[test]
fn a_tiled_gemm() {
    let case = graph(
        "gemm",
        "qir 1
weight @w: f16[48, 328] = normal(5, 0.1)
func @main(%x: f16[40, 328]) -> (y: f16[40, 48]) {
  %w: f16[48, 328] = const @w
  %y: f16[40, 48] = linear %x, %w
  return %y
}
",
    );
    // A stage that is not waited for, or waited for one iteration too late.
    caught(&case, &Edit::drop(WAIT, 0), "not-waited", "ldmatrix");
    let late = Edit::set(WAIT, 0, "wait_group 2", "wait_group 3");
    caught(&case, &late, "not-waited", "ldmatrix");
    caught(&case, &Edit::drop(WAIT, 1), "not-waited", "st");
    caught(&case, &Edit::drop("bar.sync", 0), "not-waited", "ldmatrix");
    caught(&case, &Edit::drop("bar.sync", 1), "not-waited", "st");
    caught(&case, &Edit::drop("bar.sync", 2), "race", "ld ");
    let swizzle = Edit::above("ldmatrix", 0, "and.b32", ", 7;", ", 3;");
    caught(&case, &swizzle, "wrong result", "");
    // One row too many, and one piece of the depth.
    let rows = Edit::last(", 0x28; //@ cmp", ", 0x28;", ", 0x29;");
    caught(&case, &rows, "out-of-bounds", "st");
    let depth = Edit::set(", 0x148; //@ cmp", 10, ", 0x148;", ", 0x149;");
    caught(&case, &depth, "out-of-bounds", "cp_async");
}

#[test]
fn attention() {
    let case = graph(
        "attention",
        "qir 1
func @main(%q: f16[1, 70, 32], %k: f16[1, 70, 16], %v: f16[1, 70, 24]) -> (y: f16[1, 70, 48]) {
  %y: f16[1, 70, 48] = attention %q, %k, %v { heads = 2, kv_heads = 1, scale = 0.25, causal }
  return %y
}
",
    );
    caught(&case, &Edit::drop("bar.sync", 0), "race", "st");
    caught(&case, &Edit::drop("bar.sync", 1), "race", "ld ");
    caught(&case, &Edit::drop("bar.sync", 2), "race", "");
    caught(&case, &Edit::drop("bar.sync", 3), "race", "ld ");
    caught(&case, &Edit::drop("bar.warp.sync", 0), "race", "ld ");
    let queries = Edit::set(", 0x46; //@ cmp", 0, ", 0x46;", ", 0x47;");
    caught(&case, &queries, "out-of-bounds", "ld ");
}

#[test]
fn row_kernels() {
    let text = |result: &str, body: &str| {
        format!(
            "qir 1\nfunc @main(%x: f32[3, 300]) -> (y: {result}) {{\n  %y: {result} = {body}\n  return %y\n}}\n"
        )
    };
    let tail = Edit::set("0x12c", 1, "0x12c", "0x12d");
    let case = graph("softmax", &text("f32[3, 300]", "softmax %x { axis = 1 }"));
    caught(&case, &Edit::drop("bar.sync", 1), "race", "ld ");
    caught(&case, &Edit::drop("bar.sync", 2), "race", "st");
    caught(&case, &Edit::drop("bar.sync", 3), "race", "ld ");
    caught(&case, &tail, "out-of-bounds", "ld ");
    let case = graph(
        "reduce",
        &text("f32[3]", "reduce %x { f = sum, axes = [1] }"),
    );
    caught(&case, &Edit::drop("bar.sync", 1), "race", "ld ");
    caught(&case, &tail, "out-of-bounds", "ld ");
}

#[test]
fn maps_layouts_and_convolutions() {
    let case = graph(
        "map",
        "qir 1
func @main(%x: f32[300]) -> (y: f32[300]) {
  %y: f32[300] = neg %x
  return %y
}
",
    );
    let tail = Edit::set("0x12c", 0, "0x12c", "0x12d");
    caught(&case, &tail, "out-of-bounds", "ld ");
    let case = graph(
        "transpose",
        "qir 1
func @main(%x: f16[40, 72]) -> (y: f16[72, 40]) {
  %y: f16[72, 40] = transpose %x { perm = [1, 0] }
  return %y
}
",
    );
    let tail = Edit::set("0xb40", 0, "0xb40", "0xb41");
    caught(&case, &tail, "out-of-bounds", "st");
    let stride = Edit::set("0x48;", 0, "0x48;", "0x47;");
    caught(&case, &stride, "wrong result", "");
    let case = graph(
        "conv",
        "qir 1
weight @w: f32[8, 4, 3, 3] = normal(3, 1)
func @main(%x: f32[2, 4, 9, 9]) -> (y: f32[2, 8, 9, 9]) {
  %w: f32[8, 4, 3, 3] = const @w
  %y: f32[2, 8, 9, 9] = conv %x, %w { kernel = [3, 3], strides = [1, 1], pad_lo = [1, 1], pad_hi = [1, 1], groups = 1 }
  return %y
}
",
    );
    let below = Edit::set(", 9; //@ cmp", 0, ", 9;", ", 10;");
    caught(&case, &below, "out-of-bounds", "ld ");
    let right = Edit::set(", 9; //@ cmp", 1, ", 9;", ", 10;");
    caught(&case, &right, "out-of-bounds", "ld ");
    let tail = Edit::set("0x288", 0, "0x288", "0x289");
    caught(&case, &tail, "out-of-bounds", "");
}

/// The ring of tensor-map copies, its two warp-specialized halves and `wgmma`.
#[test]
fn the_fp8_gemm() {
    let case = fp8_gemm();
    caught(&case, &Edit::drop("bar.sync", 0), "race", "mbar_wait");
    // The consumer does not wait for a full slot, the producer not for an empty one.
    let wait = "mbarrier.try_wait";
    let full = Edit::with(wait, 1, passes);
    caught(&case, &full, "not-waited", "wgmma");
    let empty = Edit::with(wait, 0, passes);
    caught(&case, &empty, "not-waited", "tma_load");
    let bytes = Edit::set("expect_tx", 0, "0x6000", "0x5f00");
    caught(&case, &bytes, "deadlock", "mbar_wait");
    caught(&case, &Edit::drop("wgmma.fence", 0), "wgmma-order", "wgmma");
    let wait = "wgmma.wait_group";
    caught(&case, &Edit::drop(wait, 0), "wgmma-order", "fadd");
    let early = Edit::set(wait, 0, "aligned 0", "aligned 1");
    caught(&case, &early, "wgmma-order", "fadd");
    // 64-byte swizzle for 128, in either descriptor.
    for n in 0..2 {
        let swizzle = Edit::set("0x4000004000010000", n, "0x4", "0x8");
        caught(&case, &swizzle, "wrong result", "");
    }
    caught(
        &case,
        &Edit::with("st.global", 0, unguarded),
        "out-of-bounds",
        "st",
    );
}

#[test]
fn the_w4a16_loop() {
    let case = w4a16();
    caught(&case, &Edit::drop(WAIT, 0), "not-waited", "ld ");
    let late = Edit::set(WAIT, 0, "wait_group 1", "wait_group 2");
    caught(&case, &late, "not-waited", "ld ");
    caught(&case, &Edit::drop("bar.sync", 0), "not-waited", "ldmatrix");
    let swizzle = Edit::above("ldmatrix", 0, "xor.b32", "xor.b32", "or.b32");
    caught(&case, &swizzle, "wrong result", "");
    caught(
        &case,
        &Edit::with("st.global", 0, unguarded),
        "out-of-bounds",
        "st",
    );
}

/// An edit whose line is not there is an error, not a copy that happens to be right.
#[test]
fn edits_apply_or_fail() {
    let text = "a 1\nb 2\na 3";
    assert_eq!(Edit::drop("a", 1).apply(text).as_deref(), Ok("a 1\nb 2\n"));
    assert!(Edit::drop("a", 2).apply(text).is_err());
    assert!(Edit::set("b", 0, "3", "4").apply(text).is_err());
    assert!(Edit::above("b", 0, "c", "1", "2").apply(text).is_err());
    assert_eq!(
        Edit::above("b", 0, "a", "1", "2").apply(text).as_deref(),
        Ok("a 2\nb 2\na 3")
    );
    assert_eq!(
        Edit::last("a", "3", "4").apply(text).as_deref(),
        Ok("a 1\nb 2\na 4")
    );
}

/// An mbarrier wait that succeeds at once.
fn passes(line: &str) -> String {
    let predicate = line.split_whitespace().nth(1).unwrap_or_default();
    format!("\tsetp.eq.u32 {predicate} 0, 0; //@ mbar_wait")
}

fn unguarded(line: &str) -> String {
    let at = line.find("st.global").unwrap_or(0);
    format!("\t{}", &line[at..])
}
