//! Calibration data on its way through a module, layer by layer.
//!
//! Every sample is run once, in pieces: from one group of layers (those that read the same value)
//! to the next. Between the pieces only the values that later ops need are held. The caller sees
//! the input of each group before the group runs, and may give its layers other weights, with
//! which everything behind them is then computed: so a weight method sees the inputs that the
//! quantized model will have. A replaced weight is forgotten when its layer has run, and what
//! exceeds a limit of memory is spilled ([`spill`](crate::spill)): what is held does not grow with
//! the number of layers.
//!
//! Batches are run in order and each gives its own results, so nothing depends on threads.

use super::assign::Assigned;
use super::part::{Part, Swap, is_source};
use crate::spill::{Held, Spilling};
use qcc_ir::Tensor;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::exec::{Executor, Prepared};
use qcc_ir::format::decode_slice;
use qcc_ir::graph::{Def, Func, Module, OpId, OpKind, ValueId, Weight, WeightData};
use std::collections::{BTreeMap, BTreeSet};

/// Calibration data in batches.
pub trait Samples {
    /// How many batches there are.
    fn batches(&self) -> usize;

    /// One tensor for each parameter of the entry function.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn batch(&self, index: usize) -> Result<Vec<Tensor>>;
}

/// Layers that read the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// What they read.
    pub(crate) input: ValueId,
    /// Their positions in the list that was given.
    pub(crate) members: Vec<usize>,
    /// How many ops of the function must have run before the input is known.
    after: usize,
}

impl Group {
    /// What the ledger calls it: the nodes that make its input, or the input's name.
    pub(crate) fn site(&self, f: &Func) -> String {
        maker_name(f, self.input)
    }
}

/// The nodes that make a value, or the value's name.
pub(crate) fn maker_name(f: &Func, v: ValueId) -> String {
    match f.def_op(v) {
        Some(op) if !op.loc.nodes.is_empty() => op.loc.to_string(),
        _ => f.value(v).name.clone(),
    }
}

/// The linear layers among those given, by their input, in the order in which inputs are computed.
pub(crate) fn groups(f: &Func, layers: &[Assigned]) -> Vec<Group> {
    let mut by_input: BTreeMap<(usize, ValueId), Vec<usize>> = BTreeMap::new();
    for (i, l) in layers.iter().enumerate().filter(|(_, l)| !l.site.conv) {
        let after = match f.value(l.site.input).def {
            Def::Param(_) => 0,
            Def::Result(op, _) => op.index() + 1,
        };
        by_input.entry((after, l.site.input)).or_default().push(i);
    }
    let group = |((after, input), members)| Group {
        input,
        members,
        after,
    };
    by_input.into_iter().map(group).collect()
}

/// What is seen of a group's input in one batch.
pub(crate) struct Seen<'a> {
    /// The input.
    x: &'a Tensor,
    /// `XᵀX` of its rows, row-major; nothing if it was not asked for.
    gram: &'a [f32],
    /// Which positions a mask leaves, where each has equally many rows.
    keep: Option<Vec<bool>>,
}

impl Seen<'_> {
    /// Adds `XᵀX` to that of earlier batches.
    pub(crate) fn add_gram(&self, sum: &mut Vec<f64>) {
        sum.resize(self.gram.len(), 0.0);
        let products = sum.iter_mut().zip(self.gram);
        products.for_each(|(sum, v)| *sum += f64::from(*v));
    }

    /// The rows that no mask excludes, one after another.
    pub(crate) fn rows(&self, channels: usize) -> Result<Vec<f32>> {
        let all = floats(self.x)?;
        let Some(keep) = self.keep.as_ref().filter(|k| !k.is_empty()) else {
            return Ok(all);
        };
        let channels = channels.max(1);
        let each = (all.len() / channels / keep.len()).max(1) * channels;
        let rows = all.chunks(each).zip(keep).filter(|(_, k)| **k);
        Ok(rows.flat_map(|(r, _)| r).copied().collect())
    }
}

/// The samples at a place of the function.
pub(crate) struct Stream<'a> {
    module: Module,
    executor: &'a dyn Executor,
    /// Values that later ops need, by batch; the parameters always.
    states: Vec<BTreeMap<ValueId, Held>>,
    spilling: Option<Spilling<'a>>,
    known: BTreeSet<ValueId>,
    swaps: BTreeMap<OpId, Swap>,
    mask: Option<ValueId>,
}

impl<'a> Stream<'a> {
    /// All samples at the beginning of the entry function.
    ///
    /// # Errors
    /// When the data cannot be read.
    pub(crate) fn new(
        module: &Module,
        executor: &'a dyn Executor,
        samples: &dyn Samples,
        spilling: Option<Spilling<'a>>,
    ) -> Result<Self> {
        let params = &module.funcs[0].params;
        let mut states = Vec::with_capacity(samples.batches());
        for i in 0..samples.batches() {
            let given = samples.batch(i)?.into_iter().map(Held::Here);
            states.push(params.iter().copied().zip(given).collect());
        }
        Ok(Stream {
            mask: crate::calibrate::mask(&module.funcs[0]).map(|i| params[i]),
            module: module.clone(),
            executor,
            states,
            spilling,
            known: BTreeSet::new(),
            swaps: BTreeMap::new(),
        })
    }

