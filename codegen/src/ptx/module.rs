//! A PTX module: header, entry points, parameters and directives.

use std::fmt::Write;

use qcc_ir::Diagnostic;
use qcc_ir::diag::Class as ErrorClass;
use qcc_ir::kernel::{Kernel, Kind, Launch, Ty};

use super::arch::{Arch, Needs, PtxVersion};
use super::emit::{Emitter, Failure};
use super::regs::Class;

/// A parameter of an entry point, as the launch must pass it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Name in the kernel.
    pub name: String,
    /// Type in the kernel.
    pub ty: Ty,
    /// Bytes: 4 or 8, 128 for a tensor map.
    pub bytes: u32,
}

/// An entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    /// Name.
    pub name: String,
    /// Parameters in order.
    pub params: Vec<ParamInfo>,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Whether the launch gives dynamic shared memory.
    pub dynamic_shared: bool,
    /// Threads of a block, blocks of a cluster.
    pub launch: Launch,
}

/// PTX text with what a loader needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PtxModule {
    /// The text.
    pub text: String,
    /// Entry points in the order given.
    pub entries: Vec<EntryInfo>,
    /// `.version`
    pub version: PtxVersion,
    /// `.target`
    pub arch: Arch,
}

/// Prints kernels as one module for GPUs of at least compute capability `floor` (75, 80, …).
/// The module's architecture is raised to what the kernels need, and is architecture-specific
/// (`sm_90a`) if one of them is.
///
/// # Errors
/// `Q0620` for a serial kernel, `Q0621` for an operation without an instruction, `Q0622` when the
/// kernels need versions or architectures that do not go together.
pub fn emit(kernels: &[Kernel], floor: u32) -> Result<PtxModule, Diagnostic> {
    let mut needs = Needs::base();
    needs.need(63, floor);
    let (mut bodies, mut entries) = (String::new(), Vec::new());
    for kernel in kernels {
        let Kind::Spmd(launch) = kernel.kind() else {
            let message = format!(
                "kernel `{}` is serial; PTX takes spmd kernels",
                kernel.name()
            );
            return Err(Diagnostic::error(620, ErrorClass::Internal, message));
        };
        entry(kernel, launch, &mut needs, &mut bodies).map_err(|f| unsupported(kernel, &f))?;
        entries.push(info(kernel, launch));
    }
    let (version, arch) = settle(&needs)?;
    let text = format!(".version {version}\n.target {arch}\n.address_size 64\n{bodies}");
    Ok(PtxModule {
        text,
        entries,
        version,
        arch,
    })
}

fn unsupported(kernel: &Kernel, failure: &Failure) -> Diagnostic {
    let message = format!(
        "PTX has no instruction for `{}`: {}",
        failure.op, failure.reason
    );
    Diagnostic::error(621, ErrorClass::Internal, message)
        .at(format!("kernel {}", kernel.name()))
        .hint("legalize the kernel for its target before emission")
}

fn settle(needs: &Needs) -> Result<(PtxVersion, Arch), Diagnostic> {
    let conflict = |message: String| Diagnostic::error(622, ErrorClass::Internal, message);
    let arch = match needs.specific {
        Some(sm) if sm < needs.sm => {
            let message = format!(
                "instructions of sm_{sm}a and of sm_{} in one module",
                needs.sm
            );
            return Err(conflict(message));
        }
        Some(sm) => Arch::specific(sm),
        None => Arch::sm(needs.sm),
    };
    let least = arch
        .version()
        .ok_or_else(|| conflict(format!("unknown architecture {arch}")))?;
    let version = needs.version.max(least);
    if version > PtxVersion::MAX {
        return Err(conflict(format!(
            "PTX {version} is above {}",
            PtxVersion::MAX
        )));
    }
    Ok((version, arch))
}

fn info(kernel: &Kernel, launch: &Launch) -> EntryInfo {
    let params = kernel.params().iter().map(|p| ParamInfo {
        name: p.name.clone(),
        ty: p.ty,
        bytes: if p.ty == Ty::TensorMap {
            128
        } else {
            p.ty.bits() / 8
        },
    });
    EntryInfo {
        name: kernel.name().to_string(),
        params: params.collect(),
        static_shared: kernel.static_shared_bytes().unwrap_or(0),
        dynamic_shared: kernel.shared().iter().any(|a| a.len.is_none()),
        launch: *launch,
    }
}

fn entry(
    kernel: &Kernel,
    launch: &Launch,
    needs: &mut Needs,
    out: &mut String,
) -> Result<(), Failure> {
    let mut emitter = Emitter::new(kernel, *needs);
    emitter.params();
    emitter.region_stmts(kernel.body())?;
    for array in kernel.shared().iter().filter(|a| a.len.is_none()) {
        let symbol = emitter.shared_symbol(&array.name);
        let _ = writeln!(
            out,
            "\n.extern .shared .align {} .b8 {symbol}[];",
            array.align
        );
    }
    let _ = writeln!(out, "\n.visible .entry {}(", kernel.name());
    let declared: Vec<String> = kernel
        .params()
        .iter()
        .map(|p| declaration(&p.name, p.ty))
        .collect();
    out.push_str(&declared.join(",\n"));
    out.push_str(if declared.is_empty() { ")\n" } else { "\n)\n" });
    directives(launch, &mut emitter.needs, out);
    out.push_str("{\n");
    for class in Class::ALL {
        let count = emitter.count(class);
        if count > 0 {
            let _ = writeln!(
                out,
                "\t.reg .{} %{}<{count}>;",
                class.bits(),
                class.letter()
            );
        }
    }
    for array in kernel.shared() {
        if let Some(bytes) = array.bytes() {
            let symbol = emitter.shared_symbol(&array.name);
            let _ = writeln!(
                out,
                "\t.shared .align {} .b8 {symbol}[{bytes}];",
                array.align
            );
        }
    }
    out.push_str(&emitter.text);
    out.push_str("\tret;\n}\n");
    *needs = emitter.needs;
    Ok(())
}

/// Symbol of a parameter: the prefix keeps it apart from instruction names.
pub(super) fn param_symbol(name: &str) -> String {
    format!("param_{name}")
}

fn declaration(name: &str, ty: Ty) -> String {
    let symbol = param_symbol(name);
    match ty {
        Ty::TensorMap => format!("\t.param .align 64 .b8 {symbol}[128]"),
        ty => format!("\t.param .b{} {symbol}", ty.bits()),
    }
}

fn directives(launch: &Launch, needs: &mut Needs, out: &mut String) {
    let [x, y, z] = launch.block;
    let _ = writeln!(out, ".reqntid {x}, {y}, {z}");
    if launch.cluster != [1, 1, 1] {
        needs.need(78, 90);
        let [x, y, z] = launch.cluster;
        let _ = writeln!(out, ".explicitcluster\n.reqnctapercluster {x}, {y}, {z}");
    }
    if launch.min_blocks != 0 {
        let _ = writeln!(out, ".minnctapersm {}", launch.min_blocks);
    }
    if launch.max_regs != 0 {
        let _ = writeln!(out, ".maxnreg {}", launch.max_regs);
    }
}
