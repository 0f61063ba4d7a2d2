//! Filetests: `.qir` (modules) and `.kir` (kernels) files that say in their first line what is to be done with them.
//!
//! ```text
//! // test cat                  canonical text; its own inverse
//! // test verify               the violations named in `// error:` comments, no others
//! // test opt dce,cse          the module after these passes
//! // test run                  results on the oracle and the other backends
//! // test lower sm_80           the launches on a GPU
//! // test kernel               canonical kernel text, or the errors named in comments
//! // test ptx 80               PTX of kernels
//! ```
//!
//! Further directives stand in the comments at the head of the file:
//!
//! | directive | meaning |
//! |---|---|
//! | `// input x: f32[2] = [1, 2]` | argument `x`, in the syntax of weights |
//! | `// output y: f32[2] = [3, 4]` | result `y`, equal bit for bit |
//! | `// output y: f32[2] = [3, 4] ~ 1e-6` | result `y`, up to 1e-6 · max(1, magnitude) |
//! | `// calib x: f32[2] = [1, 2]` | calibration data; each name once per sample |
//! | `// set act=dynamic` | an option of the passes (`options.rs`) |
//! | `// cpu: Q0711` | the CPU backend refuses with this code |
//!
//! `// error: Q0213 part of the message` may end any line, more than once. Errors with a position must stand on
//! their line; all of them come in the order of the text.
//!
//! What a command returns is compared with the snapshot beside the file. To add a command, write
//! one file like `cat.rs` and its row in `COMMANDS`.

mod cat;
mod data;
mod expect;
mod kernel;
mod lower;
mod opt;
mod options;
mod ptx;
mod run;
mod verify;

use expect::Expected;
use qcc_ir::graph::{Module, parse, verify as check};
use std::path::Path;

/// What a file is tested with.
trait Command: Sync {
    /// The word after `test`.
    fn name(&self) -> &'static str;

    /// Does it and gives the text to compare with the snapshot, or says what failed.
    fn run(&self, file: &Filetest) -> Result<String, String>;
}

/// The words that begin a directive.
const DIRECTIVES: &[&str] = &["input", "output", "calib", "set", "cpu:"];

const COMMANDS: &[&dyn Command] = &[
    &cat::Cat,
    &kernel::KernelText,
    &lower::Lower,
    &opt::Opt,
    &ptx::Ptx,
    &run::Run,
    &verify::Verify,
];

/// A file and what its comments ask for.
struct Filetest {
    text: String,
    /// The word after `test`, and what follows it.
    command: String,
    args: String,
    /// The other directives of the head: word and rest.
    directives: Vec<(String, String)>,
    errors: Vec<Expected>,
}

/// Runs a file.
///
/// # Errors
/// What differs from what the file expects.
pub fn run_file(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    run_text(&text)
}

fn run_text(text: &str) -> Result<String, String> {
    let file = Filetest::new(text)?;
    let command = COMMANDS.iter().find(|c| c.name() == file.command);
    let command = command.ok_or_else(|| format!("there is no command `{}`", file.command))?;
    command.run(&file)
}

impl Filetest {
    fn new(text: &str) -> Result<Self, String> {
        let mut head = text.lines().map_while(|l| l.strip_prefix("//"));
        let first = head.next().and_then(|l| l.trim().strip_prefix("test "));
        let first = first.ok_or("the first line must be `// test COMMAND`")?;
        let (command, args) = first.split_once(' ').unwrap_or((first, ""));
        let directives = head
            .map(|l| l.trim().split_once(' ').unwrap_or((l.trim(), "")))
            .filter(|(word, _)| DIRECTIVES.contains(word))
            .map(|(word, rest)| (word.to_string(), rest.trim().to_string()))
            .collect();
        Ok(Filetest {
            text: text.to_string(),
            command: command.to_string(),
            args: args.trim().to_string(),
            directives,
            errors: expect::expectations(text)?,
        })
    }

