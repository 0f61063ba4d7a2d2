//! Constants, arithmetic, comparison, conversion and vectors.

use super::super::attr::*;
use super::super::{Op, Problem, Ty, Value};
use super::KernelBuilder;
use crate::DType;

impl KernelBuilder {
    /// A constant of these bits in every lane.
    pub fn const_bits(&mut self, ty: Ty, bits: u64) -> Value {
        self.one(Op::Const { bits: Bits(bits) }, &[], ty)
    }

    /// A `u32` constant.
    pub fn u32(&mut self, v: u32) -> Value {
        self.const_bits(Ty::U32, u64::from(v))
    }

    /// An `i32` constant.
    pub fn i32(&mut self, v: i32) -> Value {
        self.const_bits(Ty::I32, u64::from(v as u32))
    }

    /// An `i64` constant.
    pub fn i64(&mut self, v: i64) -> Value {
        self.const_bits(Ty::I64, v as u64)
    }

    /// A `u64` constant.
    pub fn u64(&mut self, v: u64) -> Value {
        self.const_bits(Ty::U64, v)
    }

    /// An `f32` constant.
    pub fn f32(&mut self, v: f32) -> Value {
        self.const_bits(Ty::F32, u64::from(v.to_bits()))
    }

    /// An `f32` constant in every lane.
    pub fn f32_splat(&mut self, v: f32, lanes: u8) -> Value {
        self.const_bits(Ty::vec(DType::F32, lanes), u64::from(v.to_bits()))
    }

    /// A truth value.
    pub fn bool(&mut self, v: bool) -> Value {
        self.const_bits(Ty::BOOL, u64::from(v))
    }

    /// An integer constant of the type of `like`.
    pub fn int_like(&mut self, like: Value, v: i64) -> Value {
        let ty = self.ty(like);
        let bits = ty.dtype().map_or(64, DType::bits);
        let mask = if bits == 64 {
            u64::MAX
        } else {
            (1 << bits) - 1
        };
        self.const_bits(ty, v as u64 & mask)
    }

    fn same(&mut self, op: Op, args: &[Value]) -> Value {
        let ty = self.ty(args[0]);
        self.one(op, args, ty)
    }

    fn by_kind(&mut self, int: Op, float: Op, args: &[Value]) -> Value {
        let op = if self.ty(args[0]).is_float() {
            float
        } else {
            int
        };
        self.same(op, args)
    }

