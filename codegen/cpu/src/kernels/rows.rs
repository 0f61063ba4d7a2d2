//! The row kernel: an expression over the rows of its operands, with an optional reduction of
//! each row before it and quantization of each row after it.
//!
//! ```text
//! for row in begin..end:
//!   stats     layer norm: mean, 1/√(var + eps)   rms norm: 1/√(mean(x²) + eps)
//!             softmax: e^(x − max) into a scratch row, 1/Σ        (sums in f64)
//!   columns   acc0 = (x − mean)·factor, the expression, stores; four columns at a time
//!   quantize  for each dynamic result: scale = max|v|/largest code, codes of the row
//! ```
//!
//! Parameters, in order: `begin`, `end`, `cols`; each accumulator's pointer (rows of `cols`); for
//! each operand its pointer and the distance of its rows in elements; for each result its pointer
//! (rows of `cols`), followed, if it is quantized, by scale and zero point (static), or by the
//! pointers to its scales and to a scratch row (dynamic); a scratch row for softmax.

use super::stats::{exponentials, f64_const, factor, splat, sum};
use qcc_ir::DType;
use qcc_ir::expr::Expr;
use qcc_ir::format::QuantFormat;
use qcc_ir::graph::QuantType;
use qcc_ir::kernel::{
    Kernel, KernelBuilder, Problem, Ty, Value, lower_expr_lanes, quantize_code, to_compute,
    to_storage,
};

/// What is computed of a row of accumulator 0 before the expression sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reduction {
    /// Nothing.
    None,
    /// `(x − mean)/√(var + eps)`
    LayerNorm(f32),
    /// `x/√(mean(x²) + eps)`
    RmsNorm(f32),
    /// `e^(x − max)/Σ`
    Softmax,
}

/// An operand of the expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Input {
    /// Its position among the op's operands.
    pub(crate) at: u8,
    pub(crate) dtype: DType,
    /// Whether it has one element per column, instead of one for the whole row.
    pub(crate) columns: bool,
}

/// How a result is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Rounded to a plain format.
    Plain(DType),
    /// Quantized by one scale (and zero point) that is known before.
    Static(QuantType),
    /// Quantized by a scale of the row, symmetric.
    Dynamic(QuantType),
}

/// A row kernel.
pub(crate) struct Rows<'a> {
    pub(crate) expr: &'a Expr,
    pub(crate) reduction: Reduction,
    /// Accumulators that are read from memory.
    pub(crate) accs: usize,
    pub(crate) inputs: Vec<Input>,
    /// One per store of the expression.
    pub(crate) outputs: Vec<Output>,
}

/// Columns computed at once.
pub(super) const LANES: u8 = 4;

/// The kernel's parameters.
struct Params {
    cols: Value,
    accs: Vec<Value>,
    /// Pointer and distance of rows.
    inputs: Vec<(Value, Value)>,
    sinks: Vec<Sink>,
    /// The scratch row of a softmax.
    weights: Option<Value>,
}

/// Where a result goes.
struct Sink {
    to: Value,
    /// Scale and zero point, f32.
    fixed: Option<(Value, Option<Value>)>,
    /// Pointers to the scales and to a scratch row.
    dynamic: Option<(Value, Value)>,
}

/// Pointers and numbers of one row.
struct Row {
    accs: Vec<Value>,
    /// A pointer, or the element that serves the whole row.
    inputs: Vec<Value>,
    sinks: Vec<Value>,
    /// `(shift, factor)` in f64, or the factor of a softmax in f32.
    stats: Vec<Value>,
}

