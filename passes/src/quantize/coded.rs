//! What weight methods decided: scales, zero points and, where they do not follow from those,
//! codes.

use super::assign::Quantized;
use super::scheme::QuantSpec;
use super::{rtn, table};
use crate::spill::Spilling;
use crate::weights::{Quantizer, Transform, derive};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Weight, WeightBytes, WeightData};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One weight.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) spec: QuantSpec,
    pub(crate) quantizer: Quantizer,
    /// The stored codes; without them each is the nearest one.
    pub(crate) codes: Option<Arc<dyn WeightBytes>>,
}

/// Weights by name.
#[derive(Clone, Debug, Default)]
pub struct CodedWeights {
    by_name: BTreeMap<String, Coded>,
    /// Bytes of all codes.
    bytes: u64,
}

impl CodedWeights {
    /// Takes what was found for a weight; its codes go elsewhere when all together exceed the
    /// limit.
    ///
    /// # Errors
    /// When they cannot be stored.
    pub(super) fn insert(
        &mut self,
        weight: &str,
        mut coded: Coded,
        limit: Option<Spilling<'_>>,
    ) -> Result<()> {
        if let (Some(codes), Some(s)) = (&coded.codes, limit) {
            let bytes = codes.bytes()?;
            self.bytes += bytes.len() as u64;
            let kept = (self.bytes > s.above)
                .then(|| s.to.keep(&bytes))
                .transpose()?;
            drop(bytes);
            coded.codes = kept.or(coded.codes);
        }
        self.by_name.insert(weight.to_string(), coded);
        Ok(())
    }

    /// What was decided for a weight under this form.
    pub(crate) fn get(&self, weight: &str, spec: &QuantSpec) -> Option<&Coded> {
        self.by_name.get(weight).filter(|c| c.spec == *spec)
    }

    /// What is stored of a weight under this form: what was decided, else the nearest codes.
    ///
    /// # Errors
    /// When the weight cannot be read or holds NaN or infinity.
    pub(crate) fn of(&self, source: &Weight, q: &Quantized) -> Result<Coded> {
        let spec = q.weights;
        if let Some(c) = self.get(&source.name, &spec) {
            return Ok(c.clone());
        }
        if spec.is_table() {
            return table::fit(source, &spec, None, 1);
        }
        let block = spec.quant_type(source.dims.len(), false).block;
        Ok(Coded {
            spec,
            quantizer: rtn::quantizer(source, &spec, block, q.global)?,
            codes: None,
        })
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
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
            Some(codes) => Ok(Weight {
                name: source.name.clone(),
                dtype: self.quantizer.format.dtype(),
                dims: source.dims.clone(),
                data: WeightData::Bytes(codes.clone()),
            }),
        }
    }
}
