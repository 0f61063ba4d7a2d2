//! The launches of a plan's section as text, for snapshots.
//!
//! Kernels are numbered by their first launch (`linear.2` is the second kernel of linear layers),
//! since their names in the plan change with every instruction.

use qcc_ir::plan::{Action, Arg, Choice, Launch, TargetSection, VendorGemm};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Numbers for kernels in the order of their first launch.
#[derive(Debug, Default)]
struct Numbers {
    names: BTreeMap<String, String>,
    of_op: BTreeMap<String, usize>,
}

impl Numbers {
    /// The short name of a kernel; kernels are called `op_hash`.
    fn name(&mut self, kernel: &str) -> String {
        if let Some(known) = self.names.get(kernel) {
            return known.clone();
        }
        let op = kernel.rsplit_once('_').map_or(kernel, |(op, _)| op);
        let n = self.of_op.entry(op.to_string()).or_insert(0);
        *n += 1;
        let name = format!("{op}.{n}");
        self.names.insert(kernel.to_string(), name.clone());
        name
    }
}

/// One line for each step: its name and the kernels of each way to run it.
pub fn steps(section: &TargetSection) -> String {
    let mut numbers = Numbers::default();
    let mut out = String::new();
    for step in &section.steps {
        let ways = step.run.iter().map(|c| {
            let names = launches(c).map(|l| numbers.name(&l.kernel));
            names.collect::<Vec<_>>().join(" + ")
        });
        let ways: Vec<String> = ways.collect();
        let _ = writeln!(out, "{}: {}", step.op, ways.join(" | "));
    }
    out
}

/// Everything a section says: steps, choices, launches with their arguments, memory, outputs.
pub fn section(s: &TargetSection) -> String {
    let mut numbers = Numbers::default();
    let mut out = String::new();
    for step in &s.steps {
        let _ = writeln!(out, "{}", step.op);
        for choice in &step.run {
            if let Some(conditions) = conditions(choice) {
                let _ = writeln!(out, "  if {conditions}");
            }
            for action in &choice.actions {
                let text = match action {
                    Action::Cpu => "cpu".to_string(),
                    Action::Launch(l) => launch(&numbers.name(&l.kernel), l),
                    Action::Vendor(g) => product(g),
                };
                let _ = writeln!(out, "  {text}");
            }
        }
    }
    let _ = writeln!(out, "arena: {} bytes", s.arena.bytes);
    for b in &s.arena.buffers {
        let _ = writeln!(out, "  {}: {} bytes at {}", b.value, b.bytes, b.offset);
    }
    let _ = writeln!(out, "outputs: {}", s.outputs.join(", "));
    let _ = writeln!(out, "kernels: {}", s.kernels.len());
    out
}

fn launches(c: &Choice) -> impl Iterator<Item = &Launch> {
    c.actions.iter().filter_map(|a| match a {
        Action::Launch(l) => Some(l),
        _ => None,
    })
}

fn conditions(c: &Choice) -> Option<String> {
    let guards = c.when.iter().map(|g| match g.max {
        u64::MAX => format!("{} <= {}", g.min, g.expr),
        max => format!("{} <= {} <= {max}", g.min, g.expr),
    });
    let all: Vec<String> = c.requires.iter().cloned().chain(guards).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn launch(name: &str, l: &Launch) -> String {
    let args: Vec<String> = l.args.iter().map(arg).collect();
    let mut text = format!("{name} <<<({}), {:?}", l.grid.join(", "), l.block);
    if let Some(cluster) = l.cluster {
        let _ = write!(text, ", cluster {cluster:?}");
    }
    if l.shared > 0 {
        let _ = write!(text, ", {} bytes shared", l.shared);
    }
    text + &format!(">>>({})", args.join(", "))
}

fn product(g: &VendorGemm) -> String {
    let mut text = format!("{} = {} × {}ᵀ", arg(&g.d), arg(&g.a), arg(&g.b));
    for scale in [&g.a_scale, &g.b_scale].into_iter().flatten() {
        let _ = write!(text, " · {}", arg(scale));
    }
    if let Some(bias) = &g.bias {
        let _ = write!(text, " + {}", arg(bias));
    }
    let gelu = if g.gelu { ", gelu" } else { "" };
    let (input, output) = (g.input, g.output);
    text + &format!("{gelu} ({} × {} × {}, {input} to {output})", g.m, g.n, g.k)
}

fn arg(a: &Arg) -> String {
    match a {
        Arg::Value(n) => format!("%{n}"),
        Arg::Weight { name, layout } if layout == "row-major" => format!("@{name}"),
        Arg::Weight { name, layout } => format!("@{name} as {layout}"),
        Arg::Dim { expr, dtype } => format!("{dtype} {expr}"),
        Arg::Faults => "faults".to_string(),
        Arg::TensorMap {
            of,
            dtype,
            dims,
            strides,
            tile,
            swizzle,
        } => format!(
            "map({}, {dtype}, dims [{}], strides [{}], tile {tile:?}, swizzle {swizzle})",
            arg(of),
            dims.join(", "),
            strides.join(", ")
        ),
    }
}
