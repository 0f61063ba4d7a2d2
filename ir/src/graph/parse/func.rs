//! Functions: signature, ops, return.
//!
//! Ops are read first and their operands looked up afterwards, when every name is known.

use super::Weights;
use super::types::tensor_type;
use crate::diag::Result;
use crate::graph::attrs::{attrs, prototype};
use crate::graph::module::{Def, Func, Loc, Op, OpId, Value, ValueId, WeightId};
use crate::graph::op::OpKind;
use crate::graph::types::TensorType;
use crate::text::{Cursor, Name, Pos, Tok, codes};
use std::collections::{HashMap, HashSet};

/// A name in the text.
type Use = (String, Pos);

struct RawOp {
    results: Vec<(String, TensorType)>,
    kind: OpKind,
    operands: Vec<Use>,
    loc: Loc,
}

/// A function; errors in its body are reported and do not end it.
pub(super) fn func(c: &mut Cursor, weights: &Weights) -> Result<Func> {
    c.expect_word("func")?;
    let name = c.global("the name of the function, `@name`")?;
    c.expect("(")?;
    let params = c.list(")", definition)?;
    c.expect("->")?;
    c.expect("(")?;
    let results = c.list(")", |c| {
        let name = c.ident("the name of a result")?;
        c.expect(":")?;
        Ok((name, tensor_type(c)?))
    })?;
    c.expect("{")?;
    let body = body(c, weights)?;
    let mut f = Func {
        name,
        ..Func::default()
    };
    let mut scope = Scope {
        ids: HashMap::new(),
        poisoned: body.poisoned,
    };
    for (i, (name, ty)) in params.into_iter().enumerate() {
        let v = scope.define(&mut f, name, ty, Def::Param(i as u32));
        f.params.push(v);
    }
    build_ops(c, &mut f, &mut scope, body.ops);
    if let Some((uses, pos)) = body.returned {
        build_results(c, &mut f, &scope, results, uses, pos);
    }
    Ok(f)
}

/// `%name: type`
fn definition(c: &mut Cursor) -> Result<(String, TensorType)> {
    let name = c.value()?;
    c.expect(":")?;
    Ok((name, tensor_type(c)?))
}

struct Scope {
    ids: HashMap<String, ValueId>,
    /// Names whose definition could not be read; using one is no further error.
    poisoned: HashSet<String>,
}

impl Scope {
    /// Adds a value. Of two with one name, the first is found; the verifier reports them.
    fn define(&mut self, f: &mut Func, name: String, ty: TensorType, def: Def) -> ValueId {
        let v = ValueId(f.values.len() as u32);
        self.ids.entry(name.clone()).or_insert(v);
        f.values.push(Value { name, ty, def });
        v
    }

    /// The values of these names; those that do not exist are reported.
    fn resolve(&self, c: &mut Cursor, uses: Vec<Use>) -> Vec<ValueId> {
        let mut out = Vec::with_capacity(uses.len());
        for (name, pos) in uses {
            match self.ids.get(&name) {
                Some(v) => out.push(*v),
                None if self.poisoned.contains(&name) => {}
                None => {
                    let message = format!("no value `%{}` in this function", Name(&name));
                    c.report(pos.error(codes::VALUE, message));
                }
            }
        }
        out
    }
}

fn build_ops(c: &mut Cursor, f: &mut Func, scope: &mut Scope, raw: Vec<RawOp>) {
    let mut uses = Vec::with_capacity(raw.len());
    for (i, r) in raw.into_iter().enumerate() {
        let id = OpId(i as u32);
        let define = |(k, (name, ty)): (usize, (String, TensorType))| {
            scope.define(f, name, ty, Def::Result(id, k as u32))
        };
        let results = r.results.into_iter().enumerate().map(define).collect();
        f.ops.push(Op {
            kind: r.kind,
            operands: Vec::new(),
            results,
            loc: r.loc,
        });
        uses.push(r.operands);
    }
    for (op, uses) in f.ops.iter_mut().zip(uses) {
        op.operands = scope.resolve(c, uses);
    }
}

fn build_results(
    c: &mut Cursor,
    f: &mut Func,
    scope: &Scope,
    results: Vec<(String, TensorType)>,
    uses: Vec<Use>,
    pos: Pos,
) {
    if uses.len() != results.len() {
        let message = format!(
            "{} values are returned, the signature has {}",
            uses.len(),
            results.len()
        );
        c.report(pos.error(codes::RETURN, message));
        return;
    }
    for ((name, ty), u) in results.into_iter().zip(uses) {
        let at = u.1;
        for v in scope.resolve(c, vec![u]) {
            if *f.ty(v) != ty {
                let message = format!(
                    "%{} is {}, the signature says {ty}",
                    Name(&f.value(v).name),
                    f.ty(v)
                );
                c.report(at.error(codes::RETURN, message));
            }
            f.results.push((name.clone(), v));
        }
    }
}

struct Body {
    ops: Vec<RawOp>,
    returned: Option<(Vec<Use>, Pos)>,
    poisoned: HashSet<String>,
}

