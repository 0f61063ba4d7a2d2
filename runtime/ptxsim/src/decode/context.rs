//! The decoder's state and the reading of modifiers and operands.

use std::collections::HashMap;

use super::layout::{Layout, Symbol, lay_out};
use super::{Decoded, ParseOptions};
use crate::isa::asynch::Addr;
use crate::isa::memory::Space;
use crate::isa::program::{GlobalVar, Program, Reloc};
use crate::isa::types::{Kind, Ty};
use crate::isa::{ALWAYS, CONST, Class, Op, P, PSrc, R};
use crate::parse::ast::{Ast, Kernel, Mod, Operand, RawInst, RegId, RegKind};
use crate::parse::error::{ParseError, ParseErrorKind, Pos};

/// Register 0 takes results written to `_`.
pub(super) const SINK: R = 0;

/// Where a declared register lives.
#[derive(Clone, Copy)]
enum Slot {
    Data(R, u8),
    Pred(P),
}

/// State over one kernel.
pub(super) struct Decoder<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) program: Program,
    pub(super) options: ParseOptions,
    pub(super) layout: Layout,
    slots: Vec<Slot>,
    constants: HashMap<u64, R>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(
        ast: &Ast,
        kernel: &'a Kernel,
        globals: &mut Vec<GlobalVar>,
        options: ParseOptions,
    ) -> Result<Self, ParseError> {
        let layout = lay_out(ast, kernel, globals)
            .map_err(|text| ParseError::new(ParseErrorKind::Syntax, Pos::default(), text))?;
        let mut slots = Vec::with_capacity(kernel.regs.len());
        let mut reg_names = vec!["_".to_string()];
        let mut num_preds = 1usize;
        for reg in &kernel.regs {
            slots.push(match reg.kind {
                RegKind::Pred => {
                    num_preds += 1;
                    let p = P::try_from(num_preds - 1).map_err(|_| {
                        ParseError::new(
                            ParseErrorKind::Syntax,
                            Pos::default(),
                            "more than 65535 predicates",
                        )
                    })?;
                    Slot::Pred(p)
                }
                RegKind::Bits(bits) => {
                    reg_names.push(reg.name.clone());
                    Slot::Data(reg_names.len() as R - 1, bits)
                }
            });
        }
        let end = kernel.params.last().map_or(0, |p| p.offset + p.size);
        let program = Program {
            name: kernel.name.clone(),
            insts: Vec::with_capacity(kernel.insts.len() + 1),
            consts: vec![[0; 32]],
            relocs: vec![],
            reg_names,
            num_preds,
            params: kernel.params.clone(),
            param_bytes: end,
            static_end: layout.static_end,
            dynamic_start: layout.dynamic_start,
            local_bytes: layout.local_bytes,
            max_threads: kernel.max_threads,
            max_regs: kernel.max_regs,
            cluster: kernel.cluster,
            wgmma: false,
            depends: false,
            shared_grain: 4,
            global_grain: 4,
            communicates: false,
        };
        Ok(Self {
            kernel,
            program,
            options,
            layout,
            slots,
            constants: HashMap::from([(0, CONST)]),
        })
    }

    pub(super) fn constant(&mut self, v: u64) -> R {
        *self.constants.entry(v).or_insert_with(|| {
            self.program.consts.push([v; 32]);
            CONST | (self.program.consts.len() as R - 1)
        })
    }

    fn address_of_global(&mut self, var: usize, off: i64) -> R {
        self.program.consts.push([0; 32]);
        let constant = self.program.consts.len() - 1;
        self.program.relocs.push(Reloc { constant, var, off });
        CONST | constant as R
    }

    pub(super) fn pred(&self, reg: RegId, pos: Pos) -> Result<P, ParseError> {
        match self.slots[reg as usize] {
            Slot::Pred(p) => Ok(p),
            Slot::Data(..) => {
                let text = format!("`{}` is no predicate", self.kernel.regs[reg as usize].name);
                Err(ParseError::new(ParseErrorKind::Operand, pos, text))
            }
        }
    }

    fn label(&self, name: &str, scope: u32) -> Option<usize> {
        let mut at = Some(scope);
        while let Some(s) = at {
            let scope = &self.kernel.scopes[s as usize];
            if let Some(i) = scope.labels.get(name) {
                return Some(*i);
            }
            at = scope.parent;
        }
        None
    }
}

