//! Symbolic dimensions: canonical integer expressions over named symbols.
//!
//! A dimension of a model graph is known (`784`), a symbol (`batch`) or arithmetic over them
//! (`batch*seq`, `(seq + 3)//4`). A [`DimExpr`] is kept as a sum of products,
//!
//! ```text
//! Σ coefficient · atom · atom · …      atom = symbol | a // b | a % b | min(a, …) | max(a, …)
//! ```
//!
//! sorted and merged, so that two expressions that are equal as polynomials over their atoms
//! compare equal. Equality that this form does not show is left to a check at run time. Minima
//! and maxima are flat, and hold no operand that another one bounds for all sizes of 0 and more.
//!
//! Division rounds towards minus infinity. Coefficients saturate at the limits of `i64`;
//! [`DimExpr::eval`] reports overflow instead.

mod atom;
mod display;

use atom::{Atom, Extreme, floor_div};
use std::collections::BTreeMap;
use std::ops::{Add, Mul, Sub};

/// An integer expression over symbols, in canonical form.
///
/// ```
/// use qcc_ir::DimExpr;
/// let (b, s) = (DimExpr::sym("b"), DimExpr::sym("s"));
/// assert_eq!(&b * &s + DimExpr::from(0), &s * &b);
/// assert_eq!((&b * &s).floor_div(&s), b);
/// assert_eq!((&s + &DimExpr::from(3)).floor_div(&DimExpr::from(4)).to_string(), "(s + 3)//4");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DimExpr {
    /// Sorted by monomial, no zero coefficients. The empty monomial is the constant.
    terms: Vec<(Vec<Atom>, i64)>,
}

impl DimExpr {
    /// The symbol `name`.
    pub fn sym(name: impl Into<String>) -> Self {
        Self::atom(Atom::Sym(name.into()))
    }

    /// A known extent; one above the limits of `i64` saturates.
    pub fn extent(v: u64) -> Self {
        DimExpr::from(i64::try_from(v).unwrap_or(i64::MAX))
    }

    fn atom(a: Atom) -> Self {
        DimExpr {
            terms: vec![(vec![a], 1)],
        }
    }

    fn from_terms(terms: impl IntoIterator<Item = (Vec<Atom>, i64)>) -> Self {
        let mut sum: BTreeMap<Vec<Atom>, i64> = BTreeMap::new();
        for (mut mono, c) in terms {
            mono.sort();
            let e = sum.entry(mono).or_insert(0);
            *e = e.saturating_add(c);
        }
        DimExpr {
            terms: sum.into_iter().filter(|(_, c)| *c != 0).collect(),
        }
    }

    /// The number, if it is one.
    pub fn as_const(&self) -> Option<i64> {
        match self.terms.as_slice() {
            [] => Some(0),
            [(m, c)] if m.is_empty() => Some(*c),
            _ => None,
        }
    }

    /// The symbol's name, if it is a bare symbol.
    pub fn as_sym(&self) -> Option<&str> {
        match self.as_atom() {
            Some(Atom::Sym(s)) => Some(s),
            _ => None,
        }
    }

    /// `⌊self / d⌋`, simplified where the division is exact.
    ///
    /// Division by the constant 0 is kept as it is written and fails in [`DimExpr::eval`].
    #[must_use]
    pub fn floor_div(&self, d: &DimExpr) -> DimExpr {
        if let (Some(a), Some(b)) = (self.as_const(), d.as_const())
            && b != 0
        {
            return DimExpr::from(floor_div(a, b).unwrap_or(i64::MAX));
        }
        if let Some(q) = self.exact_div(d) {
            return q;
        }
        Self::atom(Atom::FloorDiv(Box::new(self.clone()), Box::new(d.clone())))
    }

    /// The quotient when every term is a multiple of the single-term divisor `d`.
    ///
    /// Symbols stand for sizes of at least 1, or the division would not occur.
    pub fn exact_div(&self, d: &DimExpr) -> Option<DimExpr> {
        let [(dm, dc)] = d.terms.as_slice() else {
            return (self == d && d.as_const() != Some(0)).then(|| DimExpr::from(1));
        };
        let mut out = Vec::with_capacity(self.terms.len());
        for (m, c) in &self.terms {
            if c.checked_rem(*dc)? != 0 {
                return None;
            }
            let mut rest = m.clone();
            for a in dm {
                let at = rest.iter().position(|r| r == a)?;
                rest.remove(at);
            }
            out.push((rest, c / dc));
        }
        Some(Self::from_terms(out))
    }

