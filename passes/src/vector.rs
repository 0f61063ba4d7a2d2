//! Sums over vectors and small matrix products, each element in one fixed order, so that results
//! are the same on every machine and for any number of threads.
//!
//! These are the inner loops of what computes on whole weights. Each is compiled for several widths
//! of vectors and runs with the widest that the processor has; no variant contracts a product and a
//! sum, so all give the same bits.

use pulp::NullaryFnOnce;
use std::ops::{Add, AddAssign, Mul, Range, SubAssign};

/// Columns of a product that are computed together: they fill two or four vectors.
const COLUMNS: usize = 16;
/// Such panels whose terms are gathered in one place: rows are read in longer runs.
const PANELS: usize = 8;

/// Floats.
pub(crate) trait Float:
    Copy + Default + Add<Output = Self> + Mul<Output = Self> + AddAssign + SubAssign
{
}

impl Float for f32 {}
impl Float for f64 {}

/// A matrix in a slice: whole rows of `step` elements.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) v: &'a [T],
    pub(crate) step: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// How many rows there are.
    fn rows(&self) -> usize {
        self.v.len() / self.step.max(1)
    }

    /// Some columns of a row.
    #[inline(always)]
    fn row(&self, i: usize, columns: Range<usize>) -> &'a [T] {
        &self.v[i * self.step..][columns]
    }
}

/// Runs a loop, compiled for the widest vectors of the processor. A loop is a type with an inlined
/// `call`: a closure may be left outside of what is compiled for them.
fn widest<L: NullaryFnOnce>(body: L) -> L::Output {
    pulp::Arch::new().dispatch(body)
}

/// `Σ a·b`: eight sums side by side, then one.
pub(crate) fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    widest(Dot(a, b))
}

struct Dot<'a, T>(&'a [T], &'a [T]);

impl<T: Float> NullaryFnOnce for Dot<'_, T> {
    type Output = T;

    #[inline(always)]
    fn call(self) -> T {
        let len = self.0.len().min(self.1.len());
        let ((a, x), (b, y)) = (self.0[..len].as_chunks(), self.1[..len].as_chunks());
        let mut sums = [T::default(); 8];
        for (a, b) in a.iter().zip(b) {
            add_eight(&mut sums, a, b);
        }
        total(sums, x, y)
    }
}

/// Eight sums side by side.
type Sums<T> = [T; 8];

/// Adds a product to each of the sums.
#[inline(always)]
fn add_eight<T: Float>(sums: &mut Sums<T>, a: &Sums<T>, b: &Sums<T>) {
    for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
        *s += *a * *b;
    }
}

/// The sum of eight sums, and of the products of what is left. (Apart from the loops: as part of
/// them it makes the compiler put the eight in eight registers.)
#[inline(never)]
fn total<T: Float>([a, b, c, d, e, f, g, h]: Sums<T>, x: &[T], y: &[T]) -> T {
    let rest = x.iter().zip(y);
    let rest = rest.fold(T::default(), |sum, (x, y)| sum + *x * *y);
    ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
}

/// [`dot`] of each `a` with each `b`, which are equally long. (The sums have names of their own: so
/// they stay in registers.)
#[inline(always)]
fn four_dots<T: Float>(a: [&[T]; 2], b: [&[T]; 2]) -> [[T; 2]; 2] {
    let zero = [T::default(); 8];
    let (mut p, mut q, mut r, mut s) = (zero, zero, zero, zero);
    let ([(a0, a2), (a1, a3)], [(b0, b2), (b1, b3)]) =
        (a.map(|v| v.as_chunks::<8>()), b.map(|v| v.as_chunks::<8>()));
    for (((a0, a1), b0), b1) in a0.iter().zip(a1).zip(b0).zip(b1) {
        add_eight(&mut p, a0, b0);
        add_eight(&mut q, a0, b1);
        add_eight(&mut r, a1, b0);
        add_eight(&mut s, a1, b1);
    }
    [
        [total(p, a2, b2), total(q, a2, b3)],
        [total(r, a3, b2), total(s, a3, b3)],
    ]
}

