//! Moves, conversions, comparisons and selections.

use super::context::{Cx, Res};
use crate::alu::cvt::{self, Cvt};
use crate::alu::int::IntOp;
use crate::alu::lane;
use crate::isa::memory::Space;
use crate::isa::types::{B32, Kind, S32, Ty};
use crate::isa::{BoolOp, CONST, Class, Op, PredOp, R, Special};
use crate::num::format::{BF16, F16, F32, Rnd, TF32};
use crate::parse::ast::Operand;
use crate::parse::error::ParseErrorKind;

const ZERO: R = CONST;
/// Windows of the generic address space.
pub(crate) const SHARED_WINDOW: u64 = 0x0007_0000_0000;
pub(crate) const LOCAL_WINDOW: u64 = 0x0008_0000_0000;
pub(crate) const PARAM_WINDOW: u64 = 0x0009_0000_0000;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "mov" => mov(cx),
        "cvt" => convert(cx),
        "cvta" => cvta(cx),
        "isspacep" => isspacep(cx),
        "selp" => selp(cx),
        "slct" => slct(cx),
        _ => Ok(false),
    }
}

/// `and`, `or`, `xor`, `not` on predicates.
pub(super) fn pred_logic(cx: &mut Cx<'_, '_>, op: IntOp) -> Res<bool> {
    let f = match op {
        IntOp::And => PredOp::Bool(BoolOp::And),
        IntOp::Or => PredOp::Bool(BoolOp::Or),
        IntOp::Xor => PredOp::Bool(BoolOp::Xor),
        _ => PredOp::Not,
    };
    let (d, a) = (cx.pdst(0)?, cx.psrc(1)?);
    let b = if f == PredOp::Not { a } else { cx.psrc(2)? };
    cx.emit(Op::Pred { f, d, a, b }, Class::Compare)
}

fn mov(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let ty = cx.ty()?;
    cx.count(2..=2)?;
    if ty.kind == Kind::Pred {
        let (d, a) = (cx.pdst(0)?, cx.psrc(1)?);
        return cx.emit(
            Op::Pred {
                f: PredOp::Mov,
                d,
                a,
                b: a,
            },
            Class::Move,
        );
    }
    let (dst, src) = (cx.operand(0)?, cx.operand(1)?);
    if let Operand::Vector(parts) = dst {
        return unpack(cx, parts, ty);
    }
    if let Operand::Vector(parts) = src {
        return pack(cx, parts, ty);
    }
    if let Operand::Sym(name) = src
        && let Some(sr) = special(name)
    {
        let (d, have) = cx.any_reg(dst)?;
        if u32::from(have) != ty.bits {
            return cx.operand_err(format!("register has {have} bits, the type {}", ty.bits));
        }
        return cx.emit(Op::Special { d, sr }, Class::Move);
    }
    if let Operand::Sym(name) = src
        && name.starts_with('%')
    {
        return cx.err(
            ParseErrorKind::Name,
            format!("`{name}` is neither declared nor a special register that is built"),
        );
    }
    let d = cx.dst(0, ty.bits)?;
    let a = cx.src(1, ty)?;
    cx.emit(
        Op::Alu {
            f: lane!(|a| a),
            d,
            s: [a, ZERO, ZERO, ZERO],
        },
        Class::Move,
    )
}

fn part_bits(cx: &Cx<'_, '_>, n: usize, ty: Ty) -> Res<u32> {
    match (n, ty.bits) {
        (2, 32 | 64 | 128) | (4, 32 | 64 | 128) => Ok(ty.bits / n as u32),
        (2, 16) => Ok(8),
        _ => cx.no_form(),
    }
}

fn unpack(cx: &mut Cx<'_, '_>, parts: &[Operand], ty: Ty) -> Res<bool> {
    let bits = part_bits(cx, parts.len(), ty)?;
    if bits < 16 {
        return cx.no_form();
    }
    let s = cx.src(1, ty)?;
    let mut out = Vec::new();
    for p in parts {
        out.push(if *p == Operand::Sink {
            None
        } else {
            Some(cx.reg(p, bits)?)
        });
    }
    cx.emit(
        Op::Unpack {
            s,
            bits: bits as u8,
            parts: out.into(),
        },
        Class::Move,
    )
}