fn body(c: &mut Cursor, weights: &Weights) -> Result<Body> {
    let mut body = Body {
        ops: Vec::new(),
        returned: None,
        poisoned: HashSet::new(),
    };
    while !c.gives_up() {
        let mark = c.mark();
        let done = match c.peek() {
            Tok::Value(_) if !c.at_line_start() => Err(c.expected("the end of the line")),
            Tok::Value(_) => op(c, weights).map(|o| body.ops.push(o)),
            Tok::Word(w) if w == "return" => return_values(c).map(|r| body.returned = Some(r)),
            // The next item, or nothing more: the function was not closed.
            Tok::Word(w) if matches!(w.as_str(), "func" | "weight" | "dim") => {
                c.report(c.expected("an op, `return` or `}`"));
                return Ok(body);
            }
            _ => Err(c.expected("an op or `return`")),
        };
        match done {
            Ok(()) if body.returned.is_some() => {
                c.expect("}")?;
                return Ok(body);
            }
            Ok(()) => {}
            Err(d) => {
                c.report(d);
                // A brace that begins a line closes the function, whatever was wrong before.
                if !c.at_line_start() || *c.peek() != Tok::Punct("}") {
                    body.poisoned.extend(c.recover(mark, |_| true).1);
                }
                if c.eat("}") || *c.peek() == Tok::End {
                    return Ok(body);
                }
            }
        }
    }
    Ok(body)
}

fn return_values(c: &mut Cursor) -> Result<(Vec<Use>, Pos)> {
    let pos = c.pos();
    c.expect_word("return")?;
    Ok((operands(c)?, pos))
}

/// `%a, %b`, or nothing.
fn operands(c: &mut Cursor) -> Result<Vec<Use>> {
    let mut out = Vec::new();
    if matches!(c.peek(), Tok::Value(_)) {
        loop {
            let pos = c.pos();
            out.push((c.value()?, pos));
            if !c.eat(",") {
                break;
            }
        }
    }
    Ok(out)
}

fn op(c: &mut Cursor, weights: &Weights) -> Result<RawOp> {
    let mut results = vec![definition(c)?];
    while c.eat(",") {
        results.push(definition(c)?);
    }
    c.expect("=")?;
    let pos = c.pos();
    let name = c.word("the name of an op")?;
    let mut kind =
        prototype(&name).ok_or_else(|| pos.error(codes::OP, format!("no op is named `{name}`")))?;
    let operands = if let OpKind::Const {
        weight,
        scale,
        zero,
        global,
    } = &mut kind
    {
        *weight = weight_name(c, weights)?;
        *scale = const_param(c, weights)?;
        *zero = const_param(c, weights)?;
        *global = const_param(c, weights)?;
        Vec::new()
    } else if *c.peek_second() == Tok::Punct(":") {
        // Without operands, the next line may begin with a definition.
        Vec::new()
    } else {
        operands(c)?
    };
    attributes(c, &mut kind, pos)?;
    let loc = loc(c)?;
    Ok(RawOp {
        results,
        kind,
        operands,
        loc,
    })
}

fn weight_name(c: &mut Cursor, weights: &Weights) -> Result<WeightId> {
    let pos = c.pos();
    let name = c.global("a weight `@name`")?;
    weights.get(&name).copied().ok_or_else(|| {
        pos.error(codes::WEIGHT, format!("no weight `@{}`", Name(&name)))
            .hint("declare it above the functions")
    })
}

/// `, @name` or `, _`, or nothing.
fn const_param(c: &mut Cursor, weights: &Weights) -> Result<Option<WeightId>> {
    if !c.eat(",") || c.eat_word("_") {
        return Ok(None);
    }
    weight_name(c, weights).map(Some)
}

fn attributes(c: &mut Cursor, kind: &mut OpKind, op_pos: Pos) -> Result<()> {
    let name = kind.name();
    let mut seen: Vec<String> = Vec::new();
    if c.eat("{") {
        loop {
            let pos = c.pos();
            let key = c.word("an attribute")?;
            if seen.contains(&key) {
                return Err(pos.error(codes::REPEATED, format!("`{key}` is given twice")));
            }
            let mut all = attrs(kind);
            let Some(a) = all.iter_mut().find(|a| a.key == key) else {
                let keys: Vec<&str> = all.iter().map(|a| a.key).collect();
                let message = format!("`{name}` has no attribute `{key}`");
                let d = pos.error(codes::ATTRIBUTE, message);
                return Err(match keys.as_slice() {
                    [] => d.hint("it has none"),
                    _ => d.hint(format!("it has {}", keys.join(", "))),
                });
            };
            a.parse(c)?;
            seen.push(key);
            if c.eat("}") {
                break;
            }
            if !c.eat(",") {
                return Err(c.expected("`,` or `}`"));
            }
        }
    }
    let mut all = attrs(kind);
    for a in all.iter_mut().filter(|a| !seen.iter().any(|s| s == a.key)) {
        if !a.reset() {
            let message = format!("`{name}` needs the attribute `{}`", a.key);
            return Err(op_pos.error(codes::MISSING, message));
        }
    }
    Ok(())
}

fn loc(c: &mut Cursor) -> Result<Loc> {
    let mut nodes = Vec::new();
    if let Tok::Global(n) = c.peek().clone() {
        c.next();
        nodes.push(n);
        while c.eat(",") {
            match c.peek().clone() {
                Tok::Str(s) => {
                    c.next();
                    nodes.push(s);
                }
                _ => return Err(c.expected("the name of a source node in quotes")),
            }
        }
    }
    Ok(Loc { nodes })
}
