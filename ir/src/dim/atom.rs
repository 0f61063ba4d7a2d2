//! Factors of a dimension that are not numbers.

use super::DimExpr;

/// A factor that is not a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Atom {
    Sym(String),
    FloorDiv(Box<DimExpr>, Box<DimExpr>),
    Mod(Box<DimExpr>, Box<DimExpr>),
    Min(Vec<DimExpr>),
    Max(Vec<DimExpr>),
}

/// `⌊a / b⌋`; `None` for a division by zero or an overflow.
pub(super) fn floor_div(a: i64, b: i64) -> Option<i64> {
    let q = a.checked_div(b)?;
    Some(q - i64::from(a % b != 0 && (a < 0) != (b < 0)))
}

/// What minima and maxima differ in.
pub(super) struct Extreme {
    /// The operands, if the atom is of this kind.
    pub(super) operands: fn(&Atom) -> Option<&[DimExpr]>,
    pub(super) atom: fn(Vec<DimExpr>) -> Atom,
    /// Whether the first makes the second redundant.
    pub(super) decides: fn(&DimExpr, &DimExpr) -> bool,
}

impl Extreme {
    pub(super) const MIN: Extreme = Extreme {
        operands: |a| match a {
            Atom::Min(list) => Some(list),
            _ => None,
        },
        atom: Atom::Min,
        decides: |a, b| b.covers(a),
    };
    pub(super) const MAX: Extreme = Extreme {
        operands: |a| match a {
            Atom::Max(list) => Some(list),
            _ => None,
        },
        atom: Atom::Max,
        decides: |a, b| a.covers(b),
    };
}

impl Atom {
    /// The expressions in it.
    pub(super) fn operands(&self) -> impl Iterator<Item = &DimExpr> {
        let (pair, list) = match self {
            Atom::Sym(_) => (None, &[][..]),
            Atom::FloorDiv(a, b) | Atom::Mod(a, b) => (Some([&**a, &**b]), &[][..]),
            Atom::Min(list) | Atom::Max(list) => (None, &list[..]),
        };
        pair.into_iter().flatten().chain(list)
    }

    pub(super) fn eval(&self, bind: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        match self {
            Atom::Sym(s) => bind(s),
            Atom::FloorDiv(a, b) => floor_div(a.eval(bind)?, b.eval(bind)?),
            Atom::Mod(a, b) => {
                let (a, b) = (a.eval(bind)?, b.eval(bind)?);
                a.checked_sub(b.checked_mul(floor_div(a, b)?)?)
            }
            Atom::Min(list) => list
                .iter()
                .try_fold(i64::MAX, |least, e| Some(least.min(e.eval(bind)?))),
            Atom::Max(list) => list
                .iter()
                .try_fold(i64::MIN, |most, e| Some(most.max(e.eval(bind)?))),
        }
    }

    pub(super) fn subst(&self, f: &dyn Fn(&str) -> Option<DimExpr>) -> DimExpr {
        match self {
            Atom::Sym(s) => f(s).unwrap_or_else(|| DimExpr::sym(s.clone())),
            Atom::FloorDiv(a, b) => a.subst(f).floor_div(&b.subst(f)),
            Atom::Mod(a, b) => a.subst(f).modulo(&b.subst(f)),
            Atom::Min(list) => DimExpr::extreme(list.iter().map(|e| e.subst(f)), &Extreme::MIN),
            Atom::Max(list) => DimExpr::extreme(list.iter().map(|e| e.subst(f)), &Extreme::MAX),
        }
    }

    pub(super) fn bounds(&self, range: &dyn Fn(&str) -> (i64, i64)) -> (i64, i64) {
        match self {
            Atom::Sym(s) => range(s),
            Atom::Min(list) => {
                let all = list.iter().map(|e| e.bounds(range));
                all.fold((i64::MAX, i64::MAX), |a, b| (a.0.min(b.0), a.1.min(b.1)))
            }
            Atom::Max(list) => {
                let all = list.iter().map(|e| e.bounds(range));
                all.fold((i64::MIN, i64::MIN), |a, b| (a.0.max(b.0), a.1.max(b.1)))
            }
            Atom::FloorDiv(a, b) => {
                let (a, b) = (a.bounds(range), b.bounds(range));
                if b.0 <= 0 || a.0 < 0 {
                    return (i64::MIN, i64::MAX);
                }
                (a.0 / b.1, a.1 / b.0)
            }
            Atom::Mod(a, b) => {
                let (a, b) = (a.bounds(range), b.bounds(range));
                if b.0 <= 0 || a.0 < 0 {
                    return (i64::MIN, i64::MAX);
                }
                (0, (b.1 - 1).min(a.1))
            }
        }
    }
}
