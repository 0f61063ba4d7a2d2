//! Literals of constants.

use crate::DType;
use crate::format::Kind;

/// The literal of a lane's bits: value for integers and truth values, shortest decimal that reads
/// back for finite f32 and f64, else bits.
pub(super) fn print(dtype: DType, bits: u64) -> String {
    let shift = 64 - dtype.bits();
    match (dtype, dtype.kind()) {
        (DType::F32, _) => match f32::from_bits(bits as u32) {
            x if x.is_finite() => format!("{x:?}"),
            _ => format!("{bits:#010x}"),
        },
        (DType::F64, _) => match f64::from_bits(bits) {
            x if x.is_finite() => format!("{x:?}"),
            _ => format!("{bits:#018x}"),
        },
        (_, Kind::Signed) => (((bits << shift) as i64) >> shift).to_string(),
        (_, Kind::Unsigned | Kind::Bool) => bits.to_string(),
        (_, Kind::Float) => format!("{bits:#x}"),
    }
}

/// The bits that a literal means, if it fits the format.
pub(super) fn parse(dtype: DType, text: &str) -> Option<u64> {
    let bits = dtype.bits();
    let fits = |v: u64| bits == 64 || v >> bits == 0;
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().filter(|&v| fits(v));
    }
    match (dtype, dtype.kind()) {
        (DType::F32, _) => text.parse::<f32>().ok().map(|v| u64::from(v.to_bits())),
        (DType::F64, _) => text.parse::<f64>().ok().map(f64::to_bits),
        (_, Kind::Signed) => {
            let v: i64 = text.parse().ok()?;
            let shift = 64 - bits;
            let low = (v as u64) << shift >> shift;
            (((low << shift) as i64) >> shift == v).then_some(low)
        }
        (_, Kind::Unsigned | Kind::Bool) => text.parse().ok().filter(|&v| fits(v)),
        (_, Kind::Float) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_round_trip() {
        let cases = [
            (DType::F32, 0x3f80_0000),
            (DType::F32, 0x8000_0000),
            (DType::F32, 0x7fc0_0001),
            (DType::F32, 1),
            (DType::F64, 0x7ff0_0000_0000_0000),
            (DType::I8, 0x80),
            (DType::I64, u64::MAX),
            (DType::U64, u64::MAX),
            (DType::F16, 0x3c00),
            (DType::E4M3, 0x7e),
            (DType::Bool, 1),
        ];
        for (dtype, bits) in cases {
            assert_eq!(
                parse(dtype, &print(dtype, bits)),
                Some(bits),
                "{dtype} {bits:#x}"
            );
        }
        assert_eq!(parse(DType::I8, "128"), None);
        assert_eq!(parse(DType::U8, "256"), None);
        assert_eq!(parse(DType::F16, "0x10000"), None);
    }
}
