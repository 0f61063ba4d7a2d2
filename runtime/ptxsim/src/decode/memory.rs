//! Loads, stores, atomics, fences and prefetches.

use super::context::{Cx, Res};
use crate::isa::asynch::Addr;
use crate::isa::memory::{AtomKind, AtomOp, MemOp, Order, Scope, Space};
use crate::isa::types::{B64, Kind, Ty, U32};
use crate::isa::{CONST, Class, Fence, Op, R};
use crate::num::format::{BF16, F16, F32};
use crate::parse::ast::Operand;

const ZERO: R = CONST;

/// Decodes the instruction when it is one of this family.
pub(super) fn decode(cx: &mut Cx<'_, '_>) -> Res<bool> {
    match cx.raw.opcode.as_str() {
        "ld" | "ldu" => load(cx),
        "st" if cx.raw.mods.first().is_some_and(|m| m.text == "async") => Ok(false),
        "st" => store(cx),
        "atom" => atomic(cx, true),
        "red" if cx.raw.mods.first().is_some_and(|m| m.text == "async") => Ok(false),
        "red" => atomic(cx, false),
        "membar" | "fence" => fence(cx),
        "prefetch" | "prefetchu" | "discard" | "applypriority" => prefetch(cx),
        _ => Ok(false),
    }
}

/// Takes a state space; generic when none is written.
pub(super) fn space(cx: &mut Cx<'_, '_>) -> Space {
    match cx.one_of(&[
        "global",
        "shared::cta",
        "shared::cluster",
        "shared",
        "local",
        "param::entry",
        "param",
        "const",
    ]) {
        Some("global") => Space::Global,
        Some("shared" | "shared::cta") => Space::Shared,
        Some("shared::cluster") => Space::SharedCluster,
        Some("local") => Space::Local,
        Some("param" | "param::entry") => Space::Param,
        Some(_) => Space::Const,
        None => Space::Generic,
    }
}

/// Takes a memory order and scope.
pub(super) fn order(cx: &mut Cx<'_, '_>) -> (Order, Scope) {
    let order = match cx.one_of(&[
        "weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio",
    ]) {
        None | Some("weak") => Order::Weak,
        Some("acquire") => Order::Acquire,
        Some("release") => Order::Release,
        Some("acq_rel") => Order::AcqRel,
        Some(_) => Order::Relaxed,
    };
    (order, scope(cx).unwrap_or(Scope::Sys))
}

pub(super) fn scope(cx: &mut Cx<'_, '_>) -> Option<Scope> {
    cx.one_of(&["cta", "cluster", "gpu", "sys"])
        .map(|s| match s {
            "cta" => Scope::Cta,
            "cluster" => Scope::Cluster,
            "gpu" => Scope::Gpu,
            _ => Scope::Sys,
        })
}

/// Takes cache operators and eviction priorities; true when a policy operand follows.
pub(super) fn cache(cx: &mut Cx<'_, '_>) -> bool {
    cx.one_of(&["ca", "cg", "cs", "lu", "cv", "wb", "wt"]);
    cx.take(|m| m.starts_with("L1::").then_some(()));
    let hint = cx.flag("L2::cache_hint");
    while cx.take(|m| m.starts_with("L2::").then_some(())).is_some() {}
    hint
}

fn vector(cx: &mut Cx<'_, '_>) -> usize {
    match cx.one_of(&["v2", "v4", "v8"]) {
        Some("v2") => 2,
        Some("v4") => 4,
        Some(_) => 8,
        None => 1,
    }
}

fn element(cx: &mut Cx<'_, '_>, n: usize) -> Res<Ty> {
    let ty = cx.ty()?;
    if ty.kind == Kind::Pred || ty.bits > 64 || ty.bits < 8 || ty.bits as usize * n > 256 {
        return cx.no_form();
    }
    Ok(ty)
}

fn policy(cx: &mut Cx<'_, '_>, hint: bool, at: usize) -> Res<()> {
    cx.count(at + usize::from(hint)..=at + usize::from(hint))?;
    if hint {
        cx.src(at, B64)?;
    }
    Ok(())
}

fn load(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let (order, scope) = order(cx);
    cx.flag("nc");
    let space = space(cx);
    let hint = cache(cx);
    let n = vector(cx);
    let ty = element(cx, n)?;
    policy(cx, hint, 2)?;
    let parts = cx.parts(0)?;
    if parts.len() != n {
        return cx.operand_err(format!("{n} destinations are wanted, not {}", parts.len()));
    }
    let mut regs = Vec::new();
    let mut extend = 0;
    for p in parts {
        if *p == Operand::Sink {
            regs.push(None);
            continue;
        }
        let (r, have) = cx.any_reg(p)?;
        if u32::from(have) < ty.bits || ty.is_float() && u32::from(have) != ty.bits.max(16) {
            return cx.operand_err(format!("destination has {have} bits, the type {}", ty.bits));
        }
        extend = if ty.signed() && u32::from(have) > ty.bits {
            have
        } else {
            0
        };
        regs.push(Some(r));
    }
    let a = cx.addr(1, space)?;
    communicate(cx, order, scope, a.space);
    let op = mem(a, order, scope, ty, extend, regs);
    let class = match space {
        Space::Shared | Space::SharedCluster => Class::LoadShared,
        Space::Global | Space::Generic => Class::LoadGlobal,
        _ => Class::MemoryOther,
    };
    cx.emit(Op::Ld(Box::new(op)), class)
}

