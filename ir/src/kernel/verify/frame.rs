//! Rules about a kernel's frame: names, parameters, launch shape, shared arrays.

use std::collections::HashSet;

use super::super::body::{Kernel, Kind, Launch, SharedArray};
use super::super::{Problem, Ty};

/// Static shared memory that every target offers.
const MAX_STATIC_SHARED: u32 = 48 * 1024;

pub(super) fn check(kernel: &Kernel) -> Vec<Problem> {
    let mut out = Vec::new();
    names(kernel, &mut out);
    params(kernel, &mut out);
    match &kernel.kind {
        Kind::Spmd(launch) => shape(launch, &mut out),
        Kind::Serial => serial(kernel, &mut out),
    }
    shared(kernel, &mut out);
    for ty in kernel.types.iter().filter(|ty| !ty.exists()) {
        out.push(Problem::new("K05", format!("no kernel type is `{ty}`")));
    }
    out
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn names(kernel: &Kernel, out: &mut Vec<Problem>) {
    let mut seen = HashSet::new();
    let inner = kernel
        .params
        .iter()
        .map(|p| &p.name)
        .chain(kernel.shared.iter().map(|a| &a.name));
    for name in inner.clone() {
        if !seen.insert(name) {
            out.push(Problem::new(
                "K16",
                format!("the name `{name}` is used twice"),
            ));
        }
    }
    for name in [&kernel.name]
        .into_iter()
        .chain(inner)
        .filter(|name| !is_identifier(name))
    {
        out.push(Problem::new("K16", format!("`{name}` is no identifier")));
    }
}

fn params(kernel: &Kernel, out: &mut Vec<Problem>) {
    for p in &kernel.params {
        let ok = match p.ty {
            Ty::Val { dtype, lanes } => lanes == 1 && dtype.bits() >= 32,
            Ty::Ptr { space, .. } => space.is_global(),
            Ty::TensorMap => true,
            Ty::Pending { .. } => false,
        };
        if !ok {
            out.push(Problem::new(
                "K16",
                format!("parameter `{}` cannot be `{}`", p.name, p.ty),
            ));
        }
    }
}

fn shape(launch: &Launch, out: &mut Vec<Problem>) {
    if !launch
        .block_threads()
        .is_some_and(|n| (1..=1024).contains(&n))
    {
        out.push(Problem::new(
            "K15",
            format!("block {:?}: 1 to 1024 threads", launch.block),
        ));
    }
    if !launch
        .cluster_blocks()
        .is_some_and(|n| (1..=16).contains(&n))
    {
        out.push(Problem::new(
            "K15",
            format!("cluster {:?}: 1 to 16 blocks", launch.cluster),
        ));
    }
    if launch.max_regs > 255 {
        out.push(Problem::new(
            "K17",
            format!("{} registers per thread: at most 255", launch.max_regs),
        ));
    }
}

fn serial(kernel: &Kernel, out: &mut Vec<Problem>) {
    let begins = match kernel.params.as_slice() {
        [b, e, ..] => b.name == "begin" && e.name == "end" && b.ty == Ty::I64 && e.ty == Ty::I64,
        _ => false,
    };
    if !begins {
        out.push(Problem::new(
            "K19",
            "the first parameters are `begin: i64, end: i64`",
        ));
    }
    if !kernel.shared.is_empty() {
        out.push(Problem::new("K07", "shared array in a serial kernel"));
    }
    if kernel.params.iter().any(|p| p.ty == Ty::TensorMap) {
        out.push(Problem::new("K07", "tensor map in a serial kernel"));
    }
}

fn shared(kernel: &Kernel, out: &mut Vec<Problem>) {
    let before = out.len();
    let bytes_of = |a: &SharedArray| a.elem.bits() / 8;
    for a in &kernel.shared {
        let aligned = a.align.is_power_of_two() && a.align <= 1024;
        if !aligned || a.align < bytes_of(a).max(1) || a.elem.bits() < 8 {
            out.push(Problem::new(
                "K14",
                format!("shared `{}`: alignment {} of `{}`", a.name, a.align, a.elem),
            ));
        }
    }
    if kernel.shared.iter().filter(|a| a.len.is_none()).count() > 1 {
        out.push(Problem::new("K14", "more than one dynamic shared array"));
    }
    let fits = kernel
        .static_shared_bytes()
        .is_some_and(|n| n <= MAX_STATIC_SHARED);
    if out.len() == before && !fits {
        out.push(Problem::new(
            "K14",
            "more than 48 KiB of static shared memory; use a dynamic array",
        ));
    }
}
