//! Contents of a module's weights as host tensors.

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::format::encode_slice;
use qcc_ir::graph::{Module, Weight, WeightData, WeightId};
use qcc_ir::{DType, Tensor};

/// The elements of a weight.
///
/// # Errors
/// When the weight is held elsewhere (`extern`), its source cannot be read, or its contents do
/// not fit its extents.
pub(crate) fn load(m: &Module, id: WeightId) -> Result<Tensor> {
    let w = m.weight(id);
    contents(w).map_err(|d| d.or_at(format!("weight {}", w.name)))
}

fn contents(w: &Weight) -> Result<Tensor> {
    match &w.data {
        WeightData::Bytes(b) => Tensor::from_bytes(w.dtype, &w.dims, &b.bytes()?),
        WeightData::Splat(bits) => {
            let n = Tensor::zeros(DType::Bool, &w.dims)?.numel();
            encode(w, &vec![f64::from_bits(*bits); n])
        }
        WeightData::List(bits) => {
            let v: Vec<f64> = bits.iter().map(|b| f64::from_bits(*b)).collect();
            encode(w, &v)
        }
        WeightData::Extern | WeightData::Normal(..) => Err(Diagnostic::error(
            709,
            Class::Input,
            "the contents of the weight are not part of the module",
        )
        .hint("bind the weight's bytes before the module is prepared")),
    }
}

fn encode(w: &Weight, v: &[f64]) -> Result<Tensor> {
    let mut t = Tensor::zeros(w.dtype, &w.dims)?;
    encode_slice(w.dtype, v, t.bytes_mut()).map_err(crate::format_error)?;
    Ok(t)
}
