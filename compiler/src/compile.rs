//! The front door: a model and options in, a plan out.
//!
//! ```text
//! import → prepare → rotate → calibrate (with data) → smooth, quantize, narrow → fuse → sections → plan
//! ```

use crate::auto;
use crate::calibrator::Calibrator;
use crate::compiled::Compiled;
use crate::cost::SharedCost;
use crate::data::Dataset;
use crate::onnx::{ImportOptions, Model, import};
use crate::options::Options;
use crate::report::{Culprits, Diagram, LayerReport, Report, SearchReport};
use crate::scratch::Scratch;
use crate::sections::{self, Lowered};
use crate::sensitivity::{OutputReport, Subject};
use qcc_codegen::lower::LowerOptions;
use qcc_cpu::{CpuExecutor, CpuOptions, Threads};
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::Module;
use qcc_ir::ledger::{Decision, Ledger, Topic};
use qcc_ir::plan::{Interface, Plan};
use qcc_passes::{
    LayerFacts, Manager, Observer, PassContext, Samples, Spilling, Statistics, layer_facts,
    pipeline,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Calibration samples on which the error of each layer is measured.
pub(crate) const ERROR_SAMPLES: usize = 8;

/// Is told how far a compilation has come, and may end it.
pub trait Progress {
    /// A stage has reached `done` of `total` steps. `false` cancels the compilation.
    fn step(&mut self, stage: &str, done: usize, total: usize) -> bool;
}

/// A progress that nobody watches.
struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &str, _: usize, _: usize) -> bool {
        true
    }
}

/// Compiles models.
///
/// ```no_run
/// use qcc::{Compiler, Options, onnx::Model};
/// let model = Model::open("model.onnx".as_ref())?;
/// let mut options = Options::default();
/// options.passes.scheme = qcc::Scheme::named("int8")?;
/// let compiled = Compiler::new(options).compile(&model, None)?;
/// compiled.write("model.qplan".as_ref())?;
/// # Ok::<(), qcc_ir::Diagnostic>(())
/// ```
pub struct Compiler<'a> {
    options: Options,
    progress: Option<&'a mut dyn Progress>,
    observer: Option<&'a mut dyn Observer>,
}

/// A float model in normal form: what is calibrated, quantized and compared with.
pub struct Prepared {
    /// The module.
    pub module: Module,
    /// What had to be assumed about the model.
    pub warnings: Vec<Diagnostic>,
    /// Hash of the model's bytes.
    pub model_hash: String,
    /// Bytes of the model's file.
    pub source_bytes: u64,
}

impl<'a> Compiler<'a> {
    /// A compiler with these options.
    pub fn new(options: Options) -> Self {
        Compiler {
            options,
            progress: None,
            observer: None,
        }
    }

    /// Sets who is told about progress.
    #[must_use]
    pub fn progress(mut self, p: &'a mut dyn Progress) -> Self {
        self.progress = Some(p);
        self
    }

    /// Sets who sees the module before and after each pass.
    #[must_use]
    pub fn observe(mut self, o: &'a mut dyn Observer) -> Self {
        self.observer = Some(o);
        self
    }

    pub(crate) fn step(&mut self, stage: &str, done: usize, total: usize) -> Result<()> {
        let goes_on = match self.progress.as_deref_mut() {
            Some(p) => p.step(stage, done, total),
            None => Silent.step(stage, done, total),
        };
        if goes_on {
            Ok(())
        } else {
            Err(Diagnostic::error(
                20,
                Class::Usage,
                format!("cancelled while at {stage}"),
            ))
        }
    }

    /// Refuses options without effect where that was asked for.
    fn accept(&self, warnings: &[Diagnostic]) -> Result<()> {
        let idle = warnings.iter().find(|w| w.class() == Class::Usage);
        match idle.filter(|_| self.options.strict) {
            Some(w) => Err(Diagnostic::error(w.number(), w.class(), w.message())
                .hint("leave it out, or leave out --strict")),
            None => Ok(()),
        }
    }

