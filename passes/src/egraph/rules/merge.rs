//! Linears that read the same activation become one.
//!
//! The candidates are enumerated: all runs of neighbouring siblings for merged columns (the
//! whole group and its parts, so that q, k, v can merge without gate and up), and pairs that one
//! elementwise op brings together for two accumulators. Each is there or refused with a reason.

use super::{Declined, Exactness::BitExact, Found, Rule};
use crate::egraph::lang::Node;
use crate::egraph::region::is_elementwise;
use crate::egraph::space::{Arg, NewOp, Origin, Proposal, Space};
use crate::egraph::weights::{Derived, Part, rows_type};
use egg::Id;
use qcc_ir::expr::{BinaryFn, Expr, Node as Step};
use qcc_ir::graph::{OpKind, TensorType};
use std::collections::BTreeMap;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "merge-columns",
        class: BitExact,
        equation: "linear(x, w₀, b₀), linear(x, w₁, b₁), … = linear(x, [w₀; w₁; …], [b₀; b₁; …]) in segments",
        find: columns,
    },
    Rule {
        name: "merge-gate-up",
        class: BitExact,
        equation: "linear(x, w₀, b₀), linear(x, w₁, b₁) = linear(x, [w₀; w₁]) { acc₀ + b₀; acc₁ + b₁ }",
        find: gate_up,
    },
];

/// Largest group of siblings of which every run of neighbours is a candidate.
const ALL_RUNS: usize = 6;

/// A linear without an expression of its own.
struct Sibling {
    class: Id,
    x: Id,
    weight: Id,
    bias: Option<Id>,
    origin: Origin,
}

/// The linears that read one activation: the forms of each, with and without its bias, by the op
/// that they come from.
type Group = BTreeMap<u32, Vec<Sibling>>;

/// All groups of more than one linear.
fn siblings(space: &Space<'_>) -> Vec<Group> {
    let mut groups: BTreeMap<Id, Group> = BTreeMap::new();
    for (class, node) in space.op_nodes() {
        let Some(s) = sibling(space, class, node) else {
            continue;
        };
        let is_linear = |op: &&u32| {
            let kind = &space.region.ops[**op as usize].kind;
            matches!(kind, OpKind::Linear { .. })
        };
        if let Some(op) = s.origin.ops.iter().find(is_linear).copied() {
            let forms = groups.entry(s.x).or_default().entry(op).or_default();
            forms.push(s);
        }
    }
    groups.into_values().filter(|g| g.len() > 1).collect()
}

/// The form of each linear that merges best: with constant weights, then with its bias.
fn best(space: &Space<'_>, group: Group) -> Vec<Sibling> {
    let worth = |s: &Sibling| (constant(space, s.weight).is_some(), s.bias.is_some());
    let forms = group.into_values();
    forms
        .filter_map(|f| f.into_iter().max_by_key(worth))
        .collect()
}

fn sibling(space: &Space<'_>, class: Id, node: &Node) -> Option<Sibling> {
    let (data, operands) = space.op(node)?;
    let OpKind::Linear {
        segments,
        accs: 1,
        expr: None,
    } = &data.kind
    else {
        return None;
    };
    segments.is_empty().then(|| Sibling {
        class,
        x: space.graph.find(operands[0]),
        weight: operands[1],
        bias: operands.get(2).copied(),
        origin: space.origin(node),
    })
}

fn columns(rule: &Rule, space: &Space<'_>, found: &mut Found) {
    for group in siblings(space) {
        let group = best(space, group);
        let n = group.len();
        let every = n <= ALL_RUNS;
        for len in (2..=n).rev().filter(|l| every || *l == n) {
            for run in group.windows(len) {
                let merged = merge_columns(rule, space, run);
                report(rule, found, run, merged);
            }
        }
    }
}

fn report(rule: &Rule, found: &mut Found, run: &[Sibling], merged: Result<Proposal, String>) {
    match merged {
        Ok(p) => found.proposals.push(p),
        Err(reason) => {
            let ops = |s: &[Sibling]| s.iter().flat_map(|s| s.origin.ops.clone()).collect();
            found.declined.push(Declined {
                readers: ops(&run[1..]),
                producers: ops(&run[..1]),
                rule: rule.name,
                reason,
            });
        }
    }
}

fn merge_columns(rule: &Rule, space: &Space<'_>, run: &[Sibling]) -> Result<Proposal, String> {
    let results: Vec<TensorType> = run.iter().map(|s| space.ty(s.class).clone()).collect();
    let lead = |t: &TensorType| (t.elem.clone(), t.shape[..t.rank() - 1].to_vec());
    if let Some(t) = results.iter().find(|t| lead(t) != lead(&results[0])) {
        return Err(format!("results differ: {} and {t}", results[0]));
    }
    let width = |t: &TensorType| {
        t.shape
            .last()
            .and_then(|d| u64::try_from(d.as_const()?).ok())
    };
    let segments: Option<Vec<u64>> = results.iter().map(width).collect();
    let segments = segments.ok_or("a number of columns is not known")?;
    let mut operands = vec![Arg::Class(run[0].x), weights(space, run)?];
    if let Some(bias) = biases(space, run, &segments)? {
        operands.push(bias);
    }
    Ok(Proposal::Op(Box::new(NewOp {
        kind: OpKind::Linear {
            segments,
            accs: 1,
            expr: None,
        },
        operands,
        results,
        equals: run.iter().map(|s| s.class).collect(),
        origin: origin(rule, run),
    })))
}

