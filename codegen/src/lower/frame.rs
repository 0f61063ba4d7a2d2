//! The frame of a kernel that serves one op: parameters for its operands, results and sizes.
//!
//! Parameters come in a fixed order: for each distinct operand its codes, scales and zero points,
//! then the same for each result, then every symbolic extent that occurs, as u32. Known extents
//! and splats are constants of the kernel; scales and zero points are weights, so layers of one
//! shape share one kernel.

use super::faults::divisions;
use super::places::{Part, Place, part_name, place};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::expr::Expr;
use qcc_ir::graph::{Func, Module, Op, TensorType, ValueId};
use qcc_ir::kernel::{Kernel, KernelBuilder, Launch, Ty, Value};
use qcc_ir::plan::{Arg, Launch as PlanLaunch, Layout};
use qcc_ir::{DType, DimExpr};
use std::cell::RefCell;

/// Memory or a number behind a tensor's part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// A pointer parameter.
    Pointer(Value),
    /// A constant.
    Number(f64),
}

/// An operand or result as a kernel sees it.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Type.
    pub ty: TensorType,
    /// Values or codes.
    pub codes: Source,
    /// How the codes lie.
    pub layout: Layout,
    /// Scales of a quantized tensor.
    pub scale: Option<Source>,
    /// Zero points of an asymmetric one.
    pub zero: Option<Source>,
    /// The scale above those of the blocks.
    pub global: Option<Source>,
}

/// A kernel under construction together with the arguments of its launch.
pub struct Frame {
    /// The kernel's builder.
    pub k: KernelBuilder,
    /// Operands by position.
    pub operands: Vec<Tensor>,
    /// Results by position.
    pub results: Vec<Tensor>,
    dims: Vec<(DimExpr, Value)>,
    args: Vec<Arg>,
    block: [u32; 3],
    limits: Vec<Limit>,
    /// The fault words, where data are checked.
    watched: Option<Value>,
}

/// The largest value of a size with which a kernel works.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The size.
    pub size: DimExpr,
    /// The largest value.
    pub most: u64,
}

/// Most blocks along x, y and z (CUDA C Programming Guide, technical specifications).
const MOST_BLOCKS: [u64; 3] = [i32::MAX as u64, 65_535, 65_535];

/// A finished kernel with its launch; the kernel's name is chosen later, by its text.
#[derive(Clone, Debug)]
pub struct Launched {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks along x, y, z.
    pub grid: [DimExpr; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared: u32,
    /// Arguments in parameter order.
    pub args: Vec<Arg>,
    /// What the kernel needs of the sizes that are not known yet.
    pub limits: Vec<Limit>,
}

impl Launched {
    /// The launch as the plan records it, of the kernel under this name.
    pub fn step(&self, kernel: &str) -> PlanLaunch {
        PlanLaunch {
            kernel: kernel.to_string(),
            grid: self.grid.clone().map(|d| d.to_string()),
            block: self.block,
            cluster: None,
            shared: self.shared,
            args: self.args.clone(),
        }
    }
}

impl Frame {
    /// Opens a kernel for `op` and declares its parameters. `extra` are further expressions that
    /// the kernel needs the values of.
    ///
    /// # Errors
    /// When an operand has no place.
    pub fn open(m: &Module, f: &Func, op: &Op, launch: Launch, extra: &[DimExpr]) -> Result<Frame> {
        let mut fr = Frame {
            k: KernelBuilder::spmd("kernel", launch),
            operands: Vec::new(),
            results: Vec::new(),
            dims: Vec::new(),
            args: Vec::new(),
            block: launch.block,
            limits: Vec::new(),
            watched: None,
        };
        let mut seen: Vec<(ValueId, Tensor)> = Vec::new();
        for v in &op.operands {
            let t = match seen.iter().find(|(s, _)| s == v) {
                Some((_, t)) => t.clone(),
                None => fr.bind_operand(m, f, *v)?,
            };
            seen.push((*v, t.clone()));
            fr.operands.push(t);
        }
        for v in &op.results {
            let t = fr.bind_result(m, f, *v)?;
            fr.results.push(t);
        }
        let shapes = op
            .operands
            .iter()
            .chain(&op.results)
            .flat_map(|v| &f.ty(*v).shape);
        let wanted: Vec<DimExpr> = shapes
            .chain(extra)
            .filter(|d| d.as_const().is_none())
            .cloned()
            .collect();
        for d in wanted {
            if fr.dims.iter().all(|(e, _)| *e != d) {
                let name = format!("d{}", fr.dims.len());
                let v = fr.k.param(&name, Ty::U32);
                fr.args.push(Arg::Dim {
                    expr: d.to_string(),
                    dtype: DType::U32,
                });
                fr.dims.push((d, v));
            }
        }
        if let (Some(e), Some(r)) = (op.kind.expr(), op.results.first()) {
            fr.watch(e, &f.ty(*r).shape);
        }
        Ok(fr)
    }

