//! Expected errors: `// error: Q0213 part of the message` at the end of a line.

use qcc_ir::Diagnostic;

/// An error that must occur.
pub(super) struct Expected {
    line: usize,
    code: String,
    part: String,
    /// The line it stands on, without the comment.
    text: String,
}

/// The expectations of a text, in order.
pub(super) fn expectations(text: &str) -> Result<Vec<Expected>, String> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let mut parts = line.split("// error:");
        let before = parts.next().unwrap_or_default();
        for expected in parts.map(str::trim) {
            let (code, part) = expected.split_once(' ').unwrap_or((expected, ""));
            let digits = code.strip_prefix('Q').unwrap_or("");
            if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
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

/// Diagnostics as the command prints them.
pub(super) fn show(errors: &[Diagnostic]) -> String {
    errors.iter().map(|e| format!("{e}\n")).collect()
}

/// Compares what occurred with what was expected.
pub(super) fn compare(expected: &[Expected], got: &[Diagnostic]) -> Result<(), String> {
    for (i, d) in got.iter().enumerate() {
        match expected.get(i) {
            Some(e) => e.accepts(d)?,
            None => return Err(format!("not expected:\n{d}")),
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

impl Expected {
    fn accepts(&self, d: &Diagnostic) -> Result<(), String> {
        let wrong = |why: String| Err(format!("{why}, but this occurred:\n{d}"));
        if d.code() != self.code {
            return wrong(format!("line {}: expected {}", self.line, self.code));
        }
        if !d.message().contains(&self.part) {
            return wrong(format!("line {}: expected `{}`", self.line, self.part));
        }
        if !self.is_place(d) {
            return wrong(format!("expected on line {}", self.line));
        }
        Ok(())
    }

    /// A position must have this line; a place with a value's name must stand on the line that
    /// defines it; any other place is taken by order alone.
    fn is_place(&self, d: &Diagnostic) -> bool {
        let Some(place) = d.place() else { return true };
        if let Some((line, column)) = place.split_once(':')
            && let (Ok(line), Ok(_)) = (line.parse::<usize>(), column.parse::<usize>())
        {
            return line == self.line;
        }
        match place.split_whitespace().find(|w| w.starts_with('%')) {
            Some(value) => self.text.contains(&format!("{value}:")),
            None => true,
        }
    }
}