    /// `a + b` (floats: rounded to nearest even; integers wrap).
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.by_kind(Op::IAdd, Op::FAdd { round: Round::Rn }, &[a, b])
    }

    /// `a - b`.
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.by_kind(Op::ISub, Op::FSub { round: Round::Rn }, &[a, b])
    }

    /// `a * b`.
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.by_kind(Op::IMul, Op::FMul { round: Round::Rn }, &[a, b])
    }

    /// `a / b`: true division of floats, toward zero for integers.
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.by_kind(Op::IDiv, Op::FDiv { round: Round::Rn }, &[a, b])
    }

    /// Integer remainder with the sign of the dividend.
    pub fn rem(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::IRem, &[a, b])
    }

    /// `a * b + c`: rounded once for floats, the low half for integers.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.by_kind(Op::IMad, Op::Fma { round: Round::Rn }, &[a, b, c])
    }

    /// High half of an integer product.
    pub fn mul_hi(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::IMulHi, &[a, b])
    }

    /// `-a`.
    pub fn neg(&mut self, a: Value) -> Value {
        self.by_kind(Op::INeg, Op::FNeg, &[a])
    }

    /// `|a|`.
    pub fn abs(&mut self, a: Value) -> Value {
        self.by_kind(Op::IAbs, Op::FAbs, &[a])
    }

    /// Minimum; a float NaN loses against a number.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        self.by_kind(
            Op::IMin,
            Op::FMin {
                nan: NanMode::Number,
            },
            &[a, b],
        )
    }

    /// Maximum; a float NaN loses against a number.
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        self.by_kind(
            Op::IMax,
            Op::FMax {
                nan: NanMode::Number,
            },
            &[a, b],
        )
    }

    /// Float minimum that keeps a NaN.
    pub fn min_nan(&mut self, a: Value, b: Value) -> Value {
        self.same(
            Op::FMin {
                nan: NanMode::Propagate,
            },
            &[a, b],
        )
    }

    /// Float maximum that keeps a NaN.
    pub fn max_nan(&mut self, a: Value, b: Value) -> Value {
        self.same(
            Op::FMax {
                nan: NanMode::Propagate,
            },
            &[a, b],
        )
    }

    /// Bitwise and; logical and of truth values.
    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::And, &[a, b])
    }

    /// Bitwise or; logical or of truth values.
    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::Or, &[a, b])
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::Xor, &[a, b])
    }

    /// Complement.
    pub fn not(&mut self, a: Value) -> Value {
        self.same(Op::Not, &[a])
    }

    /// `a << b`, `b` a `u32`.
    pub fn shl(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::Shl, &[a, b])
    }

    /// `a >> b`, `b` a `u32`; arithmetic for signed `a`.
    pub fn shr(&mut self, a: Value, b: Value) -> Value {
        self.same(Op::Shr, &[a, b])
    }

    /// `a << bits`.
    pub fn shl_imm(&mut self, a: Value, bits: u32) -> Value {
        let b = self.u32(bits);
        self.shl(a, b)
    }

    /// `a >> bits`.
    pub fn shr_imm(&mut self, a: Value, bits: u32) -> Value {
        let b = self.u32(bits);
        self.shr(a, b)
    }

    /// `a + v`, `v` a constant of the type of `a`.
    pub fn add_imm(&mut self, a: Value, v: i64) -> Value {
        if v == 0 {
            return a;
        }
        let b = self.int_like(a, v);
        self.add(a, b)
    }

    /// `a * v`, `v` a constant of the type of `a`.
    pub fn mul_imm(&mut self, a: Value, v: i64) -> Value {
        if v == 1 {
            return a;
        }
        let b = self.int_like(a, v);
        self.mul(a, b)
    }

    /// `a & v`, `v` a constant of the type of `a`.
    pub fn and_imm(&mut self, a: Value, v: i64) -> Value {
        let b = self.int_like(a, v);
        self.and(a, b)
    }

    /// `a / v`, `v` a constant of the type of `a`.
    pub fn div_imm(&mut self, a: Value, v: i64) -> Value {
        let b = self.int_like(a, v);
        self.div(a, b)
    }

    /// `a mod v`, `v` a constant of the type of `a`.
    pub fn rem_imm(&mut self, a: Value, v: i64) -> Value {
        let b = self.int_like(a, v);
        self.rem(a, b)
    }

    /// Any bitwise function of three words; the result has the type of `a`.
    pub fn lop3(&mut self, a: Value, b: Value, c: Value, table: u8) -> Value {
        self.same(Op::Lop3 { table }, &[a, b, c])
    }

    /// Byte permutation of two words by the selector word; the result has the type of `a`.
    pub fn prmt(&mut self, a: Value, b: Value, selector: Value) -> Value {
        self.same(Op::Prmt, &[a, b, selector])
    }

    /// `c + Σ a_i b_i` over four bytes.
    pub fn dp4a(&mut self, a: Value, b: Value, c: Value) -> Value {
        let ty = self.ty(c);
        self.one(Op::Dp4a, &[a, b, c], ty)
    }

    /// Rounds floats to integral values, ties to even.
    pub fn round_even(&mut self, a: Value) -> Value {
        self.same(Op::FRound { round: Round::Rn }, &[a])
    }

    /// Rounds floats to integral values in this direction.
    pub fn round(&mut self, a: Value, round: Round) -> Value {
        self.same(Op::FRound { round }, &[a])
    }

    /// A special function, exact.
    pub fn math(&mut self, func: Math, a: Value) -> Value {
        self.same(
            Op::Math {
                func,
                approx: Approx::Exact,
            },
            &[a],
        )
    }

    /// A special function by the hardware's approximation.
    pub fn math_approx(&mut self, func: Math, a: Value) -> Value {
        self.same(
            Op::Math {
                func,
                approx: Approx::Approx,
            },
            &[a],
        )
    }

    /// Comparison.
    pub fn cmp(&mut self, cmp: Cmp, a: Value, b: Value) -> Value {
        let lanes = self.ty(a).lanes().max(1);
        self.one(Op::Cmp { cmp }, &[a, b], Ty::vec(DType::Bool, lanes))
    }

    /// `a < b`.
    pub fn lt(&mut self, a: Value, b: Value) -> Value {
        self.cmp(Cmp::Lt, a, b)
    }

    /// `a == b`.
    pub fn eq(&mut self, a: Value, b: Value) -> Value {
        self.cmp(Cmp::Eq, a, b)
    }

    /// `cond ? a : b`.
    pub fn select(&mut self, cond: Value, a: Value, b: Value) -> Value {
        let ty = self.ty(a);
        self.one(Op::Select, &[cond, a, b], ty)
    }

    /// Converts to another format with the same lanes: rounded to nearest even, overflow not
    /// clamped (integers wrap, floats become infinite).
    pub fn cvt(&mut self, a: Value, dtype: DType) -> Value {
        self.cvt_with(a, dtype, Round::Rn, Sat::Wrap)
    }

    /// Converts, rounded to nearest even, clamped to the format's finite range.
    pub fn cvt_sat(&mut self, a: Value, dtype: DType) -> Value {
        self.cvt_with(a, dtype, Round::Rn, Sat::Sat)
    }

    /// Converts with this rounding and overflow.
    pub fn cvt_with(&mut self, a: Value, dtype: DType, round: Round, sat: Sat) -> Value {
        let ty = self.ty(a).with_dtype(dtype);
        self.one(Op::Convert { round, sat }, &[a], ty)
    }

    /// The same bits as another type.
    pub fn bitcast(&mut self, a: Value, ty: impl Into<Ty>) -> Value {
        self.one(Op::Bitcast, &[a], ty.into())
    }

    /// Concatenates values of one type, the first in the lowest lanes.
    pub fn pack(&mut self, parts: &[Value]) -> Value {
        match parts {
            [] => {
                self.fail(Problem::new("K02", "nothing to pack"));
                Value(0)
            }
            [one] => *one,
            many => {
                let part = self.ty(many[0]);
                let lanes = usize::from(part.lanes()) * many.len();
                self.one(
                    Op::Pack,
                    many,
                    part.with_lanes(u8::try_from(lanes).unwrap_or(0)),
                )
            }
        }
    }

    /// Cuts a vector into `parts` equal ones, lowest lanes first.
    pub fn unpack(&mut self, v: Value, parts: u8) -> Vec<Value> {
        if parts == 1 {
            return vec![v];
        }
        let ty = self.ty(v);
        let part = ty.with_lanes(ty.lanes().checked_div(parts).unwrap_or(0));
        self.op(Op::Unpack, &[v], &vec![part; usize::from(parts)])
    }

    /// The lanes of a vector as scalars.
    pub fn lanes(&mut self, v: Value) -> Vec<Value> {
        let lanes = self.ty(v).lanes();
        self.unpack(v, lanes)
    }
}
