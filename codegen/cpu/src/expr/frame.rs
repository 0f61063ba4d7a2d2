//! The index space of an output, folded into as few dimensions as its operands allow.
//!
//! An operand has, in each dimension of the output, either that extent or 1. The types say which,
//! so the folding is decided before any size is known ([`Layout`]) and filled in for each run
//! ([`Frame`]).

use qcc_ir::DimExpr;
use qcc_ir::diag::Result;
use std::ops::Range;

/// How the dimensions of an output fold.
pub(super) struct Layout {
    /// Neighbouring dimensions that count as one, outermost first; never empty.
    groups: Vec<Range<usize>>,
    /// For each operand and group, whether the operand steps through it.
    present: Vec<Vec<bool>>,
}

/// Extents of the folded output.
pub(super) struct Frame {
    pub(super) dims: Vec<usize>,
}

impl Layout {
    /// Folds an output of shape `to`. With `rows`, the last dimension stays by itself.
    pub(super) fn new(to: &[DimExpr], operands: &[&[DimExpr]], rows: bool) -> Layout {
        let one = DimExpr::from(1);
        let has = |s: &[DimExpr], d: usize| {
            let at = (d + s.len()).checked_sub(to.len());
            at.and_then(|i| s.get(i)).is_some_and(|e| *e != one)
        };
        let mut out = Layout {
            groups: Vec::new(),
            present: vec![Vec::new(); operands.len()],
        };
        for d in 0..to.len() {
            let alone = rows && d + 1 == to.len();
            if to[d] == one && !alone {
                continue;
            }
            let mask: Vec<bool> = operands.iter().map(|s| has(s, d)).collect();
            let same = out
                .present
                .iter()
                .zip(&mask)
                .all(|(p, m)| p.last() == Some(m));
            match out.groups.last_mut() {
                Some(last) if same && !alone => last.end = d + 1,
                _ => {
                    out.groups.push(d..d + 1);
                    out.present
                        .iter_mut()
                        .zip(mask)
                        .for_each(|(p, m)| p.push(m));
                }
            }
        }
        if out.groups.is_empty() {
            out.groups.push(0..0);
            out.present.iter_mut().for_each(|p| p.push(false));
        }
        out
    }

    /// Whether operand `i` has one element per column.
    pub(super) fn columns(&self, i: usize) -> bool {
        self.present[i].last().copied().unwrap_or(false)
    }

    /// The frame of an output of these extents.
    pub(super) fn frame(&self, dims: &[usize]) -> Frame {
        let group = |g: &Range<usize>| dims.get(g.clone()).map_or(1, |d| d.iter().product());
        Frame {
            dims: self.groups.iter().map(group).collect(),
        }
    }

    /// The step of operand `i` per dimension of the frame; `cols` is its extent in the last one.
    pub(super) fn steps(&self, i: usize, frame: &Frame, cols: usize) -> Vec<usize> {
        let last = frame.dims.len() - 1;
        let mut step = 1;
        let mut steps = vec![0; frame.dims.len()];
        for g in (0..frame.dims.len()).rev().filter(|g| self.present[i][*g]) {
            steps[g] = step;
            step *= if g == last { cols } else { frame.dims[g] };
        }
        steps
    }
}

impl Frame {
    /// Columns: the extent of the innermost dimension.
    pub(super) fn cols(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Rows from `row` on through which every operand steps evenly.
    pub(super) fn even_rows(&self, row: usize) -> usize {
        match self.dims[..] {
            [.., rows, _] => rows - row % rows.max(1),
            _ => 1,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(d: &[&str]) -> Vec<DimExpr> {
        let dim = |s: &&str| {
            s.parse::<i64>()
                .map_or_else(|_| DimExpr::sym(*s), DimExpr::from)
        };
        d.iter().map(dim).collect()
    }

    #[test]
    fn dimensions_fold_where_all_operands_step_evenly() {
        let to = shape(&["a", "b", "4", "1", "5"]);
        let dims = [2, 3, 4, 1, 5];
        let l = Layout::new(&to, &[&to], false);
        let f = l.frame(&dims);
        assert_eq!(
            (f.dims.as_slice(), l.steps(0, &f, 120)),
            (&[120][..], vec![1])
        );
        let row = shape(&["5"]);
        let l = Layout::new(&to, &[&to, &row], false);
        let f = l.frame(&dims);
        assert_eq!(f.dims, [24, 5]);
        assert_eq!(
            (l.steps(0, &f, 5), l.steps(1, &f, 5)),
            (vec![5, 1], vec![0, 1])
        );
        assert!(l.columns(1));
        let col = shape(&["4", "1", "1"]);
        let l = Layout::new(&to, &[&to, &col], false);
        let f = l.frame(&dims);
        assert_eq!(f.dims, [6, 4, 5]);
        assert_eq!(
            (l.steps(0, &f, 5), l.steps(1, &f, 5)),
            (vec![20, 5, 1], vec![0, 1, 0])
        );
        assert_eq!(f.offset(7, &l.steps(1, &f, 5)), 3);
        assert_eq!((f.even_rows(6), f.even_rows(7)), (2, 1));
        assert!(!l.columns(1));
    }

    #[test]
    fn rows_stay_by_themselves() {
        let to = shape(&["a", "b", "n"]);
        let l = Layout::new(&to, &[&to], true);
        let f = l.frame(&[2, 3, 7]);
        assert_eq!(
            (f.dims.as_slice(), l.steps(0, &f, 7)),
            (&[6, 7][..], vec![7, 1])
        );
        let l = Layout::new(&shape(&["a", "1"]), &[], true);
        assert_eq!(l.frame(&[3, 1]).dims, [3, 1]);
    }

    #[test]
    fn a_symbol_that_happens_to_be_one_changes_nothing() {
        let to = shape(&["a", "b"]);
        let l = Layout::new(&to, &[&to, &to[1..]], false);
        let f = l.frame(&[4, 1]);
        assert_eq!(f.dims, [4, 1]);
        assert_eq!(
            (l.steps(0, &f, 1), l.steps(1, &f, 1)),
            (vec![1, 1], vec![0, 1])
        );
    }

    #[test]
    fn scalars_have_one_element() {
        assert_eq!(Layout::new(&[], &[&[]], false).frame(&[]).dims, [1]);
        assert_eq!(Layout::new(&[], &[], true).frame(&[]).dims, [1]);
        assert!(broadcast_steps(&[3], &[4]).is_err());
        assert!(broadcast_steps(&[1, 4], &[4]).is_err());
    }
}
