//! Rebuilding functions op by op: the one way in which passes change them.
//!
//! [`rewrite`] walks each function in execution order. A rule looks at an op of the *source*
//! function and either leaves it, then it is copied, or builds something else in the *new*
//! function and says which new values stand for the op's results. A new value must have the
//! meaning and the type of the one it stands for; a pass that changes types copies for itself.
//! Ops and weights that no result needs are left out.
//!
//! Names are what users, statistics and overrides know a model by. So a replacement bears the
//! name of what it replaces, also where both exist for a while: [`Rewriter::derived`] notes the
//! name, and it is handed over once the old holder turns out not to be needed.

use crate::analysis::live_ops;
use crate::weights::{Transform, derive, uniform};
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};
use qcc_ir::graph::{
    Builder, Def, Func, Loc, Module, Op, OpId, OpKind, TensorType, ValueId, Weight, WeightId,
};
use std::collections::HashMap;

/// A function under reconstruction.
pub(crate) struct Rewriter<'m> {
    /// The function that is read.
    pub(crate) src: &'m Func,
    /// Symbols and weights of the new module; weights may be added.
    pub(crate) module: Module,
    /// The function that is written.
    pub(crate) b: Builder,
    /// Further results of the new function.
    pub(crate) more_results: Vec<(String, ValueId)>,
    users: Vec<Vec<OpId>>,
    map: Vec<Option<ValueId>>,
    wishes: Vec<Wish>,
    derived: Vec<(ValueId, Vec<Transform>, ValueId)>,
    loc: Loc,
}

/// The new values that stand for an op's results, or `None` to copy the op.
pub(crate) type Replacement = Result<Option<Vec<ValueId>>>;

/// A module with every function rebuilt.
pub(crate) struct Rewritten {
    /// The new module.
    pub(crate) module: Module,
    /// How many ops the rule replaced.
    pub(crate) replaced: usize,
}

/// What happens to each op; a closure over the two arguments of [`Rule::apply`] is one.
pub(crate) trait Rule {
    /// Called before the first op of each function.
    fn enter(&mut self, _f: &Func) {}

    /// Replaces a live op, or leaves it.
    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement;
}

impl<F: FnMut(&mut Rewriter<'_>, &Op) -> Replacement> Rule for F {
    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        self(rw, op)
    }
}

