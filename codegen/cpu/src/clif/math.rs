//! Functions of one float: `exp`, `tanh` and `erf` are expanded in place, step by step as
//! [`crate::math`] computes them, so both give the same bits; the rest are calls.

use super::arith::bits;
use super::calls::{self, Signature};
use super::emit::{Emitter, Pieces};
use super::failed;
use crate::math::{ERF_LARGE, ERF_SMALL, EXP, EXP_BOUNDS, LN2, ROUNDER, TANH};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::kernel::{self, Math};

impl Emitter<'_, '_> {
    pub(super) fn math(&mut self, f: Math, v: kernel::Value) -> Result<Pieces> {
        let ty = self.ty(v);
        let wide = ty.dtype() == Some(DType::F64);
        let x = self.get(v);
        if let Some(name) = calls::real(f).filter(|_| !wide) {
            let lanes = self.lanes(v)?;
            let lanes: Vec<Value> = lanes
                .into_iter()
                .map(|x| self.call(name, Signature::Real, x))
                .collect::<Result<_>>()?;
            return self.join(ty, &lanes);
        }
        x.into_iter()
            .map(|x| {
                let t = self.b.func.dfg.value_type(x);
                match (f, wide) {
                    (Math::Sqrt, _) => Ok(self.b.ins().sqrt(x)),
                    (Math::Rsqrt, _) => {
                        let root = self.b.ins().sqrt(x);
                        Ok(self.reciprocal(t, root))
                    }
                    (Math::Rcp, _) => Ok(self.reciprocal(t, x)),
                    (Math::Exp, false) => Ok(self.exp(t, x)),
                    (Math::Tanh, false) => Ok(self.tanh(t, x)),
                    (Math::Erf, false) => Ok(self.erf(t, x)),
                    _ => Err(failed(format!("function {f:?} of f64"))),
                }
            })
            .collect()
    }

    fn reciprocal(&mut self, t: Type, x: Value) -> Value {
        let one = match t {
            types::F64 => self.b.ins().f64const(1.0),
            types::F64X2 => {
                let one = self.b.ins().f64const(1.0);
                self.b.ins().splat(t, one)
            }
            _ => self.float(t, 1.0),
        };
        self.b.ins().fdiv(one, x)
    }

    fn poly(&mut self, t: Type, x: Value, c: &[f32]) -> Value {
        let mut sum = self.float(t, 0.0);
        for c in c.iter().rev() {
            let product = self.b.ins().fmul(sum, x);
            let c = self.float(t, *c);
            sum = self.b.ins().fadd(product, c);
        }
        sum
    }

    /// `c` where it compares so with `x`, else `x`; a NaN in `x` stays.
    fn bound(&mut self, t: Type, cc: FloatCC, c: f32, x: Value) -> Value {
        let c = self.float(t, c);
        let outside = self.b.ins().fcmp(cc, c, x);
        self.blend(outside, c, x)
    }

    fn int(&mut self, t: Type, v: i32) -> Value {
        let one = self.b.ins().iconst(types::I32, i64::from(v as u32));
        if t == types::F32 {
            one
        } else {
            self.b.ins().splat(types::I32X4, one)
        }
    }

    /// `2^e`, `e` an integer in the type of lanes of `t`.
    fn power(&mut self, t: Type, e: Value) -> Value {
        let bias = self.int(t, 127);
        let biased = self.b.ins().iadd(e, bias);
        let places = self.b.ins().iconst(types::I32, 23);
        let bits32 = self.b.ins().ishl(biased, places);
        self.b.ins().bitcast(t, bits(), bits32)
    }

    fn exp(&mut self, t: Type, x: Value) -> Value {
        let x = self.bound(t, FloatCC::GreaterThan, EXP_BOUNDS.0, x);
        let x = self.bound(t, FloatCC::LessThan, EXP_BOUNDS.1, x);
        let (log2e, anchor) = (
            self.float(t, std::f32::consts::LOG2_E),
            self.float(t, ROUNDER),
        );
        let scaled = self.b.ins().fmul(x, log2e);
        let shifted = self.b.ins().fadd(scaled, anchor);
        let n = self.b.ins().fsub(shifted, anchor);
        let (high, low) = (self.float(t, LN2.0), self.float(t, LN2.1));
        let high = self.b.ins().fmul(n, high);
        let low = self.b.ins().fmul(n, low);
        let r = self.b.ins().fsub(x, high);
        let r = self.b.ins().fadd(r, low);
        let p = self.poly(t, r, &EXP);
        let int = if t == types::F32 {
            types::I32
        } else {
            types::I32X4
        };
        let code = self.b.ins().bitcast(int, bits(), shifted);
        let zero = self.int(t, ROUNDER.to_bits() as i32);
        let n = self.b.ins().isub(code, zero);
        let one = self.b.ins().iconst(types::I32, 1);
        let half = self.b.ins().sshr(n, one);
        let rest = self.b.ins().isub(n, half);
        let (a, b) = (self.power(t, half), self.power(t, rest));
        let p = self.b.ins().fmul(p, a);
        self.b.ins().fmul(p, b)
    }

    /// The sign of `x` on the magnitude of `v`.
    fn copysign(&mut self, t: Type, v: Value, x: Value) -> Value {
        if t == types::F32 {
            return self.b.ins().fcopysign(v, x);
        }
        let int = types::I32X4;
        let (v, x) = (self.recast(v, int), self.recast(x, int));
        let mask = self.int(t, i32::MIN);
        let out = self.b.ins().bitselect(mask, x, v);
        self.recast(out, t)
    }

    fn tanh(&mut self, t: Type, x: Value) -> Value {
        let a = self.b.ins().fabs(x);
        let u = self.b.ins().fmul(x, x);
        let p = self.poly(t, u, &TANH);
        let small = self.b.ins().fmul(x, p);
        let (one, two) = (self.float(t, 1.0), self.float(t, 2.0));
        let twice = self.b.ins().fmul(two, a);
        let e = self.exp(t, twice);
        let sum = self.b.ins().fadd(e, one);
        let quotient = self.b.ins().fdiv(two, sum);
        let large = self.b.ins().fsub(one, quotient);
        let large = self.copysign(t, large, x);
        let bound = self.float(t, 0.625);
        let below = self.b.ins().fcmp(FloatCC::LessThan, a, bound);
        self.blend(below, small, large)
    }

    fn erf(&mut self, t: Type, x: Value) -> Value {
        let a = self.b.ins().fabs(x);
        let u = self.b.ins().fmul(x, x);
        let p = self.poly(t, u, &ERF_SMALL);
        let small = self.b.ins().fmul(x, p);
        let z = self.bound(t, FloatCC::LessThan, 6.0, a);
        let (one, half) = (self.float(t, 1.0), self.float(t, 0.5));
        let scaled = self.b.ins().fmul(half, z);
        let sum = self.b.ins().fadd(one, scaled);
        let inverse = self.b.ins().fdiv(one, sum);
        let minus = self.b.ins().fneg(z);
        let square = self.b.ins().fmul(minus, z);
        let e = self.exp(t, square);
        let p = self.poly(t, inverse, &ERF_LARGE);
        let te = self.b.ins().fmul(inverse, e);
        let tail = self.b.ins().fmul(te, p);
        let large = self.b.ins().fsub(one, tail);
        let large = self.copysign(t, large, x);
        let below = self.b.ins().fcmp(FloatCC::LessThan, a, one);
        self.blend(below, small, large)
    }
}
