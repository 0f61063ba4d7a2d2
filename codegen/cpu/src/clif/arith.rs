//! Arithmetic, comparison and selection, piece by piece.

use super::emit::{Emitter, Pieces};
use super::failed;
use super::lanes::pieces;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value, types};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::Kind;
use qcc_ir::kernel::{self, Cmp, NanMode, Op, Round, Stmt, Ty};

/// Bitcasts between vectors keep the order of bytes in memory.
pub(super) fn bits() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

/// Whether an element format is a signed integer.
fn signed(ty: Ty) -> bool {
    ty.dtype().is_some_and(|d| d.kind() == Kind::Signed)
}

impl Emitter<'_, '_> {
    /// Operations that work on each piece alone.
    pub(super) fn arith(&mut self, s: &Stmt, ty: Ty) -> Result<Pieces> {
        if let Op::Select = s.op {
            return self.select(s);
        }
        let args: Vec<Pieces> = s.args.iter().map(|a| self.get(*a)).collect();
        let of = s.args.first().map_or(ty, |a| self.ty(*a));
        let count = args.first().map_or(0, Vec::len);
        (0..count)
            .map(|i| {
                let x: Vec<Value> = args.iter().filter_map(|a| a.get(i).copied()).collect();
                match x[..] {
                    [a] => self.unary(&s.op, of, a),
                    [a, b] => self.binary(&s.op, of, a, b),
                    [a, b, c] => self.ternary(&s.op, a, b, c),
                    _ => Err(failed(format!("operation `{}`", s.op.name()))),
                }
            })
            .collect()
    }

    fn unary(&mut self, op: &Op, of: Ty, a: Value) -> Result<Value> {
        let scalar_bool = of == Ty::BOOL;
        let b = self.b.ins();
        Ok(match op {
            Op::INeg => b.ineg(a),
            Op::IAbs => b.iabs(a),
            Op::Not if scalar_bool => b.bxor_imm_u(a, 1),
            Op::Not => b.bnot(a),
            Op::Popc => b.popcnt(a),
            Op::Clz => b.clz(a),
            Op::FNeg => b.fneg(a),
            Op::FAbs => b.fabs(a),
            Op::FRound { round: Round::Rn } => b.nearest(a),
            Op::FRound { round: Round::Rz } => b.trunc(a),
            Op::FRound { round: Round::Rm } => b.floor(a),
            Op::FRound { round: Round::Rp } => b.ceil(a),
            _ => return Err(failed(format!("operation `{}`", op.name()))),
        })
    }

    fn binary(&mut self, op: &Op, of: Ty, x: Value, y: Value) -> Result<Value> {
        let s = signed(of);
        let b = self.b.ins();
        Ok(match op {
            Op::IAdd => b.iadd(x, y),
            Op::ISub => b.isub(x, y),
            Op::IMul => b.imul(x, y),
            Op::IMin if s => b.smin(x, y),
            Op::IMin => b.umin(x, y),
            Op::IMax if s => b.smax(x, y),
            Op::IMax => b.umax(x, y),
            Op::And => b.band(x, y),
            Op::Or => b.bor(x, y),
            Op::Xor => b.bxor(x, y),
            Op::FAdd { round: Round::Rn } => b.fadd(x, y),
            Op::FSub { round: Round::Rn } => b.fsub(x, y),
            Op::FMul { round: Round::Rn } => b.fmul(x, y),
            Op::FDiv { round: Round::Rn } => b.fdiv(x, y),
            Op::FMin {
                nan: NanMode::Propagate,
            } => b.fmin(x, y),
            Op::FMax {
                nan: NanMode::Propagate,
            } => b.fmax(x, y),
            Op::Cmp { cmp } => return Ok(self.compare(*cmp, of, x, y)),
            _ => return Err(failed(format!("operation `{}`", op.name()))),
        })
    }

