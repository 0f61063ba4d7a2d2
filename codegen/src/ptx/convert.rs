//! Conversions that the hardware has. Everything else is legalized away beforehand.
//!
//! The packed forms `cvt….x2` take the upper lane as their first source; lanes here are named
//! from the lowest, so the operands are exchanged in one place ([`Emitter::pairs`]).

use qcc_ir::DType;
use qcc_ir::format::Kind;
use qcc_ir::kernel::{Op, Round, Sat, Stmt, Ty};

use super::emit::{Emitted, Emitter};
use super::regs::{Class, Reg, narrow, suffix};

/// A conversion instruction with what it needs.
struct Row {
    mnemonic: String,
    needs: (u32, u32),
}

fn row(mnemonic: impl Into<String>, version: u32, sm: u32) -> Option<Row> {
    Some(Row {
        mnemonic: mnemonic.into(),
        needs: (version, sm),
    })
}

fn is_fp8(d: DType) -> bool {
    matches!(d, DType::E4M3 | DType::E5M2)
}

/// Scalar conversion between types that have arithmetic.
fn scalar_row(from: DType, to: DType, round: Round, sat: Sat) -> Option<Row> {
    use DType::*;
    // 8-bit floats come in pairs only, 4-bit integers not at all.
    if is_fp8(from) || is_fp8(to) || from.bits() < 8 || to.bits() < 8 {
        return None;
    }
    let sat_word = if sat == Sat::Sat { ".sat" } else { "" };
    let (fk, tk) = (from.kind(), to.kind());
    let name = |d: DType| match d.kind() {
        Kind::Float => d.name().to_string(),
        Kind::Signed => format!("s{}", d.bits()),
        _ => format!("u{}", d.bits()),
    };
    let (f, t) = (name(from), name(to));
    match (fk, tk) {
        (Kind::Float, Kind::Float) => match (from, to) {
            // FP8 is converted in pairs only.
            _ if is_fp8(from) || is_fp8(to) => None,
            // Saturation of floats means the largest finite value, which PTX has for FP8 only.
            _ if sat == Sat::Sat && to.bits() < from.bits() => None,
            (F32, BF16) if matches!(round, Round::Rn | Round::Rz) => {
                row(format!("cvt.{}.bf16.f32", round.name()), 70, 80)
            }
            (BF16, F32) => row("cvt.f32.bf16", 71, 90),
            (BF16, _) | (_, BF16) => None,
            _ if to.bits() > from.bits() => row(format!("cvt.{t}.{f}"), 63, 75),
            _ => row(format!("cvt.{}.{t}.{f}", round.name()), 63, 75),
        },
        // Float to integer clamps by itself.
        (Kind::Float, Kind::Signed | Kind::Unsigned) if from != BF16 => {
            let integral = match round {
                Round::Rn => "rni",
                Round::Rz => "rzi",
                Round::Rm => "rmi",
                Round::Rp => "rpi",
            };
            row(format!("cvt.{integral}.{t}.{f}"), 63, 75)
        }
        (Kind::Signed | Kind::Unsigned, Kind::Float) if to != BF16 => {
            row(format!("cvt.{}.{t}.{f}", round.name()), 63, 75)
        }
        (Kind::Signed | Kind::Unsigned, Kind::Signed | Kind::Unsigned) => {
            row(format!("cvt{sat_word}.{t}.{f}"), 63, 75)
        }
        _ => None,
    }
}

/// Conversion of two lanes at once: f32 pairs to packed 16 or 8 bits, 8 bits to 16 and back.
fn pair_row(from: DType, to: DType, round: Round, sat: Sat) -> Option<Row> {
    use DType::*;
    let rn = round == Round::Rn;
    match (from, to) {
        (F32, F16 | BF16) if sat == Sat::Wrap && matches!(round, Round::Rn | Round::Rz) => {
            row(format!("cvt.{}.{to}x2.f32", round.name()), 70, 80)
        }
        (F32, _) if is_fp8(to) && rn && sat == Sat::Sat => {
            row(format!("cvt.rn.satfinite.{to}x2.f32"), 81, 89)
        }
        (F16, _) if is_fp8(to) && rn && sat == Sat::Sat => {
            row(format!("cvt.rn.satfinite.{to}x2.f16x2"), 81, 89)
        }
        (_, F16) if is_fp8(from) => row(format!("cvt.rn.f16x2.{from}x2"), 81, 89),
        _ => None,
    }
}

