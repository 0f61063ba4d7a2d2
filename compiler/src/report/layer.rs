//! One layer: what was chosen for it, what it takes, and what it costs.

use crate::sensitivity::OutputReport;
use qcc_ir::graph::{Func, Module, Op, OpKind};
use qcc_ir::ledger::{Ledger, Topic};
use qcc_ir::plan::{Action, Plan, TargetSection};
use qcc_passes::{LayerFacts, ValueHistogram};
use serde::Serialize;
use std::collections::BTreeMap;

/// One layer. Figures that need calibration data are absent without.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Source node.
    pub name: String,
    /// Its weight.
    pub weight: String,
    /// The scheme that was chosen.
    pub scheme: String,
    /// Terms of each sum.
    pub k: u64,
    /// Output channels.
    pub n: u64,
    /// Bits that an element of the weight takes, with its share of scales and zero points.
    pub bits: f64,
    /// Bytes of the weight in the model.
    pub float_bytes: u64,
    /// Bytes of the weight in the plan, scales and zero points included.
    pub bytes: u64,
    /// Signal to quantization noise of its output on calibration data, in dB.
    pub sqnr_db: Option<f64>,
    /// `Σ (y − ŷ)² / Σ y²` of its output.
    pub relative_mse: Option<f64>,
    /// Cosine of the angle between its float and its quantized output.
    pub cosine: Option<f64>,
    /// Its share of the divergence of the model's predictions, if measured; of language models.
    pub kl_share: Option<f64>,
    /// Its share of the relative squared error of the model's outputs, if measured; of others.
    pub error_share: Option<f64>,
    /// Input channels whose largest magnitude is more than six times the median channel's.
    pub outlier_channels: Option<u64>,
    /// Share of its input's elements that saturate; of static scales.
    pub clipped_inputs: Option<f64>,
    /// Share of its weight's elements that saturate; of quantized layers.
    pub clipped_weights: Option<f64>,
    /// `Σ (w − ŵ)² / Σ w²`; of quantized layers.
    pub weight_mse: Option<f64>,
    /// For each target the kernels that run it, the preferred first; none where the device
    /// compiles the op itself.
    pub kernel: BTreeMap<String, Vec<String>>,
    /// The nodes that its kernel computes.
    pub fused: Vec<String>,
    /// Why it stayed float, if it did.
    pub fallback: Option<String>,
    /// What the page draws.
    #[serde(skip)]
    pub plots: Plots,
}

/// Distributions of a layer's values.
#[derive(Clone, Debug, Default)]
pub struct Plots {
    /// Its weight, of quantized layers.
    pub weights: Option<ValueHistogram>,
    /// Its input on calibration data.
    pub inputs: Option<ValueHistogram>,
    /// Between which values its input does not saturate; of static scales.
    pub input_range: Option<(f64, f64)>,
}

impl LayerReport {
    /// All layers: their facts, their shares of the outputs' error, and what their ops became in
    /// the compiled module and the sections of the plan.
    pub(crate) fn all(
        facts: Vec<LayerFacts>,
        measured: Option<&(OutputReport, Vec<Option<f64>>)>,
        ledger: &Ledger,
        module: &Module,
        plan: &Plan,
    ) -> Vec<LayerReport> {
        let share = |i: usize| measured.and_then(|(_, shares)| shares.get(i).copied().flatten());
        let kl = measured.is_some_and(|(o, _)| o.divergence.is_some());
        let layer = |(i, f): (usize, LayerFacts)| {
            let mut l = LayerReport::new(f, ledger);
            l.kl_share = share(i).filter(|_| kl);
            l.error_share = share(i).filter(|_| !kl);
            l
        };
        let mut layers: Vec<LayerReport> = facts.into_iter().enumerate().map(layer).collect();
        locate(&mut layers, module, &plan.targets);
        layers
    }

