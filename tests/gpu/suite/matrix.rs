//! Truth tables of tensor-core instructions and of `ldmatrix`.
//!
//! A table has many cases, one for each block; a lane finds its registers of a case side by side
//! in memory. Setting one element of A at a time shows where a fragment's registers lie in the
//! matrix; random small integers show that nothing else is added; sums of one large and one small
//! product show how many bits the accumulator keeps.

use std::fmt::Write;

use crate::forms::{Same, random};
use crate::probe::{Input, Probe, bytes};
use crate::tables::Table;

/// A form of `mma.sync`: registers of A, B, and of C and D.
struct Mma {
    name: &'static str,
    text: &'static str,
    sm: u32,
    version: &'static str,
    a: usize,
    b: usize,
    c: usize,
    /// Bits of an element, and the code of one.
    bits: u32,
    one: u32,
    float: bool,
}

const MMAS: &[Mma] = &[
    Mma {
        name: "mma.m16n8k16.f32.f16",
        text: "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        sm: 80,
        version: "7.0",
        a: 4,
        b: 2,
        c: 4,
        bits: 16,
        one: 0x3c00,
        float: true,
    },
    Mma {
        name: "mma.m16n8k16.f32.bf16",
        text: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        sm: 80,
        version: "7.0",
        a: 4,
        b: 2,
        c: 4,
        bits: 16,
        one: 0x3f80,
        float: true,
    },
    Mma {
        name: "mma.m16n8k32.s32.s8",
        text: "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32",
        sm: 80,
        version: "7.0",
        a: 4,
        b: 2,
        c: 4,
        bits: 8,
        one: 1,
        float: false,
    },
    Mma {
        name: "mma.m16n8k32.s32.u8.s8",
        text: "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32",
        sm: 80,
        version: "7.0",
        a: 4,
        b: 2,
        c: 4,
        bits: 8,
        one: 1,
        float: false,
    },
    Mma {
        name: "mma.m16n8k32.f32.e4m3",
        text: "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32",
        sm: 89,
        version: "8.4",
        a: 4,
        b: 2,
        c: 4,
        bits: 8,
        one: 0x38,
        float: true,
    },
    Mma {
        name: "mma.m16n8k32.f32.e5m2",
        text: "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32",
        sm: 89,
        version: "8.4",
        a: 4,
        b: 2,
        c: 4,
        bits: 8,
        one: 0x3c,
        float: true,
    },
];

/// All tables of this file.
pub(crate) fn tables() -> Vec<Table> {
    let mut out = Vec::new();
    for m in MMAS {
        out.push(m.table("layout", m.one_hot(), Same::Bits));
        if m.float {
            out.push(m.table("accumulator", m.sums(), Same::Accumulator));
        } else {
            out.push(m.table("random", m.noise(), Same::Bits));
        }
    }
    for x in [1, 2, 4] {
        out.push(ldmatrix(x, false));
        out.push(ldmatrix(x, true));
    }
    out
}

/// A, B and C of all cases, as lanes hold them.
type Fragments = (Vec<u32>, Vec<u32>, Vec<u32>);

impl Mma {
    fn table(&self, what: &str, (a, b, c): Fragments, same: Same) -> Table {
        let cases = (c.len() / (32 * self.c)) as u32;
        let out = Input::Memory(vec![0; c.len() * 4]);
        let inputs = [a, b, c].map(|words| Input::Memory(bytes(words)));
        let inputs = inputs.into_iter().chain([out]).collect();
        Table {
            name: format!("{}.{what}", self.name),
            sm: self.sm,
            exact_sm: false,
            probe: Probe {
                grid: [cases, 1, 1],
                ..Probe::block(&self.kernel(), "k", 32, inputs)
            },
            same,
        }
    }

    fn kernel(&self) -> String {
        let mut t = format!(
            ".version {}\n.target sm_{}\n.address_size 64\n\
             .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d)\n{{\n\
             .reg .b64 %rd<12>;\n.reg .b32 %a<8>, %b<8>, %c<8>, %d<8>, %r<8>;\n\
             mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %tid.x;\nmad.lo.u32 %r3, %r1, 32, %r2;\n",
            self.version, self.sm
        );
        for (i, (name, n)) in [("a", self.a), ("b", self.b), ("c", self.c), ("d", self.c)]
            .into_iter()
            .enumerate()
        {
            let _ = writeln!(
                t,
                "ld.param.u64 %rd{i}, [{name}];\nmul.wide.u32 %rd10, %r3, {};\nadd.s64 %rd{i}, %rd{i}, %rd10;",
                n * 4
            );
            for r in 0..n {
                if name != "d" {
                    let _ = writeln!(t, "ld.global.u32 %{name}{r}, [%rd{i}+{}];", r * 4);
                }
            }
        }
        let list = |name: &str, n: usize| {
            let all: Vec<String> = (0..n).map(|r| format!("%{name}{r}")).collect();
            format!("{{{}}}", all.join(", "))
        };
        let (a, b) = (list("a", self.a), list("b", self.b));
        let (c, d) = (list("c", self.c), list("d", self.c));
        let _ = writeln!(t, "{} {d}, {a}, {b}, {c};", self.text);
        for r in 0..self.c {
            let _ = writeln!(t, "st.global.u32 [%rd3+{}], %d{r};", r * 4);
        }
        t + "ret;\n}\n"
    }

