//! The parser of the text form `.qir`: the inverse of the printer.
//!
//! ```text
//! module  = "qir" "1" { symbol | weight | func }
//! symbol  = "dim" ident "=" int ".." int [ "@" int { "," int } ]
//! weight  = "weight" @name ":" format "[" [ int { "," int } ] "]" "=" data
//! data    = "extern" | "splat" "(" num ")" | "normal" "(" int "," num ")" | "[" num { "," num } "]"
//! func    = "func" @name "(" params ")" "->" "(" results ")" "{" { op } return "}"
//! params  = [ %name ":" type { "," %name ":" type } ]
//! results = [ ident ":" type { "," ident ":" type } ]            the names that callers know
//! return  = "return" [ %name { "," %name } ]                     one value for each of results
//! op      = %name ":" type { "," %name ":" type } "=" word operands [ attrs ] [ loc ]
//! operands= [ %name { "," %name } ]       of "const":  @codes [ "," @scale [ "," @zero ] ]
//! attrs   = "{" attr { "," attr } "}"     attr = word [ "=" value ]       see `attrs.rs`
//! loc     = "@" string { "," string }                            source nodes
//! type    = elem "[" [ dim { "," dim } ] "]"
//! elem    = format | "q" "<" format "," block "," "scale" "=" format [ "/" format ]
//!           [ "," "zero" "=" format ] [ "," "dynamic" ] [ "," "narrow" ] ">"
//! block   = "[" [ ( "*" | int ) { "," … } ] "]"
//! dim     = [ "-" ] term { ( "+" | "-" ) term }        term = factor { ( "*" | "//" | "%" ) factor }
//! factor  = int | ident | ( "min" | "max" ) "(" dim "," dim ")" | "(" dim ")"
//! expr    = "{" { step ";" } store { ";" store } "}"
//! step    = word "=" ( "acc0" | "in3" | num | function word { "," word } | "cast" format word )
//! store   = "store" word [ "scale" "in4" ] [ "zero" "in5" ]
//! ```
//!
//! An integer is an `int` step and a number with a point, an exponent, `inf` or bits is a float
//! one. A minus before a term negates the whole term. An op begins a line; otherwise line ends
//! mean nothing, except that after an error the parser goes on at the next line. Names are looked
//! up per function, so an operand may stand before its definition: that is for the verifier to
//! refuse. In brackets, a division is written without a space after it (`n//2`).

mod dims;
mod expr;
mod func;
mod types;

pub(super) use dims::{dim, dims};
pub(super) use expr::expr;

use super::module::{Module, Symbol, Weight, WeightData, WeightId};
use crate::diag::{Diagnostic, Result};
use crate::text::{Cursor, Tok, codes};
use std::collections::HashMap;

/// Reads a module; it still has to be verified.
///
/// # Errors
/// Every error found (`Q03nn`), in the order of the text, each at its `line:column`.
pub fn parse(text: &str) -> Result<Module, Vec<Diagnostic>> {
    let mut c = Cursor::new(text);
    let mut m = Module::default();
    match version(&mut c) {
        Ok(()) => items(&mut c, &mut m),
        Err(d) => c.report(d),
    }
    let errors = c.into_errors();
    if errors.is_empty() {
        Ok(m)
    } else {
        Err(errors)
    }
}

fn version(c: &mut Cursor) -> Result<()> {
    let pos = c.pos();
    let hint = "begin the text with the line `qir 1`";
    let wrong = |what: &str| pos.error(codes::VERSION, what).hint(hint);
    if !c.eat_word("qir") {
        return Err(wrong("this is no graph IR text"));
    }
    match c.int::<u32>("a version") {
        Ok(1) => Ok(()),
        Ok(v) => Err(wrong(&format!(
            "version {v} of the text form is not read, only 1"
        ))),
        Err(_) => Err(wrong("the version is missing")),
    }
}

/// Weights by name; of two with one name the first, the verifier reports them.
type Weights = HashMap<String, WeightId>;

fn items(c: &mut Cursor, m: &mut Module) {
    let mut weights = Weights::new();
    while *c.peek() != Tok::End && !c.gives_up() {
        let mark = c.mark();
        let done = match c.peek() {
            Tok::Word(w) if w == "dim" => symbol(c).map(|s| m.symbols.push(s)),
            Tok::Word(w) if w == "weight" => weight(c).map(|w| {
                let id = WeightId(m.weights.len() as u32);
                weights.entry(w.name.clone()).or_insert(id);
                m.weights.push(w);
            }),
            Tok::Word(w) if w == "func" => func::func(c, &weights).map(|f| m.funcs.push(f)),
            _ => Err(c.expected("`dim`, `weight` or `func`")),
        };
        if let Err(d) = done {
            c.report(d);
            // A weight that could not be read is no further error where it is used.
            let names = c.recover(mark, begins_item).0;
            weights.extend(names.into_iter().map(|n| (n, WeightId(0))));
        }
    }
}

/// Whether a line that begins so is no line of a function.
fn begins_item(t: &Tok) -> bool {
    matches!(t, Tok::Word(w) if w != "return")
}

fn symbol(c: &mut Cursor) -> Result<Symbol> {
    c.expect_word("dim")?;
    let name = c.ident("the name of a symbol")?;
    c.expect("=")?;
    let min = c.int("a size")?;
    c.expect("..")?;
    let max = c.int("a size")?;
    let mut points = Vec::new();
    if c.eat("@") {
        points.push(c.int("a size")?);
        while c.eat(",") {
            points.push(c.int("a size")?);
        }
    }
    Ok(Symbol {
        name,
        min,
        max,
        points,
    })
}

fn weight(c: &mut Cursor) -> Result<Weight> {
    c.expect_word("weight")?;
    let name = c.global("the name of the weight, `@name`")?;
    c.expect(":")?;
    let dtype = types::dtype(c)?;
    c.expect("[")?;
    let dims = c.list("]", |c| c.int("a size"))?;
    c.expect("=")?;
    let data = weight_data(c)?;
    Ok(Weight {
        name,
        dtype,
        dims,
        data,
    })
}

fn weight_data(c: &mut Cursor) -> Result<WeightData> {
    if c.eat("[") {
        return Ok(WeightData::List(c.list("]", Cursor::f64_bits)?));
    }
    if c.eat_word("extern") {
        return Ok(WeightData::Extern);
    }
    if c.eat_word("splat") {
        c.expect("(")?;
        let v = c.f64_bits()?;
        c.expect(")")?;
        return Ok(WeightData::Splat(v));
    }
    if c.eat_word("normal") {
        c.expect("(")?;
        let seed = c.int("a seed")?;
        c.expect(",")?;
        let std = c.f64_bits()?;
        c.expect(")")?;
        return Ok(WeightData::Normal(seed, std));
    }
    Err(c.expected("`extern`, `splat(…)`, `normal(…)` or a list"))
}
