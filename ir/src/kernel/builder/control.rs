//! Loops and branches. Nested code is built by a closure that gets the loop's values and returns
//! the values to carry on.

use super::super::body::{Region, Value};
use super::super::{Op, Problem, Ty};
use super::KernelBuilder;

impl KernelBuilder {
    pub(crate) fn region(
        &mut self,
        params: &[Ty],
        build: impl FnOnce(&mut KernelBuilder, &[Value]) -> Vec<Value>,
    ) -> Region {
        let params: Vec<Value> = params.iter().map(|&ty| self.value(ty)).collect();
        self.open.push(Region {
            params: params.clone(),
            ..Region::default()
        });
        let yields = build(self, &params);
        let mut region = self.open.pop().unwrap_or_default();
        region.yields = yields;
        region
    }

    fn types(&self, values: &[Value]) -> Vec<Ty> {
        values.iter().map(|&v| self.ty(v)).collect()
    }

    fn expect(&mut self, what: &str, yields: &[Value], types: &[Ty]) {
        if self.types(yields) != types {
            let found: Vec<String> = self.types(yields).iter().map(Ty::to_string).collect();
            let wanted: Vec<String> = types.iter().map(Ty::to_string).collect();
            self.fail(Problem::new(
                "K06",
                format!(
                    "{what} yields ({}), expected ({})",
                    found.join(", "),
                    wanted.join(", ")
                ),
            ));
        }
    }

    /// `i = lo; while i < hi { carried = body(i, carried); i += step }`; returns the carried
    /// values. `lo`, `hi` and `step` have one integer type; `step` is positive.
    pub fn for_range(
        &mut self,
        lo: Value,
        hi: Value,
        step: Value,
        init: &[Value],
        body: impl FnOnce(&mut KernelBuilder, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let index = self.ty(lo);
        if !index.is_index() || self.ty(hi) != index || self.ty(step) != index {
            let message = "bounds and step of a loop have one 32 or 64-bit integer type";
            self.fail(Problem::new("K06", message));
        }
        let carried = self.types(init);
        let params: Vec<Ty> = std::iter::once(index)
            .chain(carried.iter().copied())
            .collect();
        let region = self.region(&params, |k, p| body(k, p[0], &p[1..]));
        self.expect("the loop", &region.yields, &carried);
        let args = [lo, hi, step]
            .into_iter()
            .chain(init.iter().copied())
            .collect();
        self.push(Op::For, args, vec![region], &carried)
    }

    /// `while cond(carried) { carried = body(carried) }`, where `cond` yields a truth value
    /// followed by the carried values that the body and, at the end, the result see.
    pub fn while_loop(
        &mut self,
        init: &[Value],
        cond: impl FnOnce(&mut KernelBuilder, &[Value]) -> (Value, Vec<Value>),
        body: impl FnOnce(&mut KernelBuilder, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let carried = self.types(init);
        let test = self.region(&carried, |k, p| {
            let (again, mut rest) = cond(k, p);
            rest.insert(0, again);
            rest
        });
        let tested: Vec<Ty> = std::iter::once(Ty::BOOL)
            .chain(carried.iter().copied())
            .collect();
        self.expect("the condition", &test.yields, &tested);
        let body = self.region(&carried, body);
        self.expect("the loop", &body.yields, &carried);
        self.push(Op::While, init.to_vec(), vec![test, body], &carried)
    }

    /// Runs `then` where `cond` is true.
    pub fn if_then(&mut self, cond: Value, then: impl FnOnce(&mut KernelBuilder)) {
        self.if_else(
            cond,
            |k| {
                then(k);
                Vec::new()
            },
            |_| Vec::new(),
        );
    }

    /// Runs one of two branches and returns what it yields.
    pub fn if_else(
        &mut self,
        cond: Value,
        then: impl FnOnce(&mut KernelBuilder) -> Vec<Value>,
        otherwise: impl FnOnce(&mut KernelBuilder) -> Vec<Value>,
    ) -> Vec<Value> {
        if self.ty(cond) != Ty::BOOL {
            self.fail(Problem::new(
                "K06",
                format!("a condition is `bool`, not `{}`", self.ty(cond)),
            ));
        }
        let first = self.region(&[], |k, _| then(k));
        let second = self.region(&[], |k, _| otherwise(k));
        let types = self.types(&first.yields);
        self.expect("the second branch", &second.yields, &types);
        self.push(Op::If, vec![cond], vec![first, second], &types)
    }
}
