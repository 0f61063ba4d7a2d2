//! One op: loads its operands, computes, stores its results.

use super::value::{Array, Nums, internal, load, load_tensor, store, store_plain};
use super::weights::weight_tensor;
use super::{contract, expr, layout, quant, reduce, scalar, sparse};
use crate::DType;
use crate::bind::Sizes;
use crate::diag::Result;
use crate::expr::Expr;
use crate::graph::{Module, OpKind, RotaryAttrs, TensorType, WeightId};
use crate::tensor::{Bundle, Tensor};

/// The results of one op on these operands. `m` supplies weights, `sizes` the symbols.
///
/// # Errors
/// As [`super::run`].
pub fn eval_op(
    m: &Module,
    kind: &OpKind,
    operands: &[&Bundle],
    types: &[&TensorType],
    results: &[&TensorType],
    sizes: &Sizes,
) -> Result<Vec<Bundle>> {
    let cx = Ctx {
        m,
        operands,
        types,
        results,
        sizes,
    };
    let single = |b: Result<Bundle>| Ok(vec![b?]);
    match kind {
        OpKind::Const {
            weight,
            scale,
            zero,
            global,
        } => single(cx.constant(*weight, [*scale, *zero, *global])),
        OpKind::Splat { value } => single(cx.splat(f64::from_bits(*value))),
        OpKind::Iota { axis } => single(cx.iota(*axis)),
        OpKind::Dim { value } => {
            let v = value
                .eval(&|s| sizes.get(s))
                .ok_or_else(|| internal(format!("size {value} is unbound")))?;
            single(Tensor::i64(&[], &[v]).map(Bundle::from))
        }
        OpKind::Map(e) => cx.map(e),
        OpKind::Quantize => single(cx.quantize()),
        OpKind::Linear {
            segments,
            accs,
            expr,
        } => cx.linear(segments, *accs, expr.as_ref()),
        OpKind::Conv {
            window,
            groups,
            expr,
        } => {
            let acc = contract::conv(
                (cx.operands[0], cx.types[0]),
                (cx.operands[1], cx.types[1]),
                window,
                *groups,
            )?;
            cx.finish(vec![acc], expr.as_ref(), &|cx, acc| {
                cx.plus_channel_bias(acc)
            })
        }
        OpKind::LayerNorm { eps, expr } => {
            let acc = reduce::normalize(&cx.load(0)?, f32::from_bits(*eps), true)?;
            cx.finish(vec![acc], expr.as_ref(), &Ctx::gain_and_bias)
        }
        OpKind::RmsNorm { eps, expr } => {
            let acc = reduce::normalize(&cx.load(0)?, f32::from_bits(*eps), false)?;
            cx.finish(vec![acc], expr.as_ref(), &Ctx::gain_and_bias)
        }
        OpKind::Attention { attrs, expr } => {
            let mask = if attrs.mask { Some(cx.load(3)?) } else { None };
            let acc = contract::attention(
                &cx.load(0)?,
                &cx.load(1)?,
                &cx.load(2)?,
                mask.as_ref(),
                attrs,
            )?;
            cx.finish(vec![acc], expr.as_ref(), &|_, acc| Ok(acc))
        }
        OpKind::Rotary(a) => cx.rotary(a),
        _ => {
            let a = cx.plain_op(kind)?;
            single(store(&a, results[0], None, None))
        }
    }
}

struct Ctx<'a> {
    m: &'a Module,
    operands: &'a [&'a Bundle],
    types: &'a [&'a TensorType],
    results: &'a [&'a TensorType],
    sizes: &'a Sizes,
}

