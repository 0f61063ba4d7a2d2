//! Judges the kernels of a plan, each alone, against the evaluator.
//!
//! A kernel is launched by the step that uses it first, with random and adversarial values for the
//! operands of its op and the plan's own weights; what it writes is compared with what the
//! evaluator says the op gives on the same values. The simulator looks for races, reads of memory
//! that nothing wrote, and accesses outside of each value, under several schedules and both models
//! of tensor cores.

mod judge;
mod subject;
mod values;

use qcc_ir::bind::Sizes;
use qcc_ir::diag::{Diagnostic, Result};
use qcc_ir::graph::Symbol;
use qcc_runtime::{Counters, Extras, PlanFile, TrialOptions, Trials};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use subject::Subject;
use values::Fill;

/// What a kernel was found to be.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The kernel's name in the plan.
    pub kernel: String,
    /// The op that it was judged by: its first result's name in the module.
    pub op: String,
    /// Runs that were compared with the evaluator.
    pub cases: usize,
    /// Runs that had no meaning: the evaluator refuses the values, such as NaN where a scale is
    /// computed.
    pub refused: usize,
    /// Largest relative error (Frobenius) of a float result.
    pub error: f64,
    /// What is wrong, and in which run.
    pub failure: Option<String>,
    /// What the launch did in the first run.
    pub counters: Counters,
}

/// Rows of the two leading sizes that are tried: a kernel is judged at the first that it runs at,
/// and at one row.
const SIZES: [[u64; 2]; 10] = [
    [2, 17],
    [1, 65],
    [3, 7],
    [1, 1],
    [3, 43],
    [1, 257],
    [2, 192],
    [8, 96],
    [4, 512],
    [1, 11],
];

/// Judges every kernel of a target's section; the verdicts stand in the order of the plan.
///
/// # Errors
/// When the plan has no such section, or the section contradicts itself; a kernel that fails is
/// no error but a verdict.
pub fn verify(file: Arc<PlanFile>, target: &str, threads: usize) -> Result<Vec<Verdict>> {
    // What a chip with a library and instructions of its own never launches, others do.
    let chips = [Extras::All, Extras::Instructions, Extras::Nothing]
        .map(|extras| Trials::new(file.clone(), target, extras));
    let [all, instructions, nothing] = chips;
    let chips = [all?, instructions?, nothing?];
    let ways = distinct_ways(&chips[0]);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<Verdict>)>> = Mutex::default();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((op, kernels)) = ways.get(at) else {
                return;
            };
            let never = |t: &&Trials| reached(t, op, kernels).is_ok_and(|s| s.is_empty());
            let chip = chips.iter().find(|t| !never(t));
            let trials = chip.unwrap_or(&chips[0]);
            let verdicts = judge_way(trials, op, kernels);
            let mut all = done.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((at, verdicts));
        }
    };
    std::thread::scope(|s| {
        (0..threads.max(1)).for_each(|_| drop(s.spawn(work)));
    });
    let mut all = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().flat_map(|(_, v)| v).collect())
}

/// The steps, with a way to run each, that together launch every kernel.
fn distinct_ways(trials: &Trials) -> Vec<(String, Vec<String>)> {
    let mut seen: Vec<&str> = Vec::new();
    let mut ways = Vec::new();
    for (op, all) in trials.steps() {
        for way in all {
            if way.iter().any(|k| !seen.contains(k)) {
                seen.extend(&way);
                let names = way.iter().map(ToString::to_string).collect();
                ways.push((op.to_string(), names));
            }
        }
    }
    ways
}

/// One verdict for each kernel of a way to run a step.
fn judge_way(trials: &Trials, op: &str, kernels: &[String]) -> Vec<Verdict> {
    let mut v = Verdict {
        op: op.to_string(),
        ..Verdict::default()
    };
    let mut counters = Vec::new();
    if let Err(why) = run_cases(trials, op, kernels, &mut v, &mut counters) {
        v.failure = Some(why);
    }
    let one = |name: &String| Verdict {
        kernel: name.clone(),
        counters: counters
            .iter()
            .find(|c: &&Counters| c.kernel == *name)
            .cloned()
            .unwrap_or_default(),
        ..v.clone()
    };
    kernels.iter().map(one).collect()
}

