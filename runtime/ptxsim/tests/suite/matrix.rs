//! `mma.sync` of every shape against a plain matrix product. The fragment layouts are written here as the
//! ISA states them, element by element, and not as the simulator computes them.

use ptxsim::{Accumulate, Arg, Launch, Memory, Module, Options, Simulator};

#[derive(Clone, Copy, PartialEq, Debug)]
enum E {
    F16,
    Bf16,
    Tf32,
    Fp8,
    Bf8,
    S8,
    U8,
    S4,
    U4,
}

impl E {
    fn bits(self) -> usize {
        match self {
            E::F16 | E::Bf16 => 16,
            E::Tf32 => 32,
            E::Fp8 | E::Bf8 | E::S8 | E::U8 => 8,
            E::S4 | E::U4 => 4,
        }
    }

    fn name(self) -> &'static str {
        [
            "f16", "bf16", "tf32", "e4m3", "e5m2", "s8", "u8", "s4", "u4",
        ][self as usize]
    }

    /// A random code and its value; floats are small integers, exact in every format.
    fn draw(self, r: &mut u64) -> (u32, f64) {
        *r = r
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let v = (*r >> 40) as i64;
        let small = (v % 9 - 4) as f32;
        match self {
            E::F16 => (u32::from(half(small)), f64::from(small)),
            E::Bf16 => (small.to_bits() >> 16, f64::from(small)),
            E::Tf32 => (small.to_bits(), f64::from(small)),
            E::Fp8 => (tiny(small, 7, 3), f64::from(small)),
            E::Bf8 => (tiny(small, 15, 2), f64::from(small)),
            E::S8 => (v as u8 as u32, f64::from(v as i8)),
            E::U8 => (v as u8 as u32, f64::from(v as u8)),
            E::S4 => (v as u32 & 15, f64::from(((v & 15) as i32) << 28 >> 28)),
            E::U4 => (v as u32 & 15, (v & 15) as f64),
        }
    }
}

fn half(x: f32) -> u16 {
    if x == 0.0 {
        return 0;
    }
    let b = x.to_bits();
    ((b >> 16 & 0x8000) | (((b >> 23 & 255) - 112) << 10) | (b >> 13 & 0x3ff)) as u16
}

fn tiny(x: f32, bias: u32, man: u32) -> u32 {
    if x == 0.0 {
        return 0;
    }
    let b = x.to_bits();
    (b >> 24 & 0x80)
        | (((b >> 23 & 255) - 127 + bias) << man)
        | (b >> (23 - man) & ((1 << man) - 1))
}

