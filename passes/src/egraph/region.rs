//! Regions: the parts of a function that can be fused independently of each other.
//!
//! A value can be fused into what reads it only where the reader works element by element: a
//! linear reads each element of its input many times and a norm needs whole rows, so what they
//! read is stored anyway. Each value gets a *stage*:
//!
//! ```text
//! stage(parameter, constant) = 0
//! lift(v)              = 0 for a constant, else stage(v) + 1
//! stage(elementwise C) = max over operands v: stage(v) if v's producer has an expression, else lift(v)
//! stage(any other op)  = max over operands v: lift(v)
//! ```
//!
//! A region is a connected set of ops of one stage; edges are elementwise reads of a value of the
//! same stage, slices of a linear's columns (they count as elementwise above), two linears
//! that read the same value, and two rotations by the same angles. Every value that enters a
//! region has a lower stage, so whatever is chosen inside regions, the whole has no cycle. The
//! price: an elementwise op whose operands differ in stage is only considered together with the deepest
//! one (for `residual + linear(…)` that is the linear, as wanted).
//!
//! A region holds no names, locations or weights: equal blocks of a model are equal regions, and
//! are solved once. Equal ops are computed once (value numbering) before regions are formed.
//! Constants, splats and dequantizes are copied into each region that reads them; a splat that is
//! only the scale of a store is a value from outside, so that layers with other scales are equal.

use qcc_ir::DimExpr;
use qcc_ir::expr::{Node, Store};
use qcc_ir::graph::{Def, Func, Op, OpId, OpKind, TensorType, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where an operand of a region's op comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    /// A value from outside.
    Leaf(u32),
    /// A result of an op of the region.
    Op(u32, u32),
}

/// A value from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leaf {
    pub(super) ty: TensorType,
    /// Whether it is a `const`.
    pub(super) constant: bool,
}

/// An op of a region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RegionOp {
    pub(super) kind: OpKind,
    pub(super) operands: Vec<Source>,
    pub(super) results: Vec<TensorType>,
    /// For each result, whether something outside of the region needs it.
    pub(super) escapes: Vec<bool>,
}

/// Everything that decides how a region is fused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Region {
    pub(super) leaves: Vec<Leaf>,
    pub(super) ops: Vec<RegionOp>,
}

/// What a region's leaves and ops are in a function.
#[derive(Clone, Debug, Default)]
pub(super) struct Binding {
    pub(super) leaves: Vec<ValueId>,
    pub(super) ops: Vec<OpId>,
}

/// A function cut into regions.
pub(super) struct Partition {
    /// By stage, then by their first ops: each reads only what earlier ones give.
    pub(super) regions: Vec<(Region, Binding)>,
    /// For each value the first one that is equal to it.
    pub(super) same: Vec<ValueId>,
}

/// Whether the op computes each result element from the operands' elements at that position.
pub(super) fn is_elementwise(kind: &OpKind) -> bool {
    matches!(
        kind,
        OpKind::Unary(_)
            | OpKind::Binary(_)
            | OpKind::Select
            | OpKind::Cast
            | OpKind::Map(_)
            | OpKind::Quantize
            | OpKind::Dequantize
    )
}

/// Whether the op can carry an expression over what it computes.
pub(super) fn has_expression(kind: &OpKind) -> bool {
    is_elementwise(kind)
        || matches!(
            kind,
            OpKind::Linear { .. }
                | OpKind::Conv { .. }
                | OpKind::LayerNorm { .. }
                | OpKind::RmsNorm { .. }
                | OpKind::Attention { .. }
        )
}

/// First and one past the last column that a slice takes, if it takes all rows.
pub(super) fn columns(kind: &OpKind, operand: &TensorType) -> Option<(u64, u64)> {
    let OpKind::Slice {
        starts,
        ends,
        steps,
    } = kind
    else {
        return None;
    };
    let rows = operand.rank().checked_sub(1)?;
    let whole = |i: usize| starts[i].as_const() == Some(0) && ends[i] == operand.shape[i];
    let known = |d: &DimExpr| u64::try_from(d.as_const()?).ok();
    let contiguous = steps.iter().all(|s| *s == 1) && (0..rows).all(whole);
    let (first, last) = (known(starts.last()?)?, known(ends.last()?)?);
    (contiguous && first < last).then_some((first, last))
}

/// Whether the op is copied into each region that reads it.
fn is_copied(kind: &OpKind) -> bool {
    matches!(kind, OpKind::Splat { .. } | OpKind::Dequantize)
}

/// Whether operand `i` of an op is read for its values, not only as the scale or zero point of a
/// store.
fn is_data(kind: &OpKind, i: usize) -> bool {
    let Some(e) = kind.expr() else {
        return *kind != OpKind::Quantize || i == 0;
    };
    let is = |k: &u8| usize::from(*k) == i;
    let read = e.nodes.iter().any(|n| matches!(n, Node::Input(k) if is(k)));
    let param = |s: &Store| s.scale.iter().chain(&s.zero).any(is);
    read || !e.stores.iter().any(param)
}

