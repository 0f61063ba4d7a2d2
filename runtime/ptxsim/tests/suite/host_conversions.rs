//! Conversions equal the host code of NVIDIA's headers: `host/convert.cc` says over which inputs, and
//! `host/goldens.txt` has a hash of the results of each block of them (`host/generate.sh` writes it).

use std::collections::BTreeMap;

use ptxsim::{Arg, Launch, Memory, Module, Options, Simulator};

/// Results of one conversion, in the order of the inputs, and their size in bytes.
struct Column {
    name: &'static str,
    bytes: usize,
    blocks: usize,
    data: Vec<u8>,
}

/// One thread to an input of `size` bytes; each conversion leaves its result in `%r2` from `%r1`.
fn convert(
    size: usize,
    inputs: &[u8],
    blocks: usize,
    conversions: &[(&'static str, usize, &str)],
) -> Vec<Column> {
    let n = inputs.len() / size;
    let mut body = String::new();
    let mut params = String::new();
    for (i, (_, bytes, code)) in conversions.iter().enumerate() {
        params += &format!(", .param .u64 o{i}");
        body += &format!(
            "{{ {code} ld.param.u64 %d2, [o{i}]; mul.wide.u32 %d3, %r3, {bytes}; add.u64 %d2, %d2, %d3; st.global.b{} [%d2], %r2; }}\n",
            8 * bytes
        );
    }
    let text = format!(
        ".version 8.1\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 x{params})\n{{\n\
         .reg .b32 %r<9>; .reg .b64 %d<9>; .reg .b16 %h<9>;\n\
         mov.u32 %r4, %ctaid.x; mov.u32 %r5, %tid.x; mad.lo.u32 %r3, %r4, 256, %r5;\n\
         ld.param.u64 %d1, [x]; mul.wide.u32 %d3, %r3, {size}; add.u64 %d1, %d1, %d3;\n\
         ld.global.u{} %r1, [%d1]; cvt.u16.u32 %h1, %r1; mov.b16 %h0, 0;\n{body}ret;\n}}",
        8 * size
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut memory = Memory::new();
    let x = memory.alloc(inputs.len() as u64).expect("memory");
    memory.write(x, inputs).expect("in bounds");
    let mut args = vec![Arg::Ptr(x)];
    let outputs: Vec<_> = conversions
        .iter()
        .map(|(_, bytes, _)| memory.alloc((n * bytes) as u64).expect("memory"))
        .collect();
    args.extend(outputs.iter().map(|p| Arg::Ptr(*p)));
    let launch = Launch::new([n as u32 / 256, 1, 1], [256, 1, 1], args);
    Simulator::new(Options::fast())
        .launch(&module, "k", &launch, &mut memory)
        .expect("no fault");
    let column = |(p, (name, bytes, _)): (_, &(&'static str, usize, &str))| {
        let mut data = vec![0; n * bytes];
        memory.read(p, &mut data).expect("in bounds");
        Column {
            name,
            bytes: *bytes,
            blocks,
            data,
        }
    };
    outputs.into_iter().zip(conversions).map(column).collect()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Asserts that every block of every column has its golden hash.
fn check(columns: &[Column]) {
    let goldens: BTreeMap<(&str, usize), u64> = include_str!("../host/goldens.txt")
        .lines()
        .map(|l| {
            let w: Vec<&str> = l.split(' ').collect();
            let hash = u64::from_str_radix(w[2], 16).expect("a hash");
            ((w[0], w[1].parse().expect("a block")), hash)
        })
        .collect();
    for c in columns {
        let size = c.data.len() / c.blocks;
        assert_eq!(size % c.bytes, 0);
        for (i, block) in c.data.chunks(size).enumerate() {
            assert_eq!(
                goldens.get(&(c.name, i)),
                Some(&fnv1a(block)),
                "{} block {i}",
                c.name
            );
        }
    }
}

#[test]
fn conversions_of_f32() {
    const LOWS: [u32; 16] = [
        0, 1, 0x0fff, 0x1000, 0x1001, 0x2000, 0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000, 0x8001,
        0xefff, 0xf000, 0xf001, 0xffff,
    ];
    let inputs: Vec<u8> = (0..1u32 << 16)
        .flat_map(|high| LOWS.map(|low| high << 16 | low))
        .flat_map(u32::to_le_bytes)
        .collect();
    let half = |name, round: &'static str| (name, 2, round);
    let columns = convert(
        4,
        &inputs,
        64,
        &[
            (
                "f32_e4m3",
                1,
                "cvt.rn.satfinite.e4m3x2.f32 %h2, 0f00000000, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            (
                "f32_e5m2",
                1,
                "cvt.rn.satfinite.e5m2x2.f32 %h2, 0f00000000, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            half(
                "f32_f16_rn",
                "cvt.rn.f16.f32 %h2, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            half(
                "f32_f16_rz",
                "cvt.rz.f16.f32 %h2, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            half(
                "f32_f16_rm",
                "cvt.rm.f16.f32 %h2, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            half(
                "f32_f16_rp",
                "cvt.rp.f16.f32 %h2, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            half(
                "f32_bf16_rn",
                "cvt.rn.bf16.f32 %h2, %r1; cvt.u32.u16 %r2, %h2;",
            ),
            half(
                "f32_bf16_rz",
                "cvt.rz.bf16.f32 %h2, %r1; cvt.u32.u16 %r2, %h2;",
            ),
        ],
    );
    check(&columns);
}

#[test]
fn conversions_of_f16() {
    let inputs: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut columns = convert(
        2,
        &inputs,
        64,
        &[
            (
                "f16_e4m3",
                1,
                "mov.b32 %r6, {%h1, %h0}; cvt.rn.satfinite.e4m3x2.f16x2 %h2, %r6; cvt.u32.u16 %r2, %h2;",
            ),
            (
                "f16_e5m2",
                1,
                "mov.b32 %r6, {%h1, %h0}; cvt.rn.satfinite.e5m2x2.f16x2 %h2, %r6; cvt.u32.u16 %r2, %h2;",
            ),
            ("f16_f32", 4, "cvt.f32.f16 %r2, %h1;"),
        ],
    );
    // A NaN's payload is nobody's promise.
    for word in columns[2].data.chunks_mut(4) {
        let v = f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        if v.is_nan() {
            word.copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        }
    }
    check(&columns);
}

#[test]
fn conversions_of_8_bit_floats() {
    let inputs: Vec<u8> = (0..=255).collect();
    let columns = convert(
        1,
        &inputs,
        1,
        &[
            ("e4m3_f16", 2, "cvt.rn.f16x2.e4m3x2 %r2, %h1;"),
            ("e5m2_f16", 2, "cvt.rn.f16x2.e5m2x2 %r2, %h1;"),
        ],
    );
    check(&columns);
}
