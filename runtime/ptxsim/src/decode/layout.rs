//! Where the variables of a kernel lie in shared, local and global memory.

use std::collections::HashMap;

use crate::isa::program::{GlobalVar, SHARED_START};
use crate::parse::ast::{Ast, Kernel, Var, VarSpace};

/// What a symbol stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Symbol {
    Shared(u32),
    Local(u32),
    /// Index into the module's global variables.
    Global(usize),
    Param(u32),
}

/// Addresses of one kernel.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) symbols: HashMap<String, Symbol>,
    pub(super) static_end: u32,
    pub(super) dynamic_start: u32,
    pub(super) local_bytes: u32,
}

/// Module-scope `.global` and `.const` variables.
pub(super) fn module_globals(ast: &Ast) -> Vec<GlobalVar> {
    ast.vars
        .iter()
        .filter(|v| matches!(v.space, VarSpace::Global | VarSpace::Const))
        .map(global)
        .collect()
}

fn global(v: &Var) -> GlobalVar {
    GlobalVar {
        name: v.name.clone(),
        size: v.size,
        init: v.init.clone(),
    }
}

/// Lays out a kernel; module-scope shared variables count for every kernel that could name them.
pub(super) fn lay_out(
    ast: &Ast,
    kernel: &Kernel,
    globals: &mut Vec<GlobalVar>,
) -> Result<Layout, String> {
    let mut out = Layout::default();
    for (i, g) in globals.iter().enumerate() {
        out.symbols.insert(g.name.clone(), Symbol::Global(i));
    }
    let used: Vec<&Var> = ast
        .vars
        .iter()
        .filter(|v| names(kernel, &v.name))
        .chain(&kernel.vars)
        .collect();
    let (mut shared, mut local) = (u64::from(SHARED_START), 0u64);
    let mut dynamic_align = 16;
    let mut dynamic = Vec::new();
    for v in used {
        let (align, size) = (u64::from(v.align), u64::from(v.size));
        match v.space {
            VarSpace::Shared => {
                let at = shared.next_multiple_of(align);
                out.symbols
                    .insert(v.name.clone(), Symbol::Shared(at as u32));
                shared = at + size;
            }
            VarSpace::ExternShared => {
                dynamic_align = dynamic_align.max(v.align);
                dynamic.push(v.name.clone());
            }
            VarSpace::Local => {
                let at = local.next_multiple_of(align);
                out.symbols.insert(v.name.clone(), Symbol::Local(at as u32));
                local = at + size;
            }
            VarSpace::Global | VarSpace::Const => {
                if !out.symbols.contains_key(&v.name) {
                    out.symbols
                        .insert(v.name.clone(), Symbol::Global(globals.len()));
                    globals.push(global(v));
                }
            }
        }
        if shared > 1 << 20 || local > 1 << 20 {
            return Err(format!(
                "variables of kernel `{}` take more than 1 MiB",
                kernel.name
            ));
        }
    }
    out.static_end = shared as u32;
    out.dynamic_start = (shared as u32).next_multiple_of(dynamic_align);
    for name in dynamic {
        out.symbols.insert(name, Symbol::Shared(out.dynamic_start));
    }
    for p in &kernel.params {
        out.symbols.insert(p.name.clone(), Symbol::Param(p.offset));
    }
    out.local_bytes = (local as u32).next_multiple_of(16);
    Ok(out)
}

/// Does any operand of the kernel name the variable?
fn names(kernel: &Kernel, name: &str) -> bool {
    use crate::parse::ast::Operand;
    fn in_operand(o: &Operand, name: &str) -> bool {
        match o {
            Operand::Sym(s) => s == name,
            Operand::Vector(v) => v.iter().any(|o| in_operand(o, name)),
            Operand::Pair(a, b) => in_operand(a, name) || in_operand(b, name),
            Operand::Addr { base, rest, .. } => {
                in_operand(base, name) || rest.iter().any(|o| in_operand(o, name))
            }
            _ => false,
        }
    }
    kernel
        .insts
        .iter()
        .any(|i| i.operands.iter().any(|o| in_operand(o, name)))
}
