//! The elements of a weight that matter most stay float beside the others.
//!
//! ```text
//! x·Wᵀ + b = x·Dᵀ + b + x·Sᵀ,   W = D + S
//! ```
//!
//! `S` holds the same number of elements of every row of `W`, those with the largest `h_j · w²`, and
//! `D` has zeros in their place. `h_j` is the mean square of input `j`, so that this is what the
//! element adds to the output on average, or 1 without data. `D` is quantized later, by codes whose
//! range the largest elements no longer set. (Kim et al., "SqueezeLLM", 2024, "dense-and-sparse": a
//! share of 0.45 %, chosen there for the whole weight; by rows here, so that all threads of a kernel
//! have as much to do.)
//!
//! Preconditions: layers are plain and only their weights are quantized.

use crate::analysis::is_plain_linear;
use crate::parallel;
use crate::pass::{Pass, PassContext};
use crate::quantize::{Assigned, assign};
use crate::rewrite::{Replacement, Rewriter, Rule, rewrite};
use crate::weights::{Transform, inline_as, inline_ints, read_finite};
use qcc_ir::DType;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::expr::BinaryFn;
use qcc_ir::graph::{Func, Module, Op, OpId, OpKind, Weight};
use qcc_ir::ledger::{Candidate, Decision, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The pass.
pub(crate) struct SplitWeights;

impl Pass for SplitWeights {
    fn name(&self) -> &'static str {
        "split-weights"
    }

    fn summary(&self) -> &'static str {
        "keeps the weights that matter most float (SqueezeLLM)"
    }

    fn run(&self, module: &Module, ctx: &mut PassContext<'_>) -> Result<Module> {
        let (Some(share), Some(f)) = (ctx.options.sparse, module.funcs.first()) else {
            return Ok(module.clone());
        };
        let mut split = Split {
            layers: BTreeMap::new(),
            threads: ctx.threads,
            funcs: 0,
        };
        for l in assign(module, ctx)?.iter().filter(|l| l.choice.is_some()) {
            let found = part(f, l, share, ctx);
            ctx.ledger.record(decision(l, &found));
            split.layers.extend(found.ok().map(|p| (l.site.op, p)));
        }
        if split.layers.is_empty() {
            let message = "--sparse-weights has no effect: no layer has quantized weights and \
                           float activations";
            ctx.warnings
                .push(Diagnostic::warning(48, Class::Usage, message));
            return Ok(module.clone());
        }
        Ok(rewrite(module, &mut split)?.module)
    }
}

/// What of a layer stays float.
struct Part {
    /// Elements of a row that do.
    each: usize,
    /// Elements of a row.
    columns: usize,
    /// The mean square of each input, if it is known.
    squares: Option<Vec<f64>>,
}

fn part(
    f: &Func,
    l: &Assigned,
    share: f64,
    ctx: &PassContext<'_>,
) -> std::result::Result<Part, String> {
    let plain = is_plain_linear(f, &f.ops[l.site.op.index()]);
    let columns = f.ty(l.site.weight_value).fixed_dims();
    let Some(columns) = columns.and_then(|d| d.last().copied()).filter(|_| plain) else {
        return Err("it is no plain linear layer".into());
    };
    if l.choice.is_some_and(|q| q.acts.is_some()) {
        return Err("its activations are quantized".into());
    }
    let each = (share * columns as f64).ceil();
    if each < 1.0 || 2.0 * each > columns as f64 {
        return Err(format!("{each} elements are more than half of {columns}"));
    }
    let statistics = ctx.statistics.as_ref();
    let sums = statistics.and_then(|s| s.get(&f.value(l.site.input).name)?.sums.as_ref());
    Ok(Part {
        each: each as usize,
        columns: columns as usize,
        squares: sums.map(|s| s.square.clone()),
    })
}

