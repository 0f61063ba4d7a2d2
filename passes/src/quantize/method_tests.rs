//! Weight methods on whole layers: which of them makes the smaller error, and what they do with
//! weights and inputs that are hardly any.

use super::{Algo, Samples, Scheme};
use crate::testing::{Oracle, module, run_with, values};
use crate::{Options, PassContext, Spill, Spilling};
use qcc_ir::diag::Result;
use qcc_ir::eval::{self, normal};
use qcc_ir::graph::{Module, Weight, WeightBytes, WeightData};
use qcc_ir::ledger::{Ledger, Topic};
use qcc_ir::{DType, Tensor};
use std::cell::Cell;
use std::sync::Arc;

const WIDTH: usize = 256;
const METHODS: [&str; 8] = [
    "rtn",
    "mse",
    "hqq",
    "awq",
    "gptq",
    "mse,gptq",
    "gptq,refine",
    "awq,gptq",
];

/// A norm and a layer of 32 rows behind it.
const LAYER: &str = r#"dim n = 1..256
    weight @g: f32[256] = splat(1)
    weight @w: f32[32, 256] = normal(1, 0.1)
    func @main(%x: f32[n, 256]) -> (y: f32[n, 32]) {
      %g: f32[256] = const @g
      %h: f32[n, 256] = rms_norm %x, %g { eps = 1e-5 } @"norm"
      %w: f32[32, 256] = const @w
      %y: f32[n, 32] = linear %h, %w @"fc"
      return %y
    }"#;

/// Inputs of one batch.
struct Data(Vec<f32>);

impl Data {
    /// Neighbouring channels are correlated, some are large and one is always 0.
    fn new() -> Self {
        let z = normal(5, 1.0, 256 * WIDTH);
        let x = |i: usize| {
            let (t, j) = (i / WIDTH * WIDTH, i % WIDTH);
            let v = z[i] + 1.5 * z[t + j / 8 * 8];
            match j {
                7 => 0.0,
                _ if j % 50 == 20 => 15.0 * v,
                _ => v,
            }
        };
        Data((0..z.len()).map(|i| x(i) as f32).collect())
    }
}

impl Samples for Data {
    fn batches(&self) -> usize {
        1
    }

    fn batch(&self, _: usize) -> Result<Vec<Tensor>> {
        let rows = (self.0.len() / WIDTH) as u64;
        Ok(vec![Tensor::from_slice(
            DType::F32,
            &[rows, WIDTH as u64],
            &self.0,
        )?])
    }
}

/// The layer with these weights.
fn layer(w: &[f32]) -> Module {
    let mut m = module(LAYER);
    let i = m.weights.iter().position(|w| w.name == "w").unwrap();
    let dims = m.weights[i].dims.clone();
    m.weights[i] = crate::weights::inline_f32("w".into(), dims, w);
    m
}

/// Normal weights, one in sixty four times as large.
fn heavy() -> Vec<f32> {
    let w = normal(1, 0.1, 32 * WIDTH).into_iter().enumerate();
    let large = |i: usize| if i.is_multiple_of(61) { 4.0 } else { 1.0 };
    w.map(|(i, v)| (v * large(i)) as f32).collect()
}

fn quantize(m: &Module, scheme: &str, algo: &str, data: &Data) -> Result<(Module, Ledger)> {
    let options = Options {
        scheme: Scheme::named(scheme).unwrap(),
        algo: Some(Algo::list(algo).unwrap()),
        ..Options::default()
    };
    let mut ctx = PassContext::new(&options);
    ctx.samples = Some(data);
    ctx.executor = Some(&Oracle);
    let m = run_with("awq,fit-weights,quantize", m.clone(), &mut ctx)?;
    Ok((m, ctx.ledger))
}

fn outputs(m: &Module, data: &Data) -> Vec<f64> {
    values(&eval::run(m, &data.batch(0).unwrap()).unwrap()[0])
}

