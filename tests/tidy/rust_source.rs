//! A Rust file taken apart: code, strings and comments, line by line.

/// Text of one file, each part at its lines.
pub(crate) struct RustSource {
    /// The file with comments and the contents of strings blanked out.
    pub(crate) code: String,
    /// String literals and the line (from 0) on which each begins.
    pub(crate) strings: Vec<(usize, String)>,
    /// The lines as they are.
    pub(crate) lines: Vec<String>,
    /// For each line whether it belongs to a `#[cfg(test)]` item.
    pub(crate) test: Vec<bool>,
}

impl RustSource {
    pub(crate) fn new(text: &str) -> Self {
        let (code, strings) = split(text);
        let test = test_lines(&code);
        RustSource {
            lines: text.lines().map(String::from).collect(),
            code,
            strings,
            test,
        }
    }

    /// Lines of code that are not part of a unit test, with their number from 0.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate();
        lines.filter(|(i, _)| !self.test.get(*i).copied().unwrap_or(false))
    }
}

/// Whether `word` occurs in `line` between characters that are not part of a name.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(i, _)| {
        let before = line[..i].chars().next_back();
        let after = line[i + word.len()..].chars().next();
        !before.is_some_and(name) && !after.is_some_and(name)
    })
}

/// The code with everything else blanked, and the strings.
fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let mut out = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let mut rest = text;
    let mut line = 0;
    while let Some(c) = rest.chars().next() {
        let name_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some((open, len)) = string(rest, name_before) {
            strings.push((
                line,
                rest[open..len].trim_end_matches(['"', '#']).to_string(),
            ));
            len
        } else if let Some(len) = char_literal(rest) {
            len
        } else {
            line += usize::from(c == '\n');
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        line += rest[..len].matches('\n').count();
        let blank = |c| if c == '\n' { '\n' } else { ' ' };
        out.extend(rest[..len].chars().map(blank));
        rest = &rest[len..];
    }
    (out, strings)
}

/// Length of a block comment, which may hold others.
fn block_comment(s: &str) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < s.len() {
        if s[i..].starts_with("/*") {
            depth += 1;
            i += 2;
        } else if s[i..].starts_with("*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += s[i..].chars().next().map_or(1, char::len_utf8);
        }
    }
    s.len()
}

/// Where the contents of a string literal begin and where the literal ends.
fn string(s: &str, name_before: bool) -> Option<(usize, usize)> {
    let prefix = match s.as_bytes() {
        [b'b', b'r', b'"' | b'#', ..] if !name_before => 2,
        [b'c' | b'b', b'"', ..] if !name_before => 1,
        [b'r', b'"' | b'#', ..] if !name_before => 1,
        [b'"', ..] => 0,
        _ => return None,
    };
    let raw = s[..prefix].ends_with('r');
    let hashes = s[prefix..].bytes().take_while(|b| *b == b'#').count();
    let open = prefix + hashes + 1;
    if s.as_bytes().get(open - 1) != Some(&b'"') {
        return None;
    }
    if raw {
        let close = format!("\"{}", "#".repeat(hashes));
        let end = s[open..]
            .find(&close)
            .map_or(s.len(), |i| open + i + close.len());
        return Some((open, end));
    }
    let mut escaped = false;
    for (i, b) in s.bytes().enumerate().skip(open) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((open, i + 1)),
            _ => {}
        }
    }
    Some((open, s.len()))
}

/// Length of a character literal; `None` for a lifetime.
fn char_literal(s: &str) -> Option<usize> {
    let inner = s.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        let end = inner.char_indices().skip(2).find(|(_, c)| *c == '\'')?;
        return Some(end.0 + 2);
    }
    let after = &inner[first.len_utf8()..];
    after.starts_with('\'').then(|| first.len_utf8() + 2)
}

/// Marks the lines of items under `#[cfg(test)]`, by their braces.
fn test_lines(code: &str) -> Vec<bool> {
    let mut test = vec![false; code.lines().count()];
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let mut depth = 0;
        let mut end = code.len();
        for (i, c) in code[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ';' if depth == 0 => {}
                _ => continue,
            }
            if depth == 0 {
                end = at + i;
                break;
            }
        }
        let first = code[..at].matches('\n').count();
        let last = code[..end].matches('\n').count();
        test[first..=last.min(code.lines().count() - 1)].fill(true);
    }
    test
}

#[test]
fn rust_is_taken_apart() {
    let text = r##"
fn f<'a>(x: &'a str) -> char { // unsafe in a comment
    let _ = "unsafe \" in a string"; /* unsafe /* nested */ */
    let _ = r#"raw "unsafe""#;
    let _ = ('"', '\'', b"unsafe");
    'x' /* é */
}
#[cfg(test)]
mod tests {
    fn g() { unsafe {} }
}
fn h() {}
"##;
    let s = RustSource::new(text);
    assert!(
        s.code.lines().take(7).all(|l| !has_word(l, "unsafe")),
        "{}",
        s.code
    );
    let strings: Vec<&str> = s.strings.iter().map(|(_, s)| s.as_str()).collect();
    assert_eq!(
        strings,
        ["unsafe \\\" in a string", "raw \"unsafe", "unsafe"]
    );
    assert_eq!(s.strings[1].0, 3);
    let tests: Vec<usize> = (0..s.test.len()).filter(|i| s.test[*i]).collect();
    assert_eq!(tests, [7, 8, 9, 10]);
    assert_eq!(s.lines.len(), s.code.lines().count());
}
