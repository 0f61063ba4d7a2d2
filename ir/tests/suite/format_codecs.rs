//! Every code of every format against the goldens of `golden/generate.py` (numpy, ml_dtypes),
//! bit for bit, and the slice codecs on packed and odd lengths.

use qcc_ir::format::{
    DType, FormatError, NF4_VALUES, Overflow, decode_bf16, decode_e4m3, decode_e5m2, decode_f16,
    decode_nf4, decode_slice, decode_slice_i64, encode_bf16, encode_e2m1, encode_e4m3, encode_e5m2,
    encode_e8m0, encode_f16, encode_nf4, encode_slice, encode_slice_i64, encode_slice_with,
    round_slice, round_to_odd,
};

fn golden(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/golden/format/{name}.bin",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn golden_u16(name: &str) -> Vec<u16> {
    let bytes = golden(name);
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&c| u16::from_le_bytes(c))
        .collect()
}

fn golden_f32(name: &str) -> Vec<f32> {
    let bytes = golden(name);
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&c| f32::from_le_bytes(c))
        .collect()
}

/// Compares `f` on every input with the golden, naming the first input that differs.
fn check<T: Copy, C: PartialEq + std::fmt::LowerHex + Copy>(
    name: &str,
    inputs: impl ExactSizeIterator<Item = T>,
    expected: &[C],
    bits: impl Fn(T) -> u64,
    f: impl Fn(T) -> C,
) {
    assert_eq!(
        inputs.len(),
        expected.len(),
        "{name}: golden has another length"
    );
    for (x, &want) in inputs.zip(expected) {
        let got = f(x);
        let at = bits(x);
        assert!(
            got == want,
            "{name}: input {at:x} gives {got:x}, expected {want:x}"
        );
    }
}

const MODES: [(Overflow, &str); 2] = [(Overflow::Saturate, "sat"), (Overflow::Special, "special")];

/// All goldens `SOURCE_*` of an input type that `widen` turns into f32.
fn check_8bit<T: Copy>(
    source: &str,
    inputs: impl ExactSizeIterator<Item = T> + Clone,
    bits: impl Fn(T) -> u64,
    widen: impl Fn(T) -> f32,
) {
    for (mode, suffix) in MODES {
        let name = format!("{source}_e4m3_{suffix}");
        check(&name, inputs.clone(), &golden(&name), &bits, |x| {
            encode_e4m3(widen(x), mode)
        });
        let name = format!("{source}_e5m2_{suffix}");
        check(&name, inputs.clone(), &golden(&name), &bits, |x| {
            encode_e5m2(widen(x), mode)
        });
    }
}

/// The goldens of the MX formats, which saturate or have NaN whatever is asked for.
fn check_mx<T: Copy>(
    source: &str,
    inputs: impl ExactSizeIterator<Item = T> + Clone,
    bits: impl Fn(T) -> u64,
    widen: impl Fn(T) -> f32,
) {
    let name = format!("{source}_e2m1");
    check(&name, inputs.clone(), &golden(&name), &bits, |x| {
        encode_e2m1(widen(x))
    });
    let name = format!("{source}_e8m0");
    check(&name, inputs, &golden(&name), &bits, |x| {
        encode_e8m0(widen(x))
    });
}

#[test]
fn all_f16_codes_to_narrower_formats() {
    let codes = (0..=u16::MAX).collect::<Vec<_>>();
    check_8bit("f16", codes.iter().copied(), u64::from, decode_f16);
    check_mx("f16", codes.iter().copied(), u64::from, decode_f16);
    let want = golden_u16("f16_bf16");
    check("f16_bf16", codes.into_iter(), &want, u64::from, |c| {
        encode_bf16(decode_f16(c))
    });
}

#[test]
fn all_bf16_codes_to_narrower_formats() {
    let codes = (0..=u16::MAX).collect::<Vec<_>>();
    check_8bit("bf16", codes.iter().copied(), u64::from, decode_bf16);
    check_mx("bf16", codes.iter().copied(), u64::from, decode_bf16);
    let want = golden_u16("bf16_f16");
    check("bf16_f16", codes.into_iter(), &want, u64::from, |c| {
        encode_f16(decode_bf16(c))
    });
}

