//! A place where activations can be smoothed, and its factors.
//!
//! Both maxima of the equation are at least 1e-5, and so is `s`; a channel that is always 0 has
//! `s = 1`. Channels that must have the same factor have the maxima of all of them. The factors are computed in f64 without any function of the host's mathematics
//! library, so they are the same on every machine.

use crate::quantize::{Assigned, LayerGroup, Target};
use crate::statistics::{Statistics, ValueStats};
use crate::weights::read_f32;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, OpKind, ValueId};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use std::sync::Arc;

/// Smallest maximum that counts, and smallest factor.
const FLOOR: f64 = 1e-5;

/// Layers that read the same value, and what takes its factors.
pub(super) struct Spot<'a> {
    pub(super) group: LayerGroup,
    pub(super) to: Target,
    pub(super) readers: Vec<&'a Assigned>,
    pub(super) stats: ValueStats,
    /// Largest magnitude of each input channel over the weights of all readers.
    weight_max: Vec<f32>,
}

/// What is done at a spot.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The exponent; `None` for nothing.
    pub(super) strength: Option<f32>,
    /// What was looked at besides.
    pub(super) considered: Vec<Candidate>,
}

impl<'a> Spot<'a> {
    /// # Errors
    /// `Q0526` when the statistics do not fit; when a weight cannot be read.
    pub(super) fn new(
        m: &Module,
        group: LayerGroup,
        to: Target,
        readers: Vec<&'a Assigned>,
        statistics: &Statistics,
    ) -> Result<Self> {
        let stats = stats(statistics, &m.funcs[0], group.input)?.clone();
        let mut weight_max = weight_max(m, stats.channels(), &readers)?;
        to.tie(&mut weight_max, f32::max);
        Ok(Spot {
            weight_max,
            group,
            to,
            readers,
            stats,
        })
    }

    /// Whether a norm takes the factors.
    pub(super) fn is_norm(&self) -> bool {
        matches!(self.to, Target::Norm(_))
    }

    /// One factor per channel.
    pub(super) fn factors(&self, alpha: f32) -> Arc<[f32]> {
        let alpha = f64::from(alpha);
        let factor = |(x, w): (f32, &f32)| match x == 0.0 {
            true => 1.0,
            false => {
                let x = libm::pow(f64::from(x).max(FLOOR), alpha);
                let w = libm::pow(f64::from(*w).max(FLOOR), 1.0 - alpha);
                (x / w).max(FLOOR) as f32
            }
        };
        let mut maxima = self.stats.channel_absmax();
        self.to.tie(&mut maxima, f32::max);
        let maxima = maxima.into_iter();
        maxima.zip(&self.weight_max).map(factor).collect()
    }

    /// The ledger's word on it.
    pub(super) fn decision(&self, m: &Module, choice: &Choice) -> Decision {
        let mut d = Decision::new(
            self.group.site(&m.funcs[0]),
            Topic::Smoothing,
            name(choice.strength),
        );
        d.considered.clone_from(&choice.considered);
        if choice.strength.is_some() {
            d.fused = self.readers.iter().map(|l| l.site.name.clone()).collect();
            d.rules = vec![self.to.name(&m.funcs[0])];
        }
        d
    }
}

impl Choice {
    /// A strength that was given.
    pub(super) fn given(strength: Option<f32>) -> Self {
        let mut considered = vec![Candidate::new(name(strength))];
        if strength.is_some() {
            considered.push(Candidate::new(name(None)));
        }
        Choice {
            strength,
            considered,
        }
    }
}

/// What a strength is called.
pub(super) fn name(strength: Option<f32>) -> String {
    strength.map_or("off".into(), |a| format!("alpha {a}"))
}

fn stats<'a>(statistics: &'a Statistics, f: &Func, x: ValueId) -> Result<&'a ValueStats> {
    let v = f.value(x);
    let channels = v.ty.shape.last().and_then(|n| n.as_const());
    let fits = |s: &&ValueStats| s.rows > 0 && i64::try_from(s.channels()).ok() == channels;
    statistics.get(&v.name).filter(fits).ok_or_else(|| {
        let message = format!("the statistics do not fit the value `{}`", v.name);
        Diagnostic::error(526, Class::Input, message)
            .hint("they were made of another model, or without data: calibrate again")
    })
}

fn weight_max(m: &Module, channels: usize, readers: &[&Assigned]) -> Result<Vec<f32>> {
    let mut out = vec![0.0f32; channels];
    for l in readers {
        let def = m.funcs[0].def_op(l.site.weight_value).map(|o| &o.kind);
        let Some(OpKind::Const { weight, .. }) = def else {
            continue;
        };
        for row in read_f32(m.weight(*weight))?.chunks(channels) {
            for (max, w) in out.iter_mut().zip(row) {
                *max = max.max(w.abs());
            }
        }
    }
    Ok(out)
}
