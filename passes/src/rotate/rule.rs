//! What is to be rotated, op by op, and the rewriting of the module.

use crate::quantize::Intent;
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::{Rotation, Transform, derive, inline_f32, read_f32};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind, TensorType, ValueId, Weight};
use qcc_ir::ledger::Decision;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// A linear layer's input comes rotated.
#[derive(Clone)]
pub(super) struct Columns {
    pub(super) rotation: Arc<Rotation>,
    /// Gain and bias of the norm before it, which the layer takes over.
    pub(super) gain: Option<ValueId>,
    pub(super) beta: Option<ValueId>,
}

impl Columns {
    pub(super) fn of(rotation: Arc<Rotation>) -> Self {
        Columns {
            rotation,
            gain: None,
            beta: None,
        }
    }
}

/// A linear layer's result is to be rotated.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) rotation: Arc<Rotation>,
    /// Whether its mean is to be taken out first.
    pub(super) center: bool,
    /// Which of its columns; `None` for all.
    pub(super) span: Option<Range<usize>>,
}

impl Rows {
    pub(super) fn all(rotation: Arc<Rotation>, center: bool) -> Self {
        Rows {
            rotation,
            center,
            span: None,
        }
    }
}

/// What is to be rotated in the entry function.
#[derive(Default)]
pub(super) struct Plan {
    columns: BTreeMap<OpId, Columns>,
    rows: BTreeMap<OpId, Rows>,
    tables: BTreeMap<(OpId, usize), (Arc<Rotation>, bool)>,
    norms: BTreeSet<OpId>,
    online: BTreeMap<OpId, Arc<Rotation>>,
    pub(super) decisions: Vec<Decision>,
    /// Layers whose weights become codes: they keep all digits until there.
    exact: BTreeSet<OpId>,
    funcs: usize,
    /// Rotated inputs and the matrices that rotate, by what they stand for.
    turned: HashMap<ValueId, ValueId>,
    matrices: HashMap<(usize, DType), ValueId>,
}

