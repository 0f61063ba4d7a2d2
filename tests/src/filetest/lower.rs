//! `test lower sm_80`: the launches of a module on a GPU target.
//!
//! Passes may run first, under the target's cost model: `test lower sm_90 fuse,dce`; or the vendor's
//! products are used: `test lower sm_90 vendor-gemm`. What is shown
//! is what the plan would hold: steps, choices by size, kernels, grids, arguments, memory. A
//! refusal is the one that the comments name.

use super::{Command, Filetest, expect};
use crate::launches;
use qcc_codegen::cost::Roofline;
use qcc_codegen::lower::{LowerOptions, emit_section_with};
use qcc_codegen::target::Target;
use qcc_ir::graph::Module;
use qcc_passes::{Manager, Options, PassContext, registry};

pub(super) struct Lower;

impl Command for Lower {
    fn name(&self) -> &'static str {
        "lower"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        let (name, rest) = file.args.split_once(' ').unwrap_or((&file.args, ""));
        let options = LowerOptions {
            vendor_gemm: rest == "vendor-gemm",
        };
        let passes = if options.vendor_gemm { "" } else { rest };
        let target = Target::find(name).ok_or_else(|| format!("`{name}` is no target"))?;
        let module = prepare(file.module()?, passes, target)?;
        match emit_section_with(&module, "main", target, options) {
            Ok((section, _)) => {
                expect::nothing(&file.errors)?;
                Ok(launches::section(&section))
            }
            Err(errors) => {
                expect::compare(&file.errors, &errors)?;
                Ok(errors.iter().map(|e| format!("{e}\n")).collect())
            }
        }
    }
}

/// The module after these passes.
fn prepare(module: Module, passes: &str, target: &'static Target) -> Result<Module, String> {
    if passes.is_empty() {
        return Ok(module);
    }
    let passes = registry::parse_list(passes).map_err(|d| d.to_string())?;
    let options = Options::default();
    let cost = Roofline::new(target);
    let mut ctx = PassContext::new(&options);
    ctx.cost = Some(&cost);
    let out = Manager::new(passes).run(module, &mut ctx);
    out.map(|o| o.module).map_err(|d| d.to_string())
}
