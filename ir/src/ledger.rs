//! The ledger: every choice that the compiler made, what it was chosen over, and why.
//!
//! Format, granularity, fusion, layout, kernel and fallback are [`Decision`]s. A decision keeps
//! all candidates with their predicted time, their error and the constraint that refused them,
//! so that a report only prints what is recorded here. Decisions are kept in one order, by
//! site (numbers in names compare as numbers), target and topic: the order in which passes or
//! threads record them does not show.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Number formats and granularity of weights and activations.
    Scheme,
    /// Whether and how strongly activations are smoothed into weights.
    Smoothing,
    /// Where the range of statically quantized activations ends.
    Range,
    /// Which input channels stay float beside quantized ones.
    Outliers,
    /// Whether and how activations are rotated.
    Rotation,
    /// Which ops one kernel computes together.
    Fusion,
    /// How a weight lies in memory.
    Layout,
    /// Which kernel runs an op.
    Kernel,
    /// An op that runs in another format or on another device than was asked for.
    Fallback,
}

/// One choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The node that it is about, by its name in the model.
    pub site: String,
    /// What was decided.
    pub topic: Topic,
    /// The target, where the choice differs between targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The weight of the node, if it has one.
    pub weight: Option<String>,
    /// Name of the candidate that was taken.
    pub chosen: String,
    /// All candidates in the order in which they were enumerated, the chosen one included.
    pub considered: Vec<Candidate>,
    /// Rewrite rules that led to the result, in order of application.
    pub rules: Vec<String>,
    /// Nodes that the result computes together.
    pub fused: Vec<String>,
}

/// Something that could have been chosen.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Its name.
    pub candidate: String,
    /// Predicted time in microseconds for each bucket of sizes.
    #[serde(default)]
    pub predicted_us: BTreeMap<String, f64>,
    /// Its measured or estimated error in the unit of the search; none if it was not measured.
    #[serde(default)]
    pub error: Option<f64>,
    /// The constraint that rules it out; none for one that lost on cost or won.
    #[serde(default)]
    pub refused_by: Option<String>,
}

impl Candidate {
    /// A candidate without figures.
    pub fn new(name: impl Into<String>) -> Self {
        Candidate {
            candidate: name.into(),
            ..Candidate::default()
        }
    }

    /// A candidate that a constraint rules out.
    pub fn refused(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Candidate {
            refused_by: Some(reason.into()),
            ..Candidate::new(name)
        }
    }

    /// Adds its error; a value that is not finite counts as not measured.
    #[must_use]
    pub fn error(mut self, error: f64) -> Self {
        self.error = Some(error).filter(|e| e.is_finite());
        self
    }

    /// Adds its predicted time for a bucket; a value that is not finite is left out.
    #[must_use]
    pub fn predicted(mut self, bucket: impl Into<String>, us: f64) -> Self {
        if us.is_finite() {
            self.predicted_us.insert(bucket.into(), us);
        }
        self
    }
}

impl Decision {
    /// A decision that so far knows only what was chosen.
    pub fn new(site: impl Into<String>, topic: Topic, chosen: impl Into<String>) -> Self {
        Decision {
            site: site.into(),
            topic,
            target: None,
            weight: None,
            chosen: chosen.into(),
            considered: Vec::new(),
            rules: Vec::new(),
            fused: Vec::new(),
        }
    }

    /// Names the weight.
    #[must_use]
    pub fn weight(mut self, name: impl Into<String>) -> Self {
        self.weight = Some(name.into());
        self
    }

    /// Names the target.
    #[must_use]
    pub fn target(mut self, name: impl Into<String>) -> Self {
        self.target = Some(name.into());
        self
    }

    /// Adds a candidate.
    #[must_use]
    pub fn consider(mut self, candidate: Candidate) -> Self {
        self.considered.push(candidate);
        self
    }

