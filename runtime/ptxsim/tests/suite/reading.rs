//! What the reader accepts and refuses, with places.

use ptxsim::{Module, ParseErrorKind, ParseOptions};

fn kernel(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 %r<8>; .reg .f32 %f<8>; .reg .b64 %rd<4>;\n{body}\nret;\n}}\n"
    )
}

#[track_caller]
fn refused(body: &str, kind: ParseErrorKind, line: u32, col: u32) {
    let e = Module::parse(&kernel(body)).expect_err(body);
    assert_eq!((e.kind, e.pos.line, e.pos.col), (kind, line, col), "{e}");
}

#[test]
fn refusals_name_line_and_column() {
    refused(
        "frobnicate.b32 %r1, %r2;",
        ParseErrorKind::UnknownInstruction,
        7,
        1,
    );
    refused(
        "  add.s32.fancy %r1, %r2, %r3;",
        ParseErrorKind::UnknownModifier,
        7,
        10,
    );
    refused("add.s32 %r1, %r2, %nope;", ParseErrorKind::Name, 7, 1);
    refused("add.s32 %r1, %r2;", ParseErrorKind::Operand, 7, 1);
    refused("add.s32 %r1, %r2, %rd1;", ParseErrorKind::Operand, 7, 1);
    refused("add.f32 %f1, %f2, 3;", ParseErrorKind::Operand, 7, 1);
    refused("\nbra nowhere;", ParseErrorKind::Name, 8, 1);
    refused("mov.u32 %r1, %tid.w;", ParseErrorKind::Name, 7, 1);
    refused("ld.global.u32 %r1, [%r2];", ParseErrorKind::Operand, 7, 1);
    refused(
        "cvt.f16.f32 %h1, %f1;",
        ParseErrorKind::UnknownModifier,
        7,
        1,
    );
    refused(
        "cvt.rn.e4m3x2.f32 %h1, %f1, %f2;",
        ParseErrorKind::UnknownModifier,
        7,
        1,
    );
    refused(
        "lop3.b32 %r1, %r2, %r3, %r4, 256;",
        ParseErrorKind::Operand,
        7,
        1,
    );
    refused(".reg .b128 %q;", ParseErrorKind::Syntax, 7, 12);
    refused("add.s32 %r1 %r2;", ParseErrorKind::Syntax, 7, 13);
    refused("call foo;", ParseErrorKind::UnknownInstruction, 7, 1);
    refused(
        "setmaxnreg.inc.sync.aligned.u32 30;",
        ParseErrorKind::Operand,
        7,
        1,
    );
    refused(
        "cp.async.cg.shared.global [%r1], [%rd1], 8;",
        ParseErrorKind::Operand,
        7,
        1,
    );
    refused(
        "ldmatrix.sync.aligned.m8n8.x3.shared.b16 {%r1}, [%r2];",
        ParseErrorKind::UnknownModifier,
        7,
        1,
    );
    refused("x: x: ret;", ParseErrorKind::Name, 7, 4);
}

#[test]
fn module_level_refusals() {
    for (text, kind) in [
        (".version 8.0\n.address_size 32", ParseErrorKind::Syntax),
        (".func f() { ret; }", ParseErrorKind::UnknownDirective),
        (
            ".visible .func f() { ret; }",
            ParseErrorKind::UnknownDirective,
        ),
        (
            ".entry k(.param .u64 p) { .reg .b32 %r<999999999>; }",
            ParseErrorKind::Syntax,
        ),
        (".entry k() { /* open", ParseErrorKind::Syntax),
        (".entry k() {", ParseErrorKind::Syntax),
        ("#", ParseErrorKind::Syntax),
        (
            ".entry k(.param .align 3 .b8 p[4]) { }",
            ParseErrorKind::Syntax,
        ),
    ] {
        assert_eq!(Module::parse(text).expect_err(text).kind, kind, "{text}");
    }
    let deep = format!(".entry k() {{ {}", "{".repeat(100_000));
    assert_eq!(
        Module::parse(&deep).expect_err("deep").kind,
        ParseErrorKind::Syntax
    );
    let deep = format!(".entry k() {{ mov.b32 %r1, {}", "{".repeat(100_000));
    assert!(Module::parse(&deep).is_err());
}

#[test]
fn what_compilers_write_is_accepted() {
    let module = Module::parse(
        ".version 8.8\n.target sm_90a, texmode_independent\n.address_size 64\n.file 1 \"x.cu\"\n\
         .extern .shared .align 16 .b8 smem[];\n.global .align 4 .u32 table[3] = {1, 0x2, 3};\n.const .f32 c = 0f3F800000;\n\
         .visible .entry k(\n.param .u64 .ptr .global .align 16 a,\n.param .align 64 .b8 m[128], .param .u8 b, .param .f32 f\n)\n\
         .maxntid 128, 1, 1 .minnctapersm 1 .maxnreg 64\n{\n.loc 1 2 3\n.pragma \"nounroll\";\n.reg .b32 %r<4>; .reg .pred %p<2>;\n\
         mov.u32 %r1, %tid.x;\n{ .reg .b32 %r<9>; mov.u32 %r8, 1; L: setp.eq.u32 %p1, %r8, 0; @%p1 bra.uni L; }\n\
         { L: @!%p1 bra D; bra L; D: }\nret;\n}\n.section .debug_info { .b8 1,2 L: .b32 .debug_abbrev }\n",
    )
    .unwrap();
    assert_eq!((module.version(), module.target()), ((8, 8), "sm_90a"));
    let p = module.params("k").unwrap();
    assert_eq!(
        p.iter().map(|p| (p.offset, p.size)).collect::<Vec<_>>(),
        [(0, 8), (64, 128), (192, 1), (196, 4)]
    );
}

#[test]
fn strict_mode_wants_every_rounding_written() {
    let strict = ParseOptions {
        require_rounding: true,
    };
    for bad in [
        "add.f32 %f1, %f2, %f3;",
        "mul.ftz.f32 %f1, %f2, %f3;",
        "add.f16x2 %r1, %r2, %r3;",
        "sub.bf16 %h1, %h2, %h3;",
    ] {
        let e = Module::parse_with(&kernel(bad), strict).expect_err(bad);
        assert_eq!((e.kind, e.pos.line), (ParseErrorKind::Rounding, 7));
        assert!(Module::parse(&kernel(bad)).is_ok());
    }
    for good in [
        "add.rn.f32 %f1, %f2, %f3;",
        "fma.rn.f32 %f1, %f2, %f3, %f1;",
        "rcp.approx.ftz.f32 %f1, %f2;",
        "ex2.approx.f32 %f1, %f2;",
        "max.f32 %f1, %f2, %f3;",
        "add.rn.f16x2 %r1, %r2, %r3;",
    ] {
        Module::parse_with(&kernel(good), strict).unwrap_or_else(|e| panic!("{good}: {e}"));
    }
}