    /// Batches.
    pub(crate) fn batches(&self) -> usize {
        self.states.len()
    }

    /// Runs up to a group's input and shows it, batch by batch, with `XᵀX` if `gram` is asked for.
    ///
    /// # Errors
    /// What the executor or `see` reports.
    pub(crate) fn advance(
        &mut self,
        group: &Group,
        gram: bool,
        see: &mut dyn FnMut(Seen<'_>) -> Result<()>,
    ) -> Result<()> {
        let f = &self.module.funcs[0];
        let keep = needed_later(f, group);
        let fresh: Vec<ValueId> = keep.difference(&self.known).copied().collect();
        let mut wanted = fresh.clone();
        wanted.push(group.input);
        let mut part = Part::new(&self.module, &self.known, &wanted, &self.swaps)?;
        let counts = crate::calibrate::has_row_per_position(f, group.input);
        let mask = self.mask.filter(|_| counts);
        let mut results = Vec::with_capacity(wanted.len() + 1);
        for v in &wanted {
            results.push(part.value(f, *v)?);
        }
        if gram {
            results.push(part.gram(f, group.input, mask)?);
        }
        let inputs = part.inputs.clone();
        let part = part.finish(&results);
        let mut ready = self.executor.prepare(&part, &[])?;
        let mut used: u64 = self
            .states
            .iter()
            .flat_map(BTreeMap::values)
            .map(Held::bytes)
            .sum();
        for state in &mut self.states {
            let given = arguments(f, state, &inputs)?;
            let mut out = ready.run(&given, &mut |_, _| ())?;
            let gram = gram.then(|| out.pop()).flatten();
            let x = out.pop().ok_or_else(|| missing("a result"))?;
            let mask = mask.and_then(|m| state.get(&m)).map(Held::tensor);
            see(Seen {
                x: &x,
                gram: gram.as_ref().map_or(Ok(&[][..]), Tensor::as_slice)?,
                keep: mask
                    .transpose()?
                    .as_ref()
                    .map(crate::calibrate::positions)
                    .transpose()?,
            })?;
            used -= state.values().map(Held::bytes).sum::<u64>();
            state.retain(|v, _| keep.contains(v) || matches!(f.value(*v).def, Def::Param(_)));
            used += state.values().map(Held::bytes).sum::<u64>();
            for (v, t) in fresh.iter().zip(out) {
                let held = Held::new(t, used, self.spilling)?;
                used += held.bytes();
                state.insert(*v, held);
            }
        }
        self.known = keep;
        self.forget(group.after);
        Ok(())
    }

    /// Drops the weights of layers that have run.
    fn forget(&mut self, after: usize) {
        let weights = &mut self.module.weights;
        self.swaps.retain(|op, swap| {
            let ahead = op.index() >= after;
            if let (false, Swap::Weight(id)) = (ahead, &*swap) {
                weights[id.index()].data = WeightData::Extern;
            }
            ahead
        });
    }

    /// From here on, a layer has this weight.
    pub(crate) fn replace(&mut self, layer: OpId, weight: Weight) {
        let id = self.module.add_weight(weight);
        self.swaps.insert(layer, Swap::Weight(id));
    }

    /// The function from where the samples are to these values, the weights of `layers` (which
    /// come in the order of their ops) being arguments.
    ///
    /// # Errors
    /// When a value does not follow.
    pub(crate) fn block(&self, layers: &[OpId], outputs: &[ValueId]) -> Result<Block> {
        let mut swaps = self.swaps.clone();
        swaps.extend(layers.iter().map(|l| (*l, Swap::Param)));
        let part = Part::new(&self.module, &self.known, outputs, &swaps)?;
        let f = &self.module.funcs[0];
        let results: Result<Vec<ValueId>> = outputs.iter().map(|v| part.value(f, *v)).collect();
        Ok(Block {
            inputs: part.inputs.clone(),
            module: part.finish(&results?),
        })
    }

    /// The arguments of a block in one batch, without the weights.
    ///
    /// # Errors
    /// When the block is one of another place.
    pub(crate) fn arguments(&self, block: &Block, batch: usize) -> Result<Vec<Tensor>> {
        arguments(&self.module.funcs[0], &self.states[batch], &block.inputs)
    }

    /// Makes a module of a block ready to run.
    ///
    /// # Errors
    /// What the executor reports.
    pub(crate) fn prepare<'b>(&self, module: &'b Module) -> Result<Box<dyn Prepared + 'b>> {
        self.executor.prepare(module, &[])
    }

    /// Makes a module of a block ready to run often: its weights are held if the limit of memory
    /// allows it.
    ///
    /// # Errors
    /// What the executor reports.
    pub(crate) fn hold<'b>(&self, module: &'b Module) -> Result<Box<dyn Prepared + 'b>> {
        match self.spilling {
            Some(s) if constant_bytes(module) > s.above => self.executor.prepare(module, &[]),
            _ => self.executor.hold(module, &[]),
        }
    }
}

