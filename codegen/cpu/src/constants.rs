//! The constants of a function: held in memory, or read from their sources whenever an op needs
//! them.

use qcc_ir::Bundle;
use qcc_ir::diag::Result;
use qcc_ir::eval::weight_tensor;
use qcc_ir::graph::{Func, Module, OpKind, ValueId, Weight, WeightId};
use std::sync::Arc;

/// Constants by value.
pub(crate) struct Constants(Vec<Option<Constant>>);

struct Constant {
    sources: Sources,
    held: Option<Arc<Bundle>>,
}

/// The weights that make a value.
struct Sources {
    codes: Weight,
    scale: Option<Weight>,
    zero: Option<Weight>,
    global: Option<Weight>,
}

impl Sources {
    fn read(&self) -> Result<Arc<Bundle>> {
        let load = |w: &Option<Weight>| w.as_ref().map(weight_tensor).transpose();
        Ok(Arc::new(Bundle {
            codes: weight_tensor(&self.codes)?,
            scale: load(&self.scale)?,
            zero: load(&self.zero)?,
            global: load(&self.global)?,
        }))
    }
}

impl Constants {
    /// All constants of a function, none of them read.
    pub(crate) fn new(module: &Module, func: &Func) -> Self {
        let mut all: Vec<Option<Constant>> = Vec::new();
        all.resize_with(func.values.len(), || None);
        for op in &func.ops {
            let OpKind::Const {
                weight,
                scale,
                zero,
                global,
            } = op.kind
            else {
                continue;
            };
            let get = |id: WeightId| module.weight(id).clone();
            all[op.results[0].index()] = Some(Constant {
                sources: Sources {
                    codes: get(weight),
                    scale: scale.map(get),
                    zero: zero.map(get),
                    global: global.map(get),
                },
                held: None,
            });
        }
        Constants(all)
    }

    /// Reads all, to be held.
    ///
    /// # Errors
    /// When a source fails.
    pub(crate) fn hold(&mut self) -> Result<()> {
        for c in self.0.iter_mut().flatten() {
            c.held = Some(c.sources.read()?);
        }
        Ok(())
    }

    /// What is held of a value.
    pub(crate) fn held(&self, v: ValueId) -> Option<Arc<Bundle>> {
        self.0[v.index()].as_ref()?.held.clone()
    }

    /// A value that is not held, from its sources; `None` of what is no constant.
    ///
    /// # Errors
    /// When a source fails.
    pub(crate) fn read(&self, v: ValueId) -> Result<Option<Arc<Bundle>>> {
        match &self.0[v.index()] {
            Some(c) if c.held.is_none() => c.sources.read().map(Some),
            _ => Ok(None),
        }
    }

    /// Forgets a value that nothing reads any more.
    pub(crate) fn drop(&mut self, v: ValueId) {
        self.0[v.index()] = None;
    }
}
