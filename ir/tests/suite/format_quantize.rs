//! Quantize and dequantize against the ONNX reference evaluator (goldens of
//! `golden/generate.py`), the scale rules, and the refusals.

use qcc_ir::format::{
    Block, BlockShape, DType, FormatError, IntRange, QuantFormat, QuantParams, Range, absmax_nd,
    dequantize_nd, minmax_nd, quantize_nd, scale_asymmetric, scale_symmetric,
};

fn golden(name: &str) -> String {
    let path = format!("{}/tests/golden/format/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn words(line: &str) -> Vec<u32> {
    line.split_whitespace()
        .map(|w| u32::from_str_radix(w, 16).unwrap())
        .collect()
}

fn floats(line: &str) -> Vec<f32> {
    words(line).into_iter().map(f32::from_bits).collect()
}

fn format(dtype: DType, range: Range) -> QuantFormat {
    QuantFormat::new(dtype, range).unwrap()
}

#[test]
fn onnx_quantize_and_dequantize_linear() {
    let text = golden("quantize.txt");
    let mut lines = text.lines();
    let mut cases = 0;
    while let Some(head) = lines.next() {
        let mut field = |name: &str| lines.next().unwrap().strip_prefix(name).unwrap();
        let (x, scales) = (floats(field("x ")), floats(field("scale ")));
        let zeros: Vec<i32> = words(field("zero")).into_iter().map(|w| w as i32).collect();
        let (codes, y) = (field("codes "), floats(field("y ")));
        let part = |from, to| head.split_once(from).unwrap().1.split_once(to).unwrap().0;
        let dims: Vec<usize> = part("dims ", " block")
            .split(' ')
            .map(|d| d.parse().unwrap())
            .collect();
        let block = BlockShape(
            part("block ", " source")
                .split(' ')
                .map(|b| b.parse().unwrap())
                .collect(),
        );
        let range = if head.contains(" narrow ") {
            Range::Narrow
        } else {
            Range::Full
        };
        let format = format(part("case ", " ").parse().unwrap(), range);
        let zeros = (!zeros.is_empty()).then_some(&zeros[..]);
        let params = QuantParams {
            scales: &scales,
            zeros,
        };

        let got = quantize_nd(&x, &dims, &block, format, params).unwrap();
        let hex: String = got.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, codes, "{head}");
        let back = dequantize_nd(&got, &dims, &block, format, params).unwrap();
        // Bits, because the 8-bit floats keep the sign of zero.
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&y), "{head}");
        cases += 1;
    }
    assert_eq!(cases, 125);
}

#[test]
fn asymmetric_scale_is_that_of_dynamic_quantize_linear() {
    for line in golden("dynamic.txt").lines() {
        let (bounds, zero) = line.rsplit_once(' ').unwrap();
        let [min, max, scale] = floats(bounds)[..] else {
            panic!("{line}")
        };
        let got = scale_asymmetric(min, max, format(DType::U8, Range::Full)).unwrap();
        assert_eq!(got, (scale, zero.parse().unwrap()), "{line}");
    }
}

#[test]
fn symmetric_scales_name_their_denominator() {
    assert_eq!(scale_symmetric(127.0, 127.0), Ok(1.0));
    assert_eq!(scale_symmetric(3.0, 7.5), Ok(0.4));
    assert_eq!(scale_symmetric(3.0, 7.0), Ok(3.0 / 7.0));
    assert_eq!(
        scale_symmetric(896.0, format(DType::E4M3, Range::Full).max()),
        Ok(2.0)
    );
    assert_eq!(format(DType::E5M2, Range::Full).max(), 57344.0);
    // All zero, and so small that the quotient vanishes.
    assert_eq!(scale_symmetric(0.0, 127.0), Ok(1.0));
    assert_eq!(scale_symmetric(1e-45, 127.0), Ok(1.0));
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let error = scale_symmetric(bad, 127.0).unwrap_err();
        assert!(
            matches!(error, FormatError::Statistic { what: "absmax", .. }),
            "{error}"
        );
    }
    for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        assert!(matches!(
            scale_symmetric(1.0, bad),
            Err(FormatError::Denominator(_))
        ));
    }
    assert!(matches!(
        scale_symmetric(f32::MAX, 0.5),
        Err(FormatError::Denominator(_))
    ));
}

