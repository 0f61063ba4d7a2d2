//! A layer for tests of the report.

use super::{LayerReport, Plots};
use qcc_passes::ValueHistogram;
use std::collections::BTreeMap;

/// A quantized layer with this share of the output's divergence.
pub(super) fn layer(name: &str, share: f64) -> LayerReport {
    let histogram = |counts: &[u64]| ValueHistogram {
        min: -1.0,
        max: 2.0,
        counts: counts.to_vec(),
    };
    LayerReport {
        name: name.into(),
        weight: name.into(),
        scheme: "int8-static".into(),
        k: 8,
        n: 4,
        bits: 9.0,
        float_bytes: 128,
        bytes: 36,
        sqnr_db: Some(30.0 + share),
        relative_mse: Some(1e-3),
        cosine: Some(0.9995),
        kl_share: Some(share),
        error_share: None,
        outlier_channels: Some(2),
        clipped_inputs: Some(0.01),
        clipped_weights: Some(0.0),
        weight_mse: Some(1e-5),
        kernel: BTreeMap::new(),
        fused: vec![name.into()],
        fallback: Some(name.into()),
        plots: Plots {
            weights: Some(histogram(&[1, 0, 5])),
            inputs: Some(histogram(&[0, 9, 1])),
            input_range: Some((-0.5, 0.5)),
        },
    }
}
