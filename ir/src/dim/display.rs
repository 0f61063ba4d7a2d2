//! The text form of a dimension: `2*b*s + 3`, `(s + 3)//4`, `max(768*b, 4*t)`.

use super::DimExpr;
use super::atom::Atom;
use crate::text::Ident;
use std::fmt;

impl fmt::Display for DimExpr {
    /// Variable terms first, the constant last: `2*b*s + 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (consts, vars): (Vec<_>, Vec<_>) = self.terms.iter().partition(|(m, _)| m.is_empty());
        let mut first = true;
        for (m, c) in vars.into_iter().chain(consts) {
            let sign = match (first, *c < 0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            f.write_str(sign)?;
            first = false;
            let abs = c.unsigned_abs();
            if m.is_empty() {
                write!(f, "{abs}")?;
                continue;
            }
            if abs != 1 {
                write!(f, "{abs}*")?;
            }
            for (i, a) in m.iter().enumerate() {
                if i > 0 {
                    f.write_str("*")?;
                }
                // A quotient or remainder is a factor of its own only inside parentheses.
                let wrap =
                    (m.len() > 1 || abs != 1) && matches!(a, Atom::FloorDiv(..) | Atom::Mod(..));
                if wrap {
                    write!(f, "({a})")?;
                } else {
                    write!(f, "{a}")?;
                }
            }
        }
        if first {
            f.write_str("0")?;
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrap = |e: &DimExpr| match e.terms.as_slice() {
            [] => e.to_string(),
            [(m, c)] if (m.is_empty() && *c >= 0) || e.as_sym().is_some() => e.to_string(),
            _ => format!("({e})"),
        };
        match self {
            Atom::Sym(s) => write!(f, "{}", Ident(s)),
            Atom::FloorDiv(a, b) => write!(f, "{}//{}", wrap(a), wrap(b)),
            Atom::Mod(a, b) => write!(f, "{} % {}", wrap(a), wrap(b)),
            Atom::Min(list) => write!(f, "min({})", Join(list)),
            Atom::Max(list) => write!(f, "max({})", Join(list)),
        }
    }
}

/// Prints `a, b, c`.
struct Join<'a>(&'a [DimExpr]);

impl fmt::Display for Join<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{e}")?;
        }
        Ok(())
    }
}