#[test]
fn f32_ties_edges_and_random_bits() {
    let x = golden_f32("f32");
    let bits = |x: f32| u64::from(x.to_bits());
    check_8bit("f32", x.iter().copied(), bits, |x| x);
    check(
        "f32_f16",
        x.iter().copied(),
        &golden_u16("f32_f16"),
        bits,
        encode_f16,
    );
    check(
        "f32_bf16",
        x.iter().copied(),
        &golden_u16("f32_bf16"),
        bits,
        encode_bf16,
    );
}

#[test]
fn f64_is_rounded_once() {
    let x: Vec<f64> = golden("f64")
        .as_chunks()
        .0
        .iter()
        .map(|&c| f64::from_le_bytes(c))
        .collect();
    let want = golden_u16("f64_f16");
    check("f64_f16", x.iter().copied(), &want, f64::to_bits, |x| {
        encode_f16(round_to_odd(x))
    });
    let mut bytes = vec![0; 2 * x.len()];
    encode_slice(DType::F16, &x, &mut bytes).unwrap();
    let stored: Vec<u16> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&c| u16::from_le_bytes(c))
        .collect();
    assert_eq!(stored, want);
    // The goldens do hold inputs on which rounding twice is wrong.
    let twice = x.iter().map(|&x| encode_f16(x as f32));
    assert!(twice.zip(&want).any(|(a, &b)| a != b));
}

#[test]
fn values_of_all_small_codes() {
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let codes: Vec<u8> = (0..=255).collect();
    let nibbles: Vec<u8> = (0..8).map(|i| (2 * i + 1) << 4 | (2 * i)).collect();
    for (dtype, bytes) in [
        (DType::E4M3, &codes),
        (DType::E5M2, &codes),
        (DType::I8, &codes),
        (DType::U8, &codes),
        (DType::I4, &nibbles),
        (DType::U4, &nibbles),
        (DType::E2M1, &nibbles),
        (DType::E8M0, &codes),
        (DType::I2, &vec![0b1110_0100]),
        (DType::U2, &vec![0b1110_0100]),
    ] {
        let want = golden_f32(dtype.name());
        let mut got = vec![0f32; want.len()];
        decode_slice(dtype, bytes, &mut got).unwrap();
        assert_eq!(bits(&got), bits(&want), "{dtype}");
    }
    let want = golden_f32("e4m3");
    let scalar: Vec<f32> = codes.iter().map(|&c| decode_e4m3(c)).collect();
    assert_eq!(bits(&scalar), bits(&want));
    let want = golden_f32("e5m2");
    let scalar: Vec<f32> = codes.iter().map(|&c| decode_e5m2(c)).collect();
    assert_eq!(bits(&scalar), bits(&want));
}

/// The definition `(-1)^s * 2^(e - bias) * (1 + m / 2^man)`, in f64.
fn by_definition(code: u16, exp: u32, man: u32) -> f64 {
    let (bias, top) = ((1 << (exp - 1)) - 1, (1 << exp) - 1);
    let sign = if code >> 15 == 1 { -1.0 } else { 1.0 };
    let e = i32::from(code >> man & top);
    let m = f64::from(code & ((1 << man) - 1)) / f64::from(1 << man);
    let magnitude = match e {
        0 => m * 2f64.powi(1 - bias),
        e if e == i32::from(top) && m == 0.0 => f64::INFINITY,
        e if e == i32::from(top) => f64::NAN,
        e => (1.0 + m) * 2f64.powi(e - bias),
    };
    sign * magnitude
}

#[test]
fn values_of_all_16_bit_codes() {
    for code in 0..=u16::MAX {
        for (got, want) in [
            (decode_f16(code), by_definition(code, 5, 10)),
            (decode_bf16(code), by_definition(code, 8, 7)),
        ] {
            let same = f64::from(got).to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "{code:x}: {got} is not {want}");
            assert_eq!(got.is_sign_negative(), code >> 15 == 1);
        }
    }
}

#[test]
fn every_number_survives_a_round_trip() {
    for code in 0..=u16::MAX {
        let v = decode_f16(code);
        assert!(
            v.is_nan() && code & 0x7fff > 0x7c00 || encode_f16(v) == code,
            "{code:x}"
        );
        let v = decode_bf16(code);
        assert!(
            v.is_nan() && code & 0x7fff > 0x7f80 || encode_bf16(v) == code,
            "{code:x}"
        );
    }
    for code in 0..=u8::MAX {
        let v = decode_e4m3(code);
        assert_eq!(v.is_nan(), code & 0x7f == 0x7f);
        assert_eq!(encode_e4m3(v, Overflow::Saturate), code);
        let v = decode_e5m2(code);
        assert_eq!(v.is_nan(), code & 0x7f > 0x7c);
        if !v.is_nan() {
            assert_eq!(encode_e5m2(v, Overflow::Special), code);
        }
    }
}

