//! A program in numbers, for one set of sizes.
//!
//! Of each step the first choice is taken whose guards hold. Launches without blocks have nothing
//! to do and are left out. All arithmetic is checked.

use qcc_ir::DType;
use qcc_ir::bind::Sizes;
use qcc_ir::diag::{Diagnostic, Result};
use std::sync::Arc;

use super::command::{
    Address, ArgBytes, Command, GemmNumbers, LaunchNumbers, TensorMapNumbers, Work,
};
use super::driver::Driver;
use super::error::{impossible, no_choice, no_size};
use super::program::{Action, Arg, Choice, ExprId, Gemm, Launch, Map, Place, Port, Program};
use crate::plan_file::error::contradicts;

/// Blocks of a grid along y and z.
const MAX_GRID: u32 = 65535;

/// What a program does at these sizes.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Bytes of all intermediate values.
    pub(crate) arena: u64,
    /// Offset and bytes of each value in the arena.
    pub(crate) buffers: Vec<(u64, u64)>,
    /// Bytes of each input.
    pub(crate) inputs: Vec<u64>,
    /// Extents and bytes of each output.
    pub(crate) outputs: Vec<(Vec<u64>, u64)>,
    /// What is done, in order.
    pub(crate) calls: Vec<Call>,
}

/// One launch or product.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The step's name.
    pub(crate) op: Arc<str>,
    pub(crate) work: Placed,
}

/// Work on memory that is known by its place.
#[derive(Clone, Debug)]
pub(crate) enum Placed {
    Launch(LaunchNumbers<PlacedArg>),
    Gemm(GemmNumbers<Place>),
}

/// A kernel argument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PlacedArg {
    Pointer(Place),
    Number(ArgBytes),
    Map(TensorMapNumbers<Place>),
}

impl Program {
    /// The program at these sizes.
    ///
    /// # Errors
    /// `Q0721` if a size is negative or overflows, `Q0730` if a launch has more blocks than a
    /// device takes, `Q0731` if no way to run a step applies, `Q0408` if a value lies outside the
    /// arena. Each names the step.
    pub(crate) fn bind(&self, sizes: &Sizes) -> Result<Bound> {
        let numbers = Numbers {
            program: self,
            values: self
                .exprs
                .iter()
                .map(|e| e.eval(&|s| sizes.get(s)))
                .collect(),
        };
        let arena = numbers.size(self.arena)?;
        let mut calls = Vec::new();
        for step in &self.steps {
            let place = |d: Diagnostic| d.or_at(format!("step {}", step.op));
            let choice = numbers.choose(&step.choices).map_err(place)?;
            for action in &choice.actions {
                let work = match action {
                    Action::Launch(l) => numbers.launch(l).map_err(place)?.map(Placed::Launch),
                    Action::Gemm(g) => numbers.gemm(g).map_err(place)?.map(Placed::Gemm),
                };
                calls.extend(work.map(|work| Call {
                    op: step.op.clone(),
                    work,
                }));
            }
        }
        let bytes = |p: &Port| numbers.bytes(p).map(|(_, bytes)| bytes);
        Ok(Bound {
            arena,
            buffers: numbers.buffers(arena)?,
            inputs: self.inputs.iter().map(bytes).collect::<Result<_>>()?,
            outputs: self
                .outputs
                .iter()
                .map(|p| numbers.bytes(p))
                .collect::<Result<_>>()?,
            calls,
        })
    }
}

/// The values of a program's expressions.
struct Numbers<'a> {
    program: &'a Program,
    values: Vec<Option<i64>>,
}