    /// What is known of a layer before anything was lowered.
    fn new(facts: LayerFacts, ledger: &Ledger) -> LayerReport {
        let refused = ledger.find(&facts.layer, Topic::Scheme);
        let refused = refused.filter(|_| facts.scheme == "float");
        let refused = refused.and_then(|d| d.considered.iter().find_map(|c| c.refused_by.clone()));
        let (m, w) = (facts.measured, facts.weights);
        LayerReport {
            name: facts.layer,
            weight: facts.weight,
            scheme: facts.scheme,
            k: facts.k,
            n: facts.n,
            bits: facts.bits,
            float_bytes: facts.float_bytes,
            bytes: facts.bytes,
            sqnr_db: m.as_ref().map(|m| m.sqnr_db).filter(|s| s.is_finite()),
            relative_mse: m.as_ref().map(|m| m.relative_mse),
            cosine: m.as_ref().map(|m| m.cosine),
            kl_share: None,
            error_share: None,
            outlier_channels: facts.outlier_channels,
            clipped_inputs: m.as_ref().and_then(|m| m.clipped_inputs),
            clipped_weights: w.as_ref().map(|w| w.clipped),
            weight_mse: w.as_ref().map(|w| w.relative_mse),
            kernel: BTreeMap::new(),
            fused: Vec::new(),
            fallback: refused,
            plots: Plots {
                weights: w.map(|w| w.histogram),
                input_range: m.as_ref().and_then(|m| m.input_range),
                inputs: m.and_then(|m| m.inputs),
            },
        }
    }

    /// Its share of the outputs' error, whatever that is measured in.
    pub fn share(&self) -> Option<f64> {
        self.kl_share.or(self.error_share)
    }

    /// Notes what its op became in the compiled module.
    fn locate(&mut self, f: &Func, op: &Op, sections: &[TargetSection]) {
        self.fused = op.loc.nodes.clone();
        let result = op.results.first().map(|v| f.value(*v).name.as_str());
        for s in sections {
            let step = s.steps.iter().find(|st| Some(st.op.as_str()) == result);
            let actions = step.into_iter().flat_map(|st| &st.run);
            let mut names: Vec<String> = Vec::new();
            for a in actions.flat_map(|c| &c.actions) {
                let name = match a {
                    Action::Cpu => continue,
                    Action::Launch(l) => l.kernel.clone(),
                    Action::Vendor(_) => "cublaslt".to_string(),
                };
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            self.kernel.insert(s.target.clone(), names);
        }
    }

    /// Its own nodes.
    fn nodes(&self) -> impl Iterator<Item = &str> {
        self.name.split(", ")
    }

    /// The op of the compiled module that computes this layer: the linear or convolution that
    /// reads its weight, or the last one that comes from all of its nodes. One before may name
    /// them too: it quantizes the layer's input.
    fn op(&self, m: &Module, f: &Func) -> Option<usize> {
        let heavy = |op: &Op| matches!(op.kind, OpKind::Linear { .. } | OpKind::Conv { .. });
        let reads = |op: &Op| {
            let w = op.operands.get(1).and_then(|w| f.def_op(*w));
            matches!(w.map(|w| &w.kind), Some(OpKind::Const { weight, .. })
                if m.weight(*weight).name == self.weight)
        };
        let comes_from = |op: &Op| {
            let has = |n: &str| op.loc.nodes.iter().any(|m| m == n);
            let result = op.results.first().map(|v| f.value(*v).name.as_str());
            self.nodes().all(has) || result == Some(&self.name)
        };
        let last = |test: &dyn Fn(&Op) -> bool| f.ops.iter().rposition(|o| heavy(o) && test(o));
        last(&|o| reads(o) && comes_from(o)).or_else(|| last(&comes_from))
    }
}

/// Locates all layers in the compiled module.
fn locate(layers: &mut [LayerReport], module: &Module, sections: &[TargetSection]) {
    let Some(f) = module.funcs.first() else {
        return;
    };
    let found: Vec<Option<usize>> = layers.iter().map(|l| l.op(module, f)).collect();
    // What an op names of other layers are the inputs that it quantizes for them.
    let mut owner: BTreeMap<String, usize> = BTreeMap::new();
    for (l, op) in layers.iter().zip(&found) {
        let Some(op) = op else { continue };
        for n in l.nodes() {
            owner.insert(n.to_string(), *op);
        }
    }
    for (l, op) in layers.iter_mut().zip(&found) {
        let Some(op) = op else { continue };
        l.locate(f, &f.ops[*op], sections);
        l.fused.retain(|n| owner.get(n).is_none_or(|o| o == op));
    }
}
