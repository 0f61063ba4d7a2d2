//! The canonical printer.

use std::fmt::{self, Write};

use super::super::body::{Kernel, Kind, Region, Stmt, Value};
use super::super::{Op, Ty};
use super::literal;

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        header(self, &mut out);
        for array in &self.shared {
            let len = array.len.map_or(String::from("dynamic"), |n| n.to_string());
            let _ = writeln!(
                out,
                "  shared @{}: {}[{len}] align {}",
                array.name, array.elem, array.align
            );
        }
        body(self, &self.body, 1, &mut out);
        out.push_str("}\n");
        f.write_str(&out)
    }
}

fn header(kernel: &Kernel, out: &mut String) {
    let params: Vec<String> = kernel
        .params
        .iter()
        .map(|p| format!("%{}: {}", p.name, p.ty))
        .collect();
    let kind = if matches!(kernel.kind, Kind::Serial) {
        "serial"
    } else {
        "spmd"
    };
    let _ = write!(out, "kernel {kind} @{}({})", kernel.name, params.join(", "));
    if let Kind::Spmd(launch) = &kernel.kind {
        let [x, y, z] = launch.block;
        let _ = write!(out, " block({x},{y},{z})");
        if launch.cluster != [1, 1, 1] {
            let [x, y, z] = launch.cluster;
            let _ = write!(out, " cluster({x},{y},{z})");
        }
        if launch.min_blocks != 0 {
            let _ = write!(out, " min_blocks({})", launch.min_blocks);
        }
        if launch.max_regs != 0 {
            let _ = write!(out, " max_regs({})", launch.max_regs);
        }
    }
    out.push_str(" {\n");
}

fn name(kernel: &Kernel, v: Value) -> String {
    match kernel.params.get(v.index()) {
        Some(param) => format!("%{}", param.name),
        None => format!("%{}", v.index()),
    }
}

fn names(kernel: &Kernel, values: &[Value]) -> String {
    values
        .iter()
        .map(|&v| name(kernel, v))
        .collect::<Vec<_>>()
        .join(", ")
}

fn typed(kernel: &Kernel, values: &[Value]) -> String {
    let one = |&v: &Value| {
        let ty = kernel.types.get(v.index()).copied().unwrap_or(Ty::BOOL);
        format!("{}: {ty}", name(kernel, v))
    };
    values.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The statement on one line, without its regions.
pub(crate) fn stmt_line(kernel: &Kernel, stmt: &Stmt) -> String {
    let mut line = String::new();
    if !stmt.results.is_empty() {
        let _ = write!(line, "{} = ", typed(kernel, &stmt.results));
    }
    match (stmt.op, stmt.results.first().map(|&v| kernel.ty(v))) {
        (Op::Const { bits }, Some(Ty::Val { dtype, .. })) => {
            let _ = write!(line, "const {}", literal::print(dtype, bits.0));
        }
        (op, _) => line.push_str(&op.name()),
    }
    if !stmt.args.is_empty() {
        let _ = write!(line, " {}", names(kernel, &stmt.args));
    }
    line
}

fn body(kernel: &Kernel, region: &Region, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    for stmt in &region.stmts {
        let _ = write!(out, "{pad}{}", stmt_line(kernel, stmt));
        for (i, inner) in stmt.regions.iter().enumerate() {
            nested(kernel, stmt, i, inner, depth, out);
        }
        out.push('\n');
    }
    if !region.yields.is_empty() {
        let _ = writeln!(out, "{pad}yield {}", names(kernel, &region.yields));
    }
}

fn nested(kernel: &Kernel, stmt: &Stmt, i: usize, inner: &Region, depth: usize, out: &mut String) {
    if i == 1 {
        let empty = inner.stmts.is_empty() && inner.yields.is_empty();
        if stmt.op == Op::If && empty {
            return;
        }
        out.push_str(if stmt.op == Op::If { " else" } else { " do" });
    }
    out.push_str(" {");
    if !inner.params.is_empty() {
        let _ = write!(out, " |{}|", typed(kernel, &inner.params));
    }
    out.push('\n');
    body(kernel, inner, depth + 1, out);
    let _ = write!(out, "{}}}", "  ".repeat(depth));
}
