//! `mma`, `wgmma`, `ldmatrix`, `stmatrix`, `movmatrix`.

use super::context::{Cx, Res};
use crate::isa::memory::Space;
use crate::isa::tensor::{Acc, BlockScale, Elem, Mma, ScaleType, TensorOp, Wgmma, WgmmaA};
use crate::isa::types::{B32, B64, F64, U32};
use crate::isa::{Class, Op, R};
use crate::parse::ast::Operand;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "mma" => mma(cx),
        "wgmma" => wgmma(cx),
        "ldmatrix" => matrix(cx, true),
        "stmatrix" => matrix(cx, false),
        "movmatrix" => {
            let ok = cx.flag("sync")
                && cx.flag("aligned")
                && cx.flag("m8n8")
                && cx.flag("trans")
                && cx.flag("b16");
            if !ok {
                return cx.no_form();
            }
            cx.count(2..=2)?;
            let (d, a) = (cx.dst(0, 32)?, cx.src(1, B32)?);
            cx.emit_aligned(tensor(TensorOp::MovMatrix { d, a }), Class::Matrix)
        }
        _ => Ok(false),
    }
}

fn tensor(op: TensorOp) -> Op {
    Op::Tensor(Box::new(op))
}

fn sync_aligned(cx: &mut Cx<'_, '_>) -> Res<()> {
    if cx.flag("sync") && cx.flag("aligned") {
        Ok(())
    } else {
        cx.no_form()
    }
}