    /// What follows each directive of this word.
    fn directive(&self, word: &str) -> impl Iterator<Item = &str> {
        self.directives
            .iter()
            .filter(move |(w, _)| w == word)
            .map(|(_, rest)| rest.as_str())
    }

    /// The module in the file, which must be valid.
    fn module(&self) -> Result<Module, String> {
        let m = parse(&self.text).map_err(|e| expect::show(&e))?;
        match check(&m).as_slice() {
            [] => Ok(m),
            e => Err(expect::show(e)),
        }
    }

    /// For commands without expected errors.
    fn expects_no_error(&self) -> Result<(), String> {
        match self.errors.as_slice() {
            [] => Ok(()),
            _ => Err(format!("`test {}` takes no `// error:`", self.command)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::run_text;

    /// A filetest that fails, and a part of what it says.
    #[track_caller]
    fn fails(text: &str, part: &str) {
        match run_text(text) {
            Ok(out) => panic!("passed with\n{out}"),
            Err(e) => assert!(e.contains(part), "{e}"),
        }
    }

    const RELU: &str =
        "qir 1\nfunc @f(%x: f32[2]) -> (y: f32[2]) {\n  %y: f32[2] = relu %x\n  return %y\n}\n";

    #[test]
    fn heads_are_checked() {
        fails("qir 1", "first line");
        fails("// test frobnicate\nqir 1", "no command `frobnicate`");
        fails(
            "// test cat\nqir 1\n// error: Q0302",
            "takes no `// error:`",
        );
        fails(
            "// test verify\nqir 1\n// error: nothing",
            "no code such as Q0213",
        );
    }

    #[test]
    fn expected_errors_must_occur_on_their_line() {
        let text = |at: [&str; 2]| {
            format!(
                "// test verify\nqir 1\nfunc @f(%x: f32[2]) -> () {{{}\n  %y: f32[3] = relu %x{}\n  return\n}}\n",
                at[0], at[1]
            )
        };
        assert!(run_text(&text(["", " // error: Q0213 result shape"])).is_ok());
        fails(&text(["", ""]), "not expected");
        fails(&text(["", " // error: Q0214"]), "expected Q0214");
        fails(&text(["", " // error: Q0213 other words"]), "other words");
        fails(&text([" // error: Q0213", ""]), "expected on line 3");
        fails(
            &text(["", " // error: Q0213\n  // error: Q0213"]),
            "did not occur",
        );
        fails(
            "// test verify\nqir 1\nfoo\n  bar // error: Q0303",
            "expected on line 4",
        );
    }

    #[test]
    fn results_are_compared() {
        let run = |head: &str| format!("// test run\n// input x: f32[2] = [-1, 2]\n{head}\n{RELU}");
        assert_eq!(
            run_text(&run("// output y: f32[2] = [0, 2]")).unwrap(),
            "y: f32[2] = [0.0, 2.0]\n"
        );
        fails(&run("// output y: f32[2] = [0, 2.5]"), "element 1");
        fails(
            &run("// output y: f32[1, 2] = [0, 2]"),
            "expected f32[1, 2]",
        );
        fails(&run("// output z: f32[2] = [0, 2]"), "no result `z`");
        assert!(run_text(&run("// output y: f32[2] = [0, 2.01] ~ 0.01")).is_ok());
        fails(&run("// output y: f32[2] = [0, 2.01] ~ 0.001"), "element 1");
        fails(&format!("// test run\n{RELU}"), "no `// input x");
        fails(&run("// input z: f32[2] = [0, 2]"), "no parameter `z`");
    }

    #[test]
    fn passes_are_compared_on_inputs() {
        let opt = |args: &str| format!("// test opt {args}\n// input x: f32[2] = [-1, 2]\n{RELU}");
        assert!(run_text(&opt("dce")).is_ok());
        fails(&opt("frobnicate"), "Q0040");
        fails(
            &opt("dce").replace("return", "// error: Q0001\n return"),
            "did not occur",
        );
        fails(
            &opt("dce").replace("// input", "// set x=1\n// input"),
            "no such option",
        );
    }
}
