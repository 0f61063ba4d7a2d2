//! Integer, logic and bit instructions; float types of the same names go to [`super::float`].

use super::context::{Cx, Res};
use crate::alu::int::{self, BitOp, IntOp, Prmt};
use crate::isa::types::{B32, Kind, Ty, U32};
use crate::isa::{CONST, CarryOp, Class, LaneFn, Op, R};

const ZERO: R = CONST;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let float = cx
        .raw
        .mods
        .iter()
        .any(|m| Ty::named(&m.text).is_some_and(Ty::is_float));
    match cx.raw.opcode.as_str() {
        "add" | "sub" | "mul" | "mad" | "div" | "rem" | "abs" | "neg" | "min" | "max" if float => {
            Ok(false)
        }
        "add" => sum(cx, IntOp::Add, CarryOp::Add),
        "sub" => sum(cx, IntOp::Sub, CarryOp::Sub),
        "addc" => carry(cx, CarryOp::Add, true),
        "subc" => carry(cx, CarryOp::Sub, true),
        "mul" => product(cx, [IntOp::MulLo, IntOp::MulHi, IntOp::MulWide], 2),
        "mad" => mad(cx),
        "madc" => carry_mad(cx, true),
        "mul24" | "mad24" => mul24(cx),
        "sad" => simple(cx, IntOp::Sad, 3),
        "div" => simple(cx, IntOp::Div, 2),
        "rem" => simple(cx, IntOp::Rem, 2),
        "abs" => simple(cx, IntOp::Abs, 1),
        "neg" => simple(cx, IntOp::Neg, 1),
        "min" => extreme(cx, IntOp::Min),
        "max" => extreme(cx, IntOp::Max),
        "and" => logic(cx, IntOp::And),
        "or" => logic(cx, IntOp::Or),
        "xor" => logic(cx, IntOp::Xor),
        "not" => logic(cx, IntOp::Not),
        "cnot" => simple(cx, IntOp::Cnot, 1),
        "shl" => shift(cx, IntOp::Shl),
        "shr" => shift(cx, IntOp::Shr),
        "shf" => funnel(cx),
        "popc" => count_bits(cx, BitOp::Popc),
        "clz" => count_bits(cx, BitOp::Clz),
        "brev" => bits(cx, BitOp::Brev, 1),
        "bfe" => field(cx, BitOp::Bfe),
        "bfi" => field(cx, BitOp::Bfi),
        "bfind" => bfind(cx),
        "lop3" => lop3(cx),
        "prmt" => prmt(cx),
        "dp4a" => dp4a(cx),
        "dp2a" => dp2a(cx),
        "szext" | "bmsk" => clamp_or_wrap(cx),
        "fns" => {
            cx.flag("b32");
            cx.count(4..=4)?;
            let f = int::bit_op(BitOp::Fns, B32);
            alu(cx, f, &[B32, U32, U32], 32)
        }
        _ => Ok(false),
    }
}

/// Emits a lane function whose sources have the given types.
pub(super) fn alu(cx: &mut Cx<'_, '_>, f: Option<LaneFn>, srcs: &[Ty], dst_bits: u32) -> Res<bool> {
    let Some(f) = f else { return cx.no_form() };
    let d = cx.dst(0, dst_bits)?;
    let mut s = [ZERO; 4];
    for (i, ty) in srcs.iter().enumerate() {
        s[i] = cx.src(i + 1, *ty)?;
    }
    cx.emit(Op::Alu { f, d, s }, Class::Integer)
}

fn int_ty(cx: &mut Cx<'_, '_>) -> Res<Ty> {
    let ty = cx.ty()?;
    if !ty.is_int() || ty.bits < 16 || ty.bits > 64 {
        return cx.no_form();
    }
    Ok(ty)
}

fn simple(cx: &mut Cx<'_, '_>, op: IntOp, n: usize) -> Res<bool> {
    let ty = int_ty(cx)?;
    cx.count(n + 1..=n + 1)?;
    alu(cx, int::int_op(op, ty), &vec![ty; n], ty.bits)
}

fn sum(cx: &mut Cx<'_, '_>, op: IntOp, with_carry: CarryOp) -> Res<bool> {
    if cx.raw.mods.iter().any(|m| m.text == "cc") {
        return carry(cx, with_carry, false);
    }
    let sat = cx.flag("sat");
    if let Some(signed) = packed_sign(cx) {
        cx.count(3..=3)?;
        return alu(cx, int::packed16(op, signed), &[B32; 2], 32);
    }
    let ty = int_ty(cx)?;
    cx.count(3..=3)?;
    if sat {
        let f = if ty.bits == 32 && ty.signed() {
            int::saturating(op)
        } else {
            None
        };
        return alu(cx, f, &[ty; 2], 32);
    }
    alu(cx, int::int_op(op, ty), &[ty; 2], ty.bits)
}

