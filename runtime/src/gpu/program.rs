//! A GPU section with its names resolved and its expressions parsed: once for each engine.
//!
//! Ways to run a step that the chip cannot run are left out, and with them the kernels and
//! weights that only they use.

use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::plan::{self, Plan, TargetSection, WeightEntry};
use qcc_ir::{DType, DimExpr};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::TensorMapNumbers;
use super::driver::Capability;
use crate::plan_file::error::contradicts;

/// Position of an expression in [`Program::exprs`].
pub(crate) type ExprId = usize;

/// What a section does.
#[derive(Debug)]
pub(crate) struct Program {
    /// Each different expression once.
    pub(crate) exprs: Vec<DimExpr>,
    /// Weights that are used, as positions in the plan's list.
    pub(crate) weights: Vec<usize>,
    /// Kernels that are used, as positions in the section's list.
    pub(crate) kernels: Vec<usize>,
    /// Types and extents of the inputs and outputs.
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) arena: ExprId,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) steps: Vec<Step>,
    /// Steps that report faults, as positions in [`Program::steps`].
    pub(crate) faults: Vec<usize>,
    /// Most workspace that a vendor product asks for.
    pub(crate) workspace: u64,
    pub(crate) chip: Capability,
}

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<ExprId>,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) name: String,
    pub(crate) offset: ExprId,
    pub(crate) bytes: ExprId,
}

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: Arc<str>,
    pub(crate) choices: Vec<Choice>,
}

#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) when: Vec<Guard>,
    pub(crate) actions: Vec<Action>,
}

#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) expr: ExprId,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

#[derive(Debug)]
pub(crate) enum Action {
    Launch(Launch),
    Gemm(Gemm),
}

#[derive(Debug)]
pub(crate) struct Launch {
    /// Position in [`Program::kernels`].
    pub(crate) kernel: usize,
    pub(crate) grid: [ExprId; 3],
    pub(crate) block: [u32; 3],
    pub(crate) cluster: Option<[u32; 3]>,
    pub(crate) shared: u32,
    pub(crate) args: Vec<Arg>,
}

#[derive(Debug)]
pub(crate) enum Arg {
    Pointer(Place),
    Dim { expr: ExprId, dtype: DType },
    Map(Box<Map>),
}

/// A tensor map; sizes and strides are expressions.
#[derive(Debug)]
pub(crate) struct Map {
    /// Everything but the sizes and strides.
    pub(crate) fixed: TensorMapNumbers<Place>,
    pub(crate) dims: Vec<ExprId>,
    pub(crate) strides: Vec<ExprId>,
}

/// Memory that the executor owns, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Input(usize),
    Output(usize),
    /// In [`Program::buffers`].
    Buffer(usize),
    /// In [`Program::weights`].
    Weight(usize),
    /// The workspace of vendor products.
    Workspace,
    /// The fault words of a step in [`Program::faults`].
    Faults(usize),
}

#[derive(Debug)]
pub(crate) struct Gemm {
    pub(crate) m: ExprId,
    pub(crate) n: ExprId,
    pub(crate) k: ExprId,
    pub(crate) input: DType,
    pub(crate) output: DType,
    pub(crate) a: Place,
    pub(crate) b: Place,
    pub(crate) d: Place,
    pub(crate) a_scale: Option<Place>,
    pub(crate) b_scale: Option<Place>,
    pub(crate) bias: Option<Place>,
    pub(crate) gelu: bool,
    pub(crate) workspace: u64,
}

impl Program {
    /// Resolves a section for a chip.
    ///
    /// # Errors
    /// `Q0408`, which names the target and the step, for an expression that cannot be read or uses
    /// an unknown symbol, a name that stands for nothing, a block or argument that no kernel can
    /// have, and a step that the chip cannot run at all.
    pub(crate) fn resolve(plan: &Plan, section: &TargetSection, chip: Capability) -> Result<Self> {
        let place = |d: Diagnostic| d.or_at(format!("target {}", section.target));
        Resolver::new(plan, section, chip).run().map_err(place)
    }
}

struct Resolver<'a> {
    plan: &'a Plan,
    section: &'a TargetSection,
    chip: Capability,
    exprs: Vec<DimExpr>,
    seen: BTreeMap<String, ExprId>,
    places: BTreeMap<&'a str, Place>,
    weights: Vec<usize>,
    kernels: Vec<usize>,
    faults: Vec<usize>,
    /// Position of the step that is resolved.
    at: usize,
    workspace: u64,
}

