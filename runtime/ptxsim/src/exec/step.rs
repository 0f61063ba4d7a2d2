//! The warp's loop: fetch, converge, execute, move on.

use super::warp::{Frag, Wait};
use super::{Ctx, Lane, Res};
use crate::fault::FaultKind;
use crate::isa::{CarryOp, Class, Fence, HalfKind, Inst, Op, PredOp, R};
use crate::num::approx::{self, Func};
use crate::num::format::{BF16, F16, Rnd};

/// Where a fragment goes after an instruction.
pub(crate) enum Flow {
    Next,
    /// Lanes of the mask continue at the target.
    Branch {
        taken: u32,
        target: u32,
    },
    /// Lanes go to targets of their own.
    Scatter(Vec<(u32, u32)>),
    Exit,
    /// Stays at the instruction until woken; `true` steps over it first.
    Wait(Wait),
}

impl Ctx<'_, '_> {
    /// Runs until the warp waits, ends, or `budget` instructions are spent. Returns the number executed.
    pub(crate) fn run(&mut self, budget: u64) -> Res<u64> {
        let m = self.m;
        let mut done = 0;
        while done < budget {
            let Some(i) = self.w.pick() else { break };
            let Frag { pc, mask, .. } = self.w.frags[i];
            let inst = m.inst(pc);
            self.line = inst.line;
            let exec = if inst.guard.p == 0 && !inst.guard.neg {
                mask
            } else {
                self.check_guard(inst, mask)?;
                mask & self.psrc(inst.guard)
            };
            done += 1;
            if exec == 0 {
                self.count(inst.class, 0);
                self.advance(i, pc + 1);
                continue;
            }
            let need = self.members(inst, exec)?;
            if need & self.w.live & !mask != 0 {
                self.w.frags[i].wait = Some(Wait::Converge);
                self.w.merge();
                continue;
            }
            if inst.aligned && exec != self.w.live {
                let text = format!(
                    "lanes {:#010x} execute what all lanes {:#010x} must execute together",
                    exec, self.w.live
                );
                return self.fault(
                    FaultKind::Divergent,
                    Some(exec.trailing_zeros() as usize),
                    text,
                );
            }
            self.count(inst.class, exec);
            if let Some(r) = self.unit.race.as_deref_mut() {
                r.line = inst.line;
            }
            let flow = self.execute(inst, exec)?;
            self.follow(i, pc, exec, flow);
        }
        Ok(done)
    }

    fn check_guard(&self, inst: &Inst, mask: u32) -> Res<()> {
        let have = self.w.pred_init[inst.guard.p as usize];
        if self.m.options.uninit && have & mask != mask {
            let lane = (mask & !have).trailing_zeros() as usize;
            return self.fault(
                FaultKind::Uninitialized,
                Some(lane),
                "guard predicate is read before it was written",
            );
        }
        Ok(())
    }

    #[inline]
    fn count(&mut self, class: Class, exec: u32) {
        if let Some(c) = self.unit.counters.as_deref_mut() {
            c.instruction(class, exec);
        }
    }

    fn follow(&mut self, i: usize, pc: u32, exec: u32, flow: Flow) {
        let mask = self.w.frags[i].mask;
        match flow {
            Flow::Next => self.advance(i, pc + 1),
            Flow::Branch { taken, target } if taken == mask => self.advance(i, target),
            Flow::Branch { taken, target } => {
                self.w.frags[i].mask = mask & !taken;
                self.w.frags.push(Frag {
                    pc: target,
                    mask: taken,
                    wait: None,
                });
                self.advance(i, pc + 1);
            }
            Flow::Scatter(list) => {
                let rest = mask & !exec;
                self.w.frags.swap_remove(i);
                if rest != 0 {
                    self.w.frags.push(Frag {
                        pc: pc + 1,
                        mask: rest,
                        wait: None,
                    });
                }
                for (mask, pc) in list {
                    self.w.frags.push(Frag {
                        pc,
                        mask,
                        wait: None,
                    });
                }
                self.w.merge();
            }
            Flow::Exit => {
                if exec != mask {
                    self.w.frags[i].pc = pc + 1;
                }
                self.w.exit(i, exec);
                self.w.merge();
            }
            Flow::Wait(wait) => {
                if exec != mask {
                    // The lanes that do not execute go on.
                    self.w.frags[i].mask = exec;
                    self.w.frags.push(Frag {
                        pc: pc + 1,
                        mask: mask & !exec,
                        wait: None,
                    });
                }
                self.w.frags[i].wait = Some(wait);
                if let Some(come) = self.w.release_warp_sync()
                    && let Some(r) = self.unit.race.as_deref_mut()
                {
                    r.warp_sync(self.rank, self.w.index, come);
                }
                self.w.merge();
            }
        }
    }

