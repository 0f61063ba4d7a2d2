//! The file: safetensors, one tensor for each statistic of each value.
//!
//! | tensor | format | what |
//! |---|---|---|
//! | `NAME/rows` | U64 `[1]` | rows seen |
//! | `NAME/min`, `NAME/max` | F32 `[c]` | extremes of each channel |
//! | `NAME/magnitude`, `NAME/square` | F64 `[c]` | `Σ|x|` and `Σx²` of each channel |
//! | `NAME/moving` | F64 `[2]` | moving minimum and maximum |
//! | `NAME/history` | F32 `[h]` | largest magnitude of each of the last batches, at most 1024 |
//! | `NAME/width` | I32 `[1]` | `e` of the histogram's bins, which are 2^e wide |
//! | `NAME/histogram` | U64 `[2, 4096]` | counts of magnitudes: of negative elements, of the others |
//! | `NAME/gram` | F64 `[c, c]` | `XᵀX` |
//!
//! NAME is the value's name in the model. Only the first three are required. The metadata has one
//! key, `qcc.statistics`, which holds a JSON object: `version` (1), `model` (the BLAKE3 hash of the
//! model file in hexadecimal digits) and `samples`. Numbers are little endian.

use super::{ModelStatistics, VERSION};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_passes::{Histogram, ValueStats};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The key of the metadata.
pub(super) const KEY: &str = "qcc.statistics";

/// What the metadata says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) version: u64,
    pub(super) model: String,
    pub(super) samples: u64,
}

/// A tensor on its way to the file.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

pub(super) fn to_bytes(s: &ModelStatistics) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for (name, v) in s.statistics.iter().filter(|(_, v)| v.rows > 0) {
        super::read::check(v).map_err(|d| d.or_at(format!("value {name}")))?;
        put(&mut entries, name, v);
    }
    let about = About {
        version: VERSION,
        model: s.model_hash.clone(),
        samples: s.statistics.samples,
    };
    let fail = |e: String| Diagnostic::error(917, Class::Internal, e);
    let about = serde_json::to_string(&about).map_err(|e| fail(e.to_string()))?;
    let views = entries.iter().map(|e| {
        let view = TensorView::new(e.dtype, e.shape.clone(), &e.bytes);
        Ok((e.name.as_str(), view.map_err(|e| fail(e.to_string()))?))
    });
    let views: Vec<(&str, TensorView<'_>)> = views.collect::<Result<_>>()?;
    // A single key: the order of several would differ from run to run.
    let metadata = HashMap::from([(KEY.to_string(), about)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| fail(e.to_string()))
}

fn put(out: &mut Vec<Entry>, name: &str, v: &ValueStats) {
    let c = v.channels();
    let mut add = |what: &str, dtype, shape: Vec<usize>, bytes| {
        out.push(Entry {
            name: format!("{name}/{what}"),
            dtype,
            shape,
            bytes,
        });
    };
    add("rows", Dtype::U64, vec![1], v.rows.to_le_bytes().to_vec());
    for (what, extremes) in [("min", &v.channel_min), ("max", &v.channel_max)] {
        let bytes = extremes.iter().flat_map(|x| x.to_le_bytes()).collect();
        add(what, Dtype::F32, vec![c], bytes);
    }
    let f64s = |v: &[f64]| -> Vec<u8> { v.iter().flat_map(|x| x.to_le_bytes()).collect() };
    if let Some(s) = &v.sums {
        add("magnitude", Dtype::F64, vec![c], f64s(&s.magnitude));
        add("square", Dtype::F64, vec![c], f64s(&s.square));
    }
    if let Some((lo, hi)) = v.moving {
        add("moving", Dtype::F64, vec![2], f64s(&[lo, hi]));
    }
    if let Some(h) = &v.history {
        let bytes = h.iter().flat_map(|x| x.to_le_bytes()).collect();
        add("history", Dtype::F32, vec![h.len()], bytes);
    }
    if let Some(h) = &v.histogram {
        let counts = h.counts().iter().flat_map(|x| x.to_le_bytes()).collect();
        add("histogram", Dtype::U64, vec![2, Histogram::BINS], counts);
        let exponent = h.exponent().to_le_bytes().to_vec();
        add("width", Dtype::I32, vec![1], exponent);
    }
    if let Some(g) = &v.gram {
        add("gram", Dtype::F64, vec![c, c], f64s(g));
    }
}
