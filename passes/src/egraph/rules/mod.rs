//! The rules, one row each.
//!
//! A rule looks at the search space and says what is equal to what, or why it declines: guards
//! give reasons, which `explain` prints for neighbours that stay apart. It changes nothing
//! itself. A rule is *bit-exact* when both sides give the same bits wherever values between
//! fused ops are stored as f32, i64 or bool, and *equal in reals* when they differ by rounding.
//! (Between ops of 16-bit models the fused side always rounds less; see `compose.rs`.)
//!
//! To add one: a row in the table of its family, and one line in `tests/rules.rs`.

mod absorb;
mod cancel;
mod epilogue;
mod map;
mod merge;
mod quantize;
mod rotary;
mod split;

use super::body::Reason;
use super::space::{Proposal, Space};
use std::collections::BTreeSet;

/// How equal the two sides of a rule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// The same bits where intermediate values are f32, i64 or bool.
    BitExact,
    /// The same real numbers; floating-point rounding differs.
    EqualInReals,
}

/// A rewrite rule.
pub(super) struct Rule {
    /// In kebab case, unique.
    pub(super) name: &'static str,
    /// How equal its sides are.
    pub(super) class: Exactness,
    /// The equation, for the documentation of the rule.
    pub(super) equation: &'static str,
    /// Reports equalities and refusals.
    pub(super) find: fn(&Rule, &Space<'_>, &mut Found),
}

/// What rules reported in one round.
#[derive(Default)]
pub(super) struct Found {
    pub(super) proposals: Vec<Proposal>,
    pub(super) declined: Vec<Declined>,
}

/// A place where a rule matches but its guard says no.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Declined {
    /// Ops of the region that would have been fused into the others.
    pub(super) readers: BTreeSet<u32>,
    /// Ops that would have taken them in.
    pub(super) producers: BTreeSet<u32>,
    pub(super) rule: &'static str,
    pub(super) reason: Reason,
}

/// All rules, in the order in which they are applied.
pub(super) fn all() -> Vec<&'static Rule> {
    [
        epilogue::RULES,
        quantize::RULES,
        map::RULES,
        cancel::RULES,
        merge::RULES,
        rotary::RULES,
        split::RULES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A row of the table of rules, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The name under which explanations list it.
    pub name: &'static str,
    /// How equal its sides are.
    pub class: Exactness,
    /// What it says.
    pub equation: &'static str,
}

/// All rules, in the order in which they are applied.
pub fn table() -> Vec<RuleInfo> {
    let info = |r: &Rule| RuleInfo {
        name: r.name,
        class: r.class,
        equation: r.equation,
    };
    all().into_iter().map(info).collect()
}
