//! Where the values of a function live at run time.
//!
//! A value is a kernel argument: a buffer of the arena, an input or output, a weight, or a number
//! that is written into the kernel. A quantized value has up to three places: its codes under its
//! own name, and `name#scale` and `name#zero` where a kernel computes them. A static scale is
//! whatever the quantizing op was given, so nothing is copied. Reshapes share their operand's
//! place.

use crate::kernels::gemm::nibbles;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, Op, OpKind, ValueId, WeightId};
use qcc_ir::plan::{Arg, Layout};

/// What a kernel reads for one part of an operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// Memory.
    Memory(Arg),
    /// A number that is the same for every element.
    Number(f64),
}

/// Which part of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Values or codes.
    Codes,
    /// Scales.
    Scale,
    /// Zero points.
    Zero,
    /// The scale above those of the blocks.
    Global,
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Part::Codes => "",
            Part::Scale => "#scale",
            Part::Zero => "#zero",
            Part::Global => "#global",
        }
    }
}

/// The value whose memory `v` shares: reshapes are looked through.
pub fn root(f: &Func, mut v: ValueId) -> ValueId {
    while let Some(Op {
        kind: OpKind::Reshape,
        operands,
        ..
    }) = f.def_op(v)
    {
        v = operands[0];
    }
    v
}

/// The name of a part of a value in the plan.
pub fn part_name(f: &Func, v: ValueId, part: Part) -> String {
    format!("{}{}", f.value(root(f, v)).name, part.suffix())
}

/// The operand of the defining op that holds a static scale or zero point of `v`, if it has one.
pub fn static_param(f: &Func, v: ValueId, part: Part) -> Option<ValueId> {
    let op = f.def_op(v)?;
    let at = op.results.iter().position(|r| *r == v)?;
    let index = match &op.kind {
        OpKind::Quantize => match part {
            Part::Codes | Part::Global => return None,
            Part::Scale => 1,
            Part::Zero => 2,
        },
        kind => {
            let stores = &kind.expr()?.stores;
            let store = stores.get(at.min(stores.len() - 1))?;
            usize::from(match part {
                Part::Codes | Part::Global => return None,
                Part::Scale => store.scale?,
                Part::Zero => store.zero?,
            })
        }
    };
    op.operands.get(index).copied()
}

/// Where a part of a value is, or `None` if the value has no such part.
///
/// # Errors
/// When a constant's tensors do not exist.
pub fn place(m: &Module, f: &Func, v: ValueId, part: Part) -> Result<Option<Place>> {
    let v = root(f, v);
    let quant = f.ty(v).elem.quant();
    let has = match part {
        Part::Codes => true,
        Part::Scale => quant.is_some(),
        Part::Zero => quant.is_some_and(|q| q.zero.is_some()),
        Part::Global => quant.is_some_and(|q| q.scale.global().is_some()),
    };
    if !has {
        return Ok(None);
    }
    if let Some(p) = static_param(f, v, part) {
        return place(m, f, p, Part::Codes);
    }
    let weight = |w: Option<WeightId>| {
        let w =
            w.ok_or_else(|| Diagnostic::error(911, Class::Internal, "a constant lacks its scale"))?;
        let layout = match part {
            Part::Codes => layout(m, f, w),
            _ => Layout::RowMajor,
        };
        Ok(Some(Place::Memory(Arg::Weight {
            name: m.weight(w).name.clone(),
            layout: layout.name().to_string(),
        })))
    };
    match f.def_op(v).map(|o| &o.kind) {
        Some(OpKind::Splat { value }) => Ok(Some(Place::Number(f64::from_bits(*value)))),
        Some(OpKind::Const {
            weight: w,
            scale,
            zero,
            global,
        }) => match part {
            Part::Codes => weight(Some(*w)),
            Part::Scale => weight(*scale),
            Part::Zero => weight(*zero),
            Part::Global => weight(*global),
        },
        _ => Ok(Some(Place::Memory(Arg::Value(part_name(f, v, part))))),
    }
}

/// How the codes of a weight lie: as fragments, if linear layers of few rows that can read them so
/// are all that reads them.
fn layout(m: &Module, f: &Func, w: WeightId) -> Layout {
    if !Layout::MmaNibbles.takes(m.weight(w).dtype, &m.weight(w).dims) {
        return Layout::RowMajor;
    }
    let is_w = |v: &ValueId| {
        let kind = f.def_op(*v).map(|o| &o.kind);
        matches!(kind, Some(OpKind::Const { weight, .. }) if *weight == w)
    };
    let mut read = false;
    for (_, op) in f.ops() {
        for (i, v) in op.operands.iter().enumerate().filter(|(_, v)| is_w(v)) {
            let linear = matches!(op.kind, OpKind::Linear { .. });
            let x = f.ty(op.operands[0]);
            if !linear || i != 1 || !nibbles::serves(x, f.ty(*v)) {
                return Layout::RowMajor;
            }
            read = true;
        }
    }
    let returned = f.results.iter().any(|(_, v)| is_w(v));
    match read && !returned {
        true => Layout::MmaNibbles,
        false => Layout::RowMajor,
    }
}
