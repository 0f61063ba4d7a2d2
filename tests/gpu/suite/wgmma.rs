//! Truth tables of `wgmma`: what shared-memory descriptors and swizzles address.
//!
//! One warpgroup multiplies `A[64, k]` and `B[16, k]`, both with k innermost, from shared memory that
//! is filled with small integers byte for byte as the input says. The product depends on which bytes
//! the descriptor makes the elements of; sums are exact in every accumulation.

use std::fmt::Write;

use crate::forms::{Same, random};
use crate::probe::{Input, Probe, bytes};
use crate::tables::Table;

/// Bytes of each operand's shared memory.
const TILE: usize = 8192;

/// Name, instruction, its operands after the descriptors, codes of small integers, bits.
type Kind = (
    &'static str,
    &'static str,
    &'static str,
    &'static [u32],
    u32,
);

const KINDS: &[Kind] = &[
    (
        "f16",
        "m64n16k16.f32.f16.f16",
        "%p, 1, 1, 0, 0",
        &[0x3c00, 0x4000, 0xbc00, 0x4200, 0, 0xc000, 0x4400],
        16,
    ),
    (
        "e4m3",
        "m64n16k32.f32.e4m3.e4m3",
        "%p, 1, 1",
        &[0x38, 0x40, 0xb8, 0x44, 0, 0xc0, 0x48],
        8,
    ),
    (
        "s8",
        "m64n16k32.s32.s8.s8",
        "%p",
        &[1, 2, 0xff, 3, 0, 0xfe, 100],
        8,
    ),
];

/// Swizzle: its code in the descriptor, its width, and the distances between core matrices along k
/// and along the rows, in bytes.
const LAYOUTS: &[(u32, u32, u32, u32)] = &[
    (0, 0, 128, 256),
    (1, 128, 16, 1024),
    (2, 64, 16, 512),
    (3, 32, 16, 256),
];

/// All tables of this file.
pub(crate) fn tables() -> Vec<Table> {
    let mut out = Vec::new();
    for kind in KINDS {
        for layout in LAYOUTS {
            out.push(table(kind, *layout));
        }
    }
    out
}

fn table(kind: &Kind, (code, width, leading, stride): (u32, u32, u32, u32)) -> Table {
    let (name, _, _, codes, bits) = *kind;
    let fill = |seed: u64| {
        let per_word = 32 / bits;
        let mut picks = random(seed).map(|r| codes[r as usize % codes.len()]);
        let word = |_| (0..per_word).fold(0, |w, e| w | picks.next().unwrap_or(0) << (e * bits));
        Input::Memory(bytes((0..TILE / 4).map(word).collect::<Vec<u32>>()))
    };
    let low = leading >> 4 << 16;
    let high = stride >> 4 | code << 30;
    let inputs = vec![
        fill(21),
        fill(22),
        Input::U32(low),
        Input::U32(high),
        Input::Memory(vec![0; 128 * 8 * 4]),
    ];
    Table {
        name: format!("wgmma.{name}.swizzle{width}"),
        sm: 90,
        exact_sm: true,
        probe: Probe::block(&kernel(kind), "k", 128, inputs),
        same: Same::Bits,
    }
}

fn kernel((_, form, tail, ..): &Kind) -> String {
    let mut t = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n\
         .shared .align 1024 .b8 ta[{TILE}];\n.shared .align 1024 .b8 tb[{TILE}];\n\
         .visible .entry k(.param .u64 a, .param .u64 b, .param .u32 low, .param .u32 high, .param .u64 d)\n{{\n\
         .reg .pred %p;\n.reg .b64 %rd<12>;\n.reg .b32 %d<8>, %r<12>;\n\
         ld.param.u64 %rd0, [a];\nld.param.u64 %rd1, [b];\nld.param.u64 %rd2, [d];\n\
         ld.param.u32 %r0, [low];\nld.param.u32 %r1, [high];\nmov.u32 %r2, %tid.x;\n\
         mul.wide.u32 %rd3, %r2, 4;\nadd.s64 %rd4, %rd0, %rd3;\nadd.s64 %rd5, %rd1, %rd3;\n\
         mov.u32 %r3, ta;\nmov.u32 %r4, tb;\nshl.b32 %r5, %r2, 2;\nadd.s32 %r6, %r3, %r5;\nadd.s32 %r7, %r4, %r5;\n"
    );
    for i in 0..TILE / 512 {
        let at = i * 512;
        let _ = write!(
            t,
            "ld.global.u32 %r8, [%rd4+{at}];\nst.shared.u32 [%r6+{at}], %r8;\n\
             ld.global.u32 %r8, [%rd5+{at}];\nst.shared.u32 [%r7+{at}], %r8;\n"
        );
    }
    t += "fence.proxy.async.shared::cta;\nbar.sync 0;\n";
    for (tile, out) in [("%r3", "%rd6"), ("%r4", "%rd7")] {
        let _ = write!(
            t,
            "and.b32 %r9, {tile}, 0x3ffff;\nshr.u32 %r9, %r9, 4;\nor.b32 %r9, %r9, %r0;\nmov.b64 {out}, {{%r9, %r1}};\n"
        );
    }
    for r in 0..8 {
        let _ = writeln!(t, "mov.b32 %d{r}, 0;");
    }
    let regs: Vec<String> = (0..8).map(|r| format!("%d{r}")).collect();
    let _ = write!(
        t,
        "setp.ne.u32 %p, %r1, 0;\nwgmma.fence.sync.aligned;\n\
         wgmma.mma_async.sync.aligned.{form} {{{}}}, %rd6, %rd7, {tail};\n\
         wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n\
         mul.wide.u32 %rd8, %r2, 32;\nadd.s64 %rd9, %rd2, %rd8;\n",
        regs.join(", ")
    );
    for r in 0..8 {
        let _ = writeln!(t, "st.global.u32 [%rd9+{}], %d{r};", r * 4);
    }
    t + "ret;\n}\n"
}