impl<'k> Emitter<'k> {
    pub(super) fn convert(&mut self, stmt: &'k Stmt) -> Emitted {
        let Op::Convert { round, sat } = stmt.op else {
            return Ok(());
        };
        let (from, to) = (self.ty(stmt.args[0]), self.ty(stmt.results[0]));
        let (Some(f), Some(t)) = (from.dtype(), to.dtype()) else {
            return self.fail(stmt, "no numbers");
        };
        let same_bits = f.is_int() && t.is_int() && f.bits() == t.bits() && f.bits() >= 32;
        if f == t || (same_bits && sat == Sat::Wrap) {
            let image = self.image(stmt.args[0]);
            self.set(stmt.results[0], image);
            return Ok(());
        }
        if from.lanes() >= 2
            && let Some(row) = pair_row(f, t, round, sat)
        {
            self.needs.need(row.needs.0, row.needs.1);
            return self.pairs(stmt, &row.mnemonic);
        }
        if f == DType::Bool && t.is_int() && t.bits() >= 8 {
            return self.truth(stmt);
        }
        let lanes_apart = |ty: Ty| ty.lanes() == 1 || ty.dtype().is_some_and(|d| d.bits() >= 32);
        match scalar_row(f, t, round, sat) {
            Some(row) if lanes_apart(from) && lanes_apart(to) => {
                self.needs.need(row.needs.0, row.needs.1);
                self.each(stmt, &row.mnemonic)
            }
            _ => self.fail(stmt, "no such conversion"),
        }
    }

    fn each(&mut self, stmt: &'k Stmt, mnemonic: &str) -> Emitted {
        let to = self.ty(stmt.results[0]);
        let source = self.regs(stmt.args[0]);
        let regs = self.define(stmt.results[0]);
        for (reg, from) in regs.into_iter().zip(source) {
            self.line(format!("{mnemonic} {reg}, {from}"));
            // `cvt` to 8 or 16 bits leaves a wider register extended already only for signed
            // results of the same signedness; one more instruction makes it certain.
            if narrow(to).is_some() && suffix(to).is_some() {
                self.extend(to, reg);
            }
        }
        Ok(())
    }

    /// Two lanes for each instruction; 8-bit pairs are 16-bit registers.
    fn pairs(&mut self, stmt: &'k Stmt, mnemonic: &str) -> Emitted {
        let lanes = self.ty(stmt.args[0]).lanes();
        let wide = self.ty(stmt.args[0]).dtype() == Some(DType::F32);
        let source = self.regs(stmt.args[0]);
        let sources = if wide {
            source
        } else {
            self.as_pairs(stmt.args[0], &source)
        };
        let to = self.ty(stmt.results[0]);
        let half = to.dtype().is_some_and(|d| d.bits() == 8);
        let regs = self.define(stmt.results[0]);
        let mut parts = Vec::new();
        for i in 0..usize::from(lanes / 2) {
            let class = if half { Class::Half } else { Class::Word };
            let direct = !half || regs[0].class == Class::Half;
            let reg = if direct { regs[i] } else { self.fresh(class) };
            if wide {
                self.line(format!(
                    "{mnemonic} {reg}, {}, {}",
                    sources[2 * i + 1],
                    sources[2 * i]
                ));
            } else {
                self.line(format!("{mnemonic} {reg}, {}", sources[i]));
            }
            parts.push(reg);
        }
        if half && regs[0].class == Class::Word {
            for (i, reg) in regs.iter().enumerate() {
                self.line(format!(
                    "mov.b32 {reg}, {{{}, {}}}",
                    parts[2 * i],
                    parts[2 * i + 1]
                ));
            }
        }
        Ok(())
    }

    /// The registers of a vector's lane pairs: words of 16-bit lanes, halves of 8-bit lanes.
    fn as_pairs(&mut self, v: qcc_ir::kernel::Value, regs: &[Reg]) -> Vec<Reg> {
        let eight = self.ty(v).dtype().is_some_and(|d| d.bits() == 8);
        if !eight || regs[0].class == Class::Half {
            return regs.to_vec();
        }
        let mut out = Vec::new();
        for from in regs {
            let (low, high) = (self.fresh(Class::Half), self.fresh(Class::Half));
            self.line(format!("mov.b32 {{{low}, {high}}}, {from}"));
            out.extend([low, high]);
        }
        out
    }

    fn truth(&mut self, stmt: &'k Stmt) -> Emitted {
        let preds = self.regs(stmt.args[0]);
        let to = self.ty(stmt.results[0]);
        if to.lanes() > 1 && to.dtype().is_some_and(|d| d.bits() < 32) {
            return self.fail(stmt, "no such conversion");
        }
        for (reg, p) in self.define(stmt.results[0]).into_iter().zip(preds) {
            self.line(format!("selp.{} {reg}, 1, 0, {p}", reg.class.bits()));
        }
        Ok(())
    }
}
