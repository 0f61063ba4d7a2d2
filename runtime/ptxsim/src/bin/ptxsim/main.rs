//! `ptxsim run FILE.ptx`: executes one kernel and prints its report. Results go to stdout, errors to stderr.
//!
//! Exit codes: 0 done, 2 usage, 3 unreadable input, 6 the kernel is at fault.

use std::env;
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use ptxsim::{Module, ParseOptions, Report, Simulator};

mod args;
mod buffers;

use args::Args;
use buffers::Buffers;

const HELP: &str = "\
ptxsim: executes PTX text on the CPU, finds races and counts traffic

  ptxsim run FILE.ptx [--entry NAME] --grid X,Y,Z --block X,Y,Z [options] [--arg ARG]...
  ptxsim check FILE.ptx            reads the text, lists its kernels and parameters

ARG, one for each parameter in order:
  u32:5  i32:-3  u64:5  f32:1.5    numbers
  in:FILE                          buffer filled from a .npy or raw file
  out:BYTES[:FILE]                 unwritten buffer, saved raw to FILE afterwards
  inout:FILE:FILE                  filled from the first, saved to the second
  zeros:BYTES[:FILE]               buffer of zeros
  random:TYPE:COUNT[:SEED]         COUNT numbers, f32 or f16 in -1 to 1, or u8 (any bytes)
  hex:0011aabb                     any bytes (structs, tensor maps)

Options:
  --cluster X,Y,Z     blocks of a cluster
  --shared BYTES      dynamic shared memory
  --sms N             multiprocessors for the number of waves (default 132)
  --seed N            schedule: 0 in order, 1 copies as late as possible, others random (default: 0, 1 and 2)
  --accumulate M      exact (default) or hopper
  --approx M          nearest (default), low or high
  --no-races, --no-uninit, --threads N, --strict-rounding, --json
";

/// Writes to stdout; a closed pipe is the reader's choice.
fn say(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}

/// How a run ended badly.
enum Failure {
    Usage(String),
    Input(String),
    Fault(String),
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let result = match words.first().map(String::as_str) {
        Some("run") => run(&words[1..]),
        Some("check") => check(&words[1..]),
        None | Some("--help" | "-h" | "help") => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        Some(other) => Err(Failure::Usage(format!("unknown command `{other}`"))),
    };
    let (code, text) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(t)) => (2, format!("{t}\ntry `ptxsim --help`")),
        Err(Failure::Input(t)) => (3, t),
        Err(Failure::Fault(t)) => (6, t),
    };
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(stderr(), "ptxsim: {text}");
    ExitCode::from(code)
}

fn read(file: &str, strict: bool) -> Result<Module, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::Input(format!("{file}: {e}")))?;
    let options = ParseOptions {
        require_rounding: strict,
    };
    Module::parse_with(&text, options).map_err(|e| Failure::Input(format!("{file}:{e}")))
}

fn check(words: &[String]) -> Result<(), Failure> {
    let [file] = words else {
        return Err(Failure::Usage("check takes one file".into()));
    };
    let module = read(file, false)?;
    let (major, minor) = module.version();
    let mut text = format!(".version {major}.{minor} .target {}\n", module.target());
    for entry in module.entries() {
        text += &format!("{entry}\n");
        for p in module.params(entry).unwrap_or_default() {
            let (name, at, size, align) = (&p.name, p.offset, p.size, p.align);
            text += &format!("  {name:<40} offset {at:>4} size {size:>4} align {align}\n");
        }
    }
    say(&text);
    Ok(())
}

fn run(words: &[String]) -> Result<(), Failure> {
    let args = Args::parse(words).map_err(Failure::Usage)?;
    let module = read(&args.file, args.strict)?;
    let entry = match (&args.entry, &module.entries()[..]) {
        (Some(name), _) => name.clone(),
        (None, [only]) => (*only).to_string(),
        (None, all) => return Err(Failure::Usage(format!("name one of {all:?} with --entry"))),
    };
    let mut last: Option<(Report, Buffers)> = None;
    for seed in &args.seeds {
        let mut buffers = Buffers::new(&args.args).map_err(Failure::Input)?;
        let launch = args.launch(buffers.values());
        let options = ptxsim::Options {
            schedule_seed: *seed,
            ..args.options.clone()
        };
        let report = Simulator::new(options)
            .launch(&module, &entry, &launch, &mut buffers.memory)
            .map_err(|f| {
                if args.json {
                    say(&(f.to_json() + "\n"));
                }
                Failure::Fault(format!("schedule {seed}: {f}"))
            })?;
        last = Some((report, buffers));
    }
    let Some((report, buffers)) = last else {
        return Ok(());
    };
    buffers.save().map_err(Failure::Input)?;
    say(&if args.json {
        report.to_json() + "\n"
    } else {
        report.to_string()
    });
    Ok(())
}
