//! Tokens of the text form.

/// A token with its line and column, both from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a str,
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters, digits, `_`, `.`, and `-`/`+` inside numbers; types with `<…>` are one word.
    Word,
    /// `%name`
    Value,
    /// `@name`
    Symbol,
    /// One punctuation character.
    Punct,
    /// End of input.
    End,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')
}

/// Splits text into tokens; `//` comments run to the end of the line. Never fails: a character
/// that belongs nowhere becomes a punctuation token for the parser to report.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        lex_line(code, number as u32 + 1, &mut out);
    }
    let line = text.lines().count() as u32 + 1;
    out.push(Token {
        kind: TokenKind::End,
        text: "",
        line,
        column: 1,
    });
    out
}

fn lex_line<'a>(code: &'a str, line: u32, out: &mut Vec<Token<'a>>) {
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let column = (code.len() - rest.len()) as u32 + 1;
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (kind, len) = match c {
            '%' | '@' => {
                let kind = if c == '%' {
                    TokenKind::Value
                } else {
                    TokenKind::Symbol
                };
                (
                    kind,
                    1 + prefix(&rest[1..], |c| c.is_ascii_alphanumeric() || c == '_'),
                )
            }
            c if is_word(c) => (TokenKind::Word, word_len(rest)),
            c => (TokenKind::Punct, c.len_utf8()),
        };
        let (text, tail) = rest.split_at(len);
        out.push(Token {
            kind,
            text,
            line,
            column,
        });
        rest = tail;
    }
}

fn prefix(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

fn word_len(text: &str) -> usize {
    let len = prefix(text, is_word);
    let tail = &text[len..];
    match tail.find('>') {
        Some(end) if tail.starts_with('<') => len + end + 1,
        _ => len,
    }
}