    #[inline]
    fn advance(&mut self, i: usize, pc: u32) {
        self.w.frags[i].pc = pc;
        if self.w.frags.len() > 1 {
            self.w.merge();
        }
    }

    /// Lanes that must execute `inst` together with those of `exec`.
    #[inline]
    fn members(&self, inst: &Inst, exec: u32) -> Res<u32> {
        if inst.aligned {
            return Ok(self.w.live);
        }
        let mask = match &inst.op {
            Op::Shfl { mask, .. }
            | Op::Vote { mask, .. }
            | Op::Match { mask, .. }
            | Op::Redux { mask, .. }
            | Op::Elect { mask, .. } => *mask,
            _ => return Ok(0),
        };
        let mut members = 0;
        for (mask, lanes) in self.groups(mask, exec)? {
            if lanes & !mask != 0 {
                let lane = (lanes & !mask).trailing_zeros() as usize;
                let text = format!("lane is not in membermask {mask:#010x}");
                return self.fault(FaultKind::Divergent, Some(lane), text);
            }
            members |= mask;
        }
        Ok(members)
    }

    /// Membermasks that stand in the lanes, each with its lanes: tiles of a warp exchange side by side.
    fn groups(&self, mask: R, exec: u32) -> Res<Vec<(u32, u32)>> {
        self.check_init(mask, exec)?;
        let v = self.src(mask);
        let mut out: Vec<(u32, u32)> = Vec::new();
        for l in Lane::of(exec) {
            match out.iter_mut().find(|g| g.0 == v[l] as u32) {
                Some(g) => g.1 |= 1 << l,
                None => out.push((v[l] as u32, 1 << l)),
            }
        }
        Ok(out)
    }

    fn execute(&mut self, inst: &Inst, exec: u32) -> Res<Flow> {
        match &inst.op {
            Op::Alu { f, d, s } => {
                for r in s {
                    self.check_init(*r, exec)?;
                }
                let mut out = if exec == u32::MAX {
                    [0; 32]
                } else {
                    self.w.regs[*d as usize]
                };
                f(
                    &mut out,
                    [
                        self.src(s[0]),
                        self.src(s[1]),
                        self.src(s[2]),
                        self.src(s[3]),
                    ],
                    exec,
                );
                self.w.regs[*d as usize] = out;
                self.w.init[*d as usize] |= exec;
                self.touch(*d);
            }
            Op::Cvt { spec, d, a, b } => {
                self.each2(*d, *a, *b, exec, |a, b| spec.apply(a, b))?;
            }
            Op::Approx {
                f,
                ftz,
                half,
                d,
                a,
                b,
            } => self.approx(*f, *ftz, *half, (*d, *a, *b), exec)?,
            Op::Setp {
                f,
                d,
                q,
                a,
                b,
                join,
                c,
            } => {
                self.check_init(*a, exec)?;
                self.check_init(*b, exec)?;
                self.check_pred(c.p, exec)?;
                let t = f(self.src(*a), self.src(*b), exec);
                let c = if c.p == 0 && !c.neg {
                    None
                } else {
                    Some(self.psrc(*c))
                };
                let joined = |t: u32| c.map_or(t, |c| join.apply(t, c));
                self.set_pred(*d, joined(t), exec);
                self.set_pred(*q, joined(!t), exec);
            }
            Op::Set {
                f,
                d,
                a,
                b,
                join,
                c,
                ones,
            } => {
                self.check_init(*a, exec)?;
                self.check_init(*b, exec)?;
                let t = f(self.src(*a), self.src(*b), exec);
                let t = if c.p == 0 && !c.neg {
                    t
                } else {
                    join.apply(t, self.psrc(*c))
                };
                let out = std::array::from_fn(|l| if t >> l & 1 == 1 { *ones } else { 0 });
                self.set(*d, &out, exec);
            }
            Op::Selp { d, a, b, p } => {
                self.check_pred(p.p, exec)?;
                let t = self.psrc(*p);
                self.check_init(*a, exec & t)?;
                self.check_init(*b, exec & !t)?;
                let (a, b) = (self.src(*a), self.src(*b));
                let out = std::array::from_fn(|l| if t >> l & 1 == 1 { a[l] } else { b[l] });
                self.set(*d, &out, exec);
            }
            Op::Pred { f, d, a, b } => {
                self.check_pred(a.p, exec)?;
                self.check_pred(b.p, exec)?;
                let (x, y) = (self.psrc(*a), self.psrc(*b));
                let v = match f {
                    PredOp::Bool(j) => j.apply(x, y),
                    PredOp::Not => !x,
                    PredOp::Mov => x,
                };
                self.set_pred(*d, v, exec);
            }
            Op::Pack { d, bits, parts } => self.pack(*d, *bits, parts, exec)?,
            Op::Unpack { s, bits, parts } => {
                self.check_init(*s, exec)?;
                let v = *self.src(*s);
                let low = if *bits >= 64 {
                    u64::MAX
                } else {
                    (1u64 << bits) - 1
                };
                for (i, p) in parts.iter().enumerate() {
                    if let Some(p) = p {
                        let shift = i as u32 * u32::from(*bits);
                        let out = v.map(|x| x >> shift & low);
                        self.set(*p, &out, exec);
                    }
                }
            }
            Op::Carry {
                op,
                bits,
                signed,
                d,
                a,
                b,
                c,
                cin,
                cout,
            } => {
                self.carry(*op, *bits, *signed, [*d, *a, *b, *c], (*cin, *cout), exec)?;
            }
            Op::Special { d, sr } => {
                let out = self.special(*sr);
                self.set(*d, &out, exec);
            }
            Op::Bra { target } => {
                return Ok(Flow::Branch {
                    taken: exec,
                    target: *target,
                });
            }
            Op::Brx { index, targets } => return self.scatter(*index, targets, exec),
            Op::Exit => return self.exit(exec),
            Op::Trap => {
                return self.fault(
                    FaultKind::Trap,
                    Some(exec.trailing_zeros() as usize),
                    "the kernel trapped",
                );
            }
            Op::Ld(op) => self.load(op, exec)?,
            Op::St(op) => self.store(op, exec)?,
            Op::Atom(op) => self.atomic(op, exec)?,
            Op::Bar(bar) => return self.barrier(bar, exec),
            Op::WarpSync { mask } => {
                let mask = self.uniform(*mask, exec, "membermask")? as u32;
                if exec & !mask != 0 {
                    let lane = (exec & !mask).trailing_zeros() as usize;
                    return self.fault(
                        FaultKind::Divergent,
                        Some(lane),
                        format!("lane is not in membermask {mask:#010x}"),
                    );
                }
                return Ok(Flow::Wait(Wait::Warp { mask }));
            }
            Op::Fence(fence) => self.fence(*fence, exec),
            Op::IsSpace { p, a, space } => self.is_space(*p, *a, *space, exec)?,
            Op::GridDepWait => {
                self.w.depended = true;
            }
            Op::Tensor(op) => self.tensor(op, exec)?,
            Op::Async(op) => return self.asynch(op, exec),
            Op::SetMaxReg { inc, regs } => return self.set_max_regs(*inc, u32::from(*regs)),
            Op::GridDepLaunch | Op::Nop => {}
            op => {
                let (Op::Shfl { mask, .. }
                | Op::Vote { mask, .. }
                | Op::Match { mask, .. }
                | Op::Redux { mask, .. }
                | Op::Elect { mask, .. }) = op
                else {
                    self.exchange(op, exec)?;
                    return Ok(Flow::Next);
                };
                for (_, lanes) in self.groups(*mask, exec)? {
                    self.exchange(op, lanes)?;
                }
            }
        }
        Ok(Flow::Next)
    }