fn decision(l: &Assigned, found: &std::result::Result<Part, String>) -> Decision {
    let named =
        |chosen: &str| Decision::new(&l.site.name, Topic::Outliers, chosen).weight(&l.site.weight);
    let d = match found {
        Ok(p) => {
            let name = format!("{} of {} in each row", p.each, p.columns);
            named(&name).consider(Candidate::new(&name))
        }
        Err(reason) => named("none").consider(Candidate::refused("sparse weights", reason)),
    };
    d.consider(Candidate::new("none"))
}

/// What is split in the entry function.
struct Split {
    layers: BTreeMap<OpId, Part>,
    threads: usize,
    funcs: usize,
}

impl Rule for Split {
    fn enter(&mut self, _: &Func) {
        self.funcs += 1;
    }

    fn apply(&mut self, rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
        let part = (self.funcs == 1)
            .then(|| self.layers.get(&rw.id(op)))
            .flatten();
        let Some(part) = part else {
            return Ok(None);
        };
        let ty = rw.src.ty(op.results[0]).clone();
        let weight = rw.plain_weight(op.operands[1])?.clone();
        let kept = part.choose(&weight, self.threads)?;
        let columns = rw.constant(kept.columns);
        let values = rw.constant(kept.values);
        let mut operands = rw.operands(op);
        let x = operands[0];
        operands[1] = rw.derived(op.operands[1], Transform::Without { at: kept.at })?;
        let dense = rw.step(op, "dense", op.kind.clone(), &operands, ty.clone());
        let sparse = rw.step(
            op,
            "sparse",
            OpKind::SparseLinear,
            &[x, columns, values],
            ty,
        );
        let sum = OpKind::Binary(BinaryFn::Add);
        Ok(Some(rw.put(op, sum, &[dense, sparse])))
    }
}

/// Elements of a weight.
struct Kept {
    /// Their columns, row by row.
    columns: Weight,
    values: Weight,
    /// Their positions in the weight.
    at: Arc<[u64]>,
}

impl Part {
    /// The elements of a weight that stay float.
    ///
    /// # Errors
    /// When the weight cannot be read, or holds NaN or infinity.
    fn choose(&self, w: &Weight, threads: usize) -> Result<Kept> {
        let all = read_finite(w)?;
        let rows: Vec<&[f32]> = all.chunks(self.columns).collect();
        let rows = parallel::map(&rows, threads, |row| self.of_row(row));
        let columns: Vec<i32> = rows.concat();
        let position = |(i, c): (usize, &i32)| (i / self.each * self.columns) as u64 + *c as u64;
        let at: Arc<[u64]> = columns.iter().enumerate().map(position).collect();
        let values: Vec<f32> = at.iter().map(|i| all[*i as usize]).collect();
        let dims = vec![rows.len() as u64, self.each as u64];
        let name = |part: &str| format!("{}.{part}", w.name);
        Ok(Kept {
            columns: inline_ints(name("columns"), DType::I32, dims.clone(), &columns)?,
            values: inline_as(name("sparse"), w.dtype, dims, &values)?,
            at,
        })
    }

    /// The columns of a row's elements that matter most, increasing; the first of equal ones.
    fn of_row(&self, row: &[f32]) -> Vec<i32> {
        let square = |j: usize| {
            let squares = self.squares.as_ref().and_then(|s| s.get(j));
            squares.copied().unwrap_or(1.0)
        };
        let each = row.iter().map(|w| f64::from(*w)).enumerate();
        let importance: Vec<f64> = each.map(|(j, w)| w * w * square(j)).collect();
        let by = |a: &usize, b: &usize| {
            let order = importance[*b].total_cmp(&importance[*a]);
            order.then(a.cmp(b))
        };
        let mut order: Vec<usize> = (0..row.len()).collect();
        // INVARIANT: `part` keeps at least one element and at most half of them.
        order.select_nth_unstable_by(self.each - 1, by);
        let mut first: Vec<i32> = order[..self.each].iter().map(|j| *j as i32).collect();
        first.sort_unstable();
        first
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Oracle, difference, inputs, module, run_with};
    use crate::weights::read_f32;
    use crate::{Calibrator, Options, PassContext, Scheme};
    use qcc_ir::graph::Module;
    use qcc_ir::ledger::Topic;