impl Ctx<'_> {
    fn load(&self, i: usize) -> Result<Array> {
        load(self.operands[i], self.types[i])
    }

    fn dims(&self, i: usize) -> Result<Vec<usize>> {
        Ok(self
            .sizes
            .dims(self.results[i])?
            .into_iter()
            .map(|d| d as usize)
            .collect())
    }

    fn constant(
        &self,
        w: WeightId,
        [scale, zero, global]: [Option<WeightId>; 3],
    ) -> Result<Bundle> {
        let get = |w: WeightId| weight_tensor(self.m.weight(w));
        Ok(Bundle {
            codes: get(w)?,
            scale: scale.map(get).transpose()?,
            zero: zero.map(get).transpose()?,
            global: global.map(get).transpose()?,
        })
    }

    fn splat(&self, v: f64) -> Result<Bundle> {
        let dims = self.dims(0)?;
        let n = dims.iter().product();
        store(
            &Array::floats(dims, vec![v; n]),
            self.results[0],
            None,
            None,
        )
    }

    fn iota(&self, axis: usize) -> Result<Bundle> {
        let dims = self.dims(0)?;
        let mut v = Vec::new();
        layout::each_index(&dims, |i| v.push(i[axis] as i64));
        let nums = Nums::I(v);
        store(&Array { dims, nums }, self.results[0], None, None)
    }

    fn quantize(&self) -> Result<Bundle> {
        let q = self.results[0]
            .elem
            .quant()
            .ok_or_else(|| internal("quantize to a plain type"))?;
        let given = |i: Option<usize>| i.and_then(|i| self.operands.get(i)).map(|b| &b.codes);
        quant::quantize(q, &self.load(0)?, q.quantize_params().map(given))
    }

    fn map(&self, e: &Expr) -> Result<Vec<Bundle>> {
        let dims = self.dims(0)?;
        self.stores(e, &dims, &[])
    }

    /// Evaluates the expression over `dims` and stores every result.
    fn stores(&self, e: &Expr, dims: &[usize], accs: &[Array]) -> Result<Vec<Bundle>> {
        let steps = expr::eval_steps(e, dims, accs, &|k| self.load(usize::from(k)))?;
        let param = |k: Option<u8>| k.map(|k| &self.operands[usize::from(k)].codes);
        e.stores
            .iter()
            .zip(self.results)
            .map(|(s, ty)| {
                let nums = steps[s.value.0 as usize].clone();
                let dims = dims.to_vec();
                store(&Array { dims, nums }, ty, param(s.scale), param(s.zero))
            })
            .collect()
    }

    /// Stores accumulators by the expression, or what `default` makes of the first.
    fn finish(
        &self,
        mut accs: Vec<Array>,
        e: Option<&Expr>,
        default: &dyn Fn(&Self, Array) -> Result<Array>,
    ) -> Result<Vec<Bundle>> {
        for a in &mut accs {
            if let Nums::F(v) = &mut a.nums {
                super::value::to_f32(v);
            }
        }
        let dims = accs[0].dims.clone();
        match e {
            Some(e) => self.stores(e, &dims, &accs),
            None => {
                let a = default(self, accs.swap_remove(0))?;
                Ok(vec![store(&a, self.results[0], None, None)?])
            }
        }
    }

    fn linear(&self, segments: &[u64], accs: u8, e: Option<&Expr>) -> Result<Vec<Bundle>> {
        let a = contract::linear(
            (self.operands[0], self.types[0]),
            (self.operands[1], self.types[1]),
            accs,
        )?;
        if segments.is_empty() {
            return self.finish(a, e, &|cx, acc| cx.plus_bias(acc));
        }
        // All columns are computed as one result, then cut.
        let dims = a[0].dims.clone();
        let nums = match e {
            Some(e) => {
                let steps = expr::eval_steps(e, &dims, &a, &|k| self.load(usize::from(k)))?;
                steps[e.stores[0].value.0 as usize].clone()
            }
            None => {
                self.plus_bias(
                    a.into_iter()
                        .next()
                        .ok_or_else(|| internal("no accumulator"))?,
                )?
                .nums
            }
        };
        let whole = Array {
            dims: dims.clone(),
            nums,
        };
        let param = |k: Option<u8>| k.map(|k| &self.operands[usize::from(k)].codes);
        let store_of = e.and_then(|e| e.stores.first().copied());
        let mut at = vec![0; dims.len()];
        let mut out = Vec::new();
        for (w, ty) in segments.iter().zip(self.results) {
            let mut d = dims.clone();
            d[dims.len() - 1] = *w as usize;
            let part = layout::slice(&whole, &at, &vec![1; dims.len()], &d)?;
            out.push(store(
                &part,
                ty,
                param(store_of.and_then(|s| s.scale)),
                param(store_of.and_then(|s| s.zero)),
            )?);
            at[dims.len() - 1] += *w as usize;
        }
        Ok(out)
    }

    fn combine(&self, a: Array, i: usize, f: crate::expr::BinaryFn) -> Result<Array> {
        let b = layout::broadcast_to(&self.load(i)?, &a.dims)?;
        let mut nums = scalar::binary(f, &a.nums, &b.nums)?;
        if let Nums::F(v) = &mut nums {
            super::value::to_f32(v);
        }
        Ok(Array { dims: a.dims, nums })
    }

    fn plus_bias(&self, a: Array) -> Result<Array> {
        if self.operands.len() > 2 {
            self.combine(a, 2, crate::expr::BinaryFn::Add)
        } else {
            Ok(a)
        }
    }

    fn plus_channel_bias(&self, a: Array) -> Result<Array> {
        if self.operands.len() < 3 {
            return Ok(a);
        }
        let mut bias = self.load(2)?;
        bias.dims.extend(vec![1; a.dims.len() - 2]);
        let b = layout::broadcast_to(&bias, &a.dims)?;
        let mut nums = scalar::binary(crate::expr::BinaryFn::Add, &a.nums, &b.nums)?;
        if let Nums::F(v) = &mut nums {
            super::value::to_f32(v);
        }
        Ok(Array { dims: a.dims, nums })
    }

    fn gain_and_bias(&self, a: Array) -> Result<Array> {
        let a = self.combine(a, 1, crate::expr::BinaryFn::Mul)?;
        self.plus_bias(a)
    }

    fn elementwise(&self, kind: &OpKind) -> Result<Array> {
        let mut dims = Vec::new();
        let loaded: Vec<Array> = (0..self.operands.len())
            .map(|i| self.load(i))
            .collect::<Result<_>>()?;
        for a in &loaded {
            dims = layout::broadcast_dims(&dims, &a.dims)?;
        }
        let v: Vec<Array> = loaded
            .iter()
            .map(|a| layout::broadcast_to(a, &dims))
            .collect::<Result<_>>()?;
        let nums = match kind {
            OpKind::Unary(f) => scalar::unary(*f, &v[0].nums)?,
            OpKind::Binary(f) => scalar::binary(*f, &v[0].nums, &v[1].nums)?,
            _ => expr::select(&v[0].nums, &v[1].nums, &v[2].nums)?,
        };
        Ok(Array { dims, nums })
    }

    fn rotary(&self, a: &RotaryAttrs) -> Result<Vec<Bundle>> {
        let (cos, sin) = (self.load(1)?, self.load(2)?);
        let x = self.load(0)?;
        let head = x.dims[2] / a.heads as usize;
        let mut out = vec![store(
            &contract::rotary(&x, &cos, &sin, head, a.interleaved)?,
            self.results[0],
            None,
            None,
        )?];
        if self.operands.len() > 3 {
            let y = contract::rotary(&self.load(3)?, &cos, &sin, head, a.interleaved)?;
            out.push(store(&y, self.results[1], None, None)?);
        }
        Ok(out)
    }

    /// Ops whose single result is stored as its type says.
    fn plain_op(&self, kind: &OpKind) -> Result<Array> {
        match kind {
            OpKind::Unary(_) | OpKind::Binary(_) | OpKind::Select => self.elementwise(kind),
            OpKind::Cast => cast(&self.load(0)?, self.results[0]),
            OpKind::Dequantize => self.load(0),
            OpKind::Reshape => {
                let a = self.load(0)?;
                let dims = self.dims(0)?;
                if dims.iter().product::<usize>() != a.len() {
                    return Err(internal(format!(
                        "{:?} does not reshape to {dims:?}",
                        a.dims
                    )));
                }
                Ok(Array { dims, nums: a.nums })
            }
            OpKind::Transpose { perm } => Ok(layout::transpose(&self.load(0)?, perm)),
            OpKind::Expand => layout::broadcast_to(&self.load(0)?, &self.dims(0)?),
            OpKind::Slice { starts, steps, .. } => {
                let at = |d: &crate::DimExpr| {
                    d.eval(&|s| self.sizes.get(s))
                        .and_then(|v| usize::try_from(v).ok())
                };
                let starts: Option<Vec<usize>> = starts.iter().map(at).collect();
                let starts =
                    starts.ok_or_else(|| internal("a slice start is unbound or negative"))?;
                layout::slice(&self.load(0)?, &starts, steps, &self.dims(0)?)
            }
            OpKind::Concat { axis } => {
                let parts: Vec<Array> = (0..self.operands.len())
                    .map(|i| self.load(i))
                    .collect::<Result<_>>()?;
                layout::concat(&parts, *axis)
            }
            OpKind::Pad { lo, hi, value } => {
                Ok(layout::pad(&self.load(0)?, lo, hi, f64::from_bits(*value)))
            }
            OpKind::Gather { axis } => layout::gather(
                &self.load(0)?,
                &load_tensor(&self.operands[1].codes)?,
                *axis,
            ),
            OpKind::Reduce { f, axes, keep } => reduce::reduce(&self.load(0)?, *f, axes, *keep),
            OpKind::CumSum { axis } => Ok(reduce::cumsum(&self.load(0)?, *axis)),
            OpKind::Softmax { axis } => reduce::softmax(&self.load(0)?, *axis),
            OpKind::SparseLinear => sparse::sparse_linear(
                &self.load(0)?,
                &load_tensor(&self.operands[1].codes)?,
                &self.load(2)?,
            ),
            OpKind::MatMul => contract::matmul(&self.load(0)?, &self.load(1)?),
            OpKind::Pool { f, window } => contract::pool(&self.load(0)?, *f, window),
            other => Err(internal(format!("`{}` is not a plain op", other.name()))),
        }
    }
}

/// Conversion between plain formats; the numbers stay in the compute type that `store` expects.
fn cast(a: &Array, ty: &TensorType) -> Result<Array> {
    let d: DType = ty.plain("a cast")?;
    load_tensor(&store_plain(a, d)?)
}
