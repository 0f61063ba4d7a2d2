//! What is wrong with a kernel: numbered rules, each with its place.

use std::fmt;

/// A broken rule. The numbers are listed in [`super::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Number of the rule: `K03`.
    pub code: &'static str,
    /// What was found and what was expected.
    pub message: String,
    /// The statement in text form, when there is one.
    pub at: Option<String>,
}

impl Problem {
    /// A problem under the rule of this number.
    pub fn new(code: &'static str, message: impl Into<String>) -> Problem {
        Problem {
            code,
            message: message.into(),
            at: None,
        }
    }

    pub(crate) fn at(mut self, place: impl Into<String>) -> Problem {
        self.at.get_or_insert(place.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        if let Some(at) = &self.at {
            write!(f, " (at `{at}`)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
