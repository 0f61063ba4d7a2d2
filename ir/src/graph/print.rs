//! The canonical text of a module: one form for equal modules, byte for byte.
//!
//! The grammar is that of [`super::parse()`]; the order of attributes is that of `attrs.rs`.

use super::attrs::attrs;
use super::module::{Func, Module, Op, Symbol, Value, Weight, WeightData, WeightId};
use super::op::OpKind;
use crate::expr::{Expr, Node, NodeId};
use crate::text::{Ident, Name, Quoted, f32_text, f64_text};
use std::fmt::{self, Display, Formatter, Write};

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("qir 1\n")?;
        for s in &self.symbols {
            symbol(f, s)?;
        }
        for w in &self.weights {
            weight(f, w)?;
        }
        for func in &self.funcs {
            f.write_char('\n')?;
            print_func(f, func, Some(self))?;
        }
        Ok(())
    }
}

impl Display for Func {
    /// As in its module, except that weights are shown by number (`@0`).
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print_func(f, self, None)
    }
}

impl Module {
    /// The text of one op of one of the functions, without indentation.
    pub fn op_text(&self, func: &Func, op: &Op) -> String {
        let mut s = String::new();
        // INVARIANT: writing to a String does not fail.
        let _ = print_op(&mut s, func, op, Some(self));
        s
    }
}

fn symbol(f: &mut Formatter<'_>, s: &Symbol) -> fmt::Result {
    write!(f, "dim {} = {}..{}", Ident(&s.name), s.min, s.max)?;
    if !s.points.is_empty() {
        f.write_str(" @ ")?;
        separated(f, &s.points, |f, p| write!(f, "{p}"))?;
    }
    f.write_char('\n')
}

fn weight(f: &mut Formatter<'_>, w: &Weight) -> fmt::Result {
    write!(f, "weight @{}: {}[", Name(&w.name), w.dtype)?;
    separated(f, &w.dims, |f, d| write!(f, "{d}"))?;
    f.write_str("] = ")?;
    match &w.data {
        WeightData::Extern | WeightData::Bytes(_) => f.write_str("extern")?,
        WeightData::Splat(v) => write!(f, "splat({})", f64_text(*v))?,
        WeightData::Normal(seed, std) => write!(f, "normal({seed}, {})", f64_text(*std))?,
        WeightData::List(v) => {
            f.write_char('[')?;
            separated(f, v, |f, v| f.write_str(&f64_text(*v)))?;
            f.write_char(']')?;
        }
    }
    f.write_char('\n')
}

fn print_func<W: Write>(f: &mut W, func: &Func, module: Option<&Module>) -> fmt::Result {
    let typed = |f: &mut W, v: &Value| write!(f, "%{}: {}", Name(&v.name), v.ty);
    write!(f, "func @{}(", Name(&func.name))?;
    separated(f, &func.params, |f, v| typed(f, func.value(*v)))?;
    f.write_str(") -> (")?;
    separated(f, &func.results, |f, (name, v)| {
        write!(f, "{}: {}", Ident(name), func.ty(*v))
    })?;
    f.write_str(") {\n")?;
    for op in &func.ops {
        f.write_str("  ")?;
        print_op(f, func, op, module)?;
        f.write_char('\n')?;
    }
    f.write_str("  return")?;
    for (i, (_, v)) in func.results.iter().enumerate() {
        let before = if i == 0 { " " } else { ", " };
        write!(f, "{before}%{}", Name(&func.value(*v).name))?;
    }
    f.write_str("\n}\n")
}

fn print_op<W: Write>(f: &mut W, func: &Func, op: &Op, module: Option<&Module>) -> fmt::Result {
    separated(f, &op.results, |f, r| {
        let v = func.value(*r);
        write!(f, "%{}: {}", Name(&v.name), v.ty)
    })?;
    write!(f, " = {}", op.kind.name())?;
    if let OpKind::Const {
        weight,
        scale,
        zero,
        global,
    } = &op.kind
    {
        const_weights(f, module, *weight, [*scale, *zero, *global])?;
    }
    for (i, o) in op.operands.iter().enumerate() {
        let before = if i == 0 { " " } else { ", " };
        write!(f, "{before}%{}", Name(&func.value(*o).name))?;
    }
    let mut kind = op.kind.clone();
    let written: Vec<String> = attrs(&mut kind).iter().filter_map(|a| a.text()).collect();
    if !written.is_empty() {
        write!(f, " {{ {} }}", written.join(", "))?;
    }
    if !op.loc.nodes.is_empty() {
        f.write_str(" @")?;
        separated(f, &op.loc.nodes, |f, n| write!(f, "{}", Quoted(n)))?;
    }
    Ok(())
}

/// `@codes, @scale, @zero, @global`; `_` stands for one that is not there although a later is.
fn const_weights<W: Write>(
    f: &mut W,
    module: Option<&Module>,
    weight: WeightId,
    params: [Option<WeightId>; 3],
) -> fmt::Result {
    let name = |id: WeightId| match module.and_then(|m| m.weights.get(id.index())) {
        Some(w) => Name(&w.name).to_string(),
        None => id.0.to_string(),
    };
    write!(f, " @{}", name(weight))?;
    let given = params
        .iter()
        .rposition(Option::is_some)
        .map_or(0, |i| i + 1);
    for p in &params[..given] {
        match p {
            Some(id) => write!(f, ", @{}", name(*id))?,
            None => f.write_str(", _")?,
        }
    }
    Ok(())
}

fn separated<W: Write, T>(
    f: &mut W,
    items: &[T],
    mut item: impl FnMut(&mut W, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, x) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        item(f, x)?;
    }
    Ok(())
}

/// `{ t0 = acc0; t1 = gelu t0; store t1 scale in3 }`
pub(super) fn expr_text(e: &Expr) -> String {
    let mut parts: Vec<String> = e
        .nodes
        .iter()
        .enumerate()
        .map(|(i, n)| format!("t{i} = {}", node_text(*n)))
        .collect();
    for s in &e.stores {
        let mut text = format!("store t{}", s.value.0);
        for (word, operand) in [("scale", s.scale), ("zero", s.zero)] {
            if let Some(i) = operand {
                text.push_str(&format!(" {word} in{i}"));
            }
        }
        parts.push(text);
    }
    if parts.is_empty() {
        return "{ }".into();
    }
    format!("{{ {} }}", parts.join("; "))
}

fn node_text(n: Node) -> String {
    let t = |id: NodeId| format!("t{}", id.0);
    match n {
        Node::Acc(i) => format!("acc{i}"),
        Node::Input(i) => format!("in{i}"),
        Node::ConstF32(bits) => f32_text(bits),
        Node::ConstI64(v) => v.to_string(),
        Node::Unary(f, a) => format!("{} {}", f.name(), t(a)),
        Node::Binary(f, a, b) => format!("{} {}, {}", f.name(), t(a), t(b)),
        Node::Select(c, a, b) => format!("select {}, {}, {}", t(c), t(a), t(b)),
        Node::Cast(d, a) => format!("cast {d} {}", t(a)),
    }
}