impl<'a> Resolver<'a> {
    fn new(plan: &'a Plan, section: &'a TargetSection, chip: Capability) -> Self {
        let mut places = BTreeMap::new();
        for (i, p) in plan.inputs.iter().enumerate() {
            places.insert(p.name.as_str(), Place::Input(i));
        }
        for (i, b) in section.arena.buffers.iter().enumerate() {
            places.insert(b.value.as_str(), Place::Buffer(i));
        }
        for (i, name) in section.outputs.iter().enumerate() {
            places.insert(name.as_str(), Place::Output(i));
        }
        Resolver {
            plan,
            section,
            chip,
            exprs: Vec::new(),
            seen: BTreeMap::new(),
            places,
            weights: Vec::new(),
            kernels: Vec::new(),
            faults: Vec::new(),
            at: 0,
            workspace: 0,
        }
    }

    fn run(mut self) -> Result<Program> {
        let (plan, section) = (self.plan, self.section);
        if section.outputs.len() != plan.outputs.len() {
            return Err(contradicts(format!(
                "{} outputs are written, the plan has {}",
                section.outputs.len(),
                plan.outputs.len()
            )));
        }
        let inputs = self.ports(&plan.inputs)?;
        let outputs = self.ports(&plan.outputs)?;
        let arena = self.expr(&section.arena.bytes)?;
        let buffer = |b: &plan::Buffer| {
            Ok(Buffer {
                name: b.value.clone(),
                offset: self.expr(&b.offset)?,
                bytes: self.expr(&b.bytes)?,
            })
        };
        let buffers = section
            .arena
            .buffers
            .iter()
            .map(buffer)
            .collect::<Result<_>>()?;
        let mut steps = Vec::with_capacity(section.steps.len());
        for (at, s) in section.steps.iter().enumerate() {
            self.at = at;
            let place =
                |d: Diagnostic| d.or_at(format!("target {}, step {}", section.target, s.op));
            steps.push(self.step(s).map_err(place)?);
        }
        Ok(Program {
            exprs: self.exprs,
            weights: self.weights,
            kernels: self.kernels,
            inputs,
            outputs,
            arena,
            buffers,
            steps,
            faults: self.faults,
            workspace: self.workspace,
            chip: self.chip,
        })
    }

    fn ports(&mut self, ports: &[plan::Port]) -> Result<Vec<Port>> {
        let port = |p: &plan::Port| {
            let dims = p.dims.iter().map(|d| self.expr(d)).collect::<Result<_>>()?;
            let dtype = p.dtype;
            Ok(Port { dtype, dims })
        };
        ports.iter().map(port).collect()
    }

    fn expr(&mut self, text: &str) -> Result<ExprId> {
        if let Some(id) = self.seen.get(text) {
            return Ok(*id);
        }
        let parsed: DimExpr = text.parse().map_err(|e: Diagnostic| {
            contradicts(format!("`{text}` is no size: {}", e.message()))
        })?;
        let mut unknown = None;
        parsed.visit_syms(&mut |s| {
            if self.plan.symbol(s).is_none() {
                unknown = Some(s.to_string());
            }
        });
        if let Some(s) = unknown {
            return Err(contradicts(format!(
                "`{text}` uses the unknown symbol `{s}`"
            )));
        }
        let id = self.exprs.len();
        self.exprs.push(parsed);
        self.seen.insert(text.to_string(), id);
        Ok(id)
    }

    fn step(&mut self, s: &plan::Step) -> Result<Step> {
        let mut choices = Vec::new();
        for c in &s.run {
            if c.requires.as_ref().is_none_or(|r| self.chip.runs(r)) {
                choices.push(self.choice(c)?);
            }
        }
        if choices.is_empty() {
            return Err(contradicts(format!(
                "nothing of it runs on sm_{}",
                self.chip.sm
            )));
        }
        Ok(Step {
            op: s.op.as_str().into(),
            choices,
        })
    }

    fn choice(&mut self, c: &plan::Choice) -> Result<Choice> {
        let guard = |g: &plan::Guard| {
            Ok(Guard {
                expr: self.expr(&g.expr)?,
                min: g.min,
                max: g.max,
            })
        };
        let when = c.when.iter().map(guard).collect::<Result<_>>()?;
        let action = |a: &plan::Action| match a {
            plan::Action::Cpu => Err(contradicts("a GPU cannot run CPU code")),
            plan::Action::Launch(l) => self.launch(l).map(Action::Launch),
            plan::Action::Vendor(g) => self.gemm(g).map(Action::Gemm),
        };
        let actions = c.actions.iter().map(action).collect::<Result<_>>()?;
        Ok(Choice { when, actions })
    }

