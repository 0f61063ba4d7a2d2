//! `cp.async`, bulk copies, mbarriers and clusters.

use super::context::{Cx, Res};
use super::memory::{cache, space};
use crate::isa::asynch::{AsyncOp, BulkDst, BulkReduce, TensorCopy};
use crate::isa::memory::{Order, Space};
use crate::isa::types::{B32, B64, Kind, Ty, U32};
use crate::isa::{ALWAYS, CONST, Class, Op, R, lane_move};
use crate::parse::ast::Operand;

const ZERO: R = CONST;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let second = cx.raw.mods.get(1).map(|m| m.text.as_str());
    match cx.raw.opcode.as_str() {
        "cp" if cx.flag("reduce") => {
            if !cx.flag("async") {
                return cx.no_form();
            }
            bulk(cx)
        }
        "cp" if cx.flag("async") => match second {
            Some("bulk") => bulk(cx),
            _ => cp_async(cx),
        },
        "mbarrier" => super::mbarrier::mbarrier(cx),
        "mapa" => mapa(cx),
        "getctarank" => {
            let generic = !cx.flag("shared::cluster");
            if cx.ty()? != U32 {
                return cx.no_form();
            }
            cx.count(2..=2)?;
            let (d, a) = (cx.dst(0, 32)?, cx.src(1, if generic { B64 } else { B32 })?);
            emit(cx, AsyncOp::ClusterRank { d, a, generic })
        }
        "barrier" if cx.flag("cluster") => cluster(cx),
        "createpolicy" => createpolicy(cx),
        "st" => st_async(cx),
        _ => Ok(false),
    }
}

pub(super) fn emit(cx: &mut Cx<'_, '_>, op: AsyncOp) -> Res<bool> {
    cx.emit(Op::Async(Box::new(op)), Class::Async)
}

fn pending(cx: &Cx<'_, '_>) -> Res<u32> {
    cx.count(1..=1)?;
    match u32::try_from(cx.imm(0)?) {
        Ok(n) => Ok(n),
        Err(_) => cx.operand_err("a group count is not negative"),
    }
}

fn cp_async(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.one_of(&["commit_group", "wait_group", "wait_all", "mbarrier"]) {
        Some("commit_group") => return emit(cx, AsyncOp::CommitGroup),
        Some("wait_group") => {
            let pending = pending(cx)?;
            return emit(cx, AsyncOp::WaitGroup { pending });
        }
        Some("wait_all") => return emit(cx, AsyncOp::WaitAll),
        Some(_) => return cp_async_arrive(cx),
        None => {}
    }
    let Some(level) = cx.one_of(&["ca", "cg"]) else {
        return cx.no_form();
    };
    let to_shared = cx.one_of(&["shared", "shared::cta"]).is_some();
    if !to_shared || !cx.flag("global") {
        return cx.no_form();
    }
    let hint = cache(cx);
    let n = cx.count(3 + usize::from(hint)..=4 + usize::from(hint))?;
    let bytes = cx.imm(2)?;
    if !(matches!(bytes, 4 | 8) && level == "ca" || bytes == 16) {
        return cx.operand_err("cp.async copies 4, 8 or 16 bytes, with .cg only 16");
    }
    let (mut src_size, mut ignore) = (None, ALWAYS);
    if n == 4 + usize::from(hint) {
        if cx.is_pred(cx.operand(3)?) {
            ignore = cx.psrc(3)?;
        } else {
            src_size = Some(cx.src(3, U32)?);
        }
    }
    let ignore = if src_size.is_none() && ignore == ALWAYS {
        crate::isa::PSrc { p: 0, neg: true }
    } else {
        ignore
    };
    let ignore = if src_size.is_some() {
        crate::isa::PSrc { p: 0, neg: true }
    } else {
        ignore
    };
    if hint {
        cx.src(n - 1, B64)?;
    }
    let (dst, src) = (cx.addr(0, Space::Shared)?, cx.addr(1, Space::Global)?);
    emit(
        cx,
        AsyncOp::CpAsync {
            dst,
            src,
            bytes: bytes as u8,
            src_size,
            ignore,
        },
    )
}

