//! The command line of `ptxsim run`.

use ptxsim::{Accumulate, Approx, Arg, Launch, Options};

/// What was asked for.
pub(crate) struct Args {
    pub(crate) file: String,
    pub(crate) entry: Option<String>,
    grid: [u32; 3],
    block: [u32; 3],
    cluster: [u32; 3],
    shared: u32,
    pub(crate) args: Vec<String>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) options: Options,
    pub(crate) strict: bool,
    pub(crate) json: bool,
}

impl Args {
    /// Reads the words after `run`.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut a = Self {
            file: String::new(),
            entry: None,
            grid: [1; 3],
            block: [0; 3],
            cluster: [0; 3],
            shared: 0,
            args: vec![],
            seeds: vec![0, 1, 2],
            options: Options::default(),
            strict: false,
            json: false,
        };
        let mut it = words.iter();
        while let Some(word) = it.next() {
            if !word.starts_with("--") {
                if !a.file.is_empty() {
                    return Err(format!("more than one file: `{word}`"));
                }
                a.file = word.clone();
                continue;
            }
            let mut value = || it.next().ok_or_else(|| format!("`{word}` needs a value"));
            match word.as_str() {
                "--entry" => a.entry = Some(value()?.clone()),
                "--grid" => a.grid = triple(value()?)?,
                "--block" => a.block = triple(value()?)?,
                "--cluster" => a.cluster = triple(value()?)?,
                "--shared" => a.shared = number(value()?)?,
                "--seed" => a.seeds = vec![number(value()?)?],
                "--arg" => a.args.push(value()?.clone()),
                "--sms" => a.options.sms = number(value()?)?,
                "--threads" => a.options.threads = number(value()?)?,
                "--accumulate" => {
                    a.options.accumulate = match value()?.as_str() {
                        "exact" => Accumulate::Exact,
                        "hopper" => Accumulate::Hopper,
                        other => {
                            return Err(format!(
                                "accumulation `{other}` is neither exact nor hopper"
                            ));
                        }
                    }
                }
                "--approx" => {
                    a.options.approx = match value()?.as_str() {
                        "nearest" => Approx::Nearest,
                        "low" => Approx::Low,
                        "high" => Approx::High,
                        other => return Err(format!("`{other}` is none of nearest, low, high")),
                    }
                }
                "--no-races" => a.options.races = false,
                "--no-uninit" => a.options.uninit = false,
                "--strict-rounding" => a.strict = true,
                "--json" => a.json = true,
                other => return Err(format!("unknown option `{other}`")),
            }
        }
        if a.file.is_empty() || a.block[0] == 0 {
            return Err("a file and --block are needed".into());
        }
        Ok(a)
    }

    pub(crate) fn launch(&self, args: Vec<Arg>) -> Launch {
        Launch {
            grid: self.grid,
            block: self.block,
            cluster: self.cluster,
            shared_bytes: self.shared,
            args,
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no number that fits"))
}

fn triple(text: &str) -> Result<[u32; 3], String> {
    let mut out = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err(format!("`{text}` has more than three numbers"));
    }
    for (slot, part) in out.iter_mut().zip(parts) {
        *slot = number(part)?;
    }
    Ok(out)
}