    /// Declares the step's fault words if an expression at the positions of `shape` may divide
    /// integers by zero; before the kernel's first operation.
    pub fn watch(&mut self, e: &Expr, shape: &[DimExpr]) {
        if self.watched.is_none() && !divisions(e, &self.operands).is_empty() {
            self.watched = Some(self.faults(shape));
        }
    }

    /// The fault words that were declared by [`Frame::watch`].
    pub fn watched(&self) -> Option<Value> {
        self.watched
    }

    fn pointer(&mut self, arg: Arg, elem: DType, writes: bool) -> Value {
        let name = format!("p{}", self.args.len());
        self.args.push(arg);
        let elem = memory_type(elem);
        if writes {
            self.k.param_ptr(&name, elem)
        } else {
            self.k.param_ro(&name, elem)
        }
    }

    fn bind_operand(&mut self, m: &Module, f: &Func, v: ValueId) -> Result<Tensor> {
        let ty = f.ty(v).clone();
        let mut layout = Layout::RowMajor;
        let mut bind = |part: Part, d: DType| -> Result<Option<Source>> {
            Ok(match place(m, f, v, part)? {
                None => None,
                Some(Place::Number(n)) => Some(Source::Number(n)),
                Some(Place::Memory(arg)) => {
                    if let (Part::Codes, Arg::Weight { layout: l, .. }) = (part, &arg) {
                        layout = Layout::named(l).unwrap_or_default();
                    }
                    Some(Source::Pointer(self.pointer(arg, d, false)))
                }
            })
        };
        let (scale, zero) = param_types(&ty);
        let codes = bind(Part::Codes, ty.elem.storage())?;
        let codes = codes.ok_or_else(|| internal(format!("%{} has no place", f.value(v).name)))?;
        let (scale, zero) = (bind(Part::Scale, scale)?, bind(Part::Zero, zero)?);
        let global = bind(Part::Global, DType::F32)?;
        Ok(Tensor {
            ty,
            codes,
            layout,
            scale,
            zero,
            global,
        })
    }

    /// A result's codes, and its scales where the kernel computes them.
    fn bind_result(&mut self, m: &Module, f: &Func, v: ValueId) -> Result<Tensor> {
        let ty = f.ty(v).clone();
        let (sd, zd) = param_types(&ty);
        let codes = Arg::Value(part_name(f, v, Part::Codes));
        let codes = Source::Pointer(self.pointer(codes, ty.elem.storage(), true));
        let mut t = Tensor {
            ty,
            codes,
            layout: Layout::RowMajor,
            scale: None,
            zero: None,
            global: None,
        };
        let Some(q) = t.ty.elem.quant() else {
            return Ok(t);
        };
        let (dynamic, has_zero) = (q.dynamic, q.zero.is_some());
        for (part, d, wanted) in [(Part::Scale, sd, true), (Part::Zero, zd, has_zero)] {
            let source = match place(m, f, v, part)? {
                _ if !wanted => None,
                Some(Place::Memory(a)) => Some(Source::Pointer(self.pointer(a, d, dynamic))),
                Some(Place::Number(n)) => Some(Source::Number(n)),
                None => None,
            };
            match part {
                Part::Zero => t.zero = source,
                _ => t.scale = source,
            }
        }
        Ok(t)
    }

    /// The value of an extent as u32.
    ///
    /// Expressions that are neither numbers nor extents of the op must have been given to
    /// [`Frame::open`].
    pub fn dim(&mut self, d: &DimExpr) -> Value {
        if let Some(c) = d.as_const() {
            return self.k.u32(c as u32);
        }
        match self.dims.iter().find(|(e, _)| e == d) {
            Some((_, v)) => *v,
            None => {
                let p = qcc_ir::kernel::Problem::new("K01", format!("size {d} was not declared"));
                self.k.fail(p);
                self.k.u32(0)
            }
        }
    }

    /// The product of extents as u32; the launch is limited to sizes that fit, with room for the
    /// last tile.
    pub fn product(&mut self, dims: &[DimExpr]) -> Value {
        self.limits.push(Limit {
            size: DimExpr::product(dims),
            most: i32::MAX as u64,
        });
        let fixed: i64 = dims.iter().filter_map(DimExpr::as_const).product();
        let mut p = self.k.u32(fixed as u32);
        for d in dims.iter().filter(|d| d.as_const().is_none()) {
            let v = self.dim(d);
            p = self.k.mul(p, v);
        }
        p
    }

    /// Runs `f` on the builder of a nested region with the frame in reach.
    fn nested<R>(&mut self, outer: impl FnOnce(&mut KernelBuilder, &mut Frame) -> R) -> R {
        let mut k = std::mem::replace(&mut self.k, KernelBuilder::spmd("", Launch::threads(1)));
        let r = outer(&mut k, self);
        self.k = k;
        r
    }

