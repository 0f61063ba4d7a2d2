//! `mma.sync` for every element type, and the two accumulation models.
//!
//! Fragments (PTX ISA §9.7.14.5): with e elements to a 32-bit register, g = lane/4 and t = lane mod 4,
//! register r of A holds row g + 8(r mod 2), columns te + 4e(r/2) and on; register r of B holds rows
//! te + 4er and on of column g; C and D hold row g + 8(i/2), columns 2t + (i mod 2).

use super::{Ctx, Res};
use crate::isa::R;
use crate::isa::tensor::{Acc, BlockScale, Elem, Mma, ScaleType, TensorKind};
use crate::launch::Accumulate;
use crate::num::format::{
    E2M1, E2M3, E3M2, E4M3, E5M2, F16, F32, Rnd, bf16_to_f32, f16_to_f32, f32_to_f16, pow2,
};

/// A row of the table of accumulation parameters of the `Hopper` model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Products that are aligned and summed at once.
    pub(crate) block: usize,
    /// Fraction bits kept below the largest exponent; lower bits are cut off.
    pub(crate) bits: i32,
}

/// Accumulation parameters by element and instruction. f16, bf16: 25 fraction bits over 16 products;
/// `mma.sync` of e4m3/e5m2 runs as two f16 instructions, `wgmma` keeps 13 bits over all 32 products.
pub(crate) fn accumulation(elem: Elem, wgmma: bool) -> Unit {
    match (elem, wgmma) {
        (Elem::Tf32, _) => Unit { block: 8, bits: 25 },
        (Elem::E4m3 | Elem::E5m2, true) => Unit {
            block: 32,
            bits: 13,
        },
        _ => Unit {
            block: 16,
            bits: 25,
        },
    }
}

/// Value of an element code.
#[inline]
pub(crate) fn element(elem: Elem, code: u64) -> f64 {
    match elem {
        Elem::F16 => f64::from(f16_to_f32(code as u16)),
        Elem::Bf16 => f64::from(bf16_to_f32(code as u16)),
        // The unit reads the upper 19 bits only.
        Elem::Tf32 => f64::from(f32::from_bits(code as u32 & 0xffff_e000)),
        Elem::E4m3 => E4M3.decode(code as u32 & 0xff),
        Elem::E5m2 => E5M2.decode(code as u32 & 0xff),
        Elem::E3m2 => E3M2.decode(code as u32 & 0x3f),
        Elem::E2m3 => E2M3.decode(code as u32 & 0x3f),
        // Unpacked e2m1 sits in bits 2 to 5 of its byte.
        Elem::E2m1 => E2M1.decode(code as u32 >> 2 & 0xf),
        Elem::S8 => f64::from(code as u8 as i8),
        Elem::U8 => f64::from(code as u8),
        Elem::S4 | Elem::U4 => f64::from(int_element(elem, code)),
        Elem::F64 => f64::from_bits(code),
    }
}

/// Signed 4- and 8-bit elements as integers.
#[inline]
pub(crate) fn int_element(elem: Elem, code: u64) -> i32 {
    match elem {
        Elem::S8 => i32::from(code as u8 as i8),
        Elem::U8 => i32::from(code as u8),
        Elem::S4 => i32::from((code << 4) as u8 as i8) >> 4,
        _ => i32::from(code as u8 & 0xf),
    }
}

/// c + Σ aᵢbᵢ with one rounding to the accumulator at the end.
fn exact(c: f64, a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (x, y) in a.iter().zip(b) {
        sum += x * y;
    }
    sum + c
}

fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// Aligned, truncated sum; the result is a multiple of 2^(largest exponent - bits).
fn aligned(c: f64, a: &[f64], b: &[f64], bits: i32) -> f64 {
    let products = a.iter().zip(b).map(|(x, y)| x * y);
    let (mut top, mut special) = (i32::MIN, c);
    for p in products.clone().chain([c]) {
        if p != 0.0 {
            top = top.max(exponent(p));
        }
        special = if p.is_finite() { special } else { special + p };
    }
    if !special.is_finite() || !c.is_finite() {
        return exact(c, a, b);
    }
    if top == i32::MIN {
        return 0.0;
    }
    let scale = (bits - top).clamp(-1000, 1000);
    let (up, down) = (pow2(scale), pow2(-scale));
    let sum: f64 = products.chain([c]).map(|p| (p * up).trunc()).sum();
    sum * down
}

