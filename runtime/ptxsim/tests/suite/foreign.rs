//! Kernels that other compilers wrote (Triton, nvrtc), against goldens of numpy: see `foreign/generate.py`.
//! Each runs under three schedules with every check on, and fast.

use std::path::{Path, PathBuf};

use ptxsim::{Accumulate, Module, Options, Simulator};

use crate::support::{compare, root, setup};

fn run(dir: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(dir.join("kernel.ptx")).map_err(|e| e.to_string())?;
    let module = Module::parse(&text).map_err(|e| e.to_string())?;
    let checked = |schedule_seed, accumulate| Options {
        schedule_seed,
        accumulate,
        ..Options::default()
    };
    let runs = [
        checked(0, Accumulate::Exact),
        checked(1, Accumulate::Hopper),
        checked(2, Accumulate::Exact),
        Options {
            threads: 2,
            ..Options::fast()
        },
    ];
    for options in runs {
        let mut s = setup(dir);
        let schedule_seed = options.schedule_seed;
        let at = |e: String| format!("schedule {schedule_seed}: {e}");
        let result = Simulator::new(options).launch(&module, &s.entry, &s.launch, &mut s.memory);
        match (result, &s.fault) {
            (Err(f), Some(known)) if f.kind.name() == known => continue,
            (Ok(_), Some(known)) => {
                return Err(at(format!("the known fault {known} was not found")));
            }
            (result, _) => result.map_err(|f| at(f.to_string()))?,
        };
        for o in &s.outputs {
            compare(&s.memory, o).map_err(at)?;
        }
    }
    Ok(())
}

fn cases(prefix: &str) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::fs::read_dir(root())
        .expect("cases")
        .map(|d| d.expect("an entry").path())
        .collect();
    dirs.retain(|d| {
        d.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(prefix))
    });
    dirs.sort();
    dirs
}

fn all(prefix: &str) {
    let dirs = cases(prefix);
    assert!(!dirs.is_empty(), "no case begins with {prefix}");
    let failed: Vec<String> = dirs
        .iter()
        .filter_map(|d| {
            run(d)
                .err()
                .map(|e| format!("{}: {e}", d.file_name().unwrap_or_default().display()))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n{}",
        failed.len(),
        dirs.len(),
        failed.join("\n")
    );
}

#[test]
fn triton_dots_equal_numpy() {
    all("triton_dot");
}

#[test]
fn triton_tensor_maps_equal_numpy() {
    all("triton_tma");
}

#[test]
fn triton_row_kernels_equal_numpy() {
    for prefix in [
        "triton_softmax",
        "triton_quantize",
        "triton_scan",
        "triton_histogram",
        "triton_scaled",
    ] {
        all(prefix);
    }
}

#[test]
fn nvrtc_kernels_equal_numpy() {
    all("cuda_");
}