    /// Imports a model and brings it into normal form.
    ///
    /// # Errors
    /// What the importer and the passes report.
    pub fn prepare(&mut self, model: &Model) -> Result<Prepared> {
        self.step("import", 0, 1)?;
        let imported = import(
            model,
            &ImportOptions {
                symbols: self.options.symbols.clone(),
            },
        )?;
        let options = self.options.passes.clone();
        let mut ctx = PassContext::new(&options);
        let outcome =
            manager(pipeline::PREPARE, &mut self.observer)?.run(imported.module, &mut ctx)?;
        Ok(Prepared {
            module: outcome.module,
            warnings: imported.warnings,
            model_hash: model.hash(),
            source_bytes: model.bytes().len() as u64,
        })
    }

    /// Runs the float model on samples and gathers what calibration needs.
    ///
    /// # Errors
    /// When a sample does not fit the model's inputs, or a value is not finite.
    pub fn calibrate(&mut self, prepared: &Prepared, data: &Dataset) -> Result<Statistics> {
        let threads = self.options.threads;
        let mut calibrator = Calibrator::new(prepared);
        let step = &mut |done, total| self.step("calibrate", done, total);
        calibrator.feed(data, threads, step)?;
        Ok(calibrator.finish().statistics)
    }

    /// What quantization does to each layer, on the first samples if there are any.
    fn facts(
        &self,
        module: &Module,
        ctx: &PassContext<'_>,
        executor: &CpuExecutor,
        data: Option<&Dataset>,
    ) -> Result<Vec<LayerFacts>> {
        if !self.options.diagnose {
            return Ok(Vec::new());
        }
        let mut batches = Vec::new();
        if let Some(d) = data {
            for (first, count) in d.batches(ERROR_SAMPLES) {
                batches.push(d.batch(first, count)?);
            }
        }
        layer_facts(module, ctx, executor, &batches)
    }

    fn executor(&self) -> Result<CpuExecutor> {
        Ok(CpuExecutor::new(CpuOptions::streamed(Threads::new(
            self.options.threads,
        )?)))
    }

    /// Compiles a model, with calibration data if there is any.
    ///
    /// # Errors
    /// What any stage reports: the model is malformed, an op or a combination is not supported,
    /// the data does not fit, a pattern of the options matches nothing.
    pub fn compile(mut self, model: &Model, data: Option<&Dataset>) -> Result<Compiled> {
        let prepared = self.prepare(model)?;
        self.complete(prepared, data)
    }

