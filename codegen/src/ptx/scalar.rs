//! Arithmetic, bits, comparison, selection, vectors: tables from operation to mnemonic.

use qcc_ir::DType;
use qcc_ir::kernel::{Approx, Cmp, Math, NanMode, Op, Round, Stmt, Ty};

use super::emit::{Emitted, Emitter, Image};
use super::regs::{Class, Reg, layout, narrow, suffix};

/// An instruction that works on one register of each operand.
struct Lanewise {
    mnemonic: String,
    /// Version and compute capability.
    needs: (u32, u32),
    /// Whether 32 and 64-bit constants may stand as literals.
    literals: bool,
}

fn lanewise(mnemonic: impl Into<String>) -> Option<Lanewise> {
    Some(Lanewise {
        mnemonic: mnemonic.into(),
        needs: (63, 75),
        literals: true,
    })
}

const fn rounding(round: Round) -> &'static str {
    round.name()
}

const fn integral(round: Round) -> &'static str {
    match round {
        Round::Rn => "rni",
        Round::Rz => "rzi",
        Round::Rm => "rmi",
        Round::Rp => "rpi",
    }
}

/// Integer instruction, by the typed suffix.
fn int_table(op: &Op, s: &str) -> Option<Lanewise> {
    let signed = format!("s{}", &s[1..]);
    lanewise(match op {
        Op::INeg => format!("neg.{signed}"),
        Op::IAbs if s.starts_with('u') => return None,
        Op::IAbs => format!("abs.{s}"),
        Op::IAdd => format!("add.{s}"),
        Op::ISub => format!("sub.{s}"),
        Op::IMul => format!("mul.lo.{s}"),
        Op::IMulHi => format!("mul.hi.{s}"),
        Op::IMad => format!("mad.lo.{s}"),
        Op::IDiv => format!("div.{s}"),
        Op::IRem => format!("rem.{s}"),
        Op::IMin => format!("min.{s}"),
        Op::IMax => format!("max.{s}"),
        Op::Shr => format!("shr.{s}"),
        Op::Shl => format!("shl.b{}", &s[1..]),
        _ => return None,
    })
}

/// Float instruction with what it needs.
fn float_table(op: &Op, s: &str) -> Option<Lanewise> {
    let half = s.starts_with("f16");
    let brain = s.starts_with("bf16");
    let only_rn = |round: &Round| !(half || brain) || *round == Round::Rn;
    let (mnemonic, needs) = match op {
        Op::FAdd { round } if only_rn(round) => (format!("add.{}.{s}", rounding(*round)), (78, 90)),
        Op::FSub { round } if only_rn(round) => (format!("sub.{}.{s}", rounding(*round)), (78, 90)),
        Op::FMul { round } if only_rn(round) => (format!("mul.{}.{s}", rounding(*round)), (78, 90)),
        Op::Fma { round } if only_rn(round) => (format!("fma.{}.{s}", rounding(*round)), (70, 80)),
        Op::FDiv { round } if !half && !brain => {
            (format!("div.{}.{s}", rounding(*round)), (63, 75))
        }
        Op::FNeg => (format!("neg.{s}"), (70, 80)),
        Op::FAbs => (format!("abs.{s}"), (70, 80)),
        Op::FMin { nan } => (format!("min{}.{s}", nan_suffix(*nan, s)?), (70, 80)),
        Op::FMax { nan } => (format!("max{}.{s}", nan_suffix(*nan, s)?), (70, 80)),
        Op::FRound { round } if matches!(s, "f16" | "f32" | "f64") => {
            (format!("cvt.{}.{s}.{s}", integral(*round)), (63, 75))
        }
        Op::Math { func, approx } => return math_table(*func, *approx, s),
        _ => return None,
    };
    // f32 and f64 arithmetic is everywhere; f16 minima came with sm_80, bf16 as listed.
    let minimum = matches!(op, Op::FMin { .. } | Op::FMax { .. });
    let nan = mnemonic.contains(".NaN");
    let needs = if brain || (half && minimum) || nan {
        needs
    } else {
        (63, 75)
    };
    Some(Lanewise {
        mnemonic,
        needs,
        literals: !half && !brain,
    })
}

