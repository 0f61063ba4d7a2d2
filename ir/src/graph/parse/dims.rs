//! Sizes: sums of products over symbols, read into canonical form.
//!
//! What a text can make of a size is bounded: nesting to [`MAX_DEPTH`], and [`MAX_SIZE`] factors
//! in all, because multiplying sums out can make a short text a large expression.

use crate::DimExpr;
use crate::diag::Result;
use crate::text::{Cursor, Pos, Tok, codes};

/// Levels of parentheses, divisions, `min` and `max`.
const MAX_DEPTH: usize = 32;
/// Coefficients and factors of one size.
const MAX_SIZE: usize = 512;
/// What the sizes of two factors may multiply to before terms are merged and counted.
const MAX_PRODUCT: usize = 64 * MAX_SIZE;

/// An expression and how deep its divisions, remainders, minima and maxima are nested.
struct Part {
    e: DimExpr,
    height: usize,
}

/// Reads what [`DimExpr`]'s `Display` writes: sums, products, `//`, `%`, `min` and `max` over
/// numbers and symbols.
impl std::str::FromStr for DimExpr {
    type Err = crate::Diagnostic;

    /// # Errors
    /// `Q03nn` where the text is no size, or one that is too large or nested too deeply.
    fn from_str(text: &str) -> Result<Self> {
        // In brackets `//` divides, elsewhere it begins a comment.
        let mut c = Cursor::new(&format!("[{text}]"));
        let size = c.expect("[").and_then(|()| dim(&mut c)).and_then(|d| {
            c.expect("]")?;
            match c.peek() {
                Tok::End => Ok(d),
                _ => Err(c.expected("the end of the size")),
            }
        })?;
        match c.into_errors().into_iter().next() {
            Some(error) => Err(error),
            None => Ok(size),
        }
    }
}

/// `[dim, dim, …]`
pub(in crate::graph) fn dims(c: &mut Cursor) -> Result<Vec<DimExpr>> {
    c.expect("[")?;
    c.list("]", dim)
}

/// One size.
pub(in crate::graph) fn dim(c: &mut Cursor) -> Result<DimExpr> {
    sum(c, 0).map(|p| p.e)
}

fn checked(pos: Pos, p: Part) -> Result<Part> {
    if p.height > MAX_DEPTH {
        return Err(pos.error(
            codes::DEPTH,
            format!("a size is nested more than {MAX_DEPTH} levels deep"),
        ));
    }
    if p.e.size() > MAX_SIZE {
        return Err(too_large(pos));
    }
    Ok(p)
}

fn too_large(pos: Pos) -> crate::Diagnostic {
    pos.error(
        codes::DEPTH,
        format!("a size multiplies out to more than {MAX_SIZE} factors"),
    )
}

fn sum(c: &mut Cursor, depth: usize) -> Result<Part> {
    let negative = c.eat("-");
    let mut total = term(c, depth, negative)?;
    loop {
        let pos = c.pos();
        let negative = if c.eat("+") {
            false
        } else if c.eat("-") {
            true
        } else {
            return Ok(total);
        };
        let t = term(c, depth, negative)?;
        total = checked(
            pos,
            Part {
                e: total.e + t.e,
                height: total.height.max(t.height),
            },
        )?;
    }
}

/// A product; a minus before it negates all of it.
fn term(c: &mut Cursor, depth: usize, negative: bool) -> Result<Part> {
    // The smallest i64 has no positive counterpart, so it takes its sign at once.
    let smallest = negative && matches!(c.peek(), Tok::Number(n) if *n == MIN_MAGNITUDE);
    let mut p = if smallest {
        c.next();
        Part {
            e: DimExpr::from(i64::MIN),
            height: 0,
        }
    } else {
        factor(c, depth)?
    };
    loop {
        let pos = c.pos();
        let (apply, nests): (fn(&DimExpr, &DimExpr) -> DimExpr, _) = if c.eat("*") {
            (|a, b| a * b, 0)
        } else if c.eat("//") {
            (DimExpr::floor_div, 1)
        } else if c.eat("%") {
            (DimExpr::modulo, 1)
        } else {
            break;
        };
        let r = factor(c, depth)?;
        if nests == 0 && p.e.size().saturating_mul(r.e.size()) > MAX_PRODUCT {
            return Err(too_large(pos));
        }
        p = checked(
            pos,
            Part {
                e: apply(&p.e, &r.e),
                height: p.height.max(r.height) + nests,
            },
        )?;
    }
    if negative && !smallest {
        p.e = &DimExpr::from(0) - &p.e;
    }
    Ok(p)
}

/// `|i64::MIN|`
const MIN_MAGNITUDE: &str = "9223372036854775808";

fn factor(c: &mut Cursor, depth: usize) -> Result<Part> {
    let pos = c.pos();
    if depth > MAX_DEPTH {
        return Err(pos.error(
            codes::DEPTH,
            format!("a size is nested more than {MAX_DEPTH} levels deep"),
        ));
    }
    if c.eat("(") {
        let p = sum(c, depth + 1)?;
        c.expect(")")?;
        return Ok(p);
    }
    let leaf = |e| Ok(Part { e, height: 0 });
    match (c.peek().clone(), c.peek_second()) {
        (Tok::Number(_), _) => leaf(DimExpr::from(c.int::<i64>("a size")?)),
        (Tok::Word(w), Tok::Punct("(")) if w == "min" || w == "max" => {
            c.next();
            c.next();
            let Part { mut e, mut height } = sum(c, depth + 1)?;
            c.expect(",")?;
            loop {
                let next = sum(c, depth + 1)?;
                e = match w.as_str() {
                    "min" => e.min_with(&next.e),
                    _ => e.max_with(&next.e),
                };
                Part { e, height } = checked(
                    pos,
                    Part {
                        e,
                        height: height.max(next.height),
                    },
                )?;
                if !c.eat(",") {
                    break;
                }
            }
            c.expect(")")?;
            let height = height + 1;
            checked(pos, Part { e, height })
        }
        (Tok::Word(s) | Tok::Str(s), _) => {
            c.next();
            leaf(DimExpr::sym(s))
        }
        _ => Err(c.expected("a size")),
    }
}

#[cfg(test)]
mod tests {
    use crate::DimExpr;

    #[test]
    fn what_is_printed_is_read_and_nothing_else() {
        for text in [
            "0",
            "n",
            "-3",
            "512*((128*n + 255)//256)",
            "(b*s + 3)//4 - min(b, s)%7",
        ] {
            let size: DimExpr = text.parse().unwrap();
            assert_eq!(size.to_string().parse::<DimExpr>().unwrap(), size, "{text}");
        }
        for bad in ["", "n +", "n]", "1] + [2", "n // c", "n, m", "&"] {
            assert!(bad.parse::<DimExpr>().is_err(), "{bad}");
        }
    }
}
