//! `// set key=value`: options of the passes, and the tolerance of a comparison.

use qcc_ir::Diagnostic;
use qcc_passes::{ActMode, Algo, CalibMethod, Options, Scheme, Smooth};

/// What the directives of a file set.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) passes: Options,
    /// How far results may lie from what they were; none compares bit for bit.
    pub(super) tolerance: Option<f64>,
}

impl Settings {
    pub(super) fn new<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut s = Settings::default();
        for pair in lines.flat_map(str::split_whitespace) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("`set {pair}` is not key=value"))?;
            s.set(key, value)
                .map_err(|why| format!("option `{key}={value}`: {why}"))?;
        }
        Ok(s)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let show = |d: Diagnostic| d.to_string();
        let bad = || "this value is not understood".to_string();
        let p = &mut self.passes;
        match key {
            "scheme" => p.scheme = Scheme::named(value).map_err(show)?,
            "head" => p.head = Scheme::named(value).map_err(show)?,
            "algo" => p.algo = Some(Algo::list(value).map_err(show)?),
            "calib" => p.calib = CalibMethod::named(value).map_err(show)?,
            "act" => p.act = act(value).ok_or_else(bad)?,
            "exclude" => p.exclude.push(value.into()),
            "override" => {
                let (regex, scheme) = value.rsplit_once('=').ok_or_else(bad)?;
                let scheme = Scheme::named(scheme).map_err(show)?;
                p.overrides.push((regex.into(), scheme));
            }
            "smooth" => p.smooth = smooth(value).ok_or_else(bad)?,
            "outliers" => p.outliers = Some(value.parse().map_err(|_| bad())?),
            "sparse" => p.sparse = Some(value.parse().map_err(|_| bad())?),
            "rotate" => p.rotate = value.parse().map_err(|_| bad())?,
            "seed" => p.seed = value.parse().map_err(|_| bad())?,
            "float" => p.float = Some(value.parse().map_err(|_| bad())?),
            "fold_budget" => p.fold_budget = value.parse().map_err(|_| bad())?,
            "tolerance" => self.tolerance = Some(value.parse().map_err(|_| bad())?),
            _ => return Err("there is no such option".into()),
        }
        Ok(())
    }
}

fn smooth(value: &str) -> Option<Smooth> {
    Some(match value {
        "off" => Smooth::Off,
        "auto" => Smooth::Auto,
        alpha => Smooth::Alpha(alpha.parse().ok()?),
    })
}

fn act(value: &str) -> Option<ActMode> {
    Some(match value {
        "auto" => ActMode::Auto,
        "static" => ActMode::Static,
        "dynamic" => ActMode::Dynamic,
        "float" => ActMode::Float,
        _ => return None,
    })
}
