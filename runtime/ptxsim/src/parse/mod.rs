//! PTX text to declarations and instructions with resolved registers (PTX ISA §4 to §6, §11).
//!
//! Anything that is not built is refused with its line and column. Debug sections, `.loc`, `.file` and
//! `.pragma` carry no meaning for execution and are skipped.

pub(crate) mod ast;
mod body;
pub(crate) mod error;
mod lexer;
mod module;
mod vars;

use error::{ParseError, ParseErrorKind, Pos};
use lexer::{Tok, Token};

/// Reads a whole text.
pub(crate) fn parse(text: &str) -> Result<ast::Ast, ParseError> {
    let tokens = lexer::lex(text)?;
    let mut reader = Reader { tokens, at: 0 };
    module::read_module(&mut reader)
}

/// A cursor over the tokens.
struct Reader {
    tokens: Vec<Token>,
    at: usize,
}

impl Reader {
    fn tok(&self) -> &Tok {
        &self.tokens[self.at.min(self.tokens.len() - 1)].tok
    }

    fn ahead(&self, n: usize) -> &Tok {
        &self.tokens[(self.at + n).min(self.tokens.len() - 1)].tok
    }

    fn pos(&self) -> Pos {
        self.tokens[self.at.min(self.tokens.len() - 1)].pos
    }

    fn next(&mut self) -> Tok {
        let tok = self.tok().clone();
        self.at += 1;
        tok
    }

    fn is_punct(&self, c: char) -> bool {
        *self.tok() == Tok::Punct(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let hit = self.is_punct(c);
        if hit {
            self.at += 1;
        }
        hit
    }

    fn expect(&mut self, c: char) -> Result<(), ParseError> {
        if self.eat(c) {
            Ok(())
        } else {
            self.syntax(format!("expected {c:?}, found {}", describe(self.tok())))
        }
    }

    fn ident(&mut self, what: &str) -> Result<String, ParseError> {
        match self.tok().clone() {
            Tok::Ident(name) => {
                self.at += 1;
                Ok(name)
            }
            other => self.syntax(format!("expected {what}, found {}", describe(&other))),
        }
    }

    /// A non-negative integer that fits in 32 bits.
    fn count(&mut self, what: &str) -> Result<u32, ParseError> {
        match *self.tok() {
            Tok::Int(v) if v <= u64::from(u32::MAX) => {
                self.at += 1;
                Ok(v as u32)
            }
            _ => self.syntax(format!("expected {what}, found {}", describe(self.tok()))),
        }
    }

    /// One to three integers separated by commas; the missing ones are 1.
    fn triple(&mut self, what: &str) -> Result<[u32; 3], ParseError> {
        let mut out = [1; 3];
        out[0] = self.count(what)?;
        for slot in &mut out[1..] {
            if !self.eat(',') {
                break;
            }
            *slot = self.count(what)?;
        }
        Ok(out)
    }

    /// Skips the rest of the line of the current token.
    fn skip_line(&mut self) {
        let line = self.pos().line;
        while self.pos().line == line && *self.tok() != Tok::End {
            self.at += 1;
        }
    }

    /// Skips a `{ … }` with everything nested in it.
    fn skip_braces(&mut self) -> Result<(), ParseError> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Tok::Punct('{') => depth += 1,
                Tok::Punct('}') => depth -= 1,
                Tok::End => return self.syntax("section is not closed"),
                _ => {}
            }
        }
        Ok(())
    }

    fn syntax<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(ParseErrorKind::Syntax, self.pos(), message))
    }
}

fn describe(tok: &Tok) -> String {
    match tok {
        Tok::Ident(s) => format!("`{s}`"),
        Tok::Dot(s) => format!("`.{s}`"),
        Tok::Int(v) => format!("{v}"),
        Tok::F32(v) => format!("0f{v:08X}"),
        Tok::F64(v) => format!("{}", f64::from_bits(*v)),
        Tok::Str(s) => format!("{s:?}"),
        Tok::Punct(c) => format!("{c:?}"),
        Tok::End => "the end of the text".into(),
    }
}
