//! The index space of an output, folded into as few dimensions as its operands allow.

use qcc_ir::diag::Result;

/// Extents of the folded output, outermost first; never empty.
pub(super) struct Frame {
    pub(super) dims: Vec<usize>,
}

/// The step of an operand of extents `from` in each dimension of `to`, 0 where it is broadcast.
///
/// # Errors
/// When `from` does not broadcast to `to`.
pub(crate) fn broadcast_steps(from: &[usize], to: &[usize]) -> Result<Vec<usize>> {
    let lead = to.len().checked_sub(from.len());
    let fits = lead.is_some_and(|lead| {
        from.iter()
            .zip(&to[lead..])
            .all(|(f, t)| *f == *t || *f == 1)
    });
    let Some(lead) = lead.filter(|_| fits) else {
        return Err(crate::internal(format!(
            "{from:?} does not broadcast to {to:?}"
        )));
    };
    let mut steps = vec![0; to.len()];
    let mut step = 1;
    for (i, f) in from.iter().enumerate().rev() {
        if *f != 1 {
            steps[lead + i] = step;
        }
        step *= f;
    }
    Ok(steps)
}

impl Frame {
    /// Drops dimensions of extent 1 and merges neighbours through which every operand steps
    /// evenly; rewrites the operands' steps accordingly.
    pub(super) fn collapse(dims: &[usize], mut steps: Vec<&mut Vec<usize>>) -> Frame {
        let mut out: Vec<usize> = Vec::new();
        let mut folded: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
        for (d, n) in dims.iter().enumerate().filter(|(_, n)| **n != 1) {
            let even = folded
                .iter()
                .zip(&steps)
                .all(|(f, s)| f.last().is_some_and(|outer| *outer == s[d] * n));
            match out.last_mut() {
                Some(last) if even || steps.is_empty() => {
                    *last *= n;
                    for (f, s) in folded.iter_mut().zip(&steps) {
                        if let Some(f) = f.last_mut() {
                            *f = s[d];
                        }
                    }
                }
                _ => {
                    out.push(*n);
                    folded
                        .iter_mut()
                        .zip(&steps)
                        .for_each(|(f, s)| f.push(s[d]));
                }
            }
        }
        if out.is_empty() {
            out.push(1);
            folded.iter_mut().for_each(|f| f.push(0));
        }
        steps.iter_mut().zip(folded).for_each(|(s, f)| **s = f);
        Frame { dims: out }
    }

    /// Columns: the extent of the innermost dimension.
    pub(super) fn cols(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Where an operand with these steps has the first element of a row.
    pub(super) fn offset(&self, mut row: usize, steps: &[usize]) -> usize {
        let mut at = 0;
        let outer = self.dims.len() - 1;
        for (n, s) in self.dims[..outer].iter().zip(&steps[..outer]).rev() {
            at += row % n * s;
            row /= n;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_fold_where_all_operands_step_evenly() {
        let dims = [2, 3, 4, 1, 5];
        let mut full = broadcast_steps(&dims, &dims).unwrap();
        let mut row = broadcast_steps(&[5], &dims).unwrap();
        let mut col = broadcast_steps(&[4, 1, 1], &dims).unwrap();
        let f = Frame::collapse(&dims, vec![&mut full]);
        assert_eq!((f.dims, full), (vec![120], vec![1]));
        let mut full = broadcast_steps(&dims, &dims).unwrap();
        let f = Frame::collapse(&dims, vec![&mut full, &mut row]);
        assert_eq!((f.dims, full, row), (vec![24, 5], vec![5, 1], vec![0, 1]));
        let mut full = broadcast_steps(&dims, &dims).unwrap();
        let f = Frame::collapse(&dims, vec![&mut full, &mut col]);
        assert_eq!(f.dims, [6, 4, 5]);
        assert_eq!((full, col.clone()), (vec![20, 5, 1], vec![0, 1, 0]));
        assert_eq!(f.offset(7, &col), 3);
        assert!(broadcast_steps(&[3], &[4]).is_err());
        assert!(broadcast_steps(&[1, 4], &[4]).is_err());
    }

    #[test]
    fn scalars_have_one_element() {
        let f = Frame::collapse(&[], Vec::new());
        assert_eq!(f.dims, [1]);
        let f = Frame::collapse(&[2, 3], Vec::new());
        assert_eq!(f.dims, [6]);
    }
}
