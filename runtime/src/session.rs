//! One caller's runs of an engine.

use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::plan::Port;
use std::fmt;
use std::sync::Arc;

use crate::Engine;
use crate::engine::Backend;
#[cfg(any(feature = "cuda", feature = "sim"))]
use crate::gpu::GpuSession;

/// Runs an engine, one run at a time. Sessions of one engine run side by side.
pub struct Session {
    /// Its part of a GPU, from the first run on; dropped before the engine's weights.
    #[cfg(any(feature = "cuda", feature = "sim"))]
    gpu: Option<GpuSession>,
    engine: Arc<Engine>,
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Session {
            #[cfg(any(feature = "cuda", feature = "sim"))]
            gpu: None,
            engine,
        }
    }

    /// The engine that runs.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Runs on inputs by name, in any order; gives the outputs with their names, in the order of
    /// the model.
    ///
    /// # Errors
    /// `Q0722` to `Q0724` for a name that the plan does not have, that is missing, or that is
    /// given twice; `Q0505` for an input whose type or shape is not what the plan says, or a
    /// size outside its compiled range. Each names both sides. Errors of the data come from the op
    /// that meets them, such as `Q0705` for an index outside its table. `Q0732` if a GPU's kernel
    /// fails.
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>> {
        let ordered = in_order(self.engine.inputs(), inputs)?;
        let results = match &self.engine.backend {
            #[cfg(feature = "cpu")]
            Backend::Cpu(_, program) => program.run(&ordered)?,
            #[cfg(any(feature = "cuda", feature = "sim"))]
            Backend::Gpu(engine) => {
                let session = match &mut self.gpu {
                    Some(session) => session,
                    None => self.gpu.insert(engine.session()?),
                };
                session.run(engine, &ordered)?
            }
        };
        let names = self.engine.outputs().iter().map(|p| p.name.clone());
        Ok(names.zip(results).collect())
    }

    /// Microseconds that a GPU needs for the last run again, without the copies of inputs and
    /// outputs: the mean of some repetitions, one straight after the other. None before the first
    /// run, and on devices whose time says nothing (the simulator) or that keep no recording (the
    /// processor).
    ///
    /// # Errors
    /// `Q0732` if a kernel fails.
    pub fn micros(&mut self, repetitions: u32) -> Result<Option<f64>> {
        #[cfg(any(feature = "cuda", feature = "sim"))]
        if let Some(session) = &mut self.gpu {
            return session.micros(repetitions);
        }
        let _ = repetitions;
        Ok(None)
    }
}

/// The given inputs in the order of the ports.
fn in_order<'a>(ports: &[Port], given: &[(&str, &'a Tensor)]) -> Result<Vec<&'a Tensor>> {
    for (i, (name, _)) in given.iter().enumerate() {
        if ports.iter().all(|p| p.name != *name) {
            let text = format!("the plan has no input `{name}`");
            return Err(refuse(722, text).hint(format!("its inputs are {}", Signature(ports))));
        }
        if given[..i].iter().any(|(earlier, _)| earlier == name) {
            return Err(refuse(724, format!("input `{name}` is given twice")));
        }
    }
    let find = |p: &Port| {
        let found = given.iter().find(|(name, _)| *name == p.name);
        found.map(|(_, tensor)| *tensor).ok_or_else(|| {
            let text = format!("input {} is missing", Signature(std::slice::from_ref(p)));
            refuse(723, text)
        })
    };
    ports.iter().map(find).collect()
}

fn refuse(number: u16, text: String) -> Diagnostic {
    Diagnostic::error(number, Class::Input, text)
}

/// Prints `name: f32[n, 4], …`.
struct Signature<'a>(&'a [Port]);

impl fmt::Display for Signature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}[{}]", p.name, p.dtype, p.dims.join(", "))?;
        }
        Ok(())
    }
}