/// `.s16x2` or `.u16x2`.
fn packed_sign(cx: &mut Cx<'_, '_>) -> Option<bool> {
    cx.one_of(&["s16x2", "u16x2"]).map(|m| m == "s16x2")
}

fn extreme(cx: &mut Cx<'_, '_>, op: IntOp) -> Res<bool> {
    if let Some(signed) = packed_sign(cx) {
        cx.count(3..=3)?;
        return alu(cx, int::packed16(op, signed), &[B32; 2], 32);
    }
    simple(cx, op, 2)
}

fn product(cx: &mut Cx<'_, '_>, ops: [IntOp; 3], n: usize) -> Res<bool> {
    let part = cx.one_of(&["lo", "hi", "wide"]);
    let sat = cx.flag("sat");
    let ty = int_ty(cx)?;
    cx.count(n + 1..=n + 1)?;
    let mut types = vec![ty; n];
    let (op, bits) = match part {
        Some("lo") => (ops[0], ty.bits),
        Some("hi") => (ops[1], ty.bits),
        Some("wide") => (ops[2], ty.bits * 2),
        _ => return cx.no_form(),
    };
    if let Some(third) = types.get_mut(2) {
        third.bits = bits;
    }
    let f = match (sat, op) {
        (false, _) => int::int_op(op, ty),
        (true, IntOp::MadHi) if ty.signed() && ty.bits == 32 => int::saturating(op),
        _ => None,
    };
    alu(cx, f, &types, bits)
}

fn mad(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if cx.raw.mods.iter().any(|m| m.text == "cc") {
        return carry_mad(cx, false);
    }
    product(cx, [IntOp::MadLo, IntOp::MadHi, IntOp::MadWide], 3)
}

fn carry(cx: &mut Cx<'_, '_>, op: CarryOp, cin: bool) -> Res<bool> {
    let cout = cx.flag("cc");
    let ty = int_ty(cx)?;
    cx.count(3..=3)?;
    if ty.bits < 32 {
        return cx.no_form();
    }
    let (d, a, b) = (cx.dst(0, ty.bits)?, cx.src(1, ty)?, cx.src(2, ty)?);
    let op = Op::Carry {
        op,
        bits: ty.bits as u8,
        signed: ty.signed(),
        d,
        a,
        b,
        c: ZERO,
        cin,
        cout,
    };
    cx.emit(op, Class::Integer)
}

fn carry_mad(cx: &mut Cx<'_, '_>, cin: bool) -> Res<bool> {
    let op = match cx.one_of(&["lo", "hi"]) {
        Some("lo") => CarryOp::MadLo,
        Some(_) => CarryOp::MadHi,
        None => return cx.no_form(),
    };
    let cout = cx.flag("cc");
    let ty = int_ty(cx)?;
    cx.count(4..=4)?;
    if ty.bits < 32 {
        return cx.no_form();
    }
    let (d, a, b, c) = (
        cx.dst(0, ty.bits)?,
        cx.src(1, ty)?,
        cx.src(2, ty)?,
        cx.src(3, ty)?,
    );
    let op = Op::Carry {
        op,
        bits: ty.bits as u8,
        signed: ty.signed(),
        d,
        a,
        b,
        c,
        cin,
        cout,
    };
    cx.emit(op, Class::Integer)
}

fn mul24(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let high = match cx.one_of(&["lo", "hi"]) {
        Some(m) => m == "hi",
        None => return cx.no_form(),
    };
    let ty = int_ty(cx)?;
    let n = if cx.raw.opcode == "mad24" { 3 } else { 2 };
    cx.count(n + 1..=n + 1)?;
    let f = (ty.bits == 32).then(|| int::mul24_op(high, ty.signed()));
    alu(cx, f, &vec![ty; n], 32)
}

fn logic(cx: &mut Cx<'_, '_>, op: IntOp) -> Res<bool> {
    let ty = cx.ty()?;
    let n = if op == IntOp::Not { 1 } else { 2 };
    cx.count(n + 1..=n + 1)?;
    match ty.kind {
        Kind::Pred => super::data::pred_logic(cx, op),
        Kind::Bits => alu(cx, int::int_op(op, ty), &vec![ty; n], ty.bits),
        _ => cx.no_form(),
    }
}

