//! Damaged, cut and foreign files are refused before anything of them is used.

use super::*;
use crate::plan_file::header::Header;

/// Opens a changed file: refused, or opened with exactly the touched weight refused.
fn refused(bytes: &[u8], offset: usize) {
    let Ok(file) = open(bytes, Verify::Lazy) else {
        return;
    };
    let touched = file.entries().find(|e| {
        let (at, offset) = (e.offset, offset as u64);
        at <= offset && offset < at + e.bytes
    });
    let touched = touched.map(|e| e.name.to_string());
    for w in &file.plan().weights {
        match file.weight(w) {
            Ok(_) => assert_ne!(
                Some(&w.entry),
                touched.as_ref(),
                "byte {offset} was accepted"
            ),
            Err(d) => {
                assert_eq!(d.code(), "Q0403");
                assert_eq!(Some(&w.entry), touched.as_ref(), "byte {offset}");
            }
        }
    }
    let is_weight = file
        .plan()
        .weights
        .iter()
        .any(|w| Some(&w.entry) == touched.as_ref());
    assert!(is_weight, "byte {offset} in {touched:?} was accepted");
    assert!(
        open(bytes, Verify::Full).is_err(),
        "byte {offset} passed a full check"
    );
}

#[test]
fn every_bit_of_a_small_file_counts() {
    let bytes = Sample::new(2).file(usize::MAX);
    let mut copy = bytes.clone();
    for offset in 0..bytes.len() {
        for bit in 0..8 {
            copy[offset] = bytes[offset] ^ (1 << bit);
            refused(&copy, offset);
        }
        copy[offset] = bytes[offset];
    }
}

#[test]
fn random_flips_in_a_large_file_are_refused() {
    let bytes = Sample::new(2500).file(usize::MAX);
    let mut copy = bytes.clone();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..500 {
        let offset = random.below(bytes.len());
        copy[offset] ^= 1 << random.below(8);
        refused(&copy, offset);
        copy[offset] = bytes[offset];
    }
}

#[test]
fn every_cut_is_refused_at_open() {
    let bytes = Sample::new(300).file(usize::MAX);
    let near_the_ends = (0..600).chain(bytes.len() - 600..bytes.len());
    for len in (0..bytes.len()).step_by(512).chain(near_the_ends) {
        let d = open(&bytes[..len], Verify::Lazy).unwrap_err();
        let expected = if len < 8 { "Q0401" } else { "Q0402" };
        assert_eq!(d.code(), expected, "cut to {len}: {d}");
    }
    let mut long = bytes.clone();
    long.extend_from_slice(&[0; 3]);
    let d = open(&long, Verify::Lazy).unwrap_err();
    assert_eq!(d.code(), "Q0402");
    assert!(d.message().contains("too long"), "{d}");
}

#[test]
fn cut_files_are_refused_when_mapped() {
    let bytes = Sample::new(2).file(usize::MAX);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qplan");
    for (len, code) in [
        (0, "Q0401"),
        (7, "Q0401"),
        (4096, "Q0402"),
        (bytes.len() - 1, "Q0402"),
    ] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let d = PlanFile::open(&path, Verify::Lazy).unwrap_err();
        assert_eq!(d.code(), code);
        assert!(d.place().is_some_and(|p| p.ends_with("a.qplan")));
    }
    assert_eq!(
        PlanFile::open(dir.path(), Verify::Lazy).unwrap_err().code(),
        "Q0401"
    );
    let none = dir.path().join("none");
    assert_eq!(
        PlanFile::open(none, Verify::Lazy).unwrap_err().code(),
        "Q0400"
    );
}

#[test]
fn other_files_are_no_plans() {
    for bytes in [
        &b"ONNX model"[..],
        &[0; 100],
        &[0xff; 100],
        b"\x02\0\0\0\0\0\0\0{}",
    ] {
        let d = open(bytes, Verify::Lazy).unwrap_err();
        assert_eq!(d.code(), "Q0401", "{d}");
    }
    let d = open(b"\x03\0\0\0\0\0\0\0{]}", Verify::Lazy).unwrap_err();
    assert_eq!(d.code(), "Q0405", "{d}");
}

/// The file with another header over the same data, its hashes made anew.
fn with_header(bytes: &[u8], change: impl Fn(&mut Header)) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = Header::parse(&bytes[8..8 + len]).unwrap();
    let mut out = Vec::new();
    change(&mut header);
    let head = header.to_bytes().unwrap();
    let mut rows = crate::plan_file::hash::RowBuilder::default();
    let data = &bytes[8 + len..];
    rows.update(&head);
    rows.end_region();
    out.extend_from_slice(&head);
    let (last, entries) = header.entries.split_last().unwrap();
    for e in entries {
        let piece = &data[e.begin() as usize..e.end() as usize];
        rows.update(piece);
        rows.end_region();
        out.extend_from_slice(piece);
    }
    let rows = rows.into_rows();
    out.extend_from_slice(&rows);
    out.extend_from_slice(&crate::plan_file::hash::Root::of_rows(&rows).0);
    assert_eq!(out.len() as u64 - head.len() as u64, last.end());
    out
}