    /// `self − d·⌊self / d⌋`, simplified where the division is exact.
    #[must_use]
    pub fn modulo(&self, d: &DimExpr) -> DimExpr {
        if let (Some(a), Some(b)) = (self.as_const(), d.as_const())
            && b > 0
        {
            return DimExpr::from(a.rem_euclid(b));
        }
        if self.exact_div(d).is_some() {
            return DimExpr::from(0);
        }
        Self::atom(Atom::Mod(Box::new(self.clone()), Box::new(d.clone())))
    }

    /// The smaller of the two.
    #[must_use]
    pub fn min_with(&self, o: &DimExpr) -> DimExpr {
        Self::extreme([self.clone(), o.clone()], &Extreme::MIN)
    }

    /// The larger of the two.
    #[must_use]
    pub fn max_with(&self, o: &DimExpr) -> DimExpr {
        Self::extreme([self.clone(), o.clone()], &Extreme::MAX)
    }

    /// The least or greatest of some expressions, flat, without operands that never decide.
    fn extreme(of: impl IntoIterator<Item = DimExpr>, which: &Extreme) -> DimExpr {
        let mut kept: Vec<DimExpr> = Vec::new();
        for e in of {
            let parts = e.as_atom().and_then(which.operands);
            for part in parts.unwrap_or(std::slice::from_ref(&e)) {
                if !kept.iter().any(|k| (which.decides)(k, part)) {
                    kept.retain(|k| !(which.decides)(part, k));
                    kept.push(part.clone());
                }
            }
        }
        kept.sort();
        match <[DimExpr; 1]>::try_from(kept) {
            Ok([only]) => only,
            Err(several) => Self::atom((which.atom)(several)),
        }
    }

    /// Whether `self >= o` is plain for all symbols of 0 and more.
    fn covers(&self, o: &DimExpr) -> bool {
        (self - o).bounds(&|_| (0, i64::MAX)).0 >= 0
    }

