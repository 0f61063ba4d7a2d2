//! A kernel's body: register declarations, blocks, labels and instructions.

use std::collections::BTreeMap;

use super::ast::{Kernel, Mod, Operand, RawInst, RegDecl, RegId, RegKind, Scope};
use super::error::{ParseError, ParseErrorKind};
use super::lexer::Tok;
use super::vars::{read_var, type_bytes};
use super::{Reader, describe};

/// More registers than any compiler emits; keeps `%r<4000000000>` from taking the memory.
const MAX_REGS: usize = 1 << 18;
/// Blocks and operands nest no deeper.
const MAX_DEPTH: usize = 32;

#[derive(Default)]
struct Names {
    single: BTreeMap<String, RegId>,
    ranges: BTreeMap<String, (u32, RegId)>,
    scope: u32,
}

struct Body<'a> {
    kernel: &'a mut Kernel,
    names: Vec<Names>,
}

/// Reads `{ … }` into `kernel`.
pub(super) fn read_body(r: &mut Reader, kernel: &mut Kernel) -> Result<(), ParseError> {
    r.expect('{')?;
    kernel.scopes.push(Scope::default());
    let mut body = Body {
        kernel,
        names: vec![Names::default()],
    };
    while !body.names.is_empty() {
        body.statement(r)?;
    }
    Ok(())
}

