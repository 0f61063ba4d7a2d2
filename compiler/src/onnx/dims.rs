//! Symbols of a model's shapes, and what the importer finds out about them.
//!
//! A model declares input dimensions as numbers, names or nothing. Names become symbols; a name
//! that reads as a sum or product (`past + seq`) becomes that expression. While importing, two
//! dimensions may have to be equal, or a slice may have to stay within a table: such facts are
//! [`Assumption`]s, which narrow the symbols that the compiled model accepts.

use std::collections::BTreeMap;

use qcc_ir::DimExpr;
use qcc_ir::graph::Symbol;

/// Largest size of a dimension about which nothing is known.
const MAX_SIZE: i64 = 65_536;

/// Occurrences of symbols in one dimension, and in the product of all dimensions of a tensor.
const COMPLEXITY: (usize, usize) = (64, 4096);
/// Dimensions of one tensor.
pub(super) const MAX_RANK: usize = 32;

/// Whether expressions are small enough to be multiplied with each other.
///
/// Sums grow exponentially when they are multiplied again and again, so those of a tensor's
/// dimensions must stay small.
pub(super) fn are_simple(shape: &[DimExpr]) -> bool {
    let mut product = 1usize;
    let fits = shape.iter().all(|dim| {
        let mut symbols = 0usize;
        dim.visit_syms(&mut |_| symbols += 1);
        product = product.saturating_mul(symbols.max(1));
        symbols <= COMPLEXITY.0 && product <= COMPLEXITY.1
    });
    fits && shape.len() <= MAX_RANK
}

/// A fact about the inputs that must hold for the model to make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Assumption {
    /// The symbol is at most this.
    AtMost(String, i64),
    /// The symbol is this.
    Equal(String, DimExpr),
}

impl std::fmt::Display for Assumption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Assumption::AtMost(symbol, limit) => write!(f, "{symbol} is at most {limit}"),
            Assumption::Equal(symbol, value) => write!(f, "{symbol} is equal to {value}"),
        }
    }
}

/// The symbols of one model with their ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct Dims {
    equal: BTreeMap<String, DimExpr>,
    ranges: BTreeMap<String, (i64, i64)>,
    points: BTreeMap<String, Vec<u64>>,
    order: Vec<String>,
}

impl Dims {
    /// Symbols with their ranges given by the caller and narrowed by assumptions.
    pub(super) fn new(given: &[Symbol], assumptions: &[Assumption]) -> Dims {
        let clamp = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        let mut dims = Dims::default();
        for symbol in given {
            let range = (clamp(symbol.min), clamp(symbol.max));
            dims.ranges.insert(symbol.name.clone(), range);
            dims.points
                .insert(symbol.name.clone(), symbol.points.clone());
        }
        for assumption in assumptions {
            match assumption {
                Assumption::AtMost(name, limit) => {
                    let (lo, hi) = dims.range(name);
                    let hi = hi.min(*limit);
                    dims.ranges.insert(name.clone(), (lo.min(hi), hi));
                }
                Assumption::Equal(name, value) => {
                    dims.equal.insert(name.clone(), value.clone());
                }
            }
        }
        dims
    }

    fn range(&self, name: &str) -> (i64, i64) {
        self.ranges.get(name).copied().unwrap_or((1, MAX_SIZE))
    }

    /// The symbol called `name`, or what it is known to be equal to.
    fn symbol(&mut self, name: &str) -> DimExpr {
        let mut value = DimExpr::sym(name);
        // Equalities are acyclic (the right side is an earlier symbol), so this ends; the bound
        // is for safety.
        for _ in 0..=self.equal.len() {
            value = value.subst(&|s| self.equal.get(s).cloned());
        }
        value.visit_syms(&mut |s| {
            if !self.order.iter().any(|o| o == s) {
                self.order.push(s.to_string());
            }
        });
        value
    }

    /// The dimension that a model writes as the name `text`.
    pub(super) fn parse(&mut self, text: &str) -> DimExpr {
        let word = |s: &str| {
            s.chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
                && (s.parse::<u32>().is_ok()
                    || s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        };
        if !text.split(['+', '*']).all(|part| word(part.trim())) {
            return self.symbol(&plain_name(text));
        }
        let product = |dims: &mut Dims, term: &str| {
            term.split('*').fold(DimExpr::from(1), |product, factor| {
                let factor = factor.trim();
                product
                    * match factor.parse::<u32>() {
                        Ok(number) => DimExpr::from(i64::from(number)),
                        Err(_) => dims.symbol(factor),
                    }
            })
        };
        text.split('+')
            .fold(DimExpr::default(), |sum, term| sum + product(self, term))
    }

    /// The dimension `axis` of the input `name`, about which the model says nothing.
    pub(super) fn unnamed(&mut self, name: &str, axis: usize) -> DimExpr {
        self.symbol(&plain_name(&format!("{name}.{axis}")))
    }

    /// Bounds of an expression over the declared ranges.
    pub(super) fn bounds(&self, e: &DimExpr) -> (i64, i64) {
        e.bounds(&|s| self.range(s))
    }

    /// Whether `a ≤ b` always holds, never holds, or is not known.
    pub(super) fn at_most(&self, a: &DimExpr, b: &DimExpr) -> Option<bool> {
        let (lo, hi) = self.bounds(&(b - a));
        match (lo >= 0, hi < 0) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        }
    }

    /// Whether `a = b` always holds, never holds, or is not known.
    pub(super) fn equal(&self, a: &DimExpr, b: &DimExpr) -> Option<bool> {
        let diff = a - b;
        if diff.as_const() == Some(0) {
            return Some(true);
        }
        let (lo, hi) = self.bounds(&diff);
        (lo > 0 || hi < 0).then_some(false)
    }

