//! The search itself: exact, bounded, repeatable, and valid whatever it is given.

use super::fill::Rng;
use super::{Launches, fused};
use crate::buckets::buckets;
use crate::egraph::cost::{Costs, Workload};
use crate::egraph::extract::{extract, node_cost};
use crate::egraph::lang::Node;
use crate::egraph::space::Space;
use crate::egraph::{Limits, Traffic, fuse, fuse_with, region, rules, saturate};
use crate::testing::{difference, module};
use egg::{Id, Language};
use qcc_ir::exec::{Bindings, CostModel};
use qcc_ir::graph::{Module, OpKind, TensorType, verify};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

/// A function of random ops on values of one shape, some of them returned.
fn random(rng: &mut Rng, ops: usize) -> String {
    let mut values = vec!["x".to_string(), "k".to_string()];
    let mut body = String::from(
        "%w: f32[4, 4] = const @w\n%b: f32[4] = const @b\n%s: f32[] = splat { value = 0.1 }\n",
    );
    let mut results = Vec::new();
    for i in 0..ops {
        let pick = |rng: &mut Rng| format!("%{}", values[rng.below(values.len() as u64) as usize]);
        let (a, c) = (pick(rng), pick(rng));
        let op = match rng.below(9) {
            0 | 1 => format!("linear {a}, %w"),
            2 => format!("linear {a}, %w, %b"),
            3 => format!("rms_norm {a}, %b {{ eps = 1e-5 }}"),
            4 | 5 => format!("tanh {a}"),
            6 => format!("add {a}, %b"),
            _ => format!("add {a}, {c}"),
        };
        body.push_str(&format!("%v{i}: f32[3, 4] = {op}\n"));
        values.push(format!("v{i}"));
        if rng.below(4) == 0 {
            body.push_str(&format!(
                "%q{i}: q<i8, [*, *], scale=f32>[3, 4] = quantize %v{i}, %s\n\
                 %d{i}: f32[3, 4] = dequantize %q{i}\n"
            ));
            values.push(format!("d{i}"));
        }
        if i + 1 == ops || rng.below(5) == 0 {
            results.push(format!("%v{i}"));
        }
    }
    let names: Vec<String> = (0..results.len())
        .map(|i| format!("r{i}: f32[3, 4]"))
        .collect();
    format!(
        "weight @w: f32[4, 4] = normal(1, 1.0)\nweight @b: f32[4] = normal(2, 1.0)\n\
         func @main(%x: f32[3, 4], %k: f32[3, 4]) -> ({}) {{\n{body}return {}\n}}\n",
        names.join(", "),
        results.join(", ")
    )
}

#[test]
fn random_functions_keep_their_meaning() {
    let mut rng = Rng(11);
    for i in 0..150 {
        let text = random(&mut rng, 3 + i % 12);
        let (before, out) = fused(&text);
        let d = difference(&before, &out.module);
        // Codes may flip by one where a dequantize is read by a linear.
        assert!(d <= 1e-4, "results differ by {d}\n{before}{}", out.module);
        let ops = |m: &Module| {
            let kernels = |k: &OpKind| !matches!(k, OpKind::Const { .. } | OpKind::Splat { .. });
            m.funcs[0].ops.iter().filter(|o| kernels(&o.kind)).count()
        };
        assert!(ops(&out.module) <= ops(&before));
    }
}

/// The least cost of all choices, tried one by one; `None` when there are too many.
fn exhaustive(space: &Space<'_>, costs: &mut Costs<'_>) -> Option<f64> {
    let mut s = Exhaustive {
        space,
        cost: BTreeMap::new(),
        chosen: BTreeMap::new(),
        best: f64::INFINITY,
        steps: 0,
    };
    for (_, n) in space.op_nodes() {
        s.cost.insert(n.clone(), node_cost(space, costs, n));
    }
    let roots = space.outputs().iter().map(|v| space.class(*v)).collect();
    s.run(roots, 0.0);
    (s.steps < 100_000).then_some(s.best)
}

