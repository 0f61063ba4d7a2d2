//! One kernel for each rule of the verifier, each broken in one place.

use qcc_ir::kernel::{parse_kernel, verify};

/// The rules that a text breaks, each once.
fn broken(text: &str) -> Vec<&'static str> {
    let kernel = parse_kernel(text).expect("a kernel that parses");
    let mut codes: Vec<&str> = verify(&kernel).into_iter().map(|p| p.code).collect();
    codes.dedup();
    codes
}

/// A kernel with these lines in its body.
fn body(lines: &str) -> String {
    format!(
        "kernel spmd @k(%x: ptr<f32,readonly>, %y: ptr<f32,global>, %u: u32, %i: i32, %d: u64, %f: f32) \
         block(128,1,1) {{\n{lines}\n}}\n"
    )
}

#[track_caller]
fn breaks(code: &str, lines: &str) {
    assert_eq!(broken(&body(lines)), [code], "{lines}");
}

#[track_caller]
fn holds(lines: &str) {
    assert!(broken(&body(lines)).is_empty(), "{lines}");
}

#[test]
fn k01_values_are_defined_before_use_in_scope() {
    // A value of a branch is not visible after it.
    breaks(
        "K01",
        "%c: bool = cmp.eq %u, %u\nif %c {\n%a: u32 = iadd %u, %u\n}\n%b: u32 = iadd %a, %u",
    );
}

#[test]
fn k02_operand_counts() {
    breaks("K02", "%a: u32 = iadd %u");
    breaks("K02", "%a: f32 = ld %x, %u");
    breaks("K02", "st %y");
}

#[test]
fn k03_operand_types() {
    breaks("K03", "%a: u32 = iadd %u, %i");
    breaks("K03", "%a: f32 = iadd %f, %f");
    breaks("K03", "%a: u32 = shl %u, %i");
    breaks("K03", "%a: u64 = ld %x");
    breaks("K03", "%a: f32 = ld.release %x");
    breaks("K03", "%a: e4m3 = const 0x0\n%b: e4m3 = fadd.rn %a, %a");
    breaks("K03", "%a: u64 = bitcast %u");
}

#[test]
fn k04_result_types() {
    breaks("K04", "%a: bool = sreg.tid_x");
    breaks("K04", "%a: u32 = cmp.lt %f, %f");
    breaks("K04", "%a: u32, %b: u32 = unpack %u");
    breaks("K04", "%a: ptr<f32,global> = ptradd %x, %u");
}

#[test]
fn k05_types_exist() {
    let text = body("%a: f32 = fadd.rn %f, %f");
    assert!(
        parse_kernel(&text.replace("%a: f32", "%a: f32x3")).is_err(),
        "the parser knows it too"
    );
}

#[test]
fn k06_regions_take_and_yield_what_is_carried() {
    breaks(
        "K06",
        "%a: f32 = for %u, %u, %u, %f {\n|%j: u32, %c: f32|\nyield %u\n}",
    );
    breaks("K06", "for %u, %u, %i {\n|%j: u32|\n}");
    breaks(
        "K06",
        "%a: f32 = while %f {\n|%c: f32|\nyield %c, %c\n} do {\n|%e: f32|\nyield %e\n}",
    );
    breaks("K06", "if %u {\n}");
    breaks(
        "K06",
        "%c: bool = cmp.eq %u, %u\n%a: f32 = if %c {\nyield %f\n}",
    );
    holds("%a: f32 = for %u, %u, %u, %f {\n|%j: u32, %c: f32|\nyield %c\n}");
}

#[test]
fn k07_serial_kernels_hold_no_spmd_operation() {
    let frame = |line: &str| format!("kernel serial @k(%begin: i64, %end: i64) {{\n{line}\n}}\n");
    assert_eq!(broken(&frame("bar")), ["K07"]);
    assert_eq!(broken(&frame("%t: u32 = sreg.tid_x")), ["K07"]);
    assert_eq!(broken(&frame("shared @s: f32[4] align 16")), ["K07"]);
    assert!(broken(&frame("%t: i64 = iadd %begin, %end")).is_empty());
}

#[test]
fn k08_read_only_memory_is_not_written() {
    breaks("K08", "st %x, %f");
    breaks(
        "K08",
        "%p: ptr<u32,readonly> = ptrcast %x\n%a: u32 = atom.add.relaxed.gpu %p, %u",
    );
}

#[test]
fn k09_accesses_are_at_most_16_bytes() {
    breaks("K09", "%a: f32x8 = ld %x");
    holds("%a: f32x4 = ld %x");
}

#[test]
fn k10_atomics_are_on_integers() {
    breaks("K10", "%a: f32 = atom.add.relaxed.gpu %y, %f");
}

/// A wgmma into fresh accumulators.
const START: &str =
    "%p: pending<f32,4> = wgmma_begin\n%q: pending<f32,4> = wgmma.8.e4m3.e4m3.sdesc %p, %d, %d\n";

fn flight(rest: &str) -> String {
    format!("{START}{rest}")
}