/// `out[i, j] −= Σ a[i, l]·b[j, l]` over some columns `l`, each sum as [`dot`] has it. `out` has a
/// row for each of `a`, with an element for each row of `b`.
pub(crate) fn subtract_dots<T: Float>(
    out: &mut [T],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    over: Range<usize>,
) {
    // Rows of `b` are read for every row of `a`, so they are gathered in one place.
    let mut near = Vec::with_capacity(b.rows() * over.len());
    (0..b.rows()).for_each(|j| near.extend_from_slice(b.row(j, over.clone())));
    let b = Matrix {
        v: &near,
        step: over.len(),
    };
    if !over.is_empty() {
        widest(SubtractDots { out, a, b, over });
    }
}

struct SubtractDots<'a, T> {
    out: &'a mut [T],
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
    /// Columns of `a`.
    over: Range<usize>,
}

impl<T: Float> NullaryFnOnce for SubtractDots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (m, n) = (self.a.rows(), self.b.rows());
        let a = |i: usize| self.a.row(i, self.over.clone());
        let b = |j: usize| self.b.row(j, 0..self.b.step);
        for i in (0..m).step_by(2) {
            for j in (0..n).step_by(2) {
                // At an end without a second row the last is taken twice and stored once.
                let (k, l) = ((i + 1).min(m - 1), (j + 1).min(n - 1));
                let sums = four_dots([a(i), a(k)], [b(j), b(l)]);
                for (i, sums) in (i..=k).zip(sums) {
                    for (j, sum) in (j..=l).zip(sums) {
                        self.out[i * n + j] -= sum;
                    }
                }
            }
        }
    }
}

/// `y += a·x`
pub(crate) fn add_scaled<T: Float>(y: &mut [T], a: T, x: &[T]) {
    widest(AddScaled(y, a, x));
}

struct AddScaled<'a, T>(&'a mut [T], T, &'a [T]);

impl<T: Float> NullaryFnOnce for AddScaled<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (y, x) in self.0.iter_mut().zip(self.2) {
            *y += self.1 * *x;
        }
    }
}

/// `y[i, c] += a[i, 0]·x[0, c] + a[i, 1]·x[1, c] + …` for some columns `c`, term by term from left
/// to right. The rows of `y` are as long as those of `x`, and as many as those of `a`, which may be
/// longer than there are rows of `x`.
pub(crate) fn add_products<T: Float>(
    y: &mut [T],
    a: Matrix<'_, T>,
    x: &[&[T]],
    columns: Range<usize>,
) {
    let Some(step) = x.first().map(|x| x.len()) else {
        return;
    };
    let whole = columns.end - columns.len() % COLUMNS;
    let mut panels = Vec::with_capacity(PANELS * x.len());
    for from in (columns.start..whole).step_by(PANELS * COLUMNS) {
        gather(&mut panels, x, from..whole.min(from + PANELS * COLUMNS));
        for (at, panel) in (from..).step_by(COLUMNS).zip(panels.chunks(x.len())) {
            let place = (step, at);
            // Sums of four rows of f32, or two of f64, fill eight vectors.
            match size_of::<T>() {
                4 => widest(AddPanel::<T, 4>(y, place, a, panel)),
                _ => widest(AddPanel::<T, 2>(y, place, a, panel)),
            }
        }
    }
    for (y, a) in y.chunks_mut(step).zip(a.v.chunks(a.step)) {
        for (x, a) in x.iter().zip(a) {
            add_scaled(&mut y[whole..columns.end], *a, &x[whole..columns.end]);
        }
    }
}

/// Some columns of rows as panels, one after another.
fn gather<T: Float>(panels: &mut Vec<[T; COLUMNS]>, x: &[&[T]], columns: Range<usize>) {
    panels.resize(columns.len() / COLUMNS * x.len(), [T::default(); COLUMNS]);
    for (j, row) in x.iter().enumerate() {
        let (parts, _) = row[columns.clone()].as_chunks();
        let to = panels.iter_mut().skip(j).step_by(x.len());
        to.zip(parts).for_each(|(to, part)| *to = *part);
    }
}

/// [`add_products`] for a panel, `R` rows of `y` at a time: `y`, how far its rows lie apart and the
/// panel's first column, `a`, and the panel.
struct AddPanel<'a, T, const R: usize>(
    &'a mut [T],
    (usize, usize),
    Matrix<'a, T>,
    &'a [[T; COLUMNS]],
);