impl Body<'_> {
    fn scope(&self) -> u32 {
        self.names.last().map_or(0, |n| n.scope)
    }

    fn statement(&mut self, r: &mut Reader) -> Result<(), ParseError> {
        match r.tok().clone() {
            Tok::Punct('}') => {
                r.at += 1;
                self.names.pop();
            }
            Tok::Punct('{') => {
                r.at += 1;
                if self.names.len() >= MAX_DEPTH {
                    return r.syntax("blocks nest too deeply");
                }
                let scope = self.kernel.scopes.len() as u32;
                self.kernel.scopes.push(Scope {
                    parent: Some(self.scope()),
                    ..Scope::default()
                });
                self.names.push(Names {
                    scope,
                    ..Names::default()
                });
            }
            Tok::Punct(';') => r.at += 1,
            Tok::Dot(name) => self.directive(r, &name)?,
            Tok::Ident(name) if *r.ahead(1) == Tok::Punct(':') => self.label(r, name)?,
            Tok::Punct('@') | Tok::Ident(_) => {
                let inst = self.instruction(r)?;
                self.kernel.insts.push(inst);
            }
            other => return r.syntax(format!("expected a statement, found {}", describe(&other))),
        }
        Ok(())
    }

    fn directive(&mut self, r: &mut Reader, name: &str) -> Result<(), ParseError> {
        match name {
            "reg" => {
                r.at += 1;
                self.registers(r)
            }
            "loc" | "file" => {
                r.skip_line();
                Ok(())
            }
            "pragma" => {
                r.at += 2;
                r.expect(';')
            }
            "section" => {
                r.at += 2;
                r.skip_braces()
            }
            "shared" | "local" | "global" | "const" => {
                let var = read_var(r, false)?;
                self.kernel.vars.push(var);
                Ok(())
            }
            "extern" => {
                r.at += 1;
                let var = read_var(r, true)?;
                self.kernel.vars.push(var);
                Ok(())
            }
            other => {
                let text = format!("directive `.{other}` is not built in a body");
                Err(ParseError::new(
                    ParseErrorKind::UnknownDirective,
                    r.pos(),
                    text,
                ))
            }
        }
    }

    fn registers(&mut self, r: &mut Reader) -> Result<(), ParseError> {
        let kind = match r.next() {
            Tok::Dot(t) if t == "pred" => RegKind::Pred,
            Tok::Dot(t) => match type_bytes(&t) {
                Some(bytes @ (2 | 4 | 8)) => RegKind::Bits(bytes as u8 * 8),
                _ => return r.syntax(format!("registers of type `.{t}` are not built")),
            },
            other => {
                return r.syntax(format!(
                    "expected a register type, found {}",
                    describe(&other)
                ));
            }
        };
        loop {
            let pos = r.pos();
            let name = r.ident("a register name")?;
            let mut count = 1;
            let range = r.eat('<');
            if range {
                count = r.count("a register count")?;
                r.expect('>')?;
            }
            let first = self.kernel.regs.len();
            if first + count as usize > MAX_REGS {
                return Err(ParseError::new(
                    ParseErrorKind::Syntax,
                    pos,
                    "more than 262144 registers",
                ));
            }
            let names = self
                .names
                .last_mut()
                .expect("a statement is read only inside an open block");
            let fresh = if range {
                for i in 0..count {
                    self.kernel.regs.push(RegDecl {
                        name: format!("{name}{i}"),
                        kind,
                    });
                }
                names
                    .ranges
                    .insert(name.clone(), (count, first as RegId))
                    .is_none()
            } else {
                self.kernel.regs.push(RegDecl {
                    name: name.clone(),
                    kind,
                });
                names.single.insert(name.clone(), first as RegId).is_none()
            };
            if !fresh {
                return Err(ParseError::new(
                    ParseErrorKind::Name,
                    pos,
                    format!("register `{name}` is declared twice"),
                ));
            }
            if !r.eat(',') {
                break;
            }
        }
        r.expect(';')
    }

    fn label(&mut self, r: &mut Reader, name: String) -> Result<(), ParseError> {
        let pos = r.pos();
        r.at += 2;
        let scope = self.scope() as usize;
        let here = self.kernel.insts.len();
        if *r.tok() == Tok::Dot("branchtargets".into()) {
            r.at += 1;
            let mut targets = vec![r.ident("a label")?];
            while r.eat(',') {
                targets.push(r.ident("a label")?);
            }
            r.expect(';')?;
            self.kernel.scopes[scope]
                .branch_targets
                .insert(name, targets);
            return Ok(());
        }
        match self.kernel.scopes[scope].labels.insert(name.clone(), here) {
            None => Ok(()),
            Some(_) => Err(ParseError::new(
                ParseErrorKind::Name,
                pos,
                format!("label `{name}` is declared twice"),
            )),
        }
    }

    fn lookup(&self, name: &str) -> Option<RegId> {
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(digits);
        for scope in self.names.iter().rev() {
            if let Some(id) = scope.single.get(name) {
                return Some(*id);
            }
            if let (Some((count, first)), Ok(n)) = (scope.ranges.get(prefix), number.parse::<u32>())
                && n < *count
                && (number.len() == 1 || !number.starts_with('0'))
            {
                return Some(first + n);
            }
        }
        None
    }

    fn instruction(&mut self, r: &mut Reader) -> Result<RawInst, ParseError> {
        let mut guard = None;
        if r.eat('@') {
            let negated = r.eat('!');
            let pos = r.pos();
            let name = r.ident("a predicate")?;
            let id = self.lookup(&name).ok_or_else(|| {
                ParseError::new(
                    ParseErrorKind::Name,
                    pos,
                    format!("predicate `{name}` is not declared"),
                )
            })?;
            guard = Some((id, negated));
        }
        let pos = r.pos();
        let opcode = r.ident("an instruction")?;
        let mut mods = Vec::new();
        while let Tok::Dot(text) = r.tok().clone() {
            mods.push(Mod { text, pos: r.pos() });
            r.at += 1;
        }
        let mut operands = Vec::new();
        while !r.is_punct(';') {
            operands.push(self.operand(r, 0)?);
            if !r.eat(',') && !r.is_punct(';') {
                return r.syntax(format!(
                    "expected ',' or ';' after an operand, found {}",
                    describe(r.tok())
                ));
            }
        }
        r.at += 1;
        Ok(RawInst {
            pos,
            guard,
            opcode,
            mods,
            operands,
            scope: self.scope(),
        })
    }

    fn operand(&self, r: &mut Reader, depth: usize) -> Result<Operand, ParseError> {
        if depth > MAX_DEPTH {
            return r.syntax("operands nest too deeply");
        }
        let first = self.single(r, depth)?;
        if r.eat('|') {
            let second = self.single(r, depth)?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn single(&self, r: &mut Reader, depth: usize) -> Result<Operand, ParseError> {
        let pos = r.pos();
        match r.next() {
            Tok::Punct('!') => {
                let name = r.ident("a predicate")?;
                let id = self.lookup(&name);
                id.map(Operand::Not).ok_or_else(|| {
                    ParseError::new(
                        ParseErrorKind::Name,
                        pos,
                        format!("`{name}` is not declared"),
                    )
                })
            }
            Tok::Punct('{') => {
                let mut parts = Vec::new();
                while !r.eat('}') {
                    parts.push(self.operand(r, depth + 1)?);
                    if !r.eat(',') && !r.is_punct('}') {
                        return r.syntax("expected ',' or '}' in a vector");
                    }
                }
                Ok(Operand::Vector(parts))
            }
            Tok::Punct('[') => self.address(r, depth),
            Tok::Punct('-') => match r.next() {
                Tok::Int(v) => Ok(Operand::Int((v as i64).wrapping_neg())),
                Tok::F64(v) => Ok(Operand::F64((-f64::from_bits(v)).to_bits())),
                other => r.syntax(format!("expected a number, found {}", describe(&other))),
            },
            Tok::Int(v) => Ok(Operand::Int(v as i64)),
            Tok::F32(v) => Ok(Operand::F32(v)),
            Tok::F64(v) => Ok(Operand::F64(v)),
            Tok::Ident(name) => {
                let base = self.named(r, name);
                if r.is_punct('+') && matches!(r.ahead(1), Tok::Int(_)) {
                    let off = self.offset(r)?;
                    return Ok(Operand::Addr {
                        base: Box::new(base),
                        off,
                        rest: vec![],
                    });
                }
                Ok(base)
            }
            other => Err(ParseError::new(
                ParseErrorKind::Syntax,
                pos,
                format!("{} is no operand", describe(&other)),
            )),
        }
    }

    fn named(&self, r: &mut Reader, name: String) -> Operand {
        if name == "_" {
            return Operand::Sink;
        }
        if name == "WARP_SZ" {
            return Operand::Int(32);
        }
        if let Some(id) = self.lookup(&name) {
            return Operand::Reg(id);
        }
        if let Tok::Dot(member) = r.tok().clone() {
            r.at += 1;
            return Operand::Sym(format!("{name}.{member}"));
        }
        Operand::Sym(name)
    }

    /// `+4`, `-4`, `+-4` or nothing.
    fn offset(&self, r: &mut Reader) -> Result<i64, ParseError> {
        let plus = r.eat('+');
        let minus = r.eat('-');
        if !plus && !minus {
            return Ok(0);
        }
        match r.next() {
            Tok::Int(v) if minus => Ok((v as i64).wrapping_neg()),
            Tok::Int(v) => Ok(v as i64),
            other => r.syntax(format!("expected an offset, found {}", describe(&other))),
        }
    }

    fn address(&self, r: &mut Reader, depth: usize) -> Result<Operand, ParseError> {
        let base = match r.next() {
            Tok::Ident(name) => self.named(r, name),
            Tok::Int(v) => Operand::Int(v as i64),
            other => return r.syntax(format!("{} is no address", describe(&other))),
        };
        let off = self.offset(r)?;
        let mut rest = Vec::new();
        while r.eat(',') {
            rest.push(self.operand(r, depth + 1)?);
        }
        r.expect(']')?;
        Ok(Operand::Addr {
            base: Box::new(base),
            off,
            rest,
        })
    }
}