struct Exhaustive<'a, 'r> {
    space: &'a Space<'r>,
    cost: BTreeMap<Node, f64>,
    chosen: BTreeMap<Id, Node>,
    best: f64,
    steps: usize,
}

impl Exhaustive<'_, '_> {
    fn run(&mut self, mut pending: BTreeSet<Id>, paid: f64) {
        self.steps += 1;
        if self.steps >= 100_000 {
            return;
        }
        let Some(c) = pending.pop_first() else {
            self.best = self.best.min(paid);
            return;
        };
        for n in &self.space.graph[c].nodes {
            let operands: Vec<Id> = n
                .children()
                .iter()
                .map(|o| self.space.graph.find(*o))
                .collect();
            if operands.iter().any(|o| self.needs(*o, c)) {
                continue;
            }
            let mut next = pending.clone();
            next.extend(operands.iter().filter(|o| !self.chosen.contains_key(o)));
            self.chosen.insert(c, n.clone());
            self.run(next, paid + self.cost.get(n).unwrap_or(&0.0));
            self.chosen.remove(&c);
        }
    }

    fn needs(&self, d: Id, c: Id) -> bool {
        let next = |n: &Node| {
            n.children()
                .iter()
                .any(|o| self.needs(self.space.graph.find(*o), c))
        };
        d == c || self.chosen.get(&d).is_some_and(next)
    }
}