#[test]
fn k11_accumulators_in_flight_are_used_once() {
    breaks("K11", &flight("%r: pending<f32,4> = wgmma_commit %q"));
    breaks(
        "K11",
        &flight(
            "%r: pending<f32,4> = wgmma_commit %q\n%s: pending<f32,4> = wgmma_commit %r\n\
             %a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.0 %s\n%t: pending<f32,4> = wgmma_commit %r\n\
             %a1: f32, %b1: f32, %c1: f32, %e1: f32 = wgmma_wait.0 %t",
        ),
    );
    // A loop would take them once for each iteration.
    breaks(
        "K11",
        &flight(
            "%r: pending<f32,4> = wgmma_commit %q\nfor %u, %u, %u {\n|%j: u32|\n\
             %a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.0 %r\n}",
        ),
    );
}

#[test]
fn k12_waits_cover_what_they_return() {
    breaks(
        "K12",
        &flight("%a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.0 %q"),
    );
    breaks(
        "K12",
        &flight(
            "%r: pending<f32,4> = wgmma_commit %q\n%a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.1 %r",
        ),
    );
    holds(&flight(
        "%r: pending<f32,4> = wgmma_commit %q\n%a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.0 %r",
    ));
}

#[test]
fn k13_accumulators_handed_over_are_not_used_again() {
    let again = "%g: f32 = fneg %f\n%p: pending<f32,4> = wgmma_begin %g, %g, %g, %g\n\
         %q: pending<f32,4> = wgmma_commit %p\n%a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.0 %q";
    breaks("K13", again);
    // A constant has no register to lose.
    holds(&again.replace("fneg %f", "const 0.0"));
}

#[test]
fn k14_shared_arrays() {
    breaks("K14", "shared @s: f32[4] align 3");
    breaks("K14", "shared @s: f32[4] align 2");
    breaks("K14", "shared @s: f32[20000] align 16");
    breaks(
        "K14",
        "shared @s: f32[dynamic] align 16\nshared @t: f32[dynamic] align 16",
    );
    breaks("K14", "%p: ptr<f32,shared> = shared.0");
    breaks(
        "K14",
        "shared @s: f16[4] align 16\n%p: ptr<f32,shared> = shared.0",
    );
    holds(
        "shared @s: f32[4] align 16\nshared @t: f32[dynamic] align 16\n%p: ptr<f32,shared> = shared.1",
    );
}

#[test]
fn k15_launch_shapes() {
    let frame = |launch: &str| format!("kernel spmd @k() {launch} {{\n}}\n");
    for launch in [
        "block(0,1,1)",
        "block(1025,1,1)",
        "block(65536,65536,1)",
        "block(32,1,1) cluster(32,1,1)",
    ] {
        assert_eq!(broken(&frame(launch)), ["K15"], "{launch}");
    }
    assert!(broken(&frame("block(32,32,1) cluster(2,2,1) min_blocks(2)")).is_empty());
}

#[test]
fn k16_names_and_parameters() {
    let frame = |params: &str| format!("kernel spmd @k({params}) block(1,1,1) {{\n}}\n");
    for params in [
        "%a: f16",
        "%a: f32x2",
        "%a: ptr<f32,shared>",
        "%a: pending<f32,4>",
        "%1: u32",
    ] {
        assert_eq!(broken(&frame(params)), ["K16"], "{params}");
    }
    breaks("K16", "shared @x: f32[4] align 16");
    assert!(broken(&frame("%a: tensormap, %b: u64")).is_empty());
}

#[test]
fn k17_immediates() {
    breaks("K17", "bar_sync.16.128");
    breaks("K17", "bar_sync.1.100");
    breaks("K17", "setmaxnreg.inc.100");
    breaks(
        "K17",
        "shared @s: f32[4] align 16\n%p: ptr<f32,shared> = shared.0\ncp_async.5.ca %p, %x",
    );
    breaks(
        "K17",
        "shared @s: f32[4] align 16\n%p: ptr<f32,shared> = shared.0\ncp_async.8.cg %p, %x",
    );
    breaks(
        "K17",
        "%p: pending<f32,4> = wgmma_begin\n%q: pending<f32,4> = wgmma.12.e4m3.e4m3.sdesc %p, %d, %d\n\
         %r: pending<f32,4> = wgmma_commit %q\n%a: f32, %b: f32, %c: f32, %e: f32 = wgmma_wait.0 %r",
    );
    breaks(
        "K17",
        "%a: f32, %b: f32, %c: f32, %e: f32 = mma.m16n8k8.i8.i8.i32 %u, %u, %u, %f, %f, %f, %f",
    );
}

#[test]
fn k18_constant_steps_are_positive() {
    breaks("K18", "%z: i32 = const 0\nfor %i, %i, %z {\n|%j: i32|\n}");
    breaks("K18", "%z: i32 = const -1\nfor %i, %i, %z {\n|%j: i32|\n}");
    holds("%z: i32 = const 1\nfor %i, %i, %z {\n|%j: i32|\n}");
}

#[test]
fn k19_serial_kernels_take_a_range() {
    for params in [
        "",
        "%begin: i64",
        "%begin: i64, %end: i32",
        "%lo: i64, %hi: i64",
    ] {
        let text = format!("kernel serial @k({params}) {{\n}}\n");
        assert_eq!(broken(&text), ["K19"], "{params}");
    }
}