    pub(crate) fn check_pred(&self, p: u16, exec: u32) -> Res<()> {
        let have = self.w.pred_init[p as usize];
        if self.m.options.uninit && have & exec != exec {
            let lane = (exec & !have).trailing_zeros() as usize;
            return self.fault(
                FaultKind::Uninitialized,
                Some(lane),
                "a predicate is read before it was written",
            );
        }
        Ok(())
    }

    fn each2(&mut self, d: R, a: R, b: R, exec: u32, f: impl Fn(u64, u64) -> u64) -> Res<()> {
        self.check_init(a, exec)?;
        self.check_init(b, exec)?;
        let (x, y) = (self.src(a), self.src(b));
        let mut out = [0; 32];
        for l in Lane::of(exec) {
            out[l] = f(x[l], y[l]);
        }
        self.set(d, &out, exec);
        Ok(())
    }

    fn approx(
        &mut self,
        f: Func,
        ftz: bool,
        half: Option<HalfKind>,
        (d, a, b): (R, R, R),
        exec: u32,
    ) -> Res<()> {
        let mode = self.m.options.approx;
        match half {
            None => self.each2(d, a, b, exec, |a, b| {
                let y = approx::f32_func(
                    f,
                    f32::from_bits(a as u32),
                    f32::from_bits(b as u32),
                    ftz,
                    mode,
                );
                u64::from(y.to_bits())
            }),
            Some(kind) => self.each2(d, a, b, exec, |a, _| {
                let format = if kind.bf16 { BF16 } else { F16 };
                let one = |h: u64| {
                    let y = approx::half_func(f, format.decode(h as u32 & 0xffff), kind.bf16, mode);
                    u64::from(format.encode(y, Rnd::Near, false))
                };
                one(a) | if kind.pair { one(a >> 16) << 16 } else { 0 }
            }),
        }
    }

