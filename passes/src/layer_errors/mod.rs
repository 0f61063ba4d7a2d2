//! What quantization does to each layer by itself.
//!
//! ```text
//! relative mse = Σ (y − ŷ)² / Σ y²       y = layer(x),  ŷ = quantized layer(x)
//! sqnr         = −10·log₁₀(relative mse)  dB
//! cosine       = Σ y·ŷ / √(Σ y² · Σ ŷ²)
//! ```
//!
//! Both see the same `x`, that of the float model, so an error counts where it is made and not
//! where it arrives ([`probe`]). Sums are in f64 in a fixed order. What needs no data (bits, bytes,
//! how many weights are clipped) is known for every layer.

mod histogram;
mod only;
mod probe;

pub use histogram::ValueHistogram;
pub use only::quantize_only;

use crate::pass::PassContext;
use crate::quantize::{Assigned, Quantized, assign};
use crate::statistics::ValueStats;
use crate::weights::{format_error, read_f32};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use qcc_ir::exec::Executor;
use qcc_ir::graph::{Module, OpKind, ScaleType, TensorType, Weight};

/// An input channel is an outlier if its largest magnitude is more than this many times the
/// median of all channels' largest magnitudes.
pub const OUTLIER_RATIO: f32 = 6.0;

/// A layer that can be quantized, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerFacts {
    /// Its source nodes.
    pub layer: String,
    /// Its weight.
    pub weight: String,
    /// What was chosen for it, as in the ledger.
    pub scheme: String,
    /// Terms of each of its sums.
    pub k: u64,
    /// Output channels.
    pub n: u64,
    /// Bits that an element of the weight takes, with its share of scales and zero points.
    pub bits: f64,
    /// Bytes of the weight in the model.
    pub float_bytes: u64,
    /// Bytes of the weight as it is chosen, with scales and zero points.
    pub bytes: u64,
    /// Input channels that are outliers on the calibration data ([`OUTLIER_RATIO`]).
    pub outlier_channels: Option<u64>,
    /// The weight's own error; of quantized layers.
    pub weights: Option<WeightError>,
    /// What was measured on data; of quantized layers.
    pub measured: Option<Measured>,
}

/// What codes do to a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightError {
    /// `Σ (w − ŵ)² / Σ w²`
    pub relative_mse: f64,
    /// Share of the elements that saturate.
    pub clipped: f64,
    /// The float elements.
    pub histogram: ValueHistogram,
}

/// A layer on data.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Signal to quantization noise ratio of its output; infinite where they are equal.
    pub sqnr_db: f64,
    /// `Σ (y − ŷ)² / Σ y²`
    pub relative_mse: f64,
    /// `Σ y·ŷ / √(Σ y² · Σ ŷ²)`; 1 where both are zero.
    pub cosine: f64,
    /// Share of the elements of its input that saturate; of static scales.
    pub clipped_inputs: Option<f64>,
    /// Its input.
    pub inputs: Option<ValueHistogram>,
    /// Between which values its input does not saturate; of static scales.
    pub input_range: Option<(f64, f64)>,
}

/// The layers of a module as `quantize` would treat them in this context, in execution order.
///
/// `module` is what `quantize` would be given: smoothed already if it is to be, with the
/// statistics of the context being its own. `batches` hold one tensor per parameter.
///
/// # Errors
/// As `quantize`; what the executor reports.
pub fn layer_facts(
    module: &Module,
    ctx: &PassContext<'_>,
    executor: &dyn Executor,
    batches: &[Vec<Tensor>],
) -> Result<Vec<LayerFacts>> {
    let assigned = assign(module, ctx)?;
    let mut measured = match batches.is_empty() {
        true => Vec::new(),
        false => probe::measure(module, ctx, &assigned, executor, batches)?,
    };
    measured.resize(assigned.len(), None);
    let pairs = assigned.iter().zip(measured);
    pairs
        .map(|(a, measured)| facts(module, ctx, a, measured))
        .collect()
}

fn facts(
    m: &Module,
    ctx: &PassContext<'_>,
    a: &Assigned,
    measured: Option<Measured>,
) -> Result<LayerFacts> {
    let f = &m.funcs[0];
    let ty = f.ty(a.site.weight_value);
    let dims = ty.fixed_dims().unwrap_or_default();
    let stored = match (&a.choice, ctx.options.float) {
        (Some(q), _) => {
            TensorType::quant(q.weights.quant_type(dims.len(), false), ty.shape.clone())
        }
        (None, Some(float)) => TensorType::new(float, ty.shape.clone()),
        (None, None) => ty.clone(),
    };
    let bits = bits_of(&stored);
    let elements: u64 = dims.iter().product();
    let stats = ctx.statistics.as_ref();
    let stats = stats.and_then(|s| s.get(&f.value(a.site.input).name));
    let weights = match (&a.choice, constant(m, a)) {
        (Some(q), Some(w)) => Some(weight_error(ctx, w, q)?),
        _ => None,
    };
    Ok(LayerFacts {
        layer: a.site.name.clone(),
        weight: a.site.weight.clone(),
        scheme: a
            .decisions
            .first()
            .map(|d| d.chosen.clone())
            .unwrap_or_default(),
        k: dims.iter().skip(1).product(),
        n: dims.first().copied().unwrap_or(0),
        bits: ratio(bits as f64, elements as f64),
        float_bytes: bits_of(ty).div_ceil(8),
        bytes: bits.div_ceil(8),
        outlier_channels: stats.filter(|s| s.channels() > 1).map(outliers),
        weights,
        measured,
    })
}