impl Numbers<'_> {
    /// A size that must exist and be 0 or more.
    fn size(&self, id: ExprId) -> Result<u64> {
        self.values[id]
            .and_then(|v| u64::try_from(v).ok())
            .ok_or_else(|| no_size(&self.program.exprs[id]))
    }

    fn sizes(&self, ids: &[ExprId]) -> Result<Vec<u64>> {
        ids.iter().map(|id| self.size(*id)).collect()
    }

    /// Extents and bytes of an input or output.
    fn bytes(&self, p: &Port) -> Result<(Vec<u64>, u64)> {
        let dims = self.sizes(&p.dims)?;
        let elems = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        match elems.and_then(|n| p.dtype.byte_len(n)) {
            Some(bytes) => Ok((dims, bytes)),
            None => Err(impossible(format!("{}{dims:?} is too large", p.dtype))),
        }
    }

    fn buffers(&self, arena: u64) -> Result<Vec<(u64, u64)>> {
        let buffer = |b: &super::program::Buffer| {
            let (offset, bytes) = (self.size(b.offset)?, self.size(b.bytes)?);
            match offset.checked_add(bytes) {
                Some(end) if end <= arena => Ok((offset, bytes)),
                _ => Err(contradicts(format!(
                    "value `{}` lies at {offset} with {bytes} bytes in an arena of {arena}",
                    b.name
                ))),
            }
        };
        self.program.buffers.iter().map(buffer).collect()
    }

    fn choose<'c>(&self, choices: &'c [Choice]) -> Result<&'c Choice> {
        for c in choices {
            let mut holds = true;
            for g in &c.when {
                holds &= (g.min..=g.max).contains(&self.size(g.expr)?);
            }
            if holds {
                return Ok(c);
            }
        }
        Err(no_choice(self.program.chip.sm))
    }

    fn launch(&self, l: &Launch) -> Result<Option<LaunchNumbers<PlacedArg>>> {
        let mut grid = [0u32; 3];
        for (axis, id) in l.grid.iter().enumerate() {
            let most = if axis == 0 { i32::MAX as u32 } else { MAX_GRID };
            let n = self.size(*id)?;
            grid[axis] = u32::try_from(n)
                .ok()
                .filter(|n| *n <= most)
                .ok_or_else(|| {
                    impossible(format!("{n} blocks along axis {axis}, the most is {most}"))
                })?;
        }
        if grid.contains(&0) {
            return Ok(None);
        }
        if let Some(c) = l.cluster
            && (0..3).any(|i| !grid[i].is_multiple_of(c[i]))
        {
            return Err(impossible(format!(
                "clusters of {c:?} blocks in a grid of {grid:?}"
            )));
        }
        let args = l.args.iter().map(|a| self.arg(a)).collect::<Result<_>>()?;
        Ok(Some(LaunchNumbers {
            kernel: l.kernel,
            grid,
            block: l.block,
            cluster: l.cluster,
            shared: l.shared,
            args,
        }))
    }

    fn arg(&self, a: &Arg) -> Result<PlacedArg> {
        Ok(match a {
            Arg::Pointer(p) => PlacedArg::Pointer(*p),
            Arg::Dim { expr, dtype } => PlacedArg::Number(self.number(*expr, *dtype)?),
            Arg::Map(m) => PlacedArg::Map(self.map(m)?),
        })
    }

    /// A size as an integer parameter; slices may pass negative ones.
    fn number(&self, id: ExprId, dtype: DType) -> Result<ArgBytes> {
        let expr = &self.program.exprs[id];
        let v = self.values[id].ok_or_else(|| no_size(expr))?;
        let misfit = |_| impossible(format!("{expr} = {v} is no {dtype}"));
        Ok(match dtype {
            DType::I32 => ArgBytes::Four(i32::try_from(v).map_err(misfit)?.to_le_bytes()),
            DType::U32 => ArgBytes::Four(u32::try_from(v).map_err(misfit)?.to_le_bytes()),
            DType::U64 => ArgBytes::Eight(u64::try_from(v).map_err(misfit)?.to_le_bytes()),
            _ => ArgBytes::Eight(v.to_le_bytes()),
        })
    }

    fn map(&self, m: &Map) -> Result<TensorMapNumbers<Place>> {
        Ok(TensorMapNumbers {
            dims: self.sizes(&m.dims)?,
            strides: self.sizes(&m.strides)?,
            ..m.fixed.clone()
        })
    }

    fn gemm(&self, g: &Gemm) -> Result<Option<GemmNumbers<Place>>> {
        let (m, n, k) = (self.size(g.m)?, self.size(g.n)?, self.size(g.k)?);
        Ok((m != 0 && n != 0).then_some(GemmNumbers {
            m,
            n,
            k,
            input: g.input,
            output: g.output,
            a: g.a,
            b: g.b,
            d: g.d,
            a_scale: g.a_scale,
            b_scale: g.b_scale,
            bias: g.bias,
            gelu: g.gelu,
            workspace: (Place::Workspace, g.workspace),
        }))
    }
}

/// Where everything is on a device.
pub(crate) struct Addresses<'a> {
    pub(crate) driver: &'a dyn Driver,
    /// The device's number of each of the program's kernels.
    pub(crate) kernels: &'a [usize],
    pub(crate) at: &'a dyn Fn(Place) -> Address,
}

impl Addresses<'_> {
    /// The call with addresses.
    ///
    /// # Errors
    /// `Q0730` if the device refuses a tensor map.
    pub(crate) fn command(&self, call: &Call) -> Result<Command> {
        let at = self.at;
        let work = match &call.work {
            Placed::Launch(l) => Work::Launch(LaunchNumbers {
                kernel: self.kernels[l.kernel],
                grid: l.grid,
                block: l.block,
                cluster: l.cluster,
                shared: l.shared,
                args: l.args.iter().map(|a| self.arg(a)).collect::<Result<_>>()?,
            }),
            Placed::Gemm(g) => Work::Gemm(GemmNumbers {
                m: g.m,
                n: g.n,
                k: g.k,
                input: g.input,
                output: g.output,
                a: at(g.a),
                b: at(g.b),
                d: at(g.d),
                a_scale: g.a_scale.map(at),
                b_scale: g.b_scale.map(at),
                bias: g.bias.map(at),
                gelu: g.gelu,
                workspace: (at(g.workspace.0), g.workspace.1),
            }),
        };
        Ok(Command {
            step: call.op.clone(),
            work,
        })
    }

    fn arg(&self, a: &PlacedArg) -> Result<ArgBytes> {
        Ok(match a {
            PlacedArg::Pointer(p) => ArgBytes::Eight((self.at)(*p).to_le_bytes()),
            PlacedArg::Number(n) => n.clone(),
            PlacedArg::Map(m) => {
                let map = TensorMapNumbers {
                    address: (self.at)(m.address),
                    dtype: m.dtype,
                    dims: m.dims.clone(),
                    strides: m.strides.clone(),
                    tile: m.tile.clone(),
                    swizzle: m.swizzle,
                };
                ArgBytes::Map(Box::new(self.driver.tensor_map(&map)?))
            }
        })
    }
}
