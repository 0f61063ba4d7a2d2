//! Scalar expressions of fusion skeletons.

use super::types::dtype;
use crate::diag::Result;
use crate::expr::{BinaryFn, Expr, Node, NodeId, Store, UnaryFn};
use crate::text::{Cursor, Tok, codes};
use std::collections::HashMap;

/// `{ t0 = acc0; t1 = gelu t0; store t1 }`
pub(in crate::graph) fn expr(c: &mut Cursor) -> Result<Expr> {
    c.expect("{")?;
    let mut e = Expr::default();
    let mut names = HashMap::new();
    while !c.eat("}") {
        if c.eat_word("store") {
            let s = store(c, &names)?;
            e.stores.push(s);
        } else {
            let name = c.word("a step, `store` or `}`")?;
            c.expect("=")?;
            let n = node(c, &names)?;
            names.insert(name, NodeId(e.nodes.len() as u32));
            e.nodes.push(n);
        }
        if !c.eat(";") {
            c.expect("}")?;
            break;
        }
    }
    Ok(e)
}

type Names = HashMap<String, NodeId>;

fn store(c: &mut Cursor, names: &Names) -> Result<Store> {
    let value = step(c, names)?;
    let mut param = |word: &str| -> Result<Option<u8>> {
        if c.eat_word(word) {
            input(c).map(Some)
        } else {
            Ok(None)
        }
    };
    Ok(Store {
        value,
        scale: param("scale")?,
        zero: param("zero")?,
    })
}

/// `in4`
fn input(c: &mut Cursor) -> Result<u8> {
    let Tok::Word(w) = c.peek().clone() else {
        return Err(c.expected("an operand such as `in2`"));
    };
    let Some(i) = numbered(&w, "in") else {
        return Err(c.expected("an operand such as `in2`"));
    };
    c.next();
    Ok(i)
}

/// The number after a prefix, written without leading zeros.
fn numbered(w: &str, prefix: &str) -> Option<u8> {
    let digits = w.strip_prefix(prefix)?;
    let n: u8 = digits.parse().ok()?;
    (n.to_string() == digits).then_some(n)
}

fn step(c: &mut Cursor, names: &Names) -> Result<NodeId> {
    let pos = c.pos();
    let name = c.word("a step")?;
    names.get(&name).copied().ok_or_else(|| {
        pos.error(
            codes::STEP,
            format!("no step `{name}` stands before this one"),
        )
    })
}

fn node(c: &mut Cursor, names: &Names) -> Result<Node> {
    let pos = c.pos();
    let word = match c.peek().clone() {
        Tok::Word(w) if w != "inf" => w,
        _ => return number(c),
    };
    c.next();
    if let Some(i) = numbered(&word, "acc") {
        return Ok(Node::Acc(i));
    }
    if let Some(i) = numbered(&word, "in") {
        return Ok(Node::Input(i));
    }
    if let Some(f) = UnaryFn::from_name(&word) {
        return Ok(Node::Unary(f, step(c, names)?));
    }
    let next = |c: &mut Cursor| {
        c.expect(",")?;
        step(c, names)
    };
    if let Some(f) = BinaryFn::from_name(&word) {
        return Ok(Node::Binary(f, step(c, names)?, next(c)?));
    }
    match word.as_str() {
        "select" => Ok(Node::Select(step(c, names)?, next(c)?, next(c)?)),
        "cast" => {
            let d = dtype(c)?;
            Ok(Node::Cast(d, step(c, names)?))
        }
        _ => Err(pos.error(codes::STEP, format!("no function `{word}`"))),
    }
}

/// An integer, or a float if it is written as one.
fn number(c: &mut Cursor) -> Result<Node> {
    let operand = if matches!(c.peek(), Tok::Punct("-")) {
        c.peek_second()
    } else {
        c.peek()
    };
    match operand {
        Tok::Number(n) if n.bytes().all(|b| b.is_ascii_digit()) => {
            c.int("an i64").map(Node::ConstI64)
        }
        Tok::Number(_) | Tok::Word(_) => c.f32_bits().map(Node::ConstF32),
        _ => Err(c.expected("a number or a function")),
    }
}
