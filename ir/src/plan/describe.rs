//! What a plan says about a module: symbols, inputs, outputs, weights, and CPU steps.

use super::{
    Action, Arg, FormatVersion, ModuleEntry, Plan, Port, Step, Symbol, TargetSection, WeightEntry,
};
use crate::diag::{Class, Diagnostic, Result};
use crate::graph::{self, Func, Module, ValueId, WeightData};
use crate::plan::Arena;
use std::collections::{BTreeMap, BTreeSet};

/// What callers of a module see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Symbols with their ranges.
    pub symbols: Vec<Symbol>,
    /// Inputs, by position.
    pub inputs: Vec<Port>,
    /// Outputs, by position.
    pub outputs: Vec<Port>,
}

impl Interface {
    /// The interface of the module's entry function.
    ///
    /// # Errors
    /// `Q0411` if there is no function, or an input or output is quantized.
    pub fn of(module: &Module) -> Result<Self> {
        let func = entry(module)?;
        let port = |name: &str, v: ValueId| port(func, name, v);
        let inputs = func.params.iter().map(|v| port(&func.value(*v).name, *v));
        let outputs = func.results.iter().map(|(name, v)| port(name, *v));
        Ok(Interface {
            symbols: module.symbols.iter().map(Symbol::from).collect(),
            inputs: inputs.collect::<Result<_>>()?,
            outputs: outputs.collect::<Result<_>>()?,
        })
    }
}

impl From<&graph::Symbol> for Symbol {
    fn from(s: &graph::Symbol) -> Self {
        Symbol {
            name: s.name.clone(),
            min: s.min,
            max: s.max,
            points: s.points.clone(),
        }
    }
}

