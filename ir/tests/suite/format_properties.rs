//! Properties of the codecs and of tensor quantization, on random input.

use std::sync::LazyLock;

use proptest::prelude::*;
use qcc_ir::format::{
    Block, BlockShape, DType, Overflow, PowerRound, QuantFormat, QuantParams, Range, absmax_nd,
    decode_slice, dequantize_nd, dequantize_table_nd, encode_slice, encode_slice_with, minmax_nd,
    quantize_nd, round_slice, scale_asymmetric, scale_global, scale_power, scale_symmetric,
    scale_two_level,
};

const STORAGES: [DType; 13] = [
    DType::I2,
    DType::U2,
    DType::I4,
    DType::U4,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::E4M3,
    DType::E5M2,
    DType::E2M1,
    DType::NF4,
];

/// Any finite f32, with every exponent equally likely.
fn finite() -> impl Strategy<Value = f32> {
    any::<u32>()
        .prop_map(f32::from_bits)
        .prop_filter("finite", |v| v.is_finite())
}

/// f64 numbers around the range of the narrow formats, biased to few mantissa bits (ties).
fn wide() -> impl Strategy<Value = f64> {
    let near = (-4096i64..4096, -40i32..16, -1i64..=1).prop_map(|(m, e, ulp)| {
        let v = m as f64 / 2.0 * 2f64.powi(e);
        f64::from_bits(v.to_bits().wrapping_add_signed(ulp))
    });
    prop_oneof![
        near.prop_filter("finite", |v| v.is_finite()),
        any::<f32>().prop_map(f64::from)
    ]
    .prop_filter("number", |v| v.is_finite())
}

fn rounded<T: qcc_ir::format::Real>(dtype: DType, v: T) -> T {
    let mut v = [v];
    round_slice(dtype, &mut v);
    v[0]
}

/// All finite values of a narrow float, in increasing order, with their codes.
type Values = Vec<(f64, u32)>;

fn values(dtype: DType) -> Values {
    let codes: u32 = 1 << dtype.bits();
    let bytes: Vec<u8> = (0..codes)
        .flat_map(|c| c.to_le_bytes()[..dtype.bits() as usize / 8].to_vec())
        .collect();
    let mut out = vec![0f64; codes as usize];
    decode_slice(dtype, &bytes, &mut out).unwrap();
    let mut pairs: Vec<_> = out
        .into_iter()
        .zip(0..)
        .filter(|(v, _)| v.is_finite())
        .collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    pairs
}

/// Round to nearest, ties to the even code, by search among all values; infinite on overflow.
fn nearest(values: &[(f64, u32)], v: f64) -> f64 {
    let (top, under) = (values[values.len() - 1].0, values[values.len() - 2].0);
    if v.abs() >= top + (top - under) / 2.0 {
        // The last code is odd in each of these formats, so the tie goes up.
        return f64::INFINITY.copysign(v);
    }
    let at = values.partition_point(|p| p.0 < v).min(values.len() - 1);
    let (low, high) = (values[at.saturating_sub(1)], values[at]);
    let (below, above) = (v - low.0, high.0 - v);
    if below < above || below == above && low.1 % 2 == 0 {
        low.0
    } else {
        high.0
    }
}