fn encoded(dtype: DType, src: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0xaa; dtype.byte_len(src.len() as u64).unwrap() as usize];
    encode_slice(dtype, src, &mut bytes).unwrap();
    bytes
}

#[test]
fn integers_saturate_and_round_half_to_even() {
    let x = [
        -1e30,
        -129.5,
        -128.5,
        -2.5,
        -0.5,
        0.5,
        1.5,
        2.5,
        127.5,
        255.5,
        1e30,
        f32::NAN,
    ];
    let decoded = |dtype| {
        let mut out = [0i64; 12];
        decode_slice_i64(dtype, &encoded(dtype, &x), &mut out).unwrap();
        out
    };
    let cases: [(DType, [i64; 12]); 12] = [
        (DType::I2, [-2, -2, -2, -2, 0, 0, 1, 1, 1, 1, 1, 0]),
        (DType::U2, [0, 0, 0, 0, 0, 0, 2, 2, 3, 3, 3, 0]),
        (DType::I4, [-8, -8, -8, -2, 0, 0, 2, 2, 7, 7, 7, 0]),
        (DType::U4, [0, 0, 0, 0, 0, 0, 2, 2, 15, 15, 15, 0]),
        (
            DType::I8,
            [-128, -128, -128, -2, 0, 0, 2, 2, 127, 127, 127, 0],
        ),
        (DType::U8, [0, 0, 0, 0, 0, 0, 2, 2, 128, 255, 255, 0]),
        (
            DType::I16,
            [-32768, -130, -128, -2, 0, 0, 2, 2, 128, 256, 32767, 0],
        ),
        (DType::U16, [0, 0, 0, 0, 0, 0, 2, 2, 128, 256, 65535, 0]),
        (
            DType::I32,
            [
                i32::MIN.into(),
                -130,
                -128,
                -2,
                0,
                0,
                2,
                2,
                128,
                256,
                i32::MAX.into(),
                0,
            ],
        ),
        (
            DType::U32,
            [0, 0, 0, 0, 0, 0, 2, 2, 128, 256, u32::MAX.into(), 0],
        ),
        (
            DType::I64,
            [i64::MIN, -130, -128, -2, 0, 0, 2, 2, 128, 256, i64::MAX, 0],
        ),
        // All ones: u64::MAX.
        (DType::U64, [0, 0, 0, 0, 0, 0, 2, 2, 128, 256, -1, 0]),
    ];
    for (dtype, want) in cases {
        assert_eq!(decoded(dtype), want, "{dtype}");
    }
    assert_eq!(
        encoded(DType::Bool, &[0.0, -0.0, 0.1, f32::NAN]),
        [0, 0, 1, 1]
    );
}

#[test]
fn nibbles_are_packed_low_first_with_a_zero_tail() {
    assert_eq!(
        encoded(DType::I4, &[1.0, -2.0, 7.0, -8.0, -1.0]),
        [0xe1, 0x87, 0x0f]
    );
    assert_eq!(encoded(DType::U4, &[1.0, 15.0, 9.0]), [0xf1, 0x09]);
    let mut out = [0f32; 3];
    // The unused nibble of the tail is ignored.
    decode_slice(DType::I4, &[0xe1, 0xa7], &mut out).unwrap();
    assert_eq!(out, [1.0, -2.0, 7.0]);
    let mut bytes = [0xaa; 2];
    encode_slice_i64(DType::I4, &[1, -2, 23], &mut bytes).unwrap();
    assert_eq!(bytes, [0xe1, 0x07]);
}

