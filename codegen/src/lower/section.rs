//! A whole function as one target's section: kernels, steps in order, and the arena.

use super::frame::{Launched, Limit, internal};
use super::places::{Part, Place, part_name, place, root};
use crate::arena::{Layout, Request, plan};
use crate::kernels::gemm::vendor;
use crate::kernels::{Candidate, Served, build, unsupported};
use crate::target::Target;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::graph::{Def, Func, Loc, Module, Op, OpId, OpKind, ScaleType, Value, ValueId};
use qcc_ir::kernel::Kernel;
use qcc_ir::plan::{Action, Arg, Choice, Guard, Step};
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
    /// By position, the name under which launches write each output.
    pub outputs: Vec<String>,
    /// Names and bytes of memory within steps.
    scratch: Vec<(String, DimExpr)>,
}

/// What a lowering may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerOptions {
    /// Products of the vendor's library, where it is at least as good a guess as our kernels.
    pub vendor_gemm: bool,
}

/// Lowers the entry function for a GPU target.
///
/// # Errors
/// Every op that no kernel serves, each with its reason.
pub fn lower(
    m: &Module,
    target: &Target,
    options: LowerOptions,
) -> std::result::Result<Section, Vec<Diagnostic>> {
    let Some(f) = m.funcs.first() else {
        return Err(vec![internal("the module has no function")]);
    };
    let (f, outputs) = with_outputs(f);
    let mut s = Section {
        kernels: BTreeMap::new(),
        steps: Vec::new(),
        arena: plan(m, &[]),
        outputs,
        scratch: Vec::new(),
    };
    let mut errors = Vec::new();
    for (_, op) in f.ops() {
        match build(m, &f, op, target) {
            Err(e) => errors.push(e.or_at(op.loc.to_string())),
            Ok(Served::Nothing) => {}
            Ok(Served::Kernels(launches)) => {
                let way = Candidate {
                    launches,
                    ..Candidate::default()
                };
                errors.extend(s.step(m, &f, op, vec![way]).err());
            }
            Ok(Served::Choices(mut all)) => {
                if options.vendor_gemm {
                    match vendor::candidate(m, &f, op, target) {
                        Ok(way) => all.splice(0..0, way).for_each(drop),
                        Err(e) => errors.push(e.or_at(op.loc.to_string())),
                    }
                }
                errors.extend(s.step(m, &f, op, all).err());
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    s.arena = arena(m, &f, &s).map_err(|e| vec![e])?;
    Ok(s)
}

impl Section {
    /// Adds the step of an op with its ways to run.
    ///
    /// # Errors
    /// When a size that is known is beyond what a kernel can do.
    fn step(&mut self, m: &Module, f: &Func, op: &Op, ways: Vec<Candidate>) -> Result<()> {
        let mut run = Vec::with_capacity(ways.len());
        for way in ways {
            let mut when = way.when;
            for l in way.launches.iter().flat_map(|l| &l.limits) {
                limit(m, &mut when, l).map_err(|e| e.or_at(op.loc.to_string()))?;
            }
            self.scratch.extend(way.scratch);
            let product = way.vendor.map(|g| Action::Vendor(Box::new(g)));
            let launches = way.launches.iter();
            run.push(Choice {
                requires: way.requires.map(str::to_string),
                when,
                actions: product
                    .into_iter()
                    .chain(
                        launches
                            .map(|l| Action::Launch(launch(&mut self.kernels, op.kind.name(), l))),
                    )
                    .collect(),
            });
        }
        self.steps.push(Step {
            op: f.value(op.results[0]).name.clone(),
            run,
        });
        Ok(())
    }
}

/// Restricts a way to run to the sizes that a kernel works with, where the ranges of the symbols
/// allow more.
///
/// # Errors
/// When no size within the ranges is small enough.
fn limit(m: &Module, when: &mut Vec<Guard>, l: &Limit) -> Result<()> {
    let (least, most) = l.size.bounds(&|s| m.symbol_range(s));
    let fits = |v: i64| u64::try_from(v).unwrap_or(0) <= l.most;
    if fits(most) {
        return Ok(());
    }
    if !fits(least) {
        let text = format!("{} is more than the {} of a launch", l.size, l.most);
        return Err(unsupported(text));
    }
    let expr = l.size.to_string();
    match when.iter_mut().find(|g| g.expr == expr) {
        Some(g) => g.max = g.max.min(l.most),
        None => when.push(Guard {
            expr,
            min: 0,
            max: l.most,
        }),
    }
    Ok(())
}

/// The function with every output in memory of its own, and the outputs' names.
///
/// A kernel writes each output under the name of its value. A result that is an input, a
/// constant or an output already gets a copy.
fn with_outputs(f: &Func) -> (Func, Vec<String>) {
    let mut f = f.clone();
    let mut names: Vec<String> = Vec::new();
    for at in 0..f.results.len() {
        let v = f.results[at].1;
        let r = root(&f, v);
        let written = f
            .def_op(r)
            .is_some_and(|o| !matches!(o.kind, OpKind::Const { .. } | OpKind::Splat { .. }));
        let name = part_name(&f, v, Part::Codes);
        if written && !names.contains(&name) {
            names.push(name);
            continue;
        }
        let id = OpId(f.ops.len() as u32);
        let copy = ValueId(f.values.len() as u32);
        // `#` occurs in no other name.
        let name = format!("{}#output{at}", f.value(v).name);
        f.values.push(Value {
            name: name.clone(),
            ty: f.ty(v).clone(),
            def: Def::Result(id, 0),
        });
        f.ops.push(Op {
            kind: OpKind::Cast,
            operands: vec![v],
            results: vec![copy],
            loc: Loc::default(),
        });
        f.results[at].1 = copy;
        names.push(name);
    }
    (f, names)
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

/// Plans memory for every value that a step writes and that is neither input nor output, and for
/// what lasts within a step.
fn arena(m: &Module, f: &Func, s: &Section) -> Result<Layout> {
    let (steps, outputs) = (&s.steps, &s.outputs);
    let mut sizes: HashMap<String, DimExpr> = s.scratch.iter().cloned().collect();
    let values = f.ops.iter().flat_map(|o| &o.results);
    for r in values.filter(|r| root(f, **r) == **r) {
        for part in [Part::Codes, Part::Scale, Part::Zero] {
            let name = part_name(f, *r, part);
            let own =
                matches!(place(m, f, *r, part)?, Some(Place::Memory(Arg::Value(n))) if n == name);
            if own && !outputs.contains(&name) {
                sizes.insert(name, bytes(f, *r, part));
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

/// The values that a step's actions mention.
fn names(s: &Step) -> impl Iterator<Item = &str> {
    let actions = s.run.iter().flat_map(|c| &c.actions);
    actions.flat_map(Action::args).filter_map(|a| match a {
        Arg::Value(n) => Some(n.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use qcc_ir::expr::{BinaryFn, UnaryFn};
    use qcc_ir::graph::{Builder, Elem, TensorType};

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
        let s = lower(&m, Target::find("sm_80").unwrap(), LowerOptions::default()).unwrap();
        assert_eq!((s.steps.len(), s.kernels.len()), (9, 3));
        assert_eq!(s.arena.bytes.to_string(), "512*((128*n + 255)//256)");
    }
}
