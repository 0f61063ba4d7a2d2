//! Names of schemes, and the types that they give.

use super::*;

fn text(q: QuantType) -> String {
    qcc_ir::graph::Elem::Quant(q).to_string()
}

#[test]
fn names() {
    for name in [
        "float",
        "fp8",
        "int8",
        "int4",
        "int4-sym",
        "w4a16",
        "w8a8-g128-asym",
        "w8a8-fp8-block128-dynamic",
        "fp8-e5m2-static",
        "mxfp4-rceil",
        "nvfp4",
        "nf4",
        "lut3",
        "fp8-tensor",
        "fp8-e5m2-tensor-dynamic",
        "int8-tensor-static",
        "int8-block128",
        "w8a8-tensor",
        "w4a16-tensor-asym",
        "w8a8-block128-sym-narrow",
    ] {
        assert_eq!(Scheme::named(name).unwrap().name, name);
    }
    let s = Scheme::named("int8-static").unwrap();
    assert_eq!((s.acts, s.act), (Some(DType::I8), ActMode::Static));
    let bad = [
        "",
        "fp4",
        "float-static",
        "-static",
        "fp8-",
        "int4-static",
        "int4-",
        "int4sym",
        "w5a16",
        "w4a5",
        "mxfp4-",
        "mxfp4-odd",
        "mxfp6",
        "nvfp4-static",
        "lut2",
        "w4a4-static-g32",
        "w4a16-g100",
        "w4a16-g128-",
        "w4a16-",
        "w4a16-g128-odd",
        "w4",
        "w04a16",
        "int4-tensor",
        "nvfp4-tensor",
        "fp8-block128",
        "int8-block64",
        "int8-asym-tensor",
        "w8a8-block64",
        "w8a8-tensor-",
        "w8a8-tensor-g32",
        "w8a8-g32-tensor",
    ];
    for bad in bad {
        assert_eq!(Scheme::named(bad).unwrap_err().code(), "Q0041", "{bad}");
    }
}

#[test]
fn composed_names_say_what_they_mean() {
    let form = |name: &str| {
        let s = Scheme::named(name).unwrap();
        let (spec, _) = s.weights.unwrap().resolved(false);
        let l = spec.levels().unwrap();
        (text(spec.quant_type(2, false)), (l.min, l.max), s.acts)
    };
    let expected = [
        (
            "w4a16-g128-asym",
            "q<u4, [1, 128], scale=f32, zero=u4>",
            (0, 15),
            None,
        ),
        ("w4a16-g32", "q<i4, [1, 32], scale=f32>", (-8, 7), None),
        (
            "w4a16-g32-sym-narrow",
            "q<i4, [1, 32], scale=f32, narrow>",
            (-7, 7),
            None,
        ),
        (
            "w3a16-g64-asym",
            "q<u4, [1, 64], scale=f32, zero=u4>",
            (0, 7),
            None,
        ),
        ("w3a16-sym-full", "q<i4, [1, *], scale=f32>", (-4, 3), None),
        (
            "w8a8-asym",
            "q<u8, [1, *], scale=f32, zero=u8>",
            (0, 255),
            Some(DType::I8),
        ),
        (
            "w4a4-g64-asym",
            "q<u4, [1, 64], scale=f32, zero=u4>",
            (0, 15),
            Some(DType::I4),
        ),
        (
            "w2a16-g64-asym",
            "q<u2, [1, 64], scale=f32, zero=u2>",
            (0, 3),
            None,
        ),
        ("w2a16-sym", "q<i2, [1, *], scale=f32>", (-2, 1), None),
        (
            "w8a8-tensor",
            "q<i8, [*, *], scale=f32>",
            (-128, 127),
            Some(DType::I8),
        ),
        (
            "w4a16-block128-asym",
            "q<u4, [128, 128], scale=f32, zero=u4>",
            (0, 15),
            None,
        ),
    ];
    for (name, ty, levels, acts) in expected {
        assert_eq!(form(name), (ty.to_string(), levels, acts), "{name}");
    }
}

