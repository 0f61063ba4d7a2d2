//! Floats as text: the shortest decimal that parses back to the same bits.
//!
//! Infinities are the words `inf` and `-inf`; a NaN is its bits in hexadecimal, 8 digits for
//! f32 and 16 for f64, because its payload has no decimal form.

/// An f32 given by its bits, always recognisable as a float: `1.0`, `1e-5`, `inf`, `0x7fc00000`.
pub(crate) fn f32_text(bits: u32) -> String {
    let v = f32::from_bits(bits);
    if v.is_nan() {
        format!("0x{bits:08x}")
    } else {
        format!("{v:?}")
    }
}

/// An f64 given by its bits, where only a number can stand: an integral one loses its `.0`.
pub(crate) fn f64_text(bits: u64) -> String {
    let v = f64::from_bits(bits);
    if v.is_nan() {
        return format!("0x{bits:016x}");
    }
    short(format!("{v:?}"))
}

/// As [`f64_text`] for an f32.
pub(crate) fn real_text(bits: u32) -> String {
    short(f32_text(bits))
}

/// `-0.0` keeps its point, so that it reads as what it is.
fn short(s: String) -> String {
    match s.strip_suffix(".0") {
        Some("-0") | None => s,
        Some(int) => int.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_forms() {
        let f = |v: f32| f32_text(v.to_bits());
        assert_eq!(f(0.1), "0.1");
        assert_eq!(f(3.0), "3.0");
        assert_eq!(f(1e-5), "1e-5");
        assert_eq!(f(f32::NEG_INFINITY), "-inf");
        assert_eq!(f32_text(0xffc0_0001), "0xffc00001");
        assert_eq!(real_text(3.0f32.to_bits()), "3");
        assert_eq!(f64_text((-0.0f64).to_bits()), "-0.0");
        assert_eq!(f64_text(1e300f64.to_bits()), "1e300");
        assert_eq!(f64_text(f64::NAN.to_bits()), "0x7ff8000000000000");
    }
}
