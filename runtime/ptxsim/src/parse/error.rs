//! The typed error of the reader: what was found wrong and where.

use std::fmt;

/// A place in the PTX text, both counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub col: u32,
}

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// The characters do not form PTX tokens or statements.
    Syntax,
    /// A directive that is not built.
    UnknownDirective,
    /// An instruction that is not built.
    UnknownInstruction,
    /// A modifier, or a combination of modifiers, that is not built for this instruction.
    UnknownModifier,
    /// Operands of the wrong number, kind or width.
    Operand,
    /// A name that was not declared, or declared twice.
    Name,
    /// Float arithmetic without explicit rounding in strict mode.
    Rounding,
}

/// A refusal with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The class of the error.
    pub kind: ParseErrorKind,
    /// Where it stands in the text.
    pub pos: Pos,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(kind: ParseErrorKind, pos: Pos, message: impl Into<String>) -> Self {
        Self {
            kind,
            pos,
            message: message.into(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.pos.line, self.pos.col, self.message)
    }
}

impl std::error::Error for ParseError {}
