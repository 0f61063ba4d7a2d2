//! The search space of one region: its e-graph, which classes are which values, and where every
//! e-node came from.

use super::analysis::{Graph, Tables};
use super::body::{Body, Reason};
use super::lang::{DerivedData, Node, OpData};
use super::region::{Leaf, Region, RegionOp, Source};
use super::weights::Derived;
use egg::Id;
use qcc_ir::DType;
use qcc_ir::graph::{OpKind, TensorType};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// A value of a region: an op and which of its results.
pub(super) type Value = (u32, u32);

/// What an e-node stands for: the region's ops that it computes and the rules that made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) ops: BTreeSet<u32>,
    pub(super) rules: Vec<&'static str>,
}

impl Origin {
    /// What computes the ops of both, by one more rule.
    pub(super) fn join(&self, other: &Origin, rule: &'static str) -> Origin {
        let mut o = self.clone();
        o.ops.extend(&other.ops);
        for r in other.rules.iter().chain([&rule]) {
            if !o.rules.contains(r) {
                o.rules.push(r);
            }
        }
        o
    }
}

/// An operand of an op that a rule proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arg {
    /// A class.
    Class(Id),
    /// A constant made of leaves.
    Derived(Derived, TensorType),
}

/// What a rule found: an equality.
#[derive(Clone, Debug)]
pub(super) enum Proposal {
    /// A new op gives values that are there already.
    Op(Box<NewOp>),
    /// A class is equal to one that is there already; what computes it computes these ops too.
    Same {
        class: Id,
        known: Id,
        origin: Origin,
    },
}

/// An op on these operands whose results equal these classes.
#[derive(Clone, Debug)]
pub(super) struct NewOp {
    pub(super) kind: OpKind,
    pub(super) operands: Vec<Arg>,
    pub(super) results: Vec<TensorType>,
    pub(super) equals: Vec<Id>,
    pub(super) origin: Origin,
}

/// The search space of a region.
pub(super) struct Space<'r> {
    pub(super) region: &'r Region,
    pub(super) graph: Graph,
    /// The class of each value, by op and result.
    seeds: Vec<Vec<Id>>,
    /// The class of each leaf.
    leaves: Vec<Id>,
    /// The values of each class; kept up to date by [`Space::rebuild`].
    values: BTreeMap<Id, Vec<Value>>,
    origins: BTreeMap<Node, Origin>,
    readers: BTreeMap<Value, BTreeSet<u32>>,
    /// Bodies of e-nodes, until classes change.
    bodies: RefCell<HashMap<Node, Rc<Result<Body, Reason>>>>,
    /// What rules have tried already.
    tried: RefCell<HashSet<Attempt>>,
}

