//! Conversions between formats: between the wide ones by instructions, of narrow floats by calls
//! of the codecs in [`qcc_ir::format`].

use super::arith::{bits, narrow};
use super::calls::{self, Signature};
use super::emit::{Emitter, Pieces};
use super::failed;
use super::lanes::scalar;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::Kind;
use qcc_ir::kernel::{self, Round, Sat, Ty};

impl Emitter<'_, '_> {
    pub(super) fn convert(
        &mut self,
        v: kernel::Value,
        to: Ty,
        round: Round,
        sat: Sat,
    ) -> Result<Pieces> {
        let from = self.ty(v);
        let (Some(f), Some(t)) = (from.dtype(), to.dtype()) else {
            return Err(failed("a conversion of a pointer"));
        };
        let x = self.get(v);
        let vector = from.lanes() > 1;
        match (f, t) {
            _ if f == t => Ok(x),
            (DType::F32, DType::F64) if vector => Ok(self.widen(&x)),
            (DType::F64, DType::F32) if vector && round == Round::Rn => Ok(self.demote(&x)),
            (DType::F32, DType::I32) if round == Round::Rz && sat == Sat::Sat => {
                let ty = if vector { types::I32X4 } else { types::I32 };
                Ok(x.iter()
                    .map(|v| self.b.ins().fcvt_to_sint_sat(ty, *v))
                    .collect())
            }
            _ => {
                let lanes = self.lanes(v)?;
                let lanes: Vec<Value> = lanes
                    .into_iter()
                    .map(|x| self.convert_lane(f, t, (round, sat), x))
                    .collect::<Result<_>>()?;
                self.join(to, &lanes)
            }
        }
    }

    fn convert_lane(
        &mut self,
        f: DType,
        t: DType,
        (round, sat): (Round, Sat),
        x: Value,
    ) -> Result<Value> {
        let ints = f.is_int() && t.is_int();
        match (f, t) {
            (DType::F32, DType::F64) => Ok(self.b.ins().fpromote(types::F64, x)),
            (DType::F64, DType::F32) if round == Round::Rn => {
                Ok(self.b.ins().fdemote(types::F32, x))
            }
            (f, DType::F32) if narrow(f) => self.decode(f, x),
            // Overflow of the 8-bit floats is defined for saturation only.
            (DType::F32, t) if narrow(t) && round == Round::Rn => match (t, sat) {
                (DType::E4M3 | DType::E5M2, Sat::Wrap) | (DType::F16 | DType::BF16, Sat::Sat) => {
                    Err(failed(format!("conversion to {t} with this overflow")))
                }
                _ => self.encode(t, x),
            },
            (f, DType::F32 | DType::F64) if f.kind() == Kind::Signed && round == Round::Rn => {
                let wide = self.extend(f, x)?;
                Ok(self.b.ins().fcvt_from_sint(scalar(t)?, wide))
            }
            _ if ints && sat == Sat::Wrap => {
                let (a, b) = (scalar(f)?, scalar(t)?);
                Ok(match a.bits().cmp(&b.bits()) {
                    std::cmp::Ordering::Greater => self.b.ins().ireduce(b, x),
                    std::cmp::Ordering::Equal => x,
                    std::cmp::Ordering::Less if f.kind() == Kind::Signed => {
                        self.b.ins().sextend(b, x)
                    }
                    std::cmp::Ordering::Less => self.b.ins().uextend(b, x),
                })
            }
            _ => Err(failed(format!("conversion of {f} to {t}"))),
        }
    }

    /// A signed integer of at least 32 bits.
    fn extend(&mut self, f: DType, x: Value) -> Result<Value> {
        Ok(if f.bits() < 32 {
            self.b.ins().sextend(types::I32, x)
        } else {
            x
        })
    }

    fn decode(&mut self, f: DType, x: Value) -> Result<Value> {
        let name = calls::decode(f).ok_or_else(|| failed(format!("no decoder of {f}")))?;
        let code = self.b.ins().uextend(types::I32, x);
        self.call(name, Signature::Decode, code)
    }

    fn encode(&mut self, t: DType, x: Value) -> Result<Value> {
        let name = calls::encode(t).ok_or_else(|| failed(format!("no encoder of {t}")))?;
        let code = self.call(name, Signature::Encode, x)?;
        Ok(self.b.ins().ireduce(scalar(t)?, code))
    }

    /// Four f32 lanes as two pieces of f64.
    fn widen(&mut self, x: &[Value]) -> Pieces {
        let mut out = Vec::new();
        for v in x {
            out.push(self.b.ins().fvpromote_low(*v));
            let pairs = self.b.ins().bitcast(types::F64X2, bits(), *v);
            let high = self.b.ins().extractlane(pairs, 1);
            let high = self.b.ins().scalar_to_vector(types::F64X2, high);
            let high = self.b.ins().bitcast(types::F32X4, bits(), high);
            out.push(self.b.ins().fvpromote_low(high));
        }
        out
    }

    /// The reverse of [`Self::widen`], rounding to nearest even.
    fn demote(&mut self, x: &[Value]) -> Pieces {
        let mut out = Vec::new();
        for pair in x.chunks(2) {
            let halves: Vec<Value> = pair
                .iter()
                .map(|v| {
                    let low = self.b.ins().fvdemote(*v);
                    self.b.ins().bitcast(types::F64X2, bits(), low)
                })
                .collect();
            let joined = match halves[..] {
                [low, high] => {
                    let high = self.b.ins().extractlane(high, 0);
                    self.b.ins().insertlane(low, high, 1u8)
                }
                _ => halves[0],
            };
            out.push(self.b.ins().bitcast(types::F32X4, bits(), joined));
        }
        out
    }
}