    fn ternary(&mut self, op: &Op, x: Value, y: Value, z: Value) -> Result<Value> {
        Ok(match op {
            Op::Fma { round: Round::Rn } => self.b.ins().fma(x, y, z),
            Op::IMad => {
                let p = self.b.ins().imul(x, y);
                self.b.ins().iadd(p, z)
            }
            _ => return Err(failed(format!("operation `{}`", op.name()))),
        })
    }

    fn compare(&mut self, cmp: Cmp, of: Ty, x: Value, y: Value) -> Value {
        if of.is_float() {
            let cc = match cmp {
                Cmp::Eq => FloatCC::Equal,
                Cmp::Ne => FloatCC::NotEqual,
                Cmp::Lt => FloatCC::LessThan,
                Cmp::Le => FloatCC::LessThanOrEqual,
                Cmp::Gt => FloatCC::GreaterThan,
                Cmp::Ge => FloatCC::GreaterThanOrEqual,
            };
            return self.b.ins().fcmp(cc, x, y);
        }
        let s = signed(of);
        let cc = match (cmp, s) {
            (Cmp::Eq, _) => IntCC::Equal,
            (Cmp::Ne, _) => IntCC::NotEqual,
            (Cmp::Lt, true) => IntCC::SignedLessThan,
            (Cmp::Lt, false) => IntCC::UnsignedLessThan,
            (Cmp::Le, true) => IntCC::SignedLessThanOrEqual,
            (Cmp::Le, false) => IntCC::UnsignedLessThanOrEqual,
            (Cmp::Gt, true) => IntCC::SignedGreaterThan,
            (Cmp::Gt, false) => IntCC::UnsignedGreaterThan,
            (Cmp::Ge, true) => IntCC::SignedGreaterThanOrEqual,
            (Cmp::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
        };
        self.b.ins().icmp(cc, x, y)
    }

    fn select(&mut self, s: &Stmt) -> Result<Pieces> {
        let [c, x, y] = s.args[..] else {
            return Err(failed("a select of other than three values"));
        };
        let whole = self.ty(c).lanes() == 1;
        let (c, x, y) = (self.get(c), self.get(x), self.get(y));
        if !whole && c.len() != x.len() {
            return Err(failed("a select of lanes that are not 32 bits wide"));
        }
        let mut out = Vec::new();
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            out.push(if whole {
                self.b.ins().select(c[0], *x, y)
            } else {
                self.blend(c[i], *x, y)
            });
        }
        Ok(out)
    }

    /// Lanes of `x` where the mask is set, else of `y`.
    pub(super) fn blend(&mut self, mask: Value, x: Value, y: Value) -> Value {
        let ty = self.b.func.dfg.value_type(x);
        if !ty.is_vector() {
            return self.b.ins().select(mask, x, y);
        }
        let mask = self.b.ins().bitcast(ty, bits(), mask);
        self.b.ins().bitselect(mask, x, y)
    }

    /// The same bits as another type of equal lanes.
    pub(super) fn bitcast(&mut self, v: kernel::Value, ty: Ty) -> Result<Pieces> {
        let (from, to) = (self.get(v), pieces(ty)?);
        if from.len() != to.len() {
            return Err(failed("a bitcast between other widths of lanes"));
        }
        Ok(from
            .into_iter()
            .zip(to)
            .map(|(v, t)| self.recast(v, t))
            .collect())
    }

    pub(super) fn recast(&mut self, v: Value, to: Type) -> Value {
        if self.b.func.dfg.value_type(v) == to {
            return v;
        }
        self.b.ins().bitcast(to, bits(), v)
    }

    /// A constant of this float type, in every lane.
    pub(super) fn float(&mut self, ty: Type, v: f32) -> Value {
        let one = self.b.ins().f32const(v);
        if ty == types::F32 {
            one
        } else {
            self.b.ins().splat(ty, one)
        }
    }
}

/// The narrow floats, which are held by their bits.
pub(super) fn narrow(d: DType) -> bool {
    matches!(d, DType::F16 | DType::BF16 | DType::E4M3 | DType::E5M2)
}