    /// Calibrates, quantizes and lowers a prepared model. The errors of layers are measured on the
    /// first calibration samples.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn complete(mut self, mut prepared: Prepared, data: Option<&Dataset>) -> Result<Compiled> {
        let options = self.options.passes.clone();
        let mut ctx = PassContext::new(&options);
        let rotated =
            manager(pipeline::ROTATE, &mut self.observer)?.run(prepared.module, &mut ctx)?;
        prepared.module = rotated.module;
        prepared.warnings.append(&mut ctx.warnings);
        let statistics = data.map(|d| self.calibrate(&prepared, d)).transpose()?;
        self.finish(prepared, statistics, data, ctx.ledger)
    }

    /// Quantizes and lowers a prepared model with statistics that were gathered before. Weight
    /// methods that need more than statistics run on the samples; on the first of them the error
    /// of each layer is measured.
    ///
    /// # Errors
    /// As [`Compiler::compile`]; `Q0050` for a rotation, which needs statistics of its own.
    pub fn quantize(
        self,
        prepared: Prepared,
        statistics: Option<Statistics>,
        data: Option<&Dataset>,
    ) -> Result<Compiled> {
        if self.options.passes.rotate {
            let message = "a rotation changes what values hold: statistics of before do not fit";
            return Err(Diagnostic::error(50, Class::Usage, message)
                .hint("give the data itself, or leave the rotation out"));
        }
        self.finish(prepared, statistics, data, Ledger::new())
    }

    /// As [`Compiler::quantize`] for a module that is rotated if it is to be.
    fn finish(
        mut self,
        prepared: Prepared,
        statistics: Option<Statistics>,
        data: Option<&Dataset>,
        ledger: Ledger,
    ) -> Result<Compiled> {
        let targets = self.options.resolve_targets()?;
        let mut options = self.options.passes.clone();
        options.float = self.options.float_storage(&targets);
        let executor = self.executor()?;
        let chosen;
        let mut ctx = PassContext::new(&options);
        ctx.statistics = statistics;
        ctx.ledger = ledger;
        ctx.executor = Some(&executor);
        ctx.threads = self.options.threads;
        let batches = data.map(Batches::new);
        ctx.samples = batches.as_ref().map(|b| b as &dyn Samples);
        let spill = self.options.spill.as_ref();
        let scratch = spill.map(|s| Scratch::new(&s.folder));
        ctx.spilling = scratch.as_ref().zip(spill).map(|(to, s)| Spilling {
            to,
            above: s.above / 2,
        });
        let cost = SharedCost::new(&targets);
        ctx.cost = Some(&cost);
        let mut auto = None;
        let mut search = BTreeMap::new();
        if let Some(bound) = self.options.auto {
            let choice = auto::choose(&mut self, &prepared.module, &ctx, data, bound)?;
            chosen = qcc_passes::Options {
                overrides: [options.overrides.clone(), choice.overrides].concat(),
                ..options.clone()
            };
            ctx.options = &chosen;
            ctx.considered = choice.considered;
            search.insert("choose".to_string(), choice.search);
            auto = Some(choice.report);
        }
        let stages = self.stages(prepared.module, &mut ctx, &executor, data)?;
        search.insert("fuse".into(), stages.search);
        let mut warnings = prepared.warnings;
        warnings.append(&mut ctx.warnings);
        warnings.extend(idle_data(&ctx, auto.is_some()));
        self.accept(&warnings)?;
        // A choice has noted errors of all candidates, in nats.
        if auto.is_none() {
            note_errors(&mut ctx.ledger, &stages.facts);
        }
        let measured = self.compare(&stages, &ctx, &executor, data)?;
        let mut plan = Plan::new(
            String::new(),
            prepared.model_hash,
            env!("CARGO_PKG_VERSION"),
        );
        let smooth = ctx.options.smoothing(ctx.has_samples());
        plan.options = self.options.record(smooth);
        let lowering = LowerOptions {
            vendor_gemm: self.options.vendor_gemm,
        };
        let step = &mut |done, of| self.step("lower", done, of);
        let lowered = Lowered::new(plan, stages.module, &targets, lowering, step)?;
        warnings.extend(self.idle_library(&lowered.plan));
        self.accept(&warnings)?;
        let layers = LayerReport::all(
            stages.facts,
            measured.as_ref(),
            &ctx.ledger,
            &lowered.module,
            &lowered.plan,
        );
        let report = Report {
            model_hash: lowered.plan.model_hash.clone(),
            source_bytes: prepared.source_bytes,
            options: lowered.plan.options.clone(),
            culprits: Culprits::of(&layers),
            layers,
            output: measured.map(|(output, _)| output),
            targets: lowered.reports,
            auto,
            search,
            diagram: stages.diagram,
            warnings,
        };
        Ok(Compiled {
            plan: lowered.plan,
            ledger: ctx.ledger,
            report,
            texts: lowered.texts,
            module: lowered.module,
        })
    }

    /// Smooths, quantizes, narrows and fuses.
    fn stages(
        &mut self,
        module: Module,
        ctx: &mut PassContext<'_>,
        executor: &CpuExecutor,
        data: Option<&Dataset>,
    ) -> Result<Stages> {
        self.step("quantize", 0, 2)?;
        let steps = pipeline::QUANTIZE;
        let (before, after) = steps.split_at(position(steps, "quantize"));
        let smoothed = manager(before, &mut self.observer)?
            .run(module, ctx)?
            .module;
        let facts = self.facts(&smoothed, ctx, executor, data)?;
        self.step("quantize", 1, 2)?;
        let (codes, fusion) = after.split_at(position(after, "fuse"));
        let unfused = manager(codes, &mut self.observer)?
            .run(smoothed.clone(), ctx)?
            .module;
        let outcome = manager(fusion, &mut self.observer)?.run(unfused.clone(), ctx)?;
        let time = outcome.runs.first().map_or(Duration::ZERO, |r| r.time);
        Ok(Stages {
            diagram: Diagram::of(&unfused, &outcome.module),
            search: SearchReport::new(&ctx.fusion, time),
            smoothed,
            facts,
            module: outcome.module,
        })
    }

    /// What the whole loses on the first samples, and the share of each layer, if that is asked for.
    fn compare(
        &mut self,
        stages: &Stages,
        ctx: &PassContext<'_>,
        executor: &CpuExecutor,
        data: Option<&Dataset>,
    ) -> Result<Option<(OutputReport, Vec<Option<f64>>)>> {
        let subject = Subject {
            float: &stages.smoothed,
            compiled: &stages.module,
            ctx,
            executor,
            layers: &stages.facts,
        };
        let data = data.filter(|d| self.options.diagnose && !d.is_empty());
        let mut step = |done, of| self.step("compare", done, of);
        data.map(|d| subject.measure(d, &mut step)).transpose()
    }

    /// Says so where cuBLASLt was asked for and multiplies nothing.
    fn idle_library(&self, plan: &Plan) -> Option<Diagnostic> {
        let idle = self.options.vendor_gemm && !sections::has_products(plan);
        let message = "--vendor-gemm has no effect: no linear layer of a GPU section is one that \
                       the library multiplies";
        idle.then(|| Diagnostic::warning(48, Class::Usage, message))
    }
}

