//! Addresses, loads, stores, atomics.

use qcc_ir::DType;
use qcc_ir::kernel::{Cache, Op, Order, Space, Stmt, Ty, Value};

use super::emit::{Emitted, Emitter, Image, immediate};
use super::regs::{Class, narrow};

const fn space_word(space: Space) -> &'static str {
    match space {
        Space::Global | Space::ReadOnly => "global",
        Space::Shared => "shared",
        Space::Cluster => "shared::cluster",
    }
}

/// The scope at which ordered accesses of a space meet other threads.
const fn scope_word(space: Space) -> &'static str {
    match space {
        Space::Global | Space::ReadOnly => "gpu",
        Space::Shared => "cta",
        Space::Cluster => "cluster",
    }
}

/// A 32-bit index as a 64-bit one.
fn extended(bits: u64, signed: bool) -> i64 {
    if signed {
        i64::from(bits as i32)
    } else {
        i64::from(bits as u32)
    }
}

impl<'k> Emitter<'k> {
    pub(super) fn memory(&mut self, stmt: &'k Stmt) -> Emitted {
        match stmt.op {
            Op::PtrAdd => self.ptr_add(stmt),
            Op::PtrCast | Op::PtrToInt => {
                let image = Image::Regs(self.regs(stmt.args[0]));
                self.set(stmt.results[0], image);
                Ok(())
            }
            Op::SharedAddr { array } => {
                let name = &self.kernel.shared()[array as usize].name;
                let symbol = self.shared_symbol(name);
                let reg = self.define1(stmt.results[0]);
                self.line(format!("mov.b32 {reg}, {symbol}"));
                Ok(())
            }
            Op::MapRank => {
                self.needs.need(78, 90);
                let (p, rank) = (self.reg(stmt.args[0]), self.operand(stmt.args[1]));
                let reg = self.define1(stmt.results[0]);
                self.line(format!("mapa.shared::cluster.u32 {reg}, {p}, {rank}"));
                Ok(())
            }
            Op::Load {
                order,
                cache,
                offset,
            } => self.load(stmt, order, cache, offset.0),
            Op::Store {
                order,
                cache,
                offset,
            } => self.store(stmt, order, cache, offset.0),
            _ => self.atomic(stmt),
        }
    }

    fn space(&self, p: Value) -> Space {
        match self.ty(p) {
            Ty::Ptr { space, .. } => space,
            _ => Space::Global,
        }
    }

    fn ptr_add(&mut self, stmt: &'k Stmt) -> Emitted {
        let Ty::Ptr { elem, space } = self.ty(stmt.args[0]) else {
            return Ok(());
        };
        let bytes = elem.bits() / 8;
        let base = self.reg(stmt.args[0]);
        let index_ty = self.ty(stmt.args[1]);
        let index = self.operand(stmt.args[1]);
        let wide = index_ty.bits() == 64;
        let signed = index_ty.dtype() == Some(DType::I32);
        let short = space.address_bits() == 32;
        let index = if short && wide {
            self.narrow_index(stmt.args[1])
        } else {
            index
        };
        let constant = self.constant(stmt.args[1]);
        let reg = self.define1(stmt.results[0]);
        let kind = if short { "s32" } else { "s64" };
        if let Some(bits) = constant {
            let i = if index_ty.bits() == 32 {
                extended(bits, signed)
            } else {
                bits as i64
            };
            let offset = i.wrapping_mul(i64::from(bytes));
            self.line(format!("add.{kind} {reg}, {base}, {offset}"));
        } else if bytes == 1 && (short || wide) {
            self.line(format!("add.{kind} {reg}, {base}, {index}"));
        } else if short || wide {
            self.line(format!("mad.lo.{kind} {reg}, {index}, {bytes}, {base}"));
        } else {
            let kind = if signed { "s32" } else { "u32" };
            self.line(format!("mad.wide.{kind} {reg}, {index}, {bytes}, {base}"));
        }
        Ok(())
    }

    /// A 64-bit index into shared memory: its low word.
    fn narrow_index(&mut self, v: Value) -> String {
        if let Some(bits) = self.constant(v) {
            return immediate(bits & 0xffff_ffff);
        }
        let wide = self.reg(v);
        let low = self.fresh(Class::Word);
        self.line(format!("cvt.u32.u64 {low}, {wide}"));
        low.to_string()
    }

    fn address(&mut self, p: Value, offset: i32) -> String {
        let reg = self.reg(p);
        match offset {
            0 => format!("[{reg}]"),
            n => format!("[{reg}{n:+}]"),
        }
    }

    /// Words between the mnemonic and the type: order, space, cache, vector width.
    fn access(&mut self, load: bool, space: Space, order: Order, cache: Cache) -> String {
        let mut words = String::new();
        if space == Space::Cluster {
            self.needs.need(78, 90);
        }
        if order != Order::Weak {
            words = format!(
                ".{}.{}.{}",
                order.name(),
                scope_word(space),
                space_word(space)
            );
            return words;
        }
        words.push('.');
        words.push_str(space_word(space));
        if space.is_global() && matches!(cache, Cache::Ca | Cache::Cg | Cache::Cs) {
            // Stores write through L1: `ca` is their default.
            if load || cache != Cache::Ca {
                words.push('.');
                words.push_str(cache.name());
            }
        }
        if load && space == Space::ReadOnly {
            words.push_str(".nc");
        }
        if space.is_global() && cache == Cache::NoAllocate {
            self.needs.need(74, 75);
            words.push_str(".L1::no_allocate");
        }
        words
    }

