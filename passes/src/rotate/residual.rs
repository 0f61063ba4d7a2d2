//! Residual streams, rotated by what writes to them.
//!
//! ```text
//! rms(x·R) = rms(x)·R                       since ‖x·R‖ = ‖x‖
//! W·(rms(x)∘g + b) + c  =  (W·diag(g)·R)·(rms(x·R))ᵀ + (W·b + c)
//! layer_norm(x) = rms(x − mean(x))          so where layer norms read, the mean is taken out
//!                                           of all that is written
//! ```
//!
//! A stream is a value that a norm reads, and all values that sums tie to it. Its writers must be
//! embedding tables, constants and plain linear layers, its readers sums, norms whose results
//! only linear layers read, and linear layers; shapes may change but for the last dimension, and
//! rows may be selected. All norms are of one kind. A stream that is not so is left alone, and
//! the ledger says why.

use super::rule::{Columns, Plan, Rows};
use super::{op_name, readers};
use crate::analysis::{is_const, is_plain_linear, is_plain_norm, maker, width};
use crate::weights::Rotation;
use qcc_ir::DimExpr;
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind, ValueId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Plans the rotation of every stream of the entry function.
pub(super) fn plan(m: &Module, seed: u64, plan: &mut Plan) {
    let f = &m.funcs[0];
    let mut seen: BTreeSet<ValueId> = BTreeSet::new();
    for (_, op) in f.ops().filter(|(_, o)| is_plain_norm(&o.kind)) {
        let x = op.operands[0];
        if seen.contains(&x) {
            continue;
        }
        let mut stream = Stream::default();
        let traced = stream.trace(f, x).and_then(|()| stream.check(f));
        seen.extend(&stream.values);
        let rotation = width(f, x).and_then(|n| Rotation::new(n, n, seed));
        let site = op_name(f, op);
        match (traced, rotation) {
            (Err(reason), _) => plan.refuse(&site, "merged", reason),
            (_, None) => {
                let why = "there is no Hadamard matrix for any part of its width";
                plan.refuse(&site, "merged", why.into());
            }
            (Ok(()), Some(r)) => {
                let names = |id: &OpId| op_name(f, &f.ops[id.index()]);
                let layers = stream.writers.iter().chain(&stream.layers).map(names);
                let chosen = format!("merged, hadamard {}", r.size());
                plan.decide(&site, &chosen, layers.collect());
                stream.merge(f, Arc::new(r), plan);
            }
        }
    }
}

/// A stream and what touches it.
#[derive(Default)]
struct Stream {
    values: BTreeSet<ValueId>,
    /// Ops that pass on a constant, and which operand it is.
    tables: BTreeSet<(OpId, usize)>,
    /// Linear layers that write to it.
    writers: BTreeSet<OpId>,
    norms: BTreeSet<OpId>,
    /// Linear layers that read it without a norm between.
    direct: BTreeSet<OpId>,
    /// Linear layers that read its norms.
    layers: BTreeSet<OpId>,
}

type Traced = Result<(), String>;

impl Stream {
    /// Follows the stream from a value in both directions.
    fn trace(&mut self, f: &Func, from: ValueId) -> Traced {
        let mut open = vec![from];
        while let Some(v) = open.pop() {
            if width(f, v) != width(f, from) {
                return Err(format!("%{} has another width", f.value(v).name));
            }
            if !self.values.insert(v) {
                continue;
            }
            if f.is_result(v) {
                return Err(format!("%{} is a result of the model", f.value(v).name));
            }
            let Some(id) = maker(f, v) else {
                return Err(format!("%{} is an input of the model", f.value(v).name));
            };
            self.writer(f, id, &mut open)?;
            for (id, op) in readers(f, v) {
                self.reader(f, id, op, v, &mut open)?;
            }
        }
        Ok(())
    }

    fn writer(&mut self, f: &Func, id: OpId, open: &mut Vec<ValueId>) -> Traced {
        let op = &f.ops[id.index()];
        let from: &[ValueId] = match op.kind {
            OpKind::Linear { .. } if is_plain_linear(f, op) => {
                self.writers.insert(id);
                return Ok(());
            }
            OpKind::Binary(BinaryFn::Add) => &op.operands,
            _ if passes_rows(f, op) => &op.operands[..1],
            _ => return Err(format!("{} writes to the stream", op_name(f, op))),
        };
        for (i, v) in from.iter().enumerate() {
            match is_const(f, *v) && width(f, *v) == width(f, op.results[0]) {
                true => {
                    self.tables.insert((id, i));
                }
                false => open.push(*v),
            }
        }
        Ok(())
    }

