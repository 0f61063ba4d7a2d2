//! The emitter's state: registers, text, and the image of every value.

use std::collections::HashSet;
use std::fmt::Write;

use qcc_ir::DType;
use qcc_ir::kernel::{Kernel, Op, Region, Stmt, Ty, Value};

use super::arch::Needs;
use super::module::param_symbol;
use super::regs::{Class, Reg, constant_bits, layout};

/// An operation without an instruction.
pub(super) struct Failure {
    pub(super) op: String,
    pub(super) reason: String,
}

pub(super) type Emitted = Result<(), Failure>;

/// How a value is held.
#[derive(Clone, Debug)]
pub(super) enum Image {
    Regs(Vec<Reg>),
    /// A constant: the bits of each register.
    Const(u64),
}

pub(super) struct Emitter<'k> {
    pub(super) kernel: &'k Kernel,
    pub(super) needs: Needs,
    pub(super) text: String,
    pub(super) labels: u32,
    /// The statement that the next line begins, for its comment.
    origin: Option<String>,
    counts: [u32; 4],
    images: Vec<Option<Image>>,
    /// Values that own their registers: used once, in their own region, by whoever takes over.
    pub(super) owned: Vec<bool>,
    /// Accumulators in flight that begin at zero and have not been multiplied into yet.
    pub(super) fresh: HashSet<Value>,
}

