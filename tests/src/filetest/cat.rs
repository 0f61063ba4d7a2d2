//! `test cat`: the canonical text of a module, which reads back as itself.

use super::{Command, Filetest};
use qcc_ir::graph::parse;

pub(super) struct Cat;

impl Command for Cat {
    fn name(&self) -> &'static str {
        "cat"
    }

    fn run(&self, file: &Filetest) -> Result<String, String> {
        file.expects_no_error()?;
        let show = |e: Vec<qcc_ir::Diagnostic>| super::expect::show(&e);
        let text = parse(&file.text).map_err(show)?.to_string();
        let again = parse(&text).map_err(show)?.to_string();
        if again != text {
            return Err(format!("printed\n{text}\nand read back as\n{again}"));
        }
        Ok(text)
    }
}