fn cp_async_arrive(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if !cx.flag("arrive") {
        return cx.no_form();
    }
    let noinc = cx.flag("noinc");
    let sp = shared_space(cx)?;
    if !cx.flag("b64") {
        return cx.no_form();
    }
    cx.count(1..=1)?;
    let bar = cx.addr(0, sp)?;
    emit(cx, AsyncOp::CpAsyncArrive { bar, noinc })
}

/// `.shared`, `.shared::cta`, `.shared::cluster` or generic.
pub(super) fn shared_space(cx: &mut Cx<'_, '_>) -> Res<Space> {
    match space(cx) {
        s @ (Space::Shared | Space::SharedCluster | Space::Generic) => Ok(s),
        _ => cx.no_form(),
    }
}

fn reduction(cx: &mut Cx<'_, '_>) -> Res<BulkReduce> {
    let op = cx.one_of(&["add", "min", "max", "and", "or", "xor"]);
    cx.flag("noftz");
    let ty = cx.ty()?;
    let bytes = (ty.bits / 8) as u8;
    Ok(match (op, ty.kind, ty.bits) {
        (Some("add"), Kind::Unsigned | Kind::Signed, 32) => BulkReduce::AddU32,
        (Some("add"), Kind::Unsigned, 64) => BulkReduce::AddU64,
        (Some("add"), Kind::Float, 64) => BulkReduce::AddF64,
        (Some("add"), Kind::Float, 32) => BulkReduce::AddF32,
        (Some("add"), Kind::Float, 16) if ty.format == Some(crate::num::format::F16) => {
            BulkReduce::AddF16
        }
        (Some("add"), Kind::Float, 16) => BulkReduce::AddBf16,
        (Some("min"), Kind::Unsigned | Kind::Signed, 32 | 64) => {
            BulkReduce::Min(bytes, ty.signed())
        }
        (Some("max"), Kind::Unsigned | Kind::Signed, 32 | 64) => {
            BulkReduce::Max(bytes, ty.signed())
        }
        (Some("and"), Kind::Bits, 32 | 64) => BulkReduce::And,
        (Some("or"), Kind::Bits, 32 | 64) => BulkReduce::Or,
        (Some("xor"), Kind::Bits, 32 | 64) => BulkReduce::Xor,
        _ => return cx.no_form(),
    })
}

fn bulk(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let reduce = cx.raw.mods.first().is_some_and(|m| m.text == "reduce");
    cx.flag("bulk");
    match cx.one_of(&["commit_group", "wait_group"]) {
        Some("commit_group") => return emit(cx, AsyncOp::BulkCommit),
        Some(_) => {
            cx.flag("read");
            let pending = pending(cx)?;
            return emit(cx, AsyncOp::BulkWait { pending });
        }
        None => {}
    }
    let tensor = cx.flag("tensor");
    let dims = cx.one_of(&["1d", "2d", "3d", "4d", "5d"]);
    if cx.flag("prefetch") {
        return bulk_prefetch(cx, tensor);
    }
    cx.flag("tile");
    let to = bulk_space(cx);
    let from = bulk_space(cx);
    let on_mbarrier = cx.flag("mbarrier::complete_tx::bytes");
    let in_group = cx.flag("bulk_group");
    let multicast = cx.flag("multicast::cluster");
    let hint = cx.flag("L2::cache_hint");
    let reduce = if reduce { Some(reduction(cx)?) } else { None };
    let dims = dims.map(|d| (d.as_bytes()[0] - b'0') as usize);
    match (to, from, on_mbarrier, in_group) {
        (Some(Space::SharedCluster | Space::Shared), Some(Space::Global), true, false)
            if reduce.is_none() =>
        {
            if tensor {
                tensor_load(cx, dims, multicast, hint)
            } else {
                bulk_load(cx, multicast, hint)
            }
        }
        (Some(Space::Global), Some(Space::Shared), false, true) if !multicast => {
            if tensor {
                tensor_store(cx, dims, hint, reduce)
            } else {
                bulk_store(cx, hint, reduce)
            }
        }
        (Some(Space::SharedCluster), Some(Space::Shared), true, false)
            if !tensor && !multicast && !hint =>
        {
            cx.count(4..=4)?;
            let dst = BulkDst::Cluster {
                dst: cx.addr(0, Space::SharedCluster)?,
                bar: cx.addr(3, Space::SharedCluster)?,
            };
            let (src, size) = (cx.addr(1, Space::Shared)?, cx.src(2, U32)?);
            emit(
                cx,
                AsyncOp::Bulk {
                    dst,
                    src,
                    size,
                    reduce,
                },
            )
        }
        _ => cx.no_form(),
    }
}