    /// The atom, if the expression is just one.
    fn as_atom(&self) -> Option<&Atom> {
        match self.terms.as_slice() {
            [(m, 1)] => match m.as_slice() {
                [a] => Some(a),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value under `bind`; `None` for an unbound symbol, a division by zero or an overflow.
    pub fn eval(&self, bind: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        let mut sum = 0i64;
        for (m, c) in &self.terms {
            let mut p = *c;
            for a in m {
                p = p.checked_mul(a.eval(bind)?)?;
            }
            sum = sum.checked_add(p)?;
        }
        Some(sum)
    }

    /// Replaces symbols by expressions.
    #[must_use]
    pub fn subst(&self, f: &dyn Fn(&str) -> Option<DimExpr>) -> DimExpr {
        let mut sum = DimExpr::default();
        for (m, c) in &self.terms {
            let mut p = DimExpr::from(*c);
            for a in m {
                p = p * a.subst(f);
            }
            sum = sum + p;
        }
        sum
    }

    /// Lower and upper bound when each symbol `s` lies in `range(s)`; saturating.
    pub fn bounds(&self, range: &dyn Fn(&str) -> (i64, i64)) -> (i64, i64) {
        let (mut lo, mut hi) = (0i64, 0i64);
        for (m, c) in &self.terms {
            let mut r = (*c, *c);
            for a in m {
                r = mul_range(r, a.bounds(range));
            }
            lo = lo.saturating_add(r.0);
            hi = hi.saturating_add(r.1);
        }
        (lo, hi)
    }

    /// Number of coefficients and factors, those of nested expressions included.
    pub fn size(&self) -> usize {
        let factors = self.terms.iter().flat_map(|(m, _)| m);
        let inner = factors.map(|a| 1 + a.operands().map(DimExpr::size).sum::<usize>());
        self.terms.len() + inner.sum::<usize>()
    }

    /// Calls `f` with the name of every symbol that occurs.
    pub fn visit_syms(&self, f: &mut dyn FnMut(&str)) {
        for a in self.terms.iter().flat_map(|(m, _)| m) {
            match a {
                Atom::Sym(s) => f(s),
                _ => a.operands().for_each(|e| e.visit_syms(f)),
            }
        }
    }

    /// The product of `dims`; 1 when there are none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a DimExpr>) -> DimExpr {
        dims.into_iter()
            .fold(DimExpr::from(1), |p, d| p * d.clone())
    }
}

fn mul_range(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    let p = [
        a.0.saturating_mul(b.0),
        a.0.saturating_mul(b.1),
        a.1.saturating_mul(b.0),
        a.1.saturating_mul(b.1),
    ];
    // INVARIANT: the array is not empty.
    (*p.iter().min().unwrap_or(&0), *p.iter().max().unwrap_or(&0))
}

impl From<i64> for DimExpr {
    fn from(v: i64) -> Self {
        DimExpr::from_terms([(Vec::new(), v)])
    }
}

impl Add for DimExpr {
    type Output = DimExpr;
    fn add(self, o: DimExpr) -> DimExpr {
        DimExpr::from_terms(self.terms.into_iter().chain(o.terms))
    }
}

impl Sub for DimExpr {
    type Output = DimExpr;
    fn sub(self, o: DimExpr) -> DimExpr {
        let neg = o.terms.into_iter().map(|(m, c)| (m, c.saturating_neg()));
        DimExpr::from_terms(self.terms.into_iter().chain(neg))
    }
}

impl Mul for DimExpr {
    type Output = DimExpr;
    fn mul(self, o: DimExpr) -> DimExpr {
        let mut out = Vec::new();
        for (ma, ca) in &self.terms {
            for (mb, cb) in &o.terms {
                let mono = ma.iter().chain(mb).cloned().collect();
                out.push((mono, ca.saturating_mul(*cb)));
            }
        }
        DimExpr::from_terms(out)
    }
}

impl Add for &DimExpr {
    type Output = DimExpr;
    fn add(self, o: &DimExpr) -> DimExpr {
        self.clone() + o.clone()
    }
}

impl Sub for &DimExpr {
    type Output = DimExpr;
    fn sub(self, o: &DimExpr) -> DimExpr {
        self.clone() - o.clone()
    }
}

impl Mul for &DimExpr {
    type Output = DimExpr;
    fn mul(self, o: &DimExpr) -> DimExpr {
        self.clone() * o.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: &str) -> DimExpr {
        DimExpr::sym(n)
    }

    #[test]
    fn polynomials_are_canonical() {
        let a = (s("b") + DimExpr::from(2)) * (s("s") - DimExpr::from(1));
        assert_eq!(a.to_string(), "-b + b*s + 2*s - 2");
        assert_eq!(a.clone() - a, DimExpr::from(0));
    }

    #[test]
    fn exact_divisions_vanish() {
        let bs = s("b") * s("s") * DimExpr::from(12);
        assert_eq!(
            bs.floor_div(&(s("s") * DimExpr::from(4))).to_string(),
            "3*b"
        );
        assert_eq!(bs.modulo(&s("b")), DimExpr::from(0));
        assert_eq!(
            DimExpr::from(-7).floor_div(&DimExpr::from(2)),
            DimExpr::from(-4)
        );
        assert_eq!(
            DimExpr::from(7).floor_div(&DimExpr::from(-2)),
            DimExpr::from(-4)
        );
    }

    #[test]
    fn evaluates_and_reports_what_it_cannot() {
        let e = (s("s") + DimExpr::from(3)).floor_div(&DimExpr::from(4));
        let at = |v: i64| move |n: &str| (n == "s").then_some(v);
        assert_eq!(e.eval(&at(9)), Some(3));
        assert_eq!(e.eval(&|_| None), None);
        assert_eq!(s("s").floor_div(&DimExpr::from(0)).eval(&at(1)), None);
        assert_eq!((s("s") * s("s")).eval(&at(i64::MAX)), None);
    }

    #[test]
    fn min_max_of_comparable_expressions_fold() {
        assert_eq!(s("s").max_with(&(s("s") - DimExpr::from(1))), s("s"));
        assert_eq!(
            s("s").min_with(&(s("s") - DimExpr::from(1))).to_string(),
            "s - 1"
        );
        assert_eq!(s("t").min_with(&s("s")).to_string(), "min(s, t)");
    }

    #[test]
    fn extremes_are_flat_and_hold_what_decides() {
        let (b, t) = (s("b"), s("t"));
        let n = |c: i64| DimExpr::from(c);
        let inner = (&b * &n(256)).max_with(&(&t * &n(4)));
        let all = (&b * &n(768)).max_with(&inner).max_with(&inner);
        assert_eq!(all.to_string(), "max(768*b, 4*t)");
        assert_eq!(all.max_with(&(&t * &n(2))), all);
        assert_eq!(b.min_with(&t).min_with(&n(7)).to_string(), "min(7, b, t)");
        let seven = |_: &str| Some(7);
        assert_eq!(all.eval(&seven), Some(768 * 7));
        assert_eq!(all.bounds(&|_| (1, 2)), (768, 1536));
    }

    #[test]
    fn bounds_contain_the_value() {
        let e = (s("s") + DimExpr::from(3)).floor_div(&DimExpr::from(4)) * s("b");
        let range = |n: &str| if n == "s" { (1, 100) } else { (2, 8) };
        assert_eq!(e.bounds(&range), (2, 200));
    }
}