impl Plan {
    /// A plan of the current format without any module.
    pub fn new(
        model: impl Into<String>,
        model_hash: impl Into<String>,
        qcc_version: impl Into<String>,
    ) -> Self {
        Plan {
            format: FormatVersion::CURRENT,
            qcc_version: qcc_version.into(),
            model: model.into(),
            model_hash: model_hash.into(),
            options: BTreeMap::new(),
            symbols: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            modules: Vec::new(),
            weights: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Adds a module under the identifier `id`, its text in the entry `text/ID`, and its
    /// weights in row-major layout. The first module gives the interface of the plan.
    ///
    /// The modules of a plan share their weights: one name stands for the same bytes in all.
    /// Weights that the module's text lists inline need no entry.
    ///
    /// # Errors
    /// `Q0411` if the module does not fit the ones before it: another interface, a weight of
    /// the same name with another type, an identifier that is taken.
    pub fn add_module(&mut self, id: &str, module: &Module) -> Result<()> {
        let interface = Interface::of(module)?;
        if self.modules.is_empty() {
            self.symbols = interface.symbols;
            self.inputs = interface.inputs;
            self.outputs = interface.outputs;
        } else if interface != self.interface() {
            return misfit(format!(
                "module `{id}` has other inputs or outputs than the first"
            ));
        }
        if self.module(id).is_some() {
            return misfit(format!("there are two modules `{id}`"));
        }
        self.modules.push(ModuleEntry {
            id: id.to_string(),
            entry: format!("text/{id}"),
            func: entry(module)?.name.clone(),
        });
        let stored =
            |w: &&graph::Weight| matches!(w.data, WeightData::Bytes(_) | WeightData::Extern);
        module
            .weights
            .iter()
            .filter(stored)
            .try_for_each(|w| self.add_weight(w))
    }

    fn add_weight(&mut self, w: &graph::Weight) -> Result<()> {
        if let Some(there) = self.weight(&w.name, WeightEntry::ROW_MAJOR) {
            if there.dtype == w.dtype && there.dims == w.dims {
                return Ok(());
            }
            return misfit(format!(
                "weight `{}` is {}{:?} in one module and {}{:?} in another",
                w.name, there.dtype, there.dims, w.dtype, w.dims
            ));
        }
        let Some(bytes) = w.byte_len() else {
            return misfit(format!("weight `{}` is larger than 2^64 bytes", w.name));
        };
        self.weights.push(WeightEntry {
            name: w.name.clone(),
            dtype: w.dtype,
            dims: w.dims.clone(),
            layout: WeightEntry::ROW_MAJOR.to_string(),
            entry: entry_for(&w.name),
            bytes,
            source: w.name.clone(),
        });
        Ok(())
    }

    /// Gives each weight the layouts that the launches of the sections ask for; all sections must be
    /// there. A weight that no section reads as rows is held in other layouts alone: a module that is
    /// loaded unpacks it.
    pub fn lay_out_weights(&mut self) {
        let cpu = |s: &TargetSection| {
            let actions = s.steps.iter().flat_map(|s| &s.run).flat_map(|c| &c.actions);
            actions.into_iter().any(|a| *a == Action::Cpu)
        };
        let all_rows = self.targets.iter().any(cpu);
        let mut asked: BTreeSet<(&str, &str)> = BTreeSet::new();
        let steps = self.targets.iter().flat_map(|t| &t.steps);
        for action in steps.flat_map(|s| &s.run).flat_map(|c| &c.actions) {
            for arg in action.args() {
                if let Arg::Weight { name, layout } = arg {
                    asked.insert((name, layout));
                }
            }
        }
        let rows = WeightEntry::ROW_MAJOR;
        let mut weights = Vec::new();
        for w in self.weights.iter().filter(|w| w.layout == rows) {
            let others: Vec<&str> = asked
                .range((w.name.as_str(), "")..)
                .take_while(|(name, _)| *name == w.name)
                .map(|(_, layout)| *layout)
                .filter(|layout| *layout != rows)
                .collect();
            if all_rows || others.is_empty() || asked.contains(&(w.name.as_str(), rows)) {
                weights.push(w.clone());
            }
            weights.extend(others.into_iter().map(|layout| WeightEntry {
                layout: layout.to_string(),
                entry: format!("{}@{layout}", w.entry),
                ..w.clone()
            }));
        }
        self.weights = weights;
    }

    /// What callers see of the plan.
    pub fn interface(&self) -> Interface {
        Interface {
            symbols: self.symbols.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
        }
    }
}

impl TargetSection {
    /// A section in which the CPU device runs every op of the module's entry function by its
    /// own code.
    ///
    /// # Errors
    /// `Q0411` if the module has no function.
    pub fn cpu(target: &str, id: &str, module: &Module) -> Result<Self> {
        Ok(TargetSection {
            target: target.to_string(),
            module: id.to_string(),
            min_driver: None,
            steps: step_names(entry(module)?).map(Step::cpu).collect(),
            arena: Arena::default(),
            outputs: Vec::new(),
            kernels: Vec::new(),
        })
    }
}

/// The name of each op's first result, in execution order: how steps call the ops.
pub fn step_names(func: &Func) -> impl Iterator<Item = &str> {
    let first = func.ops.iter().filter_map(|op| op.results.first());
    first.map(|v| func.value(*v).name.as_str())
}

/// The entry of a weight: its name, unless that is one of the file's own.
fn entry_for(weight: &str) -> String {
    let own = ["qcc.", "text/", "weight/"]
        .iter()
        .any(|p| weight.starts_with(p));
    if own || weight == "__metadata__" {
        format!("weight/{weight}")
    } else {
        weight.to_string()
    }
}

fn entry(module: &Module) -> Result<&Func> {
    match module.funcs.first() {
        Some(func) => Ok(func),
        None => misfit("the module has no function"),
    }
}

fn port(func: &Func, name: &str, v: ValueId) -> Result<Port> {
    let ty = func.ty(v);
    let Some(dtype) = ty.elem.plain() else {
        return misfit(format!("`{name}` is quantized ({ty}) where callers see it"));
    };
    Ok(Port {
        name: name.to_string(),
        dtype,
        dims: ty.shape.iter().map(ToString::to_string).collect(),
    })
}

fn misfit<T>(message: impl Into<String>) -> Result<T> {
    Err(Diagnostic::error(411, Class::Internal, message))
}