/// Runs every case; the error says which one failed, and how.
fn run_cases(
    trials: &Trials,
    op: &str,
    kernels: &[String],
    v: &mut Verdict,
    counters: &mut Vec<Counters>,
) -> std::result::Result<(), String> {
    let sizes = reached(trials, op, kernels)?;
    let [first, rest @ ..] = &sizes[..] else {
        return Err("none of the sizes that are tried launches it".into());
    };
    let mut cases = Vec::new();
    for (schedule, truncate) in [(0, false), (1, false), (7, true)] {
        cases.push((first, Fill::Random, schedule, truncate));
    }
    for fill in [Fill::Zeros, Fill::Huge, Fill::NotANumber, Fill::Outside] {
        cases.push((first, fill, 0, false));
    }
    for s in rest {
        cases.push((s, Fill::Random, 3, false));
    }
    for (sizes, fill, schedule, truncate) in cases {
        let place = |e: String| {
            let tensor_cores = if truncate { ", truncating sums" } else { "" };
            format!("{fill} at {sizes:?}, schedule {schedule}{tensor_cores}: {e}")
        };
        let subject = Subject::new(trials.module(), op, bound(sizes));
        let case = subject
            .and_then(|s| s.case(fill))
            .map_err(|d| place(d.to_string()))?;
        let Some(case) = case else {
            v.refused += usize::from(fill != Fill::Outside);
            continue;
        };
        let options = TrialOptions::new(schedule, truncate);
        let trial = trials.run(op, &bound(sizes), &case.given, options);
        let trial = trial.map_err(|d| place(d.message().to_string()))?;
        if counters.is_empty() {
            counters.extend(trial.launches.iter().cloned());
        }
        if trial.outside != case.outside {
            let (got, want) = (trial.outside, case.outside);
            return Err(place(format!(
                "the index {got:?} is reported, not {want:?}"
            )));
        }
        let error = judge::compare(&case.expected, &trial, truncate).map_err(place)?;
        v.error = v.error.max(error);
        v.cases += 1;
    }
    match v.cases {
        0 => Err("the evaluator refuses every case".into()),
        _ => Ok(()),
    }
}

type Named = Vec<(String, i64)>;

fn bound(sizes: &Named) -> Sizes {
    sizes.iter().cloned().collect()
}

/// The first sizes at which the step is run this way, one row, and a larger number of rows.
fn reached(
    trials: &Trials,
    op: &str,
    kernels: &[String],
) -> std::result::Result<Vec<Named>, String> {
    let mut found: Vec<Named> = Vec::new();
    let symbols = &trials.module().symbols;
    let mut refusal = None;
    for pair in SIZES {
        let sizes = assign(symbols, pair);
        match trials.launched(op, &bound(&sizes)) {
            Ok(launched) => {
                let runs = kernels.iter().all(|k| launched.contains(&k.as_str()));
                if runs && !found.contains(&sizes) {
                    found.push(sizes);
                }
            }
            Err(d) => refusal = Some(d),
        }
    }
    let text = |d: Diagnostic| d.to_string();
    if found.is_empty()
        && let Some(d) = refusal
    {
        return Err(text(d));
    }
    // One row where it is reached, and one larger size.
    let one = assign(symbols, [1, 1]);
    let mut chosen: Vec<Named> = found.first().cloned().into_iter().collect();
    chosen.extend(
        found
            .iter()
            .find(|s| **s == one && chosen[0] != one)
            .cloned(),
    );
    chosen.extend(found.iter().skip(1).find(|s| **s != one).cloned());
    Ok(chosen)
}

/// Sizes for the symbols: the two in turn, or their product if there is one symbol; each within
/// its range.
fn assign(symbols: &[Symbol], pair: [u64; 2]) -> Named {
    let size = |(i, s): (usize, &Symbol)| {
        let wanted = match symbols.len() {
            1 => pair[0] * pair[1],
            _ => pair[i % 2],
        };
        let n = wanted.clamp(s.min, s.max);
        (s.name.clone(), i64::try_from(n).unwrap_or(i64::MAX))
    };
    symbols.iter().enumerate().map(size).collect()
}
