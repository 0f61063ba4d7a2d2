//! Reading statistics: any bytes give statistics that hold together, or an error.
//!
//! Nothing is allocated for a length that the file merely claims: every tensor lies in the bytes,
//! and what is made of it is no longer than that.

use super::file::{About, KEY};
use super::{ModelStatistics, VERSION};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_passes::{ChannelSums, Histogram, Statistics, ValueStats};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;

/// Longest header that is parsed.
const MAX_HEADER: u64 = 16 << 20;

/// The tensors of a value by statistic.
type Parts<'a> = BTreeMap<String, TensorView<'a>>;

pub(super) fn from_bytes(bytes: &[u8]) -> Result<ModelStatistics> {
    let header = bytes.first_chunk().map(|n| u64::from_le_bytes(*n));
    if header.is_none_or(|n| n > MAX_HEADER) {
        return Err(no_file("it does not begin with the length of a header"));
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| no_file(e.to_string()))?;
    let about = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let about = about.ok_or_else(|| no_file(format!("its metadata has no `{KEY}`")))?;
    let version: serde_json::Value =
        serde_json::from_str(about).map_err(|e| no_file(format!("`{KEY}`: {e}")))?;
    if version["version"] != VERSION {
        let message = format!("its version is {}, not {VERSION}", version["version"]);
        return Err(no_file(message).hint("calibrate again with this version of qcc"));
    }
    let about: About = serde_json::from_str(about).map_err(|e| no_file(format!("`{KEY}`: {e}")))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| no_file(e.to_string()))?;
    let mut values: BTreeMap<String, Parts<'_>> = BTreeMap::new();
    for (name, view) in file.tensors() {
        let Some((value, what)) = name.rsplit_once('/') else {
            return Err(no_file(format!("`{name}` is no statistic of a value")));
        };
        let parts = values.entry(value.to_string()).or_default();
        parts.insert(what.to_string(), view);
    }
    let mut statistics = Statistics::new();
    statistics.samples = about.samples;
    for (name, mut parts) in values {
        let at = |d: Diagnostic| d.or_at(format!("value {name}"));
        let stats = value(&mut parts).map_err(at)?;
        if let Some(what) = parts.keys().next() {
            return Err(at(bad(format!("there is no statistic `{what}`"))));
        }
        check(&stats).map_err(at)?;
        statistics.insert(&name, stats);
    }
    Ok(ModelStatistics {
        model_hash: about.model,
        statistics,
    })
}

/// The statistics of a value, whose parts are taken out.
fn value(parts: &mut Parts<'_>) -> Result<ValueStats> {
    let [rows] = needed(u64s(parts, "rows", &[1])?, "rows")?[..] else {
        return Err(bad("its rows are no number"));
    };
    let min = needed(f32s(parts, "min")?, "min")?;
    let c = min.len();
    let max = needed(f32s(parts, "max")?, "max")?;
    let sums = match (
        f64s(parts, "magnitude", &[c])?,
        f64s(parts, "square", &[c])?,
    ) {
        (Some(magnitude), Some(square)) => Some(ChannelSums { magnitude, square }),
        (None, None) => None,
        _ => return Err(bad("it has sums of magnitudes or of squares, not both")),
    };
    let moving = f64s(parts, "moving", &[2])?.map(|m| (m[0], m[1]));
    let width = take(parts, "width", Dtype::I32, &[1])?;
    let width = width.and_then(|v| v.data().first_chunk().map(|b| i32::from_le_bytes(*b)));
    let histogram = match (width, u64s(parts, "histogram", &[2, Histogram::BINS])?) {
        (Some(e), Some(counts)) => Some(Histogram::from_counts(e, counts)?),
        (None, None) => None,
        _ => return Err(bad("it has a histogram or the width of its bins, not both")),
    };
    Ok(ValueStats {
        rows,
        channel_min: min,
        channel_max: max,
        sums,
        moving,
        history: f32s(parts, "history")?,
        histogram,
        gram: f64s(parts, "gram", &[c, c])?,
    })
}

