//! The layers that cost most accuracy, and the flag that keeps them float.

use super::LayerReport;
use serde::Serialize;

/// Layers that are named at most.
const MOST: usize = 5;
/// The share of the outputs' error that the named layers shall reach.
const ENOUGH: f64 = 0.5;

/// The layers that cost most accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprits {
    /// Their names, the worst first.
    pub layers: Vec<String>,
    /// Their share of the outputs' error together, if that was measured.
    pub share: Option<f64>,
    /// The value of `--override` that keeps them float.
    #[serde(rename = "override")]
    pub value: String,
}

impl Culprits {
    /// The fewest layers that have half of the outputs' error, at most five; where shares were
    /// not measured, the layer with the largest error of its own.
    pub(crate) fn of(layers: &[LayerReport]) -> Option<Culprits> {
        let ranked = ranked(layers);
        let mut share = ranked.first()?.share().map(|_| 0.0);
        let mut named: Vec<&LayerReport> = Vec::new();
        for l in ranked.into_iter().take(MOST) {
            named.push(l);
            share = share.map(|s| s + l.share().unwrap_or(0.0));
            if share.is_none_or(|s| s >= ENOUGH) {
                break;
            }
        }
        let mut patterns: Vec<String> = Vec::new();
        for l in &named {
            let p = regex::escape(&l.weight);
            if !patterns.contains(&p) {
                patterns.push(p);
            }
        }
        let value = match patterns.as_slice() {
            [one] => format!("^{one}$=float"),
            more => format!("^({})$=float", more.join("|")),
        };
        Some(Culprits {
            layers: named.iter().map(|l| l.name.clone()).collect(),
            share,
            value,
        })
    }

    /// The flag as it is pasted into a shell.
    pub fn flag(&self) -> String {
        format!("--override '{}'", self.value.replace('\'', r"'\''"))
    }
}

/// The layers with an error that is not zero, the worst first: by their share of the outputs'
/// error, those without one after them by their own.
pub fn ranked(layers: &[LayerReport]) -> Vec<&LayerReport> {
    let key = |l: &LayerReport| (l.share().unwrap_or(-1.0), l.relative_mse.unwrap_or(0.0));
    let mut out: Vec<&LayerReport> = layers.iter().filter(|l| key(l).1 > 0.0).collect();
    out.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::layer;

    #[test]
    fn the_fewest_layers_with_half_of_the_error() {
        let layers = [
            layer("a", 0.2),
            layer("b'|", 0.4),
            layer("c", 0.3),
            layer("d", 0.1),
        ];
        let c = Culprits::of(&layers).unwrap();
        assert_eq!(c.layers, ["b'|", "c"]);
        assert!((c.share.unwrap() - 0.7).abs() < 1e-12);
        assert_eq!(c.value, r"^(b'\||c)$=float");
        assert_eq!(c.flag(), r"--override '^(b'\''\||c)$=float'");
        let alone = Culprits::of(&layers[..1]).unwrap();
        assert_eq!(alone.value, "^a$=float");
    }

    #[test]
    fn without_shares_the_largest_error_of_its_own() {
        let mut layers = [layer("a", 0.2), layer("b", 0.4)];
        for (l, e) in layers.iter_mut().zip([1e-3, 1e-4]) {
            (l.kl_share, l.relative_mse) = (None, Some(e));
        }
        let c = Culprits::of(&layers).unwrap();
        assert_eq!((c.layers, c.share), (vec!["a".to_string()], None));
        layers.iter_mut().for_each(|l| l.relative_mse = None);
        assert_eq!(Culprits::of(&layers), None);
    }
}