impl Rows<'_> {
    /// Whether four columns can be computed at once: truth values in memory are bytes, and
    /// vectors have no byte masks.
    fn vector(&self) -> bool {
        let bools = self.inputs.iter().any(|i| i.dtype == DType::Bool);
        !bools && !self.outputs.contains(&Output::Plain(DType::Bool))
    }

    /// The kernel.
    ///
    /// # Errors
    /// When the expression is not typed for the operands.
    pub(crate) fn build(&self) -> Result<Kernel, Problem> {
        let (mut k, begin, end) = KernelBuilder::serial("rows");
        let p = self.params(&mut k);
        let one = k.i64(1);
        k.for_range(begin, end, one, &[], |k, row, _| {
            self.row(k, &p, row);
            Vec::new()
        });
        k.finish()
    }

    fn params(&self, k: &mut KernelBuilder) -> Params {
        let cols = k.param("cols", Ty::I64);
        let accs = (0..self.accs).map(|i| k.param_ro(&format!("acc{i}"), DType::F32));
        let accs = accs.collect();
        let mut inputs = Vec::new();
        for i in &self.inputs {
            let elem = if i.dtype == DType::Bool {
                DType::U8
            } else {
                i.dtype
            };
            let p = k.param_ro(&format!("in{}", i.at), elem);
            inputs.push((p, k.param(&format!("step{}", i.at), Ty::I64)));
        }
        let mut sinks = Vec::new();
        for (i, o) in self.outputs.iter().enumerate() {
            sinks.push(sink(k, i, o));
        }
        let softmax = self.reduction == Reduction::Softmax;
        Params {
            cols,
            accs,
            inputs,
            sinks,
            weights: softmax.then(|| k.param_ptr("weights", DType::F32)),
        }
    }

    fn row(&self, k: &mut KernelBuilder, p: &Params, row: Value) {
        let start = k.mul(row, p.cols);
        let accs: Vec<Value> = p.accs.iter().map(|a| k.ptr_add(*a, start)).collect();
        let mut inputs = Vec::new();
        for ((ptr, step), i) in p.inputs.iter().zip(&self.inputs) {
            let at = k.mul(row, *step);
            let ptr = k.ptr_add(*ptr, at);
            inputs.push(if i.columns {
                ptr
            } else {
                read(k, ptr, i.dtype, 1)
            });
        }
        let sinks = p.sinks.iter().map(|s| k.ptr_add(s.to, start)).collect();
        let stats = self.stats(k, p, accs.first().copied());
        let at = Row {
            accs,
            inputs,
            sinks,
            stats,
        };
        let maxima = self.columns(k, p, &at);
        let mut maxima = maxima.into_iter();
        for (i, o) in self.outputs.iter().enumerate() {
            if let (Output::Dynamic(q), Some((scales, scratch))) = (o, p.sinks[i].dynamic)
                && let Some(max) = maxima.next()
            {
                let scale = row_scale(k, q, max);
                let to = k.ptr_add(scales, row);
                k.store(to, scale);
                codes(k, q, p.cols, scratch, scale, at.sinks[i]);
            }
        }
    }

    fn stats(&self, k: &mut KernelBuilder, p: &Params, x: Option<Value>) -> Vec<Value> {
        let Some(x) = x else { return Vec::new() };
        let n = k.cvt(p.cols, DType::F64);
        match self.reduction {
            Reduction::None => Vec::new(),
            Reduction::LayerNorm(eps) => {
                let zero = f64_const(k, 0.0);
                let sum = sum(k, p.cols, x, zero, false);
                let mean = k.div(sum, n);
                let factor = factor(k, p.cols, x, mean, eps);
                vec![mean, factor]
            }
            Reduction::RmsNorm(eps) => {
                let zero = f64_const(k, 0.0);
                let factor = factor(k, p.cols, x, zero, eps);
                vec![zero, factor]
            }
            Reduction::Softmax => match p.weights {
                Some(w) => vec![exponentials(k, p.cols, x, w)],
                None => Vec::new(),
            },
        }
    }

    /// Accumulators at a column.
    fn acc(
        &self,
        k: &mut KernelBuilder,
        p: &Params,
        at: &Row,
        col: Value,
        lanes: u8,
    ) -> Vec<Value> {
        let from = match (self.reduction, p.weights) {
            (Reduction::Softmax, Some(w)) => std::slice::from_ref(&w).to_vec(),
            _ => at.accs.clone(),
        };
        let mut out = Vec::new();
        for a in from {
            let ptr = k.ptr_add(a, col);
            out.push(k.load_vec(ptr, lanes));
        }
        match (self.reduction, &at.stats[..]) {
            (Reduction::Softmax, [factor]) => {
                let f = splat(k, *factor, lanes);
                out[0] = k.mul(out[0], f);
            }
            (_, [shift, factor]) => {
                let wide = k.cvt(out[0], DType::F64);
                let (s, f) = (splat(k, *shift, lanes), splat(k, *factor, lanes));
                let centred = k.sub(wide, s);
                let scaled = k.mul(centred, f);
                out[0] = k.cvt(scaled, DType::F32);
            }
            _ => {}
        }
        out
    }

    /// Computes and stores every column; the largest magnitudes (as bits) of dynamic results.
    fn columns(&self, k: &mut KernelBuilder, p: &Params, at: &Row) -> Vec<Value> {
        let dynamic = self
            .outputs
            .iter()
            .filter(|o| matches!(o, Output::Dynamic(_)))
            .count();
        let mut maxima = vec![k.i32(0); dynamic];
        let mut from = k.i64(0);
        if self.vector() {
            let wide = Ty::vec(DType::I32, LANES);
            let init = vec![k.const_bits(wide, 0); dynamic];
            let (step, end) = (
                k.i64(i64::from(LANES)),
                k.and_imm(p.cols, -i64::from(LANES)),
            );
            let wide = k.for_range(from, end, step, &init, |k, col, max| {
                self.column(k, p, at, col, LANES, max)
            });
            for (m, w) in maxima.iter_mut().zip(wide) {
                for lane in k.lanes(w) {
                    *m = k.max(*m, lane);
                }
            }
            from = end;
        }
        let one = k.i64(1);
        k.for_range(from, p.cols, one, &maxima, |k, col, max| {
            self.column(k, p, at, col, 1, max)
        })
    }

    fn column(
        &self,
        k: &mut KernelBuilder,
        p: &Params,
        at: &Row,
        col: Value,
        lanes: u8,
        max: &[Value],
    ) -> Vec<Value> {
        let accs = self.acc(k, p, at, col, lanes);
        let steps = lower_expr_lanes(k, self.expr, lanes, &accs, &mut |k, n| match self
            .inputs
            .iter()
            .position(|i| i.at == n)
        {
            Some(i) if self.inputs[i].columns => {
                let ptr = k.ptr_add(at.inputs[i], col);
                read(k, ptr, self.inputs[i].dtype, lanes)
            }
            Some(i) => splat(k, at.inputs[i], lanes),
            None => {
                k.fail(Problem::new("K02", format!("no operand {n}")));
                k.f32_splat(0.0, lanes)
            }
        });
        let mut max = max.to_vec();
        let mut seen = 0;
        for (i, (o, s)) in self.outputs.iter().zip(&self.expr.stores).enumerate() {
            let v = steps[s.value.0 as usize];
            let to = k.ptr_add(at.sinks[i], col);
            match o {
                Output::Plain(d) => write(k, to, *d, v),
                Output::Static(q) => {
                    if let Some((scale, zero)) = p.sinks[i].fixed {
                        let scale = splat(k, scale, lanes);
                        let zero = zero.map(|z| splat(k, z, lanes));
                        let code = quantize_code(k, q, v, scale, zero);
                        k.store(to, code);
                    }
                }
                Output::Dynamic(_) => {
                    if let Some((_, scratch)) = p.sinks[i].dynamic {
                        let to = k.ptr_add(scratch, col);
                        k.store(to, v);
                        max[seen] = larger(k, max[seen], v);
                        seen += 1;
                    }
                }
            }
        }
        max
    }
}

