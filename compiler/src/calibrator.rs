//! Gathering the statistics of a model: on the CPU here, or by the caller's own runtime.

use crate::compile::{BATCH, Prepared};
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
/// let data = Dataset::open("calib.npy".as_ref(), &qcc::interface(&prepared)?.inputs)?;
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
        let executor = CpuExecutor::new(CpuOptions::new(Threads::new(threads)?));
        let probe = match self.hessians {
            true => Some(HessianProbe::new(&self.module)?),
            false => None,
        };
        let mut run = match &probe {
            Some(p) => qcc_passes::Calibrator::with_hessians(p, &executor)?,
            None => qcc_passes::Calibrator::new(&self.module, &executor)?,
        };
        for first in (0..data.len()).step_by(BATCH) {
            step(first, data.len())?;
            run.feed(&data.batch(first, BATCH.min(data.len() - first))?)?;
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