fn origin(rule: &Rule, run: &[Sibling]) -> Origin {
    let all = |o: Origin, s: &Sibling| o.join(&s.origin, rule.name);
    run.iter().fold(Origin::default(), all)
}

fn constant(space: &Space<'_>, class: Id) -> Option<u32> {
    let leaf = space.leaf(class)?;
    space.region.leaves[leaf as usize].constant.then_some(leaf)
}

/// The rows of all weights as one constant.
fn weights(space: &Space<'_>, run: &[Sibling]) -> Result<Arg, String> {
    let leaves: Option<Vec<u32>> = run.iter().map(|s| constant(space, s.weight)).collect();
    let leaves = leaves.ok_or("a weight is computed at run time")?;
    let types: Vec<&TensorType> = run.iter().map(|s| space.ty(s.weight)).collect();
    let ty = rows_type(&types)?;
    let parts = leaves.into_iter().map(Part::Leaf).collect();
    Ok(Arg::Derived(Derived::Rows(parts), ty))
}

/// The biases as one constant, zeros where there is none; `None` where none has any.
fn biases(space: &Space<'_>, run: &[Sibling], widths: &[u64]) -> Result<Option<Arg>, String> {
    let Some(some) = run.iter().find_map(|s| s.bias) else {
        return Ok(None);
    };
    let mut parts = Vec::new();
    let mut types = Vec::new();
    for (s, n) in run.iter().zip(widths) {
        match s.bias {
            Some(b) => {
                let leaf = constant(space, b).ok_or("a bias is computed at run time")?;
                parts.push(Part::Leaf(leaf));
                types.push(space.ty(b).clone());
            }
            None => {
                parts.push(Part::Zeros(*n));
                let mut ty = space.ty(some).clone();
                ty.shape = vec![i64::try_from(*n).map_err(|_| "too wide")?.into()];
                types.push(ty);
            }
        }
    }
    let ty = rows_type(&types.iter().collect::<Vec<_>>())?;
    Ok(Some(Arg::Derived(Derived::Rows(parts), ty)))
}

fn gate_up(rule: &Rule, space: &Space<'_>, found: &mut Found) {
    let readers: Vec<Vec<Id>> = space
        .op_nodes()
        .into_iter()
        .filter_map(|(_, n)| space.op(n))
        .filter(|(d, _)| is_elementwise(&d.kind))
        .map(|(_, o)| o.iter().map(|c| space.graph.find(*c)).collect())
        .collect();
    let meet = |a: &Sibling, b: &Sibling| {
        let both = [a, b].map(|s| space.graph.find(s.class));
        readers.iter().any(|r| both.iter().all(|c| r.contains(c)))
    };
    for group in siblings(space) {
        let linears: Vec<&Vec<Sibling>> = group.values().collect();
        for (i, gates) in linears.iter().enumerate() {
            let ups = || linears[i + 1..].iter().copied().flatten();
            let pairs = gates.iter().flat_map(|a| ups().map(move |b| (a, b)));
            for (a, b) in pairs.filter(|(a, b)| meet(a, b)) {
                match two_accumulators(rule, space, a, b) {
                    Ok(p) => found.proposals.push(p),
                    Err(reason) => found.declined.push(Declined {
                        readers: b.origin.ops.clone(),
                        producers: a.origin.ops.clone(),
                        rule: rule.name,
                        reason,
                    }),
                }
            }
        }
    }
}

fn two_accumulators(
    rule: &Rule,
    space: &Space<'_>,
    a: &Sibling,
    b: &Sibling,
) -> Result<Proposal, String> {
    let (ta, tb) = (space.ty(a.class), space.ty(b.class));
    if ta.shape != tb.shape {
        return Err(format!("the accumulators differ in shape: {ta} and {tb}"));
    }
    let types = [space.ty(a.weight), space.ty(b.weight)];
    let leaves = [a, b].map(|s| constant(space, s.weight));
    let [Some(wa), Some(wb)] = leaves else {
        return Err("a weight is computed at run time".into());
    };
    let rows = Derived::Rows(vec![Part::Leaf(wa), Part::Leaf(wb)]);
    let mut operands = vec![Arg::Class(a.x), Arg::Derived(rows, rows_type(&types)?)];
    let mut expr = Expr::default();
    for (k, s) in [a, b].into_iter().enumerate() {
        let mut value = expr.push(Step::Acc(k as u8));
        if let Some(bias) = s.bias {
            let b = expr.push(Step::Input(operands.len() as u8));
            operands.push(Arg::Class(bias));
            value = expr.push(Step::Binary(BinaryFn::Add, value, b));
        }
        expr.store(value);
    }
    let join = |o: Origin, s: &Sibling| o.join(&s.origin, rule.name);
    Ok(Proposal::Op(Box::new(NewOp {
        kind: OpKind::Linear {
            segments: Vec::new(),
            accs: 2,
            expr: Some(expr),
        },
        operands,
        results: vec![ta.clone(), tb.clone()],
        equals: vec![a.class, b.class],
        origin: [a, b].into_iter().fold(Origin::default(), join),
    })))
}
