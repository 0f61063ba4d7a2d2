//! What weight methods decided: scales, zero points and, where they do not follow from those,
//! codes.

use super::rtn;
use super::scheme::QuantSpec;
use crate::weights::{Quantizer, Transform, derive, inline};
use qcc_ir::diag::Result;
use qcc_ir::graph::Weight;
use std::collections::BTreeMap;

/// One weight.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) spec: QuantSpec,
    pub(crate) quantizer: Quantizer,
    /// The stored codes; without them each is the nearest one.
    pub(crate) codes: Option<Vec<u8>>,
}

/// Weights by name.
#[derive(Clone, Debug, Default)]
pub struct CodedWeights(BTreeMap<String, Coded>);

impl CodedWeights {
    pub(super) fn insert(&mut self, weight: &str, coded: Coded) {
        self.0.insert(weight.to_string(), coded);
    }

    /// What was decided for a weight under this form.
    pub(crate) fn get(&self, weight: &str, spec: &QuantSpec) -> Option<&Coded> {
        self.0.get(weight).filter(|c| c.spec == *spec)
    }

    /// What is stored of a weight under this form: what was decided, else the nearest codes.
    ///
    /// # Errors
    /// When the weight cannot be read or holds NaN or infinity.
    pub(crate) fn of(&self, source: &Weight, spec: &QuantSpec) -> Result<Coded> {
        if let Some(c) = self.get(&source.name, spec) {
            return Ok(c.clone());
        }
        let block = spec.quant_type(source.dims.len(), false).block;
        Ok(Coded {
            spec: *spec,
            quantizer: rtn::quantizer(source, spec, block)?,
            codes: None,
        })
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Coded {
    /// The weight of codes that follows from `source`.
    ///
    /// # Errors
    /// When the quantizer does not fit it.
    pub(crate) fn weight(&self, source: &Weight) -> Result<Weight> {
        match &self.codes {
            None => derive(source, Transform::Quantize(self.quantizer.clone())),
            Some(codes) => Ok(inline(
                source.name.clone(),
                self.quantizer.format.dtype(),
                source.dims.clone(),
                codes.clone(),
            )),
        }
    }
}
