//! What an embedder writes: compile a model in memory, open the plan, run it.
//!
//! `cargo run --release -p qcc-examples --example compile_and_run`

use qcc::data::{Dataset, read_npy};
use qcc::onnx::Model;
use qcc::{Compiler, Options, Scheme, interface};
use qcc_runtime::{Device, Engine, PlanFile, Threads, Verify};
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let model = Model::open(&folder.join("docs-gpt-outlier.onnx"))?;

    let mut options = Options::default();
    options.passes.scheme = Scheme::named("int8")?;
    let prepared = Compiler::new(options.clone()).prepare(&model)?;
    let io = interface(&prepared)?;
    let calibration = Dataset::open(&folder.join("calib_tokens.npy"), &io)?;
    let compiled = Compiler::new(options).compile(&model, Some(&calibration))?;

    let plan = PlanFile::from_bytes(compiled.to_bytes()?, Verify::Full)?;
    let engine = Engine::new(Arc::new(plan), Device::Cpu(Threads::new(2)?))?;
    let ids = read_npy(&folder.join("eval_tokens.npy"))?;
    for (name, value) in engine.session().run(&[("input_ids", &ids)])? {
        println!("{name}: {}{:?}", value.dtype(), value.dims());
    }
    Ok(())
}