    fn launch(&mut self, l: &plan::Launch) -> Result<Launch> {
        let threads = l.block.iter().try_fold(1u32, |n, d| n.checked_mul(*d));
        if !matches!(threads, Some(1..=1024)) || l.block[2] > 64 {
            return Err(contradicts(format!("a block of {:?} threads", l.block)));
        }
        if l.cluster.is_some_and(|c| c.contains(&0)) {
            return Err(contradicts("a cluster without blocks"));
        }
        let [x, y, z] = &l.grid;
        Ok(Launch {
            kernel: self.kernel(&l.kernel)?,
            grid: [self.expr(x)?, self.expr(y)?, self.expr(z)?],
            block: l.block,
            cluster: l.cluster,
            shared: l.shared,
            args: l.args.iter().map(|a| self.arg(a)).collect::<Result<_>>()?,
        })
    }

    fn kernel(&mut self, name: &str) -> Result<usize> {
        let listed = &self.section.kernels;
        let Some(at) = listed.iter().position(|k| k.name == name) else {
            return Err(contradicts(format!("kernel `{name}` does not exist")));
        };
        if !self.chip.runs(&listed[at].arch) {
            return Err(contradicts(format!(
                "kernel `{name}` is for {}, the device is sm_{}",
                listed[at].arch, self.chip.sm
            )));
        }
        Ok(position(&mut self.kernels, at))
    }

    fn arg(&mut self, a: &plan::Arg) -> Result<Arg> {
        match a {
            plan::Arg::Value(_) | plan::Arg::Weight { .. } | plan::Arg::Faults => {
                self.place(a).map(Arg::Pointer)
            }
            plan::Arg::Dim { expr, dtype } => {
                use DType::*;
                if !matches!(dtype, I32 | U32 | I64 | U64) {
                    return Err(contradicts(format!("a size is passed as {dtype}")));
                }
                let (expr, dtype) = (self.expr(expr)?, *dtype);
                Ok(Arg::Dim { expr, dtype })
            }
            plan::Arg::TensorMap {
                of,
                dtype,
                dims,
                strides,
                tile,
                swizzle,
            } => {
                let mut all =
                    |list: &[String]| list.iter().map(|d| self.expr(d)).collect::<Result<_>>();
                let (dims, strides) = (all(dims)?, all(strides)?);
                let fixed = TensorMapNumbers {
                    address: self.place(of)?,
                    dtype: *dtype,
                    dims: Vec::new(),
                    strides: Vec::new(),
                    tile: tile.clone(),
                    swizzle: *swizzle,
                };
                Ok(Arg::Map(Box::new(Map {
                    fixed,
                    dims,
                    strides,
                })))
            }
        }
    }

    fn place(&mut self, a: &plan::Arg) -> Result<Place> {
        match a {
            plan::Arg::Value(name) => match self.places.get(name.as_str()) {
                Some(p) => Ok(*p),
                None => Err(contradicts(format!("value `{name}` has no memory"))),
            },
            plan::Arg::Weight { name, layout } => {
                let same = |w: &WeightEntry| w.name == *name && w.layout == *layout;
                match self.plan.weights.iter().position(same) {
                    Some(at) => Ok(Place::Weight(position(&mut self.weights, at))),
                    None => Err(contradicts(format!(
                        "no weight `{name}` in layout `{layout}`"
                    ))),
                }
            }
            plan::Arg::Faults => Ok(Place::Faults(position(&mut self.faults, self.at))),
            _ => Err(contradicts("only values and weights have memory")),
        }
    }

    fn gemm(&mut self, g: &plan::VendorGemm) -> Result<Gemm> {
        self.workspace = self.workspace.max(g.workspace);
        let mut optional = |a: &Option<plan::Arg>| a.as_ref().map(|a| self.place(a)).transpose();
        let (a_scale, b_scale) = (optional(&g.a_scale)?, optional(&g.b_scale)?);
        let bias = optional(&g.bias)?;
        Ok(Gemm {
            m: self.expr(&g.m)?,
            n: self.expr(&g.n)?,
            k: self.expr(&g.k)?,
            input: g.input,
            output: g.output,
            a: self.place(&g.a)?,
            b: self.place(&g.b)?,
            d: self.place(&g.d)?,
            a_scale,
            b_scale,
            bias,
            gelu: g.gelu,
            workspace: g.workspace,
        })
    }
}

/// The position of `item` in the list, at its end if it is new.
fn position(list: &mut Vec<usize>, item: usize) -> usize {
    list.iter().position(|i| *i == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}
