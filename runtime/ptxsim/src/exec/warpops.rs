//! Shuffles, votes, matches and reductions between lanes (PTX ISA §9.7.9, §9.7.13).

use super::{Ctx, Lane, Res};
use crate::isa::{Lanes, Op, R, ReduxOp, ShflMode, VoteMode};

/// Lane that `shfl` reads from and whether it lies inside the segment.
fn shuffle_source(mode: ShflMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, seg) = (b & 31, c & 31, c >> 8 & 31);
    let max = lane & seg | clamp & !seg;
    let min = lane & seg;
    let (j, inside) = match mode {
        ShflMode::Up => {
            let j = lane.wrapping_sub(b);
            (j, lane as i32 - b as i32 >= max as i32)
        }
        ShflMode::Down => (lane + b, lane + b <= max),
        ShflMode::Bfly => (lane ^ b, lane ^ b <= max),
        ShflMode::Idx => {
            let j = min | b & !seg;
            (j, j <= max)
        }
    };
    if inside {
        (j & 31, true)
    } else {
        (lane, false)
    }
}

/// Reduction of two 32-bit values.
pub(crate) fn reduce(op: ReduxOp, a: u32, b: u32) -> u32 {
    match op {
        ReduxOp::Add => a.wrapping_add(b),
        ReduxOp::MinU => a.min(b),
        ReduxOp::MaxU => a.max(b),
        ReduxOp::MinS => (a as i32).min(b as i32) as u32,
        ReduxOp::MaxS => (a as i32).max(b as i32) as u32,
        ReduxOp::And => a & b,
        ReduxOp::Or => a | b,
        ReduxOp::Xor => a ^ b,
    }
}

impl Ctx<'_, '_> {
    pub(crate) fn exchange(&mut self, op: &Op, exec: u32) -> Res<()> {
        match *op {
            Op::Shfl {
                mode,
                d,
                p,
                a,
                b,
                c,
                ..
            } => {
                for r in [a, b, c] {
                    self.check_init(r, exec)?;
                }
                let (x, y, z) = (*self.src(a), *self.src(b), *self.src(c));
                let (mut out, mut inside) = (x, 0);
                for l in Lane::of(exec) {
                    let (j, ok) = shuffle_source(mode, l as u32, y[l] as u32, z[l] as u32);
                    // A source lane that does not take part leaves the result undefined: keep its stale value.
                    out[l] = x[j as usize];
                    inside |= u32::from(ok) << l;
                }
                self.set(d, &out, exec);
                self.set_pred(p, inside, exec);
            }
            Op::Vote { mode, d, p, a, .. } => {
                self.check_pred(a.p, exec)?;
                let t = self.psrc(a) & exec;
                let all = t == exec;
                match mode {
                    VoteMode::Ballot => self.set(d, &[u64::from(t); 32], exec),
                    VoteMode::All => self.set_pred(p, splat(all), exec),
                    VoteMode::Any => self.set_pred(p, splat(t != 0), exec),
                    VoteMode::Uni => self.set_pred(p, splat(all || t == 0), exec),
                }
            }
            Op::Match { all, d, p, a, .. } => self.matches(all, (d, a), p, exec)?,
            Op::Redux { op, d, a, .. } => {
                self.check_init(a, exec)?;
                let v = self.src(a);
                let mut lanes = Lane::of(exec).map(|l| v[l] as u32);
                let first = lanes.next().unwrap_or(0);
                let r = lanes.fold(first, |x, y| reduce(op, x, y));
                self.set(d, &[u64::from(r); 32], exec);
            }
            Op::ActiveMask { d } => self.set(d, &[u64::from(exec); 32], exec),
            Op::Elect { d, p, .. } => {
                let leader = exec.trailing_zeros();
                self.set(d, &[u64::from(leader); 32], exec);
                self.set_pred(p, 1 << leader, exec);
            }
            _ => {}
        }
        Ok(())
    }

    fn matches(&mut self, all: bool, (d, a): (R, R), p: u16, exec: u32) -> Res<()> {
        self.check_init(a, exec)?;
        let v = *self.src(a);
        let mut out: Lanes = [0; 32];
        for l in Lane::of(exec) {
            out[l] = Lane::of(exec)
                .filter(|k| v[*k] == v[l])
                .fold(0, |m, k| m | 1 << k);
        }
        if all {
            let same = Lane::of(exec).all(|l| out[l] == u64::from(exec));
            self.set(d, &[if same { u64::from(exec) } else { 0 }; 32], exec);
            self.set_pred(p, splat(same), exec);
        } else {
            self.set(d, &out, exec);
        }
        Ok(())
    }
}

fn splat(b: bool) -> u32 {
    if b { u32::MAX } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_clamp_at_the_ends_of_their_segment() {
        assert_eq!(shuffle_source(ShflMode::Down, 30, 1, 0x1f), (31, true));
        assert_eq!(shuffle_source(ShflMode::Down, 31, 1, 0x1f), (31, false));
        assert_eq!(shuffle_source(ShflMode::Up, 3, 1, 0), (2, true));
        assert_eq!(shuffle_source(ShflMode::Up, 0, 1, 0), (0, false));
        // Segments of eight: mask 24 in the upper bits of c.
        assert_eq!(shuffle_source(ShflMode::Idx, 13, 2, 0x181f), (10, true));
        assert_eq!(shuffle_source(ShflMode::Bfly, 13, 4, 0x1f), (9, true));
        assert_eq!(shuffle_source(ShflMode::Up, 9, 2, 0x1800), (9, false));
    }
}