fn nan_suffix(nan: NanMode, s: &str) -> Option<&'static str> {
    match nan {
        NanMode::Number => Some(""),
        NanMode::Propagate if s == "f64" => None,
        NanMode::Propagate => Some(".NaN"),
    }
}

fn math_table(func: Math, approx: Approx, s: &str) -> Option<Lanewise> {
    let exact = approx == Approx::Exact;
    let (mnemonic, needs) = match (func, exact, s) {
        (Math::Sqrt, true, "f32" | "f64") => (format!("sqrt.rn.{s}"), (63, 75)),
        (Math::Rcp, true, "f32" | "f64") => (format!("rcp.rn.{s}"), (63, 75)),
        (Math::Sqrt, false, "f32") => ("sqrt.approx.f32".into(), (63, 75)),
        (Math::Rcp, false, "f32") => ("rcp.approx.f32".into(), (63, 75)),
        (Math::Rsqrt, false, "f32") => ("rsqrt.approx.f32".into(), (63, 75)),
        (Math::Exp2, false, "f32") => ("ex2.approx.f32".into(), (63, 75)),
        (Math::Exp2, false, "f16" | "f16x2") => (format!("ex2.approx.{s}"), (70, 75)),
        (Math::Log2, false, "f32") => ("lg2.approx.f32".into(), (63, 75)),
        (Math::Sin, false, "f32") => ("sin.approx.f32".into(), (63, 75)),
        (Math::Cos, false, "f32") => ("cos.approx.f32".into(), (63, 75)),
        (Math::Tanh, false, "f32" | "f16" | "f16x2") => (format!("tanh.approx.{s}"), (70, 75)),
        _ => return None,
    };
    Some(Lanewise {
        mnemonic,
        needs,
        literals: s == "f32" || s == "f64",
    })
}

/// Bitwise instruction: by register class, any format.
fn bit_table(op: &Op, class: Class) -> Option<Lanewise> {
    let bits = class.bits();
    let name = match op {
        Op::And => "and",
        Op::Or => "or",
        Op::Xor => "xor",
        Op::Not => "not",
        _ => return None,
    };
    let mut row = lanewise(format!("{name}.{bits}"))?;
    row.literals = matches!(class, Class::Word | Class::Double);
    Some(row)
}

fn word_table(op: &Op) -> Option<Lanewise> {
    lanewise(match op {
        Op::Popc => "popc.b32",
        Op::Clz => "clz.b32",
        Op::Lop3 { .. } => "lop3.b32",
        Op::Prmt => "prmt.b32",
        Op::FunnelShl => "shf.l.wrap.b32",
        Op::FunnelShr => "shf.r.wrap.b32",
        _ => return None,
    })
}

impl<'k> Emitter<'k> {
    pub(super) fn scalar(&mut self, stmt: &'k Stmt) -> Emitted {
        match stmt.op {
            Op::Cmp { cmp } => self.compare(cmp, stmt),
            Op::Select => self.select(stmt),
            Op::Bitcast => self.bitcast(stmt),
            Op::Pack => self.pack(stmt),
            Op::Unpack => self.unpack(stmt),
            Op::Dp4a => self.dp4a(stmt),
            _ => self.lanewise(stmt),
        }
    }

    fn row(&self, stmt: &Stmt, ty: Ty) -> Option<Lanewise> {
        if let Some(row) = word_table(&stmt.op).or_else(|| bit_table(&stmt.op, layout(ty).0)) {
            return Some(row);
        }
        let s = suffix(ty)?;
        if ty.is_float() {
            float_table(&stmt.op, s)
        } else {
            int_table(&stmt.op, s)
        }
    }

