//! The range that loses the least information: two variants in use.
//!
//! ```text
//! KL(P ‖ Q) = Σ p_k ln(p_k / q_k)
//! ```
//!
//! P is the distribution of what saturates to T, over the bins of the histogram; Q is P after its
//! bins have been gathered in as many groups as the format has levels, each spread evenly over
//! its bins that are not empty.
//!
//! [`threshold`] (Migacz, "8-bit inference with TensorRT", 2017, as NVIDIA's quantization toolkits
//! compute it): magnitudes; the count of the bin at zero is that of its neighbour; T at every edge
//! from the 128th on; what lies beyond T is added to the last bin of P; the last of equal
//! divergences wins. The bin of a magnitude has the width of the histogram, so there are between
//! 2048 and 4096.
//!
//! [`threshold_ort`] (onnxruntime 1.32, `get_entropy_threshold`): signed numbers in at most 1024 bins
//! of either sign; what lies beyond is added to the first and the last bin of P; groups have the
//! same number of bins, so that up to 127 bins at the end of Q are empty; counts in Q are rounded
//! down; empty bins of P and of Q are given 0.0001 each, which the others pay; the first of equal
//! divergences wins. Its own default of 128 bins would leave one candidate.

use crate::statistics::Histogram;
use libm::log;

/// The first edge that is tried.
const FIRST: usize = 128;

/// Where the range of magnitudes ends for this many levels.
pub(super) fn threshold(h: &Histogram, levels: usize) -> f64 {
    let mut counts = h.magnitudes();
    if let [zero, next, ..] = counts.as_mut_slice() {
        *zero = *next;
    }
    let sums = Sums::new(&counts);
    let (mut best, mut least) = (counts.len(), f64::INFINITY);
    for i in FIRST..=counts.len() {
        let d = divergence(&counts, &sums, i, levels);
        if d <= least {
            (best, least) = (i, d);
        }
    }
    best as f64 * h.width()
}

/// Sums over the bins before each.
struct Sums {
    count: Vec<f64>,
    /// Bins that are not empty.
    filled: Vec<f64>,
    /// `Σ c ln c`
    entropy: Vec<f64>,
}

impl Sums {
    fn new(counts: &[u64]) -> Self {
        let before = |f: &dyn Fn(f64) -> f64| {
            let mut sum = 0.0;
            let mut out = vec![0.0];
            for c in counts {
                sum += f(*c as f64);
                out.push(sum);
            }
            out
        };
        Sums {
            count: before(&|c| c),
            filled: before(&|c| f64::from(c > 0.0)),
            entropy: before(&by_log),
        }
    }
}

/// `c ln c`
fn by_log(c: f64) -> f64 {
    if c > 0.0 { c * log(c) } else { 0.0 }
}

/// KL of the first `i` bins with all others added to the last, against their groups. By sums over
/// the bins before, a candidate costs as many logarithms as there are levels.
fn divergence(counts: &[u64], sums: &Sums, i: usize, levels: usize) -> f64 {
    let all = sums.count[counts.len()];
    let (inside, last) = (sums.count[i], counts[i - 1] as f64);
    let beyond = all - inside;
    if inside == 0.0 || (last == 0.0 && beyond > 0.0) {
        return f64::INFINITY;
    }
    let p_log_p = sums.entropy[i] - by_log(last) + by_log(last + beyond);
    let mut p_log_q = 0.0;
    let mut from = 0;
    for g in 1..=levels {
        let to = (g * i).div_ceil(levels);
        let count = sums.count[to] - sums.count[from];
        let filled = sums.filled[to] - sums.filled[from];
        if count > 0.0 {
            let in_p = if g == levels { count + beyond } else { count };
            p_log_q += in_p * log(count / filled);
        }
        from = to;
    }
    (p_log_p - p_log_q) / all - log(all) + log(inside)
}

/// Bins of either sign that the second variant looks at.
const ORT_BINS: usize = 1024;

/// Where the range of signed numbers ends for this many levels in all.
pub(super) fn threshold_ort(h: &Histogram, levels: usize) -> f64 {
    let merged = Histogram::BINS / ORT_BINS;
    let (negative, positive) = h.counts().split_at(Histogram::BINS);
    let gather = |side: &[u64]| -> Vec<f64> {
        let bins = side.chunks_exact(merged);
        bins.map(|b| b.iter().map(|c| *c as f64).sum()).collect()
    };
    let (negative, positive) = (gather(negative), gather(positive));
    let last = |v: &[f64]| v.iter().rposition(|c| *c > 0.0).map_or(0, |i| i + 1);
    let half = last(&negative).max(last(&positive));
    let mut bins: Vec<f64> = negative[..half].iter().rev().copied().collect();
    bins.extend(&positive[..half]);
    let (mut best, mut least) = (half, f64::INFINITY);
    for i in (levels / 2).max(1)..=half {
        let end = (half + i + 1).min(bins.len());
        let d = smoothed_divergence(&bins, half - i, end, levels);
        if d < least {
            (best, least) = (end - half, d);
        }
    }
    (best * merged) as f64 * h.width()
}

/// KL of the bins `from..to`, with all others added to their ends, against their groups, of which
/// there are at most as many as bins.
fn smoothed_divergence(bins: &[f64], from: usize, to: usize, groups: usize) -> f64 {
    let inside = &bins[from..to];
    let mut p = inside.to_vec();
    if let Some(first) = p.first_mut() {
        *first += bins[..from].iter().sum::<f64>();
    }
    if let Some(last) = p.last_mut() {
        *last += bins[to..].iter().sum::<f64>();
    }
    let size = inside.len() / groups;
    let mut q = vec![0.0; p.len()];
    for (g, part) in q.chunks_exact_mut(size).take(groups).enumerate() {
        let at = g * size;
        // The last group counts the rest of the bins too, but is not spread over it.
        let end = if g + 1 == groups { p.len() } else { at + size };
        let count: f64 = inside[at..end].iter().sum();
        let filled = p[at..at + size].iter().filter(|c| **c != 0.0).count();
        if filled > 0 {
            part.fill((count / filled as f64).trunc());
        }
    }
    match (smooth(&mut p), smooth(&mut q)) {
        (Some(()), Some(())) => relative_entropy(&p, &q),
        _ => f64::INFINITY,
    }
}

/// Gives empty bins something; `None` if all are empty.
fn smooth(v: &mut [f64]) -> Option<()> {
    const EACH: f64 = 1e-4;
    let empty = v.iter().filter(|c| **c == 0.0).count();
    let filled = v.len() - empty;
    if filled == 0 {
        return None;
    }
    let price = EACH * empty as f64 / filled as f64;
    v.iter_mut()
        .for_each(|c| *c += if *c == 0.0 { EACH } else { -price });
    v.iter().all(|c| *c > 0.0).then_some(())
}

/// `KL(P ‖ Q)` of two that need not add up to 1.
fn relative_entropy(p: &[f64], q: &[f64]) -> f64 {
    let (all_p, all_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
    let terms = p.iter().zip(q).map(|(p, q)| {
        let p = p / all_p;
        p * log(p / (q / all_q))
    });
    terms.sum()
}
