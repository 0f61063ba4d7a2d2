//! `qcc run`: one run of a plan or a model on `.npy` files.

use super::args::SchemeArgs;
use super::device::{self, DeviceArg};
use super::engine;
use super::{Output, file_error, usage};
use qcc::data::{read_npy, write_npy};
use qcc_ir::Tensor;
use qcc_ir::diag::Result;
use serde::Serialize;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plan, or an .onnx model, which is compiled in memory first.
    model: PathBuf,
    /// An input and the .npy file that holds it.
    #[arg(long = "input", value_name = "NAME=FILE.npy")]
    inputs: Vec<String>,
    /// Folder for one .npy file per output; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Where to run: cpu, cuda[:N] or sim[:sm_NN] [default: a GPU that the plan was built for,
    /// else cpu].
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceArg>,
    #[command(flatten)]
    scheme: SchemeArgs,
}

#[derive(Serialize)]
struct Ran {
    device: String,
    numerics: String,
    outputs: Vec<OutputInfo>,
}

#[derive(Serialize)]
struct OutputInfo {
    name: String,
    dtype: String,
    dims: Vec<u64>,
    file: Option<PathBuf>,
}

pub(crate) fn run(a: &Args, out: Output) -> Result<()> {
    let inputs = a
        .inputs
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, file)) => Ok((name, read_npy(file.as_ref())?)),
            None => Err(usage(format!("--input takes NAME=FILE.npy, not `{text}`"))),
        })
        .collect::<Result<Vec<(&str, Tensor)>>>()?;
    let mut session = engine::open(&a.model, &a.scheme, None, a.device)?;
    device::announce(session.engine());
    let named: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (*n, t)).collect();
    let results = session.run(&named)?;
    if let Some(dir) = &a.output_dir {
        std::fs::create_dir_all(dir).map_err(|e| file_error(dir, e))?;
    }
    let outputs = results
        .into_iter()
        .map(|(name, t)| {
            let file = a
                .output_dir
                .as_ref()
                .map(|d| d.join(format!("{}.npy", file_name(&name))));
            if let Some(f) = &file {
                write_npy(f, &t)?;
            }
            Ok(OutputInfo {
                name,
                dtype: t.dtype().to_string(),
                dims: t.dims().to_vec(),
                file,
            })
        })
        .collect::<Result<_>>()?;
    let ran = Ran {
        device: device::name(session.engine()),
        numerics: device::numerics(session.engine()),
        outputs,
    };
    out.print("run", &ran, |r| {
        let line = |o: &OutputInfo| {
            let file = o
                .file
                .as_ref()
                .map_or(String::new(), |f| format!(" -> {}", f.display()));
            format!("{}: {}{:?}{file}\n", o.name, o.dtype, o.dims)
        };
        r.outputs.iter().map(line).collect()
    })
}

/// An output's name as a file name: other characters than letters, digits, `.`, `_`, `-` become `_`.
fn file_name(output: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    output
        .chars()
        .map(|c| if keep(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn output_names_become_safe_file_names() {
        assert_eq!(super::file_name("a/b:0 ü.x-y_z"), "a_b_0__.x-y_z");
    }
}