/// One instruction being decoded.
pub(super) struct Cx<'a, 'k> {
    pub(super) d: &'a mut Decoder<'k>,
    pub(super) raw: &'a RawInst,
    mods: Vec<&'a Mod>,
    out: Decoded,
}

pub(super) type Res<T> = Result<T, ParseError>;

impl<'a, 'k> Cx<'a, 'k> {
    pub(super) fn new(d: &'a mut Decoder<'k>, raw: &'a RawInst) -> Self {
        Self {
            d,
            raw,
            mods: raw.mods.iter().collect(),
            out: vec![],
        }
    }

    /// All modifiers must have been taken.
    pub(super) fn finish(self) -> Res<Decoded> {
        if let Some(m) = self.mods.first() {
            let text = format!(
                "modifier `.{}` is not built for `{}` here",
                m.text, self.raw.opcode
            );
            return Err(ParseError::new(
                ParseErrorKind::UnknownModifier,
                m.pos,
                text,
            ));
        }
        Ok(self.out)
    }

    pub(super) fn emit(&mut self, op: Op, class: Class) -> Res<bool> {
        self.out.push((op, class, false));
        Ok(true)
    }

    /// Emits an instruction that the whole warp must execute together.
    pub(super) fn emit_aligned(&mut self, op: Op, class: Class) -> Res<bool> {
        self.out.push((op, class, true));
        Ok(true)
    }

    pub(super) fn err<T>(&self, kind: ParseErrorKind, text: impl Into<String>) -> Res<T> {
        Err(ParseError::new(kind, self.raw.pos, text))
    }

    pub(super) fn operand_err<T>(&self, text: impl Into<String>) -> Res<T> {
        self.err(ParseErrorKind::Operand, text)
    }

    /// A combination of known modifiers that has no meaning here.
    pub(super) fn no_form<T>(&self) -> Res<T> {
        let mods: String = self
            .raw
            .mods
            .iter()
            .map(|m| format!(".{}", m.text))
            .collect();
        self.err(
            ParseErrorKind::UnknownModifier,
            format!("`{}{mods}` is not built", self.raw.opcode),
        )
    }