fn mem(a: Addr, order: Order, scope: Scope, ty: Ty, extend: u8, regs: Vec<Option<R>>) -> MemOp {
    MemOp {
        space: a.space,
        order,
        scope,
        bytes: (ty.bits / 8) as u8,
        extend,
        addr: a.reg,
        narrow: a.narrow,
        off: a.off,
        regs: regs.into(),
    }
}

/// Blocks that synchronize through memory cannot be run one after the other on several threads.
fn communicate(cx: &mut Cx<'_, '_>, order: Order, scope: Scope, space: Space) {
    if order != Order::Weak
        && scope > Scope::Cluster
        && matches!(space, Space::Global | Space::Generic)
    {
        cx.d.program.communicates = true;
    }
}

fn store(cx: &mut Cx<'_, '_>) -> Res<bool> {
    let (order, scope) = order(cx);
    let space = space(cx);
    let hint = cache(cx);
    let n = vector(cx);
    let ty = element(cx, n)?;
    policy(cx, hint, 2)?;
    let parts = cx.parts(1)?;
    if parts.len() != n {
        return cx.operand_err(format!("{n} sources are wanted, not {}", parts.len()));
    }
    let mut regs = Vec::new();
    for p in parts {
        let r = match p {
            Operand::Reg(_) => {
                let (r, have) = cx.any_reg(p)?;
                if u32::from(have) < ty.bits || ty.is_float() && u32::from(have) != ty.bits.max(16)
                {
                    return cx.operand_err(format!("source has {have} bits, the type {}", ty.bits));
                }
                r
            }
            p => cx.value(p, ty)?,
        };
        regs.push(Some(r));
    }
    let a = cx.addr(0, space)?;
    if matches!(space, Space::Param | Space::Const) {
        return cx.no_form();
    }
    communicate(cx, order, scope, a.space);
    let op = mem(a, order, scope, ty, 0, regs);
    let class = match space {
        Space::Shared | Space::SharedCluster => Class::StoreShared,
        Space::Global | Space::Generic => Class::StoreGlobal,
        _ => Class::MemoryOther,
    };
    cx.emit(Op::St(Box::new(op)), class)
}

const ATOMS: [&str; 11] = [
    "add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas", "ballot",
];

fn atom_kind(name: &str, ty: Ty) -> Option<AtomKind> {
    let wide = matches!(ty.bits, 32 | 64);
    Some(match (name, ty.kind, ty.bits) {
        ("add", Kind::Unsigned | Kind::Signed, 32 | 64) => AtomKind::Add,
        ("add", Kind::Float, 64) => AtomKind::AddF64,
        ("add", Kind::Float, 32) if ty.format == Some(F32) => AtomKind::AddF32,
        ("add", Kind::Float, 16) if ty.format == Some(F16) => AtomKind::AddF16,
        ("add", Kind::Float, 16) if ty.format == Some(BF16) => AtomKind::AddBf16,
        ("add", Kind::Pair, 32) if ty.format == Some(F16) => AtomKind::AddF16x2,
        ("add", Kind::Pair, 32) if ty.format == Some(BF16) => AtomKind::AddBf16x2,
        ("min", Kind::Unsigned, _) if wide => AtomKind::MinU,
        ("max", Kind::Unsigned, _) if wide => AtomKind::MaxU,
        ("min", Kind::Signed, _) if wide => AtomKind::MinS,
        ("max", Kind::Signed, _) if wide => AtomKind::MaxS,
        ("and", Kind::Bits, _) if wide => AtomKind::And,
        ("or", Kind::Bits, _) if wide => AtomKind::Or,
        ("xor", Kind::Bits, _) if wide => AtomKind::Xor,
        ("inc", Kind::Unsigned, 32) => AtomKind::Inc,
        ("dec", Kind::Unsigned, 32) => AtomKind::Dec,
        ("exch", Kind::Bits, _) if wide => AtomKind::Exch,
        ("cas", Kind::Bits, 16 | 32 | 64) => AtomKind::Cas,
        ("exch", Kind::Unsigned | Kind::Signed, _) if wide => AtomKind::Exch,
        ("cas", Kind::Unsigned | Kind::Signed, _) if wide => AtomKind::Cas,
        _ => return None,
    })
}

