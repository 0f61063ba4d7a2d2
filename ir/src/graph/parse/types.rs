//! Types: a plain format or a quantization scheme, and a shape.

use super::dims;
use crate::diag::Result;
use crate::format::{Block, BlockShape, DType, PowerRound};
use crate::graph::types::{Elem, QuantType, ScaleType, TensorType};
use crate::text::{Cursor, Tok, codes};

/// `f32[n, 8]` or `q<e4m3, [1, *], scale=f32>[n, 8]`
pub(super) fn tensor_type(c: &mut Cursor) -> Result<TensorType> {
    let elem = if c.at_word("q") && *c.peek_second() == Tok::Punct("<") {
        Elem::Quant(quant_type(c)?)
    } else {
        Elem::Plain(dtype(c)?)
    };
    let shape = dims(c)?;
    Ok(TensorType { elem, shape })
}

/// The name of a number format.
pub(super) fn dtype(c: &mut Cursor) -> Result<DType> {
    let pos = c.pos();
    let name = c.word("a number format")?;
    name.parse().map_err(|e: crate::format::UnknownDType| {
        let all: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
        pos.error(codes::FORMAT, e.to_string())
            .hint(format!("the formats are {}", all.join(", ")))
    })
}

fn quant_type(c: &mut Cursor) -> Result<QuantType> {
    c.expect_word("q")?;
    c.expect("<")?;
    let storage = dtype(c)?;
    c.expect(",")?;
    c.expect("[")?;
    let block = BlockShape(c.list("]", block)?);
    c.expect(",")?;
    let scale = scale_type(c)?;
    let mut q = QuantType {
        storage,
        block,
        scale,
        zero: None,
        dynamic: false,
        narrow: false,
    };
    while c.eat(",") {
        if q.zero.is_none() && c.eat_word("zero") {
            c.expect("=")?;
            q.zero = Some(dtype(c)?);
        } else if !q.dynamic && c.eat_word("dynamic") {
            q.dynamic = true;
        } else if !q.narrow && c.eat_word("narrow") {
            q.narrow = true;
        } else {
            return Err(c.expected("`zero=`, `dynamic` or `narrow`, each once"));
        }
    }
    c.expect(">")?;
    Ok(q)
}

/// `scale=f32`, `scale=e4m3/f32`, `scale=e8m0 floor` or `table=f32`
fn scale_type(c: &mut Cursor) -> Result<ScaleType> {
    if c.eat_word("table") {
        c.expect("=")?;
        return dtype(c).map(ScaleType::Table);
    }
    c.expect_word("scale")?;
    c.expect("=")?;
    let first = dtype(c)?;
    if c.eat("/") {
        return Ok(ScaleType::TwoLevel(first, dtype(c)?));
    }
    let named = PowerRound::ALL
        .into_iter()
        .find(|r| first == DType::E8M0 && c.eat_word(r.name()));
    Ok(named.map_or(ScaleType::Plain(first), ScaleType::Power))
}

fn block(c: &mut Cursor) -> Result<Block> {
    if c.eat("*") {
        Ok(Block::All)
    } else {
        c.int("`*` or a block extent").map(Block::Fixed)
    }
}