/// Cuts a function into regions.
pub(super) fn partition(f: &Func) -> Partition {
    let same = value_numbers(f);
    let mut p = Partitioner {
        f,
        live: live(f, &same),
        same,
        stage: vec![0; f.values.len()],
        group: (0..f.ops.len()).collect(),
    };
    p.stages();
    p.unite();
    p.regions()
}

/// What equal ops have in common.
type Equal<'f> = (&'f OpKind, Vec<ValueId>, Vec<&'f TensorType>);

/// For each value the first one computed by an equal op on equal operands.
fn value_numbers(f: &Func) -> Vec<ValueId> {
    let mut same: Vec<ValueId> = (0..f.values.len() as u32).map(ValueId).collect();
    let mut seen: HashMap<Equal<'_>, &[ValueId]> = HashMap::new();
    for op in &f.ops {
        let operands = op.operands.iter().map(|v| same[v.index()]).collect();
        let types = op.results.iter().map(|r| f.ty(*r)).collect();
        let first = *seen
            .entry((&op.kind, operands, types))
            .or_insert(&op.results);
        for (r, s) in op.results.iter().zip(first) {
            same[r.index()] = *s;
        }
    }
    same
}

/// For each op, whether a result of the function depends on it when equal values are one.
fn live(f: &Func, same: &[ValueId]) -> Vec<bool> {
    let mut needed = vec![false; f.values.len()];
    for (_, v) in &f.results {
        needed[same[v.index()].index()] = true;
    }
    let mut live = vec![false; f.ops.len()];
    for (id, op) in f.ops().rev() {
        if op.results.iter().any(|r| needed[r.index()]) {
            live[id.index()] = true;
            for v in &op.operands {
                needed[same[v.index()].index()] = true;
            }
        }
    }
    live
}

struct Partitioner<'f> {
    f: &'f Func,
    same: Vec<ValueId>,
    live: Vec<bool>,
    stage: Vec<u32>,
    group: Vec<usize>,
}

impl<'f> Partitioner<'f> {
    fn same(&self, v: ValueId) -> ValueId {
        self.same[v.index()]
    }

    fn def(&self, v: ValueId) -> Option<(OpId, &'f Op)> {
        match self.f.value(self.same(v)).def {
            Def::Param(_) => None,
            Def::Result(id, _) => Some((id, &self.f.ops[id.index()])),
        }
    }

    /// The op that is fused with a reader of `v`: its definition, seen through dequantizes.
    fn producer(&self, v: ValueId) -> Option<(OpId, &'f Op)> {
        let (id, op) = self.def(v)?;
        match op.kind {
            OpKind::Dequantize => self.producer(op.operands[0]),
            _ => Some((id, op)),
        }
    }

    fn is_constant(&self, v: ValueId) -> bool {
        let kind = self.producer(v).map(|(_, op)| &op.kind);
        matches!(kind, Some(OpKind::Const { .. } | OpKind::Splat { .. }))
    }

    fn stages(&mut self) {
        for (id, op) in self.f.ops() {
            if !self.live[id.index()] || is_const(op) {
                continue;
            }
            let stage = (0..op.operands.len())
                .map(|i| self.operand_stage(op, i))
                .max();
            for r in &op.results {
                self.stage[r.index()] = stage.unwrap_or(0);
            }
        }
    }

    fn operand_stage(&self, op: &Op, i: usize) -> u32 {
        let v = op.operands[i];
        let here = self.stage[self.same(v).index()];
        if self.is_constant(v) {
            return 0;
        }
        let joins = self.joins(op, i).is_some();
        // A dequantize has the stage of what it reads.
        let through = matches!(op.kind, OpKind::Dequantize);
        if joins || through { here } else { here + 1 }
    }

    /// The op whose kernel may take in `op` as the reader of its operand `i`.
    fn joins(&self, op: &Op, i: usize) -> Option<(OpId, &'f Op)> {
        let (id, p) = self.producer(op.operands[i])?;
        let cuts = matches!(p.kind, OpKind::Linear { .. })
            && columns(&op.kind, self.f.ty(op.operands[i])).is_some();
        let element = is_elementwise(&op.kind) && is_data(&op.kind, i) && has_expression(&p.kind);
        (cuts || element).then_some((id, p))
    }

    fn root(&self, mut i: usize) -> usize {
        while self.group[i] != i {
            i = self.group[i];
        }
        i
    }

    fn join(&mut self, a: OpId, b: OpId) {
        let (a, b) = (self.root(a.index()), self.root(b.index()));
        let (lo, hi) = (a.min(b), a.max(b));
        self.group[hi] = lo;
    }

    fn stage_of(&self, op: &Op) -> u32 {
        op.results.first().map_or(0, |r| self.stage[r.index()])
    }

