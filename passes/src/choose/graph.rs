//! Which choices meet in which kernels.
//!
//! A *group* is the layers that read one value: they share its quantized copies, and those of one
//! scheme may be merged into one product. A *factor* is a part of the function that is fused
//! independently of the rest (a region of [`egraph`](crate::egraph)): its time depends on the
//! schemes of the layers in it and on the formats in which groups want the values that it makes.
//!
//! ```text
//! time(choices) = Σ over factors: price(factor, choices of the groups in it and after it)
//! ```
//!
//! So precision and fusion are chosen together, though each factor is searched by itself: what is
//! fused, merged and shared inside of a factor is decided anew for each choice of its groups.
//!
//! Preconditions: floats have the formats in which they will be stored (`narrow-floats` has run),
//! and layers have not been quantized.

use super::menu::Item;
use crate::egraph::{Part, parts};
use crate::quantize::{Acts, Quantized, Site};
use qcc_ir::DType;
use qcc_ir::graph::{Builder, Def, Func, Op, OpId, OpKind, TensorType, ValueId, WeightId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Layers that read one value.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) input: ValueId,
    /// Positions of the layers.
    pub(super) sites: Vec<usize>,
    /// Whether something that is no layer needs the value as it is.
    read_elsewhere: bool,
}

/// A part of the function with the groups on which its price depends.
pub(super) struct Factor {
    part: Part,
    /// Groups with layers in it.
    own: Vec<usize>,
    /// Groups that read a value which it makes.
    feeds: Vec<usize>,
}

impl Factor {
    /// All groups on which its price depends, in order.
    pub(super) fn scope(&self) -> Vec<usize> {
        let all: BTreeSet<usize> = self.own.iter().chain(&self.feeds).copied().collect();
        all.into_iter().collect()
    }
}

/// The groups and factors of a function.
pub(super) struct Graph<'m> {
    f: &'m Func,
    same: Vec<ValueId>,
    /// The op of each layer, and the reverse.
    ops: Vec<OpId>,
    layers: HashMap<OpId, usize>,
    pub(super) groups: Vec<Group>,
    pub(super) factors: Vec<Factor>,
    /// For each group the factors whose price depends on it.
    pub(super) around: Vec<Vec<usize>>,
}

impl<'m> Graph<'m> {
    /// Cuts a function whose layers are these.
    pub(super) fn new(f: &'m Func, sites: &[Site]) -> Self {
        let (parts, same) = parts(f);
        let mut by_input: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
        for (i, s) in sites.iter().enumerate() {
            by_input.entry(same[s.input.index()]).or_default().push(i);
        }
        let layers: HashMap<OpId, usize> =
            sites.iter().enumerate().map(|(i, s)| (s.op, i)).collect();
        let mut elsewhere: BTreeSet<ValueId> =
            f.results.iter().map(|(_, v)| same[v.index()]).collect();
        for (id, op) in f.ops() {
            let first = usize::from(layers.contains_key(&id));
            elsewhere.extend(op.operands.iter().skip(first).map(|v| same[v.index()]));
        }
        let groups: Vec<Group> = by_input
            .into_iter()
            .map(|(input, sites)| Group {
                read_elsewhere: elsewhere.contains(&input),
                input,
                sites,
            })
            .collect();
        let mut g = Graph {
            f,
            same,
            ops: sites.iter().map(|s| s.op).collect(),
            layers,
            groups,
            factors: Vec::new(),
            around: Vec::new(),
        };
        g.factors = g.connect(parts);
        g.around = vec![Vec::new(); g.groups.len()];
        for (i, factor) in g.factors.iter().enumerate() {
            factor
                .scope()
                .into_iter()
                .for_each(|at| g.around[at].push(i));
        }
        g
    }

    fn connect(&self, parts: Vec<Part>) -> Vec<Factor> {
        let mut group_of = HashMap::new();
        for (g, group) in self.groups.iter().enumerate() {
            group_of.extend(group.sites.iter().map(|s| (*s, g)));
        }
        let mut fed = vec![false; self.groups.len()];
        let mut factors = Vec::new();
        for part in parts {
            let layers = part.ops.iter().filter_map(|id| self.layers.get(id));
            let own: BTreeSet<usize> = layers.map(|s| group_of[s]).collect();
            let made = |v: ValueId| part.needed.contains(&v);
            let feeds: Vec<usize> = (0..self.groups.len())
                .filter(|g| made(self.groups[*g].input))
                .collect();
            feeds.iter().for_each(|g| fed[*g] = true);
            factors.push(Factor {
                part,
                own: own.into_iter().collect(),
                feeds,
            });
        }
        // A parameter is quantized by a kernel of its own.
        let alone = (0..self.groups.len()).filter(|g| !fed[*g]).map(|g| Factor {
            part: Part {
                ops: Vec::new(),
                needed: Vec::new(),
            },
            own: Vec::new(),
            feeds: vec![g],
        });
        factors.extend(alone.collect::<Vec<_>>());
        factors
    }

