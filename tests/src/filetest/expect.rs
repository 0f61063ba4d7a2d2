//! Expected errors: `// error: Q0213 part of the message` at the end of a line.

use qcc_ir::Diagnostic;
use qcc_ir::kernel::{Problem, TextError};
use std::fmt;

/// An error that must occur.
pub(super) struct Expected {
    line: usize,
    code: String,
    part: String,
    /// The line it stands on, without the comment.
    text: String,
}

/// An error that occurred.
pub(super) struct Found {
    /// `Q0213`, or `K03` for a rule of the kernel verifier, or `text` for kernel text.
    code: String,
    message: String,
    /// The line where it occurred, if it has a position.
    line: Option<usize>,
    /// The value `%x` whose definition it is about, if it names one.
    value: Option<String>,
    /// As it is printed.
    shown: String,
}

impl From<&Diagnostic> for Found {
    fn from(d: &Diagnostic) -> Found {
        let place = d.place().unwrap_or_default();
        let line = place.split_once(':').and_then(|(line, column)| {
            column.parse::<usize>().ok()?;
            line.parse().ok()
        });
        let mut words = place.split_whitespace();
        Found {
            code: d.code(),
            message: d.message().to_string(),
            line,
            value: words.find(|w| w.starts_with('%')).map(String::from),
            shown: d.to_string(),
        }
    }
}

impl From<&Problem> for Found {
    fn from(p: &Problem) -> Found {
        Found {
            code: p.code.to_string(),
            message: p.message.clone(),
            line: None,
            value: None,
            shown: p.to_string(),
        }
    }
}

impl From<&TextError> for Found {
    fn from(e: &TextError) -> Found {
        Found {
            code: "text".into(),
            message: e.message.clone(),
            line: usize::try_from(e.line).ok(),
            value: None,
            shown: e.to_string(),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The expectations of a text, in order.
pub(super) fn expectations(text: &str) -> Result<Vec<Expected>, String> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let mut parts = line.split("// error:");
        let before = parts.next().unwrap_or_default();
        for expected in parts.map(str::trim) {
            let (code, part) = expected.split_once(' ').unwrap_or((expected, ""));
            if !is_code(code) {
                return Err(format!("line {}: `{code}` is no code such as Q0213", i + 1));
            }
            out.push(Expected {
                line: i + 1,
                code: code.to_string(),
                part: part.trim().to_string(),
                text: before.to_string(),
            });
        }
    }
    Ok(out)
}

fn is_code(s: &str) -> bool {
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    s == "text"
        || s.strip_prefix('Q').is_some_and(|d| digits(d, 4))
        || s.strip_prefix('K').is_some_and(|d| digits(d, 2))
}

/// Errors as the command prints them.
pub(super) fn show<E: fmt::Display>(errors: &[E]) -> String {
    errors.iter().map(|e| format!("{e}\n")).collect()
}

/// Compares what occurred with what was expected.
pub(super) fn compare<'a, E>(expected: &[Expected], got: &'a [E]) -> Result<(), String>
where
    Found: From<&'a E>,
{
    for (i, found) in got.iter().map(Found::from).enumerate() {
        match expected.get(i) {
            Some(e) => e.accepts(&found)?,
            None => return Err(format!("not expected:\n{found}")),
        }
    }
    match expected.get(got.len()) {
        None => Ok(()),
        Some(e) => Err(format!(
            "line {}: {} {} did not occur",
            e.line, e.code, e.part
        )),
    }
}

/// For what went well.
pub(super) fn nothing(expected: &[Expected]) -> Result<(), String> {
    compare::<Diagnostic>(expected, &[])
}

impl Expected {
    fn accepts(&self, found: &Found) -> Result<(), String> {
        let wrong = |why: String| Err(format!("{why}, but this occurred:\n{found}"));
        if found.code != self.code {
            return wrong(format!("line {}: expected {}", self.line, self.code));
        }
        if !found.message.contains(&self.part) {
            return wrong(format!("line {}: expected `{}`", self.line, self.part));
        }
        // A position must have this line, and a value must be defined on it; anything else is
        // taken by order alone.
        let here = match (&found.line, &found.value) {
            (Some(line), _) => *line == self.line,
            (None, Some(value)) => self.text.contains(&format!("{value}:")),
            (None, None) => true,
        };
        if here {
            Ok(())
        } else {
            wrong(format!("expected on line {}", self.line))
        }
    }
}
