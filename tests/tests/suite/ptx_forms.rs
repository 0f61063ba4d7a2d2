//! Which matrix and bulk-copy instructions the emitted kernels use, and which of them a kernel of
//! another compiler confirms in the simulator. The README of the simulator lists the others; the
//! list is exactly the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use qcc_codegen::kernels::hard::fp8_gemm::Fp8Gemm;
use qcc_codegen::kernels::hard::w4a16::W4A16;
use qcc_codegen::ptx::emit;
use qcc_ir::DType;
use qcc_tests::example::compile;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The form of an instruction: what decides its fragment layout and meaning. The width N of a
/// `wgmma` repeats one pattern, and a block's own shared memory is the same bytes in both windows.
fn form(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let mut mnemonic = words.next()?;
    if mnemonic.starts_with('@') {
        mnemonic = words.next()?;
    }
    let mnemonic = mnemonic.trim_end_matches(';');
    let kinds = [
        "mma.",
        "ldmatrix.",
        "stmatrix.",
        "wgmma.mma_async.",
        "cp.async.bulk.",
    ];
    if !kinds.iter().any(|k| mnemonic.starts_with(k)) || mnemonic.ends_with("t_group") {
        return None;
    }
    let parts = mnemonic
        .split('.')
        .filter(|p| !matches!(*p, "sync" | "aligned" | "tile"));
    let mut out: Vec<String> = parts
        .map(
            |p| match p.strip_prefix("m64n").and_then(|s| s.split_once('k')) {
                Some((_, k)) => format!("m64nNk{k}"),
                None => p.replace("shared::cluster", "shared::cta"),
            },
        )
        .collect();
    if mnemonic.starts_with("wgmma") {
        // The accumulators come first, then A: a descriptor or four registers.
        let (_, rest) = line.split_once('}')?;
        let registers = rest.trim_start_matches([',', ' ', '\t']).starts_with('{');
        out.push(
            if registers {
                "(A in registers)"
            } else {
                "(A by descriptor)"
            }
            .into(),
        );
    }
    Some(out.join("."))
}

fn forms<'t>(texts: impl IntoIterator<Item = &'t str>) -> BTreeSet<String> {
    texts
        .into_iter()
        .flat_map(str::lines)
        .filter_map(form)
        .collect()
}

fn foreign() -> BTreeSet<String> {
    let cases = std::fs::read_dir(root("runtime/ptxsim/tests/foreign/cases")).expect("cases");
    let texts: Vec<String> = cases
        .map(|c| c.expect("an entry").path().join("kernel.ptx"))
        .map(|p| std::fs::read_to_string(p).expect("a kernel"))
        .collect();
    forms(texts.iter().map(String::as_str))
}

/// The example model's kernels under each scheme, and the hard kernels, with who uses each form.
fn emitted() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut add = |who: &str, text: &str| {
        for f in forms([text]) {
            out.entry(f).or_insert_with(|| who.to_string());
        }
    };
    for (scheme, calibrated) in [
        ("float", false),
        ("int8", false),
        ("fp8", true),
        ("w4a16", false),
        ("w4a8", false),
    ] {
        let compiled = compile(scheme, &["sm_80", "sm_90"], calibrated);
        compiled.texts().values().for_each(|t| add(scheme, t));
    }
    let gemm = Fp8Gemm {
        bn: 64,
        stages: 4,
        out: DType::BF16,
        even_n: true,
    };
    let loops = W4A16 {
        token_tiles: 1,
        stages: 4,
    };
    for kernel in [gemm.build("fp8_gemm"), loops.build("w4a16")] {
        let kernel = kernel.expect("a valid kernel");
        let module = emit(&[kernel], 80).expect("an instruction for each operation");
        add(&module.entries[0].name, &module.text);
    }
    out
}

/// Forms in backquotes at the beginning of the items below this heading of the README.
fn listed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root("runtime/ptxsim/README.md")).expect("a README");
    let (_, section) = text
        .split_once("### Unconfirmed forms")
        .expect("the heading");
    let section = section.split("\n#").next().unwrap_or_default();
    let items = section.lines().filter_map(|l| l.strip_prefix("- `"));
    items
        .filter_map(|l| l.split_once('`'))
        .map(|(f, _)| f.to_string())
        .collect()
}

#[test]
fn every_emitted_form_is_confirmed_or_listed() {
    let (emitted, foreign) = (emitted(), foreign());
    assert!(emitted.len() >= 5, "{emitted:?}");
    let open: BTreeSet<String> = emitted
        .keys()
        .filter(|f| !foreign.contains(*f))
        .cloned()
        .collect();
    assert_eq!(
        open,
        listed(),
        "emitted: {emitted:#?}\nconfirmed: {foreign:#?}"
    );
}

#[test]
fn forms_are_read_from_both_spellings() {
    let read = |l: &str| form(l).unwrap_or_default();
    assert_eq!(
        read("\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r1, %r2}, {%r3}; //@ mma"),
        "mma.m16n8k16.row.col.f32.f16.f16.f32"
    );
    assert_eq!(
        read(
            "@%p5 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r8], x;"
        ),
        "cp.async.bulk.tensor.2d.shared::cta.global.mbarrier::complete_tx::bytes"
    );
    let wgmma = "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 {%r1,%r2},";
    assert_eq!(
        read(&format!("{wgmma} {{%r1, %r2}}, %d1, %p1, 1, 1;")),
        "wgmma.mma_async.m64nNk32.f32.e4m3.e4m3.(A in registers)"
    );
    assert_eq!(
        read(&format!("{wgmma} %d2, %d1, %p1, 1, 1;")),
        "wgmma.mma_async.m64nNk32.f32.e4m3.e4m3.(A by descriptor)"
    );
    assert_eq!(form("\tcp.async.bulk.commit_group;"), None);
    assert_eq!(form("\tadd.u32 %r1, %r2, %r3;"), None);
}