#[test]
fn refinements_have_the_name_of_what_they_are() {
    let refined = |name: &str, size, grid| {
        let s = Scheme::named(name).unwrap().refined(size, grid);
        s.map(|s| s.name).map_err(|e| e.code())
    };
    let sym = Some(Grid::Half);
    assert_eq!(refined("int4", Some(64), None).unwrap(), "w4a16-g64-asym");
    assert_eq!(refined("int4", Some(64), sym).unwrap(), "w4a16-g64-sym");
    assert_eq!(refined("int4", None, sym).unwrap(), "int4-sym");
    assert_eq!(
        refined("int8", Some(128), None).unwrap(),
        "w8a8-g128-sym-narrow"
    );
    assert_eq!(
        refined("int8-tensor", None, sym).unwrap(),
        "w8a8-tensor-sym"
    );
    assert_eq!(
        refined("int8-block128", None, sym).unwrap(),
        "w8a8-block128-sym"
    );
    assert_eq!(
        refined("int8-tensor", Some(32), None).unwrap(),
        "w8a8-g32-sym-narrow"
    );
    assert_eq!(refined("fp8", Some(64), None).unwrap_err(), "Q0041");
    assert_eq!(refined("int4", Some(100), None).unwrap_err(), "Q0041");
    let open = Scheme::named("int4").unwrap().refined(None, sym).unwrap();
    let (spec, name) = open.weights.unwrap().resolved(true);
    assert_eq!(spec.granularity, Granularity::Group(128));
    assert_eq!(name.as_deref(), Some("w4a16-g128-sym"));
}

#[test]
fn fixed_schemes_say_what_they_mean() {
    let expected = [
        ("fp8-e5m2", "q<e5m2, [1, *], scale=f32>"),
        ("w8a8-fp8-block128", "q<e4m3, [128, 128], scale=f32>"),
        ("fp8-tensor", "q<e4m3, [*, *], scale=f32>"),
        ("int8-tensor", "q<i8, [*, *], scale=f32, narrow>"),
        ("int8-block128", "q<i8, [128, 128], scale=f32, narrow>"),
        ("mxfp8", "q<e4m3, [1, 32], scale=e8m0 floor>"),
        ("mxfp4-even", "q<e2m1, [1, 32], scale=e8m0 even>"),
        ("nvfp4", "q<e2m1, [1, 16], scale=e4m3/f32>"),
        ("nf4", "q<nf4, [1, 64], scale=f32>"),
        ("lut4", "q<u4, [1, *], table=f32>"),
        ("lut3", "q<u4, [1, *], table=f32>"),
    ];
    for (name, ty) in expected {
        let s = Scheme::named(name).unwrap();
        let (spec, _) = s.weights.unwrap().resolved(true);
        assert_eq!(text(spec.quant_type(2, false)), ty, "{name}");
    }
}

#[test]
fn types() {
    let i8 = QuantSpec::symmetric(DType::I8, Granularity::Token).quant_type(3, true);
    assert_eq!(text(i8), "q<i8, [1, 1, *], scale=f32, dynamic, narrow>");
    let e4m3 = QuantSpec::symmetric(DType::E4M3, Granularity::Channel).quant_type(4, false);
    assert_eq!(text(e4m3), "q<e4m3, [1, *, *, *], scale=f32>");
    let i4 = QuantSpec::symmetric(DType::I4, Granularity::Token).quant_type(2, true);
    assert_eq!(text(i4), "q<i4, [1, *], scale=f32, dynamic, narrow>");
}

#[test]
fn squares_of_weights_go_with_runs_of_tokens() {
    let of = |name: &str| {
        let s = Scheme::named(name).unwrap();
        (s.act_group, s.prefers_static)
    };
    assert_eq!(of("int8-block128"), (Some(128), false));
    assert_eq!(of("w8a8-fp8-block128"), (Some(128), false));
    assert_eq!(of("w8a8-block128"), (Some(128), false));
    assert_eq!(of("w4a16-block128"), (None, false));
    assert_eq!(of("int8-tensor"), (None, false));
    assert_eq!(of("fp8-tensor"), (None, true));
}