    /// A factor as a function of its own, where each layer has been given an item of its menu.
    pub(super) fn sketch(&self, factor: &Factor, items: &[&Item]) -> Func {
        let mut s = Sketch::new(self.f);
        let mut ops = factor.part.ops.clone();
        ops.sort_unstable();
        for id in ops {
            let op = &self.f.ops[id.index()];
            let quantized = self.layers.get(&id).and_then(|l| items[*l].quantized);
            s.op(self, op, quantized.as_ref());
        }
        let mut results = Vec::new();
        for v in &factor.part.needed {
            let group = factor
                .feeds
                .iter()
                .map(|g| &self.groups[*g])
                .find(|g| g.input == *v);
            if group.is_none_or(|g| self.needs_plain(g, items)) {
                results.push(s.value(*v));
            }
        }
        for g in &factor.feeds {
            let group = &self.groups[*g];
            let mut seen: Vec<Acts> = Vec::new();
            for a in group.sites.iter().filter_map(|i| items[*i].quantized?.acts) {
                if !seen.contains(&a) {
                    seen.push(a);
                    results.push(s.quantize(group.input, &a));
                }
            }
        }
        s.finish(results)
    }

    fn needs_plain(&self, g: &Group, items: &[&Item]) -> bool {
        let reads = |i: &usize| items[*i].quantized.is_none_or(|q| q.acts.is_none());
        g.read_elsewhere || g.sites.iter().any(reads)
    }

    /// A layer by itself, its activation quantized by a kernel of its own.
    pub(super) fn alone(&self, site: usize, item: &Item) -> Func {
        let op = &self.f.ops[self.ops[site].index()];
        let mut s = Sketch::new(self.f);
        let quantized = item.quantized.as_ref();
        if let Some(a) = quantized.and_then(|q| q.acts.as_ref()) {
            s.quantize(self.same[op.operands[0].index()], a);
        }
        s.op(self, op, quantized);
        let results = op.results.iter().map(|r| s.value(*r)).collect();
        s.finish(results)
    }
}

/// A function that is made of ops of another, as far as prices go: constants have types only.
struct Sketch<'m> {
    f: &'m Func,
    b: Builder,
    map: HashMap<ValueId, ValueId>,
    /// Quantized parameters by source value and type.
    codes: HashMap<(ValueId, TensorType), ValueId>,
    constants: u32,
}

impl<'m> Sketch<'m> {
    fn new(f: &'m Func) -> Self {
        Sketch {
            f,
            b: Builder::new("sketch"),
            map: HashMap::new(),
            codes: HashMap::new(),
            constants: 0,
        }
    }

    fn op(&mut self, g: &Graph<'_>, op: &Op, quantized: Option<&Quantized>) {
        let mut operands = Vec::with_capacity(op.operands.len());
        for (i, v) in op.operands.iter().enumerate() {
            let v = g.same[v.index()];
            operands.push(match (i, quantized) {
                (0, Some(Quantized { acts: Some(a), .. })) => self.codes(v, a),
                (1, Some(q)) => {
                    let from = self.f.ty(v);
                    let quant = q.weights.quant_type(from.rank(), false);
                    self.constant(TensorType::quant(quant, from.shape.clone()))
                }
                _ => self.value(v),
            });
        }
        let types = op.results.iter().map(|r| self.f.ty(*r).clone()).collect();
        let results = self.b.push(op.kind.clone(), &operands, types, &[]);
        self.map.extend(op.results.iter().copied().zip(results));
    }

    /// A value as it is: made here, or a constant, or a parameter.
    fn value(&mut self, v: ValueId) -> ValueId {
        if let Some(known) = self.map.get(&v) {
            return *known;
        }
        let ty = self.f.ty(v).clone();
        let constant = match self.f.value(v).def {
            Def::Param(_) => false,
            Def::Result(id, _) => matches!(self.f.ops[id.index()].kind, OpKind::Const { .. }),
        };
        let new = match constant {
            true => self.constant(ty),
            false => self.b.param("", ty),
        };
        self.map.insert(v, new);
        new
    }

    fn constant(&mut self, ty: TensorType) -> ValueId {
        // Only that it differs from the others matters.
        let weight = WeightId(self.constants);
        self.constants += 1;
        let kind = OpKind::Const {
            weight,
            scale: None,
            zero: None,
            global: None,
        };
        self.b.op(kind, &[], ty)
    }

    fn quant_type(&self, v: ValueId, a: &Acts) -> TensorType {
        let from = self.f.ty(v);
        let q = a.spec.quant_type(from.rank(), a.scale.is_none());
        TensorType::quant(q, from.shape.clone())
    }

    /// The codes of a value that another factor quantizes.
    fn codes(&mut self, v: ValueId, a: &Acts) -> ValueId {
        let ty = self.quant_type(v, a);
        if let Some(known) = self.codes.get(&(v, ty.clone())) {
            return *known;
        }
        let new = self.b.param("", ty.clone());
        self.codes.insert((v, ty), new);
        new
    }

    /// Quantizes a value here.
    fn quantize(&mut self, v: ValueId, a: &Acts) -> ValueId {
        let ty = self.quant_type(v, a);
        let mut operands = vec![self.value(v)];
        if a.scale.is_some() {
            operands.push(self.constant(TensorType::new(DType::F32, [])));
        }
        let new = self.b.op(OpKind::Quantize, &operands, ty.clone());
        self.codes.insert((v, ty), new);
        new
    }

    fn finish(self, results: Vec<ValueId>) -> Func {
        self.b.finish(results.into_iter().map(|v| ("", v)))
    }
}
