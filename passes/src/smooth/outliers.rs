//! Outliers that the model itself reveals.
//!
//! A norm scales each channel by its gain. A gain of many times the median makes its channel set
//! the scale of a token, and the codes of all others small: of int8, eight times leave them four
//! of seven bits. Where nothing is smoothed for want of calibration data, that is said.
//!
//! ```text
//! ratio = max |g| / median |g|
//! ```

use crate::quantize::{intents, maker_name};
use crate::weights::read_f32;
use crate::{Options, pass::PassContext};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Module, OpKind, ValueId};
use std::collections::BTreeSet;

/// The ratio from which a gain is an outlier.
const RATIO: f32 = 8.0;

/// Warns of norms whose gains make outliers in front of layers with integer activations.
///
/// # Errors
/// When a gain cannot be read, or a pattern of the options is wrong.
pub(super) fn warn(m: &Module, ctx: &mut PassContext<'_>) -> Result<()> {
    let inputs = integer_inputs(m, ctx.options)?;
    let f = &m.funcs[0];
    let mut found: Vec<(f32, String)> = Vec::new();
    for (_, op) in f.ops().filter(|(_, o)| inputs.contains(&o.results[0])) {
        let gain = match op.kind {
            OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } => f.def_op(op.operands[1]),
            _ => continue,
        };
        let Some(OpKind::Const {
            weight,
            scale: None,
            ..
        }) = gain.map(|g| &g.kind)
        else {
            continue;
        };
        let ratio = ratio(&read_f32(m.weight(*weight))?);
        if ratio >= RATIO {
            found.push((ratio, maker_name(f, op.results[0])));
        }
    }
    let Some((ratio, name)) = found.iter().max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return Ok(());
    };
    let message = format!(
        "{} norms make outliers that integer activations cannot hold: the largest gain of {name} \
         is {ratio:.0} times its median",
        found.len()
    );
    ctx.warnings.push(
        Diagnostic::warning(540, Class::Input, message)
            .at(name)
            .hint(match ctx.statistics {
                None => "give --calib: the outliers are then smoothed into weights",
                Some(_) => {
                    "give --calib, or --smooth 0.5 for which statistics suffice: the outliers \
                     are then smoothed into weights"
                }
            }),
    );
    Ok(())
}

/// What layers read whose activations are to become integers.
fn integer_inputs(m: &Module, options: &Options) -> Result<BTreeSet<ValueId>> {
    let layers = intents(m, options)?;
    let ints = layers.iter().filter(|l| l.acts.is_some_and(|d| d.is_int()));
    Ok(ints.map(|l| l.site.input).collect())
}

/// The largest magnitude over the median one; 0 where the median is.
fn ratio(gain: &[f32]) -> f32 {
    let mut sorted: Vec<f32> = gain.iter().map(|g| g.abs()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(max)) if *median > 0.0 => max / median,
        _ => 0.0,
    }
}