/// The weight of a layer.
fn constant<'m>(m: &'m Module, a: &Assigned) -> Option<&'m Weight> {
    match m.funcs[0].def_op(a.site.weight_value)?.kind {
        OpKind::Const { weight, .. } => Some(m.weight(weight)),
        _ => None,
    }
}

/// Bits of a constant: its elements, scales and zero points.
fn bits_of(t: &TensorType) -> u64 {
    let count = |dims: Option<Vec<u64>>| dims.unwrap_or_default().iter().product::<u64>();
    let codes = count(t.fixed_dims()) * u64::from(t.elem.storage().bits());
    let Some(q) = t.elem.quant() else {
        return codes;
    };
    let table = match q.scale {
        ScaleType::Table(_) => 1 << q.storage.bits(),
        _ => 1,
    };
    let each = table * q.scale.stored().bits() + q.zero.map_or(0, qcc_ir::DType::bits);
    let shape = t.scale_shape().unwrap_or_default();
    let scales = count(TensorType::new(qcc_ir::DType::F32, shape).fixed_dims());
    codes + scales * u64::from(each)
}

fn outliers(s: &ValueStats) -> u64 {
    let most = s.channel_absmax();
    let mut sorted = most.clone();
    sorted.sort_by(f32::total_cmp);
    let median = sorted[sorted.len() / 2];
    most.iter().filter(|m| **m > OUTLIER_RATIO * median).count() as u64
}

fn weight_error(ctx: &PassContext<'_>, w: &Weight, q: &Quantized) -> Result<WeightError> {
    let fail = |e| format_error(e, &w.name);
    let coded = ctx.codes.of(w, q)?;
    let values = read_f32(w)?;
    let clipped = coded.quantizer.clipped(&values, &w.dims).map_err(fail)?;
    let codes = match &coded.codes {
        Some(c) => c.bytes()?.into_owned(),
        None => coded.quantizer.codes(&values, &w.dims).map_err(fail)?,
    };
    let stored = coded.quantizer.real(&codes, &w.dims).map_err(fail)?;
    let (mut signal, mut noise) = (0.0, 0.0);
    for (w, s) in values.iter().zip(&stored) {
        let (w, s) = (f64::from(*w), f64::from(*s));
        signal += w * w;
        noise += (w - s) * (w - s);
    }
    Ok(WeightError {
        relative_mse: ratio(noise, signal),
        clipped: ratio(clipped as f64, values.len() as f64),
        histogram: ValueHistogram::of(&values),
    })
}

