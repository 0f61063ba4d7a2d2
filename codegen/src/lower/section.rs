//! A whole function as one target's section: kernels, steps in order, and the arena.

use super::frame::Launched;
use super::places::{Part, Place, part_name, place, root};
use crate::arena::{Layout, Request, plan};
use crate::kernels::{Served, build};
use crate::target::Target;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, ScaleType, ValueId};
use qcc_ir::kernel::Kernel;
use qcc_ir::plan::{Action, Arg, Choice, Step};
use qcc_ir::{DType, DimExpr};
use std::collections::{BTreeMap, HashMap};

/// What a target executes, before emission.
#[derive(Debug)]
pub struct Section {
    /// Every kernel once, by name.
    pub kernels: BTreeMap<String, Kernel>,
    /// Launches in execution order.
    pub steps: Vec<Step>,
    /// Where intermediate values live.
    pub arena: Layout,
}

/// Lowers the entry function for a GPU target.
///
/// # Errors
/// Every op that no kernel serves, each with its reason.
pub fn lower(m: &Module, target: &Target) -> std::result::Result<Section, Vec<Diagnostic>> {
    let Some(f) = m.funcs.first() else {
        return Err(vec![Diagnostic::error(
            912,
            Class::Internal,
            "the module has no function",
        )]);
    };
    let mut kernels = BTreeMap::new();
    let mut steps = Vec::new();
    let mut errors = Vec::new();
    for (_, op) in f.ops() {
        match build(m, f, op, target) {
            Err(e) => errors.push(e.or_at(op.loc.to_string())),
            Ok(Served::Nothing) => {}
            Ok(Served::Kernels(launches)) => {
                let actions = launches
                    .into_iter()
                    .map(|l| Action::Launch(launch(&mut kernels, op.kind.name(), &l)))
                    .collect();
                steps.push(Step {
                    op: f.value(op.results[0]).name.clone(),
                    run: vec![Choice {
                        requires: None,
                        when: Vec::new(),
                        actions,
                    }],
                });
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let arena = arena(m, f, &steps).map_err(|e| vec![e])?;
    Ok(Section {
        kernels,
        steps,
        arena,
    })
}

/// Names a kernel after its op and its text, and records it once.
fn launch(kernels: &mut BTreeMap<String, Kernel>, op: &str, l: &Launched) -> qcc_ir::plan::Launch {
    let name = format!("{op}_{:016x}", fnv1a(l.kernel.to_string().as_bytes()));
    kernels
        .entry(name.clone())
        .or_insert_with(|| l.kernel.clone().renamed(&name));
    l.step(&name)
}

/// FNV-1a, 64 bits: names only; the plan file's hashes are cryptographic.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Bytes of a part of a value.
fn bytes(f: &Func, v: ValueId, part: Part) -> DimExpr {
    let t = f.ty(v);
    let (shape, d) = match part {
        Part::Codes => (t.shape.clone(), t.elem.storage()),
        Part::Scale => {
            let d = match t.elem.quant().map(|q| &q.scale) {
                Some(ScaleType::Plain(d)) | Some(ScaleType::TwoLevel(d, _)) => *d,
                None => DType::F32,
            };
            (t.scale_shape().unwrap_or_default(), d)
        }
        Part::Zero => (
            t.scale_shape().unwrap_or_default(),
            t.elem.quant().and_then(|q| q.zero).unwrap_or(DType::F32),
        ),
    };
    let n = DimExpr::product(&shape);
    match d.bits() {
        4 => (n + DimExpr::from(1)).floor_div(&DimExpr::from(2)),
        b => n * DimExpr::from(i64::from(b / 8)),
    }
}

/// Plans memory for every value that a step writes and that is neither input nor output.
fn arena(m: &Module, f: &Func, steps: &[Step]) -> Result<Layout> {
    let outside: Vec<ValueId> = f
        .params
        .iter()
        .copied()
        .chain(f.results.iter().map(|(_, v)| root(f, *v)))
        .collect();
    let mut sizes: HashMap<String, DimExpr> = HashMap::new();
    for (_, op) in f.ops() {
        for r in op
            .results
            .iter()
            .filter(|r| root(f, **r) == **r && !outside.contains(r))
        {
            for part in [Part::Codes, Part::Scale, Part::Zero] {
                let name = part_name(f, *r, part);
                if matches!(place(m, f, *r, part)?, Some(Place::Memory(Arg::Value(n))) if n == name)
                {
                    sizes.insert(name, bytes(f, *r, part));
                }
            }
        }
    }
    let mut requests: Vec<Request> = Vec::new();
    for (at, name) in steps
        .iter()
        .enumerate()
        .flat_map(|(i, s)| names(s).map(move |n| (i, n)))
    {
        match requests.iter_mut().find(|r| r.name == name) {
            Some(r) => r.dies = at,
            None => {
                if let Some(bytes) = sizes.get(name) {
                    requests.push(Request {
                        name: name.to_string(),
                        bytes: bytes.clone(),
                        born: at,
                        dies: at,
                    });
                }
            }
        }
    }
    Ok(plan(m, &requests))
}

/// The values that a step's launches mention.
fn names(s: &Step) -> impl Iterator<Item = &str> {
    let launches = s
        .run
        .iter()
        .flat_map(|c| &c.actions)
        .filter_map(|a| match a {
            Action::Launch(l) => Some(l),
            _ => None,
        });
    launches.flat_map(|l| &l.args).filter_map(|a| match a {
        Arg::Value(n) => Some(n.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::expr::{BinaryFn, UnaryFn};
    use qcc_ir::graph::{Builder, Elem, OpKind, TensorType};

    fn f16(d: &[DimExpr]) -> TensorType {
        TensorType::new(DType::F16, d.iter().cloned())
    }

    #[test]
    fn layers_of_one_shape_share_their_kernels_and_memory() {
        let (n, h) = (DimExpr::sym("n"), DimExpr::from(64));
        let mut b = Builder::new("main");
        let x = b.param("x", f16(&[n, h.clone()]));
        let g = b.param("g", f16(&[h]));
        let mut v = x;
        for _ in 0..3 {
            let eps = 1e-5f32.to_bits();
            v = b
                .infer(
                    OpKind::RmsNorm { eps, expr: None },
                    &[v, g],
                    Elem::Plain(DType::F16),
                )
                .unwrap()[0];
            v = b.unary(UnaryFn::Silu, v).unwrap();
            v = b.binary(BinaryFn::Add, v, x).unwrap();
        }
        let m = b.finish_module([("y", v)]);
        let s = lower(&m, Target::find("sm_80").unwrap()).unwrap();
        assert_eq!((s.steps.len(), s.kernels.len()), (9, 3));
        assert_eq!(s.arena.bytes.to_string(), "512*((128*n + 255)//256)");
    }
}
