//! `cp.async`, `ldmatrix`, `stmatrix` and `mma`, with the fragment layouts of the PTX ISA.

use super::super::body::Stmt;
use super::super::{MmaShape, Op, Space, Trans, mma};
use super::machine::{Machine, Mask};
use super::memory::from_bytes;
use super::number::{from_f64, to_f64, to_int};
use super::{EvalError, Evaluated};
use crate::DType;
use crate::kernel::{Round, Sat, Ty};

impl<'k, 'a> Machine<'k, 'a> {
    pub(super) fn copy_async(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        match stmt.op {
            Op::CpAsync { bytes, .. } => (0..self.threads).filter(|&t| mask[t]).try_for_each(|t| {
                let read = match stmt.args.get(2) {
                    Some(&n) => self.scalar(n, t) as usize,
                    None => bytes as usize,
                };
                let mut data = vec![0; bytes as usize];
                let (space, from) = self.address(stmt.args[1], 0, t);
                if read > 0 {
                    // The address must be aligned to the whole copy, however much is read.
                    let aligned = from.is_multiple_of(u64::from(bytes)) && read <= bytes as usize;
                    if !aligned {
                        return Err(EvalError::new(format!(
                            "copy of {read} of {bytes} bytes at {from:#x}"
                        )));
                    }
                    for (i, byte) in data.iter_mut().take(read).enumerate() {
                        *byte = self.memory.read(space, from + i as u64, 1)?[0];
                    }
                }
                let (space, to) = self.address(stmt.args[0], 0, t);
                self.memory.write(space, to, &data)
            }),
            Op::CpAsyncCommit | Op::CpAsyncWait { .. } => Ok(()),
            op => Err(EvalError::new(format!(
                "`{}` is not executed in lockstep",
                op.name()
            ))),
        }
    }

    pub(super) fn tensor(&mut self, stmt: &'k Stmt, mask: &Mask) -> Evaluated {
        for first in (0..self.threads).step_by(32) {
            let warp = mask.get(first..first + 32).unwrap_or(&[]);
            match (
                warp.contains(&true),
                warp.len() == 32 && !warp.contains(&false),
            ) {
                (false, _) if !warp.is_empty() => continue,
                (_, true) => {}
                _ => return Err(EvalError::new("a warp that is not whole")),
            }
            match stmt.op {
                Op::LdMatrix { tiles, trans } => {
                    self.ldmatrix(stmt, tiles as usize, trans, first)?
                }
                Op::StMatrix { tiles, trans } => {
                    self.stmatrix(stmt, tiles as usize, trans, first)?
                }
                Op::Mma { shape, a, b, acc } => self.mma(stmt, shape, (a, b, acc), first)?,
                op => {
                    return Err(EvalError::new(format!(
                        "`{}` is not executed in lockstep",
                        op.name()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Element (row, column) of a tile is in lane `4 row + column / 2`, half `column mod 2`; lane
    /// `8 tile + row` gives the row's address.
    fn ldmatrix(&mut self, stmt: &Stmt, tiles: usize, trans: Trans, first: usize) -> Evaluated {
        for tile in 0..tiles {
            let mut rows = Vec::new();
            for row in 0..8 {
                let (space, address) = self.address(stmt.args[0], 0, first + 8 * tile + row);
                let bytes = self.memory.read(space, address, 16)?;
                rows.push(from_bytes(Ty::vec(DType::U16, 8), bytes));
            }
            for lane in 0..32 {
                let half = |h: usize| match trans {
                    Trans::No => rows[lane / 4][lane % 4 * 2 + h],
                    Trans::Trans => rows[lane % 4 * 2 + h][lane / 4],
                };
                self.set_word(
                    stmt.results[tile],
                    first + lane,
                    (half(0) | half(1) << 16) as u32,
                );
            }
        }
        Ok(())
    }

    fn stmatrix(&mut self, stmt: &Stmt, tiles: usize, trans: Trans, first: usize) -> Evaluated {
        for tile in 0..tiles {
            let mut rows = [[0u16; 8]; 8];
            for lane in 0..32 {
                let word = self.word(stmt.args[1 + tile], first + lane);
                for h in 0..2 {
                    let (r, c) = (lane / 4, lane % 4 * 2 + h);
                    let (r, c) = if trans == Trans::No { (r, c) } else { (c, r) };
                    rows[r][c] = (word >> (16 * h)) as u16;
                }
            }
            for (row, values) in rows.iter().enumerate() {
                let (space, address) = self.address(stmt.args[0], 0, first + 8 * tile + row);
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                debug_assert_eq!(space, Space::Shared);
                self.memory.write(space, address, &bytes)?;
            }
        }
        Ok(())
    }

    fn mma(
        &mut self,
        stmt: &Stmt,
        shape: MmaShape,
        (a, b, acc): (DType, DType, DType),
        first: usize,
    ) -> Evaluated {
        let Some(f) = mma::fragments(shape, a, b, acc) else {
            return Err(EvalError::new("no such shape"));
        };
        let depth = match shape {
            MmaShape::M16n8k8 => 8,
            MmaShape::M16n8k16 => 16,
            MmaShape::M16n8k32 => 32,
        };
        let per_word = 32 / a.bits() as usize;
        let mut left = vec![vec![0u64; depth]; 16];
        let mut right = vec![vec![0u64; depth]; 8];
        for lane in 0..32 {
            let (group, in_group) = (lane / 4, lane % 4);
            let code = |v, dtype: DType, i: usize| {
                let mask = (1u64 << dtype.bits()) - 1;
                u64::from(self.word(v, first + lane)) >> (i * dtype.bits() as usize) & mask
            };
            for (w, &v) in stmt.args[..f.a].iter().enumerate() {
                for i in 0..per_word {
                    left[group + 8 * (w % 2)][(w / 2 * 4 + in_group) * per_word + i] =
                        code(v, a, i);
                }
            }
            for (w, &v) in stmt.args[f.a..f.a + f.b].iter().enumerate() {
                for i in 0..per_word {
                    right[group][(w * 4 + in_group) * per_word + i] = code(v, b, i);
                }
            }
        }
        for lane in 0..32 {
            let t = first + lane;
            for i in 0..4 {
                let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                // f16 accumulators are packed in pairs, others one to a register.
                let (at, half) = if acc == DType::F16 {
                    (i / 2, i % 2)
                } else {
                    (i, 0)
                };
                let start = self.get(stmt.args[f.a + f.b + at], t)[half];
                let sum = dot(&left[row], &right[column], (a, b, acc), start);
                let mut lanes = self.get(stmt.results[at], t).to_vec();
                lanes.resize(usize::from(f.acc.lanes()), 0);
                lanes[half] = sum;
                self.set(stmt.results[at], t, &lanes);
            }
        }
        Ok(())
    }
}

/// `start + Σ a_k b_k`: exactly, modulo 2^32, for integers; in f32 in the order of K for floats.
fn dot(x: &[u64], y: &[u64], (a, b, acc): (DType, DType, DType), start: u64) -> u64 {
    if acc == DType::I32 {
        let sum: i128 = x
            .iter()
            .zip(y)
            .map(|(&x, &y)| to_int(a, x) * to_int(b, y))
            .sum();
        return u64::from((sum as u32).wrapping_add(start as u32));
    }
    let products = x
        .iter()
        .zip(y)
        .map(|(&x, &y)| (to_f64(a, x) * to_f64(b, y)) as f32);
    let sum = products.fold(to_f64(acc, start) as f32, |s, p| s + p);
    from_f64(acc, f64::from(sum), Round::Rn, Sat::Wrap)
}
