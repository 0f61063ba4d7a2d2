//! The parser: reads kernels from text, goes on after an error at the next statement, and reports
//! every error with its position.

use std::collections::HashMap;
use std::fmt;

use super::super::attr::Bits;
use super::super::body::{Kernel, Kind, Launch, Param, Region, SharedArray, Stmt, Value};
use super::super::{Op, Ty, canonical};
use super::lexer::{Token, TokenKind, tokens};
use super::literal;

/// Nested regions deeper than this are refused.
const MAX_DEPTH: usize = 64;

/// A mistake in the text of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for TextError {}

/// Reads one kernel. It is not verified.
///
/// # Errors
/// Every mistake found, in order of position.
pub fn parse_kernel(text: &str) -> Result<Kernel, Vec<TextError>> {
    let mut kernels = parse_kernels(text)?;
    match (kernels.pop(), kernels.len()) {
        (Some(kernel), 0) => Ok(kernel),
        (_, n) => {
            let message = format!(
                "expected one kernel, found {}",
                if n == 0 { 0 } else { n + 1 }
            );
            Err(vec![TextError {
                line: 1,
                column: 1,
                message,
            }])
        }
    }
}

/// Reads any number of kernels. They are not verified.
///
/// # Errors
/// Every mistake found, in order of position.
pub fn parse_kernels(text: &str) -> Result<Vec<Kernel>, Vec<TextError>> {
    let mut parser = Parser {
        tokens: tokens(text),
        at: 0,
        errors: Vec::new(),
        depth: 0,
    };
    let mut kernels = Vec::new();
    while parser.peek().kind != TokenKind::End {
        match parser.kernel() {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => {
                parser.errors.push(error);
                parser.skip_to_kernel();
            }
        }
    }
    if parser.errors.is_empty() {
        Ok(kernels)
    } else {
        Err(parser.errors)
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    errors: Vec<TextError>,
    depth: usize,
}

/// What a kernel's text has defined so far.
#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Value>,
    types: Vec<Ty>,
    shared: Vec<SharedArray>,
}

type Parsed<T> = Result<T, TextError>;

impl<'a> Scope<'a> {
    fn define(&mut self, name: &'a str, ty: Ty) -> Option<Value> {
        let v = Value(self.types.len() as u32);
        self.types.push(ty);
        self.names.insert(name, v).is_none().then_some(v)
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token<'a> {
        &self.tokens[self.at]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.tokens[self.at].clone();
        if token.kind != TokenKind::End {
            self.at += 1;
        }
        token
    }

    fn error<T>(token: &Token, message: impl Into<String>) -> Parsed<T> {
        Err(TextError {
            line: token.line,
            column: token.column,
            message: message.into(),
        })
    }

    fn is(&self, text: &str) -> bool {
        self.peek().text == text && self.peek().kind != TokenKind::End
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.is(text);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        let token = self.next();
        if token.text == text {
            return Ok(());
        }
        Self::error(&token, format!("expected `{text}`, found `{}`", token.text))
    }

