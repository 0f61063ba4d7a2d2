//! Conversions from and to 4-bit integers, eight in a word.

use qcc_ir::DType;
use qcc_ir::kernel::{KernelBuilder, Op, Sat, Value};

use super::Site;
use super::lanes::{from_words, words};

const fn is_nibble(d: DType) -> bool {
    matches!(d, DType::I4 | DType::U4)
}

/// Replaces a conversion from or to i4 or u4.
pub(super) fn convert(k: &mut KernelBuilder, site: &Site) -> Option<Value> {
    let Op::Convert { sat, .. } = site.op else {
        return None;
    };
    let v = site.args[0];
    let (from, to) = (k.ty(v).dtype()?, site.to[0].dtype()?);
    if is_nibble(from) {
        let lanes = unpacked(k, v, from);
        let to = site.to[0].with_lanes(1);
        if is_nibble(to.dtype()?) {
            // From one to the other: through 32 bits, which the lines below take.
            let wide = k.pack(&lanes);
            return Some(k.op(site.op, &[wide], &[site.to[0]])[0]);
        }
        let out: Vec<Value> = lanes
            .into_iter()
            .map(|lane| {
                if k.ty(lane) == to {
                    lane
                } else {
                    k.op(site.op, &[lane], &[to])[0]
                }
            })
            .collect();
        return Some(k.pack(&out));
    }
    if is_nibble(to) {
        return Some(packed(k, site, from, to, sat));
    }
    None
}

/// The lanes as 32-bit integers.
fn unpacked(k: &mut KernelBuilder, v: Value, from: DType) -> Vec<Value> {
    let lanes = usize::from(k.ty(v).lanes());
    let mut out = Vec::new();
    for word in words(k, v) {
        for i in 0..8u32.min(lanes as u32) {
            out.push(if from == DType::U4 {
                let low = k.shr_imm(word, 4 * i);
                k.and_imm(low, 15)
            } else {
                let high = k.shl_imm(word, 28 - 4 * i);
                let high = k.cvt(high, DType::I32);
                k.shr_imm(high, 28)
            });
        }
    }
    out
}

fn packed(k: &mut KernelBuilder, site: &Site, from: DType, to: DType, sat: Sat) -> Value {
    let (low, high) = if to == DType::I4 { (-8, 7) } else { (0, 15) };
    let clamps = from.is_float() || sat == Sat::Sat;
    // Clamping in i32 is the same as clamping at once: i32 holds the range.
    let to_i32 = match site.op {
        Op::Convert { round, .. } => Op::Convert {
            round,
            sat: if clamps { Sat::Sat } else { Sat::Wrap },
        },
        op => op,
    };
    let mut out = Vec::new();
    for eight in k.lanes(site.args[0]).chunks(8) {
        let mut word = k.u32(0);
        for (i, &lane) in eight.iter().enumerate() {
            let mut v = k.op(to_i32, &[lane], &[DType::I32.into()])[0];
            if clamps {
                let (low, high) = (k.i32(low), k.i32(high));
                let above = k.max(v, low);
                v = k.min(above, high);
            }
            let v = k.cvt(v, DType::U32);
            let v = k.and_imm(v, 15);
            let v = k.shl_imm(v, 4 * i as u32);
            word = k.or(word, v);
        }
        out.push(word);
    }
    from_words(k, &out, site.to[0])
}