impl<'k> Emitter<'k> {
    pub(super) fn new(kernel: &'k Kernel, needs: Needs) -> Emitter<'k> {
        Emitter {
            kernel,
            needs,
            text: String::new(),
            labels: 0,
            origin: None,
            counts: [0; 4],
            images: vec![None; kernel.num_values()],
            owned: owned(kernel),
            fresh: HashSet::new(),
        }
    }

    /// An emitter for trying single statements, whose operands are taken as given.
    pub(super) fn for_trial(kernel: &'k Kernel) -> Emitter<'k> {
        Emitter {
            kernel,
            needs: Needs::base(),
            text: String::new(),
            labels: 0,
            origin: None,
            counts: [0; 4],
            images: vec![None; kernel.num_values()],
            owned: vec![false; kernel.num_values()],
            fresh: HashSet::new(),
        }
    }

    /// What a statement without regions needs.
    pub(super) fn try_alone(&mut self, stmt: &'k Stmt) -> Result<Needs, Failure> {
        self.text.clear();
        self.needs = Needs::base();
        self.stmt(stmt)?;
        Ok(self.needs)
    }

    // --- text ---------------------------------------------------------------------------------

    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        let _ = match self.origin.take() {
            Some(origin) => writeln!(self.text, "\t{}; //@ {origin}", text.as_ref()),
            None => writeln!(self.text, "\t{};", text.as_ref()),
        };
    }

    /// The next line says which statement of the kernel it comes from: the operation and its first
    /// result as the kernel's text has them. The simulator's faults repeat it.
    pub(super) fn begin(&mut self, stmt: &Stmt) {
        let name = stmt.op.name();
        self.origin = Some(match stmt.results.first() {
            Some(v) => format!("{name} %{}", v.index()),
            None => name,
        });
    }

    pub(super) fn label(&mut self) -> String {
        self.labels += 1;
        format!("L{}", self.labels)
    }

    pub(super) fn place(&mut self, label: &str) {
        let _ = writeln!(self.text, "{label}:");
    }

    pub(super) fn fail<T>(&self, stmt: &Stmt, reason: impl Into<String>) -> Result<T, Failure> {
        let types: Vec<String> = stmt.args.iter().map(|&a| self.ty(a).to_string()).collect();
        let to: Vec<String> = stmt
            .results
            .iter()
            .take(1)
            .map(|&r| self.ty(r).to_string())
            .collect();
        let op = format!("{} {} -> {}", stmt.op.name(), types.join(", "), to.join(""));
        Err(Failure {
            op,
            reason: reason.into(),
        })
    }

    // --- registers ----------------------------------------------------------------------------

    pub(super) fn ty(&self, v: Value) -> Ty {
        self.kernel.ty(v)
    }

    /// One more than the highest register of the class, 0 if there is none.
    pub(super) fn count(&self, class: Class) -> u32 {
        match self.counts[class as usize] {
            0 => 0,
            n => n + 1,
        }
    }

    pub(super) fn fresh(&mut self, class: Class) -> Reg {
        let count = &mut self.counts[class as usize];
        *count += 1;
        Reg {
            class,
            index: *count,
        }
    }

    pub(super) fn fresh_for(&mut self, ty: Ty) -> Vec<Reg> {
        let (class, n) = layout(ty);
        (0..n).map(|_| self.fresh(class)).collect()
    }

    pub(super) fn set(&mut self, v: Value, image: Image) {
        self.images[v.index()] = Some(image);
    }

    /// Gives `v` new registers.
    pub(super) fn define(&mut self, v: Value) -> Vec<Reg> {
        let regs = self.fresh_for(self.ty(v));
        self.set(v, Image::Regs(regs.clone()));
        regs
    }

    /// Gives a one-register value its register.
    pub(super) fn define1(&mut self, v: Value) -> Reg {
        self.define(v)[0]
    }

    pub(super) fn image(&self, v: Value) -> Image {
        // The verifier has shown that every value is defined before its uses.
        self.images[v.index()].clone().unwrap_or(Image::Const(0))
    }

    /// The constant's register bits, if the value is one.
    pub(super) fn constant(&self, v: Value) -> Option<u64> {
        match self.image(v) {
            Image::Const(bits) => Some(bits),
            Image::Regs(_) => None,
        }
    }

    /// Registers of a value; a constant is moved into new ones.
    pub(super) fn regs(&mut self, v: Value) -> Vec<Reg> {
        match self.image(v) {
            Image::Regs(regs) => regs,
            Image::Const(bits) => {
                let regs = self.fresh_for(self.ty(v));
                for &reg in &regs {
                    self.move_bits(reg, bits);
                }
                regs
            }
        }
    }

    /// The register of a one-register value.
    pub(super) fn reg(&mut self, v: Value) -> Reg {
        self.regs(v)[0]
    }

    pub(super) fn move_bits(&mut self, reg: Reg, bits: u64) {
        let literal = match reg.class {
            Class::Pred => if bits == 0 { "0" } else { "-1" }.to_string(),
            _ => immediate(bits),
        };
        self.line(format!("mov.{} {reg}, {literal}", reg.class.bits()));
    }

    /// Operands of each register of `v` for instructions that take immediates: 32 and 64-bit
    /// constants stay literals.
    pub(super) fn operands(&mut self, v: Value) -> Vec<String> {
        let ty = self.ty(v);
        let (class, n) = layout(ty);
        match self.image(v) {
            Image::Const(bits) if matches!(class, Class::Word | Class::Double) => {
                let literal = match ty.dtype() {
                    Some(DType::F32) => format!("0f{bits:08X}"),
                    Some(DType::F64) => format!("0d{bits:016X}"),
                    _ => immediate(bits),
                };
                vec![literal; n]
            }
            _ => self.regs(v).iter().map(Reg::to_string).collect(),
        }
    }

    /// The operand of a one-register value.
    pub(super) fn operand(&mut self, v: Value) -> String {
        self.operands(v).swap_remove(0)
    }

    /// `{a, b, …}`, or the register alone.
    pub(super) fn braces(regs: &[Reg]) -> String {
        match regs {
            [one] => one.to_string(),
            many => {
                let names: Vec<String> = many.iter().map(Reg::to_string).collect();
                format!("{{{}}}", names.join(", "))
            }
        }
    }

    // --- driver -------------------------------------------------------------------------------

    /// Loads the parameters.
    pub(super) fn params(&mut self) {
        for i in 0..self.kernel.params().len() {
            let Some(v) = self.kernel.param_value(i) else {
                continue;
            };
            let symbol = param_symbol(&self.kernel.params()[i].name);
            let reg = self.define1(v);
            match self.ty(v) {
                Ty::TensorMap => {
                    self.needs.need(77, 75);
                    let address = self.fresh(Class::Double);
                    self.line(format!("mov.b64 {address}, {symbol}"));
                    self.line(format!("cvta.param.u64 {reg}, {address}"));
                }
                Ty::Ptr { .. } => {
                    let generic = self.fresh(Class::Double);
                    self.line(format!("ld.param.b64 {generic}, [{symbol}]"));
                    self.line(format!("cvta.to.global.u64 {reg}, {generic}"));
                }
                _ => {
                    let class = reg.class.bits();
                    self.line(format!("ld.param.{class} {reg}, [{symbol}]"));
                }
            }
        }
    }

    /// Symbol of a shared array, unique in the module.
    pub(super) fn shared_symbol(&self, name: &str) -> String {
        format!("{}_{name}", self.kernel.name())
    }

    pub(super) fn region_stmts(&mut self, region: &'k Region) -> Emitted {
        region.stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &'k Stmt) -> Emitted {
        self.begin(stmt);
        match stmt.op {
            Op::Const { bits } => {
                let v = stmt.results[0];
                let bits = constant_bits(self.ty(v), bits.0);
                self.set(v, Image::Const(bits));
                Ok(())
            }
            Op::For | Op::While | Op::If => self.flow(stmt),
            Op::Load { .. }
            | Op::Store { .. }
            | Op::Atomic { .. }
            | Op::AtomicCas { .. }
            | Op::PtrAdd
            | Op::PtrCast
            | Op::PtrToInt
            | Op::SharedAddr { .. }
            | Op::MapRank => self.memory(stmt),
            Op::Convert { .. } => self.convert(stmt),
            op if op.is_async() => self.copy(stmt),
            op if op.is_tensor() => self.tensor(stmt),
            op if op.is_serial() => self.scalar(stmt),
            _ => self.sync(stmt),
        }
    }
}

/// An integer literal of these bits.
pub(super) fn immediate(bits: u64) -> String {
    if bits < 10 {
        bits.to_string()
    } else {
        format!("{bits:#x}")
    }
}

/// Values used once, in the region that defines them, whose registers nobody else names: loop
/// parameters and results, and accumulators returned by a wait.
fn owned(kernel: &Kernel) -> Vec<bool> {
    let mut uses = vec![0u32; kernel.num_values()];
    let mut local = vec![0u32; kernel.num_values()];
    let mut owners = vec![false; kernel.num_values()];
    survey(kernel.body(), &mut uses, &mut local, &mut owners);
    (0..kernel.num_values())
        .map(|i| owners[i] && uses[i] == 1 && local[i] == 1)
        .collect()
}

fn survey(region: &Region, uses: &mut [u32], local: &mut [u32], owners: &mut [bool]) {
    let mut here: HashSet<Value> = region.params.iter().copied().collect();
    region.params.iter().for_each(|p| owners[p.index()] = true);
    for stmt in &region.stmts {
        for arg in &stmt.args {
            uses[arg.index()] += 1;
            local[arg.index()] += u32::from(here.contains(arg));
        }
        if matches!(stmt.op, Op::WgmmaWait { .. } | Op::For) {
            stmt.results.iter().for_each(|r| owners[r.index()] = true);
        }
        here.extend(&stmt.results);
        stmt.regions
            .iter()
            .for_each(|inner| survey(inner, uses, local, owners));
    }
    for y in &region.yields {
        uses[y.index()] += 1;
    }
}