/// Squared error of the layer's output over that of rounding zeros.
fn error(w: &[f32], scheme: &str, algo: &str) -> f64 {
    let (data, m) = (Data::new(), layer(w));
    let (q, _) = quantize(&m, scheme, algo, &data).unwrap();
    let (a, b) = (outputs(&m, &data), outputs(&q, &data));
    let off: f64 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
    off / a.iter().map(|a| a * a).sum::<f64>()
}

#[test]
fn methods_in_the_order_of_their_errors() {
    let w = heavy();
    let of = |algo| error(&w, "w3a16-g128-asym", algo);
    let [rtn, mse, awq] = ["rtn", "mse", "awq"].map(of);
    let [gptq, refined, both] = ["gptq", "gptq,refine", "awq,gptq"].map(of);
    assert!(mse < rtn && awq < mse, "rtn {rtn} mse {mse} awq {awq}");
    assert!(gptq < awq, "awq {awq} gptq {gptq}");
    assert!(refined < 0.85 * gptq, "gptq {gptq} refined {refined}");
    assert!(both < 0.85 * gptq, "gptq {gptq} both {both}");
}

#[test]
fn finer_groups_and_zero_points_help() {
    let w = heavy();
    for algo in ["rtn", "mse", "hqq", "gptq", "awq,gptq"] {
        let of = |scheme| error(&w, scheme, algo);
        let groups = [
            "w4a16-g32-asym",
            "w4a16-g64-asym",
            "w4a16-g128-asym",
            "w4a16-asym",
        ];
        let errors = groups.map(of);
        assert!(errors.is_sorted(), "{algo}: {errors:?}");
        let sym = of("w4a16-g128-sym");
        assert!(errors[2] < sym, "{algo}: {} {sym}", errors[2]);
        let bits = [
            "w8a16-g128-asym",
            "w4a16-g128-asym",
            "w3a16-g128-asym",
            "w2a16-g128-asym",
        ];
        let errors = bits.map(of);
        assert!(errors.is_sorted(), "{algo}: {errors:?}");
    }
}

#[test]
fn any_codes_are_rounded_by_any_method() {
    let w = heavy();
    for scheme in ["nvfp4", "mxfp4", "nf4", "lut4", "fp8"] {
        let of = |algo| error(&w, scheme, algo);
        let (gptq, refined, both) = (of("gptq"), of("gptq,refine"), of("awq,gptq"));
        let first = of(if scheme == "lut4" { "awq" } else { "rtn" });
        assert!(gptq < 0.9 * first, "{scheme}: {first} gptq {gptq}");
        assert!(refined < gptq, "{scheme}: gptq {gptq} refined {refined}");
        assert!(
            both < 1.02 * refined,
            "{scheme}: refined {refined} awq,gptq {both}"
        );
        if scheme != "lut4" {
            let mse = of("mse");
            assert!(mse <= first, "{scheme}: rtn {first} mse {mse}");
        }
    }
}

#[test]
fn output_channels_that_share_scales_are_rounded_by_any_method() {
    let w = heavy();
    for scheme in ["w4a16-tensor-asym", "w4a16-block128-asym"] {
        let of = |algo| error(&w, scheme, algo);
        let [rtn, mse, gptq] = ["rtn", "mse", "gptq"].map(of);
        let [clipped, both] = ["mse,gptq", "awq,gptq"].map(of);
        assert!(
            mse < rtn && gptq < rtn,
            "{scheme}: {rtn} mse {mse} gptq {gptq}"
        );
        assert!(
            clipped < gptq && both < gptq,
            "{scheme}: gptq {gptq} {clipped} {both}"
        );
        // Nothing that moves grids row by row.
        assert_eq!(of("hqq"), rtn, "{scheme}");
        assert_eq!(of("gptq,refine"), gptq, "{scheme}");
    }
    let of = |scheme| error(&w, scheme, "gptq");
    let errors = ["w4a16-asym", "w4a16-block128-asym", "w4a16-tensor-asym"].map(of);
    assert!(errors[0] < errors[2] && errors[1] < errors[2], "{errors:?}");
}