    /// One element of each row is large; that of the second reads an input that is nearly 0.
    const LAYER: &str = r#"dim n = 1..40
        weight @g: f32[8] = [1.0, 1.0, 1.0, 0.001, 1.0, 1.0, 1.0, 1.0]
        weight @w: f32[2, 8] = [0.1, -9.0, 0.2, 0.3, -0.1, 0.2, 0.15, 0.1,
                                0.3, 0.1, 0.2, 9.0, 2.0, 0.1, -0.2, 0.1]
        weight @b: f32[2] = [1.0, -1.0]
        func @main(%x: f32[n, 8]) -> (y: f32[n, 2]) {
          %g: f32[8] = const @g
          %h: f32[n, 8] = mul %x, %g
          %w: f32[2, 8] = const @w
          %b: f32[2] = const @b
          %y: f32[n, 2] = linear %h, %w, %b @"layer"
          return %y
        }"#;

    fn options(scheme: &str, share: Option<f64>) -> Options {
        Options {
            scheme: Scheme::named(scheme).unwrap(),
            sparse: share,
            ..Options::default()
        }
    }

    fn run(m: &Module, passes: &str, options: &Options, data: bool) -> Module {
        let mut ctx = PassContext::new(options);
        if data {
            let mut c = Calibrator::new(m, &Oracle).unwrap();
            c.feed(&inputs(m, 1)).unwrap();
            ctx.statistics = Some(c.finish());
        }
        run_with(passes, m.clone(), &mut ctx).unwrap()
    }

    #[test]
    fn the_elements_that_matter_stay_float_and_results_stay_the_same() {
        let m = module(LAYER);
        let options = options("lut3", Some(0.1));
        let split = run(&m, "split-weights", &options, false);
        assert!(difference(&m, &split) < 1e-6);
        assert!(split.to_string().contains("sparse_linear"));
        let error = |share: Option<f64>, scheme| {
            let options = self::options(scheme, share);
            difference(&m, &run(&m, "split-weights,quantize", &options, false))
        };
        let (plain, few) = (
            error(None, "w4a16-g128-sym"),
            error(Some(0.1), "w4a16-g128-sym"),
        );
        assert!(few * 5.0 < plain, "{few} against {plain}");
    }

    #[test]
    fn with_data_an_element_counts_by_what_it_reads() {
        let m = module(LAYER);
        let kept = |data| {
            let split = run(&m, "split-weights", &options("lut4", Some(0.1)), data);
            read_f32(split.weight(split.find_weight("w.columns").unwrap())).unwrap()
        };
        assert_eq!(kept(false), [1.0, 3.0]);
        assert_eq!(kept(true), [1.0, 4.0]);
    }

    #[test]
    fn what_cannot_be_split_is_left_alone() {
        let m = module(LAYER);
        for (scheme, share, reason) in [
            ("int8", 0.1, "its activations are quantized"),
            ("lut4", 0.6, "5 elements are more than half of 8"),
        ] {
            let options = options(scheme, Some(share));
            let mut ctx = PassContext::new(&options);
            let out = run_with("split-weights", m.clone(), &mut ctx).unwrap();
            assert_eq!(out.to_string(), m.to_string());
            assert_eq!(ctx.warnings[0].code(), "Q0048");
            let d = ctx.ledger.find("layer", Topic::Outliers).unwrap();
            assert_eq!(d.considered[0].refused_by.as_deref(), Some(reason));
        }
    }

    #[test]
    fn a_weight_that_is_no_number_is_an_error() {
        let m = module(&LAYER.replace("-9.0", "inf"));
        let options = options("lut4", Some(0.1));
        let mut ctx = PassContext::new(&options);
        let e = run_with("split-weights", m, &mut ctx).unwrap_err();
        assert!(
            e.to_string().contains("@w") || e.to_string().contains('w'),
            "{e}"
        );
    }
}