    /// `for i in (lo..hi).step_by(step)`, with carried values.
    pub fn carry(
        &mut self,
        (lo, hi, step): (Value, Value, Value),
        init: &[Value],
        body: impl FnOnce(&mut Frame, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        self.nested(|k, fr| {
            k.for_range(lo, hi, step, init, |k, i, c| {
                std::mem::swap(&mut fr.k, k);
                let r = body(fr, i, c);
                std::mem::swap(&mut fr.k, k);
                r
            })
        })
    }

    /// `for i in (lo..hi).step_by(step)`.
    pub fn each(
        &mut self,
        lo: Value,
        hi: Value,
        step: Value,
        body: impl FnOnce(&mut Frame, Value),
    ) {
        self.carry((lo, hi, step), &[], |fr, i, _| {
            body(fr, i);
            Vec::new()
        });
    }

    /// Runs `then` where `cond` is true.
    pub fn when(&mut self, cond: Value, then: impl FnOnce(&mut Frame)) {
        self.nested(|k, fr| {
            k.if_then(cond, |k| {
                std::mem::swap(&mut fr.k, k);
                then(fr);
                std::mem::swap(&mut fr.k, k);
            });
        });
    }

    /// What `then` yields where `cond` is true, else `otherwise`.
    pub fn choose(
        &mut self,
        cond: Value,
        otherwise: &[Value],
        then: impl FnOnce(&mut Frame) -> Vec<Value>,
    ) -> Vec<Value> {
        self.nested(|k, fr| {
            k.if_else(
                cond,
                |k| {
                    std::mem::swap(&mut fr.k, k);
                    let r = then(fr);
                    std::mem::swap(&mut fr.k, k);
                    r
                },
                |_| otherwise.to_vec(),
            )
        })
    }

    /// Runs `then` where `cond` is true, else `otherwise`.
    pub fn split(
        &mut self,
        cond: Value,
        then: impl FnOnce(&mut Frame),
        otherwise: impl FnOnce(&mut Frame),
    ) {
        self.nested(|k, fr| {
            let fr = RefCell::new(fr);
            let inside = |k: &mut KernelBuilder, body: &mut dyn FnMut(&mut Frame)| {
                let mut fr = fr.borrow_mut();
                std::mem::swap(&mut fr.k, k);
                body(&mut fr);
                std::mem::swap(&mut fr.k, k);
                Vec::new()
            };
            let (mut then, mut otherwise) = (Some(then), Some(otherwise));
            k.if_else(
                cond,
                |k| inside(k, &mut |fr| then.take().map_or((), |t| t(fr))),
                |k| inside(k, &mut |fr| otherwise.take().map_or((), |o| o(fr))),
            );
        });
    }

    /// A parameter that is the descriptor of a tensor in memory.
    pub fn tensor_map(&mut self, arg: Arg) -> Value {
        let name = format!("m{}", self.args.len());
        self.args.push(arg);
        self.k.param(&name, Ty::TensorMap)
    }

    /// A parameter that points to memory between the actions of a step, which the kernel reads.
    pub fn scratch(&mut self, arg: Arg, elem: DType) -> Value {
        self.pointer(arg, elem, false)
    }

    /// A parameter that points to the step's fault words, of the least `position`s among at most
    /// 2³²: the launch is limited to those.
    pub fn faults(&mut self, positions: &[DimExpr]) -> Value {
        self.limits.push(Limit {
            size: DimExpr::product(positions),
            most: u64::from(u32::MAX),
        });
        self.pointer(Arg::Faults, DType::U64, true)
    }

    /// Ends the kernel.
    ///
    /// # Errors
    /// When the builder made a mistake; that is a defect of the lowering.
    pub fn close(self, grid: [DimExpr; 3], shared: u32) -> Result<Launched> {
        let kernel = self.k.finish().map_err(|p| internal(p.to_string()))?;
        let mut limits = self.limits;
        let axes = grid.iter().zip(MOST_BLOCKS);
        limits.extend(axes.map(|(size, most)| Limit {
            size: size.clone(),
            most,
        }));
        Ok(Launched {
            kernel,
            grid,
            block: self.block,
            shared,
            args: self.args,
            limits,
        })
    }
}

/// Formats of the scale and zero point of a type.
fn param_types(ty: &TensorType) -> (DType, DType) {
    match ty.elem.quant() {
        None => (DType::F32, DType::F32),
        Some(q) => (q.scale.stored(), q.zero.unwrap_or(DType::F32)),
    }
}

/// The element type of a pointer: truth values, packed codes and powers of two are bytes.
pub fn memory_type(d: DType) -> DType {
    match d {
        DType::Bool | DType::E8M0 => DType::U8,
        d if d.per_byte() > 1 => DType::U8,
        d => d,
    }
}

/// A defect of the lowering.
pub fn internal(message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(912, Class::Internal, message)
}