impl Plan {
    /// Nothing yet.
    pub(super) fn new(layers: &[Intent]) -> Self {
        let coded = layers.iter().filter(|l| l.weights);
        Plan {
            exact: coded.map(|l| l.site.op).collect(),
            ..Plan::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub(super) fn has_columns(&self, op: OpId) -> bool {
        self.columns.contains_key(&op)
    }

    pub(super) fn has_rows(&self, op: OpId) -> bool {
        self.rows.contains_key(&op)
    }

    pub(super) fn columns(&mut self, op: OpId, c: Columns) {
        self.columns.insert(op, c);
    }

    pub(super) fn rows(&mut self, op: OpId, r: Rows) {
        self.rows.insert(op, r);
    }

    /// An operand that is a constant whose rows are to be rotated.
    pub(super) fn table(&mut self, op: OpId, operand: usize, r: Arc<Rotation>, center: bool) {
        self.tables.insert((op, operand), (r, center));
    }

    /// A norm that becomes one without gain and mean.
    pub(super) fn norm(&mut self, op: OpId) {
        self.norms.insert(op);
    }

    /// A layer whose input is rotated in front of it.
    pub(super) fn online(&mut self, op: OpId, r: Arc<Rotation>) {
        self.columns.insert(op, Columns::of(r.clone()));
        self.online.insert(op, r);
    }

    /// The rotated module.
    ///
    /// # Errors
    /// When a constant cannot be read.
    pub(super) fn apply(mut self, m: &Module) -> Result<Module> {
        Ok(rewrite(m, &mut self)?.module)
    }

    /// `rms(x)` for a norm of `x`.
    fn bare_norm(&self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let eps = match op.kind {
            OpKind::LayerNorm { eps, .. } | OpKind::RmsNorm { eps, .. } => eps,
            _ => return Ok(None),
        };
        let gain = rw.plain_weight(op.operands[1])?;
        let ones = vec![1.0; gain.numel().unwrap_or(0) as usize];
        let ones = inline_f32(gain.name.clone(), gain.dims.clone(), &ones);
        let operands = [rw.get(op.operands[0]), rw.constant(ones)];
        let kind = OpKind::RmsNorm { eps, expr: None };
        Ok(Some(rw.put(op, kind, &operands)))
    }

    fn linear(&mut self, rw: &mut Rewriter<'_>, op: &Op, id: OpId) -> Replacement {
        let (columns, rows) = (self.columns.get(&id).cloned(), self.rows.get(&id).cloned());
        let mut operands = rw.operands(op);
        if let Some(r) = self.online.get(&id).cloned() {
            operands[0] = self.turn(rw, op.operands[0], &r)?;
        }
        let weight = rw.plain_weight(op.operands[1])?.clone();
        let dtype = match self.exact.contains(&id) {
            true => DType::F32,
            false => weight.dtype,
        };
        let mut chain = Vec::new();
        if let Some(c) = &columns {
            if let Some(g) = c.gain {
                chain.push(Transform::Scale {
                    axis: 1,
                    factors: read_f32(rw.plain_weight(g)?)?.into(),
                    divide: false,
                    dtype: DType::F32,
                });
            }
            let span = 0..usize::try_from(weight.dims[1]).unwrap_or(0);
            chain.push(rotate(1, span, &c.rotation, false, dtype));
        }
        let mut bias = self.bias(rw, op, columns.as_ref().and_then(|c| c.beta))?;
        if let Some(r) = &rows {
            let all = 0..usize::try_from(weight.dims[0]).unwrap_or(0);
            let span = r.span.clone().unwrap_or(all);
            chain.push(rotate(0, span.clone(), &r.rotation, r.center, dtype));
            if let Some(b) = &mut bias {
                turn_bias(b, span, r);
            }
        }
        operands[1] = rw.derived_by(op.operands[1], &chain)?;
        operands.truncate(2);
        if let Some(b) = bias {
            let given = op.operands.get(2).copied();
            operands.push(put_bias(rw, given, &b, &weight)?);
        }
        Ok(Some(rw.put(op, op.kind.clone(), &operands)))
    }

    /// `W·β + c`, from the weight as it was; `None` where there is neither.
    fn bias(&self, rw: &Rewriter<'_>, op: &Op, beta: Option<ValueId>) -> Result<Option<Vec<f64>>> {
        let wide = |w: &Weight| -> Result<Vec<f64>> {
            Ok(read_f32(w)?.into_iter().map(f64::from).collect())
        };
        let given = match op.operands.get(2) {
            Some(c) => Some(wide(rw.plain_weight(*c)?)?),
            None => None,
        };
        let Some(beta) = beta else { return Ok(given) };
        let (beta, w) = (
            wide(rw.plain_weight(beta)?)?,
            rw.plain_weight(op.operands[1])?,
        );
        let dot = |row: &[f32]| row.iter().zip(&beta).map(|(w, b)| f64::from(*w) * b).sum();
        let mut sums: Vec<f64> = read_f32(w)?.chunks(beta.len().max(1)).map(dot).collect();
        if let Some(c) = given {
            sums.iter_mut().zip(c).for_each(|(s, c)| *s += c);
        }
        Ok(Some(sums))
    }

    /// `x · R`, made once.
    fn turn(&mut self, rw: &mut Rewriter<'_>, x: ValueId, r: &Rotation) -> Result<ValueId> {
        if let Some(v) = self.turned.get(&x) {
            return Ok(*v);
        }
        let ty = rw.src.ty(x).clone();
        let name = format!("{}.rotated", rw.src.value(x).name);
        let n = r.size();
        let dtype = ty.elem.plain().unwrap_or(DType::F32);
        let matrix = match self.matrices.get(&(n, dtype)) {
            Some(v) => *v,
            None => {
                let dims = vec![n as u64; 2];
                let dense = inline_f32(format!("hadamard.{n}"), dims, &r.dense());
                let dense = match dtype {
                    DType::F32 => dense,
                    _ => derive(&dense, Transform::Cast { dtype })?,
                };
                let v = rw.constant(dense);
                self.matrices.insert((n, dtype), v);
                v
            }
        };
        let mut v = rw.get(x);
        let mut runs = ty.clone();
        if let Some(last) = runs.shape.pop() {
            let parts = last.as_const().unwrap_or(0) / n as i64;
            if parts != 1 {
                runs.shape.push(parts.into());
            }
            runs.shape.push((n as i64).into());
        }
        v = rw.b.reshape(v, runs.shape.clone());
        let product = TensorType {
            shape: runs.shape,
            ..ty.clone()
        };
        v =
            rw.b.push(OpKind::MatMul, &[v, matrix], vec![product], &[&name])[0];
        v = rw.b.reshape(v, ty.shape);
        self.turned.insert(x, v);
        Ok(v)
    }
}

impl Rule for Plan {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        if self.funcs != 1 {
            return Ok(None);
        }
        let id = rw.id(op);
        if self.norms.contains(&id) {
            return self.bare_norm(rw, op);
        }
        if self.columns.contains_key(&id) || self.rows.contains_key(&id) {
            return self.linear(rw, op, id);
        }
        let mut operands = rw.operands(op);
        let mut changed = false;
        for ((_, i), (r, center)) in self.tables.range((id, 0)..=(id, usize::MAX)) {
            let w = rw.plain_weight(op.operands[*i])?;
            let axis = w.dims.len().saturating_sub(1);
            let span = 0..w.dims.last().map_or(0, |d| *d as usize);
            let turn = rotate(axis, span, r, *center, w.dtype);
            operands[*i] = rw.derived(op.operands[*i], turn)?;
            changed = true;
        }
        Ok(changed.then(|| rw.put(op, op.kind.clone(), &operands)))
    }
}

fn rotate(
    axis: usize,
    span: Range<usize>,
    r: &Arc<Rotation>,
    center: bool,
    dtype: DType,
) -> Transform {
    Transform::Rotate {
        axis,
        span,
        rotation: r.clone(),
        center,
        dtype,
    }
}

fn turn_bias(b: &mut [f64], span: Range<usize>, r: &Rows) {
    if r.center {
        let mean = b.iter().sum::<f64>() / b.len().max(1) as f64;
        b.iter_mut().for_each(|v| *v -= mean);
    }
    if let Some(part) = b.get_mut(span) {
        r.rotation.apply(part);
    }
}

/// A constant bias, in the format of the one that was there, else in that of the weight.
fn put_bias(
    rw: &mut Rewriter<'_>,
    given: Option<ValueId>,
    values: &[f64],
    weight: &Weight,
) -> Result<ValueId> {
    let (name, dtype) = match given {
        Some(c) => {
            let w = rw.plain_weight(c)?;
            (w.name.clone(), w.dtype)
        }
        None => (format!("{}.bias", weight.name), weight.dtype),
    };
    let narrow: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let wide = inline_f32(name, vec![values.len() as u64], &narrow);
    let bias = match dtype {
        DType::F32 => wide,
        _ => derive(&wide, Transform::Cast { dtype })?,
    };
    Ok(rw.constant(bias))
}
