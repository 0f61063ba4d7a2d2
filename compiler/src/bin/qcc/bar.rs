//! A progress bar on stderr, only when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use qcc::Progress;
use std::io::IsTerminal;

/// Shows the stage and how far it is.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:12} [{bar:32}] {pos}/{len} {elapsed}");
        let show = std::io::stderr().is_terminal();
        Bar(style
            .ok()
            .filter(|_| show)
            .map(|s| ProgressBar::new(1).with_style(s)))
    }

    pub(crate) fn clear(&self) {
        if let Some(b) = &self.0 {
            b.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn step(&mut self, stage: &str, done: usize, total: usize) -> bool {
        if let Some(b) = &self.0 {
            b.set_message(stage.to_string());
            b.set_length(total as u64);
            b.set_position(done as u64);
        }
        true
    }
}
