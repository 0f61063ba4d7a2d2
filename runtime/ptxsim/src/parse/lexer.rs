//! Characters to tokens: names, `.modifiers`, numbers, strings and punctuation.
//!
//! Number forms (PTX ISA §4.5): decimal, `0x`, `0b`, leading-zero octal, each with an optional `U`;
//! `0fXXXXXXXX` (f32 bits), `0dXXXXXXXXXXXXXXXX` (f64 bits), and decimal floats.

use super::error::{ParseError, ParseErrorKind, Pos};

/// One token; `Dot` is a modifier or directive with its leading dot removed (`L2::cache_hint`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    Ident(String),
    Dot(String),
    Int(u64),
    F32(u32),
    F64(u64),
    Str(String),
    Punct(char),
    End,
}

/// A token and its place.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) pos: Pos,
}

struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    col: u32,
}

/// Splits a whole text into tokens; the last one is `End`.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, ParseError> {
    let mut lx = Lexer {
        text: text.as_bytes(),
        at: 0,
        line: 1,
        col: 1,
    };
    let mut out = Vec::with_capacity(text.len() / 4);
    loop {
        lx.skip_blank()?;
        let pos = lx.pos();
        let tok = lx.next()?;
        let end = tok == Tok::End;
        out.push(Token { tok, pos });
        if end {
            return Ok(out);
        }
    }
}

fn is_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'$'
}

impl Lexer<'_> {
    fn pos(&self) -> Pos {
        Pos {
            line: self.line,
            col: self.col,
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn bump(&mut self) {
        if self.peek(0) == b'\n' {
            self.line += 1;
            self.col = 1;
        } else if self.peek(0) & 0xc0 != 0x80 {
            self.col += 1;
        }
        self.at += 1;
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(ParseErrorKind::Syntax, self.pos(), message))
    }

    fn skip_blank(&mut self) -> Result<(), ParseError> {
        while self.at < self.text.len() {
            let c = self.peek(0);
            if c.is_ascii_whitespace() {
                self.bump();
            } else if c == b'/' && self.peek(1) == b'/' {
                while self.at < self.text.len() && self.peek(0) != b'\n' {
                    self.bump();
                }
            } else if c == b'/' && self.peek(1) == b'*' {
                while self.at < self.text.len() && !(self.peek(0) == b'*' && self.peek(1) == b'/') {
                    self.bump();
                }
                if self.at >= self.text.len() {
                    return self.error("comment is not closed");
                }
                self.bump();
                self.bump();
            } else {
                break;
            }
        }
        Ok(())
    }

    fn take_while(&mut self, ok: impl Fn(u8) -> bool) -> String {
        let start = self.at;
        while self.at < self.text.len() && ok(self.peek(0)) {
            self.bump();
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn next(&mut self) -> Result<Tok, ParseError> {
        if self.at >= self.text.len() {
            return Ok(Tok::End);
        }
        let c = self.peek(0);
        if c == b'.' && is_name(self.peek(1)) {
            self.bump();
            return Ok(Tok::Dot(self.modifier()));
        }
        if c.is_ascii_digit() {
            return self.number();
        }
        if c.is_ascii_alphabetic() || c == b'_' || c == b'$' || c == b'%' {
            self.bump();
            let mut name = String::from(c as char);
            name.push_str(&self.take_while(is_name));
            return Ok(Tok::Ident(name));
        }
        if c == b'"' {
            self.bump();
            let text = self.take_while(|c| c != b'"' && c != b'\n');
            if self.peek(0) != b'"' {
                return self.error("string is not closed");
            }
            self.bump();
            return Ok(Tok::Str(text));
        }
        if b"{}()[],;:@!+-|<>=*".contains(&c) {
            self.bump();
            return Ok(Tok::Punct(c as char));
        }
        self.error(format!("character {:?} has no place in PTX", c as char))
    }

    /// A modifier may hold `::` (`shared::cta`), which a single `:` never continues.
    fn modifier(&mut self) -> String {
        let mut name = self.take_while(is_name);
        while self.peek(0) == b':' && self.peek(1) == b':' && is_name(self.peek(2)) {
            self.bump();
            self.bump();
            name.push_str("::");
            name.push_str(&self.take_while(is_name));
        }
        name
    }

    fn number(&mut self) -> Result<Tok, ParseError> {
        let pos = self.pos();
        let bad = |text: &str| {
            ParseError::new(
                ParseErrorKind::Syntax,
                pos,
                format!("{text:?} is no number"),
            )
        };
        let radix = match (self.peek(0), self.peek(1) | 0x20) {
            (b'0', b'f') => return self.float_bits(8, bad),
            (b'0', b'd') => return self.float_bits(16, bad),
            (b'0', b'x') => 16,
            (b'0', b'b') => 2,
            _ => 10,
        };
        if radix != 10 {
            self.bump();
            self.bump();
            let text = self.take_while(is_name);
            let digits = text.trim_end_matches(['U', 'u']);
            return u64::from_str_radix(digits, radix)
                .map(Tok::Int)
                .map_err(|_| bad(&text));
        }
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let fraction = self.peek(0) == b'.' && !self.peek(1).is_ascii_alphabetic();
        if fraction {
            self.bump();
            text.push('.');
            text.push_str(&self.take_while(|c| c.is_ascii_digit()));
        }
        let exponent = matches!(self.peek(0), b'e' | b'E');
        if exponent {
            self.bump();
            text.push('e');
            if matches!(self.peek(0), b'+' | b'-') {
                text.push(self.peek(0) as char);
                self.bump();
            }
            text.push_str(&self.take_while(|c| c.is_ascii_digit()));
        }
        if fraction || exponent {
            return text
                .parse::<f64>()
                .map(|v| Tok::F64(v.to_bits()))
                .map_err(|_| bad(&text));
        }
        let suffix = self.take_while(is_name);
        if !suffix.is_empty() && suffix != "U" {
            return Err(bad(&(text + &suffix)));
        }
        let radix = if text.len() > 1 && text.starts_with('0') {
            8
        } else {
            10
        };
        u64::from_str_radix(&text, radix)
            .map(Tok::Int)
            .map_err(|_| bad(&text))
    }

    fn float_bits(
        &mut self,
        digits: usize,
        bad: impl Fn(&str) -> ParseError,
    ) -> Result<Tok, ParseError> {
        self.bump();
        self.bump();
        let text = self.take_while(is_name);
        if text.len() != digits {
            return Err(bad(&text));
        }
        let bits = u64::from_str_radix(&text, 16).map_err(|_| bad(&text))?;
        Ok(if digits == 8 {
            Tok::F32(bits as u32)
        } else {
            Tok::F64(bits)
        })
    }
}
