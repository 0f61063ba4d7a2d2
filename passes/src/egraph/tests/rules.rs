//! Every rule both ways: where it fires both sides are evaluated by the oracle on many shapes
//! and values, where it declines it says why.

use super::Launches;
use super::cases::Case;
use super::fill::{Rng, fill};
use super::{cases, cases_merge};
use crate::egraph::cost::{Costs, Workload};
use crate::egraph::rules::{self, Exactness, Found, Rule};
use crate::egraph::space::{Arg, NewOp, Proposal, Space};
use crate::egraph::{Fused, Limits, fuse_with, region, saturate};
use crate::testing::{distance, inputs, module};
use qcc_ir::expr::BinaryFn;
use qcc_ir::format::encode_slice;
use qcc_ir::graph::{Module, OpKind, verify};
use qcc_ir::{Tensor, eval};

/// Random modules per text, and sets of values per module.
const SHAPES: u64 = 40;
const VALUES: u64 = 25;

fn all_cases() -> impl Iterator<Item = &'static Case> {
    cases::CASES.iter().chain(cases_merge::CASES)
}

fn rule(name: &str) -> &'static Rule {
    let all = rules::all();
    let found = all.iter().find(|r| r.name == name);
    found.unwrap_or_else(|| panic!("there is no rule {name}"))
}

fn fuse_by(m: &Module, rules: &[&'static Rule]) -> Fused {
    let violations = verify(m);
    assert!(violations.is_empty(), "{violations:?}\n{m}");
    let out = fuse_with(
        m,
        &mut Costs::new(&Launches, m, Workload::Mixed),
        Limits::default(),
        rules,
    )
    .unwrap();
    let violations = verify(&out.module);
    assert!(violations.is_empty(), "{violations:?}\n{}", out.module);
    out
}

/// Deviates of many magnitudes, with a few zeros, infinities and NaNs.
fn wild(m: &Module, seed: u64, special: bool) -> Vec<Tensor> {
    let mut rng = Rng(seed);
    let mut list = inputs(m, seed);
    for t in list.iter_mut().filter(|t| t.dtype().is_float()) {
        let v: Vec<f64> = crate::testing::values(t)
            .into_iter()
            .map(|v| match (special, rng.below(40)) {
                (true, 0) => 0.0,
                (true, 1) => -0.0,
                (true, 2) => f64::INFINITY,
                (true, 3) => f64::NAN,
                (true, 4) => 1e-41,
                (_, k) => v * 10f64.powi(k as i32 % 4 - 2),
            })
            .collect();
        encode_slice(t.dtype(), &v, t.bytes_mut()).unwrap();
    }
    list
}

/// Evaluates both sides on random values; the first difference above the tolerance is an error.
fn compare(before: &Module, after: &Module, seed: u64, tolerance: f64) -> Result<(), String> {
    let special = tolerance == 0.0 && !before.to_string().contains("dynamic");
    for i in 0..VALUES {
        let values = wild(before, seed + i, special);
        let [a, b] = [before, after].map(|m| eval::run(m, &values).unwrap());
        for (x, y) in a.iter().zip(&b) {
            let d = distance(x, y);
            if d > tolerance || (tolerance == 0.0 && !same_bits(x, y)) {
                return Err(format!("results differ by {d}\n{before}{after}"));
            }
        }
    }
    Ok(())
}

/// The same numbers bit for bit, signs of zeros included; any NaN equals any other.
fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    let [a, b] = [a, b].map(crate::testing::values);
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    a.iter().zip(&b).all(same)
}

