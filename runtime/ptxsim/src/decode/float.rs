//! Float arithmetic and approximate functions.

use super::context::{Cx, Res};
use crate::alu::float::{self, FloatOp, SelectOp};
use crate::alu::half::{self, HalfMods};
use crate::isa::types::{Kind, Ty};
use crate::isa::{CONST, Class, HalfKind, LaneFn, Op, P, R};
use crate::num::approx::Func;
use crate::num::format::{BF16, F32, Format, Rnd, TF32};
use crate::parse::error::ParseErrorKind;

const ZERO: R = CONST;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "add" => arith(cx, FloatOp::Add, 2),
        "sub" => arith(cx, FloatOp::Sub, 2),
        "mul" => arith(cx, FloatOp::Mul, 2),
        "fma" | "mad" => arith(cx, FloatOp::Fma, 3),
        "div" => divide(cx),
        "rcp" => function(cx, Some(FloatOp::Rcp), Func::Rcp),
        "sqrt" => function(cx, Some(FloatOp::Sqrt), Func::Sqrt),
        "rsqrt" => function(cx, None, Func::Rsqrt),
        "ex2" => function(cx, None, Func::Ex2),
        "lg2" => function(cx, None, Func::Lg2),
        "sin" => function(cx, None, Func::Sin),
        "cos" => function(cx, None, Func::Cos),
        "tanh" => function(cx, None, Func::Tanh),
        "abs" => select(cx, SelectOp::Abs),
        "neg" => select(cx, SelectOp::Neg),
        "copysign" => select(cx, SelectOp::Copysign),
        "min" | "max" => extreme(cx),
        "testp" => testp(cx),
        _ => Ok(false),
    }
}

/// Takes a rounding modifier of floats.
fn rounding(cx: &mut Cx<'_, '_>) -> Option<Rnd> {
    cx.one_of(&["rn", "rz", "rm", "rp"]).map(|m| match m {
        "rn" => Rnd::Near,
        "rz" => Rnd::Zero,
        "rm" => Rnd::Down,
        _ => Rnd::Up,
    })
}

fn strict(cx: &Cx<'_, '_>, rnd: Option<Rnd>) -> Res<()> {
    if cx.d.options.require_rounding && rnd.is_none() {
        let text = format!(
            "float `{}` without explicit rounding may be contracted; write `.rn`",
            cx.raw.opcode
        );
        return cx.err(ParseErrorKind::Rounding, text);
    }
    Ok(())
}

fn is_bf16(f: Format) -> bool {
    f == BF16
}

fn class_of(ty: Ty) -> Class {
    match ty.format {
        None => Class::Double,
        Some(F32) => Class::Float,
        Some(_) => Class::Half,
    }
}

fn emit(cx: &mut Cx<'_, '_>, f: Option<LaneFn>, ty: Ty, n: usize) -> Res<bool> {
    let Some(f) = f else { return cx.no_form() };
    cx.count(n + 1..=n + 1)?;
    let d = cx.dst(0, ty.bits)?;
    let mut s = [ZERO; 4];
    for (i, s) in s.iter_mut().enumerate().take(n) {
        *s = cx.src(i + 1, ty)?;
    }
    cx.emit(Op::Alu { f, d, s }, class_of(ty))
}

fn arith(cx: &mut Cx<'_, '_>, op: FloatOp, n: usize) -> Res<bool> {
    let rnd = rounding(cx);
    let (ftz, sat, relu) = (cx.flag("ftz"), cx.flag("sat"), cx.flag("relu"));
    let ty = cx.ty()?;
    strict(cx, rnd)?;
    let near = rnd.unwrap_or(Rnd::Near);
    if ty == crate::isa::types::F32
        && let Some(narrow) = cx.try_ty()
    {
        let plain =
            !ftz && !sat && !relu && matches!(narrow.bits, 16) && narrow.kind == Kind::Float;
        let f = if plain {
            float::mixed(op, narrow.format == Some(BF16), near)
        } else {
            None
        };
        return mixed(cx, f, narrow, op);
    }
    let f = match ty.format {
        None if ftz || sat || relu => None,
        None => Some(float::f64_op(op, near)),
        Some(F32) if relu => None,
        Some(F32) => Some(float::f32_op(op, near, ftz, sat)),
        Some(TF32) => None,
        Some(f)
            if matches!(ty.bits, 16 | 32)
                && ty.bits >= if ty.kind == Kind::Pair { 32 } else { 16 } =>
        {
            if near == Rnd::Near {
                half::arith(
                    op,
                    is_bf16(f),
                    ty.kind == Kind::Pair,
                    HalfMods { ftz, sat, relu },
                )
            } else {
                None
            }
        }
        Some(_) => None,
    };
    emit(cx, f, ty, n)
}