    /// Memory type of a value: how wide, and how a narrow scalar is extended.
    fn memory_type(&self, ty: Ty, registers: usize, class: Class) -> String {
        let vector = match registers {
            1 => String::new(),
            n => format!(".v{n}"),
        };
        let unit = match (narrow(ty), ty.bits()) {
            (Some(narrow), _) => narrow.to_string(),
            (None, 8) => "u8".to_string(),
            _ => class.bits().to_string(),
        };
        format!("{vector}.{unit}")
    }

    fn load(&mut self, stmt: &'k Stmt, order: Order, cache: Cache, offset: i32) -> Emitted {
        let space = self.space(stmt.args[0]);
        let result = stmt.results[0];
        let ty = self.ty(result);
        let words = self.access(true, space, order, cache);
        let address = self.address(stmt.args[0], offset);
        let guard = match stmt.args.get(1) {
            Some(&p) => format!("@{} ", self.reg(p)),
            None => String::new(),
        };
        if ty.dtype() == Some(DType::Bool) {
            return self.load_truth(stmt, &words, &address, &guard);
        }
        let other = stmt.args.get(2).map(|&v| self.operands(v));
        let regs = self.define(result);
        if let Some(other) = other {
            for (reg, value) in regs.iter().zip(other) {
                self.line(format!("mov.{} {reg}, {value}", reg.class.bits()));
            }
        }
        let kind = self.memory_type(ty, regs.len(), regs[0].class);
        self.line(format!(
            "{guard}ld{words}{kind} {}, {address}",
            Self::braces(&regs)
        ));
        Ok(())
    }

    fn load_truth(&mut self, stmt: &'k Stmt, words: &str, address: &str, guard: &str) -> Emitted {
        if self.ty(stmt.results[0]).lanes() > 1 {
            return self.fail(stmt, "truth values are loaded one at a time");
        }
        let byte = self.fresh(Class::Word);
        if let Some(&other) = stmt.args.get(2) {
            let other = self.reg(other);
            self.line(format!("selp.b32 {byte}, 1, 0, {other}"));
        }
        self.line(format!("{guard}ld{words}.u8 {byte}, {address}"));
        let p = self.define1(stmt.results[0]);
        self.line(format!("setp.ne.u32 {p}, {byte}, 0"));
        Ok(())
    }

    fn store(&mut self, stmt: &'k Stmt, order: Order, cache: Cache, offset: i32) -> Emitted {
        let space = self.space(stmt.args[0]);
        let ty = self.ty(stmt.args[1]);
        let words = self.access(false, space, order, cache);
        let address = self.address(stmt.args[0], offset);
        let guard = match stmt.args.get(2) {
            Some(&p) => format!("@{} ", self.reg(p)),
            None => String::new(),
        };
        let mut regs = self.regs(stmt.args[1]);
        if ty.dtype() == Some(DType::Bool) {
            if regs.len() > 1 {
                return self.fail(stmt, "truth values are stored one at a time");
            }
            let byte = self.fresh(Class::Word);
            self.line(format!("selp.b32 {byte}, 1, 0, {}", regs[0]));
            regs = vec![byte];
        }
        let kind = match narrow(ty) {
            // A store takes the low bits, whatever the sign.
            Some(narrow) => format!(".u{}", &narrow[1..]),
            None => self.memory_type(ty, regs.len(), regs[0].class),
        };
        self.line(format!(
            "{guard}st{words}{kind} {address}, {}",
            Self::braces(&regs)
        ));
        Ok(())
    }

    fn atomic(&mut self, stmt: &'k Stmt) -> Emitted {
        let ty = self.ty(stmt.results[0]);
        let space = self.space(stmt.args[0]);
        let (order, scope, name, kind) = match (stmt.op, ty.dtype()) {
            (Op::Atomic { op, order, scope }, Some(dtype)) => {
                let bits = dtype.bits();
                let signed = matches!(dtype, DType::I32 | DType::I64);
                let kind = match op.name() {
                    "add" if dtype == DType::I32 => "s32".to_string(),
                    "add" => format!("u{bits}"),
                    "min" | "max" => format!("{}{bits}", if signed { 's' } else { 'u' }),
                    _ => format!("b{bits}"),
                };
                (order, scope, op.name(), kind)
            }
            (Op::AtomicCas { order, scope }, _) => (order, scope, "cas", format!("b{}", ty.bits())),
            _ => return self.fail(stmt, "no atomic"),
        };
        if space == Space::Cluster || scope.name() == "cluster" {
            self.needs.need(78, 90);
        }
        let order = if order == Order::Weak {
            "relaxed"
        } else {
            order.name()
        };
        let address = self.address(stmt.args[0], 0);
        let operands: Vec<String> = stmt.args[1..].iter().map(|&v| self.operand(v)).collect();
        let reg = self.define1(stmt.results[0]);
        let (scope, space) = (scope.name(), space_word(space));
        let operands = operands.join(", ");
        self.line(format!(
            "atom.{order}.{scope}.{space}.{name}.{kind} {reg}, {address}, {operands}"
        ));
        Ok(())
    }
}
