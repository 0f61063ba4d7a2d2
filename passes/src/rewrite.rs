//! Rebuilding functions op by op: the one way in which passes change them.
//!
//! [`rewrite`] walks each function in execution order. A rule looks at an op of the *source*
//! function and either leaves it, then it is copied, or builds something else in the *new*
//! function and says which new values stand for the op's results. A new value must have the
//! meaning and the type of the one it stands for; a pass that changes types copies for itself.
//! Ops that no result needs are left out on the way.

use crate::analysis::live_ops;
use qcc_ir::diag::Result;
use qcc_ir::graph::{
    Builder, Func, Loc, Module, Op, OpId, OpKind, TensorType, ValueId, Weight, WeightId,
};

/// A function under reconstruction.
pub(crate) struct Rewriter<'m> {
    /// The function that is read.
    pub(crate) src: &'m Func,
    /// Symbols and weights of the new module; weights may be added.
    pub(crate) module: Module,
    /// The function that is written.
    pub(crate) b: Builder,
    users: Vec<Vec<OpId>>,
    map: Vec<Option<ValueId>>,
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
    let mut shell = Module {
        symbols: module.symbols.clone(),
        weights: module.weights.clone(),
        funcs: Vec::with_capacity(module.funcs.len()),
    };
    let mut replaced = 0;
    for f in &module.funcs {
        let funcs = std::mem::take(&mut shell.funcs);
        rule.enter(f);
        let mut rw = Rewriter::new(f, shell);
        replaced += rw.run(rule)?;
        let (func, rest) = rw.finish();
        shell = rest;
        shell.funcs = funcs;
        shell.funcs.push(func);
    }
    Ok(Rewritten {
        module: shell,
        replaced,
    })
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
            users,
            map: vec![None; src.values.len()],
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
            self.b.set_loc(op.loc.clone());
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

    fn finish(self) -> (Func, Module) {
        let results: Vec<(&str, ValueId)> = self
            .src
            .results
            .iter()
            .map(|(name, v)| (name.as_str(), self.get(*v)))
            .collect();
        (self.b.finish(results), self.module)
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

    /// Adds a weight and the op that gives its values.
    pub(crate) fn constant(&mut self, weight: Weight) -> ValueId {
        let id = self.module.add_weight(weight);
        self.b.constant(id, &self.module)
    }

    /// From now on, ops come from the places of both.
    pub(crate) fn join_loc(&mut self, first: &Op, second: &Op) {
        self.b.set_loc(first.loc.join(&second.loc));
    }

    /// From now on, ops come from here.
    pub(crate) fn set_loc(&mut self, loc: Loc) {
        self.b.set_loc(loc);
    }

    /// The source op that defines a value.
    pub(crate) fn def(&self, v: ValueId) -> Option<&'m Op> {
        self.src.def_op(v)
    }

    /// Live ops of the source that read a value, once per operand position.
    pub(crate) fn users(&self, v: ValueId) -> &[OpId] {
        &self.users[v.index()]
    }

    /// Whether one operand of one op is all that needs this source value.
    pub(crate) fn single_use(&self, v: ValueId) -> bool {
        self.users[v.index()].len() == 1 && !self.src.is_result(v)
    }

    /// The weight of a source value that is a constant without a scheme.
    pub(crate) fn weight_of(&self, v: ValueId) -> Option<(WeightId, &Weight)> {
        match self.def(v)?.kind {
            OpKind::Const {
                weight,
                scale: None,
                zero: None,
            } => Some((weight, self.module.weight(weight))),
            _ => None,
        }
    }
}