#[test]
fn another_major_version_is_refused_and_the_error_says_which() {
    let bytes = Sample::new(2).file(usize::MAX);
    assert_eq!(with_header(&bytes, |_| ()), bytes);
    for (version, hint) in [("2.0", "update qcc"), ("0.9", "compile the model again")] {
        let other = with_header(&bytes, |h| {
            h.metadata
                .insert("qcc_plan".to_string(), version.to_string());
        });
        let d = open(&other, Verify::Lazy).unwrap_err();
        assert_eq!(d.code(), "Q0404");
        assert!(
            d.message().contains(version) && d.message().contains("reads 1."),
            "{d}"
        );
        assert!(d.advice().unwrap().starts_with(hint), "{d}");
    }
    let bad = with_header(&bytes, |h| {
        h.metadata.insert("qcc_plan".to_string(), "one".to_string());
    });
    assert_eq!(open(&bad, Verify::Lazy).unwrap_err().code(), "Q0405");
}

/// The file with another manifest of the same length, its hashes made anew.
fn with_manifest(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes
        .windows(from.len())
        .rposition(|w| w == from.as_bytes());
    let mut copy = bytes.to_vec();
    copy[at.unwrap()..][..to.len()].copy_from_slice(to.as_bytes());
    copy
}

#[test]
fn a_newer_minor_version_may_add_sections() {
    let bytes = Sample::new(2).file(usize::MAX);
    let current = format!(r#""format":"{}""#, FormatVersion::CURRENT);
    let newer = with_manifest(&bytes, &current, r#""format":"1.9""#);
    // A field and an entry that this reader does not know.
    let newer = with_manifest(
        &newer,
        r#""model_hash":"00ff00""#,
        r#""model_hash":"","z":1"#,
    );
    let newer = with_header(&newer, |h| {
        h.metadata.insert("qcc_plan".to_string(), "1.9".to_string());
        for e in &mut h.entries {
            if e.name.starts_with("qcc.pad.") {
                e.name = format!("qcc.new.{}", e.name);
            }
        }
    });
    let file = open(&newer, Verify::Full).unwrap();
    assert_eq!(file.plan().format, FormatVersion { major: 1, minor: 9 });
    let half = with_header(&newer, |h| {
        h.metadata.insert("qcc_plan".to_string(), "1.8".to_string());
    });
    assert_eq!(open(&half, Verify::Lazy).unwrap_err().code(), "Q0408");
}

#[test]
fn manifests_that_do_not_fit_the_entries_are_refused() {
    let bytes = Sample::new(2).file(usize::MAX);
    let cases = [
        (
            r#""entry":"bias""#,
            r#""entry":"bics""#,
            "Q0408",
            "no entry `bics`",
        ),
        (
            r#""dims":[3,5]"#,
            r#""dims":[5,3]"#,
            "Q0408",
            "the manifest says F32[5, 3]",
        ),
        (
            r#""model":"mlp""#,
            r#""modem":"mlp""#,
            "Q0405",
            "missing field `model`",
        ),
        (
            r#""points":"#,
            r#""pointz":"#,
            "Q0405",
            "unknown field `pointz`",
        ),
        (
            r#""dtype":"f32""#,
            r#""dtype":"f99""#,
            "Q0405",
            "unknown number format `f99`",
        ),
    ];
    for (from, to, code, expected) in cases {
        let changed = with_header(&with_manifest(&bytes, from, to), |_| ());
        let d = open(&changed, Verify::Lazy).unwrap_err();
        assert_eq!(d.code(), code);
        assert!(d.message().contains(expected), "{d}");
    }
}

#[test]
fn texts_must_be_utf8_and_hashes_must_come_last() {
    let bytes = Sample::new(2).file(usize::MAX);
    let at = bytes.windows(8).rposition(|w| w == b".version").unwrap();
    let mut copy = bytes.clone();
    copy[at] = 0xff;
    let d = open(&with_header(&copy, |_| ()), Verify::Lazy).unwrap_err();
    assert_eq!(
        (d.code().as_str(), d.message().contains("UTF-8")),
        ("Q0405", true)
    );
    let renamed = with_header(&bytes, |h| {
        h.entries.last_mut().unwrap().name = "qcc.hashez".to_string();
    });
    let d = open(&renamed, Verify::Lazy).unwrap_err();
    assert!(d.message().contains("must come last"), "{d}");
}

#[test]
fn a_forged_header_or_manifest_gives_an_error_or_a_plan() {
    let bytes = Sample::new(2).file(usize::MAX);
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = Header::parse(&bytes[8..8 + len]).unwrap();
    let manifest = 8 + len + header.entries[0].end() as usize;
    let json = 8..8 + header_text_len(&bytes[8..8 + len]);
    let (mut opened, mut refused) = (0, 0);
    let mut random = Random(1);
    for i in 0..4000 {
        let mut copy = bytes.clone();
        let forged = if i % 2 == 0 {
            8 + len..manifest
        } else {
            json.clone()
        };
        for _ in 0..1 + random.below(3) {
            let at = forged.start + random.below(forged.len());
            copy[at] = b"0123456789-\"[]{},:aex"[random.below(21)];
        }
        // A header that can still be read gets fitting hashes, so that the checks behind the
        // hashes are met.
        if forged.start > 8 {
            copy = with_header(&copy, |_| ());
        }
        match open(&copy, Verify::Full) {
            Ok(_) => opened += 1,
            Err(d) => {
                assert!(d.code().starts_with("Q04"), "{d}");
                refused += 1;
            }
        }
    }
    assert!(
        opened > 0 && refused > 2000,
        "{opened} opened, {refused} refused"
    );
}

fn header_text_len(padded: &[u8]) -> usize {
    padded.trim_ascii_end().len()
}

/// xorshift64, Marsaglia 2003.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}