    fn lanewise(&mut self, stmt: &'k Stmt) -> Emitted {
        let result = stmt.results[0];
        let ty = self.ty(result);
        let Some(row) = self.row(stmt, ty) else {
            return self.fail(stmt, format!("no form for `{ty}`"));
        };
        self.needs.need(row.needs.0, row.needs.1);
        let mut columns = Vec::new();
        for &arg in &stmt.args {
            columns.push(if row.literals {
                self.operands(arg)
            } else {
                self.regs(arg).iter().map(Reg::to_string).collect()
            });
        }
        let table = match stmt.op {
            Op::Lop3 { table } => format!(", {table:#04x}"),
            _ => String::new(),
        };
        for (i, reg) in self.define(result).into_iter().enumerate() {
            // A shift's amount is one operand for all lanes.
            let operands: Vec<&str> = columns
                .iter()
                .map(|c| c.get(i).unwrap_or(&c[0]).as_str())
                .collect();
            self.line(format!(
                "{} {reg}, {}{table}",
                row.mnemonic,
                operands.join(", ")
            ));
            self.extend(ty, reg);
        }
        Ok(())
    }

    /// Brings a narrow integer's register back to its extended form.
    pub(super) fn extend(&mut self, ty: Ty, reg: Reg) {
        if let Some(narrow) = narrow(ty) {
            let wide = if narrow.starts_with('s') {
                "s32"
            } else {
                "u32"
            };
            self.line(format!("cvt.{wide}.{narrow} {reg}, {reg}"));
        }
    }

    fn dp4a(&mut self, stmt: &'k Stmt) -> Emitted {
        let kind = |ty: Ty| {
            if ty.dtype() == Some(DType::I8) {
                "s32"
            } else {
                "u32"
            }
        };
        let (a, b) = (self.ty(stmt.args[0]), self.ty(stmt.args[1]));
        let operands: Vec<String> = stmt.args.iter().map(|&v| self.operand(v)).collect();
        let reg = self.define1(stmt.results[0]);
        self.line(format!(
            "dp4a.{}.{} {reg}, {}",
            kind(a),
            kind(b),
            operands.join(", ")
        ));
        Ok(())
    }

