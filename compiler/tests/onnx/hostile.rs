//! Hostile ONNX files: each is refused with its own error, and nothing outside of the model's
//! folder is opened.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use qcc::onnx::{Model, SharedBytes};
use tempfile::TempDir;

use crate::writer::{Msg, model, tensor};

fn external(dims: &[i64], entries: &[(&str, &str)]) -> Msg {
    entries.iter().fold(tensor(dims).int(14, 1), |t, (k, v)| {
        t.msg(13, &Msg::default().text(1, k).text(2, v))
    })
}

fn initializer(tensor: &Msg) -> Vec<u8> {
    model(&Msg::default().msg(5, tensor))
}

/// Opens the file and reads every initializer; the code of the first error.
fn code(bytes: &[u8], folder: &Path) -> String {
    let path = folder.join("model.onnx");
    fs::write(&path, bytes).expect("written");
    let read = Model::open(&path).and_then(|m| m.initializers().collect::<Result<Vec<_>, _>>());
    match read {
        Ok(_) => "accepted".to_string(),
        Err(e) => e.code(),
    }
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(dir.path().join("m")).expect("created");
    fs::write(dir.path().join("secret.bin"), [1u8; 64]).expect("written");
    fs::write(dir.path().join("m/plain.bin"), [0u8; 64]).expect("written");
    dir
}

#[test]
fn a_plain_external_file_is_read() {
    let dir = folder();
    let m = dir.path().join("m");
    fs::create_dir(m.join("sub")).expect("created");
    fs::write(m.join("sub/w.bin"), [0u8; 16]).expect("written");
    let sha1 = "c8d7d0ef0eedfa82d2ea1aa592845b9a6d4b02b7"; // of 64 zeros
    for entries in [
        &[("location", "plain.bin")][..],
        &[
            ("location", "./plain.bin"),
            ("offset", "56"),
            ("length", "8"),
        ],
        &[("location", "sub/w.bin")],
        &[("location", "plain.bin"), ("checksum", sha1)],
    ] {
        let bytes = initializer(&external(&[2], entries));
        assert_eq!(code(&bytes, &m), "accepted", "{entries:?}");
    }
}

#[test]
fn locations_that_leave_the_folder_are_refused() {
    let dir = folder();
    let m = dir.path().join("m");
    let absolute = dir.path().join("secret.bin").display().to_string();
    for location in [
        "../secret.bin",
        "x/../../secret.bin",
        "/etc/passwd",
        &absolute,
        "..\\secret.bin",
        "plain.bin\0",
        ".",
    ] {
        let bytes = initializer(&external(&[2], &[("location", location)]));
        assert_eq!(code(&bytes, &m), "Q0106", "{location}");
    }
}