fn sink(k: &mut KernelBuilder, i: usize, o: &Output) -> Sink {
    let elem = match o {
        Output::Plain(DType::Bool) => DType::U8,
        Output::Plain(d) => *d,
        Output::Static(q) | Output::Dynamic(q) => q.storage,
    };
    let to = k.param_ptr(&format!("out{i}"), elem);
    let mut sink = Sink {
        to,
        fixed: None,
        dynamic: None,
    };
    match o {
        Output::Plain(_) => {}
        Output::Static(q) => {
            let scale = k.param(&format!("scale{i}"), Ty::F32);
            let zero = q.zero.map(|_| k.param(&format!("zero{i}"), Ty::F32));
            sink.fixed = Some((scale, zero));
        }
        Output::Dynamic(_) => {
            let scales = k.param_ptr(&format!("scales{i}"), DType::F32);
            sink.dynamic = Some((scales, k.param_ptr(&format!("row{i}"), DType::F32)));
        }
    }
    sink
}

/// Elements in their compute type.
fn read(k: &mut KernelBuilder, p: Value, d: DType, lanes: u8) -> Value {
    let v = k.load_vec(p, lanes);
    if d == DType::Bool {
        let zero = k.int_like(v, 0);
        return k.cmp(qcc_ir::kernel::Cmp::Ne, v, zero);
    }
    to_compute(k, d, v)
}