    fn compare(&mut self, cmp: Cmp, stmt: &'k Stmt) -> Emitted {
        let ty = self.ty(stmt.args[0]);
        let suffix = match ty {
            Ty::Ptr { space, .. } if space.address_bits() == 32 => Some("u32"),
            Ty::Ptr { .. } => Some("u64"),
            Ty::Val {
                dtype: DType::Bool, ..
            } => return self.compare_truth(cmp, stmt),
            ty => suffix(ty),
        };
        let Some(s) = suffix else {
            return self.fail(stmt, format!("no comparison of `{ty}`"));
        };
        if s.starts_with("bf16") {
            self.needs.need(78, 90);
        }
        let name = if cmp == Cmp::Ne && ty.is_float() {
            "neu"
        } else {
            cmp.name()
        };
        let packed = s.ends_with("x2");
        let literals = !s.contains("f16");
        let (a, b): (Vec<String>, Vec<String>) = if literals {
            (self.operands(stmt.args[0]), self.operands(stmt.args[1]))
        } else {
            let names = |regs: Vec<Reg>| regs.iter().map(Reg::to_string).collect();
            (
                names(self.regs(stmt.args[0])),
                names(self.regs(stmt.args[1])),
            )
        };
        let preds = self.define(stmt.results[0]);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let to = match packed {
                true => format!("{}|{}", preds[2 * i], preds[2 * i + 1]),
                false => preds[i].to_string(),
            };
            self.line(format!("setp.{name}.{s} {to}, {a}, {b}"));
        }
        Ok(())
    }

    fn compare_truth(&mut self, cmp: Cmp, stmt: &'k Stmt) -> Emitted {
        if !matches!(cmp, Cmp::Eq | Cmp::Ne) {
            return self.fail(stmt, "truth values have no order");
        }
        let (a, b) = (self.regs(stmt.args[0]), self.regs(stmt.args[1]));
        let preds = self.define(stmt.results[0]);
        for ((p, a), b) in preds.iter().zip(a).zip(b) {
            self.line(format!("xor.pred {p}, {a}, {b}"));
            if cmp == Cmp::Eq {
                self.line(format!("not.pred {p}, {p}"));
            }
        }
        Ok(())
    }

    fn select(&mut self, stmt: &'k Stmt) -> Emitted {
        let ty = self.ty(stmt.results[0]);
        let conds = self.regs(stmt.args[0]);
        let (class, n) = layout(ty);
        if conds.len() > 1 && conds.len() != n {
            return self.fail(stmt, "lanes share registers");
        }
        let cond = |i: usize| conds[if conds.len() > 1 { i } else { 0 }];
        if class == Class::Pred {
            return self.select_truth(stmt, &(0..n).map(cond).collect::<Vec<_>>());
        }
        let (a, b) = (self.operands(stmt.args[1]), self.operands(stmt.args[2]));
        for (i, reg) in self.define(stmt.results[0]).into_iter().enumerate() {
            self.line(format!(
                "selp.{} {reg}, {}, {}, {}",
                class.bits(),
                a[i],
                b[i],
                cond(i)
            ));
        }
        Ok(())
    }

    fn select_truth(&mut self, stmt: &'k Stmt, conds: &[Reg]) -> Emitted {
        let (a, b) = (self.regs(stmt.args[1]), self.regs(stmt.args[2]));
        let results = self.define(stmt.results[0]);
        for (i, p) in results.into_iter().enumerate() {
            let (yes, no) = (self.fresh(Class::Pred), self.fresh(Class::Pred));
            self.line(format!("and.pred {yes}, {}, {}", conds[i], a[i]));
            self.line(format!("not.pred {no}, {}", conds[i]));
            self.line(format!("and.pred {no}, {no}, {}", b[i]));
            self.line(format!("or.pred {p}, {yes}, {no}"));
        }
        Ok(())
    }

    /// The same bits: the same registers, unless the classes differ or the extension does.
    fn bitcast(&mut self, stmt: &'k Stmt) -> Emitted {
        let (from, to) = (self.ty(stmt.args[0]), self.ty(stmt.results[0]));
        let (target, _) = layout(to);
        if layout(from) == layout(to) && from.bits() >= 32 {
            let image = Image::Regs(self.regs(stmt.args[0]));
            self.set(stmt.results[0], image);
            return Ok(());
        }
        let source = self.regs(stmt.args[0]);
        let regs = self.define(stmt.results[0]);
        match (source[0].class, target) {
            (Class::Half, Class::Word) if to.bits() == 16 => {
                self.line(format!("cvt.u32.u16 {}, {}", regs[0], source[0]));
            }
            (Class::Word, Class::Half) => {
                self.line(format!("cvt.u16.u32 {}, {}", regs[0], source[0]));
            }
            (Class::Word, Class::Double) => {
                for (i, d) in regs.iter().enumerate() {
                    self.line(format!(
                        "mov.b64 {d}, {{{}, {}}}",
                        source[2 * i],
                        source[2 * i + 1]
                    ));
                }
                return Ok(());
            }
            (Class::Double, Class::Word) => {
                for (i, d) in source.iter().enumerate() {
                    self.line(format!(
                        "mov.b64 {{{}, {}}}, {d}",
                        regs[2 * i],
                        regs[2 * i + 1]
                    ));
                }
                return Ok(());
            }
            (from_class, to_class) => {
                debug_assert_eq!(from_class, to_class);
                self.line(format!("mov.{} {}, {}", target.bits(), regs[0], source[0]));
            }
        }
        match (narrow(to), to.bits()) {
            (Some(_), _) => self.extend(to, regs[0]),
            (None, 8) => self.line(format!("and.b32 {0}, {0}, 0xff", regs[0])),
            _ => {}
        }
        Ok(())
    }

    fn pack(&mut self, stmt: &'k Stmt) -> Emitted {
        let (part, whole) = (self.ty(stmt.args[0]), self.ty(stmt.results[0]));
        let mut sources = Vec::new();
        for &arg in &stmt.args {
            sources.extend(self.regs(arg));
        }
        if part.dtype() == Some(DType::Bool) || part.bits() >= 32 {
            self.set(stmt.results[0], Image::Regs(sources));
            return Ok(());
        }
        let bits = part.bits();
        let regs = self.define(stmt.results[0]);
        let per_register = sources.len() / regs.len();
        for (i, reg) in regs.into_iter().enumerate() {
            let group = &sources[i * per_register..][..per_register];
            self.join(group, bits, reg, whole)?;
        }
        Ok(())
    }

    /// Joins equal parts of 8 or 16 bits into one register.
    fn join(&mut self, parts: &[Reg], bits: u32, to: Reg, whole: Ty) -> Emitted {
        if parts[0].class == Class::Half {
            self.line(format!("mov.b32 {to}, {{{}, {}}}", parts[0], parts[1]));
            return Ok(());
        }
        let mut words = parts.to_vec();
        let mut selector = if bits == 8 { "0x0040" } else { "0x5410" };
        while words.len() > 1 {
            let mut next = Vec::new();
            for pair in words.chunks(2) {
                let reg = self.fresh(Class::Word);
                self.line(format!(
                    "prmt.b32 {reg}, {}, {}, {selector}",
                    pair[0], pair[1]
                ));
                next.push(reg);
            }
            words = next;
            selector = "0x5410";
        }
        match to.class {
            Class::Half => self.line(format!("cvt.u16.u32 {to}, {}", words[0])),
            _ => self.line(format!("mov.b32 {to}, {}", words[0])),
        }
        let _ = whole;
        Ok(())
    }

    fn unpack(&mut self, stmt: &'k Stmt) -> Emitted {
        let part = self.ty(stmt.results[0]);
        let source = self.regs(stmt.args[0]);
        let n = stmt.results.len();
        if part.dtype() == Some(DType::Bool) || part.bits() >= 32 {
            let each = source.len() / n;
            for (i, &r) in stmt.results.iter().enumerate() {
                self.set(r, Image::Regs(source[i * each..][..each].to_vec()));
            }
            return Ok(());
        }
        if part.bits() < 8 {
            return self.fail(stmt, "lanes of 4 bits have no registers of their own");
        }
        let per_register = n / source.len();
        for (i, &from) in source.iter().enumerate() {
            let results = &stmt.results[i * per_register..][..per_register];
            let regs: Vec<Reg> = results.iter().map(|&r| self.define1(r)).collect();
            self.split(from, part, &regs);
        }
        Ok(())
    }

    /// Cuts a register into equal parts of 8 or 16 bits.
    fn split(&mut self, from: Reg, part: Ty, to: &[Reg]) {
        if to[0].class == Class::Half {
            return self.line(format!("mov.b32 {{{}, {}}}, {from}", to[0], to[1]));
        }
        let word = match from.class {
            Class::Half => {
                let word = self.fresh(Class::Word);
                self.line(format!("cvt.u32.u16 {word}, {from}"));
                word
            }
            _ => from,
        };
        let kind = if narrow(part).is_some_and(|n| n.starts_with('s')) {
            "s32"
        } else {
            "u32"
        };
        let bits = part.bits();
        for (i, reg) in to.iter().enumerate() {
            self.line(format!(
                "bfe.{kind} {reg}, {word}, {}, {bits}",
                i as u32 * bits
            ));
        }
    }
}