#[cfg(unix)]
#[test]
fn files_that_are_not_plain_are_refused() {
    let dir = folder();
    let m = dir.path().join("m");
    std::os::unix::fs::symlink("../secret.bin", m.join("link.bin")).expect("linked");
    std::os::unix::fs::symlink("..", m.join("up")).expect("linked");
    fs::hard_link(dir.path().join("secret.bin"), m.join("hard.bin")).expect("linked");
    fs::create_dir(m.join("folder.bin")).expect("created");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        m.join("fifo.bin"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("made");
    for location in [
        "link.bin",
        "up/secret.bin",
        "hard.bin",
        "folder.bin",
        "fifo.bin",
        "plain.bin/x",
    ] {
        let bytes = initializer(&external(&[2], &[("location", location)]));
        assert_eq!(code(&bytes, &m), "Q0106", "{location}");
    }
}

#[test]
fn ranges_and_entries_are_checked() {
    let dir = folder();
    let m = dir.path().join("m");
    let at = ("location", "plain.bin");
    let huge = "1125899906842624"; // a pebibyte
    let max = "18446744073709551615";
    for (expected, entries) in [
        ("Q0107", &[("location", "missing.bin")][..]),
        ("Q0107", &[at, ("offset", "60")]),
        ("Q0107", &[at, ("length", huge)]),
        ("Q0107", &[at, ("offset", max), ("length", "8")]),
        ("Q0110", &[at, ("length", "4")]),
        ("Q0108", &[]),
        ("Q0108", &[("location", "")]),
        ("Q0108", &[at, at]),
        ("Q0108", &[at, ("length", "-1")]),
        ("Q0108", &[at, ("length", "+8")]),
        ("Q0108", &[at, ("offset", "99999999999999999999")]),
        ("Q0108", &[at, ("__class__", "x")]),
        ("Q0109", &[at, ("checksum", "00")]),
    ] {
        let bytes = initializer(&external(&[2], entries));
        assert_eq!(code(&bytes, &m), expected, "{entries:?}");
    }
    // 2^50 floats in a file of 64 bytes.
    let bytes = initializer(&external(&[1 << 50], &[at]));
    assert_eq!(code(&bytes, &m), "Q0107");
}

#[test]
fn every_place_of_a_tensor_is_checked() {
    let dir = folder();
    let m = dir.path().join("m");
    let evil = external(&[2], &[("location", "../secret.bin")]);
    let msg = Msg::default;
    let attribute = msg().text(1, "value").msg(5, &evil);
    let node = msg().text(4, "Constant").msg(5, &attribute);
    let inner = msg().msg(1, &node);
    let sparse = msg().msg(1, &evil);
    let indices = msg().msg(2, &evil);
    let function = msg().text(1, "f").msg(7, &node);
    let in_node = |attribute: &Msg| model(&msg().msg(1, &msg().text(4, "If").msg(5, attribute)));
    for (place, bytes) in [
        ("initializer", initializer(&evil)),
        ("sparse initializer", model(&msg().msg(15, &sparse))),
        ("sparse indices", model(&msg().msg(15, &indices))),
        ("attribute", in_node(&attribute)),
        ("attribute list", in_node(&msg().msg(10, &evil))),
        ("sparse attribute", in_node(&msg().msg(22, &sparse))),
        ("sparse attribute list", in_node(&msg().msg(23, &sparse))),
        ("subgraph", in_node(&msg().msg(6, &inner))),
        ("subgraph list", in_node(&msg().msg(11, &inner))),
        ("function", {
            let mut bytes = model(&msg());
            bytes.extend(msg().msg(25, &function).0);
            bytes
        }),
        ("function default", {
            let mut bytes = model(&msg());
            bytes.extend(msg().msg(25, &msg().msg(11, &attribute)).0);
            bytes
        }),
    ] {
        assert_eq!(code(&bytes, &m), "Q0106", "{place}");
    }
}

#[test]
fn wrong_tensors_are_refused() {
    let dir = folder();
    let m = dir.path().join("m");
    let raw = |dims: &[i64], len: usize| tensor(dims).bytes(9, &vec![0; len]);
    let big = 1i64 << 32;
    for (expected, what, tensor) in [
        ("accepted", "fits", raw(&[2, 3], 24)),
        ("Q0110", "too few bytes", raw(&[2, 3], 20)),
        ("Q0110", "too many bytes", raw(&[2, 3], 28)),
        ("Q0111", "negative", raw(&[-2], 8)),
        ("Q0111", "overflow", raw(&[big, big, 4], 8)),
        ("Q0111", "overflow beside zero", raw(&[0, big, big], 0)),
        ("Q0112", "segment", raw(&[2], 8).msg(3, &Msg::default())),
        ("Q0112", "strings", raw(&[2], 8).int(2, 8)),
        ("Q0113", "unknown type", raw(&[2], 8).int(2, 99)),
        ("Q0110", "two stores", raw(&[1], 4).bytes(4, &[0; 4])),
    ] {
        assert_eq!(code(&initializer(&tensor), &m), expected, "{what}");
    }
}

#[test]
fn bombs_are_refused() {
    let dir = folder();
    // graph { node { attribute { g { … } } } }, 10,000 levels.
    let mut graph = Msg::default();
    for level in 0..10_000 {
        graph = Msg::default().msg([1, 6, 5][level % 3], &graph);
    }
    assert_eq!(code(&model(&graph), dir.path()), "Q0102", "depth");
    let nodes = Msg([0x0a, 0].repeat(3_000_000));
    assert_eq!(code(&model(&nodes), dir.path()), "Q0102", "empty nodes");
    let dims = Msg([0x08, 0].repeat(30_000_000));
    assert_eq!(code(&initializer(&dims), dir.path()), "Q0102", "dims");
    let packed = Msg::default().bytes(7, &vec![0; 40_000_000]);
    assert_eq!(code(&initializer(&packed), dir.path()), "Q0102", "packed");
    let unknown = Msg([0xf8, 0x07, 0].repeat(70_000_000));
    assert_eq!(code(&unknown.0, dir.path()), "Q0102", "unknown fields");
}

#[test]
fn files_that_are_no_models_are_refused() {
    let dir = folder();
    let whole = initializer(&tensor(&[4]).bytes(9, &[0; 16]));
    assert_eq!(code(&whole, dir.path()), "accepted");
    for cut in 1..whole.len() {
        let code = code(&whole[..cut], dir.path());
        assert!(
            ["Q0101", "Q0103", "Q0110"].contains(&code.as_str()),
            "{cut}: {code}"
        );
    }
    assert_eq!(code(b"", dir.path()), "Q0103");
    assert_eq!(code(b"\x89PNG\r\n\x1a\n", dir.path()), "Q0101");
    let future = Msg::default().int(1, 15).msg(7, &Msg::default());
    assert_eq!(code(&future.0, dir.path()), "Q0103");
    let text = Msg::default().bytes(2, &[0xff, 0xfe]);
    assert_eq!(code(&text.0, dir.path()), "Q0101", "not UTF-8");
    let open = |path: &Path| Model::open(path).err().expect("refused").code();
    assert_eq!(open(dir.path()), "Q0100", "a folder");
    assert_eq!(open(&dir.path().join("none.onnx")), "Q0100", "missing");
}

#[test]
fn any_flipped_byte_gives_an_error_or_a_model() {
    let node = Msg::default().text(1, "x").text(2, "y").text(4, "Relu");
    let graph = Msg::default()
        .msg(1, &node)
        .msg(5, &tensor(&[2]).bytes(9, &[0; 8]))
        .msg(11, &Msg::default().text(1, "x"));
    let whole = model(&graph);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(model) = Model::from_bytes(bytes) {
                let _ = model.initializers().count();
            }
        }
    }
}

#[test]
fn a_model_given_as_bytes_asks_its_embedder() {
    let bytes = initializer(&external(&[2], &[("location", "w.bin"), ("offset", "8")]));
    let refused = Model::from_bytes(bytes.clone()).err().expect("refused");
    assert_eq!(refused.code(), "Q0107");
    let supply = |location: &str| -> Option<SharedBytes> {
        (location == "w.bin").then(|| Arc::new(vec![7u8; 16]) as SharedBytes)
    };
    let model = Model::from_bytes_with(bytes, Box::new(supply)).expect("opened");
    let tensors: Vec<_> = model
        .initializers()
        .collect::<Result<_, _>>()
        .expect("read");
    assert_eq!(tensors[0].data(), [7; 8]);
    assert_eq!(tensors[0].dims(), [2]);
}