/// Accumulates one output element over k products.
pub(crate) fn accumulate(
    c: f64,
    a: &[f64],
    b: &[f64],
    acc: Acc,
    unit: Unit,
    model: Accumulate,
) -> f64 {
    let round = |x: f64, rnd: Rnd| match acc {
        Acc::F16 => f64::from(f16_to_f32(f32_to_f16(x as f32))),
        Acc::F32 if rnd == Rnd::Near => f64::from(x as f32),
        Acc::F32 => F32.decode(F32.encode(x, rnd, false)),
        _ => x,
    };
    match model {
        Accumulate::Exact => round(exact(c, a, b), Rnd::Near),
        Accumulate::Hopper => {
            let mut sum = c;
            for (x, y) in a.chunks(unit.block).zip(b.chunks(unit.block)) {
                sum = round(aligned(sum, x, y, unit.bits), Rnd::Zero);
            }
            sum
        }
    }
}

/// Bits of a rounded accumulator.
pub(crate) fn acc_bits(acc: Acc, x: f64) -> u64 {
    match acc {
        Acc::F16 => u64::from(F16.encode(x, Rnd::Near, false)),
        Acc::F32 => u64::from(if x.is_nan() {
            0x7fff_ffff
        } else {
            (x as f32).to_bits()
        }),
        _ => x.to_bits(),
    }
}

impl Ctx<'_, '_> {
    pub(crate) fn mma(&mut self, op: &Mma) -> Res<()> {
        for r in op.a.iter().chain(&op.b).chain(&op.c) {
            self.check_init(*r, u32::MAX)?;
        }
        let (m, k) = (usize::from(op.m), usize::from(op.k));
        if let Some(c) = self.unit.counters.as_deref_mut() {
            let kind = TensorKind::of(op.a_elem, op.scale.as_ref().is_some_and(|s| s.packed));
            c.mma(kind, m as u64 * u64::from(op.n) * k as u64);
        }
        if op.acc == Acc::S32 {
            return self.mma_int(op, m, k);
        }
        let mut a = vec![0.0; m * k];
        let mut b = vec![0.0; 8 * k];
        let packed = op.scale.as_ref().is_some_and(|s| s.packed);
        self.codes(&op.a, op.a_elem, packed, k, true, |row, col, code| {
            a[row * k + col] = value(op.a_elem, packed, code)
        });
        self.codes(&op.b, op.b_elem, packed, k, false, |col, row, code| {
            b[col * k + row] = value(op.b_elem, packed, code)
        });
        if let Some(s) = &op.scale {
            self.apply_scales(s, &mut a, &mut b, k)?;
        }
        let unit = accumulation(op.a_elem, false);
        let model = self.m.options.accumulate;
        self.for_outputs(op, |row, col, c| {
            accumulate(
                c,
                &a[row * k..][..k],
                &b[col * k..][..k],
                op.acc,
                unit,
                model,
            )
        });
        Ok(())
    }

    /// Calls `f(row or column, k, code)` for every element of an operand.
    fn codes(
        &self,
        regs: &[R],
        elem: Elem,
        packed: bool,
        k: usize,
        is_a: bool,
        mut f: impl FnMut(usize, usize, u64),
    ) {
        let bits = if packed { 4 } else { elem.bits() as usize };
        let e = (32 / bits.min(32)).max(1);
        let low = if bits == 64 {
            u64::MAX
        } else {
            (1u64 << bits) - 1
        };
        for (r, reg) in regs.iter().enumerate() {
            let v = self.src(*reg);
            // A of 16 rows alternates between upper and lower rows; A of 8 rows and B do not.
            let tall = is_a && regs.len() * e * 4 > k;
            let (row, col) = if tall { (8 * (r % 2), r / 2) } else { (0, r) };
            for (l, v) in v.iter().enumerate() {
                for i in 0..e {
                    f(
                        row + l / 4,
                        l % 4 * e + col * 4 * e + i,
                        v >> (bits * i) & low,
                    );
                }
            }
        }
    }

    /// Row, column and value of every accumulator element through `f`.
    fn for_outputs(&mut self, op: &Mma, f: impl Fn(usize, usize, f64) -> f64) {
        let one = |i: usize, l: usize, old: f64| {
            acc_bits(op.acc, f(l / 4 + 8 * (i / 2), l % 4 * 2 + i % 2, old))
        };
        for (i, (d, c)) in op.d.iter().zip(&op.c).enumerate() {
            let c = *self.src(*c);
            let out: [u64; 32] = std::array::from_fn(|l| match op.acc {
                Acc::F16 => {
                    let old = |h: u64| f64::from(f16_to_f32(h as u16));
                    one(2 * i, l, old(c[l])) | one(2 * i + 1, l, old(c[l] >> 16)) << 16
                }
                Acc::F32 => one(i, l, f64::from(f32::from_bits(c[l] as u32))),
                _ => one(i, l, f64::from_bits(c[l])),
            });
            self.set(*d, &out, u32::MAX);
        }
    }