/// `a / b`, and 0 of nothing.
fn ratio(a: f64, b: f64) -> f64 {
    if a == 0.0 { 0.0 } else { a / b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Statistics;
    use crate::testing::{Oracle, inputs, module};
    use crate::{Options, Scheme};

    /// The second layer's weight and input are exact in i8; the first's are not.
    const TWO: &str = r#"dim n = 1..9
        weight @a: f32[3, 4] = normal(1, 1.0)
        weight @one: f32[2, 3] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        func @main(%x: f32[n, 4]) -> (y: f32[n, 2]) {
          %a: f32[3, 4] = const @a
          %h: f32[n, 3] = linear %x, %a @"first"
          %c: f32[n, 3] = relu %h
          %zero: f32[] = splat {value = 0.0}
          %p: bool[n, 3] = gt %c, %zero
          %s: f32[n, 3] = cast %p
          %one: f32[2, 3] = const @one
          %y: f32[n, 2] = linear %s, %one @"second"
          return %y
        }"#;

    fn options(scheme: &str) -> Options {
        Options {
            scheme: Scheme::named(scheme).unwrap(),
            ..Options::default()
        }
    }

    #[test]
    fn errors_are_those_of_each_layer_alone() {
        let m = module(TWO);
        let options = options("int8");
        let ctx = PassContext::new(&options);
        let data = [inputs(&m, 1), inputs(&m, 7)];
        let e = layer_facts(&m, &ctx, &Oracle, &data).unwrap();
        let named: Vec<_> = e.iter().map(|e| (e.layer.as_str(), e.k, e.n)).collect();
        assert_eq!(named, [("first", 4, 3), ("second", 3, 2)]);
        assert_eq!(e[0].scheme, "int8-dynamic");
        let [a, b] = [0, 1].map(|i| e[i].measured.clone().unwrap());
        assert!((30.0..60.0).contains(&a.sqnr_db), "{}", a.sqnr_db);
        assert!((a.sqnr_db + 10.0 * a.relative_mse.log10()).abs() < 1e-9);
        assert!(a.cosine > 0.999 && a.cosine < 1.0, "{}", a.cosine);
        assert!(b.sqnr_db > 120.0 && b.relative_mse < 1e-12, "{b:?}");
        assert_eq!((a.clipped_inputs, a.input_range), (None, None));
    }

    #[test]
    fn layers_are_quantized_one_at_a_time() {
        let m = module(TWO);
        let options = options("int8");
        let ctx = PassContext::new(&options);
        let count = |which: &dyn Fn(usize) -> bool| {
            let text = quantize_only(&m, &ctx, which).unwrap().to_string();
            let of = |w: &str| {
                let line = |l: &&str| l.contains("= const") && l.contains(&format!("@{w},"));
                text.lines().filter(line).count()
            };
            (of("a"), of("one"))
        };
        assert_eq!(count(&|_| true), (1, 1));
        assert_eq!(count(&|i| i == 1), (0, 1));
        let none = quantize_only(&m, &ctx, &|_| false).unwrap();
        assert_eq!(none.to_string(), m.to_string());
    }

    #[test]
    fn bits_count_scales() {
        let m = module(TWO);
        let facts = |scheme: &str| {
            let options = options(scheme);
            let ctx = PassContext::new(&options);
            let e = layer_facts(&m, &ctx, &Oracle, &[]).unwrap();
            (e[0].bits, e[0].float_bytes, e[0].bytes)
        };
        assert_eq!(facts("float"), (32.0, 48, 48));
        // Twelve codes, and an f32 for each of three rows.
        assert_eq!(facts("int8"), (16.0, 48, 24));
        let (bits, _, bytes) = facts("w4a16-g32-asym");
        assert!(bits > 12.0 && bytes < 24, "{bits} {bytes}");
    }

    #[test]
    fn inputs_beyond_a_static_scale_are_clipped() {
        let m = module(
            r#"weight @w: f32[1, 4] = [1.0, 0.5, 0.25, 1.0]
            func @main(%x: f32[2, 4]) -> (y: f32[2, 1]) {
              %w: f32[1, 4] = const @w
              %y: f32[2, 1] = linear %x, %w @"fc"
              return %y
            }"#,
        );
        let options = options("int8-static");
        let mut ctx = PassContext::new(&options);
        let mut seen = Statistics::new();
        let mut stats = ValueStats::new(4);
        stats.observe(&[1.0, -1.0, 1.27, 0.5]).unwrap();
        stats.observe(&[1.0, -1.0, 0.0, 9.0 / 9.0 * 0.5]).unwrap();
        seen.insert("x", stats);
        ctx.statistics = Some(seen);
        let x = [1.0, -1.0, 1.27, 0.5, 1.3, -5.0, 1.274, -1.274];
        let data = [vec![Tensor::f32(&[2, 4], &x).unwrap()]];
        let e = layer_facts(&m, &ctx, &Oracle, &data).unwrap();
        let measured = e[0].measured.as_ref().unwrap();
        // Beyond 127.5 steps of 0.01 lie 1.3 and -5.
        assert_eq!(measured.clipped_inputs, Some(0.25));
        let (lo, hi) = measured.input_range.unwrap();
        assert!((hi - 1.275).abs() < 1e-6 && (lo + 1.275).abs() < 1e-6);
        let counts = &measured.inputs.as_ref().unwrap().counts;
        assert_eq!(counts.iter().sum::<u64>(), 8);
    }

    #[test]
    fn outlier_channels_stand_out_from_the_median() {
        let mut s = ValueStats::new(5);
        s.observe(&[1.0, -6.5, 0.5, 6.0, -1.0]).unwrap();
        assert_eq!(outliers(&s), 1);
        assert_eq!(outliers(&ValueStats::new(3)), 0);
    }

    #[test]
    fn weights_that_saturate_are_counted() {
        let w = crate::weights::inline_f32("w".into(), vec![1, 4], &[1.0, -1.0, 3.0, 0.5]);
        let q = Scheme::named("int8").unwrap().weights.unwrap();
        let spec = q.resolved(false).0;
        let options = Options::default();
        let ctx = PassContext::new(&options);
        let q = Quantized {
            weights: spec,
            acts: None,
            global: None,
        };
        let mut coded = ctx.codes.of(&w, &q).unwrap();
        assert_eq!(coded.quantizer.clipped(&[3.0, -3.0], &[1, 2]).unwrap(), 0);
        coded.quantizer.scales = vec![1.0 / 127.0].into();
        let clipped = coded.quantizer.clipped(&[1.0, -1.0, 3.0, 0.5], &[1, 4]);
        assert_eq!(clipped.unwrap(), 1);
        let e = weight_error(&ctx, &w, &q).unwrap();
        assert!(e.clipped == 0.0 && e.relative_mse > 0.0 && e.relative_mse < 1e-4);
    }
}