fn bulk_space(cx: &mut Cx<'_, '_>) -> Option<Space> {
    cx.take(|m| match m {
        "global" => Some(Space::Global),
        "shared::cta" => Some(Space::Shared),
        "shared::cluster" => Some(Space::SharedCluster),
        _ => None,
    })
}

fn bulk_prefetch(cx: &mut Cx<'_, '_>, tensor: bool) -> Res<bool> {
    let ok = cx.flag("L2") && cx.flag("global");
    cx.flag("tile");
    let hint = cx.flag("L2::cache_hint");
    let n = if tensor { 1 } else { 2 };
    cx.count(n + usize::from(hint)..=n + usize::from(hint))?;
    if ok {
        emit(cx, AsyncOp::BulkPrefetch)
    } else {
        cx.no_form()
    }
}

/// Trailing multicast mask and cache policy.
fn trailer(cx: &mut Cx<'_, '_>, at: usize, multicast: bool, hint: bool) -> Res<Option<R>> {
    let n = at + usize::from(multicast) + usize::from(hint);
    cx.count(n..=n)?;
    if hint {
        cx.src(n - 1, B64)?;
    }
    let mask_ty = Ty { bits: 16, ..U32 };
    if multicast {
        Ok(Some(cx.src(at, mask_ty)?))
    } else {
        Ok(None)
    }
}

fn bulk_load(cx: &mut Cx<'_, '_>, multicast: bool, hint: bool) -> Res<bool> {
    let multicast = trailer(cx, 4, multicast, hint)?;
    let (dst, bar) = (
        cx.addr(0, Space::SharedCluster)?,
        cx.addr(3, Space::SharedCluster)?,
    );
    let (src, size) = (cx.addr(1, Space::Global)?, cx.src(2, U32)?);
    emit(
        cx,
        AsyncOp::Bulk {
            dst: BulkDst::Shared {
                dst,
                bar,
                multicast,
            },
            src,
            size,
            reduce: None,
        },
    )
}

fn bulk_store(cx: &mut Cx<'_, '_>, hint: bool, reduce: Option<BulkReduce>) -> Res<bool> {
    trailer(cx, 3, false, hint)?;
    let dst = BulkDst::Global {
        dst: cx.addr(0, Space::Global)?,
    };
    let (src, size) = (cx.addr(1, Space::Shared)?, cx.src(2, U32)?);
    emit(
        cx,
        AsyncOp::Bulk {
            dst,
            src,
            size,
            reduce,
        },
    )
}

fn tensor_copy(cx: &mut Cx<'_, '_>, i: usize, dims: Option<usize>) -> Res<TensorCopy> {
    let o = cx.operand(i)?;
    let (map, rest) = cx.addr_of(o, map_space(o, cx))?;
    let [Operand::Vector(coords)] = rest else {
        return cx.operand_err("coordinates `{…}` are wanted");
    };
    if Some(coords.len()) != dims {
        return cx.operand_err(format!(
            "{} coordinates for a copy of another rank",
            coords.len()
        ));
    }
    let mut out = Vec::new();
    for c in coords {
        out.push(cx.value(c, crate::isa::types::S32)?);
    }
    Ok(TensorCopy {
        map,
        coords: out.into(),
    })
}

/// A tensor map is named by a generic address, or directly by its kernel parameter.
fn map_space(o: &Operand, cx: &Cx<'_, '_>) -> Space {
    if let Operand::Addr { base, .. } = o
        && let Operand::Sym(name) = &**base
        && cx.d.program.params.iter().any(|p| p.name == *name)
    {
        return Space::Param;
    }
    Space::Generic
}