    fn mma_int(&mut self, op: &Mma, m: usize, k: usize) -> Res<()> {
        let mut a = vec![0i32; m * k];
        let mut b = vec![0i32; 8 * k];
        self.codes(&op.a, op.a_elem, false, k, true, |row, col, code| {
            a[row * k + col] = int_element(op.a_elem, code)
        });
        self.codes(&op.b, op.b_elem, false, k, false, |col, row, code| {
            b[col * k + row] = int_element(op.b_elem, code)
        });
        for (i, (d, c)) in op.d.iter().zip(&op.c).enumerate() {
            let old = *self.src(*c);
            let out = std::array::from_fn(|l| {
                let (row, col) = (l / 4 + 8 * (i / 2), l % 4 * 2 + i % 2);
                let dot: i64 = a[row * k..][..k]
                    .iter()
                    .zip(&b[col * k..][..k])
                    .map(|(x, y)| i64::from(x * y))
                    .sum();
                u64::from(int_sum(i64::from(old[l] as u32 as i32) + dot, op.saturate))
            });
            self.set(*d, &out, u32::MAX);
        }
        Ok(())
    }

    /// Multiplies A by the scales of its rows and B by those of its columns.
    fn apply_scales(&self, s: &BlockScale, a: &mut [f64], b: &mut [f64], k: usize) -> Res<()> {
        for (which, rows, data) in [(s.a, 16, a), (s.b, 8, b)] {
            let (reg, byte, thread) = which;
            self.check_init(reg, u32::MAX)?;
            let byte = self.uniform(byte, u32::MAX, "scale byte selector")? as usize;
            let thread = self.uniform(thread, u32::MAX, "scale thread selector")? as usize;
            let lanes = self.src(reg);
            for row in 0..rows {
                // Row g's scales sit in lane 4g + 2·thread (A, rows of the lower half one lane on) or 4g + thread (B).
                let lane = if rows == 16 {
                    row % 8 * 4 + (thread & 1) * 2 + row / 8
                } else {
                    row * 4 + (thread & 3)
                };
                for (col, x) in data[row * k..][..k].iter_mut().enumerate() {
                    let which = col * usize::from(s.vec) / k;
                    let code = lanes[lane] >> (8 * (byte + which)) & 0xff;
                    *x *= match s.ty {
                        ScaleType::Ue8m0 if code == 0xff => f64::NAN,
                        ScaleType::Ue8m0 => pow2(code as i32 - 127),
                        ScaleType::Ue4m3 => E4M3.decode(code as u32 & 0x7f),
                    };
                }
            }
        }
        Ok(())
    }
}

fn value(elem: Elem, packed: bool, code: u64) -> f64 {
    if packed {
        E2M1.decode(code as u32)
    } else {
        element(elem, code)
    }
}

/// A 32-bit sum, wrapping or clamped.
pub(crate) fn int_sum(x: i64, saturate: bool) -> u32 {
    if saturate {
        x.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32 as u32
    } else {
        x as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aligned_sum_truncates_what_lies_below() {
        let unit = accumulation(Elem::F16, false);
        let tiny = 2f64.powi(-26);
        let exact = accumulate(
            1.0,
            &[1.0, tiny],
            &[1.0, 1.0],
            Acc::F32,
            unit,
            Accumulate::Exact,
        );
        let hopper = accumulate(
            1.0,
            &[1.0, -tiny],
            &[1.0, 1.0],
            Acc::F32,
            unit,
            Accumulate::Hopper,
        );
        assert_eq!((exact, hopper), (2.0, 2.0));
        let fp8 = accumulation(Elem::E4m3, true);
        let lost = accumulate(4096.0, &[0.25], &[1.0], Acc::F32, fp8, Accumulate::Hopper);
        assert_eq!(lost, 4096.0);
        let kept = accumulate(4096.0, &[0.5], &[1.0], Acc::F32, fp8, Accumulate::Hopper);
        assert_eq!(kept, 4096.5);
        let nan = accumulate(
            0.0,
            &[f64::INFINITY, 1.0],
            &[0.0, 1.0],
            Acc::F32,
            unit,
            Accumulate::Hopper,
        );
        assert!(nan.is_nan());
    }

    #[test]
    fn four_bit_elements_are_signed() {
        assert_eq!(
            (
                int_element(Elem::S4, 0xf),
                int_element(Elem::S4, 7),
                int_element(Elem::U4, 0xf)
            ),
            (-1, 7, 15)
        );
        assert_eq!(
            (
                int_sum(1 << 31, false) as i32,
                int_sum(1 << 31, true) as i32
            ),
            (i32::MIN, i32::MAX)
        );
    }
}