/// A rule on a producer and a reader, with the results that stay.
type Attempt = (&'static str, Node, Node, Vec<bool>);

impl<'r> Space<'r> {
    /// The region's ops as they are.
    pub(super) fn new(region: &'r Region) -> Self {
        let tables = Tables {
            leaves: region.leaves.iter().map(|l| l.ty.clone()).collect(),
            ..Tables::default()
        };
        let mut graph = Graph::new(tables);
        let leaves = (0..region.leaves.len() as u32)
            .map(|i| graph.add(Node::Leaf(i)))
            .collect();
        let mut space = Space {
            region,
            graph,
            seeds: Vec::new(),
            leaves,
            values: BTreeMap::new(),
            origins: BTreeMap::new(),
            readers: BTreeMap::new(),
            bodies: RefCell::default(),
            tried: RefCell::default(),
        };
        for i in 0..region.ops.len() {
            space.seed(i as u32);
        }
        space.rebuild();
        space
    }

    fn seed(&mut self, at: u32) {
        let op = &self.region.ops[at as usize];
        let operands: Vec<Id> = op.operands.iter().map(|s| self.class_of(*s)).collect();
        for s in &op.operands {
            if let Source::Op(o, r) = s {
                self.readers.entry((*o, *r)).or_default().insert(at);
            }
        }
        if let (OpKind::Conv { expr: None, .. }, Some(Source::Leaf(l))) =
            (&op.kind, op.operands.get(2))
            && let Some(data) = column(*l, &self.region.leaves[*l as usize], op.results[0].rank())
        {
            let k = self.graph.analysis.derived.add(data);
            self.graph.add(Node::Derived(k));
        }
        let origin = Origin {
            ops: [at].into(),
            rules: Vec::new(),
        };
        let ids = self.add_op(&op.kind, operands, &op.results, origin);
        self.seeds.push(ids);
    }

    /// The class of a source; it must have been seeded.
    pub(super) fn class_of(&self, s: Source) -> Id {
        match s {
            Source::Leaf(l) => self.leaves[l as usize],
            Source::Op(o, r) => self.class((o, r)),
        }
    }

    /// The class of a value.
    pub(super) fn class(&self, (op, result): Value) -> Id {
        self.graph.find(self.seeds[op as usize][result as usize])
    }

    /// The values of a class.
    pub(super) fn values(&self, class: Id) -> &[Value] {
        self.values
            .get(&self.graph.find(class))
            .map_or(&[], Vec::as_slice)
    }

    /// Whether every reader of the class's values is among `ops`, and none escapes.
    pub(super) fn read_only_by(&self, class: Id, ops: &BTreeSet<u32>) -> bool {
        self.values(class).iter().all(|v| {
            let op = &self.region.ops[v.0 as usize];
            let inside = self.readers.get(v).is_none_or(|r| r.is_subset(ops));
            inside && !op.escapes[v.1 as usize]
        })
    }

    /// Values that something outside of the region needs, in order.
    pub(super) fn outputs(&self) -> Vec<Value> {
        let per_op = |(i, op): (usize, &RegionOp)| {
            let escaping = op.escapes.iter().enumerate().filter(|(_, e)| **e);
            escaping
                .map(|(r, _)| (i as u32, r as u32))
                .collect::<Vec<_>>()
        };
        self.region
            .ops
            .iter()
            .enumerate()
            .flat_map(per_op)
            .collect()
    }

    /// Adds an op; gives the class of each result.
    fn add_op(
        &mut self,
        kind: &OpKind,
        operands: Vec<Id>,
        results: &[TensorType],
        origin: Origin,
    ) -> Vec<Id> {
        let key = self.graph.analysis.ops.add(OpData {
            kind: kind.clone(),
            results: results.to_vec(),
        });
        let node = Node::Op(key, operands.into());
        let entry = self.origins.entry(self.canonical(&node)).or_default();
        if entry.ops.is_empty() {
            *entry = origin;
        } else if entry.rules.is_empty() && origin.rules.is_empty() {
            // Two equal ops of the region: one computes both.
            entry.ops.extend(origin.ops);
        }
        let id = self.graph.add(node);
        if results.len() == 1 {
            return vec![id];
        }
        (0..results.len() as u32)
            .map(|i| self.graph.add(Node::Proj(i, [id])))
            .collect()
    }

    /// Takes over what a rule found.
    pub(super) fn apply(&mut self, p: Proposal) {
        match p {
            Proposal::Same {
                class,
                known,
                origin,
            } => {
                let nodes = self.producers(known).into_iter();
                let nodes: Vec<Node> = nodes.map(|(_, n)| self.canonical(n)).collect();
                for n in nodes {
                    let entry = self.origins.entry(n).or_default();
                    entry.ops.extend(&origin.ops);
                    let new = origin.rules.iter().filter(|r| !entry.rules.contains(r));
                    let new: Vec<&str> = new.copied().collect();
                    entry.rules.extend(new);
                }
                self.graph.union(known, class);
            }
            Proposal::Op(new) => {
                let operands = new.operands.into_iter().map(|a| self.arg(a)).collect();
                let ids = self.add_op(&new.kind, operands, &new.results, new.origin);
                for (a, b) in ids.into_iter().zip(new.equals) {
                    self.graph.union(b, a);
                }
            }
        }
    }

    fn arg(&mut self, a: Arg) -> Id {
        match a {
            Arg::Class(id) => id,
            Arg::Derived(derived, ty) => {
                let data = DerivedData { derived, ty };
                let k = self.graph.analysis.derived.add(data);
                self.graph.add(Node::Derived(k))
            }
        }
    }

    fn canonical(&self, node: &Node) -> Node {
        egg::Language::map_children(node.clone(), |id| self.graph.find(id))
    }

    /// Restores congruence and what depends on it.
    pub(super) fn rebuild(&mut self) {
        self.graph.rebuild();
        self.bodies.get_mut().clear();
        let old = std::mem::take(&mut self.origins);
        for (node, origin) in old {
            // Of two derivations of one node the one that comes first in the order of nodes stays.
            let node = self.canonical(&node);
            self.origins.entry(node).or_insert(origin);
        }
        self.values.clear();
        for (op, results) in self.seeds.iter().enumerate() {
            for (r, id) in results.iter().enumerate() {
                let class = self.graph.find(*id);
                let list = self.values.entry(class).or_default();
                list.push((op as u32, r as u32));
            }
        }
    }

    /// Where an e-node came from; empty for leaves and projections.
    pub(super) fn origin(&self, node: &Node) -> Origin {
        self.origins
            .get(&self.canonical(node))
            .cloned()
            .unwrap_or_default()
    }

    /// The body of an e-node, or why it has none.
    pub(super) fn body(&self, node: &Node) -> Rc<Result<Body, Reason>> {
        if let Some(known) = self.bodies.borrow().get(node) {
            return known.clone();
        }
        let body = Rc::new(Body::of(self, node));
        self.bodies.borrow_mut().insert(node.clone(), body.clone());
        body
    }

    /// Whether a rule sees this pair for the first time. What it finds depends on the pair and
    /// on what stays only, so a second time gives nothing new.
    pub(super) fn first_try(
        &self,
        rule: &'static str,
        producer: &Node,
        reader: &Node,
        keep: &[bool],
    ) -> bool {
        let attempt = (rule, producer.clone(), reader.clone(), keep.to_vec());
        self.tried.borrow_mut().insert(attempt)
    }

    /// The op of an e-node.
    pub(super) fn op<'a>(&'a self, node: &'a Node) -> Option<(&'a OpData, &'a [Id])> {
        match node {
            Node::Op(k, operands) => Some((self.graph.analysis.ops.get(*k), operands)),
            _ => None,
        }
    }

    /// Every op e-node with its class, in a fixed order.
    pub(super) fn op_nodes(&self) -> Vec<(Id, &Node)> {
        let mut ids: Vec<Id> = self.graph.classes().map(|c| c.id).collect();
        ids.sort_unstable();
        ids.into_iter()
            .flat_map(|id| self.graph[id].nodes.iter().map(move |n| (id, n)))
            .filter(|(_, n)| matches!(n, Node::Op(..)))
            .collect()
    }

    /// The type of a value class.
    pub(super) fn ty(&self, class: Id) -> &TensorType {
        &self.graph[class].data.list[0]
    }

    /// The classes of an op e-node's results, given its own.
    pub(super) fn results(&self, class: Id, node: &Node) -> Vec<Id> {
        match self.op(node) {
            Some((data, _)) if data.results.len() != 1 => (0..data.results.len() as u32)
                .filter_map(|i| self.graph.lookup(Node::Proj(i, [class])))
                .collect(),
            _ => vec![class],
        }
    }

    /// The op e-nodes that give the value of a class: those in it and those it projects, each
    /// with the class that the e-node is in.
    pub(super) fn producers(&self, class: Id) -> Vec<(Id, &Node)> {
        let class = self.graph.find(class);
        let mut out = Vec::new();
        for n in &self.graph[class].nodes {
            match n {
                Node::Op(..) => out.push((class, n)),
                Node::Proj(_, [tuple]) => {
                    let tuple = self.graph.find(*tuple);
                    out.extend(self.graph[tuple].nodes.iter().map(|n| (tuple, n)));
                }
                Node::Leaf(_) | Node::Derived(_) => {}
            }
        }
        out
    }

    /// Value and format of a class that is one number everywhere.
    pub(super) fn splat(&self, class: Id) -> Option<(f64, DType)> {
        let (op, ty) = self.graph[class].nodes.iter().find_map(|n| {
            let (data, _) = self.op(n)?;
            Some((&data.kind, data.results.first()?))
        })?;
        match op {
            OpKind::Splat { value } => Some((f64::from_bits(*value), ty.elem.plain()?)),
            _ => None,
        }
    }

    /// The class that holds a vector as a column `[n, 1, …]`; see [`Derived::Column`].
    ///
    /// # Errors
    /// When the vector is no constant.
    pub(super) fn column(&self, vector: Id, rank: usize) -> Result<Id, String> {
        let missing = || "its bias is computed at run time".to_string();
        let leaf = self.leaf(vector).ok_or_else(missing)?;
        let data = column(leaf, &self.region.leaves[leaf as usize], rank);
        let key = data.and_then(|d| self.graph.analysis.derived.find(&d));
        let class = key.and_then(|k| self.graph.lookup(Node::Derived(k)));
        class.ok_or_else(missing)
    }

    /// The leaf of a class, if it is one.
    pub(super) fn leaf(&self, class: Id) -> Option<u32> {
        self.graph[class].nodes.iter().find_map(|n| match n {
            Node::Leaf(l) => Some(*l),
            _ => None,
        })
    }
}

/// A constant vector as what is added along the channels of a result of this rank.
fn column(leaf: u32, data: &Leaf, rank: usize) -> Option<DerivedData> {
    if !data.constant || data.ty.rank() != 1 || rank < 2 {
        return None;
    }
    let mut ty = data.ty.clone();
    ty.elem.plain()?;
    ty.shape.resize(rank - 1, 1.into());
    Some(DerivedData {
        derived: Derived::Column {
            leaf,
            rank: rank - 1,
        },
        ty,
    })
}