#[test]
fn asymmetric_scales_hold_zero() {
    let u8 = format(DType::U8, Range::Full);
    assert_eq!(scale_asymmetric(0.0, 0.0, u8), Ok((1.0, 0)));
    assert_eq!(scale_asymmetric(2.0, 255.0, u8), Ok((1.0, 0)));
    assert_eq!(scale_asymmetric(-255.0, -3.0, u8), Ok((1.0, 255)));
    let i4 = format(DType::I4, Range::Narrow);
    assert_eq!(scale_asymmetric(-7.0, 7.0, i4), Ok((1.0, 0)));
    let what = |min, max| match scale_asymmetric(min, max, u8) {
        Err(FormatError::Statistic { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what(f32::NAN, 1.0), "minimum");
    assert_eq!(what(f32::NEG_INFINITY, 1.0), "minimum");
    assert_eq!(what(0.0, f32::NAN), "maximum");
    assert_eq!(what(2.0, 1.0), "range");
    assert_eq!(what(-3e38, 3e38), "range");
    let e4m3 = format(DType::E4M3, Range::Full);
    assert_eq!(
        scale_asymmetric(0.0, 1.0, e4m3),
        Err(FormatError::NotInteger(DType::E4M3))
    );
}

#[test]
fn storages_and_ranges() {
    let range = |dtype, range| format(dtype, range).int_range();
    assert_eq!(
        range(DType::I8, Range::Full),
        Some(IntRange {
            min: -128,
            max: 127
        })
    );
    assert_eq!(
        range(DType::I8, Range::Narrow),
        Some(IntRange {
            min: -127,
            max: 127
        })
    );
    assert_eq!(
        range(DType::I4, Range::Narrow),
        Some(IntRange { min: -7, max: 7 })
    );
    assert_eq!(
        range(DType::U4, Range::Full),
        Some(IntRange { min: 0, max: 15 })
    );
    assert_eq!(range(DType::E4M3, Range::Full), None);
    for dtype in [DType::F16, DType::F32, DType::I64, DType::U32, DType::Bool] {
        assert_eq!(
            QuantFormat::full(dtype),
            Err(FormatError::NotQuantizable(dtype))
        );
    }
    for dtype in [DType::U8, DType::E4M3] {
        let error = QuantFormat::new(dtype, Range::Narrow);
        assert_eq!(error, Err(FormatError::NoNarrowRange(dtype)));
    }
}

#[test]
fn special_inputs() {
    let i8 = format(DType::I8, Range::Full);
    assert_eq!(i8.quantize(f32::INFINITY, 1.0, 0), 127);
    assert_eq!(i8.quantize(f32::NEG_INFINITY, 1.0, 100), -128);
    assert_eq!(i8.quantize(f32::NAN, 1.0, 5), 0);
    assert_eq!(i8.quantize(1.0, 0.0, 5), 127);
    assert_eq!(i8.quantize(0.0, 0.0, 5), 0);
    let e4m3 = format(DType::E4M3, Range::Full);
    assert_eq!(e4m3.quantize(f32::INFINITY, 1.0, 0), 0x7e);
    assert_eq!(e4m3.quantize(f32::NAN, 1.0, 0), 0x7f);
    assert_eq!(e4m3.quantize(-0.0, 1.0, 0), 0x80);
    let i32 = format(DType::I32, Range::Full);
    assert_eq!(i32.quantize(3e9, 1.0, i32::MIN), 852_516_352);
    assert_eq!(i32.quantize(3e9, 1.0, 0), i32::MAX);
    assert_eq!(i32.quantize(-1e30, 1.0, 0), i32::MIN);
    assert_eq!(
        format(DType::I32, Range::Narrow).quantize(-1e30, 1.0, 0),
        -i32::MAX
    );
    assert_eq!(i32.dequantize(i32::MAX, 0.5, i32::MIN), 2_147_483_648.0);
}

#[test]
fn int32_tensors() {
    let i32 = format(DType::I32, Range::Full);
    let block: BlockShape = "[1, *]".parse().unwrap();
    let scales = [0.5, 2.0];
    let params = QuantParams::symmetric(&scales);
    let x = [1e6, -0.25, 3e9, -1.0, 5.0, -9e12];
    let codes = quantize_nd(&x, &[2, 3], &block, i32, params).unwrap();
    let ints: Vec<i32> = codes
        .as_chunks()
        .0
        .iter()
        .map(|&c| i32::from_le_bytes(c))
        .collect();
    assert_eq!(ints, [2_000_000, 0, i32::MAX, 0, 2, i32::MIN]);
    let y = dequantize_nd(&codes, &[2, 3], &block, i32, params).unwrap();
    assert_eq!(y, [1e6, 0.0, 1_073_741_824.0, 0.0, 4.0, -4_294_967_296.0]);
}

#[test]
fn statistics_keep_nan() {
    let x = [
        1.0,
        -3.0,
        f32::NAN,
        2.0,
        -f32::NAN,
        0.0,
        -0.5,
        f32::INFINITY,
    ];
    let block: BlockShape = "[1, *]".parse().unwrap();
    let absmax = absmax_nd(&x, &[4, 2], &block).unwrap();
    assert_eq!(absmax[0], 3.0);
    assert!(absmax[1].is_nan() && absmax[2].is_nan());
    assert_eq!(absmax[3], f32::INFINITY);
    let (min, max) = minmax_nd(&x, &[4, 2], &block).unwrap();
    assert_eq!((min[0], max[0]), (-3.0, 1.0));
    assert!(max[1].is_nan() && min[2].is_nan());
    assert_eq!((min[3], max[3]), (-0.5, f32::INFINITY));
}

#[test]
fn empty_and_scalar_tensors() {
    let u4 = format(DType::U4, Range::Full);
    let none = QuantParams::symmetric(&[]);
    for block in ["[1, *]", "[*, *]", "[*, 4]"] {
        let block: BlockShape = block.parse().unwrap();
        assert_eq!(quantize_nd(&[], &[0, 5], &block, u4, none), Ok(vec![]));
        assert_eq!(dequantize_nd(&[], &[0, 5], &block, u4, none), Ok(vec![]));
        assert_eq!(absmax_nd(&[], &[0, 5], &block), Ok(vec![]));
        assert_eq!(minmax_nd(&[], &[0, 5], &block), Ok((vec![], vec![])));
    }
    let scalar = BlockShape(vec![]);
    let params = QuantParams {
        scales: &[0.5],
        zeros: Some(&[3]),
    };
    assert_eq!(quantize_nd(&[2.0], &[], &scalar, u4, params), Ok(vec![7]));
    assert_eq!(dequantize_nd(&[7], &[], &scalar, u4, params), Ok(vec![2.0]));
    assert_eq!(absmax_nd(&[-2.0], &[], &scalar), Ok(vec![2.0]));
}

#[test]
fn wrong_shapes_and_parameters_are_refused() {
    let i8 = format(DType::I8, Range::Full);
    let block: BlockShape = "[1, *]".parse().unwrap();
    let one = QuantParams::symmetric(&[1.0]);
    let two = QuantParams::symmetric(&[1.0, 1.0]);
    let length = |what, expected, found| {
        Err(FormatError::Length {
            what,
            expected,
            found,
        })
    };
    let x = [0.0; 4];
    let quantize = |x, dims: &[usize], params| quantize_nd(x, dims, &block, i8, params);
    assert_eq!(quantize(&x, &[2, 3], two), length("tensor elements", 6, 4));
    assert_eq!(quantize(&x, &[2, 2], one), length("scales", 2, 1));
    let zeros = QuantParams::asymmetric(&[1.0, 1.0], &[0]);
    assert_eq!(quantize(&x, &[2, 2], zeros), length("zero points", 2, 1));
    assert_eq!(
        quantize(&x, &[4], one),
        Err(FormatError::Rank {
            block: 2,
            tensor: 1
        })
    );
    let huge = [usize::MAX, 2];
    assert_eq!(quantize(&x, &huge, one), Err(FormatError::TooLarge));
    let codes = dequantize_nd(&[0; 3], &[2, 2], &block, i8, two).map(|_| ());
    assert_eq!(
        codes,
        Err(FormatError::Length {
            what: "encoded bytes",
            expected: 4,
            found: 3
        })
    );

    let far = QuantParams::asymmetric(&[1.0, 1.0], &[0, 128]);
    let zero = |storage, zero| Err(FormatError::ZeroPoint { storage, zero });
    assert_eq!(quantize(&x, &[2, 2], far), zero(DType::I8, 128));
    let e4m3 = format(DType::E4M3, Range::Full);
    let shifted = QuantParams::asymmetric(&[1.0, 1.0], &[0, 1]);
    assert_eq!(
        quantize_nd(&x, &[2, 2], &block, e4m3, shifted),
        zero(DType::E4M3, 1)
    );
}

#[test]
fn block_shapes_map_elements_to_scales() {
    let check = |text: &str, dims: &[usize], shape: &[usize], index: &[usize], flat: usize| {
        let block: BlockShape = text.parse().unwrap();
        assert_eq!(block.to_string(), text);
        assert_eq!(block.scale_shape(dims).unwrap(), shape, "{text}");
        assert_eq!(block.scale_index(dims, index), Ok(flat), "{text}");
    };
    check("[*, *]", &[5, 300], &[1, 1], &[4, 299], 0);
    check("[1, *]", &[5, 300], &[5, 1], &[4, 299], 4);
    check("[*, 1]", &[5, 300], &[1, 300], &[4, 299], 299);
    check("[1, 128]", &[5, 300], &[5, 3], &[4, 299], 14);
    check("[128, 128]", &[200, 300], &[2, 3], &[130, 128], 4);
    check("[1, 1, *]", &[2, 7, 9], &[2, 7, 1], &[1, 3, 8], 10);
    check("[]", &[], &[], &[], 0);
    assert_eq!(BlockShape::row(3).to_string(), "[1, 1, *]");
    assert_eq!(BlockShape::group(2, 128).to_string(), "[1, 128]");
    assert_eq!(BlockShape::axis(3, 1).to_string(), "[*, 1, *]");
    assert_eq!(BlockShape::tensor(2).to_string(), "[*, *]");
    assert_eq!("*".parse(), Ok(Block::All));

    let block = BlockShape::row(2);
    let index = FormatError::Index {
        axis: 1,
        index: 3,
        extent: 3,
    };
    assert_eq!(block.scale_index(&[2, 3], &[1, 3]), Err(index));
    let rank = FormatError::Rank {
        block: 2,
        tensor: 1,
    };
    assert_eq!(block.scale_index(&[2, 3], &[1]), Err(rank));
    for text in [
        "", "1, *", "[1, *", "[0]", "[-1]", "[+1]", "[1,,2]", "[x]", "[1,]",
    ] {
        let error = text.parse::<BlockShape>().unwrap_err();
        assert_eq!(error, FormatError::BlockSyntax(text.into()));
    }
}