    fn unite(&mut self) {
        let mut linears: BTreeMap<(ValueId, u32), OpId> = BTreeMap::new();
        let mut rotaries: BTreeMap<((ValueId, ValueId), u32), OpId> = BTreeMap::new();
        for (id, op) in self.f.ops() {
            if !self.live[id.index()] {
                continue;
            }
            let stage = self.stage_of(op);
            if matches!(op.kind, OpKind::Linear { .. }) {
                let x = self.same(op.operands[0]);
                let first = *linears.entry((x, stage)).or_insert(id);
                self.join(first, id);
            }
            if matches!(op.kind, OpKind::Rotary(_)) {
                let tables = (self.same(op.operands[1]), self.same(op.operands[2]));
                let first = *rotaries.entry((tables, stage)).or_insert(id);
                self.join(first, id);
            }
            if is_copied(&op.kind) {
                continue;
            }
            for i in 0..op.operands.len() {
                if let Some((p, producer)) = self.joins(op, i)
                    && self.stage_of(producer) == stage
                {
                    self.join(p, id);
                }
            }
        }
    }

    /// Ops of a group; a copied op has one only where the function returns its value.
    fn groups(&self) -> Vec<Vec<OpId>> {
        let returned: BTreeSet<ValueId> =
            self.f.results.iter().map(|(_, v)| self.same(*v)).collect();
        let mut groups: BTreeMap<usize, Vec<OpId>> = BTreeMap::new();
        for (id, op) in self.f.ops() {
            let is_returned = op.results.iter().any(|r| returned.contains(r));
            let member = !is_const(op) && (!is_copied(&op.kind) || is_returned);
            if self.live[id.index()] && member {
                groups.entry(self.root(id.index())).or_default().push(id);
            }
        }
        let mut groups: Vec<Vec<OpId>> = groups.into_values().collect();
        groups.sort_by_key(|ops| {
            let last = |id: &OpId| {
                let op = &self.f.ops[id.index()];
                // A dequantize has the stage of what it reads.
                self.stage_of(op) + u32::from(is_copied(&op.kind))
            };
            ops.iter().map(last).max()
        });
        groups
    }

    fn regions(self) -> Partition {
        let groups = self.groups();
        let mut regions: Vec<(Region, Binding)> = Vec::new();
        for ops in &groups {
            let mut b = RegionBuilder {
                p: &self,
                members: ops.iter().copied().collect(),
                region: Region::default(),
                binding: Binding::default(),
                placed: BTreeMap::new(),
            };
            for id in ops {
                b.place(*id);
            }
            regions.push((b.region, b.binding));
        }
        let needed = self.needed_outside(&regions);
        for ((region, binding), members) in regions.iter_mut().zip(&groups) {
            for (op, id) in region.ops.iter_mut().zip(&binding.ops) {
                // What is copied into a region is not read outside of it.
                let results = &self.f.ops[id.index()].results;
                if members.contains(id) {
                    op.escapes = results.iter().map(|r| needed.contains(r)).collect();
                }
            }
        }
        Partition {
            regions,
            same: self.same,
        }
    }

    /// Values that a region other than their own reads, or that the function returns.
    fn needed_outside(&self, regions: &[(Region, Binding)]) -> BTreeSet<ValueId> {
        let returned = self.f.results.iter().map(|(_, v)| self.same(*v));
        regions
            .iter()
            .flat_map(|(_, b)| b.leaves.iter().copied())
            .chain(returned)
            .collect()
    }
}

fn is_const(op: &Op) -> bool {
    matches!(op.kind, OpKind::Const { .. })
}

struct RegionBuilder<'p, 'f> {
    p: &'p Partitioner<'f>,
    members: BTreeSet<OpId>,
    region: Region,
    binding: Binding,
    placed: BTreeMap<OpId, u32>,
}

impl RegionBuilder<'_, '_> {
    fn place(&mut self, id: OpId) -> u32 {
        if let Some(at) = self.placed.get(&id) {
            return *at;
        }
        let op = &self.p.f.ops[id.index()];
        let operands = (0..op.operands.len())
            .map(|i| self.source(op.operands[i], is_data(&op.kind, i)))
            .collect();
        self.region.ops.push(RegionOp {
            kind: op.kind.clone(),
            operands,
            results: op.results.iter().map(|r| self.p.f.ty(*r).clone()).collect(),
            escapes: vec![false; op.results.len()],
        });
        self.binding.ops.push(id);
        let at = self.region.ops.len() as u32 - 1;
        self.placed.insert(id, at);
        at
    }

    fn source(&mut self, v: ValueId, data: bool) -> Source {
        let v = self.p.same(v);
        let value = self.p.f.value(v);
        let mut constant = false;
        if let Def::Result(id, i) = value.def {
            let op = &self.p.f.ops[id.index()];
            let copied = is_copied(&op.kind) && (data || op.kind == OpKind::Dequantize);
            if self.members.contains(&id) || copied {
                return Source::Op(self.place(id), i);
            }
            constant = is_const(op);
        }
        let leaves = &mut self.binding.leaves;
        let at = leaves.iter().position(|l| *l == v).unwrap_or_else(|| {
            leaves.push(v);
            self.region.leaves.push(Leaf {
                ty: value.ty.clone(),
                constant,
            });
            leaves.len() - 1
        });
        Source::Leaf(at as u32)
    }
}
