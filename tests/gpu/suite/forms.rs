//! The forms of scalar instructions that have a truth table, and their inputs.

/// How the GPU's answers are compared with the simulator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Same {
    /// Bit for bit.
    Bits,
    /// Within the error that the manual states.
    Between,
    /// Bit for bit with one of the models of tensor-core accumulation; which one is reported.
    Accumulator,
}

/// `%y` from `%x` and `%z`, 32 bits each.
pub(crate) struct Form {
    pub(crate) name: &'static str,
    pub(crate) sm: u32,
    pub(crate) body: &'static str,
    pub(crate) inputs: fn() -> (Vec<u32>, Vec<u32>),
    pub(crate) same: Same,
}

const fn form(
    name: &'static str,
    sm: u32,
    body: &'static str,
    inputs: fn() -> (Vec<u32>, Vec<u32>),
) -> Form {
    Form {
        name,
        sm,
        body,
        inputs,
        same: Same::Bits,
    }
}

const fn approx(name: &'static str, body: &'static str) -> Form {
    Form {
        name,
        sm: 80,
        body,
        inputs: one_float,
        same: Same::Between,
    }
}

/// The table of forms.
pub(crate) const FORMS: &[Form] = &[
    form(
        "cvt.rn.f16.f32",
        80,
        "cvt.rn.f16.f32 %h0, %x;\ncvt.u32.u16 %y, %h0;",
        one_float,
    ),
    form(
        "cvt.rn.bf16.f32",
        80,
        "cvt.rn.bf16.f32 %h0, %x;\ncvt.u32.u16 %y, %h0;",
        one_float,
    ),
    form(
        "cvt.f32.f16",
        80,
        "cvt.u16.u32 %h0, %x;\ncvt.f32.f16 %y, %h0;",
        every_half,
    ),
    form(
        "cvt.rn.f16x2.f32",
        80,
        "cvt.rn.f16x2.f32 %y, %x, %z;",
        two_floats,
    ),
    form(
        "cvt.rn.bf16x2.f32",
        80,
        "cvt.rn.bf16x2.f32 %y, %x, %z;",
        two_floats,
    ),
    form("cvt.rni.s32.f32", 80, "cvt.rni.s32.f32 %y, %x;", one_float),
    form("cvt.rzi.s32.f32", 80, "cvt.rzi.s32.f32 %y, %x;", one_float),
    form("cvt.rmi.s32.f32", 80, "cvt.rmi.s32.f32 %y, %x;", one_float),
    form("cvt.rni.f32.f32", 80, "cvt.rni.f32.f32 %y, %x;", one_float),
    form("cvt.rn.f32.s32", 80, "cvt.rn.f32.s32 %y, %x;", one_float),
    form(
        "cvt.rn.satfinite.e4m3x2.f32",
        89,
        "cvt.rn.satfinite.e4m3x2.f32 %h0, %x, %z;\ncvt.u32.u16 %y, %h0;",
        two_floats,
    ),
    form(
        "cvt.rn.satfinite.e5m2x2.f32",
        89,
        "cvt.rn.satfinite.e5m2x2.f32 %h0, %x, %z;\ncvt.u32.u16 %y, %h0;",
        two_floats,
    ),
    form(
        "cvt.rn.satfinite.e4m3x2.f16x2",
        89,
        "cvt.rn.satfinite.e4m3x2.f16x2 %h0, %x;\ncvt.u32.u16 %y, %h0;",
        every_half,
    ),
    form(
        "cvt.rn.f16x2.e4m3x2",
        89,
        "cvt.u16.u32 %h0, %x;\ncvt.rn.f16x2.e4m3x2 %y, %h0;",
        every_half,
    ),
    form(
        "cvt.rn.f16x2.e5m2x2",
        89,
        "cvt.u16.u32 %h0, %x;\ncvt.rn.f16x2.e5m2x2 %y, %h0;",
        every_half,
    ),
    form("add.rn.f32", 80, "add.rn.f32 %y, %x, %z;", two_floats),
    form("mul.rn.f32", 80, "mul.rn.f32 %y, %x, %z;", two_floats),
    form("fma.rn.f32", 80, "fma.rn.f32 %y, %x, %z, %x;", two_floats),
    form("div.rn.f32", 80, "div.rn.f32 %y, %x, %z;", two_floats),
    form("sqrt.rn.f32", 80, "sqrt.rn.f32 %y, %x;", one_float),
    form("rcp.rn.f32", 80, "rcp.rn.f32 %y, %x;", one_float),
    form("min.f32", 80, "min.f32 %y, %x, %z;", two_floats),
    form("max.f32", 80, "max.f32 %y, %x, %z;", two_floats),
    form("min.NaN.f32", 80, "min.NaN.f32 %y, %x, %z;", two_floats),
    form("max.NaN.f32", 80, "max.NaN.f32 %y, %x, %z;", two_floats),
    form("add.rn.f16x2", 80, "add.rn.f16x2 %y, %x, %z;", two_words),
    form("mul.rn.f16x2", 80, "mul.rn.f16x2 %y, %x, %z;", two_words),
    form(
        "fma.rn.f16x2",
        80,
        "fma.rn.f16x2 %y, %x, %z, %x;",
        two_words,
    ),
    form(
        "fma.rn.bf16x2",
        80,
        "fma.rn.bf16x2 %y, %x, %z, %x;",
        two_words,
    ),
    form("min.f16x2", 80, "min.f16x2 %y, %x, %z;", two_words),
    form("max.NaN.f16x2", 80, "max.NaN.f16x2 %y, %x, %z;", two_words),
    form(
        "prmt.b32",
        80,
        "prmt.b32 %y, %x, 0x89abcdef, %z;",
        two_words,
    ),
    form(
        "lop3.b32.ea",
        80,
        "lop3.b32 %y, %x, %z, 0x0f0f00ff, 0xea;",
        two_words,
    ),
    form(
        "lop3.b32.96",
        80,
        "lop3.b32 %y, %x, %z, 0x0f0f00ff, 0x96;",
        two_words,
    ),
    form("dp4a.s32.s32", 80, "dp4a.s32.s32 %y, %x, %z, 7;", two_words),
    form(
        "dp4a.u32.s32",
        80,
        "dp4a.u32.s32 %y, %x, %z, -7;",
        two_words,
    ),
    form(
        "shf.l.wrap.b32",
        80,
        "shf.l.wrap.b32 %y, %x, 0x89abcdef, %z;",
        two_words,
    ),
    form(
        "shf.r.wrap.b32",
        80,
        "shf.r.wrap.b32 %y, %x, 0x89abcdef, %z;",
        two_words,
    ),
    form("bfe.s32", 80, "bfe.s32 %y, %x, %z, 5;", two_words),
    form("mul.hi.u32", 80, "mul.hi.u32 %y, %x, %z;", two_words),
    approx("ex2.approx.f32", "ex2.approx.f32 %y, %x;"),
    approx("lg2.approx.f32", "lg2.approx.f32 %y, %x;"),
    approx("rcp.approx.f32", "rcp.approx.f32 %y, %x;"),
    approx("sqrt.approx.f32", "sqrt.approx.f32 %y, %x;"),
    approx("rsqrt.approx.f32", "rsqrt.approx.f32 %y, %x;"),
    approx("tanh.approx.f32", "tanh.approx.f32 %y, %x;"),
];

