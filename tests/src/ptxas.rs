//! NVIDIA's assembler as a judge of emitted PTX: does the text assemble, and at what cost?
//!
//! ptxas is not part of the project. It is taken from `QCC_PTXAS` (paths separated by `:`), else
//! from the Python wheels `nvidia-cuda-nvcc`, downloaded once into the build directory, else from
//! `PATH`. Where none can be had a test says that it was skipped; with `CI=true` that is a failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The versions of the wheel that every kernel is assembled with.
const WHEELS: [&str; 2] = ["13.0.88", "13.5.37"];

/// One assembler.
#[derive(Clone, Debug)]
pub struct Ptxas {
    path: PathBuf,
    /// Name for messages: the wheel's version or the path.
    pub name: String,
}

/// What one entry point costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Name of the entry point.
    pub name: String,
    /// Registers per thread.
    pub regs: u32,
    /// Static shared memory in bytes.
    pub smem: u32,
    /// Bytes of stack per thread.
    pub stack: u32,
    /// Bytes spilled, stores and loads together.
    pub spills: u32,
}

/// What ptxas says of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// One row for each entry point.
    pub entries: Vec<Usage>,
    /// Warnings and performance advice (serialized wgmma, ignored setmaxnreg, …).
    pub warnings: Vec<String>,
}

impl Info {
    /// The reason why this is not acceptable for a kernel of ours, if there is one.
    pub fn complaint(&self) -> Option<String> {
        if let Some(e) = self.entries.iter().find(|e| e.spills + e.stack > 0) {
            return Some(format!(
                "{}: {} bytes spilled, {} of stack",
                e.name, e.spills, e.stack
            ));
        }
        self.warnings.first().cloned()
    }
}

/// Assembles with the newest assembler.
///
/// # Errors
/// What ptxas printed, or why there is none.
pub fn assemble(text: &str, arch: &str) -> Result<Info, String> {
    let all = available()?;
    all.last().ok_or("no ptxas")?.assemble(text, arch)
}

/// Every assembler found, oldest first.
///
/// # Errors
/// Why there is none.
pub fn available() -> Result<&'static [Ptxas], String> {
    static FOUND: OnceLock<Result<Vec<Ptxas>, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_deref().map_err(Clone::clone)
}

/// The assemblers for a test; `None` after saying that it is skipped.
///
/// # Panics
/// In CI (`CI=true`), when there is no assembler.
pub fn for_test(test: &str) -> Option<&'static [Ptxas]> {
    match available() {
        Ok(all) => Some(all),
        Err(reason) => {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "{test} needs ptxas in CI: {reason}");
            eprintln!("SKIPPED {test}: no ptxas ({reason})");
            None
        }
    }
}

/// Asserts that every available assembler takes `text` for each architecture without spills,
/// stack or advice; returns what each said. Skips like [`for_test`].
///
/// # Panics
/// When one refuses or complains.
pub fn assert_assembles(test: &str, text: &str, archs: &[&str]) -> Vec<Info> {
    let mut infos = Vec::new();
    for ptxas in for_test(test).unwrap_or_default() {
        for arch in archs {
            match ptxas.assemble(text, arch) {
                Ok(info) => {
                    let complaint = info.complaint();
                    assert!(
                        complaint.is_none(),
                        "{test}, ptxas {}, {arch}: {complaint:?}",
                        ptxas.name
                    );
                    infos.push(info);
                }
                Err(message) => panic!("{test}, ptxas {}, {arch}:\n{message}\n{text}", ptxas.name),
            }
        }
    }
    infos
}

impl Ptxas {
    /// Assembles PTX text for an architecture (`sm_80`).
    ///
    /// # Errors
    /// What ptxas printed.
    pub fn assemble(&self, text: &str, arch: &str) -> Result<Info, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (ptx, cubin) = (dir.path().join("k.ptx"), dir.path().join("k.cubin"));
        std::fs::write(&ptx, text).map_err(|e| e.to_string())?;
        let mut command = Command::new(&self.path);
        command
            .arg("-v")
            .arg(format!("-arch={arch}"))
            .arg(&ptx)
            .arg("-o")
            .arg(&cubin);
        let output = run(&mut command)?;
        let printed = printed(&output);
        if output.status.success() {
            Ok(read(&printed))
        } else {
            Err(printed)
        }
    }
}

fn printed(output: &Output) -> String {
    let parts = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    parts.concat()
}

fn run(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|e| format!("{command:?}: {e}"))
}

