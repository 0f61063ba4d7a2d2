//! The ends of ranges against those of the reference, and what is refused.

use super::*;
use qcc_ir::DType;
use qcc_ir::eval::normal;
use qcc_ir::format::Range;

fn int8() -> QuantFormat {
    QuantFormat::new(DType::I8, Range::Narrow).unwrap()
}

fn stats(values: &[f32]) -> ValueStats {
    let mut s = ValueStats::new(1);
    for batch in values.chunks(1000) {
        s.observe(batch).unwrap();
    }
    s
}

/// The tensors of `tests/quant_refs/observers.py`.
fn tensor(name: &str) -> Vec<f32> {
    let z = normal(7, 1.0, 8000);
    let at = |(i, z): (usize, &f64)| match name {
        "normal" => *z,
        "cubed" => z * z * z,
        "outliers" if i % 100 == 3 => z * 40.0,
        "outliers" => *z,
        "positive" => z.max(0.0),
        "shifted" => z * 0.01 + 0.5,
        "tiny" => z * 1e-12,
        _ => panic!("no tensor {name}"),
    };
    z.iter().enumerate().map(|z| at(z) as f32).collect()
}

#[test]
fn ends_of_ranges_are_those_of_the_reference() {
    let text = include_str!("../../../tests/quant_refs/observers.txt");
    let mut count = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, format, method, width, end] = words[..] else {
            panic!("not a case: {line}")
        };
        let format = match format {
            "int8" => int8(),
            _ => QuantFormat::full(DType::E4M3).unwrap(),
        };
        let (width, end): (f64, f64) = (width.parse().unwrap(), end.parse().unwrap());
        let s = stats(&tensor(name));
        assert_eq!(s.histogram.as_ref().unwrap().width(), width, "{line}");
        let method = CalibMethod::named(method).unwrap();
        let got = f64::from(method.threshold(&s, format).unwrap());
        // Half a bin, or the rounding of f32 where no bins are involved.
        let off = (got - end).abs();
        assert!(off <= width * 0.5, "{line}: {got}");
        count += 1;
    }
    assert_eq!(count, 6 * 13);
}

#[test]
fn names() {
    for name in [
        "minmax",
        "ema",
        "delayed:4",
        "delayed:1024:2",
        "percentile:99.5",
        "mse",
        "entropy",
        "entropy:ort",
    ] {
        assert_eq!(CalibMethod::named(name).unwrap().to_string(), name);
    }
    let p = CalibMethod::named("percentile").unwrap();
    assert_eq!(p.to_string(), "percentile:99.99");
    let d = CalibMethod::named("delayed").unwrap();
    assert_eq!(d.to_string(), "delayed:16");
    for bad in [
        "delayed:",
        "delayed:0",
        "delayed:1025",
        "delayed:4:17",
        "delayed:4:",
        "delayed:4:1:1",
        "delayed:max",
        "",
        "max",
        "percentile:",
        "percentile:0",
        "percentile:101",
        "percentile:nan",
        "mse:2",
        "entropy:trt",
    ] {
        assert_eq!(
            CalibMethod::named(bad).unwrap_err().code(),
            "Q0049",
            "{bad}"
        );
    }
}

#[test]
fn what_is_lacking_is_named() {
    let mut s = stats(&[1.0, -3.0]);
    (s.histogram, s.moving, s.history) = (None, None, None);
    for name in [
        "ema",
        "delayed",
        "percentile",
        "mse",
        "entropy",
        "entropy:ort",
    ] {
        let m = CalibMethod::named(name).unwrap();
        let e = m.threshold(&s, int8()).unwrap_err();
        assert_eq!(e.code(), "Q0527", "{name}");
        assert!(e.message().contains(name) && e.advice().is_some());
    }
    assert_eq!(CalibMethod::MinMax.threshold(&s, int8()).unwrap(), 3.0);
}

#[test]
fn entropy_needs_levels_of_equal_width() {
    let e4m3 = QuantFormat::full(DType::E4M3).unwrap();
    let s = stats(&tensor("normal"));
    for m in [CalibMethod::Entropy, CalibMethod::EntropyOrt] {
        let e = m.threshold(&s, e4m3).unwrap_err();
        assert_eq!(e.code(), "Q0049");
        assert!(e.message().contains("e4m3"));
    }
}

#[test]
fn the_whole_range_is_kept_where_nothing_can_be_cut_off() {
    let all = [
        CalibMethod::Ema,
        CalibMethod::named("delayed:1").unwrap(),
        CalibMethod::Percentile(100.0),
        CalibMethod::Mse,
        CalibMethod::Entropy,
        CalibMethod::EntropyOrt,
    ];
    for m in all {
        for values in [vec![0.0; 9], vec![5.0; 9], vec![-1e-44; 3]] {
            let s = stats(&values);
            assert_eq!(
                m.threshold(&s, int8()).unwrap(),
                s.absmax(),
                "{m} {values:?}"
            );
        }
        let nothing = ValueStats::new(1);
        if m != CalibMethod::Ema && m != CalibMethod::named("delayed:1").unwrap() {
            assert_eq!(m.threshold(&nothing, int8()).unwrap(), 0.0, "{m}");
        }
    }
}

#[test]
fn a_percentile_is_the_least_edge_that_holds_it() {
    let values: Vec<f32> = (1..=1000).map(|i| i as f32).collect();
    let s = stats(&values);
    let end = |p: f64| CalibMethod::Percentile(p).threshold(&s, int8()).unwrap();
    // Bins are a quarter wide, and numbers lie on their lower edges.
    assert_eq!((end(99.0), end(50.0)), (990.25, 500.25));
    assert_eq!(end(100.0), 1000.0);
}

#[test]
fn a_delayed_range_looks_back_so_far() {
    let s = stats(&(0..4000).map(|i| (4000 - i) as f32).collect::<Vec<f32>>());
    let end = |name: &str| {
        let m = CalibMethod::named(name).unwrap();
        m.threshold(&s, int8()).unwrap()
    };
    assert_eq!((end("delayed:1"), end("delayed:2")), (1000.0, 2000.0));
    assert_eq!((end("delayed"), end("delayed:1:1")), (4000.0, 2000.0));
    assert_eq!(end("delayed:3:2"), 12000.0);
}