/// A sequence without pattern, the same on every machine.
pub(crate) fn random(mut seed: u64) -> impl Iterator<Item = u32> {
    std::iter::repeat_with(move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 16) as u32
    })
}

/// Every sign and exponent with the fractions at which roundings to fewer bits change: just below,
/// at, and just above each tie, and some others.
fn floats() -> Vec<u32> {
    let mut fractions = vec![0, 1, 0x7f_ffff, 0x55_5555, 0x2a_aaaa];
    for keep in [2, 3, 7, 10] {
        let tie = 1 << (22 - keep);
        for odd in [0, 2 * tie] {
            fractions.extend([odd + tie - 1, odd + tie, odd + tie + 1]);
        }
    }
    let mut out = Vec::new();
    for sign in [0, 1 << 31] {
        for exponent in 0..256 {
            out.extend(fractions.iter().map(|f| sign | exponent << 23 | f));
        }
    }
    out.extend(random(7).take(2048));
    out
}

fn one_float() -> (Vec<u32>, Vec<u32>) {
    let x = floats();
    let z = vec![0; x.len()];
    (x, z)
}

/// Each float beside a distant one, and beside one of nearly the same size.
fn two_floats() -> (Vec<u32>, Vec<u32>) {
    let x = floats();
    let far = x.iter().cycle().skip(x.len() / 3).take(x.len());
    let near = x.iter().zip(random(11)).map(|(x, r)| x ^ (r & 0x80ff_ffff));
    let z = far.copied().chain(near).collect();
    ([x.clone(), x].concat(), z)
}

/// All 16-bit patterns, each with its complement in the upper half.
fn every_half() -> (Vec<u32>, Vec<u32>) {
    let x: Vec<u32> = (0..0x1_0000u32).map(|h| h | (!h & 0xffff) << 16).collect();
    let z = vec![0; x.len()];
    (x, z)
}

/// Random words, and pairs of special 16-bit floats.
fn two_words() -> (Vec<u32>, Vec<u32>) {
    const SPECIAL: [u32; 12] = [
        0, 0x8000, 1, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x7fff,
    ];
    let pairs = SPECIAL
        .iter()
        .flat_map(|a| SPECIAL.iter().map(move |b| (*a, *b)));
    let (mut x, mut z): (Vec<u32>, Vec<u32>) =
        pairs.map(|(a, b)| (a | b << 16, b | a << 16)).unzip();
    x.extend(random(3).take(8192));
    z.extend(random(5).take(8192));
    (x, z)
}
