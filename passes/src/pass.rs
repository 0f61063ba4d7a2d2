//! What a pass is and what it may know.

use crate::options::Options;
use crate::quantize::{CodedWeights, Samples};
use crate::spill::Spilling;
use crate::statistics::Statistics;
use qcc_ir::Diagnostic;
use qcc_ir::diag::Result;
use qcc_ir::exec::{CostModel, Executor};
use qcc_ir::graph::Module;
use qcc_ir::ledger::{Candidate, Ledger};
use std::collections::BTreeMap;

/// A function from module to module.
///
/// A pass holds no state between runs, reads no environment and writes nothing but its result,
/// the ledger, figures for summaries and, where it changes what a value holds, the statistics of
/// the context. Its input is valid and so is its result: the [`crate::Manager`] verifies both.
pub trait Pass {
    /// The name by which the registry and the command line know it, in kebab case.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn summary(&self) -> &'static str;

    /// Runs it.
    ///
    /// # Errors
    /// When the module cannot be treated as the options ask: with the node and the way out.
    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module>;
}

/// Everything that passes are given besides the module.
pub struct PassContext<'a> {
    /// What the user asked for.
    pub options: &'a Options,
    /// Every choice and every refusal of the passes.
    pub ledger: Ledger,
    /// What calibration saw of the module's values. A pass that changes what a value holds
    /// changes its statistics too.
    pub statistics: Option<Statistics>,
    /// Calibration data, for methods that need more than its statistics.
    pub samples: Option<&'a dyn Samples>,
    /// How much of what weight methods hold stays in memory; all without it.
    pub spilling: Option<Spilling<'a>>,
    /// What weight methods decided about the module's weights.
    pub codes: CodedWeights,
    /// By layer, the schemes among which one was chosen before; for the ledger.
    pub considered: BTreeMap<String, Vec<Candidate>>,
    /// What fusion searched, for summaries.
    pub fusion: crate::egraph::Stats,
    /// Threads; results do not depend on their number.
    pub threads: usize,
    /// What the user should know although the passes went on.
    pub warnings: Vec<Diagnostic>,
    /// Runs modules on data.
    pub executor: Option<&'a dyn Executor>,
    /// Says which ops the target can run, and how fast.
    pub cost: Option<&'a dyn CostModel>,
}

impl<'a> PassContext<'a> {
    /// A context with these options and nothing else.
    pub fn new(options: &'a Options) -> Self {
        PassContext {
            options,
            ledger: Ledger::new(),
            statistics: None,
            samples: None,
            spilling: None,
            codes: CodedWeights::default(),
            considered: BTreeMap::new(),
            fusion: Default::default(),
            threads: 1,
            warnings: Vec::new(),
            executor: None,
            cost: None,
        }
    }

    /// Whether there is calibration data to run modules on.
    pub fn has_samples(&self) -> bool {
        self.executor.is_some() && self.samples.is_some_and(|s| s.batches() > 0)
    }

    /// A context for other options, with the data and the machine of this one; nothing has been
    /// decided in it.
    pub fn with_options<'b>(&self, options: &'b Options) -> PassContext<'b>
    where
        'a: 'b,
    {
        PassContext {
            statistics: self.statistics.clone(),
            samples: self.samples,
            spilling: self.spilling,
            threads: self.threads,
            executor: self.executor,
            cost: self.cost,
            ..PassContext::new(options)
        }
    }
}
