//! Replay: recipes become ops of a new function.

use super::recipe::{Recipe, Ref, Step};
use super::region::{Binding, Partition};
use super::space::Value;
use super::weights::{ConstWeights, const_weights, derive};
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};
use qcc_ir::graph::{Builder, Func, Loc, Module, Op, OpId, OpKind, TensorType, ValueId, WeightId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

/// A value of the function under construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Val {
    Param(ValueId),
    Item(usize, u32),
}

/// An op of the function under construction.
struct Item {
    kind: OpKind,
    operands: Vec<Val>,
    results: Vec<TensorType>,
    names: Vec<String>,
    loc: Loc,
    /// Position in the source function of the last op that it computes.
    key: usize,
}

/// Builds the function that computes each region by its recipe. Weights made on the way are
/// added to `module`.
///
/// # Errors
/// When a recipe names what is not there, which is a defect.
pub(super) fn replay(
    module: &mut Module,
    f: &Func,
    partition: &Partition,
    recipes: &[std::rc::Rc<Recipe>],
) -> Result<Func> {
    let mut r = Replay {
        module,
        f,
        items: Vec::new(),
        known: HashMap::new(),
        values: f.params.iter().map(|p| (*p, Val::Param(*p))).collect(),
    };
    for ((_, binding), recipe) in partition.regions.iter().zip(recipes) {
        r.region(binding, recipe)?;
    }
    let results: Vec<(String, Val)> = f
        .results
        .iter()
        .map(|(name, v)| Ok((name.clone(), r.value(partition.same[v.index()])?)))
        .collect::<Result<_>>()?;
    Ok(emit(f, r.items, &results))
}

struct Replay<'a> {
    module: &'a mut Module,
    f: &'a Func,
    items: Vec<Item>,
    known: HashMap<(OpKind, Vec<Val>, Vec<TensorType>), usize>,
    /// What stands for values of the source function.
    values: BTreeMap<ValueId, Val>,
}

impl Replay<'_> {
    fn region(&mut self, binding: &Binding, recipe: &Recipe) -> Result<()> {
        let mut derived: Vec<Option<Val>> = vec![None; recipe.derived.len()];
        let mut placed: Vec<usize> = Vec::with_capacity(recipe.steps.len());
        for step in &recipe.steps {
            let operands = step
                .operands
                .iter()
                .map(|o| self.operand(binding, recipe, &mut derived, &placed, *o))
                .collect::<Result<_>>()?;
            let item = self.item(binding, step, operands);
            placed.push(self.add(item));
        }
        for (value, at) in &recipe.outputs {
            let at = self.operand(binding, recipe, &mut derived, &placed, *at)?;
            self.values.insert(self.source_value(binding, *value), at);
        }
        Ok(())
    }

    fn source_value(&self, binding: &Binding, (op, result): Value) -> ValueId {
        let id = binding.ops[op as usize];
        self.f.ops[id.index()].results[result as usize]
    }

    fn operand(
        &mut self,
        binding: &Binding,
        recipe: &Recipe,
        derived: &mut [Option<Val>],
        placed: &[usize],
        at: Ref,
    ) -> Result<Val> {
        match at {
            Ref::Leaf(l) => self.value(binding.leaves[l as usize]),
            Ref::Step(s, r) => Ok(Val::Item(placed[s as usize], r)),
            Ref::Derived(k) => {
                if let Some(v) = derived[k as usize] {
                    return Ok(v);
                }
                let v = self.derive(binding, recipe, k as usize)?;
                derived[k as usize] = Some(v);
                Ok(v)
            }
        }
    }

    /// What stands for a value of the source function: known, or a constant.
    fn value(&mut self, v: ValueId) -> Result<Val> {
        if let Some(known) = self.values.get(&v) {
            return Ok(*known);
        }
        let value = self.f.value(v);
        let made = |op: &&Op| matches!(op.kind, OpKind::Const { .. } | OpKind::Splat { .. });
        let op = self.f.def_op(v).filter(made);
        let Some(op) = op else {
            let what = format!("fusion: %{} is not computed by any region", value.name);
            return Err(Diagnostic::error(922, Class::Internal, what));
        };
        let at = self.add(Item {
            kind: op.kind.clone(),
            operands: Vec::new(),
            results: vec![value.ty.clone()],
            names: vec![value.name.clone()],
            loc: op.loc.clone(),
            key: usize::MAX,
        });
        self.values.insert(v, Val::Item(at, 0));
        Ok(Val::Item(at, 0))
    }

    fn derive(&mut self, binding: &Binding, recipe: &Recipe, k: usize) -> Result<Val> {
        let data = &recipe.derived[k];
        let leaf = |l: u32| {
            let op = self.f.def_op(binding.leaves[l as usize])?;
            const_weights(&op.kind, &self.module.weights)
        };
        let made = derive(&data.derived, &data.ty, &leaf);
        let Some(ConstWeights { tensors }) = made else {
            let what = "fusion: a merged weight has parts that are no constants";
            return Err(Diagnostic::error(923, Class::Internal, what));
        };
        let name = tensors[0]
            .as_ref()
            .map_or(String::new(), |w| w.name.clone());
        let mut ids = tensors.map(|w| w.map(|w| self.module.add_weight(w)));
        let [Some(weight), scale, zero] = [ids[0].take(), ids[1].take(), ids[2].take()] else {
            let what = "fusion: a merged weight has no codes";
            return Err(Diagnostic::error(923, Class::Internal, what));
        };
        let at = self.add(Item {
            kind: OpKind::Const {
                weight,
                scale,
                zero,
                // Weights under a global scale are not merged (`weights::rows_type`).
                global: None,
            },
            operands: Vec::new(),
            results: vec![data.ty.clone()],
            names: vec![name],
            loc: Loc::default(),
            key: usize::MAX,
        });
        Ok(Val::Item(at, 0))
    }

    fn item(&self, binding: &Binding, step: &Step, operands: Vec<Val>) -> Item {
        let ops: Vec<OpId> = step
            .origin
            .ops
            .iter()
            .map(|o| binding.ops[*o as usize])
            .collect();
        let loc = ops.iter().fold(Loc::default(), |loc, id| {
            loc.join(&self.f.ops[id.index()].loc)
        });
        let name = |v: &Option<Value>| {
            v.map_or(String::new(), |v| {
                self.f.value(self.source_value(binding, v)).name.clone()
            })
        };
        Item {
            kind: step.kind.clone(),
            operands,
            results: step.results.clone(),
            names: step.values.iter().map(name).collect(),
            loc,
            key: ops.iter().map(|id| id.index()).max().unwrap_or(0),
        }
    }

    /// Adds an op, or finds the equal one that is there.
    fn add(&mut self, item: Item) -> usize {
        let key = (
            item.kind.clone(),
            item.operands.clone(),
            item.results.clone(),
        );
        let items = &mut self.items;
        *self.known.entry(key).or_insert_with(|| {
            items.push(item);
            items.len() - 1
        })
    }
}

