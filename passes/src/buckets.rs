//! The sizes that matter: at which times are predicted and choices are made.
//!
//! Each symbol may name sizes to optimise for (`dim n = 1..4096 @ 1, 16`). The i-th size of every
//! symbol makes the i-th *bucket*. A symbol without sizes counts with its largest size up to 128.

use qcc_ir::graph::Module;
use std::collections::BTreeMap;

/// Size of a symbol that names no sizes to optimise for, unless its range ends below.
const USUAL_SIZE: u64 = 128;

/// One set of sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// `n=16, seq=128`, or `any` without symbols.
    pub name: String,
    sizes: BTreeMap<String, i64>,
}

impl Bucket {
    /// The size of a symbol.
    pub fn size(&self, symbol: &str) -> Option<i64> {
        self.sizes.get(symbol).copied()
    }
}

/// The buckets of a module; at least one.
pub fn buckets(m: &Module) -> Vec<Bucket> {
    let count = m.symbols.iter().map(|s| s.points.len()).max();
    (0..count.unwrap_or(0).max(1))
        .map(|i| {
            let sizes: BTreeMap<String, i64> = m
                .symbols
                .iter()
                .map(|s| {
                    let last = s.points.last().copied();
                    let n = s.points.get(i).copied().or(last);
                    let n = n.unwrap_or_else(|| USUAL_SIZE.clamp(s.min, s.max.max(s.min)));
                    (s.name.clone(), i64::try_from(n).unwrap_or(i64::MAX))
                })
                .collect();
            let parts: Vec<String> = sizes.iter().map(|(s, n)| format!("{s}={n}")).collect();
            let name = match parts.is_empty() {
                true => "any".into(),
                false => parts.join(", "),
            };
            Bucket { name, sizes }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::module;

    #[test]
    fn the_sizes_of_each_symbol_pair_up() {
        let m = module(
            "dim n = 1..64 @ 1, 16
             dim s = 1..32
             func @main(%x: f32[n, s]) -> (y: f32[n, s]) {
               %y: f32[n, s] = neg %x
               return %y
             }",
        );
        let found = buckets(&m);
        let names: Vec<&str> = found.iter().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["n=1, s=32", "n=16, s=32"]);
        assert_eq!((found[1].size("n"), found[1].size("z")), (Some(16), None));
    }
}
