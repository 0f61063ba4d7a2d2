//! The command: reports, results in files, faults and their exit codes.

use std::path::PathBuf;
use std::process::{Command, Output};

/// y = 2x for n numbers, with a bound that the caller may get wrong.
const DOUBLE: &str = ".version 7.0
.target sm_80
.address_size 64
.visible .entry double(.param .u64 x, .param .u64 y, .param .u32 n)
{
    .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %d<6>; .reg .f32 %f<3>;
    ld.param.u64 %d1, [x];
    ld.param.u64 %d2, [y];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r2, 128, %r3;
    setp.ge.u32 %p1, %r4, %r1;
    @%p1 ret;
    mul.wide.u32 %d3, %r4, 4;
    add.u64 %d4, %d1, %d3;
    add.u64 %d5, %d2, %d3;
    ld.global.f32 %f1, [%d4]; //@ read x
    add.rn.f32 %f2, %f1, %f1;
    st.global.f32 [%d5], %f2;
    ret;
}
";

fn folder(test: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("double.ptx"), DOUBLE).expect("a file");
    dir
}

fn ptxsim(dir: &PathBuf, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ptxsim"))
        .args(words.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_run_reports_and_saves_its_results() {
    let dir = folder("run");
    let x: Vec<u8> = (0..300).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(dir.join("x.raw"), &x).expect("a file");
    let run =
        "run double.ptx --grid 3 --block 128 --arg in:x.raw --arg out:1200:y.raw --arg u32:300";
    let out = ptxsim(&dir, run);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let report = text(&out.stdout);
    // 300 floats are 1200 bytes, 38 sectors of 32.
    assert!(report.contains("dram_read            1216"), "{report}");
    assert!(report.contains("hops                 1"), "{report}");
    // Nothing but a launch, one round trip and 56 instructions, of which ptxas leaves about half:
    // 1.3 + 0.7 + 0.00 µs.
    assert!(
        report.contains("H200 SXM             2.00 µs, bound by latency"),
        "{report}"
    );
    let y = std::fs::read(dir.join("y.raw")).expect("the result");
    let second = f32::from_le_bytes([y[4], y[5], y[6], y[7]]);
    assert_eq!((y.len(), second), (1200, 2.0));
    let json = text(&ptxsim(&dir, &format!("{run} --json --sms 2")).stdout);
    assert!(
        json.starts_with("{\"kernel\":\"double\",\"blocks\":3,\"waves\":2,"),
        "{json}"
    );
    assert!(
        json.contains("\"predicted\":[{\"gpu\":\"A100 SXM 80GB\",\"us\":2.005"),
        "{json}"
    );
}

#[test]
fn numbers_made_up_are_the_same_each_time() {
    let dir = folder("random");
    let run = "run double.ptx --grid 1 --block 128 --arg random:f32:128:7 --arg out:512:y.raw --arg u32:128";
    let result = || {
        let out = ptxsim(&dir, run);
        assert!(out.status.success(), "{}", text(&out.stderr));
        std::fs::read(dir.join("y.raw")).expect("the result")
    };
    let (a, b) = (result(), result());
    assert_eq!(a, b);
    let all = a
        .chunks(4)
        .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    assert!(all.clone().all(|v| (-2.0..2.0).contains(&v)) && all.clone().any(|v| v != 0.0));
}

#[test]
fn a_fault_has_its_line_its_note_and_an_exit_code() {
    let dir = folder("fault");
    let run = "run double.ptx --grid 3 --block 128 --arg random:f32:300 --arg out:1200 --arg u32:301 --json";
    let out = ptxsim(&dir, run);
    assert_eq!(out.status.code(), Some(6));
    let (json, message) = (text(&out.stdout), text(&out.stderr));
    assert!(
        json.starts_with("{\"fault\":\"out-of-bounds\",\"kernel\":\"double\",\"line\":18,\"op\":\"read x\",\"block\":[2, 0, 0],\"thread\":[44, 0, 0],"),
        "{json}"
    );
    assert!(
        message.contains("line 18 (read x) block [2, 0, 0] thread [44, 0, 0]"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_run_is_refused() {
    let dir = folder("refusal");
    let code = |words: &str| ptxsim(&dir, words).status.code();
    assert_eq!(code("run double.ptx --grid 1"), Some(2));
    assert_eq!(
        code("run double.ptx --grid 1 --block 128 --sideways"),
        Some(2)
    );
    assert_eq!(code("walk double.ptx"), Some(2));
    assert_eq!(code("run none.ptx --block 128"), Some(3));
    for arg in [
        "u32:-1",
        "random:f64:3",
        "random:f32",
        "in:none.raw",
        "bytes:3",
    ] {
        let words = format!("run double.ptx --grid 1 --block 128 --arg {arg}");
        assert_eq!(code(&words), Some(3), "{arg}");
    }
    // Three parameters are wanted.
    assert_eq!(
        code("run double.ptx --grid 1 --block 128 --arg u32:1"),
        Some(6)
    );
    let check = text(&ptxsim(&dir, "check double.ptx").stdout);
    assert!(check.contains("offset   16 size    4"), "{check}");
}

/// The transcripts of the README are what the command prints today.
#[test]
fn the_readme_shows_real_runs() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(here.join("README.md")).expect("a README");
    let mut shown = 0;
    for block in readme.split("\n    $ ptxsim ").skip(1) {
        let mut lines = block.lines();
        let words = lines.next().unwrap_or_default();
        let expected: Vec<&str> = lines.map_while(|l| l.strip_prefix("    ")).collect();
        let out = ptxsim(&here.join("examples"), words);
        let printed = text(&out.stdout) + &text(&out.stderr);
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "{words}");
        shown += 1;
    }
    assert_eq!(shown, 2);
}