/// `add.f32.f16 d, a, c` and `fma.rn.f32.f16 d, a, b, c`: halves in, f32 accumulated.
fn mixed(cx: &mut Cx<'_, '_>, f: Option<LaneFn>, narrow: Ty, op: FloatOp) -> Res<bool> {
    let Some(f) = f else { return cx.no_form() };
    let n = if op == FloatOp::Fma { 3 } else { 2 };
    cx.count(n + 1..=n + 1)?;
    let d = cx.dst(0, 32)?;
    let mut s = [ZERO; 4];
    for (i, s) in s.iter_mut().enumerate().take(n) {
        *s = cx.src(
            i + 1,
            if i + 1 == n {
                crate::isa::types::F32
            } else {
                narrow
            },
        )?;
    }
    cx.emit(Op::Alu { f, d, s }, Class::Float)
}

fn divide(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let approx = cx.one_of(&["approx", "full"]);
    let Some(mode) = approx else {
        return arith(cx, FloatOp::Div, 2);
    };
    let ftz = cx.flag("ftz");
    let ty = cx.ty()?;
    cx.count(3..=3)?;
    if ty != crate::isa::types::F32 {
        return cx.no_form();
    }
    let f = if mode == "full" {
        Func::DivFull
    } else {
        Func::Div
    };
    let (d, a, b) = (cx.dst(0, 32)?, cx.src(1, ty)?, cx.src(2, ty)?);
    cx.emit(
        Op::Approx {
            f,
            ftz,
            half: None,
            d,
            a,
            b,
        },
        Class::Function,
    )
}

fn function(cx: &mut Cx<'_, '_>, exact: Option<FloatOp>, f: Func) -> Res<bool> {
    if !cx.flag("approx") {
        let Some(op) = exact else {
            return cx.err(
                ParseErrorKind::UnknownModifier,
                format!("`{}` exists only as `.approx`", cx.raw.opcode),
            );
        };
        return arith(cx, op, 1);
    }
    let ftz = cx.flag("ftz");
    let ty = cx.ty()?;
    cx.count(2..=2)?;
    let halves = matches!(f, Func::Tanh | Func::Ex2);
    let half = match ty.format {
        Some(F32) if ty.kind == Kind::Float => None,
        Some(TF32) | None => return cx.no_form(),
        Some(x) if halves && ty.bits >= 16 => Some(HalfKind {
            bf16: is_bf16(x),
            pair: ty.kind == Kind::Pair,
        }),
        Some(_) => return cx.no_form(),
    };
    let (d, a) = (cx.dst(0, ty.bits)?, cx.src(1, ty)?);
    cx.emit(
        Op::Approx {
            f,
            ftz,
            half,
            d,
            a,
            b: ZERO,
        },
        Class::Function,
    )
}

fn select(cx: &mut Cx<'_, '_>, op: SelectOp) -> Res<bool> {
    let ftz = cx.flag("ftz");
    let ty = cx.ty()?;
    let n = if op == SelectOp::Copysign { 2 } else { 1 };
    emit_select(cx, op, ty, ftz, n)
}

fn emit_select(cx: &mut Cx<'_, '_>, op: SelectOp, ty: Ty, ftz: bool, n: usize) -> Res<bool> {
    let f = match ty.format {
        None if !ftz && ty.kind == Kind::Float => float::f64_select(op),
        Some(F32) => Some(float::f32_select(op, ftz)),
        Some(TF32) | None => None,
        Some(_) if op == SelectOp::Copysign => None,
        Some(f) => half::select(op, is_bf16(f), ty.kind == Kind::Pair, ftz),
    };
    emit(cx, f, ty, n)
}

fn extreme(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let (ftz, nan, xorsign) = (cx.flag("ftz"), cx.flag("NaN"), cx.flag("xorsign"));
    if xorsign && !cx.flag("abs") {
        return cx.no_form();
    }
    let ty = cx.ty()?;
    let min = cx.raw.opcode == "min";
    if cx.raw.operands.len() == 4 {
        let op = if min {
            SelectOp::Min3 { nan }
        } else {
            SelectOp::Max3 { nan }
        };
        if ty != crate::isa::types::F32 || xorsign {
            return cx.no_form();
        }
        return emit_select(cx, op, ty, ftz, 3);
    }
    let op = if min {
        SelectOp::Min { nan, xorsign }
    } else {
        SelectOp::Max { nan, xorsign }
    };
    emit_select(cx, op, ty, ftz, 2)
}

fn testp(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let Some(class) = cx.one_of(&[
        "finite",
        "infinite",
        "number",
        "notanumber",
        "normal",
        "subnormal",
    ]) else {
        return cx.no_form();
    };
    let ty = cx.ty()?;
    cx.count(2..=2)?;
    let wide = match ty.format {
        Some(F32) => false,
        None if ty.bits == 64 && ty.is_float() => true,
        _ => return cx.no_form(),
    };
    let Some(f) = float::testp(class, wide) else {
        return cx.no_form();
    };
    let (d, a): (P, R) = (cx.pdst(0)?, cx.src(1, ty)?);
    let c = cx.always();
    cx.emit(
        Op::Setp {
            f,
            d,
            q: 0,
            a,
            b: ZERO,
            join: crate::isa::BoolOp::And,
            c,
        },
        Class::Compare,
    )
}