fn shift(cx: &mut Cx<'_, '_>, op: IntOp) -> Res<bool> {
    let ty = int_ty(cx)?;
    cx.count(3..=3)?;
    // Shift amounts are 32 bits wide whatever the type.
    alu(cx, int::int_op(op, ty), &[ty, U32], ty.bits)
}

fn funnel(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let side = cx.one_of(&["l", "r"]);
    let mode = cx.one_of(&["wrap", "clamp"]);
    let ty = cx.ty()?;
    cx.count(4..=4)?;
    let op = match (side, mode) {
        (Some("l"), Some(m)) => BitOp::ShfL { wrap: m == "wrap" },
        (Some("r"), Some(m)) => BitOp::ShfR { wrap: m == "wrap" },
        _ => return cx.no_form(),
    };
    alu(cx, int::bit_op(op, ty), &[B32, B32, U32], 32)
}

fn count_bits(cx: &mut Cx<'_, '_>, op: BitOp) -> Res<bool> {
    let ty = cx.ty()?;
    cx.count(2..=2)?;
    alu(cx, int::bit_op(op, ty), &[ty], 32)
}

fn bits(cx: &mut Cx<'_, '_>, op: BitOp, n: usize) -> Res<bool> {
    let ty = cx.ty()?;
    cx.count(n + 1..=n + 1)?;
    alu(cx, int::bit_op(op, ty), &vec![ty; n], ty.bits)
}

fn field(cx: &mut Cx<'_, '_>, op: BitOp) -> Res<bool> {
    let ty = cx.ty()?;
    let f = int::bit_op(op, ty);
    if op == BitOp::Bfe {
        cx.count(4..=4)?;
        return alu(cx, f, &[ty, U32, U32], ty.bits);
    }
    cx.count(5..=5)?;
    alu(cx, f, &[ty, ty, U32, U32], ty.bits)
}

fn bfind(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let shift = cx.flag("shiftamt");
    let ty = cx.ty()?;
    cx.count(2..=2)?;
    alu(cx, int::bit_op(BitOp::Bfind { shift }, ty), &[ty], 32)
}

fn lop3(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let ty = cx.ty()?;
    cx.count(5..=5)?;
    let lut = cx.imm(4)?;
    if !(0..=255).contains(&lut) {
        return cx.operand_err("the table of lop3 has 8 bits");
    }
    alu(cx, int::bit_op(BitOp::Lop3, ty), &[ty, ty, ty, U32], 32)
}

fn prmt(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let mode = match cx.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
        None => Prmt::Index,
        Some("f4e") => Prmt::F4e,
        Some("b4e") => Prmt::B4e,
        Some("rc8") => Prmt::Rc8,
        Some("ecl") => Prmt::Ecl,
        Some("ecr") => Prmt::Ecr,
        Some(_) => Prmt::Rc16,
    };
    let ty = cx.ty()?;
    cx.count(4..=4)?;
    alu(cx, (ty == B32).then(|| int::prmt(mode)), &[B32; 3], 32)
}

fn byte_signs(cx: &mut Cx<'_, '_>) -> Res<(bool, bool, Ty)> {
    let (a, b) = (cx.ty()?, cx.ty()?);
    if a.bits != 32
        || b.bits != 32
        || a.kind == Kind::Bits
        || b.kind == Kind::Bits
        || !a.is_int()
        || !b.is_int()
    {
        return cx.no_form();
    }
    Ok((
        a.signed(),
        b.signed(),
        if a.signed() || b.signed() {
            crate::isa::types::S32
        } else {
            U32
        },
    ))
}

fn dp4a(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let (sa, sb, c) = byte_signs(cx)?;
    cx.count(4..=4)?;
    alu(cx, Some(int::dp4a_op(sa, sb)), &[B32, B32, c], 32)
}

fn dp2a(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let hi = match cx.one_of(&["lo", "hi"]) {
        Some(m) => m == "hi",
        None => return cx.no_form(),
    };
    let (sa, sb, c) = byte_signs(cx)?;
    cx.count(4..=4)?;
    alu(cx, Some(int::dp2a_op(sa, sb, hi)), &[B32, B32, c], 32)
}

fn clamp_or_wrap(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let wrap = match cx.one_of(&["clamp", "wrap"]) {
        Some(m) => m == "wrap",
        None => return cx.no_form(),
    };
    let ty = cx.ty()?;
    cx.count(3..=3)?;
    let op = if cx.raw.opcode == "szext" {
        BitOp::Szext { wrap }
    } else {
        BitOp::Bmsk { wrap }
    };
    alu(cx, int::bit_op(op, ty), &[ty, U32], 32)
}