impl<T: Float, const R: usize> NullaryFnOnce for AddPanel<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let AddPanel(y, (step, at), a, panel) = self;
        let factors = |i: usize| a.row(i, 0..panel.len());
        let whole = a.rows() / R * R;
        for i in (0..whole).step_by(R) {
            let factors: [&[T]; R] = std::array::from_fn(|r| factors(i + r));
            add_block(&mut y[i * step + at..], step, factors, panel);
        }
        for i in whole..a.rows() {
            add_block(&mut y[i * step + at..], step, [factors(i)], panel);
        }
    }
}

/// The sums of `R` rows, which lie `step` apart, in a panel.
#[inline(always)]
fn add_block<T: Float, const R: usize>(
    y: &mut [T],
    step: usize,
    factors: [&[T]; R],
    panel: &[[T; COLUMNS]],
) {
    let mut sums = [[T::default(); COLUMNS]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&y[r * step..][..COLUMNS]);
    }
    for (j, x) in panel.iter().enumerate() {
        for (sums, a) in sums.iter_mut().zip(&factors) {
            let a = a[j];
            for (s, x) in sums.iter_mut().zip(x) {
                *s += a * *x;
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        y[r * step..][..COLUMNS].copy_from_slice(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small integers, of which sums are exact, and everything in between.
    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        qcc_ir::eval::normal(seed, 1.0, n)
    }

    #[test]
    fn sums_have_eight_parts() {
        for n in [0, 1, 7, 8, 9, 40] {
            let (a, b) = (numbers(n, 1), numbers(n, 2));
            let mut parts = [0.0; 8];
            for i in 0..n / 8 * 8 {
                parts[i % 8] += a[i] * b[i];
            }
            let rest: f64 = (n / 8 * 8..n).map(|i| a[i] * b[i]).sum();
            let [p, q, r, s, t, u, v, w] = parts;
            let want = ((p + q) + (r + s)) + ((t + u) + (v + w)) + rest;
            assert_eq!(dot(&a, &b), want, "{n}");
        }
    }

    #[test]
    fn blocks_of_dots_are_dots() {
        for (m, n, k) in [(1, 1, 3), (2, 2, 16), (5, 4, 20), (4, 7, 33), (3, 0, 9)] {
            let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
            let matrix = |v| Matrix { v, step: k };
            let mut out = numbers(m * n, 3);
            let over = 1..k;
            let mut want = out.clone();
            for (i, v) in want.iter_mut().enumerate() {
                let (a, b) = (&a[i / n * k..][..k], &b[i % n * k..][..k]);
                *v -= dot(&a[over.clone()], &b[over.clone()]);
            }
            subtract_dots(&mut out, matrix(&a), matrix(&b), over);
            assert_eq!(out, want, "{m} {n} {k}");
        }
    }

    #[test]
    fn products_are_added_term_by_term() {
        for (m, depth, k) in [(1, 1, 1), (4, 3, 16), (7, 5, 37), (9, 2, 50), (3, 0, 5)] {
            let (a, x) = (numbers(m * (depth + 1), 1), numbers(depth * k, 2));
            let mut y = numbers(m * k, 3);
            let columns = k / 4..k;
            let mut want = y.clone();
            for (y, a) in want.chunks_mut(k).zip(a.chunks(depth + 1)) {
                for (x, a) in x.chunks(k).zip(a) {
                    add_scaled(&mut y[columns.clone()], *a, &x[columns.clone()]);
                }
            }
            let f32s = |v: &[f64]| -> Vec<f32> { v.iter().map(|v| *v as f32).collect() };
            let (mut y32, a32, x32) = (f32s(&y), f32s(&a), f32s(&x));
            let mut want32 = y32.clone();
            for (y, a) in want32.chunks_mut(k).zip(a32.chunks(depth + 1)) {
                for (x, a) in x32.chunks(k).zip(a) {
                    add_scaled(&mut y[columns.clone()], *a, &x[columns.clone()]);
                }
            }
            let step = depth + 1;
            add_products(
                &mut y,
                Matrix { v: &a, step },
                &x.chunks(k).collect::<Vec<_>>(),
                columns.clone(),
            );
            assert_eq!(y, want, "{m} {depth} {k}");
            add_products(
                &mut y32,
                Matrix { v: &a32, step },
                &x32.chunks(k).collect::<Vec<_>>(),
                columns,
            );
            assert_eq!(y32, want32, "{m} {depth} {k}");
        }
    }
}