/// `m16n8k16` to its numbers.
fn shape(text: &str) -> Option<(u16, u16, u16)> {
    let (m, rest) = text.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

fn elem(name: &str) -> Option<Elem> {
    Some(match name {
        "f16" => Elem::F16,
        "bf16" => Elem::Bf16,
        "tf32" => Elem::Tf32,
        "e4m3" => Elem::E4m3,
        "e5m2" => Elem::E5m2,
        "e3m2" => Elem::E3m2,
        "e2m3" => Elem::E2m3,
        "e2m1" => Elem::E2m1,
        "s8" => Elem::S8,
        "u8" => Elem::U8,
        "s4" => Elem::S4,
        "u4" => Elem::U4,
        "f64" => Elem::F64,
        _ => return None,
    })
}

fn acc(name: &str) -> Option<Acc> {
    Some(match name {
        "f16" => Acc::F16,
        "f32" => Acc::F32,
        "s32" => Acc::S32,
        "f64" => Acc::F64,
        _ => return None,
    })
}

fn regs(
    cx: &mut Cx<'_, '_>,
    i: usize,
    n: usize,
    ty: crate::isa::types::Ty,
    write: bool,
) -> Res<Box<[R]>> {
    let parts = cx.parts(i)?;
    if parts.len() != n {
        return cx.operand_err(format!(
            "operand {} takes {n} registers, not {}",
            i + 1,
            parts.len()
        ));
    }
    let mut out = Vec::with_capacity(n);
    for p in parts {
        out.push(if write {
            cx.reg(p, ty.bits)?
        } else {
            cx.value(p, ty)?
        });
    }
    Ok(out.into())
}

/// Types in text order: d, a, b, c.
fn mma_types(cx: &mut Cx<'_, '_>) -> Res<(Acc, Elem, Elem)> {
    let d = cx.take(acc);
    let (a, b) = (cx.take(elem), cx.take(elem));
    let c = cx.take(acc);
    match (d, a, b, c) {
        (Some(d), Some(a), Some(b), Some(c)) if c == d => Ok((d, a, b)),
        _ => cx.no_form(),
    }
}

/// Which (m, k) exist for a pair of element types; n is 8 in all of them.
fn mma_exists(m: u16, n: u16, k: u16, a: Elem, b: Elem, acc: Acc) -> bool {
    use Elem::{Bf16, E2m1, E2m3, E3m2, E4m3, E5m2, F16, F64, S4, S8, Tf32, U4, U8};
    let same = a == b;
    let small = |e| matches!(e, E4m3 | E5m2 | E3m2 | E2m3 | E2m1);
    n == 8
        && match (a, acc) {
            (F16, Acc::F16 | Acc::F32) => same && m == 16 && matches!(k, 8 | 16),
            (Bf16, Acc::F32) => same && m == 16 && matches!(k, 8 | 16),
            (Tf32, Acc::F32) => same && m == 16 && matches!(k, 4 | 8),
            (F64, Acc::F64) => same && (m, k) == (8, 4),
            (S8 | U8, Acc::S32) => {
                matches!(b, S8 | U8) && ((m == 16 && matches!(k, 16 | 32)) || (m, k) == (8, 16))
            }
            (S4 | U4, Acc::S32) => {
                matches!(b, S4 | U4) && ((m == 16 && matches!(k, 32 | 64)) || (m, k) == (8, 32))
            }
            (e, Acc::F32 | Acc::F16) if small(e) => small(b) && m == 16 && matches!(k, 16 | 32),
            _ => false,
        }
}

fn mma(cx: &mut Cx<'_, '_>) -> Res<bool> {
    sync_aligned(cx)?;
    let Some((m, n, k)) = cx.take(shape) else {
        return cx.no_form();
    };
    let at = |name: &str| cx.raw.mods.iter().position(|m| m.text == name);
    let in_order = at("row") < at("col");
    if !(in_order && cx.flag("row") && cx.flag("col")) {
        return cx.no_form();
    }
    let saturate = cx.flag("satfinite");
    let kind = cx.one_of(&[
        "kind::f8f6f4",
        "kind::mxf8f6f4",
        "kind::mxf4",
        "kind::mxf4nvf4",
    ]);
    let scaled = cx.flag("block_scale");
    let vec = cx.one_of(&["scale_vec::1X", "scale_vec::2X", "scale_vec::4X"]);
    let scale_ty = cx.one_of(&["ue8m0", "ue4m3"]);
    let (acc, a_elem, b_elem) = mma_types(cx)?;
    if scaled {
        return mma_scaled(cx, (m, n, k), (acc, a_elem, b_elem), (kind, vec, scale_ty));
    }
    let odd_small = matches!(a_elem, Elem::E3m2 | Elem::E2m3 | Elem::E2m1)
        || matches!(b_elem, Elem::E3m2 | Elem::E2m3 | Elem::E2m1);
    let fits = mma_exists(m, n, k, a_elem, b_elem, acc)
        && matches!(kind, None | Some("kind::f8f6f4"))
        && (!odd_small || kind.is_some())
        && (!saturate || a_elem.is_int())
        && vec.is_none()
        && scale_ty.is_none();
    if !fits {
        return cx.no_form();
    }
    cx.count(4..=4)?;
    let per =
        |elem: Elem, rows: u16| (u32::from(rows) * u32::from(k) * elem.bits() / 1024) as usize;
    let (ab, cd) = if acc == Acc::F64 {
        (F64, F64)
    } else {
        (B32, B32)
    };
    let nc = match acc {
        Acc::F16 => usize::from(m) * 8 / 64,
        _ => usize::from(m) * 8 / 32,
    };
    let (na, nb) = if acc == Acc::F64 {
        (1, 1)
    } else {
        (per(a_elem, m), per(b_elem, n))
    };
    let op = Mma {
        m,
        n,
        k,
        a_elem,
        b_elem,
        acc,
        saturate,
        d: regs(cx, 0, nc, cd, true)?,
        a: regs(cx, 1, na, ab, false)?,
        b: regs(cx, 2, nb, ab, false)?,
        c: regs(cx, 3, nc, cd, false)?,
        scale: None,
    };
    cx.emit_aligned(tensor(TensorOp::Mma(op)), Class::Tensor)
}

type Kinds = (
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
);

/// `mma … block_scale d, a, b, c, scale-a, {byte, thread}, scale-b, {byte, thread}`.
fn mma_scaled(
    cx: &mut Cx<'_, '_>,
    (m, n, k): (u16, u16, u16),
    t: (Acc, Elem, Elem),
    kinds: Kinds,
) -> Res<bool> {
    let (kind, vec, scale_ty) = kinds;
    let (acc, a_elem, b_elem) = t;
    let small = |e| {
        matches!(
            e,
            Elem::E4m3 | Elem::E5m2 | Elem::E3m2 | Elem::E2m3 | Elem::E2m1
        )
    };
    let (want_k, packed, vec) = match (kind, vec, scale_ty) {
        (Some("kind::mxf8f6f4"), None | Some("scale_vec::1X"), Some("ue8m0")) => (32, false, 1),
        (Some("kind::mxf4"), None | Some("scale_vec::2X"), Some("ue8m0")) => (64, true, 2),
        (Some("kind::mxf4nvf4"), Some("scale_vec::2X"), Some("ue8m0")) => (64, true, 2),
        (Some("kind::mxf4nvf4"), Some("scale_vec::4X"), Some("ue4m3" | "ue8m0")) => (64, true, 4),
        _ => return cx.no_form(),
    };
    let elems = if packed {
        a_elem == Elem::E2m1 && b_elem == Elem::E2m1
    } else {
        small(a_elem) && small(b_elem)
    };
    if (m, n, k) != (16, 8, want_k) || acc != Acc::F32 || !elems {
        return cx.no_form();
    }
    cx.count(8..=8)?;
    let scale = |cx: &mut Cx<'_, '_>, i: usize| -> Res<(R, R, R)> {
        let s = cx.src(i, B32)?;
        let [byte, thread] = cx.parts(i + 1)? else {
            return cx.operand_err("{byte-id, thread-id} are wanted");
        };
        Ok((
            s,
            cx.value(byte, crate::isa::types::Ty { bits: 16, ..U32 })?,
            cx.value(thread, crate::isa::types::Ty { bits: 16, ..U32 })?,
        ))
    };
    let (a, b) = (scale(cx, 4)?, scale(cx, 6)?);
    let ty = if scale_ty == Some("ue8m0") {
        ScaleType::Ue8m0
    } else {
        ScaleType::Ue4m3
    };
    let op = Mma {
        m,
        n,
        k,
        a_elem,
        b_elem,
        acc,
        saturate: false,
        d: regs(cx, 0, 4, B32, true)?,
        a: regs(cx, 1, 4, B32, false)?,
        b: regs(cx, 2, 2, B32, false)?,
        c: regs(cx, 3, 4, B32, false)?,
        scale: Some(BlockScale {
            vec,
            ty,
            a,
            b,
            packed,
        }),
    };
    cx.emit_aligned(tensor(TensorOp::Mma(op)), Class::Tensor)
}

fn matrix(cx: &mut Cx<'_, '_>, load: bool) -> Res<bool> {
    sync_aligned(cx)?;
    if !cx.flag("m8n8") {
        return cx.no_form();
    }
    let n = match cx.one_of(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some(_) => 4,
        None => return cx.no_form(),
    };
    let trans = cx.flag("trans");
    let space = super::memory::space(cx);
    if !cx.flag("b16") || !matches!(space, Space::Shared | Space::Generic) {
        return cx.no_form();
    }
    cx.count(2..=2)?;
    if load {
        let d = regs(cx, 0, n, B32, true)?;
        let a = cx.addr(1, space)?;
        let op = TensorOp::LdMatrix {
            space,
            addr: a.reg,
            narrow: a.narrow,
            off: a.off,
            trans,
            d,
        };
        return cx.emit_aligned(tensor(op), Class::Matrix);
    }
    let a = cx.addr(0, space)?;
    let s = regs(cx, 1, n, B32, false)?;
    let op = TensorOp::StMatrix {
        space,
        addr: a.reg,
        narrow: a.narrow,
        off: a.off,
        trans,
        s,
    };
    cx.emit_aligned(tensor(op), Class::Matrix)
}

fn wgmma(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let what = cx.one_of(&["mma_async", "fence", "commit_group", "wait_group"]);
    sync_aligned(cx)?;
    match what {
        Some("fence") => {
            cx.count(0..=0)?;
            cx.emit_aligned(tensor(TensorOp::WgmmaFence), Class::Barrier)
        }
        Some("commit_group") => {
            cx.count(0..=0)?;
            cx.emit_aligned(tensor(TensorOp::WgmmaCommit), Class::Async)
        }
        Some("wait_group") => {
            cx.count(1..=1)?;
            let pending = cx.imm(0)?;
            if !(0..=7).contains(&pending) {
                return cx.operand_err("wgmma.wait_group takes 0 to 7");
            }
            cx.emit_aligned(
                tensor(TensorOp::WgmmaWait {
                    pending: pending as u32,
                }),
                Class::Async,
            )
        }
        Some(_) => mma_async(cx),
        None => cx.no_form(),
    }
}

fn wgmma_exists(n: u16, k: u16, a: Elem, b: Elem, acc: Acc) -> bool {
    let float_n = n.is_multiple_of(8) && (8..=256).contains(&n);
    let fp8 = |e| matches!(e, Elem::E4m3 | Elem::E5m2);
    match (a, acc) {
        (Elem::F16, Acc::F16 | Acc::F32) | (Elem::Bf16, Acc::F32) => float_n && a == b && k == 16,
        (Elem::Tf32, Acc::F32) => float_n && a == b && k == 8,
        (e, Acc::F16 | Acc::F32) if fp8(e) => float_n && fp8(b) && k == 32,
        (Elem::S8 | Elem::U8, Acc::S32) => {
            matches!(b, Elem::S8 | Elem::U8)
                && k == 32
                && float_n
                && (n <= 24 || n.is_multiple_of(16))
        }
        _ => false,
    }
}

fn mma_async(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let Some((m, n, k)) = cx.take(shape) else {
        return cx.no_form();
    };
    let saturate = cx.flag("satfinite");
    let (Some(acc), Some(a_elem), Some(b_elem)) = (cx.take(acc), cx.take(elem), cx.take(elem))
    else {
        return cx.no_form();
    };
    if m != 64 || !wgmma_exists(n, k, a_elem, b_elem, acc) || saturate && acc != Acc::S32 {
        return cx.no_form();
    }
    let nd = if acc == Acc::F16 {
        usize::from(n) / 4
    } else {
        usize::from(n) / 2
    };
    let d = regs(cx, 0, nd, B32, true)?;
    let in_regs = matches!(cx.operand(1)?, Operand::Vector(_));
    let a = if in_regs {
        WgmmaA::Regs(regs(cx, 1, 4, B32, false)?)
    } else {
        WgmmaA::Desc(cx.src(1, B64)?)
    };
    let b = cx.src(2, B64)?;
    let scale_d = cx.psrc(3)?;
    let mut op = Wgmma {
        n,
        k,
        a_elem,
        b_elem,
        acc,
        saturate,
        d,
        a,
        b,
        scale_d,
        neg_a: false,
        neg_b: false,
        trans_a: false,
        trans_b: false,
    };
    let halves = a_elem.bits() == 16;
    if a_elem.is_int() {
        cx.count(4..=4)?;
    } else {
        let extra = if halves {
            if in_regs { 1 } else { 2 }
        } else {
            0
        };
        cx.count(6 + extra..=6 + extra)?;
        op.neg_a = sign(cx, 4)?;
        op.neg_b = sign(cx, 5)?;
        if extra == 2 {
            op.trans_a = bit(cx, 6)?;
        }
        if extra > 0 {
            op.trans_b = bit(cx, 5 + extra)?;
        }
    }
    cx.emit_aligned(tensor(TensorOp::Wgmma(op)), Class::Tensor)
}

fn sign(cx: &Cx<'_, '_>, i: usize) -> Res<bool> {
    match cx.imm(i)? {
        1 => Ok(false),
        -1 => Ok(true),
        _ => cx.operand_err("the scale of a wgmma operand is 1 or -1"),
    }
}

fn bit(cx: &Cx<'_, '_>, i: usize) -> Res<bool> {
    match cx.imm(i)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => cx.operand_err("the transposition of a wgmma operand is 0 or 1"),
    }
}
