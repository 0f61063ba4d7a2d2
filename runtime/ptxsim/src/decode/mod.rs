//! Instructions as written to instructions as executed: modifiers are matched one by one, and what is
//! left over is an error with its place.

mod arith;
mod asynch;
mod compare;
mod context;
mod control;
mod data;
pub(crate) use data::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
mod float;
mod layout;
mod mbarrier;
mod memory;
mod tensor;
mod warp;

use crate::isa::program::{GlobalVar, Program};
use crate::isa::{Inst, Op, PSrc};
use crate::parse::ast::{Ast, Kernel, RawInst};
use crate::parse::error::{ParseError, ParseErrorKind};
use context::{Cx, Decoder};

/// Reading options.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions {
    /// Refuse float `add`, `sub`, `mul`, `fma`, `div`, `rcp`, `sqrt` without an explicit rounding or
    /// `.approx`: without one the assembler may contract `mul` and `add`.
    pub require_rounding: bool,
}

/// Decodes all kernels of a module.
pub(crate) fn decode(
    ast: &Ast,
    options: ParseOptions,
) -> Result<(Vec<Program>, Vec<GlobalVar>), ParseError> {
    let mut globals = layout::module_globals(ast);
    let mut programs = Vec::new();
    for kernel in &ast.kernels {
        programs.push(decode_kernel(ast, kernel, &mut globals, options)?);
    }
    Ok((programs, globals))
}

fn decode_kernel(
    ast: &Ast,
    kernel: &Kernel,
    globals: &mut Vec<GlobalVar>,
    options: ParseOptions,
) -> Result<Program, ParseError> {
    let mut d = Decoder::new(ast, kernel, globals, options)?;
    // A label names an instruction as written; one of those may decode to several.
    let mut starts = Vec::with_capacity(kernel.insts.len() + 1);
    for raw in &kernel.insts {
        starts.push(d.program.insts.len() as u32);
        let guard = match raw.guard {
            None => crate::isa::ALWAYS,
            Some((reg, neg)) => PSrc {
                p: d.pred(reg, raw.pos)?,
                neg,
            },
        };
        for (op, class, aligned) in decode_one(&mut d, raw)? {
            d.program.insts.push(Inst {
                op,
                guard,
                line: raw.pos.line,
                class,
                aligned,
            });
        }
    }
    starts.push(d.program.insts.len() as u32);
    d.program.insts.push(Inst {
        op: Op::Exit,
        guard: crate::isa::ALWAYS,
        line: kernel.insts.last().map_or(0, |i| i.pos.line),
        class: crate::isa::Class::Control,
        aligned: false,
    });
    grains(&mut d.program);
    for inst in &mut d.program.insts {
        match &mut inst.op {
            Op::Bra { target } => *target = starts[*target as usize],
            Op::Brx { targets: list, .. } => {
                for t in list.iter_mut() {
                    *t = starts[*t as usize];
                }
            }
            _ => {}
        }
    }
    Ok(d.program)
}

type Decoded = Vec<(Op, crate::isa::Class, bool)>;

fn decode_one(d: &mut Decoder<'_>, raw: &RawInst) -> Result<Decoded, ParseError> {
    let mut cx = Cx::new(d, raw);
    let found = arith::decode(&mut cx)?
        || float::decode(&mut cx)?
        || data::decode(&mut cx)?
        || compare::decode(&mut cx)?
        || memory::decode(&mut cx)?
        || control::decode(&mut cx)?
        || warp::decode(&mut cx)?
        || tensor::decode(&mut cx)?
        || asynch::decode(&mut cx)?;
    if !found {
        let text = format!("instruction `{}` is not built", raw.opcode);
        return Err(ParseError::new(
            ParseErrorKind::UnknownInstruction,
            raw.pos,
            text,
        ));
    }
    cx.finish()
}

/// Finds the grain of the race checks and whether `wgmma` is used.
fn grains(p: &mut Program) {
    use crate::isa::asynch::AsyncOp;
    use crate::isa::memory::Space;
    use crate::isa::tensor::TensorOp;
    let (mut shared, mut global) = (4, 4);
    let mut narrow = |space: Space, bytes: u32| {
        let log = bytes.trailing_zeros();
        match space {
            Space::Shared | Space::SharedCluster => shared = log.min(shared),
            Space::Global | Space::Const => global = log.min(global),
            Space::Generic => {
                shared = log.min(shared);
                global = log.min(global);
            }
            Space::Local | Space::Param => {}
        }
    };
    for inst in &p.insts {
        match &inst.op {
            Op::Ld(m) | Op::St(m) => narrow(m.space, u32::from(m.bytes) * m.regs.len() as u32),
            Op::Atom(a) => narrow(a.space, u32::from(a.bytes)),
            Op::Async(a) => match &**a {
                AsyncOp::CpAsync {
                    bytes, src_size, ..
                } => {
                    narrow(Space::Shared, u32::from(*bytes));
                    // A partial source may end anywhere.
                    narrow(
                        Space::Global,
                        if src_size.is_some() {
                            1
                        } else {
                            u32::from(*bytes)
                        },
                    );
                }
                AsyncOp::TensorLoad { .. } | AsyncOp::TensorStore { .. } => {
                    narrow(Space::Global, 1)
                }
                AsyncOp::StAsync { bytes, .. } => narrow(Space::Shared, u32::from(*bytes)),
                AsyncOp::MbarInit { .. } => narrow(Space::Shared, 8),
                _ => {}
            },
            Op::GridDepWait => p.depends = true,
            Op::Tensor(t) => p.wgmma |= matches!(**t, TensorOp::Wgmma(_)),
            _ => {}
        }
    }
    (p.shared_grain, p.global_grain) = (shared, global);
}
