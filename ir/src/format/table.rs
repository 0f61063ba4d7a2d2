//! NF4: 4-bit NormalFloat, codes whose values are quantiles of the normal distribution.
//!
//! Dettmers et al. 2023, "QLoRA", appendix E: 16 values in [-1, 1], 0 exactly among them. A
//! number becomes the nearest value, of two equally near ones the lesser; NaN becomes 0.

/// The value of each code.
pub const NF4_VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The code of the value 0.
const ZERO: u8 = 7;

/// The middle of each two neighbouring values; exact in f64.
const MIDDLES: [f64; 15] = {
    let mut m = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        m[i] = (NF4_VALUES[i] as f64 + NF4_VALUES[i + 1] as f64) / 2.0;
        i += 1;
    }
    m
};

/// Encodes to nf4, in the low nibble.
#[inline]
pub fn encode_nf4(x: f32) -> u8 {
    if x.is_nan() {
        return ZERO;
    }
    MIDDLES.iter().map(|m| u8::from(f64::from(x) > *m)).sum()
}

/// The value of an nf4 code, of which the low nibble counts.
#[inline]
pub const fn decode_nf4(code: u8) -> f32 {
    NF4_VALUES[code as usize & 15]
}