fn pack(cx: &mut Cx<'_, '_>, parts: &[Operand], ty: Ty) -> Res<bool> {
    let bits = part_bits(cx, parts.len(), ty)?;
    if bits < 16 {
        return cx.no_form();
    }
    let d = cx.dst(0, ty.bits)?;
    let part_ty = Ty {
        kind: Kind::Bits,
        bits,
        format: None,
    };
    let mut out = Vec::new();
    for p in parts {
        out.push(cx.value(p, part_ty)?);
    }
    cx.emit(
        Op::Pack {
            d,
            bits: bits as u8,
            parts: out.into(),
        },
        Class::Move,
    )
}

/// The special register of a name.
fn special(name: &str) -> Option<Special> {
    let axis = |v: &str| match v {
        "x" => Some(0u8),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((base, member)) = name.split_once('.') {
        let i = axis(member)?;
        return Some(match base {
            "%tid" => Special::Tid(i),
            "%ntid" => Special::Ntid(i),
            "%ctaid" => Special::Ctaid(i),
            "%nctaid" => Special::Nctaid(i),
            "%clusterid" => Special::ClusterId(i),
            "%nclusterid" => Special::NclusterId(i),
            "%cluster_ctaid" => Special::ClusterCtaid(i),
            "%cluster_nctaid" => Special::ClusterNctaid(i),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::Laneid,
        "%warpid" => Special::Warpid,
        "%nwarpid" => Special::Nwarpid,
        "%smid" => Special::Smid,
        "%nsmid" => Special::Nsmid,
        "%gridid" => Special::Gridid,
        "%lanemask_eq" => Special::LanemaskEq,
        "%lanemask_le" => Special::LanemaskLe,
        "%lanemask_lt" => Special::LanemaskLt,
        "%lanemask_ge" => Special::LanemaskGe,
        "%lanemask_gt" => Special::LanemaskGt,
        "%clock" | "%clock_hi" | "%clock64" => Special::Clock,
        "%globaltimer" | "%globaltimer_lo" | "%globaltimer_hi" => Special::GlobalTimer,
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%dynamic_smem_size" => Special::DynamicSmem,
        "%total_smem_size" | "%aggr_smem_size" => Special::TotalSmem,
        _ => return None,
    })
}

fn convert(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if cx.flag("pack") {
        return convert_pack(cx);
    }
    let float_rnd = cx.one_of(&["rn", "rz", "rm", "rp", "rna"]);
    let int_rnd = cx.one_of(&["rni", "rzi", "rmi", "rpi"]);
    let (ftz, relu, satfinite, sat) = (
        cx.flag("ftz"),
        cx.flag("relu"),
        cx.flag("satfinite"),
        cx.flag("sat"),
    );
    let (to, from) = (cx.ty()?, cx.ty()?);
    let n = cx.count(2..=3)?;
    let rnd = match (float_rnd, int_rnd) {
        (Some(_), Some(_)) => return cx.no_form(),
        (Some("rn") | None, None) | (None, Some("rni")) => Rnd::Near,
        (Some("rz"), _) | (_, Some("rzi")) => Rnd::Zero,
        (Some("rm"), _) | (_, Some("rmi")) => Rnd::Down,
        (Some("rp"), _) | (_, Some("rpi")) => Rnd::Up,
        _ => Rnd::Away,
    };
    let spec = Cvt {
        from,
        to,
        rnd,
        to_int: int_rnd.is_some(),
        ftz,
        sat,
        relu,
        satfinite,
        dst_bits: to.bits.max(16),
    };
    if !legal(&spec, float_rnd, n) {
        return cx.no_form();
    }
    convert_emit(cx, spec, n)
}

fn convert_emit(cx: &mut Cx<'_, '_>, mut spec: Cvt, n: usize) -> Res<bool> {
    // Integers may be converted from and to wider registers; floats have their own width.
    let d = match cx.operand(0)? {
        Operand::Sink => 0,
        o => {
            let (d, have) = cx.any_reg(o)?;
            let wanted = spec.to.bits.max(16);
            if (spec.to.is_float() || have as u32 > 64) && u32::from(have) != wanted
                || u32::from(have) < wanted
            {
                return cx.operand_err(format!(
                    "destination has {have} bits, the type {}",
                    spec.to.bits
                ));
            }
            spec.dst_bits = u32::from(have);
            d
        }
    };
    let a = convert_src(cx, 1, spec.from)?;
    let b = if n == 3 {
        convert_src(cx, 2, spec.from)?
    } else {
        ZERO
    };
    match cvt::quick(&spec) {
        Some(f) => cx.emit(
            Op::Alu {
                f,
                d,
                s: [a, b, ZERO, ZERO],
            },
            Class::Convert,
        ),
        None => cx.emit(
            Op::Cvt {
                spec: Box::new(spec),
                d,
                a,
                b,
            },
            Class::Convert,
        ),
    }
}

fn convert_src(cx: &mut Cx<'_, '_>, i: usize, from: Ty) -> Res<R> {
    let o = cx.operand(i)?;
    if let Operand::Reg(_) = o
        && from.is_int()
    {
        let (r, have) = cx.any_reg(o)?;
        if u32::from(have) < from.bits {
            return cx.operand_err(format!("source has {have} bits, the type {}", from.bits));
        }
        return Ok(r);
    }
    cx.value(o, from)
}

/// Which conversions exist (table of PTX ISA §9.7.9.21), with the number of operands.
fn legal(c: &Cvt, float_rnd: Option<&str>, n: usize) -> bool {
    let (from, to) = (c.from, c.to);
    let int = |t: Ty| matches!(t.kind, Kind::Unsigned | Kind::Signed) && t.bits >= 8;
    let small = |t: Ty| t.format.is_some_and(|f| f.exp + f.man <= 7);
    let plain = |t: Ty| t.kind == Kind::Float && t.bits >= 16 && t.format != Some(TF32);
    if to.kind == Kind::Pair {
        let from_f32 = from.kind == Kind::Float && from.format == Some(F32) && n == 3;
        let from_pair = from.kind == Kind::Pair && n == 2;
        let half = matches!(to.format, Some(F16 | BF16)) && to.bits == 32;
        let narrow = small(to) && to.bits == 16;
        return !c.to_int
            && !c.sat
            && (from_f32 && half && matches!(float_rnd, Some("rn" | "rz"))
                || narrow && from_f32 && float_rnd == Some("rn") && c.satfinite
                || narrow
                    && from_pair
                    && from.format == Some(F16)
                    && from.bits == 32
                    && float_rnd == Some("rn")
                    && c.satfinite
                || half
                    && to.format == Some(F16)
                    && from_pair
                    && small(from)
                    && from.bits == 16
                    && float_rnd == Some("rn"));
    }
    if n != 2 || from.kind == Kind::Pair {
        return false;
    }
    if to.format == Some(TF32) {
        return from.format == Some(F32)
            && matches!(float_rnd, Some("rna" | "rn" | "rz"))
            && !c.sat
            && !c.to_int;
    }
    if float_rnd == Some("rna") {
        return false;
    }
    match (int(from), int(to), plain(from), plain(to)) {
        (true, true, ..) => float_rnd.is_none() && !c.to_int && !c.ftz && !c.relu && !c.satfinite,
        (true, _, _, true) => float_rnd.is_some() && !c.to_int && !c.relu && !c.satfinite,
        (_, true, true, _) => c.to_int && !c.relu && !c.satfinite,
        (_, _, true, true) => {
            let narrowing =
                to.bits < from.bits || to.bits == 16 && from.bits == 16 && to.format != from.format;
            let half_to = matches!(to.format, Some(F16 | BF16));
            let mods = !(c.relu || c.satfinite) || half_to && from.format == Some(F32);
            mods && if narrowing {
                float_rnd.is_some() && !c.to_int
            } else {
                float_rnd.is_none() || to.format == Some(BF16)
            }
        }
        _ => false,
    }
}

fn convert_pack(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if !cx.flag("sat") {
        return cx.no_form();
    }
    let (to, from) = (cx.ty()?, cx.ty()?);
    if from != S32 {
        return cx.no_form();
    }
    let Some(f) = cvt::pack(to.bits, to.signed()) else {
        return cx.no_form();
    };
    let d = cx.dst(0, 32)?;
    let (a, b) = (cx.src(1, S32)?, cx.src(2, S32)?);
    let c = match (cx.count(3..=4)?, to.bits) {
        (3, 16) => ZERO,
        (4, 4 | 8) if cx.flag("b32") => cx.src(3, B32)?,
        _ => return cx.no_form(),
    };
    cx.emit(
        Op::Alu {
            f,
            d,
            s: [a, b, c, ZERO],
        },
        Class::Convert,
    )
}

fn space_mod(cx: &mut Cx<'_, '_>) -> Option<Space> {
    cx.one_of(&[
        "global",
        "shared::cta",
        "shared::cluster",
        "shared",
        "local",
        "param",
        "const",
    ])
    .map(|m| match m {
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        "shared::cluster" => Space::SharedCluster,
        "local" => Space::Local,
        "param" => Space::Param,
        _ => Space::Const,
    })
}

/// Windows are multiples of 2^32, so adding and subtracting them is exact.
fn cvta(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let to = cx.flag("to");
    let Some(space) = space_mod(cx) else {
        return cx.no_form();
    };
    cx.flag("entry");
    let ty = cx.ty()?;
    cx.count(2..=2)?;
    if ty.bits != 64 {
        return cx.no_form();
    }
    let d = cx.dst(0, 64)?;
    let a = cx.src(1, ty)?;
    let window = match space {
        Space::Shared | Space::SharedCluster => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        _ => 0,
    };
    let w = cx.d.constant(window);
    let f = if to {
        lane!(|a, w| a.wrapping_sub(w))
    } else {
        lane!(|a, w| a.wrapping_add(w))
    };
    cx.emit(
        Op::Alu {
            f,
            d,
            s: [a, w, ZERO, ZERO],
        },
        Class::Integer,
    )
}

fn isspacep(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let Some(space) = space_mod(cx) else {
        return cx.no_form();
    };
    cx.count(2..=2)?;
    let p = cx.pdst(0)?;
    let a = cx.src(
        1,
        Ty {
            kind: Kind::Unsigned,
            bits: 64,
            format: None,
        },
    )?;
    cx.emit(Op::IsSpace { p, a, space }, Class::Compare)
}

fn selp(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let ty = cx.ty()?;
    cx.count(4..=4)?;
    let (d, a, b, p) = (
        cx.dst(0, ty.bits)?,
        cx.src(1, ty)?,
        cx.src(2, ty)?,
        cx.psrc(3)?,
    );
    cx.emit(Op::Selp { d, a, b, p }, Class::Move)
}

fn slct(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let ftz = cx.flag("ftz");
    let (ty, by) = (cx.ty()?, cx.ty()?);
    cx.count(4..=4)?;
    let f = match (by, ftz) {
        (S32, false) => lane!(|a, b, c| if c as i32 >= 0 { a } else { b }),
        (crate::isa::types::F32, _) => lane!(|a, b, c| {
            // Only the sign decides, so flushing changes nothing; NaN selects b.
            let c = f32::from_bits(c as u32);
            if c >= 0.0 { a } else { b }
        }),
        _ => return cx.no_form(),
    };
    let d = cx.dst(0, ty.bits)?;
    let s = [cx.src(1, ty)?, cx.src(2, ty)?, cx.src(3, by)?, ZERO];
    cx.emit(Op::Alu { f, d, s }, Class::Move)
}