    /// Small integers as codes; index 0 is one.
    fn code(&self, i: u32) -> u32 {
        match (self.bits, self.float, self.one) {
            (16, _, 0x3c00) => [
                0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800,
            ][i as usize % 8],
            (16, ..) => [
                0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100,
            ][i as usize % 8],
            (_, true, 0x38) => [0x38, 0x40, 0x44, 0x48, 0x4a, 0x4c, 0x4e, 0x50][i as usize % 8],
            (_, true, _) => [0x3c, 0x40, 0x42, 0x44, 0x45, 0x46, 0x47, 0x48][i as usize % 8],
            _ => i % 127 + 1,
        }
    }

    fn per_word(&self) -> u32 {
        32 / self.bits
    }

    /// One element of A at a time is one; B's elements differ.
    fn one_hot(&self) -> Fragments {
        let cases = 32 * self.a * self.per_word() as usize;
        let mut a = vec![0; cases * 32 * self.a];
        for case in 0..cases {
            let (word, at) = (case as u32 / self.per_word(), case as u32 % self.per_word());
            a[case * 32 * self.a + word as usize] = self.one << (at * self.bits);
        }
        let word = |w: u32| {
            (0..self.per_word())
                .map(|e| self.code(w * 5 + e * 3) << (e * self.bits))
                .sum::<u32>()
        };
        let b: Vec<u32> = (0..32 * self.b as u32).map(word).collect();
        let c = vec![0; cases * 32 * self.c];
        (a, b.repeat(cases), c)
    }

    /// Random words; integers only, whose sums are exact.
    fn noise(&self) -> Fragments {
        let cases = 64;
        let some = |seed, n: usize| random(seed).take(cases * 32 * n).collect();
        (some(1, self.a), some(2, self.b), some(3, self.c))
    }

    /// In each case all elements of A are `2^-case` but the first, which is large, in every row; B
    /// is one: the sum shows which of the small ones survive beside the large one.
    fn sums(&self) -> Fragments {
        let step = match self.one {
            0x3c00 => 1 << 10,
            0x3f80 => 1 << 7,
            0x38 => 1 << 3,
            _ => 1 << 2,
        };
        let fill = |code: u32| (0..self.per_word()).fold(0, |w, e| w | code << (e * self.bits));
        let cases: Vec<(u32, u32)> = (0..6)
            .flat_map(|small| (0..6).map(move |large| (small, large)))
            .collect();
        let (mut a, mut c) = (Vec::new(), Vec::new());
        for (small, large) in &cases {
            let small = self.one - small * step;
            let large = self.one + large * step;
            for i in 0..32 * self.a {
                // The lanes 0, 4, 8 … hold the first columns in their registers 0 and 1.
                let first = (i / self.a).is_multiple_of(4) && i % self.a < 2;
                let mask = (1 << self.bits) - 1;
                let word = fill(small);
                a.push(if first { word & !mask | large } else { word });
            }
            // The accumulator comes in large, with and without bits at the end.
            let bits = |i: usize| [0x4b80_0000, 0x3f80_0001][i % 2];
            c.extend((0..32 * self.c).map(bits));
        }
        let b = vec![fill(self.one); 32 * self.b * cases.len()];
        (a, b, c)
    }
}

/// `ldmatrix` of 1, 2 or 4 matrices, whose rows lie in a shuffled order.
fn ldmatrix(x: usize, transposed: bool) -> Table {
    let trans = if transposed { ".trans" } else { "" };
    let regs: Vec<String> = (0..x).map(|r| format!("%d{r}")).collect();
    let mut text = String::from(
        ".version 7.0\n.target sm_80\n.address_size 64\n.shared .align 128 .b8 tile[2048];\n\
         .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 d)\n{\n\
         .reg .pred %p;\n.reg .b64 %rd<12>;\n.reg .b32 %d<8>, %r<8>;\n\
         ld.param.u64 %rd0, [a];\nld.param.u64 %rd1, [b];\nld.param.u64 %rd2, [d];\n\
         mov.u32 %r1, %tid.x;\nmov.u32 %r2, tile;\nmul.wide.u32 %rd3, %r1, 4;\n\
         add.s64 %rd4, %rd0, %rd3;\nshl.b32 %r3, %r1, 2;\nadd.s32 %r4, %r2, %r3;\n",
    );
    for i in 0..16 {
        let at = i * 128;
        let _ = write!(
            text,
            "ld.global.u32 %r5, [%rd4+{at}];\nst.shared.u32 [%r4+{at}], %r5;\n"
        );
    }
    let _ = write!(
        text,
        "bar.sync 0;\nadd.s64 %rd5, %rd1, %rd3;\nld.global.u32 %r6, [%rd5];\nadd.s32 %r6, %r6, %r2;\n\
         ldmatrix.sync.aligned.m8n8.x{x}{trans}.shared.b16 {{{}}}, [%r6];\n\
         mul.wide.u32 %rd6, %r1, {};\nadd.s64 %rd7, %rd2, %rd6;\n",
        regs.join(", "),
        x * 4
    );
    for r in 0..x {
        let _ = writeln!(text, "st.global.u32 [%rd7+{}], %d{r};", r * 4);
    }
    text += "ret;\n}\n";
    let tile = bytes((0..512).map(|i| (2 * i) | (2 * i + 1) << 16));
    // Rows of 16 bytes in an order without pattern.
    let rows = bytes((0..32).map(|lane| (lane * 37 + 5) % 128 * 16));
    let inputs = vec![
        Input::Memory(tile),
        Input::Memory(rows),
        Input::Memory(vec![0; 32 * x * 4]),
    ];
    let probe = Probe::block(&text, "k", 32, inputs);
    Table {
        name: format!("ldmatrix.x{x}{trans}"),
        sm: 80,
        exact_sm: false,
        probe,
        same: Same::Bits,
    }
}
