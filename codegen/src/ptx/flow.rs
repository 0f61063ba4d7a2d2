//! Loops and branches.

use qcc_ir::kernel::{Op, Stmt, Ty, Value};

use super::emit::{Emitted, Emitter, Image};
use super::regs::{Class, Reg, suffix};

/// Where a moved register comes from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    Reg(Reg),
    Bits(u64),
}

impl<'k> Emitter<'k> {
    pub(super) fn flow(&mut self, stmt: &'k Stmt) -> Emitted {
        match stmt.op {
            Op::For => self.for_loop(stmt),
            Op::While => self.while_loop(stmt),
            _ => self.branch(stmt),
        }
    }

    fn sources(&self, v: Value, n: usize) -> Vec<Source> {
        match self.image(v) {
            Image::Regs(regs) => regs.into_iter().map(Source::Reg).collect(),
            Image::Const(bits) => vec![Source::Bits(bits); n],
        }
    }

    fn move_one(&mut self, to: Reg, from: Source) {
        match from {
            Source::Reg(reg) => self.line(format!("mov.{} {to}, {reg}", to.class.bits())),
            Source::Bits(bits) => self.move_bits(to, bits),
        }
    }

    /// Moves values into registers as if all at once.
    fn move_all(&mut self, to: &[Vec<Reg>], from: &[Value]) {
        let mut moves = Vec::new();
        for (regs, &v) in to.iter().zip(from) {
            let sources = self.sources(v, regs.len());
            moves.extend(regs.iter().copied().zip(sources));
        }
        moves.retain(|(to, from)| *from != Source::Reg(*to));
        let overwritten: std::collections::HashSet<Reg> = moves.iter().map(|m| m.0).collect();
        for (_, from) in &mut moves {
            if let Source::Reg(reg) = *from
                && overwritten.contains(&reg)
            {
                let kept = self.fresh(reg.class);
                self.move_one(kept, *from);
                *from = Source::Reg(kept);
            }
        }
        for (to, from) in moves {
            self.move_one(to, from);
        }
    }

    /// Registers for a loop's carried values, filled with the initial ones. Accumulators in
    /// flight stay where they are.
    fn carry(&mut self, init: &[Value]) -> Vec<Vec<Reg>> {
        let mut carried = Vec::new();
        for &v in init {
            self.settle_fresh(v);
            let in_place = matches!(self.ty(v), Ty::Pending { .. });
            let regs = match self.image(v) {
                Image::Regs(regs) if in_place => regs,
                _ => self.fresh_for(self.ty(v)),
            };
            carried.push(regs);
        }
        self.move_all(&carried, init);
        carried
    }

    fn bind(&mut self, values: &[Value], regs: &[Vec<Reg>]) {
        for (&v, regs) in values.iter().zip(regs) {
            self.set(v, Image::Regs(regs.clone()));
        }
    }

    /// Moves yielded values to where they are carried; those in flight must be there already.
    fn hand_on(&mut self, stmt: &Stmt, to: &[Vec<Reg>], yields: &[Value]) -> Emitted {
        for (regs, &v) in to.iter().zip(yields) {
            self.settle_fresh(v);
            let moved = !matches!(self.image(v), Image::Regs(r) if r == *regs);
            if moved && matches!(self.ty(v), Ty::Pending { .. }) {
                return self.fail(stmt, "accumulators in flight would change registers");
            }
        }
        self.move_all(to, yields);
        Ok(())
    }

    fn for_loop(&mut self, stmt: &'k Stmt) -> Emitted {
        let region = &stmt.regions[0];
        let (lo, hi, step) = (stmt.args[0], stmt.args[1], stmt.args[2]);
        let index_ty = self.ty(lo);
        let suffix = suffix(index_ty).unwrap_or("s32");
        let carried = self.carry(&stmt.args[3..]);
        let index = self.fresh_for(index_ty);
        self.move_all(std::slice::from_ref(&index), &[lo]);
        let (top, end) = (self.label(), self.label());
        let (hi, step) = (self.operand(hi), self.operand(step));
        let done = self.fresh(Class::Pred);
        let i = index[0];
        self.line(format!("setp.ge.{suffix} {done}, {i}, {hi}"));
        self.line(format!("@{done} bra {end}"));
        self.place(&top);
        self.bind(&region.params[..1], &[index]);
        self.bind(&region.params[1..], &carried);
        self.region_stmts(region)?;
        self.begin(stmt);
        self.hand_on(stmt, &carried, &region.yields)?;
        let again = self.fresh(Class::Pred);
        self.line(format!("add.{suffix} {i}, {i}, {step}"));
        self.line(format!("setp.lt.{suffix} {again}, {i}, {hi}"));
        self.line(format!("@{again} bra {top}"));
        self.place(&end);
        self.bind(&stmt.results, &carried);
        Ok(())
    }

    fn while_loop(&mut self, stmt: &'k Stmt) -> Emitted {
        let (test, body) = (&stmt.regions[0], &stmt.regions[1]);
        let carried = self.carry(&stmt.args);
        let (top, end) = (self.label(), self.label());
        self.place(&top);
        self.bind(&test.params, &carried);
        self.region_stmts(test)?;
        self.begin(stmt);
        let again = self.reg(test.yields[0]);
        self.line(format!("@!{again} bra {end}"));
        // The body and the code after the loop are reached from here only, so they may share the
        // tested values' registers.
        for (i, &v) in test.yields[1..].iter().enumerate() {
            let image = self.image(v);
            self.set(body.params[i], image.clone());
            self.set(stmt.results[i], image);
        }
        self.region_stmts(body)?;
        self.begin(stmt);
        self.hand_on(stmt, &carried, &body.yields)?;
        self.line(format!("bra {top}"));
        self.place(&end);
        Ok(())
    }

    fn branch(&mut self, stmt: &'k Stmt) -> Emitted {
        let (then, other) = (&stmt.regions[0], &stmt.regions[1]);
        let cond = self.reg(stmt.args[0]);
        let results: Vec<Vec<Reg>> = stmt
            .results
            .iter()
            .map(|&r| self.fresh_for(self.ty(r)))
            .collect();
        let (second, end) = (self.label(), self.label());
        self.line(format!("@!{cond} bra {second}"));
        self.region_stmts(then)?;
        self.begin(stmt);
        self.hand_on(stmt, &results, &then.yields)?;
        let empty = other.stmts.is_empty() && other.yields.is_empty();
        if !empty {
            self.line(format!("bra {end}"));
        }
        self.place(&second);
        self.region_stmts(other)?;
        self.begin(stmt);
        self.hand_on(stmt, &results, &other.yields)?;
        if !empty {
            self.place(&end);
        }
        self.bind(&stmt.results, &results);
        Ok(())
    }

    /// Accumulators that were to begin at zero get their zeros now.
    pub(super) fn settle_fresh(&mut self, v: Value) {
        if self.fresh.remove(&v) {
            for reg in self.regs(v) {
                self.move_bits(reg, 0);
            }
            self.line("wgmma.fence.sync.aligned");
        }
    }
}