/// A function of values at a place and of weights.
pub(crate) struct Block {
    inputs: Vec<ValueId>,
    module: Module,
}

impl Block {
    /// The function as a module.
    pub(crate) fn module(&self) -> &Module {
        &self.module
    }
}

/// Bytes that the weights of a module's entry function take, in f32 where they are narrower.
fn constant_bytes(m: &Module) -> u64 {
    let sources = m.funcs[0].ops.iter().filter_map(|op| match op.kind {
        OpKind::Const { weight, .. } => {
            let w = m.weight(weight);
            w.byte_len().max(w.numel().and_then(|n| n.checked_mul(4)))
        }
        _ => None,
    });
    sources.fold(0, u64::saturating_add)
}

/// Values defined before the group's layers run that an op behind them, or a result, reads. The
/// group's input is one of them as long as anything reads it.
fn needed_later(f: &Func, group: &Group) -> BTreeSet<ValueId> {
    let before = |v: &ValueId| match f.value(*v).def {
        Def::Param(_) => false,
        Def::Result(op, _) => op.index() < group.after && !is_source(f, *v),
    };
    let read = f.ops[group.after..].iter().flat_map(|op| &op.operands);
    let returned = f.results.iter().map(|(_, v)| v);
    read.chain(returned)
        .filter(|v| before(v))
        .copied()
        .collect()
}

fn arguments(f: &Func, state: &BTreeMap<ValueId, Held>, inputs: &[ValueId]) -> Result<Vec<Tensor>> {
    let get = |v: &ValueId| {
        let name = || missing(&format!("%{}", f.value(*v).name));
        state.get(v).ok_or_else(name)?.tensor()
    };
    f.params.iter().chain(inputs).map(get).collect()
}

fn missing(what: &str) -> Diagnostic {
    Diagnostic::error(914, Class::Internal, format!("{what} is missing"))
}

/// The elements of a float tensor as f32.
///
/// # Errors
/// When it holds none.
pub(crate) fn floats(t: &Tensor) -> Result<Vec<f32>> {
    let mut v = vec![0.0; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v)
        .map_err(|e| Diagnostic::error(520, Class::Input, e.to_string()))?;
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spill::Spill;
    use crate::testing::{Held as Batches, Oracle, module};
    use qcc_ir::graph::WeightBytes;
    use std::cell::Cell;
    use std::sync::Arc;

    /// The evaluator, and whether it was told to hold weights.
    #[derive(Default)]
    struct Watched(Cell<bool>);

    impl Executor for Watched {
        fn prepare<'m>(&self, m: &'m Module, taps: &[ValueId]) -> Result<Box<dyn Prepared + 'm>> {
            Oracle.prepare(m, taps)
        }

        fn hold<'m>(&self, m: &'m Module, taps: &[ValueId]) -> Result<Box<dyn Prepared + 'm>> {
            self.0.set(true);
            Oracle.prepare(m, taps)
        }
    }

    struct Nowhere;

    impl Spill for Nowhere {
        fn keep(&self, _: &[u8]) -> Result<Arc<dyn WeightBytes>> {
            Err(missing("a place"))
        }
    }

    #[test]
    fn weights_are_held_within_the_limit() {
        let m = module(
            "weight @a: f32[3, 2] = splat(1)
             weight @b: f32[5, 3] = splat(1)
             func @main(%x: f32[4, 2]) -> (y: f32[4, 5]) {
               %a: f32[3, 2] = const @a
               %h: f32[4, 3] = linear %x, %a
               %b: f32[5, 3] = const @b
               %y: f32[4, 5] = linear %h, %b
               return %y
             }",
        );
        let samples = Batches(vec![vec![Tensor::f32(&[4, 2], &[1.0; 8]).unwrap()]]);
        // 84 bytes of weights.
        for (above, held) in [(None, true), (Some(84), true), (Some(83), false)] {
            let executor = Watched::default();
            let limit = above.map(|above| Spilling {
                to: &Nowhere,
                above,
            });
            let stream = Stream::new(&m, &executor, &samples, limit).unwrap();
            let given = samples.batch(0).unwrap();
            let y = stream.hold(&m).unwrap().run(&given, &mut |_, _| ());
            assert_eq!(y.unwrap()[0].as_slice::<f32>().unwrap(), [6.0; 20]);
            assert_eq!(executor.0.get(), held, "{above:?}");
        }
    }
}