#[test]
fn two_bit_codes_are_packed_lowest_first_with_a_zero_tail() {
    assert_eq!(
        encoded(DType::I2, &[1.0, -2.0, -1.0, 0.0, -1.0]),
        [0b0011_1001, 0b11]
    );
    assert_eq!(encoded(DType::U2, &[1.0, 2.0, 3.0]), [0b0011_1001]);
    let mut out = [0f32; 3];
    decode_slice(DType::I2, &[0b1110_0111], &mut out).unwrap();
    assert_eq!(out, [-1.0, 1.0, -2.0]);
    let mut bytes = [0xaa; 1];
    encode_slice_i64(DType::U2, &[1, 2, 7], &mut bytes).unwrap();
    assert_eq!(bytes, [0b0011_1001]);
}

/// Every code comes back from its value; the values are those of QLoRA, and the nearest is taken.
#[test]
fn nf4_takes_the_nearest_value() {
    for (code, v) in NF4_VALUES.iter().enumerate() {
        assert_eq!((encode_nf4(*v), decode_nf4(code as u8)), (code as u8, *v));
    }
    for x in (-1200..=1200).map(|i| i as f32 / 1000.0) {
        let distance = |c: u8| (f64::from(decode_nf4(c)) - f64::from(x)).abs();
        let best = (0..16).map(distance).fold(f64::INFINITY, f64::min);
        assert_eq!(distance(encode_nf4(x)), best, "{x}");
    }
    assert_eq!(encode_nf4(f32::NAN), 7);
    assert_eq!(
        (encode_nf4(f32::INFINITY), encode_nf4(f32::NEG_INFINITY)),
        (15, 0)
    );
}

#[test]
fn integers_keep_their_low_bits() {
    let x = [-1i64, 256, 0x1_2345_6789, i64::MIN];
    for (dtype, want) in [
        (DType::U8, [255, 0, 0x89, 0]),
        (DType::I8, [-1, 0, -119, 0]),
        (DType::I16, [-1, 256, 0x6789, 0]),
        (DType::U32, [0xffff_ffff, 256, 0x2345_6789, 0]),
        (DType::I64, x),
        (DType::U64, x),
        (DType::Bool, [1, 1, 1, 1]),
    ] {
        let mut bytes = vec![0; dtype.byte_len(4).unwrap() as usize];
        encode_slice_i64(dtype, &x, &mut bytes).unwrap();
        let mut back = [0; 4];
        decode_slice_i64(dtype, &bytes, &mut back).unwrap();
        assert_eq!(back, want, "{dtype}");
    }
    let mut v = [0f64];
    decode_slice(DType::U64, &u64::MAX.to_le_bytes(), &mut v).unwrap();
    assert_eq!(v, [18446744073709551615.0]);
}

#[test]
fn overflow_mode_reaches_slices() {
    let mut bytes = [0; 2];
    encode_slice_with(DType::E4M3, Overflow::Special, &[1e9f32, -1e9], &mut bytes).unwrap();
    assert_eq!(bytes, [0x7f, 0xff]);
    encode_slice(DType::E4M3, &[1e9f32, -1e9], &mut bytes).unwrap();
    assert_eq!(bytes, [0x7e, 0xfe]);
}

#[test]
fn rounding_a_slice_is_encoding_and_decoding() {
    let x = golden_f32("f32");
    for dtype in DType::ALL {
        let mut rounded = x.clone();
        round_slice(dtype, &mut rounded);
        let mut want = vec![0f32; x.len()];
        decode_slice(dtype, &encoded(dtype, &x), &mut want).unwrap();
        let same = rounded
            .iter()
            .zip(&want)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{dtype}");
    }
}

#[test]
fn wrong_lengths_and_formats_are_refused() {
    let length = |expected, found| FormatError::Length {
        what: "encoded bytes",
        expected,
        found,
    };
    let mut out = [0f32; 3];
    assert_eq!(
        decode_slice(DType::I4, &[0; 3], &mut out),
        Err(length(2, 3))
    );
    assert_eq!(
        encode_slice(DType::F16, &out, &mut [0; 5]),
        Err(length(6, 5))
    );
    assert_eq!(
        decode_slice_i64(DType::I8, &[0; 3], &mut [0; 2]),
        Err(length(2, 3))
    );
    assert_eq!(
        encode_slice_i64(DType::I8, &[0; 3], &mut [0; 2]),
        Err(length(3, 2))
    );
    let float = Err(FormatError::NotInteger(DType::F32));
    assert_eq!(decode_slice_i64(DType::F32, &[0; 4], &mut [0]), float);
    assert_eq!(encode_slice_i64(DType::F32, &[0], &mut [0; 4]), float);
}