/// Whether statistics can be those of some rows.
///
/// # Errors
/// `Q0528` with what contradicts itself.
pub(super) fn check(v: &ValueStats) -> Result<()> {
    let c = v.channels();
    let same = |n: Option<usize>| n.is_none_or(|n| n == c);
    let sums = v.sums.as_ref();
    let lengths = [
        Some(v.channel_max.len()),
        sums.map(|s| s.magnitude.len()),
        sums.map(|s| s.square.len()),
    ];
    let square = v
        .gram
        .as_ref()
        .is_none_or(|g| c.checked_mul(c) == Some(g.len()));
    if v.rows == 0 || c == 0 || !lengths.into_iter().all(same) || !square {
        return Err(bad(
            "its statistics are of no rows, or of rows of several lengths",
        ));
    }
    let mut extremes = v.channel_min.iter().zip(&v.channel_max);
    if !extremes.all(|(lo, hi)| lo.is_finite() && hi.is_finite() && lo <= hi) {
        return Err(bad(
            "a minimum or maximum is not finite, or beyond the other",
        ));
    }
    let counted = |x: &f64| x.is_finite() && *x >= 0.0;
    if !sums.is_none_or(|s| s.magnitude.iter().chain(&s.square).all(counted)) {
        return Err(bad(
            "a sum of magnitudes or squares is not finite, or negative",
        ));
    }
    if !v
        .moving
        .is_none_or(|(lo, hi)| lo.is_finite() && hi.is_finite() && lo <= hi)
    {
        return Err(bad("a moving extreme is not finite, or beyond the other"));
    }
    let magnitude = |x: &f32| x.is_finite() && *x >= 0.0;
    let length = 1..=ValueStats::HISTORY;
    if !v
        .history
        .as_ref()
        .is_none_or(|h| length.contains(&h.len()) && h.iter().all(magnitude))
    {
        return Err(bad(
            "a history is empty, too long, or of numbers that are no magnitudes",
        ));
    }
    let diagonal = |g: &Vec<f64>| g.iter().step_by(c + 1).all(counted);
    if !v
        .gram
        .as_ref()
        .is_none_or(|g| g.iter().all(|x| x.is_finite()) && diagonal(g))
    {
        return Err(bad("XᵀX is not finite, or negative on its diagonal"));
    }
    Ok(())
}

/// A statistic of this form, taken out; `None` if it is not there.
fn take<'a>(
    parts: &mut Parts<'a>,
    what: &str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<Option<TensorView<'a>>> {
    let Some(v) = parts.remove(what) else {
        return Ok(None);
    };
    if v.dtype() != dtype || v.shape() != shape {
        let have = format!("{}{:?}", v.dtype(), v.shape());
        return Err(bad(format!("`{what}` is {have}, not {dtype}{shape:?}")));
    }
    Ok(Some(v))
}

fn numbers<const N: usize, T>(v: &TensorView<'_>, from: impl Fn([u8; N]) -> T) -> Vec<T> {
    v.data().as_chunks().0.iter().map(|b| from(*b)).collect()
}

fn u64s(parts: &mut Parts<'_>, what: &str, shape: &[usize]) -> Result<Option<Vec<u64>>> {
    let v = take(parts, what, Dtype::U64, shape)?;
    Ok(v.map(|v| numbers(&v, u64::from_le_bytes)))
}

fn f64s(parts: &mut Parts<'_>, what: &str, shape: &[usize]) -> Result<Option<Vec<f64>>> {
    let v = take(parts, what, Dtype::F64, shape)?;
    Ok(v.map(|v| numbers(&v, f64::from_le_bytes)))
}

/// One number for each channel; how many there are, the tensor says.
fn f32s(parts: &mut Parts<'_>, what: &str) -> Result<Option<Vec<f32>>> {
    let channels: Vec<usize> = parts.get(what).map_or(&[][..], |v| v.shape()).to_vec();
    let shape = &channels[..channels.len().min(1)];
    let v = take(parts, what, Dtype::F32, shape)?;
    Ok(v.map(|v| numbers(&v, f32::from_le_bytes)))
}

fn needed<T>(v: Option<T>, what: &str) -> Result<T> {
    v.ok_or_else(|| bad(format!("`{what}` is missing")))
}

fn no_file(why: impl Into<String>) -> Diagnostic {
    let message = format!("not a statistics file: {}", why.into());
    Diagnostic::error(529, Class::Input, message)
}

fn bad(why: impl Into<String>) -> Diagnostic {
    Diagnostic::error(528, Class::Input, why).hint("make the file again: `qcc calibrate`")
}