    /// The smaller of two, simplified by the ranges.
    pub(super) fn min(&self, a: &DimExpr, b: &DimExpr) -> DimExpr {
        match self.at_most(a, b) {
            Some(true) => a.clone(),
            Some(false) => b.clone(),
            None if self.at_most(b, a) == Some(true) => b.clone(),
            None => a.min_with(b),
        }
    }

    /// The larger of two, simplified by the ranges.
    pub(super) fn max(&self, a: &DimExpr, b: &DimExpr) -> DimExpr {
        match self.at_most(a, b) {
            Some(true) => b.clone(),
            Some(false) => a.clone(),
            None if self.at_most(b, a) == Some(true) => a.clone(),
            None => a.max_with(b),
        }
    }

    /// What must be assumed for two dimensions to be equal; `None` if nothing makes them so.
    pub(super) fn make_equal(&self, a: &DimExpr, b: &DimExpr) -> Option<Assumption> {
        if self.equal(a, b) == Some(false) {
            return None;
        }
        for (x, y) in [(a, b), (b, a)] {
            // min(s, n) against s: the model reads a table of n rows.
            if let Some(s) = x.as_sym() {
                let (_, hi) = self.bounds(y);
                let limited = DimExpr::from(hi);
                if *y == x.min_with(&limited) {
                    return Some(Assumption::AtMost(s.to_string(), hi));
                }
            }
        }
        let place = |e: &DimExpr| {
            e.as_sym()
                .and_then(|s| self.order.iter().position(|o| o == s))
        };
        // The later symbol is replaced by the earlier one, or by the number.
        let (symbol, value) = match (place(a), place(b)) {
            (Some(i), Some(j)) if i < j => (j, a),
            (Some(i), Some(_)) => (i, b),
            (Some(i), None) if b.as_const().is_some() => (i, b),
            (None, Some(j)) if a.as_const().is_some() => (j, a),
            _ => return None,
        };
        Some(Assumption::Equal(self.order[symbol].clone(), value.clone()))
    }

    /// How many symbols there are.
    pub(super) fn count(&self) -> usize {
        self.order.len()
    }

    /// The symbols in the order in which the inputs mention them.
    pub(super) fn symbols(&self) -> Vec<Symbol> {
        let size = |v: i64| u64::try_from(v).unwrap_or(0);
        self.order
            .iter()
            .map(|name| {
                let (lo, hi) = self.range(name);
                let points = self.points.get(name).into_iter().flatten().copied();
                Symbol {
                    name: name.clone(),
                    min: size(lo),
                    max: size(hi),
                    points: points.filter(|&p| p <= size(hi)).collect(),
                }
            })
            .collect()
    }
}

/// A name that the text form writes without quotes.
fn plain_name(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '_'
            }
        })
        .collect();
    match name.chars().next() {
        Some(c) if c.is_ascii_alphabetic() || c == '_' => name,
        _ => format!("_{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(v: i64) -> DimExpr {
        DimExpr::from(v)
    }

    fn symbol(name: &str, max: u64) -> Symbol {
        Symbol {
            name: name.into(),
            min: 1,
            max,
            points: vec![1, 256],
        }
    }

    #[test]
    fn names_that_are_sums_become_sums() {
        let mut dims = Dims::default();
        assert_eq!(dims.parse("past + seq").to_string(), "past + seq");
        assert_eq!(dims.parse("2*seq"), c(2) * DimExpr::sym("seq"));
        assert_eq!(dims.parse("floor(seq/2)").to_string(), "floor_seq_2_");
        assert_eq!(dims.parse("s72").to_string(), "s72");
        assert_eq!(dims.unnamed("image", 0).to_string(), "image.0");
        let names: Vec<String> = dims.symbols().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["past", "seq", "floor_seq_2_", "s72", "image.0"]);
    }

    #[test]
    fn ranges_decide_comparisons() {
        let mut dims = Dims::new(&[symbol("s", 128)], &[]);
        let s = dims.parse("s");
        assert_eq!(dims.min(&s, &c(128)), s);
        assert_eq!(dims.min(&s, &c(64)).to_string(), "min(64, s)");
        assert_eq!(dims.max(&s, &c(0)), s);
        assert_eq!(dims.equal(&s, &c(-1)), Some(false));
        assert_eq!(dims.equal(&s, &c(1)), None);
    }

    #[test]
    fn assumptions_narrow_symbols() {
        let mut dims = Dims::default();
        let (s, t) = (dims.parse("s"), dims.parse("t"));
        let short = s.min_with(&c(128));
        let at_most = Assumption::AtMost("s".into(), 128);
        assert_eq!(dims.make_equal(&short, &s), Some(at_most.clone()));
        let equal = Assumption::Equal("t".into(), s.clone());
        assert_eq!(dims.make_equal(&t, &s), Some(equal.clone()));
        assert_eq!(dims.make_equal(&s, &t), Some(equal.clone()));
        assert_eq!(dims.make_equal(&s, &c(-3)), None);
        assert_eq!(
            dims.make_equal(&s, &c(3)),
            Some(Assumption::Equal("s".into(), c(3)))
        );

        let mut dims = Dims::new(&[symbol("s", 512)], &[at_most, equal]);
        assert_eq!(dims.parse("t"), s);
        assert_eq!(dims.bounds(&s), (1, 128));
        assert_eq!(dims.symbols()[0].points, [1], "256 is out of range now");
    }
}