fn try_case(c: &Case, rules: &[&'static Rule], text: &str) -> Result<(), String> {
    let mut rng = Rng(7);
    for i in 0..SHAPES {
        let m = module(&fill(text, &mut rng));
        let out = fuse_by(&m, rules);
        let decisions = out.ledger.decisions();
        let fired = decisions
            .iter()
            .any(|d| d.rules.iter().any(|r| r == c.rule));
        if !fired {
            return Err(format!("{} did not fire:\n{m}{}", c.rule, out.module));
        }
        compare(&m, &out.module, 1000 * i, c.tolerance)?;
    }
    Ok(())
}

#[test]
fn every_rule_has_a_case_and_a_name_of_its_own() {
    let names: Vec<&str> = rules::all().iter().map(|r| r.name).collect();
    let cases: Vec<&str> = all_cases().map(|c| c.rule).collect();
    for n in &names {
        assert_eq!(names.iter().filter(|m| m == &n).count(), 1, "{n}");
        assert!(cases.contains(n), "{n} has no case");
    }
    assert_eq!(names.len(), cases.len());
    assert!(rules::table().iter().all(|r| !r.equation.is_empty()));
}

#[test]
fn bit_exact_rules_tolerate_no_difference() {
    for c in all_cases() {
        let exact = rule(c.rule).class == Exactness::BitExact;
        assert!(!exact || c.tolerance == 0.0, "{}", c.rule);
    }
}

#[test]
fn every_rule_fires_and_both_sides_agree() {
    for c in all_cases() {
        let names = c.with.iter().chain([&c.rule]);
        let rules: Vec<&'static Rule> = names.map(|n| rule(n)).collect();
        assert!(!c.fires.is_empty());
        for text in c.fires {
            try_case(c, &rules, text).unwrap_or_else(|e| panic!("{}: {e}", c.rule));
        }
    }
}

/// What a rule says where it declines.
fn reasons(rule: &'static Rule, m: &Module) -> Vec<String> {
    let partition = region::partition(&m.funcs[0]);
    let mut out = Vec::new();
    for (region, _) in &partition.regions {
        let (_, outcome) = saturate::saturate(region, &[rule], Limits::default()).unwrap();
        out.extend(outcome.declined.into_iter().map(|d| d.reason));
    }
    out
}

#[test]
fn every_rule_declines_with_its_reason() {
    for c in all_cases() {
        for (text, reason) in c.declines {
            let m = module(&fill(text, &mut Rng(3)));
            assert!(verify(&m).is_empty(), "{:?}\n{m}", verify(&m));
            let said = reasons(rule(c.rule), &m);
            let hit = said.iter().any(|r| r.contains(reason));
            assert!(hit, "{}: wanted `{reason}`, got {said:?}\n{m}", c.rule);
        }
    }
}

/// `a + b = a − b`
static WRONG_VALUE: Rule = Rule {
    name: "wrong-value",
    class: Exactness::BitExact,
    equation: "a + b = a - b",
    find: |r, space, found| {
        plant(r, space, found, |_, results| results);
    },
};

/// Gives the right kind of op a result in another format.
static WRONG_TYPE: Rule = Rule {
    name: "wrong-type",
    class: Exactness::BitExact,
    equation: "a + b = f16(a - b)",
    find: |r, space, found| {
        plant(r, space, found, |_, results| {
            results
                .into_iter()
                .map(|t: qcc_ir::graph::TensorType| t.with_dtype(qcc_ir::DType::F16))
                .collect()
        });
    },
};

type Types = Vec<qcc_ir::graph::TensorType>;

fn plant(rule: &Rule, space: &Space<'_>, found: &mut Found, types: fn(&Space<'_>, Types) -> Types) {
    for (class, node) in space.op_nodes() {
        let Some((data, operands)) = space.op(node) else {
            continue;
        };
        if data.kind == OpKind::Binary(BinaryFn::Add) {
            found.proposals.push(Proposal::Op(Box::new(NewOp {
                kind: OpKind::Binary(BinaryFn::Sub),
                operands: operands.iter().map(|o| Arg::Class(*o)).collect(),
                results: types(space, data.results.clone()),
                equals: vec![class],
                origin: space.origin(node).join(&space.origin(node), rule.name),
            })));
        }
    }
}

#[test]
fn a_wrong_rule_is_caught() {
    let case = Case {
        rule: "wrong-value",
        with: &[],
        fires: &[],
        declines: &[],
        tolerance: 0.0,
    };
    // The two forms cost the same; as a part of a linear the wrong one saves a kernel.
    let text = "%l: f32[M, N] = linear %x, %w
                %y: f32[M, N] = add %l, %r
                return %y";
    let caught = try_case(&case, &[&WRONG_VALUE, rule("linear-map")], text);
    assert!(caught.unwrap_err().contains("results differ"));
}

#[test]
fn a_rule_that_changes_a_type_ends_the_pass() {
    let text = "%y: f32[M, K] = add %x, %k
                return %y";
    let m = module(&fill(text, &mut Rng(1)));
    let error = fuse_with(
        &m,
        &mut Costs::new(&Launches, &m, Workload::Mixed),
        Limits::default(),
        &[&WRONG_TYPE],
    )
    .unwrap_err();
    assert_eq!(error.code(), "Q0920");
    assert!(error.message().contains("f32"), "{error}");
}
