//! Statistics files: what comes back, and what is refused.

use super::file::KEY;
use super::*;
use qcc_passes::ValueStats;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;

fn statistics() -> ModelStatistics {
    let mut s = Statistics::new();
    let rows = |seed| -> Vec<f32> {
        let z = qcc_ir::eval::normal(seed, 2.0, 40);
        z.iter().map(|x| *x as f32).collect()
    };
    s.observe("/h.0/ln/Add_output_0", 4, &rows(1)).unwrap();
    s.observe("/h.0/ln/Add_output_0", 4, &rows(2)).unwrap();
    s.observe("x", 1, &rows(3)).unwrap();
    let mut with_gram = s.get("/h.0/ln/Add_output_0").unwrap().clone();
    with_gram.observe_gram(&[1.0; 16]).unwrap();
    s.insert("with gram", with_gram);
    let poor = ValueStats {
        sums: None,
        moving: None,
        history: None,
        histogram: None,
        ..s.get("x").unwrap().clone()
    };
    s.insert("only/extremes", poor);
    s.samples = 2;
    ModelStatistics {
        model_hash: "ab12".into(),
        statistics: s,
    }
}

fn code(bytes: &[u8]) -> String {
    ModelStatistics::from_bytes(bytes).unwrap_err().code()
}

#[test]
fn a_file_gives_back_what_was_written_and_always_the_same_bytes() {
    let s = statistics();
    let bytes = s.to_bytes().unwrap();
    assert_eq!(ModelStatistics::from_bytes(&bytes).unwrap(), s);
    assert_eq!(s.to_bytes().unwrap(), bytes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.stats");
    assert_eq!(s.write(&path).unwrap(), bytes.len() as u64);
    assert_eq!(ModelStatistics::open(&path).unwrap(), s);
}

#[test]
fn models_are_not_mixed_up() {
    let mut s = statistics();
    let twice = {
        let mut t = s.clone();
        t.merge(&s).unwrap();
        t
    };
    let x = twice.statistics.get("x").unwrap();
    assert_eq!((twice.statistics.samples, x.rows), (4, 80));
    let other = ModelStatistics {
        model_hash: "cd34".into(),
        ..s.clone()
    };
    let e = s.merge(&other).unwrap_err();
    assert_eq!(e.code(), "Q0530");
    assert!(e.message().contains("ab12") && e.message().contains("cd34"));
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = statistics().to_bytes().unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let cuts = (0..header).chain((header..bytes.len()).step_by(997));
    for n in cuts {
        assert_eq!(code(&bytes[..n]), "Q0529", "after {n} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(code(&longer), "Q0529");
}

#[test]
fn any_byte_may_be_wrong() {
    let bytes = statistics().to_bytes().unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let places = (0..header).chain((header..bytes.len()).step_by(1999));
    for at in places {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            // Statistics that hold together, or an error; a panic would fail the test.
            if let Ok(s) = ModelStatistics::from_bytes(&bad) {
                s.to_bytes().unwrap();
            }
        }
    }
}

/// A tensor: name, format, shape, bytes.
type Raw<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

/// A file with these tensors and this metadata.
fn file(about: &str, tensors: &[Raw<'_>]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(n, d, s, b)| (*n, TensorView::new(*d, s.clone(), b).unwrap()));
    let metadata = HashMap::from([(KEY.to_string(), about.to_string())]);
    safetensors::serialize(views, Some(metadata)).unwrap()
}

const ABOUT: &str = r#"{"version": 1, "model": "ab", "samples": 1}"#;

fn le<const N: usize, T: Copy>(v: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    v.iter().flat_map(|x| bytes(*x)).collect()
}

#[test]
fn contents_that_contradict_themselves_are_refused() {
    let f32s = |v: &[f32]| le(v, f32::to_le_bytes);
    let f64s = |v: &[f64]| le(v, f64::to_le_bytes);
    let u64s = |v: &[u64]| le(v, u64::to_le_bytes);
    let base = vec![
        ("x/rows", Dtype::U64, vec![1], u64s(&[3])),
        ("x/min", Dtype::F32, vec![2], f32s(&[-1.0, 0.0])),
        ("x/max", Dtype::F32, vec![2], f32s(&[1.0, 2.0])),
    ];
    assert!(ModelStatistics::from_bytes(&file(ABOUT, &base)).is_ok());
    let bins = 2 * 4096;
    let with: Vec<Vec<Raw<'_>>> = vec![
        vec![("x/rows", Dtype::U64, vec![1], u64s(&[0]))],
        vec![("x/rows", Dtype::U64, vec![2], u64s(&[1, 2]))],
        vec![("x/rows", Dtype::I64, vec![1], u64s(&[3]))],
        vec![("x/min", Dtype::F32, vec![2], f32s(&[f32::NAN, 0.0]))],
        vec![("x/min", Dtype::F32, vec![2], f32s(&[5.0, 0.0]))],
        vec![("x/min", Dtype::F32, vec![1, 2], f32s(&[0.0, 0.0]))],
        vec![("x/max", Dtype::F32, vec![3], f32s(&[1.0, 2.0, 3.0]))],
        vec![("x/max", Dtype::F32, vec![2], f32s(&[1.0, f32::INFINITY]))],
        vec![("x/magnitude", Dtype::F64, vec![2], f64s(&[1.0, 1.0]))],
        vec![
            ("x/magnitude", Dtype::F64, vec![2], f64s(&[1.0, -1.0])),
            ("x/square", Dtype::F64, vec![2], f64s(&[1.0, 1.0])),
        ],
        vec![("x/moving", Dtype::F64, vec![2], f64s(&[2.0, 1.0]))],
        vec![("x/moving", Dtype::F64, vec![3], f64s(&[0.0, 1.0, 2.0]))],
        vec![("x/history", Dtype::F32, vec![2], f32s(&[1.0, -1.0]))],
        vec![("x/history", Dtype::F32, vec![0], f32s(&[]))],
        vec![("x/history", Dtype::F32, vec![1025], f32s(&[1.0; 1025]))],
        vec![(
            "x/histogram",
            Dtype::U64,
            vec![2, 4096],
            u64s(&vec![1; bins]),
        )],
        vec![
            (
                "x/histogram",
                Dtype::U64,
                vec![2, 4096],
                u64s(&vec![u64::MAX; bins]),
            ),
            ("x/width", Dtype::I32, vec![1], vec![0; 4]),
        ],
        vec![
            (
                "x/histogram",
                Dtype::U64,
                vec![2, 4096],
                u64s(&vec![1; bins]),
            ),
            ("x/width", Dtype::I32, vec![1], vec![0x7f; 4]),
        ],
        vec![(
            "x/gram",
            Dtype::F64,
            vec![2, 2],
            f64s(&[1.0, 0.0, 0.0, -1.0]),
        )],
        vec![(
            "x/gram",
            Dtype::F64,
            vec![2, 2],
            f64s(&[1.0, f64::NAN, 0.0, 1.0]),
        )],
        vec![("x/gram", Dtype::F64, vec![4], f64s(&[1.0, 0.0, 0.0, 1.0]))],
        vec![("x/mean", Dtype::F64, vec![2], f64s(&[1.0, 1.0]))],
        vec![("y/rows", Dtype::U64, vec![1], u64s(&[3]))],
    ];
    for changed in with {
        let mut tensors = base.clone();
        tensors.retain(|(n, ..)| changed.iter().all(|(c, ..)| c != n));
        tensors.extend(changed);
        let names: Vec<&str> = tensors.iter().map(|(n, ..)| *n).collect();
        let e = ModelStatistics::from_bytes(&file(ABOUT, &tensors)).unwrap_err();
        assert_eq!(e.code(), "Q0528", "{names:?}: {e}");
        assert!(e.place().is_some_and(|p| p.starts_with("value")), "{e}");
    }
}

#[test]
fn other_files_are_refused() {
    let tensors = [("x/rows", Dtype::U64, vec![1], vec![1; 8])];
    let about = |text: &str| code(&file(text, &tensors));
    assert_eq!(about("{}"), "Q0529");
    assert_eq!(about("[1"), "Q0529");
    assert_eq!(about(r#"{"version": 1}"#), "Q0529");
    let newer = file(r#"{"version": 2, "model": "ab", "samples": 1}"#, &tensors);
    let e = ModelStatistics::from_bytes(&newer).unwrap_err();
    assert!(e.code() == "Q0529" && e.message().contains("version is 2"));
    let nameless = file(ABOUT, &[("rows", Dtype::U64, vec![1], vec![1; 8])]);
    assert_eq!(code(&nameless), "Q0529");
    let views = [(
        "x/rows",
        TensorView::new(Dtype::U64, vec![1], &[0; 8]).unwrap(),
    )];
    assert_eq!(code(&safetensors::serialize(views, None).unwrap()), "Q0529");
    // A header that claims more than there is.
    let mut huge = (1u64 << 60).to_le_bytes().to_vec();
    huge.extend(b"{}");
    assert_eq!(code(&huge), "Q0529");
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("none")] {
        assert_eq!(ModelStatistics::open(&path).unwrap_err().code(), "Q0012");
    }
}

#[test]
fn statistics_of_nothing_are_left_out() {
    let mut s = statistics();
    s.statistics.insert("unseen", ValueStats::new(3));
    let bytes = s.to_bytes().unwrap();
    let names = SafeTensors::deserialize(&bytes).unwrap();
    assert!(names.names().iter().all(|n| !n.starts_with("unseen")));
    let mut broken = s.statistics.get("x").unwrap().clone();
    broken.channel_max[0] = f32::NAN;
    s.statistics.insert("x", broken);
    let e = s.to_bytes().unwrap_err();
    assert_eq!((e.code().as_str(), e.place()), ("Q0528", Some("value x")));
}