fn write(k: &mut KernelBuilder, p: Value, d: DType, v: Value) {
    let v = to_storage(k, d, v);
    let v = match d {
        DType::Bool => {
            let ty = Ty::scalar(DType::U8);
            let (one, zero) = (k.const_bits(ty, 1), k.const_bits(ty, 0));
            k.select(v, one, zero)
        }
        _ => v,
    };
    k.store(p, v);
}

/// The larger of `max` and the magnitude of `v`, both as bits: NaN is above infinity.
fn larger(k: &mut KernelBuilder, max: Value, v: Value) -> Value {
    let ty = k.ty(v).with_dtype(DType::I32);
    let bits = k.bitcast(v, ty);
    let magnitude = k.and_imm(bits, i64::from(i32::MAX));
    k.max(max, magnitude)
}

/// `max/largest code`, or 1 for a row of zeros.
fn row_scale(k: &mut KernelBuilder, q: &QuantType, max: Value) -> Value {
    let range = if q.narrow {
        qcc_ir::format::Range::Narrow
    } else {
        qcc_ir::format::Range::Full
    };
    let largest = match QuantFormat::new(q.storage, range) {
        Ok(f) => f.max(),
        Err(e) => {
            k.fail(Problem::new("K03", e.to_string()));
            1.0
        }
    };
    let max = k.bitcast(max, Ty::F32);
    let (largest, zero, one) = (k.f32(largest), k.f32(0.0), k.f32(1.0));
    let scale = k.div(max, largest);
    let none = k.eq(scale, zero);
    k.select(none, one, scale)
}

/// Quantizes the scratch row.
fn codes(k: &mut KernelBuilder, q: &QuantType, cols: Value, from: Value, scale: Value, to: Value) {
    let term = |k: &mut KernelBuilder, col: Value, lanes: u8| {
        let p = k.ptr_add(from, col);
        let v = k.load_vec(p, lanes);
        let s = splat(k, scale, lanes);
        let code = quantize_code(k, q, v, s, None);
        let to = k.ptr_add(to, col);
        k.store(to, code);
    };
    let (start, end) = (k.i64(0), k.and_imm(cols, -i64::from(LANES)));
    let (four, one) = (k.i64(i64::from(LANES)), k.i64(1));
    k.for_range(start, end, four, &[], |k, col, _| {
        term(k, col, LANES);
        Vec::new()
    });
    k.for_range(end, cols, one, &[], |k, col, _| {
        term(k, col, 1);
        Vec::new()
    });
}
