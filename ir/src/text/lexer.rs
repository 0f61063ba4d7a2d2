//! Text to tokens with positions. Never fails: what cannot be a token is reported and skipped.

use super::cursor::{MAX_ERRORS, Pos, codes};
use super::name::{is_name_char, is_word_char};
use crate::diag::Diagnostic;
use std::iter::Peekable;
use std::str::Chars;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    /// `%name`
    Value(String),
    /// `@name`
    Global(String),
    /// A bare word.
    Word(String),
    /// A quoted string.
    Str(String),
    /// A number as it is written, without sign.
    Number(String),
    /// `->`, `..`, `//` or a single character.
    Punct(&'static str),
    /// The end of the text.
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) pos: Pos,
    /// Whether nothing but space precedes it on its line.
    pub(crate) first: bool,
}

/// The tokens of a text, the last one [`Tok::End`], and what could not be read.
pub(crate) fn lex(text: &str) -> (Vec<Token>, Vec<Diagnostic>) {
    let mut l = Lexer {
        chars: text.chars().peekable(),
        pos: Pos { line: 1, column: 1 },
        brackets: 0,
        errors: Vec::new(),
    };
    let mut out: Vec<Token> = Vec::new();
    loop {
        l.skip_space();
        let pos = l.pos;
        let first = out.last().is_none_or(|t| t.pos.line < pos.line);
        let Some(tok) = l.token(pos) else { continue };
        let end = tok == Tok::End;
        out.push(Token { tok, pos, first });
        if end {
            return (out, l.errors);
        }
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    pos: Pos,
    /// Open `[` of this line.
    brackets: usize,
    errors: Vec<Diagnostic>,
}

/// Single-character tokens.
const PUNCT: &[(char, &str)] = &[
    ('{', "{"),
    ('}', "}"),
    ('(', "("),
    (')', ")"),
    ('[', "["),
    (']', "]"),
    ('<', "<"),
    ('>', ">"),
    (',', ","),
    (':', ":"),
    (';', ";"),
    ('=', "="),
    ('*', "*"),
    ('/', "/"),
    ('+', "+"),
    ('-', "-"),
];

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    /// The character after the next one.
    fn second(&self) -> Option<char> {
        let mut rest = self.chars.clone();
        rest.next();
        rest.next()
    }

    /// At a `/`: whether a comment begins, not a division.
    fn begins_comment(&self) -> bool {
        let mut rest = self.chars.clone();
        rest.next();
        rest.next() == Some('/')
            && (self.brackets == 0 || rest.next().is_none_or(char::is_whitespace))
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.pos.line = self.pos.line.saturating_add(1);
            self.pos.column = 1;
            self.brackets = 0;
        } else {
            self.pos.column = self.pos.column.saturating_add(1);
        }
        Some(c)
    }

    fn error(&mut self, pos: Pos, message: impl Into<String>) {
        // More than anybody reads; the parser gives up before.
        if self.errors.len() <= MAX_ERRORS {
            self.errors.push(pos.error(codes::CHARACTER, message));
        }
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '/' && self.begins_comment() {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if c.is_whitespace() {
                self.bump();
            } else {
                return;
            }
        }
    }

    /// The next token; `None` after a character that begins none.
    fn token(&mut self, pos: Pos) -> Option<Tok> {
        let Some(c) = self.peek() else {
            return Some(Tok::End);
        };
        match c {
            '"' => Some(Tok::Str(self.string(pos))),
            '%' if self.brackets == 0 => Some(match self.sigil() {
                Some(n) => Tok::Value(n),
                None => Tok::Punct("%"),
            }),
            '@' => Some(match self.sigil() {
                Some(n) => Tok::Global(n),
                None => Tok::Punct("@"),
            }),
            '0'..='9' => Some(Tok::Number(self.number())),
            c if is_word_char(c) && c != '.' => Some(Tok::Word(self.word())),
            _ => self.punct(pos),
        }
    }

    /// A name after `%` or `@`; `None` when no name follows.
    fn sigil(&mut self) -> Option<String> {
        self.bump();
        let pos = self.pos;
        if self.peek() == Some('"') {
            return Some(self.string(pos));
        }
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if !is_name_char(c) || (c == '/' && self.second() == Some('/')) {
                break;
            }
            name.push(c);
            self.bump();
        }
        Some(name).filter(|n| !n.is_empty())
    }

    fn word(&mut self) -> String {
        let mut s = String::new();
        while let Some(c) = self.peek() {
            if !is_word_char(c) || (c == '.' && self.second() == Some('.')) {
                break;
            }
            s.push(c);
            self.bump();
        }
        s
    }

    fn digits(&mut self, s: &mut String, radix: u32) {
        while let Some(c) = self.peek().filter(|c| c.is_digit(radix)) {
            s.push(c);
            self.bump();
        }
    }

    fn number(&mut self) -> String {
        let mut s = String::new();
        if self.peek() == Some('0') && self.second() == Some('x') {
            self.bump();
            self.bump();
            s.push_str("0x");
            self.digits(&mut s, 16);
            return s;
        }
        self.digits(&mut s, 10);
        if self.peek() == Some('.') && self.second().is_some_and(|c| c.is_ascii_digit()) {
            s.push('.');
            self.bump();
            self.digits(&mut s, 10);
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            let mut rest = self.chars.clone();
            rest.next();
            let sign = rest.peek().copied().filter(|c| matches!(c, '+' | '-'));
            if sign.is_some() {
                rest.next();
            }
            if rest.peek().is_some_and(char::is_ascii_digit) {
                s.push('e');
                self.bump();
                if let Some(sign) = sign {
                    s.push(sign);
                    self.bump();
                }
                self.digits(&mut s, 10);
            }
        }
        s
    }

    /// A quoted string; ends at the line's end at the latest.
    fn string(&mut self, pos: Pos) -> String {
        self.bump();
        let mut s = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => {
                    self.error(pos, "the string is not closed on its line");
                    return s;
                }
                Some('"') => {
                    self.bump();
                    return s;
                }
                Some('\\') => {
                    let at = self.pos;
                    self.bump();
                    match self.escape() {
                        Some(c) => s.push(c),
                        None => self.error(at, "unknown escape in a string"),
                    }
                }
                Some(c) => {
                    s.push(c);
                    self.bump();
                }
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.peek().filter(|c| *c != '\n')?;
        self.bump();
        match c {
            '"' | '\\' => Some(c),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' if self.peek() == Some('{') => {
                self.bump();
                let mut hex = String::new();
                self.digits(&mut hex, 16);
                if self.peek() != Some('}') {
                    return None;
                }
                self.bump();
                char::from_u32(u32::from_str_radix(&hex, 16).ok()?)
            }
            _ => None,
        }
    }

    fn punct(&mut self, pos: Pos) -> Option<Tok> {
        let c = self.bump()?;
        let pair = match (c, self.peek()) {
            ('-', Some('>')) => Some("->"),
            ('.', Some('.')) => Some(".."),
            ('/', Some('/')) => Some("//"),
            _ => None,
        };
        if let Some(p) = pair {
            self.bump();
            return Some(Tok::Punct(p));
        }
        match c {
            '[' => self.brackets += 1,
            ']' => self.brackets = self.brackets.saturating_sub(1),
            // Only inside brackets; elsewhere it begins a value.
            '%' => return Some(Tok::Punct("%")),
            _ => {}
        }
        match PUNCT.iter().find(|(p, _)| *p == c) {
            Some((_, p)) => Some(Tok::Punct(p)),
            None => {
                self.error(pos, format!("`{}` begins no token", c.escape_debug()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        let (tokens, errors) = lex(text);
        let mut s: Vec<String> = tokens.iter().map(|t| format!("{:?}", t.tok)).collect();
        s.extend(errors.iter().map(ToString::to_string));
        s.join(" ")
    }

    #[test]
    fn names_numbers_and_words() {
        assert_eq!(
            show(r#"%a/b.0 @"x y" 1..4 1e-5 0x7f 2.5 f32 -> // c"#),
            r#"Value("a/b.0") Global("x y") Number("1") Punct("..") Number("4") Number("1e-5") Number("0x7f") Number("2.5") Word("f32") Punct("->") End"#
        );
    }

    #[test]
    fn brackets_divide_and_lines_end_them() {
        assert_eq!(
            show("[n//2 % 3 // c\n // c\n%a"),
            r#"Punct("[") Word("n") Punct("//") Number("2") Punct("%") Number("3") Value("a") End"#
        );
    }

    #[test]
    fn strings_escape_and_report() {
        assert_eq!(show(r#""a\"\u{e9}\n""#), r#"Str("a\"é\n") End"#);
        assert!(show("\"a\n").contains("error[Q0301]"));
        assert!(show(r#""\q""#).contains("error[Q0301]: unknown escape in a string (at 1:2)"));
        assert!(show("$").contains("error[Q0301]"));
    }
}
