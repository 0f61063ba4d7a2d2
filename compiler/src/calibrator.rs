//! Gathering the statistics of a model: on the CPU here, or by the caller's own runtime.

use crate::compile::Prepared;
use crate::data::Dataset;
use crate::statistics::ModelStatistics;
use qcc_cpu::{CpuExecutor, CpuOptions, Threads};
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::Module;
use qcc_passes::{HessianProbe, Point, Statistics, calibration_points};

/// Gathers statistics of a prepared model.
///
/// Samples are run with [`Calibrator::feed`]. A caller who runs the model in a runtime of his own
/// gives the values of the [tap points](Calibrator::points) to [`Calibrator::observe`]. What
/// others gathered is merged.
///
/// ```no_run
/// use qcc::{Calibrator, Compiler, Options, data::Dataset, onnx::Model};
/// let model = Model::open("model.onnx".as_ref())?;
/// let prepared = Compiler::new(Options::default()).prepare(&model)?;
/// let data = Dataset::open("calib.npy".as_ref(), &qcc::interface(&prepared)?)?;
/// let mut calibrator = Calibrator::new(&prepared);
/// calibrator.feed(&data, 4, &mut |_, _| Ok(()))?;
/// calibrator.finish().write("model.stats".as_ref())?;
/// # Ok::<(), qcc_ir::Diagnostic>(())
/// ```
pub struct Calibrator {
    module: Module,
    points: Vec<Point>,
    hessians: bool,
    seen: ModelStatistics,
}

impl Calibrator {
    /// A calibrator that has seen nothing yet.
    pub fn new(model: &Prepared) -> Self {
        Calibrator {
            module: model.module.clone(),
            points: calibration_points(&model.module),
            hessians: false,
            seen: ModelStatistics {
                model_hash: model.model_hash.clone(),
                statistics: Statistics::new(),
            },
        }
    }

    /// Whether `XᵀX` of each linear layer's input is gathered too, for GPTQ: of `c` channels,
    /// 8·c² bytes, and as much work as a layer with `c` outputs.
    #[must_use]
    pub fn hessians(mut self, gather: bool) -> Self {
        self.hessians = gather;
        self
    }

    /// The values that are looked at, in execution order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Runs samples on the CPU with this many threads. `step` is told how many samples of how
    /// many are done, and may end the run by an error.
    ///
    /// # Errors
    /// When a sample does not fit the model's inputs, or a value is not finite.
    pub fn feed(
        &mut self,
        data: &Dataset,
        threads: usize,
        step: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let executor = CpuExecutor::new(CpuOptions::streamed(Threads::new(threads)?));
        let probe = match self.hessians {
            true => Some(HessianProbe::new(&self.module)?),
            false => None,
        };
        let mut run = match &probe {
            Some(p) => qcc_passes::Calibrator::with_hessians(p, &executor)?,
            None => qcc_passes::Calibrator::new(&self.module, &executor)?,
        };
        for (first, count) in data.batches(data.len()) {
            step(first, data.len())?;
            run.feed(&data.batch(first, count)?)?;
        }
        self.seen.statistics.merge(&run.finish())
    }

    /// Takes in a batch of a point's rows, one after another, those left out that a mask excludes.
    ///
    /// # Errors
    /// `Q0526` when there is no such point; `Q0522` for a part of a row; `Q0523` for an element
    /// that is NaN or infinite.
    pub fn observe(&mut self, value: &str, rows: &[f32]) -> Result<()> {
        let Some(p) = self.points.iter().find(|p| p.value == value) else {
            let message = format!("no layer that can be quantized reads `{value}`");
            return Err(Diagnostic::error(526, Class::Input, message)
                .hint("`qcc calibrate --list-points` lists the values"));
        };
        self.seen.statistics.observe(value, p.channels, rows)
    }

    /// Takes over what others saw of the same model.
    ///
    /// # Errors
    /// As [`ModelStatistics::merge`].
    pub fn merge(&mut self, other: &ModelStatistics) -> Result<()> {
        self.seen.merge(other)
    }

    /// What was seen.
    pub fn finish(self) -> ModelStatistics {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Model;
    use crate::{Compiler, Options};
    use qcc_ir::exec::Executor;
    use qcc_ir::graph::ValueId;
    use std::path::Path;

    fn model() -> (Prepared, Dataset) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/models");
        let model = Model::open(&folder.join("llama.onnx")).unwrap();
        let prepared = Compiler::new(Options::default()).prepare(&model).unwrap();
        let io = crate::interface(&prepared).unwrap();
        let data = Dataset::open(&folder.join("llama.npz"), &io).unwrap();
        (prepared, data)
    }

    fn fed(prepared: &Prepared, data: &Dataset, hessians: bool) -> ModelStatistics {
        let mut c = Calibrator::new(prepared).hessians(hessians);
        c.feed(data, 1, &mut |_, _| Ok(())).unwrap();
        c.finish()
    }

    #[test]
    fn another_runtime_gives_the_same_statistics() {
        let (prepared, data) = model();
        let expected = fed(&prepared, &data, false);
        let f = &prepared.module.funcs[0];
        let mut c = Calibrator::new(&prepared);
        let names: Vec<String> = c.points().iter().map(|p| p.value.clone()).collect();
        let find = |n: &String| (0..).find(|i| f.value(ValueId(*i)).name == *n);
        let taps: Vec<ValueId> = names.iter().map(|n| ValueId(find(n).unwrap())).collect();
        let executor = CpuExecutor::new(CpuOptions::new(Threads::new(1).unwrap()));
        let mut run = executor.prepare(&prepared.module, &taps).unwrap();
        let batch = data.batch(0, data.len()).unwrap();
        run.run(&batch, &mut |i, t| {
            c.observe(&names[i], t.as_slice().unwrap()).unwrap()
        })
        .unwrap();
        let got = c.finish();
        for (name, stats) in expected.statistics.iter() {
            assert_eq!(got.statistics.get(name), Some(stats), "{name}");
        }
        assert_eq!(got.statistics.iter().count(), names.len());
    }

    #[test]
    fn what_is_no_point_or_of_another_model_is_refused() {
        let (prepared, data) = model();
        let mut c = Calibrator::new(&prepared);
        assert_eq!(c.observe("nothing", &[1.0]).unwrap_err().code(), "Q0526");
        let name = c.points()[0].value.clone();
        assert_eq!(c.observe(&name, &[1.0]).unwrap_err().code(), "Q0522");
        let mut other = fed(&prepared, &data, true);
        assert!(other.statistics.iter().all(|(_, v)| v.gram.is_some()));
        c.merge(&other).unwrap();
        other.model_hash = "another".into();
        assert_eq!(c.merge(&other).unwrap_err().code(), "Q0530");
        let mut cancelled = Calibrator::new(&prepared);
        let stop = &mut |_, _| Err(Diagnostic::error(20, Class::Usage, "cancelled"));
        let e = cancelled.feed(&data, 1, stop).unwrap_err();
        assert_eq!(e.code(), "Q0020");
    }
}
