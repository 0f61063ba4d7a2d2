//! Diagnostics: what went wrong, where, and what to do about it.
//!
//! Every error of the project is a [`Diagnostic`]: a stable code (`Q0123`), a class (which
//! decides the exit code), a message that names both sides of a mismatch, the node or file it
//! is about, and a hint. The hundreds of a code tell the area:
//!
//! | codes | area |
//! |---|---|
//! | Q00xx | command line and options |
//! | Q01xx | ONNX files and import |
//! | Q02xx | graph IR: verifier and shape inference |
//! | Q03xx | text form: lexer and parser |
//! | Q04xx | plan files |
//! | Q05xx | input data, calibration, statistics |
//! | Q06xx | targets, kernels, unsupported combinations |
//! | Q07xx | devices and running |
//! | Q08xx | accuracy bounds |
//! | Q09xx | defects of qcc itself |

use std::fmt;

/// What kind of failure a diagnostic is; decides the exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The command line or the options contradict themselves.
    Usage,
    /// A model, plan or data file is malformed or does not fit.
    Input,
    /// The input is valid, but qcc or the target cannot do it.
    Unsupported,
    /// An accuracy bound was missed.
    Accuracy,
    /// A device is missing or failed.
    Device,
    /// A defect of qcc itself.
    Internal,
}

impl Class {
    /// The process exit code of the command for this class.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Internal => 1,
            Class::Usage => 2,
            Class::Input => 3,
            Class::Unsupported => 4,
            Class::Accuracy => 5,
            Class::Device => 6,
        }
    }
}

/// The error of an index that names no slice of a tensor, the same on every device.
pub fn index_outside(index: i64, axis: usize, extent: u64) -> Diagnostic {
    Diagnostic::error(
        705,
        Class::Input,
        format!("index {index} lies outside the {extent} entries of dimension {axis}"),
    )
    .hint("check the input that holds indices, such as token ids against the vocabulary")
}

/// How serious a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Nothing can be produced.
    Error,
    /// Something was produced, but not quite what was asked for.
    Warning,
}

/// One error or warning.
///
/// ```
/// use qcc_ir::diag::{Class, Diagnostic};
/// let d = Diagnostic::error(104, Class::Unsupported, "operator `Foo` is not known")
///     .at("node Foo_3")
///     .hint("exclude the node, or export the model without it");
/// assert_eq!(d.code(), "Q0104");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    number: u16,
    class: Class,
    severity: Severity,
    message: String,
    at: Option<String>,
    hint: Option<String>,
}

impl Diagnostic {
    /// An error with the code `Q{number:04}`.
    pub fn error(number: u16, class: Class, message: impl Into<String>) -> Self {
        Diagnostic {
            number,
            class,
            severity: Severity::Error,
            message: message.into(),
            at: None,
            hint: None,
        }
    }

    /// A warning with the code `Q{number:04}`.
    pub fn warning(number: u16, class: Class, message: impl Into<String>) -> Self {
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(number, class, message)
        }
    }

    /// Says what it is about: a node's name, a file, a line and column.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    /// As [`Diagnostic::at`], unless a place is known already.
    #[must_use]
    pub fn or_at(mut self, place: impl Into<String>) -> Self {
        if self.at.is_none() {
            self.at = Some(place.into());
        }
        self
    }

    /// Says what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The stable code, such as `Q0104`.
    pub fn code(&self) -> String {
        format!("Q{:04}", self.number)
    }

    /// The number in the code.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The class, which decides the exit code.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Error or warning.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What it is about, if known.
    pub fn place(&self) -> Option<&str> {
        self.at.as_deref()
    }

    /// What to do, if there is advice.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Diagnostic {
    /// `error[Q0104]: message (at: node)` and the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}[{}]: {}", self.code(), self.message)?;
        if let Some(at) = &self.at {
            write!(f, " (at {at})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  help: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// The result of everything that can fail with one diagnostic.
pub type Result<T, E = Diagnostic> = std::result::Result<T, E>;
