//! A module that is ready to launch.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decode::{self, ParseOptions};
use crate::isa::program::{GlobalVar, Program};
use crate::parse::ast::Param;
use crate::parse::error::ParseError;

/// A PTX text, read and decoded.
#[derive(Clone, Debug)]
pub struct Module {
    id: u64,
    version: (u32, u32),
    target: String,
    programs: Vec<Program>,
    variables: Vec<GlobalVar>,
    /// `//@` comments with their lines.
    notes: Vec<(u32, String)>,
}

impl Module {
    /// Reads and decodes a text.
    ///
    /// # Errors
    /// The first thing that is no PTX or is not built, with its line and column.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_with(text, ParseOptions::default())
    }

    /// As [`Module::parse`], with options.
    ///
    /// # Errors
    /// As [`Module::parse`].
    pub fn parse_with(text: &str, options: ParseOptions) -> Result<Self, ParseError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let ast = crate::parse::parse(text)?;
        let (programs, variables) = decode::decode(&ast, options)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            id,
            version: ast.version,
            target: ast.target,
            programs,
            variables,
            notes: notes(text),
        })
    }

    /// `.version`: major and minor.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// `.target`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Names of the kernels, in text order.
    #[must_use]
    pub fn entries(&self) -> Vec<&str> {
        self.programs.iter().map(|p| p.name.as_str()).collect()
    }

    /// Parameters of a kernel.
    #[must_use]
    pub fn params(&self, entry: &str) -> Option<&[Param]> {
        self.program(entry).map(|p| p.params.as_slice())
    }

    pub(crate) fn program(&self, entry: &str) -> Option<&Program> {
        self.programs.iter().find(|p| p.name == entry)
    }

    /// The last `//@` comment at or above a line, inside the same kernel text.
    pub(crate) fn note(&self, line: u32) -> Option<String> {
        let i = self.notes.partition_point(|n| n.0 <= line).checked_sub(1)?;
        Some(self.notes[i].1.clone())
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn variables(&self) -> &[GlobalVar] {
        &self.variables
    }
}

/// Comments of the form `//@ text` tell what the following instructions were made from.
fn notes(text: &str) -> Vec<(u32, String)> {
    let note = |(i, line): (usize, &str)| {
        let (_, note) = line.split_once("//@")?;
        Some((i as u32 + 1, note.trim().to_string()))
    };
    text.lines().enumerate().filter_map(note).collect()
}
