//! A cursor over tokens: expectations that fail with a position, and recovery at line ends.

use super::lexer::{Tok, Token, lex};
use crate::diag::{Class, Diagnostic, Result};
use std::fmt;

/// Numbers of the diagnostics of the text forms (`Q03nn`).
pub(crate) mod codes {
    /// A character or string that is no token.
    pub(crate) const CHARACTER: u16 = 301;
    /// The text does not begin with a version that is read.
    pub(crate) const VERSION: u16 = 302;
    /// Something else was expected here.
    pub(crate) const SYNTAX: u16 = 303;
    /// No op of this name.
    pub(crate) const OP: u16 = 304;
    /// The op has no attribute of this name.
    pub(crate) const ATTRIBUTE: u16 = 305;
    /// An attribute is missing.
    pub(crate) const MISSING: u16 = 306;
    /// A number does not fit its place.
    pub(crate) const NUMBER: u16 = 307;
    /// No number format of this name.
    pub(crate) const FORMAT: u16 = 308;
    /// No value of this name in the function.
    pub(crate) const VALUE: u16 = 309;
    /// No weight of this name above.
    pub(crate) const WEIGHT: u16 = 310;
    /// An expression is nested too deeply or too large.
    pub(crate) const DEPTH: u16 = 311;
    /// An attribute is given twice.
    pub(crate) const REPEATED: u16 = 312;
    /// What is returned does not fit the signature.
    pub(crate) const RETURN: u16 = 313;
    /// An expression names a step or function that does not exist.
    pub(crate) const STEP: u16 = 314;
    /// There may be more errors than are reported.
    pub(crate) const MORE: u16 = 315;
}

/// Line and column, both from 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Pos {
    /// An error here.
    pub(crate) fn error(self, code: u16, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, Class::Input, message).at(self.to_string())
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Errors after which the rest of the text is not read.
pub(super) const MAX_ERRORS: usize = 20;

/// Reads tokens from front to back.
pub(crate) struct Cursor {
    tokens: Vec<Token>,
    at: usize,
    errors: Vec<Diagnostic>,
}

impl Cursor {
    /// At the beginning of a text.
    pub(crate) fn new(text: &str) -> Self {
        let (tokens, errors) = lex(text);
        Cursor {
            tokens,
            at: 0,
            errors,
        }
    }

    /// Keeps an error and goes on.
    pub(crate) fn report(&mut self, d: Diagnostic) {
        self.errors.push(d);
    }