    fn named(&mut self, kind: TokenKind, what: &str) -> Parsed<&'a str> {
        let token = self.next();
        if token.kind == kind && token.text.len() > 1 {
            return Ok(&token.text[1..]);
        }
        Self::error(&token, format!("expected {what}, found `{}`", token.text))
    }

    fn word<T: std::str::FromStr>(&mut self, what: &str) -> Parsed<T> {
        let token = self.next();
        match token.text.parse() {
            Ok(value) if token.kind == TokenKind::Word => Ok(value),
            _ => Self::error(&token, format!("expected {what}, found `{}`", token.text)),
        }
    }

    fn skip_to_kernel(&mut self) {
        while self.peek().kind != TokenKind::End && !(self.is("kernel") && self.peek().column == 1)
        {
            self.next();
        }
    }

    /// After an error: on to the next line, past any braces opened on this one.
    fn skip_line(&mut self, line: u32) {
        let mut open = 0;
        while self.peek().kind != TokenKind::End {
            match self.peek().text {
                "{" => open += 1,
                "}" if open == 0 => return,
                "}" => open -= 1,
                _ if open == 0 && self.peek().line > line => return,
                _ => {}
            }
            self.next();
        }
    }

    fn kernel(&mut self) -> Parsed<Kernel> {
        self.expect("kernel")?;
        let kind = self.next();
        let serial = match kind.text {
            "serial" => true,
            "spmd" => false,
            other => {
                return Self::error(
                    &kind,
                    format!("expected `spmd` or `serial`, found `{other}`"),
                );
            }
        };
        let name = self
            .named(TokenKind::Symbol, "the kernel's name")?
            .to_string();
        let mut scope = Scope::default();
        let params = self.params(&mut scope)?;
        let kind = if serial {
            Kind::Serial
        } else {
            Kind::Spmd(self.launch()?)
        };
        self.expect("{")?;
        while self.is("shared") && self.tokens[self.at + 1].kind == TokenKind::Symbol {
            let array = self.shared_array()?;
            scope.shared.push(array);
        }
        let body = self.region_body(&mut scope)?;
        let Scope { types, shared, .. } = scope;
        let mut kernel = Kernel {
            name,
            kind,
            params,
            shared,
            types,
            body,
        };
        canonical::renumber(&mut kernel);
        Ok(kernel)
    }

    fn params(&mut self, scope: &mut Scope<'a>) -> Parsed<Vec<Param>> {
        self.expect("(")?;
        let mut params = Vec::new();
        while !self.accept(")") {
            let (name, ty) = self.definition(scope)?;
            params.push(Param {
                name: name.to_string(),
                ty,
            });
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(params)
    }

    fn definition(&mut self, scope: &mut Scope<'a>) -> Parsed<(&'a str, Ty)> {
        let token = self.peek().clone();
        let name = self.named(TokenKind::Value, "a value")?;
        self.expect(":")?;
        let ty = self.word("a type")?;
        match scope.define(name, ty) {
            Some(_) => Ok((name, ty)),
            None => Self::error(&token, format!("`%{name}` is defined twice")),
        }
    }

    fn launch(&mut self) -> Parsed<Launch> {
        let mut launch = Launch::threads(0);
        self.expect("block")?;
        launch.block = self.triple()?;
        if self.accept("cluster") {
            launch.cluster = self.triple()?;
        }
        if self.accept("min_blocks") {
            launch.min_blocks = self.single()?;
        }
        if self.accept("max_regs") {
            launch.max_regs = self.single()?;
        }
        Ok(launch)
    }

    fn single(&mut self) -> Parsed<u32> {
        self.expect("(")?;
        let n = self.word("a number")?;
        self.expect(")")?;
        Ok(n)
    }

    fn triple(&mut self) -> Parsed<[u32; 3]> {
        let mut out = [0; 3];
        self.expect("(")?;
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = self.word("a number")?;
            self.expect(if i == 2 { ")" } else { "," })?;
        }
        Ok(out)
    }

    fn shared_array(&mut self) -> Parsed<SharedArray> {
        self.expect("shared")?;
        let name = self
            .named(TokenKind::Symbol, "the array's name")?
            .to_string();
        self.expect(":")?;
        let elem = self.word("a number format")?;
        self.expect("[")?;
        let len = if self.accept("dynamic") {
            None
        } else {
            Some(self.word("a length")?)
        };
        self.expect("]")?;
        self.expect("align")?;
        Ok(SharedArray {
            name,
            elem,
            len,
            align: self.word("an alignment")?,
        })
    }

    /// Statements up to and with the closing brace.
    fn region_body(&mut self, scope: &mut Scope<'a>) -> Parsed<Region> {
        let mut region = Region::default();
        if self.accept("|") {
            while !self.accept("|") {
                let (name, _) = self.definition(scope)?;
                region.params.push(scope.names[name]);
                if !self.is("|") {
                    self.expect(",")?;
                }
            }
        }
        while !self.accept("}") {
            let token = self.peek().clone();
            if token.kind == TokenKind::End {
                return Self::error(&token, "expected `}`");
            }
            if self.accept("yield") {
                region.yields = self.operands(scope)?;
                self.expect("}")?;
                break;
            }
            match self.stmt(scope) {
                Ok(stmt) => region.stmts.push(stmt),
                Err(error) => {
                    self.skip_line(error.line);
                    self.errors.push(error);
                }
            }
        }
        Ok(region)
    }

    /// Operands begin on the line of the word before them: the next line may define a value.
    fn operands(&mut self, scope: &Scope<'a>) -> Parsed<Vec<Value>> {
        let mut out = Vec::new();
        let line = self.tokens[self.at.saturating_sub(1)].line;
        while self.peek().kind == TokenKind::Value && (!out.is_empty() || self.peek().line == line)
        {
            let token = self.next();
            match scope.names.get(&token.text[1..]) {
                Some(&v) => out.push(v),
                None => return Self::error(&token, format!("`{}` is not defined", token.text)),
            }
            if !self.accept(",") {
                break;
            }
        }
        Ok(out)
    }

    fn stmt(&mut self, scope: &mut Scope<'a>) -> Parsed<Stmt> {
        let mut results = Vec::new();
        if self.peek().kind == TokenKind::Value {
            loop {
                let (name, _) = self.definition(scope)?;
                results.push(scope.names[name]);
                if !self.accept(",") {
                    break;
                }
            }
            self.expect("=")?;
        }
        let op = self.operation(&results, scope)?;
        let args = self.operands(scope)?;
        let regions = self.regions(&op, scope)?;
        Ok(Stmt {
            results,
            op,
            args,
            regions,
        })
    }

    fn operation(&mut self, results: &[Value], scope: &Scope<'a>) -> Parsed<Op> {
        let token = self.next();
        if token.text == "const" {
            let literal = self.next();
            let dtype = results.first().and_then(|v| scope.types[v.index()].dtype());
            return match dtype.and_then(|d| literal::parse(d, literal.text)) {
                Some(bits) => Ok(Op::Const { bits: Bits(bits) }),
                None => Self::error(
                    &literal,
                    format!("`{}` is no constant of this type", literal.text),
                ),
            };
        }
        match Op::parse(token.text) {
            Some(op) => Ok(op),
            None => Self::error(&token, format!("no operation is named `{}`", token.text)),
        }
    }

    fn regions(&mut self, op: &Op, scope: &mut Scope<'a>) -> Parsed<Vec<Region>> {
        let mut regions = Vec::new();
        if op.regions() == 0 {
            return Ok(regions);
        }
        if self.depth == MAX_DEPTH {
            let token = self.peek().clone();
            return Self::error(&token, "too deeply nested");
        }
        self.depth += 1;
        for i in 0..op.regions() {
            if i == 1 && *op == Op::If && !self.accept("else") {
                regions.push(Region::default());
                break;
            }
            if i == 1 && *op == Op::While {
                self.expect("do")?;
            }
            self.expect("{")?;
            regions.push(self.region_body(scope)?);
        }
        self.depth -= 1;
        Ok(regions)
    }
}
