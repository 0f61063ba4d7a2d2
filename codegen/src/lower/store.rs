//! Storing a result: cast to a plain format, or quantize with a scale that is known.

use super::frame::{Frame, Source, Tensor};
use super::index::{Position, block_offset, load_code, load_plain, offset, scale_format};
use qcc_ir::DType;
use qcc_ir::kernel::{Value, bool_to_i64, quantize_code, to_storage};

/// Stores the compute value `v` at `p` of result `t`.
///
/// For a quantized result, `scale` is the scale to use; without it the static one is loaded.
pub fn store_result(fr: &mut Frame, t: &Tensor, p: &Position, v: Value, scale: Option<Value>) {
    let at = offset(fr, &t.ty.shape, p);
    store_at(fr, t, p, at, v, scale);
}

/// As [`store_result`], at the element offset `at` (i64).
pub fn store_at(
    fr: &mut Frame,
    t: &Tensor,
    p: &Position,
    at: Value,
    v: Value,
    scale: Option<Value>,
) {
    let Source::Pointer(base) = t.codes else {
        return;
    };
    let code = match t.ty.elem.quant().cloned() {
        None => plain_code(fr, t.ty.elem.storage(), v),
        Some(q) => {
            let block = block_offset(fr, t, p);
            let s = match (scale, t.scale) {
                (Some(s), _) => s,
                (None, Some(src)) => load_plain(&mut fr.k, src, scale_format(t), block),
                (None, None) => fr.k.f32(1.0),
            };
            let z = t
                .zero
                .map(|z| load_code(&mut fr.k, z, q.zero.unwrap_or(DType::F32), block));
            quantize_code(&mut fr.k, &q, v, s, z)
        }
    };
    let ptr = fr.k.ptr_add(base, at);
    fr.k.store(ptr, code);
}

fn plain_code(fr: &mut Frame, d: DType, v: Value) -> Value {
    if d != DType::Bool {
        return to_storage(&mut fr.k, d, v);
    }
    let truth = to_storage(&mut fr.k, DType::Bool, v);
    let int = bool_to_i64(&mut fr.k, truth);
    fr.k.cvt(int, DType::U8)
}