#[test]
fn extraction_is_exact() {
    let mut rng = Rng(5);
    let mut compared = 0;
    for i in 0..120 {
        let m = module(&random(&mut rng, 3 + i % 9));
        let models: [&dyn CostModel; 2] = [&Launches, &Traffic::default()];
        for model in models {
            let mut costs = Costs::new(model, &m, Workload::Mixed);
            for (region, _) in &region::partition(&m.funcs[0]).regions {
                let (space, outcome) =
                    saturate::saturate(region, &rules::all(), Limits::default()).unwrap();
                assert!(!outcome.cut);
                let choice = extract(&space, &mut costs, 200_000);
                assert!(!choice.cut);
                assert!(choice.bound <= choice.micros);
                if let Some(best) = exhaustive(&space, &mut costs) {
                    compared += 1;
                    assert!(
                        (choice.micros - best).abs() < 1e-9,
                        "{} {best}\n{m}",
                        choice.micros
                    );
                }
            }
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn a_search_that_is_cut_off_is_valid_and_says_so() {
    let mut rng = Rng(17);
    for _ in 0..40 {
        let m = module(&random(&mut rng, 12));
        for limits in [
            Limits {
                steps: 1,
                ..Limits::default()
            },
            Limits {
                nodes: 12,
                ..Limits::default()
            },
            Limits {
                rounds: 1,
                ..Limits::default()
            },
        ] {
            let out = fuse(&m, &Traffic::default(), limits).unwrap();
            assert!(verify(&out.module).is_empty());
            assert!(difference(&m, &out.module) <= 1e-4);
            let told = out.ledger.decisions().iter().any(|d| {
                let cut = |c: &qcc_ir::ledger::Candidate| {
                    c.refused_by.as_ref().is_some_and(|r| r.contains("cut off"))
                };
                d.considered.iter().any(cut)
            });
            assert_eq!(out.stats.cut > 0, told);
        }
    }
}

#[test]
fn results_are_the_same_in_every_run() {
    let mut rng = Rng(23);
    for _ in 0..20 {
        let m = module(&random(&mut rng, 14));
        let run = || {
            let out = fuse(&m, &Traffic::default(), Limits::default()).unwrap();
            (out.module.to_string(), out.ledger)
        };
        let first = run();
        for _ in 0..3 {
            assert_eq!(run(), first);
        }
    }
}

#[test]
fn fusing_twice_changes_nothing_more() {
    let mut rng = Rng(29);
    for _ in 0..40 {
        let m = module(&random(&mut rng, 10));
        let once = fuse(&m, &Launches, Limits::default()).unwrap().module;
        let twice = fuse(&once, &Launches, Limits::default()).unwrap().module;
        assert!(twice.funcs[0].ops.len() <= once.funcs[0].ops.len());
        assert!(difference(&once, &twice) <= 1e-4);
    }
}

#[test]
fn without_rules_a_function_stays_as_it_is() {
    let text = r#"
        weight @w: f32[4, 4] = normal(1, 1)
        func @main(%x: f32[3, 4]) -> (y: f32[3, 4]) {
          %w: f32[4, 4] = const @w
          %l: f32[3, 4] = linear %x, %w @"fc"
          %y: f32[3, 4] = relu %l @"act"
          return %y
        }
    "#;
    let m = module(text);
    let out = fuse_with(
        &m,
        &mut Costs::new(&Launches, &m, Workload::Mixed),
        Limits::default(),
        &[],
    )
    .unwrap();
    assert_eq!(out.module.to_string(), m.to_string());
}

#[test]
fn equal_blocks_are_searched_once() {
    let mut body = String::new();
    let mut weights = String::new();
    let mut x = "x".to_string();
    for i in 0..6 {
        weights.push_str(&format!(
            "weight @up{i}: f32[8, 4] = normal({i}, 1.0)\n\
             weight @down{i}: f32[4, 8] = normal(1{i}, 1.0)\nweight @g{i}: f32[4] = splat(1)\n"
        ));
        body.push_str(&format!(
            "%g{i}: f32[4] = const @g{i}\n%n{i}: f32[3, 4] = rms_norm %{x}, %g{i} {{ eps = 1e-5 }}\n\
             %up{i}: f32[8, 4] = const @up{i}\n%u{i}: f32[3, 8] = linear %n{i}, %up{i}\n\
             %a{i}: f32[3, 8] = gelu %u{i}\n%down{i}: f32[4, 8] = const @down{i}\n\
             %d{i}: f32[3, 4] = linear %a{i}, %down{i}\n%x{i}: f32[3, 4] = add %{x}, %d{i} @\"add{i}\"\n"
        ));
        x = format!("x{i}");
    }
    let text =
        format!("{weights}func @main(%x: f32[3, 4]) -> (y: f32[3, 4]) {{\n{body}return %{x}\n}}\n");
    let (before, out) = fused(&text);
    assert!(difference(&before, &out.module) <= 1e-5);
    assert_eq!((out.stats.regions, out.stats.distinct), (18, 3));
    let f = &out.module.funcs[0];
    assert_eq!(f.ops.len(), 6 * 6);
    let last = f.ops.last().unwrap();
    assert_eq!(last.loc.nodes, ["add5"]);
}

#[test]
fn what_is_returned_as_it_came_is_kept() {
    let text = r#"
        weight @c: f32[2] = splat(3)
        weight @w: i8[2, 2] = splat(3)
        weight @ws: f32[] = splat(0.5)
        func @main(%x: f32[2]) -> (x: f32[2], c: f32[2], s: f32[2], d: f32[2, 2], y: f32[2]) {
          %c: f32[2] = const @c
          %s: f32[2] = splat { value = 2.0 }
          %w: q<i8, [*, *], scale=f32>[2, 2] = const @w, @ws
          %d: f32[2, 2] = dequantize %w
          %y: f32[2] = mul %c, %s
          return %x, %c, %s, %d, %y
        }
    "#;
    let (before, out) = fused(text);
    assert_eq!(difference(&before, &out.module), 0.0);
}

/// Runs no linear with an expression.
struct Plain;

impl CostModel for Plain {
    fn op_micros(
        &self,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        dims: Bindings<'_>,
    ) -> Result<f64, String> {
        match kind {
            OpKind::Linear { expr: Some(_), .. } => Err("no epilogues here".into()),
            _ => Launches.op_micros(kind, operands, results, dims),
        }
    }

    fn target(&self) -> &str {
        "plain"
    }
}

#[test]
fn a_form_without_a_kernel_is_not_chosen_and_the_reason_is_kept() {
    let text = r#"
        weight @w: f32[4, 4] = normal(1, 1)
        func @main(%x: f32[3, 4]) -> (y: f32[3, 4]) {
          %w: f32[4, 4] = const @w
          %l: f32[3, 4] = linear %x, %w @"fc"
          %y: f32[3, 4] = relu %l @"act"
          return %y
        }
    "#;
    let m = module(text);
    let out = fuse(&m, &Plain, Limits::default()).unwrap();
    assert_eq!(out.module.to_string(), m.to_string());
    let d = &out.ledger.decisions()[1];
    assert_eq!((d.site.as_str(), d.chosen.as_str()), ("fc", "linear"));
    assert_eq!(d.target.as_deref(), Some("plain"));
    let lost = &d.considered[1];
    assert_eq!(lost.candidate, "linear + relu");
    assert_eq!(
        lost.refused_by.as_deref(),
        Some("no kernel: no epilogues here")
    );
}

#[test]
fn an_op_that_no_kernel_serves_stays_and_is_told() {
    let text = r#"
        weight @w: f32[4, 4] = normal(1, 1)
        func @main(%x: f32[3, 4]) -> (y: f32[3, 4]) {
          %w: f32[4, 4] = const @w
          %y: f32[3, 4] = linear %x, %w { expr = { t0 = acc0; t1 = relu t0; store t1 } } @"fc"
          return %y
        }
    "#;
    let m = module(text);
    let out = fuse(&m, &Plain, Limits::default()).unwrap();
    assert_eq!(out.module.to_string(), m.to_string());
    let told = out.ledger.decisions()[0].considered[0].refused_by.clone();
    assert_eq!(told.as_deref(), Some("no kernel: no epilogues here"));
}

#[test]
fn costs_are_summed_over_the_sizes_that_matter() {
    let m = module(
        "dim n = 1..64 @ 1, 16\ndim s = 2..4\n\
         func @main(%x: f32[n, s]) -> (y: f32[n, s]) {\n%y: f32[n, s] = neg %x\nreturn %y\n}\n",
    );
    let names: Vec<String> = buckets(&m).into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["n=1, s=4", "n=16, s=4"]);
    let traffic = Traffic {
        launch_micros: 2.0,
        bytes_per_micro: 8.0,
    };
    let mut costs = Costs::new(&traffic, &m, Workload::Mixed);
    let ty = m.funcs[0].values[0].ty.clone();
    let micros = costs.op(&m.funcs[0].ops[0].kind, &[&ty], std::slice::from_ref(&ty));
    assert_eq!(micros, Ok(vec![2.0 + 4.0, 2.0 + 64.0]));
}

/// A decoder of the shape of Llama 2 70B in static fp8; weights are made on demand, so none is.
fn llama_70b() -> String {
    let (d, kv, ff) = (8192, 1024, 28672);
    let mut weights = format!("weight @embed: f16[32000, {d}] = normal(0, 1.0)\n");
    for g in (0..80).flat_map(|i| [format!("n{i}g"), format!("m{i}g")]) {
        weights.push_str(&format!("weight @{g}: f16[{d}] = normal(5, 1.0)\n"));
    }
    let mut body = format!(
        "%embed: f16[32000, {d}] = const @embed\n%x0: f16[1, s, {d}] = gather %embed, %ids {{ axis = 0 }}\n"
    );
    let mut linear = |w: &str, x: &str, y: &str, n: i32, k: i32| {
        weights.push_str(&format!(
            "weight @{w}: e4m3[{n}, {k}] = normal(1, 20.0)\nweight @{w}.s: f32[{n}, 1] = splat(0.01)\n"
        ));
        format!(
            "%{w}: q<e4m3, [1, *], scale=f32>[{n}, {k}] = const @{w}, @{w}.s\n\
             %{y}: f16[1, s, {n}] = linear %{x}, %{w} @\"{w}\"\n"
        )
    };
    let quantize = |x: &str, n: i32, scale: f64| {
        format!(
            "%{x}s: f32[] = splat {{ value = {scale} }}\n\
             %{x}q: q<e4m3, [*, *, *], scale=f32>[1, s, {n}] = quantize %{x}, %{x}s\n"
        )
    };
    let norm = |x: &str, y: &str| {
        format!(
            "%{y}g: f16[{d}] = const @{y}g\n%{y}: f16[1, s, {d}] = rms_norm %{x}, %{y}g {{ eps = 1e-5 }}\n"
        )
    };
    for i in 0..80 {
        let v = |n: &str| format!("{n}{i}");
        body += &norm(&v("x"), &v("n"));
        body += &quantize(&v("n"), d, 0.01 + f64::from(i));
        body += &linear(&v("wq"), &v("n").add("q"), &v("q"), d, d);
        body += &linear(&v("wk"), &v("n").add("q"), &v("k"), kv, d);
        body += &linear(&v("wv"), &v("n").add("q"), &v("v"), kv, d);
        body += &format!("%qr{i}: f16[1, s, {d}] = rotary %q{i}, %cos, %sin {{ heads = 64 }}\n");
        body += &format!("%kr{i}: f16[1, s, {kv}] = rotary %k{i}, %cos, %sin {{ heads = 8 }}\n");
        body += &format!(
            "%a{i}: f16[1, s, {d}] = attention %qr{i}, %kr{i}, %v{i} {{ heads = 64, kv_heads = 8, scale = 0.088, causal }}\n"
        );
        body += &quantize(&v("a"), d, 0.02 + f64::from(i));
        body += &linear(&v("wo"), &v("a").add("q"), &v("o"), d, d);
        body += &format!("%h{i}: f16[1, s, {d}] = add %x{i}, %o{i}\n");
        body += &norm(&v("h"), &v("m"));
        body += &quantize(&v("m"), d, 0.03 + f64::from(i));
        body += &linear(&v("wg"), &v("m").add("q"), &v("g"), ff, d);
        body += &linear(&v("wu"), &v("m").add("q"), &v("u"), ff, d);
        body += &format!(
            "%t{i}: f16[1, s, {ff}] = silu %g{i}\n%p{i}: f16[1, s, {ff}] = mul %t{i}, %u{i}\n"
        );
        body += &quantize(&v("p"), ff, 0.04 + f64::from(i));
        body += &linear(&v("wd"), &v("p").add("q"), &v("d"), d, ff);
        body += &format!("%x{}: f16[1, s, {d}] = add %h{i}, %d{i}\n", i + 1);
    }
    format!(
        "dim s = 1..4096 @ 1, 2048\n{weights}\
         func @main(%ids: i64[1, s], %cos: f16[s, 64], %sin: f16[s, 64]) -> (y: f16[1, s, {d}]) {{\n{body}return %x80\n}}\n"
    )
}

#[test]
fn a_model_of_80_layers_becomes_eight_kernels_a_layer() {
    let (before, out) = fused(&llama_70b());
    assert_eq!(before.funcs[0].ops.len(), 2 + 80 * 33);
    let kernel = |k: &OpKind| !matches!(k, OpKind::Const { .. } | OpKind::Splat { .. });
    let f = &out.module.funcs[0];
    let kernels: Vec<&str> = f
        .ops
        .iter()
        .map(|o| &o.kind)
        .filter(|k| kernel(k))
        .map(OpKind::name)
        .collect();
    let layer = [
        "rms_norm",
        "linear",
        "rotary",
        "attention",
        "linear",
        "rms_norm",
        "linear",
        "linear",
    ];
    assert_eq!(kernels[0], "gather");
    for (i, l) in kernels[1..].chunks(layer.len()).enumerate() {
        assert_eq!(l, layer, "layer {i}");
    }
    assert_eq!((out.stats.regions, out.stats.distinct), (1 + 80 * 8, 8));
}
