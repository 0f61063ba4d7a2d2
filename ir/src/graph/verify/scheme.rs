//! The invariants of quantized types (G05) and of the parameters that go with their values (G06,
//! G08).

use crate::format::{Block, DType, Kind};
use crate::graph::types::{QuantType, ScaleType, TensorType};

/// Whether a scheme is one that exists.
pub(super) fn quant_type(q: &QuantType, rank: usize) -> Result<(), String> {
    use DType::{BF16, E2M1, E4M3, E5M2, F16, F32, I2, I4, I8, NF4, U2, U4, U8};
    let integer = matches!(q.storage, I8 | U8 | I4 | U4 | I2 | U2);
    if !integer && !matches!(q.storage, E4M3 | E5M2 | E2M1 | NF4) {
        return Err(format!("{} is no storage for quantized values", q.storage));
    }
    if q.block.0.len() != rank || q.block.0.contains(&Block::Fixed(0)) {
        return Err(format!(
            "block {} does not fit a tensor of rank {rank}",
            q.block
        ));
    }
    let plain = matches!(q.scale, ScaleType::Plain(_));
    let exists = match q.scale {
        ScaleType::Plain(d) | ScaleType::Table(d) => matches!(d, F32 | F16 | BF16),
        ScaleType::TwoLevel(a, b) => a == E4M3 && b == F32,
        ScaleType::Power(_) => true,
    };
    if !exists {
        return Err(format!("scale={} is not one that exists", q.scale));
    }
    if q.scale.is_table() && (q.dynamic || q.narrow || !matches!(q.storage, U2 | U4 | U8)) {
        return Err("a table is static and has unsigned codes".into());
    }
    if q.zero.is_some() && !plain {
        return Err(format!("scale={} goes with no zero point", q.scale));
    }
    if q.narrow && q.storage.kind() != Kind::Signed {
        return Err(format!("{} has no narrow range", q.storage));
    }
    match q.zero {
        Some(z) if z != q.storage && !z.is_float() => {
            Err(format!("zero={z} does not fit {}", q.storage))
        }
        Some(_) if q.storage.is_float() => Err("a float storage has no zero point".into()),
        _ => Ok(()),
    }
}

/// Checks the scale, zero point and global scale that accompany a value of a quantized type.
pub(super) fn scale_operands(
    t: &TensorType,
    [scale, zero, global]: [Option<&TensorType>; 3],
) -> Result<(), String> {
    let Some(q) = t.elem.quant() else {
        return Err(format!("{t} is not quantized"));
    };
    match (q.scale.global().map(|d| TensorType::new(d, [])), global) {
        (None, None) => {}
        (Some(want), Some(got)) if *got == want => {}
        (Some(want), got) => {
            let got = got.map_or("none".to_string(), ToString::to_string);
            return Err(format!("{t} needs a global scale {want}, not {got}"));
        }
        (None, Some(_)) => return Err(format!("{t} takes no global scale")),
    }
    if q.dynamic {
        return match (scale, zero) {
            (None, None) => Ok(()),
            _ => Err(format!("{t} is dynamic and takes no scale")),
        };
    }
    let shape = t.scale_shape().unwrap_or_default();
    let want = TensorType::new(q.scale.stored(), shape.clone());
    match scale {
        None => return Err(format!("{t} needs a scale {want}")),
        Some(s) if *s != want => return Err(format!("the scale is {s}, {t} needs {want}")),
        Some(_) => {}
    }
    match (q.zero, zero) {
        (None, None) => Ok(()),
        (Some(z), Some(got)) if *got == TensorType::new(z, shape.clone()) => Ok(()),
        (Some(z), got) => Err(format!(
            "{t} needs a zero point {}, not {}",
            TensorType::new(z, shape),
            got.map_or("none".to_string(), ToString::to_string)
        )),
        (None, Some(_)) => Err(format!("{t} is symmetric and takes no zero point")),
    }
}

/// Scale, zero point and global scale among the operands of `quantize` behind the first.
pub(super) fn params_of_quantize<'t>(
    t: &TensorType,
    given: &[&'t TensorType],
) -> Result<[Option<&'t TensorType>; 3], String> {
    let q = t
        .elem
        .quant()
        .ok_or_else(|| format!("{t} is not quantized"))?;
    let at = q.quantize_params();
    let params = at.map(|i| i.and_then(|i| given.get(i - 1)).copied());
    match params.iter().flatten().count() < given.len() {
        true => Err(format!("{t} takes fewer operands than {}", given.len() + 1)),
        false => Ok(params),
    }
}

/// Whether a format may be that of a value without a scheme.
pub(super) fn plain_type(d: DType) -> Result<(), String> {
    use DType::{E2M1, E8M0, I2, NF4, U2};
    match d {
        I2 | U2 | E2M1 | NF4 | E8M0 => Err(format!("{d} occurs only in quantized types")),
        _ => Ok(()),
    }
}