/// Row and column of element `i` of lane `lane` of A (m × k), as the figures of the ISA say.
fn a_at(m: usize, k: usize, bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let (g, t) = (lane >> 2, lane % 4);
    match (m, k, bits) {
        (16, 16, 16) => {
            let row = if i < 2 || (4..6).contains(&i) {
                g
            } else {
                g + 8
            };
            (row, t * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        (16, 8, 16) => (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1)),
        (16, 4, 32) => (if i == 0 { g } else { g + 8 }, t),
        (16, 8, 32) => (
            if i == 0 || i == 2 { g } else { g + 8 },
            if i < 2 { t } else { t + 4 },
        ),
        (16, 32, 8) => {
            let row = if i < 4 || (8..12).contains(&i) {
                g
            } else {
                g + 8
            };
            (row, t * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
        }
        (16, 16, 8) => (if i < 4 { g } else { g + 8 }, t * 4 + (i & 3)),
        (8, 16, 8) => (g, t * 4 + i),
        (16, 64, 4) => {
            let row = if i < 8 || (16..24).contains(&i) {
                g
            } else {
                g + 8
            };
            (row, t * 8 + (i & 7) + if i >= 16 { 32 } else { 0 })
        }
        (16, 32, 4) => (if i < 8 { g } else { g + 8 }, t * 8 + (i & 7)),
        (8, 32, 4) => (g, t * 8 + i),
        other => panic!("{other:?}"),
    }
}

/// Row and column of element `i` of B (k × 8).
fn b_at(k: usize, bits: usize, lane: usize, i: usize) -> (usize, usize) {
    let (g, t) = (lane >> 2, lane % 4);
    let row = match (k, bits) {
        (16, 16) => t * 2 + (i & 1) + if i >= 2 { 8 } else { 0 },
        (8, 16) => t * 2 + i,
        (4, 32) => t,
        (8, 32) => t + 4 * i,
        (32, 8) => t * 4 + (i & 3) + if i >= 4 { 16 } else { 0 },
        (16, 8) => t * 4 + i,
        (64, 4) => t * 8 + (i & 7) + if i >= 8 { 32 } else { 0 },
        (32, 4) => t * 8 + i,
        other => panic!("{other:?}"),
    };
    (row, g)
}

fn c_at(m: usize, lane: usize, i: usize) -> (usize, usize) {
    let (g, t) = (lane >> 2, lane % 4);
    if m == 8 {
        (g, t * 2 + i)
    } else {
        (if i < 2 { g } else { g + 8 }, t * 2 + (i & 1))
    }
}

struct Shape {
    m: usize,
    k: usize,
    a: E,
    b: E,
    acc: &'static str,
    extra: &'static str,
}

/// Packs elements of each lane into 32-bit registers.
fn pack(n: usize, bits: usize, code: impl Fn(usize, usize) -> u32) -> Vec<u8> {
    let per = 32 / bits;
    let mut out = Vec::new();
    for lane in 0..32 {
        for r in 0..n.div_ceil(per) {
            let word = (0..per).fold(0u32, |w, e| w | code(lane, r * per + e) << (bits * e % 32));
            out.extend(word.to_le_bytes());
        }
    }
    out
}

fn list(prefix: &str, n: usize) -> String {
    let regs: Vec<String> = (0..n).map(|i| format!("{prefix}{i}")).collect();
    format!("{{{}}}", regs.join(","))
}

fn text(s: &Shape, na: usize, nb: usize, nc: usize) -> String {
    let loads = |buf: &str, reg: &str, n: usize| -> String {
        let mut t = format!(
            "ld.param.u64 %rd1, [{buf}];\nmul.wide.u32 %rd2, %t, {};\nadd.u64 %rd3, %rd1, %rd2;\n",
            4 * n
        );
        (0..n).for_each(|i| t += &format!("ld.global.b32 {reg}{i}, [%rd3+{}];\n", 4 * i));
        t
    };
    let order = if s.acc == "s32" {
        format!("row.col{}.s32.{}.{}.s32", s.extra, s.a.name(), s.b.name())
    } else {
        format!("row.col.{0}.{1}.{2}.{0}", s.acc, s.a.name(), s.b.name())
    };
    let mut t = String::from(
        ".version 8.7\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {\n\
         .reg .b32 %a<8>; .reg .b32 %b<8>; .reg .b32 %c<8>; .reg .b32 %t; .reg .b64 %rd<4>;\nmov.u32 %t, %laneid;\n",
    );
    t += &loads("a", "%a", na);
    t += &loads("b", "%b", nb);
    t += &loads("c", "%c", nc);
    t += &format!(
        "mma.sync.aligned.m{}n8k{}.{order} {}, {}, {}, {};\n",
        s.m,
        s.k,
        list("%c", nc),
        list("%a", na),
        list("%b", nb),
        list("%c", nc)
    );
    t += &format!(
        "ld.param.u64 %rd1, [d];\nmul.wide.u32 %rd2, %t, {};\nadd.u64 %rd3, %rd1, %rd2;\n",
        4 * nc
    );
    (0..nc).for_each(|i| t += &format!("st.global.b32 [%rd3+{}], %c{i};\n", 4 * i));
    t + "ret;\n}\n"
}

fn run(s: &Shape, accumulate: Accumulate) {
    let (ka, kb) = (s.m * s.k / 32, s.k * 8 / 32);
    let nc = s.m * 8 / 32;
    let mut seed = (s.m * 1000 + s.k * 10 + s.a as usize) as u64;
    let mut draw = |e: E, n: usize| (0..n).map(|_| e.draw(&mut seed)).collect::<Vec<_>>();
    let (a, b) = (draw(s.a, s.m * s.k), draw(s.b, s.k * 8));
    let c: Vec<i32> = (0..s.m * 8).map(|i| (i as i32 * 37) % 101 - 50).collect();
    let acc_bits = if s.acc == "f16" { 16 } else { 32 };
    let code = |v: f64| match s.acc {
        "s32" => v as i64 as u32,
        "f16" => u32::from(half(v as f32)),
        _ => (v as f32).to_bits(),
    };
    let data_a = pack(ka, s.a.bits(), |l, i| {
        let (r, k) = a_at(s.m, s.k, s.a.bits(), l, i);
        a[r * s.k + k].0
    });
    let data_b = pack(kb, s.b.bits(), |l, i| {
        let (k, n) = b_at(s.k, s.b.bits(), l, i);
        b[k * 8 + n].0
    });
    let data_c = pack(nc, acc_bits, |l, i| {
        let (r, n) = c_at(s.m, l, i);
        code(f64::from(c[r * 8 + n]))
    });
    let want = pack(nc, acc_bits, |l, i| {
        let (r, n) = c_at(s.m, l, i);
        let dot: f64 = (0..s.k).map(|k| a[r * s.k + k].1 * b[k * 8 + n].1).sum();
        code(dot + f64::from(c[r * 8 + n]))
    });
    let regs = |n: usize, bits: usize| n * bits / 32;
    let ptx = text(
        s,
        regs(ka, s.a.bits()),
        regs(kb, s.b.bits()),
        regs(nc, acc_bits),
    );
    let module = Module::parse(&ptx).unwrap_or_else(|e| panic!("{e}\n{ptx}"));
    let mut memory = Memory::new();
    let mut args = Vec::new();
    for data in [&data_a, &data_b, &data_c, &want] {
        let p = memory.alloc(data.len() as u64).unwrap();
        memory.write(p, data).unwrap();
        args.push(Arg::Ptr(p));
    }
    let Arg::Ptr(d) = args[3] else { unreachable!() };
    memory.mark_uninit(d).unwrap();
    let options = Options {
        accumulate,
        ..Options::default()
    };
    Simulator::new(options)
        .launch(
            &module,
            "k",
            &Launch::new([1; 3], [32, 1, 1], args),
            &mut memory,
        )
        .unwrap_or_else(|f| panic!("{f}\n{ptx}"));
    let mut got = vec![0; want.len()];
    memory.read(d, &mut got).unwrap();
    assert_eq!(
        got, want,
        "m{}n8k{} {:?} {:?} {}",
        s.m, s.k, s.a, s.b, s.acc
    );
}

#[test]
fn every_shape_equals_the_plain_product() {
    let s = |m, k, a, b, acc| Shape {
        m,
        k,
        a,
        b,
        acc,
        extra: "",
    };
    let shapes = [
        s(16, 8, E::F16, E::F16, "f32"),
        s(16, 16, E::F16, E::F16, "f32"),
        s(16, 8, E::F16, E::F16, "f16"),
        s(16, 16, E::F16, E::F16, "f16"),
        s(16, 8, E::Bf16, E::Bf16, "f32"),
        s(16, 16, E::Bf16, E::Bf16, "f32"),
        s(16, 4, E::Tf32, E::Tf32, "f32"),
        s(16, 8, E::Tf32, E::Tf32, "f32"),
        s(16, 32, E::Fp8, E::Fp8, "f32"),
        s(16, 32, E::Fp8, E::Bf8, "f32"),
        s(16, 32, E::Bf8, E::Bf8, "f16"),
        s(16, 16, E::Bf8, E::Fp8, "f32"),
        s(8, 16, E::S8, E::S8, "s32"),
        s(16, 16, E::S8, E::U8, "s32"),
        s(16, 32, E::U8, E::S8, "s32"),
        s(16, 32, E::U8, E::U8, "s32"),
        s(8, 32, E::S4, E::S4, "s32"),
        s(16, 32, E::S4, E::U4, "s32"),
        s(16, 64, E::U4, E::S4, "s32"),
        s(16, 64, E::S4, E::S4, "s32"),
    ];
    for shape in &shapes {
        run(shape, Accumulate::Exact);
        run(shape, Accumulate::Hopper);
    }
    run(
        &Shape {
            m: 16,
            k: 32,
            a: E::S8,
            b: E::S8,
            acc: "s32",
            extra: ".satfinite",
        },
        Accumulate::Exact,
    );
}

#[test]
fn shapes_that_do_not_exist_are_refused() {
    for order in [
        "m16n8k16.row.col.f32.bf16.f16.f32",
        "m16n8k16.row.col.bf16.bf16.bf16.bf16",
        "m16n8k32.row.col.f32.f16.f16.f32",
        "m16n8k16.col.row.f32.f16.f16.f32",
        "m16n8k32.row.col.s32.s8.s4.s32",
        "m16n16k16.row.col.f32.f16.f16.f32",
    ] {
        let text = format!(
            ".version 8.0\n.target sm_90\n.address_size 64\n.entry k() {{ .reg .b32 %a<4>;\nmma.sync.aligned.{order} {{%a0,%a1,%a2,%a3}}, {{%a0,%a1,%a2,%a3}}, {{%a0,%a1}}, {{%a0,%a1,%a2,%a3}};\n}}"
        );
        let e = Module::parse(&text).expect_err(order);
        assert_eq!(
            (e.kind, e.pos.line),
            (ptxsim::ParseErrorKind::UnknownModifier, 5),
            "{order}: {e}"
        );
    }
}