/// Reads the output of `ptxas -v`.
fn read(text: &str) -> Info {
    let mut info = Info::default();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_string();
            info.entries.push(Usage {
                name,
                ..Usage::default()
            });
        }
        if let Some(entry) = info.entries.last_mut() {
            entry.regs = number_before(line, " registers").unwrap_or(entry.regs);
            entry.smem = number_before(line, " bytes smem").unwrap_or(entry.smem);
            entry.stack = number_before(line, " bytes stack frame").unwrap_or(entry.stack);
            for what in [" bytes spill stores", " bytes spill loads"] {
                entry.spills += number_before(line, what).unwrap_or(0);
            }
        }
        let advice = ["warning", "serialized", "ignored", "Performance"];
        if advice.iter().any(|word| line.contains(word)) {
            info.warnings.push(line.trim().to_string());
        }
    }
    info
}

fn number_before(line: &str, what: &str) -> Option<u32> {
    let end = line.find(what)?;
    line[..end]
        .split(|c: char| !c.is_ascii_digit())
        .next_back()?
        .parse()
        .ok()
}

fn find() -> Result<Vec<Ptxas>, String> {
    if let Ok(paths) = std::env::var("QCC_PTXAS") {
        let named = |p: &str| Ptxas {
            path: p.into(),
            name: p.to_string(),
        };
        return Ok(paths
            .split(':')
            .filter(|p| !p.is_empty())
            .map(named)
            .collect());
    }
    let wheels: Result<Vec<Ptxas>, String> = WHEELS.iter().map(|v| wheel(v)).collect();
    wheels.or_else(|reason| match run(Command::new("ptxas").arg("--version")) {
        Ok(output) if output.status.success() => Ok(vec![Ptxas {
            path: "ptxas".into(),
            name: "ptxas".into(),
        }]),
        _ => Err(reason),
    })
}

/// The folder for downloaded tools, beside the build's own folders.
fn tools() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    // <target>/<profile>/deps/<test>
    let target = exe
        .ancestors()
        .nth(3)
        .ok_or("the test binary has no build folder")?;
    Ok(target.join("tools"))
}

fn wheel(version: &str) -> Result<Ptxas, String> {
    let tools = tools()?;
    let home = tools.join(format!("nvidia-cuda-nvcc-{version}"));
    let path = home.join("nvidia/cu13/bin/ptxas");
    if !path.exists() {
        download(version, &tools, &home)?;
    }
    Ok(Ptxas {
        path,
        name: version.to_string(),
    })
}

/// Downloads and unpacks into a folder of its own, then renames it: tests run side by side.
fn download(version: &str, tools: &Path, home: &Path) -> Result<(), String> {
    std::fs::create_dir_all(tools).map_err(|e| e.to_string())?;
    let scratch = tempfile::tempdir_in(tools).map_err(|e| e.to_string())?;
    let (wheels, unpacked) = (
        scratch.path().join("wheels"),
        scratch.path().join("unpacked"),
    );
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ];
    let mut fetch = Command::new("python3");
    fetch
        .args(pip)
        .arg("-d")
        .arg(&wheels)
        .arg(format!("nvidia-cuda-nvcc=={version}"));
    succeed(&mut fetch)?;
    let wheel = std::fs::read_dir(&wheels)
        .map_err(|e| e.to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or("pip downloaded no wheel")?;
    succeed(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked),
    )?;
    let ptxas = unpacked.join("nvidia/cu13/bin/ptxas");
    succeed(Command::new("chmod").arg("+x").arg(&ptxas))?;
    match std::fs::rename(&unpacked, home) {
        Ok(()) => Ok(()),
        // Another test was faster.
        Err(_) if home.exists() => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = run(command)?;
    if output.status.success() {
        return Ok(());
    }
    let text = printed(&output);
    Err(format!(
        "{command:?} failed: {}",
        text.lines().last().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ptxas_prints() {
        let text = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'k' for 'sm_90a'\n\
            ptxas info    : Function properties for k\n\
            \x20   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n\
            ptxas info    : Used 90 registers, used 1 barriers, 24584 bytes smem\n";
        let info = read(text);
        let usage = Usage {
            name: "k".into(),
            regs: 90,
            smem: 24584,
            stack: 8,
            spills: 16,
        };
        assert_eq!(info.entries, [usage]);
        assert_eq!(info.warnings.len(), 1);
        assert!(info.complaint().is_some());
    }

    #[test]
    fn refuses_what_is_not_ptx() {
        for ptxas in for_test("refuses_what_is_not_ptx").unwrap_or_default() {
            assert!(ptxas.assemble("nonsense", "sm_80").is_err());
        }
    }
}
