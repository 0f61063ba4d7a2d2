//! Instructions that a GPU executes (SASS) for each PTX instruction of a class.
//!
//! ptxas folds address arithmetic, conversions between integers and constants, splits 64-bit
//! arithmetic, and unrolls. `tests/sass/measure.py` assembles the kernels of the example model in four
//! schemes for sm_80 and sm_90, takes them apart with nvdisasm and compares innermost loop bodies, copies
//! of an unrolled body counted once; `tests/sass/factors.tsv` is what it said (ptxas and nvdisasm
//! 13.5.37). A factor is the ratio of the sums over all kernels and both architectures, what a kernel
//! of ours needs on average: for all instructions single kernels lie between 0.36 and 1.48.

use crate::isa::Class;

/// All instructions.
pub(crate) const ALL: f64 = 0.52;
/// Integer, logic, bit operations and comparisons.
const INTEGER: f64 = 0.51;
/// f32, f16 and bf16 arithmetic.
const FLOAT: f64 = 1.09;
/// `cvt`: most widen addresses and vanish.
const CONVERT: f64 = 0.18;

/// Executed instructions for each PTX instruction of the class. What no loop of the kernels held
/// (functions, exchanges, f64) is taken as it stands.
pub(crate) fn factor(class: Class) -> f64 {
    match class {
        Class::Integer | Class::Compare => INTEGER,
        Class::Float | Class::Half => FLOAT,
        Class::Convert => CONVERT,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors are the ratios of the measured sums, to two places.
    #[test]
    fn factors_are_what_was_measured() {
        let table = include_str!("../tests/sass/factors.tsv");
        let head: Vec<&str> = table.lines().next().expect("a head").split('\t').collect();
        let sums: Vec<Vec<&str>> = table
            .lines()
            .filter(|l| l.starts_with("sum\t"))
            .map(|l| l.split('\t').collect())
            .collect();
        assert_eq!(sums.len(), 2, "sm_80 and sm_90");
        let total = |name: &str| -> f64 {
            let at = head.iter().position(|h| *h == name).expect("a column");
            sums.iter()
                .map(|r| r[at].parse::<f64>().expect("a number"))
                .sum()
        };
        for (class, factor) in [
            ("all", ALL),
            ("integer", INTEGER),
            ("float", FLOAT),
            ("convert", CONVERT),
        ] {
            let ratio = total(&format!("{class}.sass")) / total(&format!("{class}.ptx"));
            assert!((ratio - factor).abs() <= 0.005, "{class}: {ratio}");
        }
        for class in ["function", "exchange"] {
            assert!(
                total(&format!("{class}.ptx")) == 0.0,
                "{class} was measured"
            );
        }
    }
}