    /// Whether so much is wrong that reading on is of no use.
    pub(crate) fn gives_up(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// Whether the next token is the first on its line.
    pub(crate) fn at_line_start(&self) -> bool {
        self.token().first
    }

    /// The errors in the order of the text, at most [`MAX_ERRORS`] and a note about the rest.
    pub(crate) fn into_errors(mut self) -> Vec<Diagnostic> {
        let key = |d: &Diagnostic| -> (u32, u32) {
            let parts = d.place().and_then(|p| p.split_once(':'));
            parts.map_or((0, 0), |(l, c)| {
                (l.parse().unwrap_or(0), c.parse().unwrap_or(0))
            })
        };
        self.errors.sort_by_key(key);
        if self.errors.len() >= MAX_ERRORS {
            self.errors.truncate(MAX_ERRORS);
            let note = format!("stopped after {MAX_ERRORS} errors");
            self.errors
                .push(Diagnostic::error(codes::MORE, Class::Input, note));
        }
        self.errors
    }

    fn token(&self) -> &Token {
        // INVARIANT: the lexer ends every list with `End`, and `next` never goes past it.
        &self.tokens[self.at]
    }

    /// The next token.
    pub(crate) fn peek(&self) -> &Tok {
        &self.token().tok
    }

    /// The token after the next one.
    pub(crate) fn peek_second(&self) -> &Tok {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + 1).min(last)].tok
    }

    /// Where the next token stands.
    pub(crate) fn pos(&self) -> Pos {
        self.token().pos
    }

    /// Takes the next token.
    pub(crate) fn next(&mut self) -> Tok {
        let t = self.token().tok.clone();
        if t != Tok::End {
            self.at += 1;
        }
        t
    }

    /// An error at the next token.
    pub(crate) fn error(&self, code: u16, message: impl Into<String>) -> Diagnostic {
        self.pos().error(code, message)
    }

    /// `expected … , found …` at the next token.
    pub(crate) fn expected(&self, what: &str) -> Diagnostic {
        let found = match self.peek() {
            Tok::Value(n) => format!("`%{n}`"),
            Tok::Global(n) => format!("`@{n}`"),
            Tok::Word(s) | Tok::Number(s) => format!("`{s}`"),
            Tok::Str(s) => format!("{s:?}"),
            Tok::Punct(p) => format!("`{p}`"),
            Tok::End => "the end of the text".into(),
        };
        self.error(codes::SYNTAX, format!("expected {what}, found {found}"))
    }

    /// Takes this punctuation if it comes next.
    pub(crate) fn eat(&mut self, p: &str) -> bool {
        let hit = matches!(self.peek(), Tok::Punct(q) if *q == p);
        if hit {
            self.next();
        }
        hit
    }

    /// Takes this punctuation.
    pub(crate) fn expect(&mut self, p: &str) -> Result<()> {
        if self.eat(p) {
            Ok(())
        } else {
            Err(self.expected(&format!("`{p}`")))
        }
    }

    /// Whether this word comes next.
    pub(crate) fn at_word(&self, w: &str) -> bool {
        matches!(self.peek(), Tok::Word(x) if x == w)
    }

    /// Takes this word if it comes next.
    pub(crate) fn eat_word(&mut self, w: &str) -> bool {
        let hit = self.at_word(w);
        if hit {
            self.next();
        }
        hit
    }

    /// Takes this word.
    pub(crate) fn expect_word(&mut self, w: &str) -> Result<()> {
        if self.eat_word(w) {
            Ok(())
        } else {
            Err(self.expected(&format!("`{w}`")))
        }
    }

    /// Takes any word.
    pub(crate) fn word(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Tok::Word(_) => match self.next() {
                Tok::Word(w) => Ok(w),
                _ => Err(self.expected(what)),
            },
            _ => Err(self.expected(what)),
        }
    }

    /// Takes a word or a string: the name of a symbol or an output.
    pub(crate) fn ident(&mut self, what: &str) -> Result<String> {
        match self.peek().clone() {
            Tok::Word(s) | Tok::Str(s) => {
                self.next();
                Ok(s)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Takes `%name`.
    pub(crate) fn value(&mut self) -> Result<String> {
        match self.peek().clone() {
            Tok::Value(s) => {
                self.next();
                Ok(s)
            }
            _ => Err(self.expected("a value `%name`")),
        }
    }

    /// Takes `@name`.
    pub(crate) fn global(&mut self, what: &str) -> Result<String> {
        match self.peek().clone() {
            Tok::Global(s) => {
                self.next();
                Ok(s)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Takes a number as it is written, with its sign.
    fn signed(&mut self, what: &str) -> Result<String> {
        let minus = matches!(self.peek(), Tok::Punct("-"));
        let operand = if minus {
            self.peek_second()
        } else {
            self.peek()
        };
        let text = match operand {
            Tok::Number(n) => n.clone(),
            Tok::Word(w) if w == "inf" => w.clone(),
            _ => return Err(self.expected(what)),
        };
        if minus {
            self.next();
        }
        self.next();
        Ok(if minus { format!("-{text}") } else { text })
    }

    /// Takes an integer that fits `T`.
    pub(crate) fn int<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let pos = self.pos();
        let text = self.signed(what)?;
        text.parse()
            .map_err(|_| pos.error(codes::NUMBER, format!("`{text}` is not {what}")))
    }

    /// Takes an f32 and gives its bits.
    pub(crate) fn f32_bits(&mut self) -> Result<u32> {
        let pos = self.pos();
        let text = self.signed("a number")?;
        let bits = match text.strip_prefix("0x") {
            Some(hex) if hex.len() == 8 => u32::from_str_radix(hex, 16).ok(),
            Some(_) => None,
            None => {
                finite_or_word(&text, text.parse::<f32>().ok(), f32::is_finite).map(f32::to_bits)
            }
        };
        bits.ok_or_else(|| pos.error(codes::NUMBER, format!("`{text}` is no f32")))
    }

    /// Takes an f64 and gives its bits.
    pub(crate) fn f64_bits(&mut self) -> Result<u64> {
        let pos = self.pos();
        let text = self.signed("a number")?;
        let bits = match text.strip_prefix("0x") {
            Some(hex) if hex.len() == 16 => u64::from_str_radix(hex, 16).ok(),
            Some(_) => None,
            None => {
                finite_or_word(&text, text.parse::<f64>().ok(), f64::is_finite).map(f64::to_bits)
            }
        };
        bits.ok_or_else(|| pos.error(codes::NUMBER, format!("`{text}` is no f64")))
    }

    /// `item, item, …` up to the closing punctuation, which is taken.
    pub(crate) fn list<T>(
        &mut self,
        close: &str,
        item: impl Fn(&mut Cursor) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut out = Vec::new();
        if self.eat(close) {
            return Ok(out);
        }
        loop {
            out.push(item(self)?);
            if self.eat(close) {
                return Ok(out);
            }
            if !self.eat(",") {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// The place to give to [`Cursor::recover`] if what begins here fails.
    pub(crate) fn mark(&self) -> usize {
        self.at
    }

    /// Goes on after a failure in what began at `mark`: to the next line whose first token
    /// `begins` something. Gives the names that the skipped text would have defined: `@name`
    /// and `%name` before a colon or at the beginning of a line.
    pub(crate) fn recover(
        &mut self,
        mark: usize,
        begins: impl Fn(&Tok) -> bool,
    ) -> (Vec<String>, Vec<String>) {
        while *self.peek() != Tok::End
            && (self.at == mark || !self.token().first || !begins(self.peek()))
        {
            self.next();
        }
        let (mut globals, mut values) = (Vec::new(), Vec::new());
        let skipped = self.tokens.get(mark..self.at).unwrap_or_default();
        for (i, t) in skipped.iter().enumerate() {
            let colon = skipped.get(i + 1).map(|t| &t.tok) == Some(&Tok::Punct(":"));
            match &t.tok {
                _ if !colon && !t.first => {}
                Tok::Global(n) => globals.push(n.clone()),
                Tok::Value(n) => values.push(n.clone()),
                _ => {}
            }
        }
        (globals, values)
    }
}

/// A decimal too large for the type parses as infinite; only the word may mean that.
fn finite_or_word<T: Copy>(text: &str, v: Option<T>, finite: fn(T) -> bool) -> Option<T> {
    v.filter(|v| finite(*v) || text.ends_with("inf"))
}