    fn pack(&mut self, d: R, bits: u8, parts: &[R], exec: u32) -> Res<()> {
        let mut out = [0u64; 32];
        let low = if bits >= 64 {
            u64::MAX
        } else {
            (1u64 << bits) - 1
        };
        for (i, p) in parts.iter().enumerate() {
            self.check_init(*p, exec)?;
            let v = self.src(*p);
            for l in 0..32 {
                out[l] |= (v[l] & low) << (i as u32 * u32::from(bits));
            }
        }
        self.set(d, &out, exec);
        Ok(())
    }

    fn carry(
        &mut self,
        op: CarryOp,
        bits: u8,
        signed: bool,
        r: [R; 4],
        (cin, cout): (bool, bool),
        exec: u32,
    ) -> Res<()> {
        let mask = if bits == 64 {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        let [d, a, b, c] = r;
        for r in [a, b, c] {
            self.check_init(r, exec)?;
        }
        let (x, y, z) = (*self.src(a), *self.src(b), *self.src(c));
        let mut out = [0; 32];
        let mut flag = self.w.carry;
        for l in Lane::of(exec) {
            let carry = u128::from(cin && flag >> l & 1 == 1);
            let ext = |v: u64| {
                if bits == 64 {
                    i128::from(v as i64)
                } else {
                    i128::from(v as u32 as i32)
                }
            };
            let product = if signed {
                (ext(x[l]) * ext(y[l])) as u128
            } else {
                u128::from(x[l]) * u128::from(y[l])
            };
            let sum = match op {
                CarryOp::Add => u128::from(x[l]) + u128::from(y[l]) + carry,
                // Borrow is kept as an inverted carry internally: the flag set means borrow.
                CarryOp::Sub => u128::from(x[l])
                    .wrapping_sub(u128::from(y[l]))
                    .wrapping_sub(carry),
                CarryOp::MadLo => (product & u128::from(mask)) + u128::from(z[l]) + carry,
                CarryOp::MadHi => (product >> bits & u128::from(mask)) + u128::from(z[l]) + carry,
            };
            out[l] = sum as u64 & mask;
            let over = sum >> bits & 1 == 1;
            flag = flag & !(1 << l) | u32::from(over) << l;
        }
        if cout {
            self.w.carry = flag;
        }
        self.set(d, &out, exec);
        Ok(())
    }

    fn scatter(&mut self, index: R, targets: &[u32], exec: u32) -> Res<Flow> {
        self.check_init(index, exec)?;
        let v = *self.src(index);
        let mut list: Vec<(u32, u32)> = Vec::new();
        for l in Lane::of(exec) {
            let Some(target) = targets.get(v[l] as usize) else {
                return self.fault(
                    FaultKind::Operand,
                    Some(l),
                    format!("branch index {} of {}", v[l], targets.len()),
                );
            };
            match list.iter_mut().find(|(_, t)| t == target) {
                Some((mask, _)) => *mask |= 1 << l,
                None => list.push((1 << l, *target)),
            }
        }
        Ok(Flow::Scatter(list))
    }

    /// Registers of a thread change hands through the block's pool. Where `.maxnreg` does not say how
    /// many there are at the start, the instruction has no effect (PTX ISA, `setmaxnreg`).
    fn set_max_regs(&mut self, inc: bool, regs: u32) -> Res<Flow> {
        let held = self.w.held_regs;
        if held == 0 {
            return Ok(Flow::Next);
        }
        if inc && regs < held || !inc && regs > held {
            let verb = if inc { "raises" } else { "lowers" };
            let text = format!("setmaxnreg {verb} {held} registers to {regs}");
            return self.fault(FaultKind::Operand, None, text);
        }
        let pool = &mut self.cta().spare_regs;
        if inc {
            let need = regs - held;
            if *pool < need {
                return Ok(Flow::Wait(Wait::Registers { need }));
            }
            *pool -= need;
        } else {
            *pool += held - regs;
        }
        self.w.held_regs = regs;
        Ok(Flow::Next)
    }

    fn exit(&mut self, exec: u32) -> Res<Flow> {
        if exec == self.w.live {
            self.finish_copies()?;
            self.check_bulk_done()?;
        }
        Ok(Flow::Exit)
    }

    fn fence(&mut self, fence: Fence, exec: u32) {
        let (rank, warp) = (self.rank, self.w.index);
        if let Some(r) = self.race() {
            match fence {
                Fence::ProxyAsync => r.proxy_fence(rank, warp, exec),
                Fence::Thread(scope) => r.fence(rank, warp, exec, scope),
                Fence::MbarrierInit | Fence::ProxyOther => {}
            }
        }
    }
}