#[test]
fn a_weight_that_is_no_number_is_refused_by_name() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut w = heavy();
        w[300] = bad;
        let forms = [
            "w4a16-g64-asym",
            "nvfp4",
            "mxfp4",
            "w4a16-tensor-asym",
            "lut4",
        ];
        for (scheme, algo) in forms.iter().flat_map(|s| METHODS.map(|a| (s, a))) {
            let e = quantize(&layer(&w), scheme, algo, &Data::new()).unwrap_err();
            let at = (e.code().as_str().to_string(), e.place().map(str::to_string));
            assert_eq!(
                at,
                ("Q0520".into(), Some("weight w".into())),
                "{scheme} {algo} {bad}"
            );
        }
    }
}

#[test]
fn weights_of_zeros_stay_zeros_and_a_huge_one_stays_alone() {
    let data = Data::new();
    for algo in METHODS {
        let zeros = layer(&vec![0.0; 32 * WIDTH]);
        let (q, _) = quantize(&zeros, "w4a16-g64-asym", algo, &data).unwrap();
        assert!(outputs(&q, &data).iter().all(|v| *v == 0.0), "{algo}");

        let mut w = heavy();
        w[300] = 1e30;
        let m = layer(&w);
        let (q, _) = quantize(&m, "w4a16-g64-asym", algo, &data).unwrap();
        let (a, b) = (outputs(&m, &data), outputs(&q, &data));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let scale = if i % 32 == 1 { 1e31 } else { 10.0 };
            assert!(
                (a - b).abs() < 0.2 * scale,
                "{algo}: output {i} is {b} for {a}"
            );
        }
    }
}

#[test]
fn inputs_that_overflow_leave_rounding_to_nearest() {
    let mut data = Data::new();
    data.0[9] = f32::INFINITY;
    let m = layer(&heavy());
    let (q, ledger) = quantize(&m, "w4a16-g64-asym", "gptq", &data).unwrap();
    let (rtn, _) = quantize(&m, "w4a16-g64-asym", "rtn", &data).unwrap();
    let codes = |m: &Module| {
        let w: &Weight = m.weights.iter().rfind(|w| w.name == "w").unwrap();
        assert!(matches!(w.data, WeightData::Bytes(_)));
        crate::weights::read_f32(w).unwrap()
    };
    assert_eq!(codes(&q), codes(&rtn));
    let d = ledger.find("fc", Topic::Fallback).unwrap();
    assert_eq!(d.chosen, "rtn");
}

/// Counts what it is given.
struct Vault(Cell<usize>);

impl Spill for Vault {
    fn keep(&self, bytes: &[u8]) -> Result<Arc<dyn WeightBytes>> {
        self.0.set(self.0.get() + 1);
        Ok(crate::weights::held(bytes.to_vec()))
    }
}

#[test]
fn spilling_and_threads_change_nothing() {
    let options = Options {
        scheme: Scheme::named("w4a16-g64-asym").unwrap(),
        ..Options::default()
    };
    let data = Data::new();
    let run = |above: u64, threads: usize| {
        let vault = Vault(Cell::new(0));
        let mut ctx = PassContext::new(&options);
        ctx.samples = Some(&data);
        ctx.executor = Some(&Oracle);
        ctx.threads = threads;
        ctx.spilling = Some(Spilling { to: &vault, above });
        let m = run_with("awq,fit-weights,quantize", layer(&heavy()), &mut ctx).unwrap();
        let bytes = m.weights.iter().map(|w| eval::weight_tensor(w).unwrap());
        let bytes: Vec<Vec<u8>> = bytes.map(|t| t.bytes().to_vec()).collect();
        (bytes, vault.0.get())
    };
    let (all, none) = run(u64::MAX, 1);
    assert_eq!(none, 0);
    for threads in [1, 2, 3] {
        let (bytes, spilled) = run(0, threads);
        // The layer's input and its codes.
        assert!(spilled >= 2, "{spilled}");
        assert_eq!(bytes, all, "{threads} threads");
    }
}