/// Writes the ops that the results need. An op stands where the last of the ops that it computes
/// stood, or later; a constant before its first reader.
fn emit(f: &Func, mut items: Vec<Item>, results: &[(String, Val)]) -> Func {
    let live = live(&items, results);
    for i in 0..items.len() {
        let key = items[i].key;
        for v in items[i].operands.clone() {
            match v {
                Val::Item(o, _) if live[i] && is_const(&items[o]) => {
                    items[o].key = items[o].key.min(key);
                }
                _ => {}
            }
        }
    }
    let mut b = Builder::new(f.name.clone());
    let mut made: BTreeMap<Val, ValueId> = BTreeMap::new();
    for p in &f.params {
        let v = f.value(*p);
        made.insert(Val::Param(*p), b.param(&v.name, v.ty.clone()));
    }
    for i in order(&items, &live) {
        let item = &items[i];
        // INVARIANT: the order puts what an op reads before it.
        let operands: Vec<ValueId> = item
            .operands
            .iter()
            .filter_map(|v| made.get(v).copied())
            .collect();
        let names: Vec<&str> = item.names.iter().map(String::as_str).collect();
        b.set_loc(item.loc.clone());
        let new = b.push(item.kind.clone(), &operands, item.results.clone(), &names);
        for (r, v) in new.into_iter().enumerate() {
            made.insert(Val::Item(i, r as u32), v);
        }
    }
    let named = results
        .iter()
        .filter_map(|(n, v)| Some((n.as_str(), *made.get(v)?)));
    b.finish(named)
}

fn is_const(item: &Item) -> bool {
    matches!(item.kind, OpKind::Const { .. } | OpKind::Splat { .. })
}

fn live(items: &[Item], results: &[(String, Val)]) -> Vec<bool> {
    let mut live = vec![false; items.len()];
    let mut stack: Vec<Val> = results.iter().map(|(_, v)| *v).collect();
    while let Some(v) = stack.pop() {
        if let Val::Item(i, _) = v
            && !std::mem::replace(&mut live[i], true)
        {
            stack.extend(&items[i].operands);
        }
    }
    live
}

/// A topological order of the live items, by key where the operands leave a choice.
fn order(items: &[Item], live: &[bool]) -> Vec<usize> {
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    let mut waits = vec![0usize; items.len()];
    for (i, item) in items.iter().enumerate().filter(|(i, _)| live[*i]) {
        let needs: BTreeSet<usize> = item
            .operands
            .iter()
            .filter_map(|v| match v {
                Val::Item(o, _) => Some(*o),
                Val::Param(_) => None,
            })
            .collect();
        waits[i] = needs.len();
        needs.into_iter().for_each(|o| readers[o].push(i));
    }
    let rank = |i: usize| Reverse((items[i].key, !is_const(&items[i]), i));
    let mut ready: BinaryHeap<_> = (0..items.len())
        .filter(|i| live[*i] && waits[*i] == 0)
        .map(rank)
        .collect();
    let mut out = Vec::new();
    while let Some(Reverse((_, _, i))) = ready.pop() {
        out.push(i);
        for r in &readers[i] {
            waits[*r] -= 1;
            if waits[*r] == 0 {
                ready.push(rank(*r));
            }
        }
    }
    out
}

/// Drops weights that no function names and renumbers the others.
pub(super) fn prune_weights(module: &mut Module) {
    let mut used: BTreeSet<WeightId> = BTreeSet::new();
    let consts = |op: &mut Op, f: &mut dyn FnMut(&mut WeightId)| {
        if let OpKind::Const {
            weight,
            scale,
            zero,
            global,
        } = &mut op.kind
        {
            f(weight);
            scale.iter_mut().chain(zero).chain(global).for_each(f);
        }
    };
    for op in module.funcs.iter_mut().flat_map(|f| &mut f.ops) {
        consts(op, &mut |w| {
            used.insert(*w);
        });
    }
    let new: BTreeMap<WeightId, WeightId> = used
        .iter()
        .enumerate()
        .map(|(i, w)| (*w, WeightId(i as u32)))
        .collect();
    for op in module.funcs.iter_mut().flat_map(|f| &mut f.ops) {
        consts(op, &mut |w| {
            *w = new.get(w).copied().unwrap_or(*w);
        });
    }
    let mut index = 0;
    module.weights.retain(|_| {
        index += 1;
        used.contains(&WeightId(index - 1))
    });
}