fn atomic(cx: &mut Cx<'_, '_>, returns: bool) -> Res<bool> {
    let (order, scope) = order(cx);
    let order = if order == Order::Weak {
        Order::Relaxed
    } else {
        order
    };
    let scope = if scope == Scope::Sys {
        Scope::Gpu
    } else {
        scope
    };
    let space = space(cx);
    let Some(name) = cx.one_of(&ATOMS) else {
        return cx.no_form();
    };
    cx.flag("noftz");
    let hint = cache(cx);
    let n = vector(cx);
    let ty = cx.ty()?;
    let Some(kind) = atom_kind(name, ty) else {
        return cx.no_form();
    };
    if !matches!(
        space,
        Space::Generic | Space::Global | Space::Shared | Space::SharedCluster
    ) {
        return cx.no_form();
    }
    let first = usize::from(returns);
    let values = if kind == AtomKind::Cas { 2 } else { 1 };
    policy(cx, hint, first + 1 + values)?;
    let d = if returns {
        cx.parts(0)?.to_vec()
    } else {
        vec![Operand::Sink; n]
    };
    let a = cx.parts(first + 1)?.to_vec();
    if d.len() != n || a.len() != n || (n > 1 && values == 2) {
        return cx.operand_err(format!("vectors of {n} are wanted"));
    }
    let mut pairs = Vec::new();
    for (d, a) in d.iter().zip(&a) {
        let d = if *d == Operand::Sink {
            None
        } else {
            Some(cx.reg(d, ty.bits)?)
        };
        pairs.push((d, cx.value(a, ty)?));
    }
    let b = if values == 2 {
        cx.src(first + 2, ty)?
    } else {
        ZERO
    };
    let at = cx.addr(first, space)?;
    if matches!(space, Space::Global | Space::Generic) {
        cx.d.program.communicates = true;
    }
    let (d, a) = pairs.remove(0);
    let op = AtomOp {
        kind,
        space,
        order,
        scope,
        bytes: (ty.bits / 8) as u8,
        addr: at.reg,
        narrow: at.narrow,
        off: at.off,
        d,
        a,
        b,
        more: pairs.into(),
    };
    cx.emit(Op::Atom(Box::new(op)), Class::Atomic)
}

fn fence(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if cx.raw.opcode == "membar" {
        let scope = match cx.one_of(&["cta", "gl", "sys"]) {
            Some("cta") => Scope::Cta,
            Some(_) => Scope::Gpu,
            None => return cx.no_form(),
        };
        return cx.emit(Op::Fence(Fence::Thread(scope)), Class::Barrier);
    }
    if cx.flag("mbarrier_init") {
        let ok = cx.flag("release") && cx.flag("cluster");
        return if ok {
            cx.emit(Op::Fence(Fence::MbarrierInit), Class::Barrier)
        } else {
            cx.no_form()
        };
    }
    if let Some(kind) = cx.take(|m| match m {
        "proxy::async" | "proxy::async::generic" => Some(Fence::ProxyAsync),
        _ if m.starts_with("proxy") => Some(Fence::ProxyOther),
        _ => None,
    }) {
        return proxy(cx, kind);
    }
    cx.one_of(&["sc", "acq_rel", "acquire", "release"]);
    cx.one_of(&[
        "sync_restrict::shared::cta",
        "sync_restrict::shared::cluster",
    ]);
    let Some(scope) = scope(cx) else {
        return cx.no_form();
    };
    cx.count(0..=0)?;
    if scope > Scope::Cluster {
        cx.d.program.communicates = true;
    }
    cx.emit(Op::Fence(Fence::Thread(scope)), Class::Barrier)
}

/// `fence.proxy.async[.space]`, `.proxy.alias`, `.proxy.tensormap::generic.….scope [addr], 128`.
fn proxy(cx: &mut Cx<'_, '_>, mut kind: Fence) -> Res<bool> {
    if cx.flag("async") {
        kind = Fence::ProxyAsync;
    }
    if cx.one_of(&["async::generic", "alias", "tensormap::generic"]) == Some("async::generic") {
        kind = Fence::ProxyAsync;
    }
    cx.one_of(&["release", "acquire", "acq_rel"]);
    cx.one_of(&[
        "sync_restrict::shared::cta",
        "sync_restrict::shared::cluster",
    ]);
    scope(cx);
    cx.one_of(&["global", "shared::cta", "shared::cluster"]);
    cx.count(0..=2)?;
    cx.emit(Op::Fence(kind), Class::Barrier)
}

/// Hints read nothing and write nothing; their address is not checked.
fn prefetch(cx: &mut Cx<'_, '_>) -> Res<bool> {
    if cx.flag("tensormap") {
        space(cx);
        cx.count(1..=1)?;
        return cx.emit(Op::Nop, Class::Hint);
    }
    let space = space(cx);
    let level = cx.one_of(&["L1", "L2", "L2::evict_last", "L2::evict_normal"]);
    if level.is_none() {
        return cx.no_form();
    }
    cx.count(1..=2)?;
    cx.addr(0, space)?;
    if cx.raw.operands.len() == 2 {
        cx.src(1, U32)?;
    }
    cx.emit(Op::Nop, Class::Hint)
}