/// A module that was quantized and fused, and what was noted on the way.
struct Stages {
    /// The float module, as `quantize` was given it.
    smoothed: Module,
    facts: Vec<LayerFacts>,
    module: Module,
    diagram: Option<Diagram>,
    search: SearchReport,
}

/// Says so where there are statistics and nothing is quantized.
fn idle_data(ctx: &PassContext<'_>, auto: bool) -> Option<Diagnostic> {
    let quantized = |d: &Decision| d.topic == Topic::Scheme && d.chosen != "float";
    let any = ctx.ledger.decisions().iter().any(quantized);
    let idle = ctx.statistics.is_some() && !auto && !any;
    let message = "calibration data has no effect: nothing is quantized";
    idle.then(|| Diagnostic::warning(48, Class::Usage, message))
}

/// Adds to each scheme that was chosen the error that it was measured to have.
fn note_errors(ledger: &mut Ledger, facts: &[LayerFacts]) {
    for (f, m) in facts.iter().filter_map(|f| Some((f, f.measured.as_ref()?))) {
        let Some(mut d) = ledger.find(&f.layer, Topic::Scheme).cloned() else {
            continue;
        };
        let chosen = d.considered.iter_mut().filter(|c| c.candidate == f.scheme);
        chosen.for_each(|c| c.error = Some(m.relative_mse));
        ledger.record(d);
    }
}

/// Where a pass stands among steps.
fn position(steps: &[pipeline::Step], name: &str) -> usize {
    steps.iter().position(|(n, _)| *n == name).unwrap_or(0)
}

/// A data set in batches.
struct Batches<'a> {
    data: &'a Dataset,
    /// The first sample of each and how many there are.
    spans: Vec<(usize, usize)>,
}

impl<'a> Batches<'a> {
    fn new(data: &'a Dataset) -> Self {
        let spans = data.batches(data.len()).collect();
        Batches { data, spans }
    }
}

impl Samples for Batches<'_> {
    fn batches(&self) -> usize {
        self.spans.len()
    }

    fn batch(&self, index: usize) -> Result<Vec<Tensor>> {
        let (first, count) = self.spans[index];
        self.data.batch(first, count)
    }
}

/// A manager of these steps, watched by the observer if there is one.
fn manager<'o>(
    steps: &[pipeline::Step],
    observer: &'o mut Option<&mut dyn Observer>,
) -> Result<Manager<'o>> {
    let m = Manager::new(pipeline::passes(steps)?);
    Ok(match observer.as_deref_mut() {
        Some(o) => m.observe(o),
        None => m,
    })
}

/// The inputs and outputs of a prepared model.
///
/// # Errors
/// As [`Interface::of`].
pub fn interface(p: &Prepared) -> Result<Interface> {
    Interface::of(&p.module)
}