    fn reader(
        &mut self,
        f: &Func,
        id: OpId,
        op: &Op,
        v: ValueId,
        open: &mut Vec<ValueId>,
    ) -> Traced {
        let first = op.operands[0] == v && !op.operands[1..].contains(&v);
        match op.kind {
            OpKind::Binary(BinaryFn::Add) => open.push(op.results[0]),
            _ if first && is_plain_norm(&op.kind) => {
                self.norms.insert(id);
            }
            OpKind::Linear { .. } if first && is_plain_linear(f, op) => {
                self.direct.insert(id);
            }
            _ if first && passes_rows(f, op) => open.push(op.results[0]),
            _ => return Err(format!("{} reads the stream", op_name(f, op))),
        }
        Ok(())
    }

    /// Looks at the norms and what reads them.
    fn check(&mut self, f: &Func) -> Traced {
        let ops = || self.norms.iter().map(|id| &f.ops[id.index()]);
        let centred = ops().filter(|o| matches!(o.kind, OpKind::LayerNorm { .. }));
        let centred = centred.count();
        if centred != 0 && centred != self.norms.len() {
            return Err("norms of two kinds read the stream".into());
        }
        if let Some(id) = self.direct.iter().next().filter(|_| centred != 0) {
            let name = op_name(f, &f.ops[id.index()]);
            return Err(format!("{name} needs the mean that layer norms take out"));
        }
        for norm in ops() {
            let y = norm.results[0];
            if !norm.operands[1..].iter().all(|v| is_const(f, *v)) {
                let name = op_name(f, norm);
                return Err(format!("gain or bias of {name} is no constant"));
            }
            if f.is_result(y) {
                return Err(format!("%{} is a result of the model", f.value(y).name));
            }
            for (id, op) in readers(f, y) {
                let layer = op.operands[0] == y && is_plain_linear(f, op);
                if !layer {
                    let (reader, norm) = (op_name(f, op), op_name(f, norm));
                    return Err(format!("{reader} reads {norm} and is no linear layer"));
                }
                self.layers.insert(id);
            }
        }
        Ok(())
    }

    /// Puts the rotation into everything that touches the stream.
    fn merge(&self, f: &Func, r: Arc<Rotation>, plan: &mut Plan) {
        let norms = self.norms.iter().map(|id| (id, &f.ops[id.index()]));
        let center = norms
            .clone()
            .any(|(_, o)| matches!(o.kind, OpKind::LayerNorm { .. }));
        for (id, i) in &self.tables {
            plan.table(*id, *i, r.clone(), center);
        }
        for id in &self.writers {
            plan.rows(*id, Rows::all(r.clone(), center));
        }
        for id in &self.direct {
            plan.columns(*id, Columns::of(r.clone()));
        }
        for (id, norm) in norms {
            plan.norm(*id);
            for (layer, _) in readers(f, norm.results[0]) {
                plan.columns(
                    layer,
                    Columns {
                        rotation: r.clone(),
                        gain: Some(norm.operands[1]),
                        beta: norm.operands.get(2).copied(),
                    },
                );
            }
        }
    }
}

/// Whether the rows of an op's result are rows of its first operand, unchanged.
fn passes_rows(f: &Func, op: &Op) -> bool {
    let last = f.ty(op.results[0]).rank().wrapping_sub(1);
    let kept = width(f, op.operands.first().copied().unwrap_or(op.results[0]));
    match &op.kind {
        OpKind::Cast | OpKind::Reshape | OpKind::Expand => {
            kept.is_some() && kept == width(f, op.results[0])
        }
        OpKind::Gather { axis } => {
            let rank = f.ty(op.operands[0]).rank();
            axis + 1 < rank
        }
        OpKind::Slice {
            starts,
            ends,
            steps,
        } => {
            let whole = kept.map(|n| DimExpr::from(n as i64));
            let all = |i: usize| {
                starts[i] == DimExpr::from(0) && Some(&ends[i]) == whole.as_ref() && steps[i] == 1
            };
            last < starts.len() && all(last)
        }
        _ => false,
    }
}
