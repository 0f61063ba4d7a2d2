//! `// set key=value`: options of the passes, and the tolerance of a comparison.

use qcc_passes::{ActMode, Options};

/// What the directives of a file set.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) passes: Options,
    /// 0 compares bit for bit.
    pub(super) tolerance: f64,
}

impl Settings {
    pub(super) fn new<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut s = Settings::default();
        for pair in lines.flat_map(str::split_whitespace) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("`set {pair}` is not key=value"))?;
            s.set(key, value)
                .ok_or_else(|| format!("no option `{key}` takes `{value}`"))??;
        }
        Ok(s)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<Result<(), String>> {
        match key {
            "act" => {
                self.passes.act = match value {
                    "auto" => ActMode::Auto,
                    "static" => ActMode::Static,
                    "dynamic" => ActMode::Dynamic,
                    "float" => ActMode::Float,
                    _ => return None,
                }
            }
            "fold_budget" => self.passes.fold_budget = value.parse().ok()?,
            "tolerance" => self.tolerance = value.parse().ok()?,
            _ => return Some(Err(format!("there is no option `{key}`"))),
        }
        Some(Ok(()))
    }
}
