//! Pointers, loads, stores, atomics.

use super::super::attr::*;
use super::super::{Op, Problem, Space, Ty, Value};
use super::KernelBuilder;
use crate::DType;

impl KernelBuilder {
    /// `p + i` elements; `i` is an integer of 32 or 64 bits.
    pub fn ptr_add(&mut self, p: Value, i: Value) -> Value {
        let ty = self.ty(p);
        self.one(Op::PtrAdd, &[p, i], ty)
    }

    /// The same address with another element format.
    pub fn ptr_cast(&mut self, p: Value, elem: DType) -> Value {
        let Ty::Ptr { space, .. } = self.ty(p) else {
            self.fail(Problem::new(
                "K03",
                format!("cast of `{}`, not a pointer", self.ty(p)),
            ));
            return p;
        };
        self.one(Op::PtrCast, &[p], Ty::ptr(elem, space))
    }

    /// The address as an integer.
    pub fn ptr_to_int(&mut self, p: Value) -> Value {
        let bits = self.ty(p).bits();
        self.one(
            Op::PtrToInt,
            &[p],
            if bits == 32 { Ty::U32 } else { Ty::U64 },
        )
    }

    fn elem(&mut self, p: Value) -> DType {
        match self.ty(p) {
            Ty::Ptr { elem, .. } => elem,
            other => {
                self.fail(Problem::new(
                    "K03",
                    format!("access through `{other}`, not a pointer"),
                ));
                DType::U32
            }
        }
    }

    /// Loads one element.
    pub fn load(&mut self, p: Value) -> Value {
        self.load_vec(p, 1)
    }

    /// Loads `lanes` consecutive elements; in a grid kernel the address is a multiple of their
    /// size.
    pub fn load_vec(&mut self, p: Value, lanes: u8) -> Value {
        let ty = Ty::vec(self.elem(p), lanes);
        self.load_with(p, ty, 0, Cache::Default)
    }

    /// Loads a value of this type at `p` + `offset` bytes.
    pub fn load_with(&mut self, p: Value, ty: Ty, offset: i32, cache: Cache) -> Value {
        let op = Op::Load {
            order: Order::Weak,
            cache,
            offset: Offset(offset),
        };
        self.one(op, &[p], ty)
    }

    /// Loads a value of the type of `other` where `pred` is true, else gives `other`.
    pub fn load_if(&mut self, p: Value, pred: Value, other: Value) -> Value {
        let ty = self.ty(other);
        let op = Op::Load {
            order: Order::Weak,
            cache: Cache::Default,
            offset: Offset(0),
        };
        self.one(op, &[p, pred, other], ty)
    }

    /// Loads one element with this memory order.
    pub fn load_ordered(&mut self, p: Value, order: Order) -> Value {
        let ty = Ty::scalar(self.elem(p));
        self.one(
            Op::Load {
                order,
                cache: Cache::Default,
                offset: Offset(0),
            },
            &[p],
            ty,
        )
    }

    /// Stores a scalar or vector.
    pub fn store(&mut self, p: Value, v: Value) {
        self.store_with(p, v, 0, Cache::Default);
    }

    /// Stores at `p` + `offset` bytes.
    pub fn store_with(&mut self, p: Value, v: Value, offset: i32, cache: Cache) {
        let op = Op::Store {
            order: Order::Weak,
            cache,
            offset: Offset(offset),
        };
        self.none(op, &[p, v]);
    }

    /// Stores where `pred` is true.
    pub fn store_if(&mut self, p: Value, v: Value, pred: Value) {
        let op = Op::Store {
            order: Order::Weak,
            cache: Cache::Default,
            offset: Offset(0),
        };
        self.none(op, &[p, v, pred]);
    }

    /// Stores one element with this memory order.
    pub fn store_ordered(&mut self, p: Value, v: Value, order: Order) {
        self.none(
            Op::Store {
                order,
                cache: Cache::Default,
                offset: Offset(0),
            },
            &[p, v],
        );
    }

    /// Integer read-modify-write; returns the old value.
    pub fn atomic(
        &mut self,
        op: AtomicOp,
        order: Order,
        scope: Scope,
        p: Value,
        v: Value,
    ) -> Value {
        let ty = self.ty(v);
        self.one(Op::Atomic { op, order, scope }, &[p, v], ty)
    }

    /// Stores `new` if the memory holds `expected`; returns the old value.
    pub fn compare_and_swap(
        &mut self,
        p: Value,
        expected: Value,
        new: Value,
        order: Order,
        scope: Scope,
    ) -> Value {
        let ty = self.ty(new);
        self.one(Op::AtomicCas { order, scope }, &[p, expected, new], ty)
    }

    /// The pointer to the same variable in the shared memory of another block of the cluster.
    pub fn map_rank(&mut self, p: Value, rank: Value) -> Value {
        let elem = self.elem(p);
        self.one(Op::MapRank, &[p, rank], Ty::ptr(elem, Space::Cluster))
    }
}