    fn order(&self, other: &Decision) -> Ordering {
        natural(&self.site, &other.site)
            .then_with(|| self.target.cmp(&other.target))
            .then_with(|| self.topic.cmp(&other.topic))
    }
}

/// All decisions of one compilation.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Ledger {
    decisions: Vec<Decision>,
}

impl Ledger {
    /// A ledger without decisions.
    pub fn new() -> Self {
        Ledger::default()
    }

    /// Records a decision at its place. One with the same site, target and topic is replaced:
    /// a later pass that decides anew is the one that counts.
    pub fn record(&mut self, decision: Decision) {
        match self.decisions.binary_search_by(|d| d.order(&decision)) {
            Ok(i) => self.decisions[i] = decision,
            Err(i) => self.decisions.insert(i, decision),
        }
    }

    /// Takes over all decisions of another ledger, as if recorded after these.
    pub fn merge(&mut self, other: Ledger) {
        for d in other.decisions {
            self.record(d);
        }
    }

    /// The decisions in the ledger's order.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// The decision on a topic at a site, where it does not depend on the target.
    pub fn find(&self, site: &str, topic: Topic) -> Option<&Decision> {
        self.decisions
            .iter()
            .find(|d| d.site == site && d.topic == topic && d.target.is_none())
    }
}

/// Compares names with numbers in them as people do: `layer.2` comes before `layer.10`.
/// A total order: equal only if the texts are equal.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    while let (Some(c), Some(d)) = (x.chars().next(), y.chars().next()) {
        let (n, m) = (leading_digits(x), leading_digits(y));
        if n > 0 && m > 0 {
            let (p, q) = (
                x[..n].trim_start_matches('0'),
                y[..m].trim_start_matches('0'),
            );
            let by_value = p.len().cmp(&q.len()).then_with(|| p.cmp(q));
            if by_value != Ordering::Equal {
                return by_value;
            }
            (x, y) = (&x[n..], &y[m..]);
        } else if c != d {
            return c.cmp(&d);
        } else {
            (x, y) = (&x[c.len_utf8()..], &y[d.len_utf8()..]);
        }
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

fn leading_digits(s: &str) -> usize {
    s.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_names_not_of_recording() {
        let sites = ["layers.10.fc", "layers.2.fc", "embed", "layers.02.fc"];
        let topics = [Topic::Kernel, Topic::Scheme];
        let mut forward = Ledger::new();
        let mut backward = Ledger::new();
        for s in sites {
            for t in topics {
                forward.record(Decision::new(s, t, "x"));
            }
        }
        for s in sites.iter().rev() {
            for t in topics.iter().rev() {
                backward.record(Decision::new(*s, *t, "x"));
            }
        }
        assert_eq!(forward, backward);
        let order: Vec<_> = forward
            .decisions()
            .iter()
            .map(|d| d.site.as_str())
            .collect();
        let expected = ["embed", "layers.02.fc", "layers.2.fc", "layers.10.fc"];
        assert_eq!(order, expected.map(|s| [s, s]).concat());
        assert_eq!(forward.decisions()[0].topic, Topic::Scheme);
    }

    #[test]
    fn a_later_decision_replaces_an_earlier_one() {
        let mut ledger = Ledger::new();
        ledger.record(Decision::new("a", Topic::Scheme, "fp8"));
        ledger.record(Decision::new("a", Topic::Scheme, "float"));
        ledger.record(Decision::new("a", Topic::Scheme, "fp8").target("sm_80"));
        assert_eq!(ledger.decisions().len(), 2);
        let found = ledger.find("a", Topic::Scheme).map(|d| d.chosen.as_str());
        assert_eq!(found, Some("float"));
    }

    #[test]
    fn figures_that_are_no_numbers_are_not_recorded() {
        let c = Candidate::new("fp8")
            .error(f64::NAN)
            .predicted("1", f64::INFINITY);
        assert_eq!(c, Candidate::new("fp8"));
    }
}