    /// Takes modifier `name` wherever it stands.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.mods.iter().position(|m| m.text == name) {
            Some(i) => {
                self.mods.remove(i);
                true
            }
            None => false,
        }
    }

    /// Takes the first of `names` that stands among the modifiers.
    pub(super) fn one_of(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|n| self.flag(n)).copied()
    }

    /// Takes the first modifier in text order that `pick` accepts.
    pub(super) fn take<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (i, v) = self
            .mods
            .iter()
            .enumerate()
            .find_map(|(i, m)| pick(&m.text).map(|v| (i, v)))?;
        self.mods.remove(i);
        Some(v)
    }

    /// Takes the next type in text order.
    pub(super) fn try_ty(&mut self) -> Option<Ty> {
        self.take(Ty::named)
    }

    pub(super) fn ty(&mut self) -> Res<Ty> {
        match self.try_ty() {
            Some(t) => Ok(t),
            None => self.err(
                ParseErrorKind::UnknownModifier,
                format!("`{}` needs a type", self.raw.opcode),
            ),
        }
    }

    pub(super) fn count(&self, allowed: std::ops::RangeInclusive<usize>) -> Res<usize> {
        let n = self.raw.operands.len();
        if allowed.contains(&n) {
            return Ok(n);
        }
        let want = if allowed.start() == allowed.end() {
            format!("{}", allowed.start())
        } else {
            format!("{} to {}", allowed.start(), allowed.end())
        };
        self.operand_err(format!(
            "`{}` takes {want} operands, not {n}",
            self.raw.opcode
        ))
    }

    pub(super) fn operand(&self, i: usize) -> Res<&'a Operand> {
        match self.raw.operands.get(i) {
            Some(o) => Ok(o),
            None => self.operand_err(format!("`{}` lacks operand {}", self.raw.opcode, i + 1)),
        }
    }

    /// Register of a given width.
    pub(super) fn reg(&self, o: &Operand, bits: u32) -> Res<R> {
        let (r, have) = self.any_reg(o)?;
        if u32::from(have) != bits {
            return self.operand_err(format!(
                "operand has {have} bits, the instruction's type {bits}"
            ));
        }
        Ok(r)
    }

    /// Register of any width, with its width.
    pub(super) fn any_reg(&self, o: &Operand) -> Res<(R, u8)> {
        match o {
            Operand::Reg(id) => match self.d.slots[*id as usize] {
                Slot::Data(r, bits) => Ok((r, bits)),
                Slot::Pred(_) => self.operand_err("a predicate stands where a register is wanted"),
            },
            Operand::Sym(s) => self.err(
                ParseErrorKind::Name,
                format!("`{s}` is not declared as a register"),
            ),
            _ => self.operand_err("a register is wanted here"),
        }
    }

    pub(super) fn dst(&self, i: usize, bits: u32) -> Res<R> {
        match self.operand(i)? {
            Operand::Sink => Ok(SINK),
            o => self.reg(o, bits.max(16)),
        }
    }

    /// Register or immediate of type `ty`.
    pub(super) fn src(&mut self, i: usize, ty: Ty) -> Res<R> {
        let o = self.operand(i)?;
        self.value(o, ty)
    }

    pub(super) fn value(&mut self, o: &Operand, ty: Ty) -> Res<R> {
        let bits = match (o, ty.kind) {
            (Operand::Int(v), Kind::Bits | Kind::Unsigned | Kind::Signed) => *v as u64 & ty.mask(),
            (Operand::F32(v), _) if ty.bits == 32 && ty.kind != Kind::Pair => u64::from(*v),
            (Operand::F32(v), Kind::Float) if ty.bits == 64 => {
                f64::from(f32::from_bits(*v)).to_bits()
            }
            (Operand::F64(v), Kind::Float) if ty.bits == 32 => {
                u64::from((f64::from_bits(*v) as f32).to_bits())
            }
            (Operand::F64(v), _) if ty.bits == 64 => *v,
            (Operand::Int(_) | Operand::F32(_) | Operand::F64(_), _) => {
                return self.operand_err("immediate does not fit the instruction's type");
            }
            (Operand::Sym(_) | Operand::Addr { .. }, _) => return self.symbol_value(o, ty),
            _ => return self.reg(o, ty.bits.max(16)),
        };
        Ok(self.d.constant(bits))
    }

    /// The address of a symbol as a value.
    fn symbol_value(&mut self, o: &Operand, ty: Ty) -> Res<R> {
        let (name, off) = match o {
            Operand::Sym(s) => (s, 0),
            Operand::Addr { base, off, rest } if rest.is_empty() => match &**base {
                Operand::Sym(s) => (s, *off),
                _ => return self.operand_err("an address cannot stand here"),
            },
            _ => return self.operand_err("an address cannot stand here"),
        };
        match self.d.layout.symbols.get(name).copied() {
            None => self.err(ParseErrorKind::Name, format!("`{name}` is not declared")),
            Some(Symbol::Global(var)) if ty.bits == 64 => Ok(self.d.address_of_global(var, off)),
            Some(Symbol::Global(_)) => self.operand_err("a global address has 64 bits"),
            Some(Symbol::Shared(a) | Symbol::Local(a) | Symbol::Param(a)) => {
                Ok(self.d.constant((i64::from(a) + off) as u64 & ty.mask()))
            }
        }
    }

    pub(super) fn pdst_of(&self, o: &Operand) -> Res<P> {
        match o {
            Operand::Sink => Ok(0),
            Operand::Reg(id) => self.d.pred(*id, self.raw.pos),
            _ => self.operand_err("a predicate is wanted here"),
        }
    }

    pub(super) fn pdst(&self, i: usize) -> Res<P> {
        self.pdst_of(self.operand(i)?)
    }

    /// Predicate source: `p`, `!p`, or a constant 0 or 1.
    pub(super) fn psrc(&self, i: usize) -> Res<PSrc> {
        match self.operand(i)? {
            Operand::Reg(id) => Ok(PSrc {
                p: self.d.pred(*id, self.raw.pos)?,
                neg: false,
            }),
            Operand::Not(id) => Ok(PSrc {
                p: self.d.pred(*id, self.raw.pos)?,
                neg: true,
            }),
            Operand::Int(v) => Ok(PSrc { p: 0, neg: *v == 0 }),
            _ => self.operand_err("a predicate is wanted here"),
        }
    }

    pub(super) fn is_pred(&self, o: &Operand) -> bool {
        matches!(o, Operand::Reg(id) | Operand::Not(id) if matches!(self.d.slots[*id as usize], Slot::Pred(_)))
    }

    /// An immediate integer.
    pub(super) fn imm(&self, i: usize) -> Res<i64> {
        match self.operand(i)? {
            Operand::Int(v) => Ok(*v),
            _ => self.operand_err(format!("operand {} must be an integer constant", i + 1)),
        }
    }

    /// The parts of a vector operand, or the operand itself.
    pub(super) fn parts(&self, i: usize) -> Res<&'a [Operand]> {
        Ok(match self.operand(i)? {
            Operand::Vector(v) => v,
            o => std::slice::from_ref(o),
        })
    }

    /// `[reg+off]`, `[symbol+off]`, `[number]` in a state space.
    pub(super) fn addr(&mut self, i: usize, space: Space) -> Res<Addr> {
        let o = self.operand(i)?;
        let (a, rest) = self.addr_of(o, space)?;
        if !rest.is_empty() {
            return self.operand_err("the address takes no further parts");
        }
        Ok(a)
    }

    pub(super) fn addr_of(&mut self, o: &'a Operand, space: Space) -> Res<(Addr, &'a [Operand])> {
        let Operand::Addr { base, off, rest } = o else {
            return self.operand_err("an address `[…]` is wanted here");
        };
        let addr = match &**base {
            Operand::Int(v) => Addr {
                space,
                reg: self.d.constant(*v as u64),
                narrow: false,
                off: *off,
            },
            Operand::Sym(name) => {
                let Some(symbol) = self.d.layout.symbols.get(name).copied() else {
                    return self.err(ParseErrorKind::Name, format!("`{name}` is not declared"));
                };
                let fits = match symbol {
                    Symbol::Shared(_) => matches!(space, Space::Shared | Space::SharedCluster),
                    Symbol::Local(_) => space == Space::Local,
                    Symbol::Param(_) => space == Space::Param,
                    Symbol::Global(_) => {
                        matches!(space, Space::Global | Space::Const | Space::Generic)
                    }
                };
                if !fits {
                    return self.operand_err(format!(
                        "`{name}` does not lie in this instruction's state space"
                    ));
                }
                match symbol {
                    Symbol::Global(var) => Addr {
                        space,
                        reg: self.d.address_of_global(var, *off),
                        narrow: false,
                        off: 0,
                    },
                    Symbol::Shared(a) | Symbol::Local(a) | Symbol::Param(a) => Addr {
                        space,
                        reg: self.d.constant(u64::from(a)),
                        narrow: false,
                        off: *off,
                    },
                }
            }
            o => {
                let (reg, bits) = self.any_reg(o)?;
                if bits == 16 {
                    return self.operand_err("an address register has 32 or 64 bits");
                }
                if bits == 32 && matches!(space, Space::Global | Space::Generic | Space::Const) {
                    return self.operand_err("an address in this state space has 64 bits");
                }
                Addr {
                    space,
                    reg,
                    narrow: bits == 32,
                    off: *off,
                }
            }
        };
        Ok((addr, rest))
    }

    /// The index, among instructions as written, that a label names.
    pub(super) fn target(&mut self, name: &str) -> Res<u32> {
        match self.d.label(name, self.raw.scope) {
            Some(i) => Ok(i as u32),
            None => self.err(
                ParseErrorKind::Name,
                format!("label `{name}` is not declared"),
            ),
        }
    }

    pub(super) fn branch_targets(&self, name: &str) -> Res<Vec<String>> {
        let mut at = Some(self.raw.scope);
        while let Some(s) = at {
            let scope = &self.d.kernel.scopes[s as usize];
            if let Some(list) = scope.branch_targets.get(name) {
                return Ok(list.clone());
            }
            at = scope.parent;
        }
        self.err(
            ParseErrorKind::Name,
            format!("branch target list `{name}` is not declared"),
        )
    }

    /// A predicate that always holds, for optional sources.
    pub(super) fn always(&self) -> PSrc {
        ALWAYS
    }
}