/// Rebuilds every function of `module` under `rule`.
///
/// # Errors
/// What the rule reports, at the op's location.
pub(crate) fn rewrite(module: &Module, rule: &mut dyn Rule) -> Result<Rewritten> {
    let walked = walk(module, rule)?;
    if walked.replaced == 0 {
        return Ok(Rewritten {
            module: drop_unused_weights(walked.module),
            replaced: 0,
        });
    }
    let mut module = walked.module;
    hand_over_names(&mut module, &walked.wishes);
    // A replacement may leave ops behind that nothing reads any more.
    let pruned = walk(&module, &mut |_: &mut Rewriter<'_>, _: &Op| Ok(None))?;
    Ok(Rewritten {
        module: drop_unused_weights(pruned.module),
        replaced: walked.replaced,
    })
}

/// A constant that would like to bear the names of the one it was derived from.
struct Wish {
    func: usize,
    value: ValueId,
    value_name: String,
    weight: WeightId,
    weight_name: String,
}

struct Walked {
    module: Module,
    replaced: usize,
    wishes: Vec<Wish>,
}

fn walk(module: &Module, rule: &mut dyn Rule) -> Result<Walked> {
    let mut out = Walked {
        module: Module {
            symbols: module.symbols.clone(),
            weights: module.weights.clone(),
            funcs: Vec::with_capacity(module.funcs.len()),
        },
        replaced: 0,
        wishes: Vec::new(),
    };
    for f in &module.funcs {
        rule.enter(f);
        let mut rw = Rewriter::new(f, std::mem::take(&mut out.module));
        rw.wishes = std::mem::take(&mut out.wishes);
        out.replaced += rw.run(rule)?;
        let (func, rest, wishes) = rw.finish();
        out.wishes = wishes;
        out.module = rest;
        out.module.funcs.push(func);
    }
    Ok(out)
}

/// Exchanges the names of derived constants with those of constants that are not needed.
fn hand_over_names(m: &mut Module, wishes: &[Wish]) {
    let live: Vec<Vec<bool>> = m.funcs.iter().map(live_ops).collect();
    let mut needed = vec![false; m.weights.len()];
    for (f, live) in m.funcs.iter().zip(&live) {
        for (_, op) in f.ops().filter(|(id, _)| live[id.index()]) {
            weights_of(&op.kind).for_each(|w| needed[w.index()] = true);
        }
    }
    let mut weights: HashMap<String, usize> = HashMap::new();
    for (i, w) in m.weights.iter().enumerate() {
        weights.insert(w.name.clone(), i);
    }
    for w in wishes {
        let holder = weights.get(&w.weight_name).copied();
        if let Some(h) = holder.filter(|h| needed[w.weight.index()] && !needed[*h]) {
            let given = std::mem::take(&mut m.weights[h].name);
            let spare = std::mem::replace(&mut m.weights[w.weight.index()].name, given.clone());
            m.weights[h].name = spare.clone();
            weights.insert(given, w.weight.index());
            weights.insert(spare, h);
        }
        let f = &mut m.funcs[w.func];
        let is_live = |v: ValueId, f: &Func| match f.value(v).def {
            Def::Param(_) => true,
            Def::Result(op, _) => live[w.func][op.index()],
        };
        if let Some(h) = f.find(&w.value_name)
            && is_live(w.value, f)
            && !is_live(h, f)
        {
            let given = std::mem::take(&mut f.values[h.index()].name);
            f.values[h.index()].name =
                std::mem::replace(&mut f.values[w.value.index()].name, given);
        }
    }
}

fn weights_of(kind: &OpKind) -> impl Iterator<Item = WeightId> {
    let ids = match kind {
        OpKind::Const {
            weight,
            scale,
            zero,
            global,
        } => [Some(*weight), *scale, *zero, *global],
        _ => [None; 4],
    };
    ids.into_iter().flatten()
}

/// Renumbers the weights without those that no op names.
fn drop_unused_weights(mut m: Module) -> Module {
    let mut used = vec![false; m.weights.len()];
    for op in m.funcs.iter().flat_map(|f| &f.ops) {
        weights_of(&op.kind).for_each(|w| used[w.index()] = true);
    }
    let mut next = 0;
    let renumbered: Vec<WeightId> = used
        .iter()
        .map(|u| {
            let id = WeightId(next);
            next += u32::from(*u);
            id
        })
        .collect();
    for op in m.funcs.iter_mut().flat_map(|f| &mut f.ops) {
        if let OpKind::Const {
            weight,
            scale,
            zero,
            global,
        } = &mut op.kind
        {
            let params = scale.iter_mut().chain(zero).chain(global);
            for id in std::iter::once(weight).chain(params) {
                *id = renumbered[id.index()];
            }
        }
    }
    let mut keep = used.iter();
    m.weights.retain(|_| keep.next() == Some(&true));
    m
}

impl<'m> Rewriter<'m> {
    fn new(src: &'m Func, module: Module) -> Self {
        let live = live_ops(src);
        let mut users = vec![Vec::new(); src.values.len()];
        for (id, op) in src.ops().filter(|(id, _)| live[id.index()]) {
            for v in &op.operands {
                users[v.index()].push(id);
            }
        }
        Rewriter {
            src,
            module,
            b: Builder::new(src.name.clone()),
            more_results: Vec::new(),
            users,
            map: vec![None; src.values.len()],
            wishes: Vec::new(),
            derived: Vec::new(),
            loc: Loc::default(),
        }
    }

    fn run(&mut self, rule: &mut dyn Rule) -> Result<usize> {
        let src = self.src;
        for p in &src.params {
            let v = src.value(*p);
            self.map[p.index()] = Some(self.b.param(&v.name, v.ty.clone()));
        }
        let live = live_ops(src);
        let mut replaced = 0;
        for (_, op) in src.ops().filter(|(id, _)| live[id.index()]) {
            self.set_loc(op.loc.clone());
            let results = match rule
                .apply(self, op)
                .map_err(|d| d.or_at(op.loc.to_string()))?
            {
                Some(new) => {
                    replaced += 1;
                    new
                }
                None => self.copy(op),
            };
            for (old, new) in op.results.iter().zip(results) {
                self.map[old.index()] = Some(new);
            }
        }
        Ok(replaced)
    }

    fn finish(self) -> (Func, Module, Vec<Wish>) {
        let results: Vec<(&str, ValueId)> = self
            .src
            .results
            .iter()
            .map(|(name, v)| (name.as_str(), self.get(*v)))
            .chain(
                self.more_results
                    .iter()
                    .map(|(name, v)| (name.as_str(), *v)),
            )
            .collect();
        (self.b.finish(results), self.module, self.wishes)
    }

    /// The new value that stands for one of the source function.
    pub(crate) fn get(&self, old: ValueId) -> ValueId {
        // INVARIANT: the source is valid, so what a live op reads is defined by a live op before
        // it, and every op that was walked has its results mapped.
        self.map[old.index()].expect("an operand is defined before its use")
    }

    /// The new values of an op's operands.
    pub(crate) fn operands(&self, op: &Op) -> Vec<ValueId> {
        op.operands.iter().map(|v| self.get(*v)).collect()
    }

    /// Copies an op of the source with its new operands.
    pub(crate) fn copy(&mut self, op: &Op) -> Vec<ValueId> {
        let operands = self.operands(op);
        self.b.copy_op(self.src, op, &operands)
    }

    /// Adds an op that takes the place of `op`: its result types, names and location.
    pub(crate) fn put(&mut self, op: &Op, kind: OpKind, operands: &[ValueId]) -> Vec<ValueId> {
        let types = op.results.iter().map(|r| self.src.ty(*r).clone()).collect();
        self.put_as(op, kind, operands, types)
    }

    /// As [`Rewriter::put`] with other result types. Whoever changes types sees to every reader.
    pub(crate) fn put_as(
        &mut self,
        op: &Op,
        kind: OpKind,
        operands: &[ValueId],
        types: Vec<TensorType>,
    ) -> Vec<ValueId> {
        let names: Vec<&str> = op
            .results
            .iter()
            .map(|r| self.src.value(*r).name.as_str())
            .collect();
        self.b.push(kind, operands, types, &names)
    }

    /// Adds an op on the way to the results of `op`, its own named after them with a `suffix`.
    pub(crate) fn step(
        &mut self,
        op: &Op,
        suffix: &str,
        kind: OpKind,
        operands: &[ValueId],
        ty: TensorType,
    ) -> ValueId {
        let name = match op.results.first() {
            Some(r) => format!("{}.{suffix}", self.src.value(*r).name),
            None => suffix.to_string(),
        };
        self.b.push(kind, operands, vec![ty], &[&name])[0]
    }

    /// A constant derived from the one that `source` (of the source function) is. It takes over
    /// the names of value and weight if the original is no longer needed.
    ///
    /// # Errors
    /// When `source` is no plain constant, or the transform does not fit it.
    pub(crate) fn derived(&mut self, source: ValueId, transform: Transform) -> Result<ValueId> {
        self.derived_by(source, &[transform])
    }

    /// As [`Rewriter::derived`] by several transforms, one after another.
    ///
    /// # Errors
    /// As [`Rewriter::derived`].
    pub(crate) fn derived_by(
        &mut self,
        source: ValueId,
        transforms: &[Transform],
    ) -> Result<ValueId> {
        let same = |(of, t, _): &&(ValueId, Vec<Transform>, ValueId)| {
            *of == source && t.as_slice() == transforms
        };
        if let Some((_, _, value)) = self.derived.iter().find(same) {
            return Ok(*value);
        }
        let mut new = self.plain_weight(source)?.clone();
        for t in transforms {
            new = derive(&new, t.clone())?;
        }
        let ty = TensorType::fixed(new.dtype, &new.dims);
        let value = self.successor(source, new, (None, None, None), ty)?;
        self.derived.push((source, transforms.to_vec(), value));
        Ok(value)
    }

    /// A quantized constant of the type `ty` with codes for the constant `source`; it takes over
    /// names as [`Rewriter::derived`].
    ///
    /// # Errors
    /// As [`Rewriter::derived`].
    pub(crate) fn quantized(
        &mut self,
        source: ValueId,
        codes: Weight,
        (scale, zero, global): (Weight, Option<Weight>, Option<WeightId>),
        ty: TensorType,
    ) -> Result<ValueId> {
        self.successor(source, codes, (Some(scale), zero, global), ty)
    }

    /// Adds a constant that takes the place of `source`.
    fn successor(
        &mut self,
        source: ValueId,
        weight: Weight,
        (scale, zero, global): (Option<Weight>, Option<Weight>, Option<WeightId>),
        ty: TensorType,
    ) -> Result<ValueId> {
        let weight_name = self.plain_weight(source)?.name.clone();
        let value_name = self.src.value(source).name.clone();
        let weight = self.module.add_weight(weight);
        let kind = OpKind::Const {
            weight,
            scale: scale.map(|s| self.module.add_weight(s)),
            zero: zero.map(|z| self.module.add_weight(z)),
            global,
        };
        let loc = self.def(source).map(|d| d.loc.clone()).unwrap_or_default();
        self.b.set_loc(loc);
        let value = self.b.push(kind, &[], vec![ty], &[&value_name])[0];
        self.b.set_loc(self.loc.clone());
        self.wishes.push(Wish {
            func: self.module.funcs.len(),
            value,
            value_name,
            weight,
            weight_name,
        });
        Ok(value)
    }

    /// Adds a weight.
    pub(crate) fn add_weight(&mut self, weight: Weight) -> WeightId {
        self.module.add_weight(weight)
    }

    /// Adds a weight and the op that gives its values.
    pub(crate) fn constant(&mut self, weight: Weight) -> ValueId {
        let id = self.module.add_weight(weight);
        self.b.constant(id, &self.module)
    }

    /// From now on, ops come from the places of both.
    pub(crate) fn join_loc(&mut self, first: &Op, second: &Op) {
        self.set_loc(first.loc.join(&second.loc));
    }

    /// From now on, ops come from here.
    pub(crate) fn set_loc(&mut self, loc: Loc) {
        self.loc = loc.clone();
        self.b.set_loc(loc);
    }

    /// The source op that defines a value.
    pub(crate) fn def(&self, v: ValueId) -> Option<&'m Op> {
        self.src.def_op(v)
    }

    /// Whether one operand of one op is all that needs this source value.
    pub(crate) fn single_use(&self, v: ValueId) -> bool {
        self.users[v.index()].len() == 1 && !self.src.is_result(v)
    }

    /// The number that every element of a source value is, if that is a constant of one number.
    ///
    /// # Errors
    /// When a constant cannot be read.
    pub(crate) fn uniform(&self, v: ValueId) -> Result<Option<f64>> {
        match (self.def(v).map(|d| &d.kind), self.weight_of(v)) {
            (Some(OpKind::Splat { value }), _) => Ok(Some(f64::from_bits(*value))),
            (_, Some((_, w))) => uniform(w),
            _ => Ok(None),
        }
    }

    /// The position of a source op.
    pub(crate) fn id(&self, op: &Op) -> OpId {
        // INVARIANT: every op of the graph IR has a result, and the source is valid.
        match op.results.first().map(|r| self.src.value(*r).def) {
            Some(Def::Result(id, _)) => id,
            _ => OpId(u32::MAX),
        }
    }

    /// The weight of a source value that has to be a constant without a scheme.
    ///
    /// # Errors
    /// `Q0912` when it is not.
    pub(crate) fn plain_weight(&self, v: ValueId) -> Result<&Weight> {
        self.weight_of(v).map(|(_, w)| w).ok_or_else(|| {
            let name = &self.src.value(v).name;
            let message = format!("%{name} is no plain constant");
            Diagnostic::error(912, Class::Internal, message)
        })
    }

    /// The weight of a source value that is a constant without a scheme.
    pub(crate) fn weight_of(&self, v: ValueId) -> Option<(WeightId, &Weight)> {
        match self.def(v)?.kind {
            OpKind::Const {
                weight,
                scale: None,
                zero: None,
                global: None,
            } => Some((weight, self.module.weight(weight))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{module, values};
    use qcc_ir::eval::weight_tensor;
    use qcc_ir::expr::UnaryFn;

    const TEXT: &str = r#"weight @w: f32[2] = [1.0, 2.0]
        func @main(%x: f32[2]) -> (a: f32[2], b: f32[2]) {
          %w: f32[2] = const @w
          %a: f32[2] = add %x, %w @"Add"
          %b: f32[2] = mul %x, %w @"Mul"
          return %a, %b
        }"#;

    fn halved() -> Transform {
        Transform::Scale {
            axis: 0,
            factors: vec![0.5, 0.5].into(),
            divide: false,
            dtype: qcc_ir::DType::F32,
        }
    }

    /// Halves the constant on the right of the binary ops for which `pick` holds.
    fn halve(m: &Module, pick: fn(&Op) -> bool) -> Rewritten {
        rewrite(m, &mut |rw: &mut Rewriter<'_>, op: &Op| {
            if !matches!(op.kind, OpKind::Binary(_)) || !pick(op) {
                return Ok(None);
            }
            let operands = [
                rw.get(op.operands[0]),
                rw.derived(op.operands[1], halved())?,
            ];
            Ok(Some(rw.put(op, op.kind.clone(), &operands)))
        })
        .unwrap()
    }

    #[test]
    fn a_derived_constant_takes_the_names_of_one_that_is_gone() {
        let out = halve(&module(TEXT), |_| true);
        assert_eq!(out.replaced, 2);
        let text = TEXT.replace("[1.0, 2.0]", "extern");
        assert_eq!(out.module.to_string(), module(&text).to_string());
        let w = weight_tensor(&out.module.weights[0]).unwrap();
        assert_eq!(values(&w), [0.5, 1.0]);
    }

    #[test]
    fn a_derived_constant_beside_its_source_has_a_name_of_its_own() {
        let out = halve(&module(TEXT), |op| op.loc.nodes == ["Mul"]);
        let names: Vec<&str> = out.module.weights.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(names, ["w", "w.1"]);
        assert!(qcc_ir::graph::verify(&out.module).is_empty());
    }

    #[test]
    fn an_error_is_at_the_op() {
        let e = rewrite(
            &module(TEXT),
            &mut |_: &mut Rewriter<'_>, op: &Op| match op.kind {
                OpKind::Binary(_) => Err(Diagnostic::error(1, Class::Internal, "no")),
                _ => Ok(None),
            },
        );
        assert_eq!(e.err().unwrap().place(), Some("Add"));
    }

    #[test]
    fn only_constants_have_derived_ones() {
        let e = rewrite(
            &module(TEXT),
            &mut |rw: &mut Rewriter<'_>, op: &Op| match op.operands.first() {
                Some(x) => Ok(Some(vec![rw.derived(*x, halved())?])),
                None => Ok(None),
            },
        );
        assert_eq!(e.err().unwrap().code(), "Q0912");
    }

    #[test]
    fn further_results_come_last() {
        let out = rewrite(&module(TEXT), &mut |rw: &mut Rewriter<'_>, op: &Op| {
            if op.loc.nodes == ["Add"] {
                let x = rw.get(op.operands[0]);
                let n = rw.b.unary(UnaryFn::Neg, x)?;
                rw.more_results.push(("n".into(), n));
            }
            Ok(None)
        });
        let m = out.unwrap().module;
        let names: Vec<&str> = m.funcs[0].results.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["a", "b", "n"]);
    }
}