proptest! {
    #[test]
    fn f64_rounds_to_the_nearest_value(v in wide()) {
        for (dtype, table) in &*VALUES {
            let dtype = *dtype;
            let mut bytes = vec![0; dtype.bits() as usize / 8];
            encode_slice_with(dtype, Overflow::Special, &[v], &mut bytes).unwrap();
            let mut got = [0f64];
            decode_slice(dtype, &bytes, &mut got).unwrap();
            let want = nearest(table, v);
            prop_assert_eq!(got[0], want, "{} of {}", dtype, v);
            prop_assert_eq!(got[0].is_sign_negative(), v.is_sign_negative());
        }
    }

    #[test]
    fn encoding_is_monotonic_and_idempotent(a in finite(), b in finite()) {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        // Powers of two have no sign and no 0.
        for dtype in DType::ALL.into_iter().filter(|d| *d != DType::E8M0) {
            prop_assert!(rounded(dtype, low) <= rounded(dtype, high), "{dtype}");
            let once = rounded(dtype, a);
            if dtype.bits() < 32 {
                prop_assert_eq!(rounded(dtype, once).to_bits(), once.to_bits(), "{}", dtype);
            }
        }
    }

    #[test]
    fn slices_equal_their_elements(x in prop::collection::vec(any::<f32>(), 0..40)) {
        for dtype in DType::ALL {
            let mut bytes = vec![0; dtype.byte_len(x.len() as u64).unwrap() as usize];
            encode_slice(dtype, &x, &mut bytes).unwrap();
            let mut all = vec![0f32; x.len()];
            decode_slice(dtype, &bytes, &mut all).unwrap();
            for (&x, got) in x.iter().zip(all) {
                prop_assert_eq!(rounded(dtype, x).to_bits(), got.to_bits());
            }
        }
    }

    #[test]
    fn quantization_is_monotonic(
        a in finite(), b in finite(), scale in 1e-6f32..1e6, zero in 0i32..8,
    ) {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        for dtype in STORAGES {
            let format = QuantFormat::full(dtype).unwrap();
            let zero = if format.allows_zero(zero) { zero } else { 0 };
            let y = |x| format.dequantize(format.quantize(x, scale, zero), scale, zero);
            prop_assert!(y(low) <= y(high), "{dtype}");
        }
    }

    #[test]
    fn error_is_bounded_by_the_scale(x in prop::collection::vec(-1e3f32..1e3, 1..50)) {
        let (dims, block) = ([x.len()], BlockShape::tensor(1));
        let ints = STORAGES.into_iter().filter(|d| d.is_int() && d.bits() < 32);
        for dtype in ints {
            let format = QuantFormat::full(dtype).unwrap();
            let (min, max) = minmax_nd(&x, &dims, &block).unwrap();
            let (scale, zero) = scale_asymmetric(min[0], max[0], format).unwrap();
            let (scales, zeros) = ([scale], [zero]);
            let params = QuantParams::asymmetric(&scales, &zeros);
            let codes = quantize_nd(&x, &dims, &block, format, params).unwrap();
            let y = dequantize_nd(&codes, &dims, &block, format, params).unwrap();
            for (x, y) in x.iter().zip(y) {
                // Half a step of rounding, and at the ends half a step lost to the rounded zero.
                prop_assert!((x - y).abs() <= scale * 1.01, "{dtype} {x} {y}");
            }
        }
        for range in [Range::Full, Range::Narrow] {
            let format = QuantFormat::new(DType::I8, range).unwrap();
            let absmax = absmax_nd(&x, &dims, &block).unwrap();
            let scales = [scale_symmetric(absmax[0], format.max()).unwrap()];
            let params = QuantParams::symmetric(&scales);
            let codes = quantize_nd(&x, &dims, &block, format, params).unwrap();
            prop_assert!(codes.iter().all(|&c| c != 0x80));
            let y = dequantize_nd(&codes, &dims, &block, format, params).unwrap();
            for (x, y) in x.iter().zip(y) {
                prop_assert!((x - y).abs() <= scales[0] * 0.5001, "{x} {y}");
            }
        }
    }

    /// Half a step of the codes between which a value lies, which for e2m1 and nf4 is at most a
    /// sixth of the range and for e4m3 a sixteenth of the value; what a power of two by `floor`
    /// cuts off comes on top.
    #[test]
    fn error_of_block_formats_is_bounded(x in prop::collection::vec(-1e3f32..1e3, 1..50)) {
        let (dims, block) = ([x.len()], BlockShape::tensor(1));
        let absmax = absmax_nd(&x, &dims, &block).unwrap()[0];
        let back = |dtype, scale: f32| {
            let format = QuantFormat::full(dtype).unwrap();
            let scales = [scale];
            let params = QuantParams::symmetric(&scales);
            let codes = quantize_nd(&x, &dims, &block, format, params).unwrap();
            dequantize_nd(&codes, &dims, &block, format, params).unwrap()
        };
        let off = |y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        for dtype in [DType::E2M1, DType::NF4] {
            let max = QuantFormat::full(dtype).unwrap().max();
            let y = back(dtype, scale_symmetric(absmax, max).unwrap());
            prop_assert!(off(&y) <= absmax * 0.1668, "{dtype}");
        }
        let format = QuantFormat::full(DType::E2M1).unwrap();
        for round in PowerRound::ALL {
            let scale = scale_power(absmax, format, round).unwrap();
            let lost = (absmax - 6.0 * scale).max(0.0);
            prop_assert!(off(&back(DType::E2M1, scale)) <= scale.max(lost) * 1.001, "{round}");
            prop_assert!(round != PowerRound::Ceil || lost == 0.0);
            prop_assert_eq!(scale.to_bits() & 0x7f_ffff, 0);
        }
        let global = scale_global(absmax, format).unwrap();
        let stored = scale_two_level(absmax, format, global).unwrap();
        // The block of the largest value has the greatest scale.
        prop_assert!(absmax == 0.0 || (stored - 448.0).abs() <= 32.0);
        prop_assert!(off(&back(DType::E2M1, stored * global)) <= absmax * 0.19);
    }

    /// Tables against one look-up per element.
    #[test]
    fn tables_equal_their_elements((dims, block, seed) in shapes()) {
        let n: usize = dims.iter().product();
        let blocks = block.scale_count(&dims).unwrap();
        for dtype in [DType::U2, DType::U4, DType::U8] {
            let size = 1usize << dtype.bits();
            let code = |i: usize| (seed.wrapping_mul(i as u64 + 1) >> 13) as usize % size;
            let codes: Vec<f32> = (0..n).map(|i| code(i) as f32).collect();
            let mut bytes = vec![0; dtype.byte_len(n as u64).unwrap() as usize];
            encode_slice(dtype, &codes, &mut bytes).unwrap();
            let tables: Vec<f32> = (0..blocks * size).map(|i| i as f32).collect();
            let y = dequantize_table_nd(&bytes, &dims, &block, dtype, &tables).unwrap();
            for (i, y) in y.iter().enumerate() {
                let (mut rest, mut index) = (i, vec![0; dims.len()]);
                for axis in (0..dims.len()).rev() {
                    (index[axis], rest) = (rest % dims[axis], rest / dims[axis]);
                }
                let b = block.scale_index(&dims, &index).unwrap();
                prop_assert_eq!(*y, (b * size + code(i)) as f32);
            }
        }
    }

    /// The folded run loops against one index computation per element.
    #[test]
    fn tensors_equal_their_elements((dims, block, seed) in shapes()) {
        let n: usize = dims.iter().product();
        let mut state = seed;
        let mut next = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let x: Vec<f32> = (0..n).map(|_| next() * 40.0 - 20.0).collect();
        let blocks = block.scale_count(&dims).unwrap();
        let scales: Vec<f32> = (0..blocks).map(|_| next() + 0.05).collect();
        let zeros: Vec<i32> = (0..blocks).map(|_| (next() * 8.0) as i32).collect();
        let at = |flat: usize| {
            let (mut rest, mut index) = (flat, vec![0; dims.len()]);
            for axis in (0..dims.len()).rev() {
                (index[axis], rest) = (rest % dims[axis], rest / dims[axis]);
            }
            block.scale_index(&dims, &index).unwrap()
        };
        let (mut absmax, mut min) = (vec![0f32; blocks], vec![f32::INFINITY; blocks]);
        let mut max = vec![f32::NEG_INFINITY; blocks];
        for (i, &v) in x.iter().enumerate() {
            let b = at(i);
            (absmax[b], min[b], max[b]) = (absmax[b].max(v.abs()), min[b].min(v), max[b].max(v));
        }
        prop_assert_eq!(absmax_nd(&x, &dims, &block).unwrap(), absmax);
        prop_assert_eq!(minmax_nd(&x, &dims, &block).unwrap(), (min, max));
        for dtype in STORAGES {
            for zeros in [None, Some(&zeros[..])] {
                let format = QuantFormat::full(dtype).unwrap();
                if zeros.is_some_and(|z| z.iter().any(|z| !format.allows_zero(*z))) {
                    continue;
                }
                let params = QuantParams { scales: &scales, zeros };
                let codes = quantize_nd(&x, &dims, &block, format, params).unwrap();
                let y = dequantize_nd(&codes, &dims, &block, format, params).unwrap();
                let mut stored = vec![0f64; n];
                decode_slice(dtype, &codes, &mut stored).unwrap();
                for i in 0..n {
                    let (s, z) = (scales[at(i)], zeros.map_or(0, |z| z[at(i)]));
                    let code = format.quantize(x[i], s, z);
                    prop_assert_eq!(stored[i], format.dequantize(code, 1.0, 0) as f64);
                    prop_assert_eq!(y[i].to_bits(), format.dequantize(code, s, z).to_bits());
                }
            }
        }
    }

    #[test]
    fn block_shapes_print_and_parse(sizes in prop::collection::vec(0u64..300, 0..5)) {
        let block = BlockShape(
            sizes.iter().map(|&n| if n == 0 { Block::All } else { Block::Fixed(n) }).collect(),
        );
        prop_assert_eq!(block.to_string().parse(), Ok(block));
    }
}

/// The formats whose overflow starts half a step past the last value.
static VALUES: LazyLock<Vec<(DType, Values)>> = LazyLock::new(|| {
    [DType::F16, DType::BF16, DType::E5M2]
        .map(|d| (d, values(d)))
        .into()
});

/// Dimensions, a block shape of the same rank, and a seed.
fn shapes() -> impl Strategy<Value = (Vec<usize>, BlockShape, u64)> {
    let axis = (1usize..8, 0u64..9).prop_map(|(dim, block)| match block {
        0 => (dim, Block::All),
        n => (dim, Block::Fixed(n)),
    });
    (prop::collection::vec(axis, 0..5), any::<u64>()).prop_map(|(axes, seed)| {
        let (dims, blocks) = axes.into_iter().unzip();
        (dims, BlockShape(blocks), seed)
    })
}