fn tensor_load(cx: &mut Cx<'_, '_>, dims: Option<usize>, multicast: bool, hint: bool) -> Res<bool> {
    let multicast = trailer(cx, 3, multicast, hint)?;
    let tensor = tensor_copy(cx, 1, dims)?;
    let (dst, bar) = (
        cx.addr(0, Space::SharedCluster)?,
        cx.addr(2, Space::SharedCluster)?,
    );
    emit(
        cx,
        AsyncOp::TensorLoad {
            dst,
            bar,
            multicast,
            tensor,
        },
    )
}

fn tensor_store(
    cx: &mut Cx<'_, '_>,
    dims: Option<usize>,
    hint: bool,
    reduce: Option<BulkReduce>,
) -> Res<bool> {
    trailer(cx, 2, false, hint)?;
    let tensor = tensor_copy(cx, 0, dims)?;
    let src = cx.addr(1, Space::Shared)?;
    emit(
        cx,
        AsyncOp::TensorStore {
            src,
            tensor,
            reduce,
        },
    )
}

fn mapa(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let generic = !cx.flag("shared::cluster");
    let ty = cx.ty()?;
    cx.count(3..=3)?;
    if !matches!(ty.bits, 32 | 64) || ty.kind != Kind::Unsigned || generic && ty.bits == 32 {
        return cx.no_form();
    }
    let (d, a, rank) = (cx.dst(0, ty.bits)?, cx.src(1, ty)?, cx.src(2, U32)?);
    emit(
        cx,
        AsyncOp::Mapa {
            d,
            a,
            rank,
            generic,
            wide: ty.bits == 64,
        },
    )
}

fn cluster(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let what = cx.one_of(&["arrive", "wait"]);
    let order = match cx.one_of(&["release", "relaxed", "acquire"]) {
        Some("relaxed") => Order::Relaxed,
        _ => Order::AcqRel,
    };
    let aligned = cx.flag("aligned");
    cx.count(0..=0)?;
    let op = match what {
        Some("arrive") => AsyncOp::ClusterArrive { order },
        Some(_) => AsyncOp::ClusterWait,
        None => return cx.no_form(),
    };
    let op = Op::Async(Box::new(op));
    if aligned {
        cx.emit_aligned(op, Class::Barrier)
    } else {
        cx.emit(op, Class::Barrier)
    }
}

/// A policy is opaque: any 64-bit value will do.
fn createpolicy(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let Some(form) = cx.one_of(&["fractional", "range", "cvt"]) else {
        return cx.no_form();
    };
    cx.flag("global");
    cx.flag("L2");
    while cx.take(|m| m.starts_with("L2::").then_some(())).is_some() {}
    if !cx.flag("b64") {
        return cx.no_form();
    }
    cx.count(if form == "range" { 4..=4 } else { 1..=2 })?;
    let d = cx.dst(0, 64)?;
    let value = cx.d.constant(0x12F0_0000_0000_0000);
    cx.emit(
        Op::Alu {
            f: lane_move(),
            d,
            s: [value, ZERO, ZERO, ZERO],
        },
        Class::Hint,
    )
}

fn st_async(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if !cx.flag("async") {
        return Ok(false);
    }
    cx.flag("weak");
    cx.flag("shared::cluster");
    if !cx.flag("mbarrier::complete_tx::bytes") {
        return cx.no_form();
    }
    let n = match cx.one_of(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    let ty = cx.ty()?;
    cx.count(3..=3)?;
    let parts = cx.parts(1)?;
    if parts.len() != n || !matches!(ty.bits, 32 | 64) {
        return cx.no_form();
    }
    let mut regs = Vec::new();
    for p in parts {
        regs.push(cx.value(p, ty)?);
    }
    let (dst, bar) = (
        cx.addr(0, Space::SharedCluster)?,
        cx.addr(2, Space::SharedCluster)?,
    );
    emit(
        cx,
        AsyncOp::StAsync {
            dst,
            bar,
            bytes: (ty.bits / 8) as u8,
            regs: regs.into(),
        },
    )
}
