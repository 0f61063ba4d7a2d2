//! Tensor cores: `ldmatrix`, `stmatrix`, `mma`, `wgmma`.
//!
//! Accumulators of wgmma keep their registers from `wgmma_begin` to `wgmma_wait`: ptxas
//! serializes the pipeline when anything touches them in between.

use qcc_ir::DType;
use qcc_ir::kernel::{MmaShape, Op, Stmt, Trans, Ty, Value, WgmmaA, WgmmaMajor, mma};

use super::emit::{Emitted, Emitter, Image};
use super::regs::{Class, Reg};

/// PTX name of an operand format.
fn operand_name(d: DType) -> &'static str {
    match d {
        DType::I8 => "s8",
        DType::U8 => "u8",
        DType::I32 => "s32",
        other => other.name(),
    }
}

fn is_fp8(d: DType) -> bool {
    matches!(d, DType::E4M3 | DType::E5M2)
}

impl<'k> Emitter<'k> {
    pub(super) fn tensor(&mut self, stmt: &'k Stmt) -> Emitted {
        match stmt.op {
            Op::LdMatrix { tiles, trans } => {
                let p = self.reg(stmt.args[0]);
                let regs: Vec<Reg> = stmt.results.iter().map(|&r| self.define1(r)).collect();
                let (x, t) = (tiles, trans_word(trans));
                let to = Self::vector(&regs);
                self.line(format!(
                    "ldmatrix.sync.aligned.m8n8.x{x}{t}.shared.b16 {to}, [{p}]"
                ));
                Ok(())
            }
            Op::StMatrix { tiles, trans } => {
                self.needs.need(78, 90);
                let p = self.reg(stmt.args[0]);
                let regs = self.first_regs(&stmt.args[1..]);
                let (x, t) = (tiles, trans_word(trans));
                let from = Self::vector(&regs);
                self.line(format!(
                    "stmatrix.sync.aligned.m8n8.x{x}{t}.shared.b16 [{p}], {from}"
                ));
                Ok(())
            }
            Op::Mma { shape, a, b, acc } => self.mma(stmt, shape, a, b, acc),
            Op::WgmmaBegin => {
                self.wgmma_begin(stmt);
                Ok(())
            }
            Op::Wgmma {
                n,
                a,
                b,
                from,
                major,
            } => {
                self.wgmma(stmt, n, (a, b), from, major);
                Ok(())
            }
            Op::WgmmaCommit => {
                for (&arg, &result) in stmt.args.iter().zip(&stmt.results) {
                    self.settle_fresh(arg);
                    let image = self.image(arg);
                    self.set(result, image);
                }
                self.line("wgmma.commit_group.sync.aligned");
                Ok(())
            }
            Op::WgmmaWait { groups } => {
                self.wgmma_wait(stmt, groups);
                Ok(())
            }
            _ => self.fail(stmt, "no row in the table"),
        }
    }

    fn vector(regs: &[Reg]) -> String {
        let names: Vec<String> = regs.iter().map(Reg::to_string).collect();
        format!("{{{}}}", names.join(", "))
    }

    fn first_regs(&mut self, values: &[Value]) -> Vec<Reg> {
        values.iter().map(|&v| self.reg(v)).collect()
    }

    fn mma(&mut self, stmt: &'k Stmt, shape: MmaShape, a: DType, b: DType, acc: DType) -> Emitted {
        let Some(f) = mma::fragments(shape, a, b, acc) else {
            return self.fail(stmt, "no such shape");
        };
        let (version, sm) = match (shape, a) {
            (_, a) if is_fp8(a) => (84, 89),
            (MmaShape::M16n8k8, DType::F16) => (65, 75),
            _ => (70, 80),
        };
        self.needs.need(version, sm);
        let (wa, rest) = stmt.args.split_at(f.a);
        let (wb, wc) = rest.split_at(f.b);
        let (ra, rb, rc) = (
            self.first_regs(wa),
            self.first_regs(wb),
            self.first_regs(wc),
        );
        let rd: Vec<Reg> = stmt.results.iter().map(|&r| self.define1(r)).collect();
        let kind = [acc, a, b, acc].map(operand_name).join(".");
        // Sums of products of 8-bit integers wrap unless asked to saturate; the contract is exact.
        self.line(format!(
            "mma.sync.aligned.{}.row.col.{kind} {}, {}, {}, {}",
            shape.name(),
            Self::vector(&rd),
            Self::vector(&ra),
            Self::vector(&rb),
            Self::vector(&rc),
        ));
        Ok(())
    }

    /// Accumulators change owner: in place where they own their registers, else by a copy.
    fn wgmma_begin(&mut self, stmt: &'k Stmt) {
        self.needs.need_specific(80, 90);
        let pending = stmt.results[0];
        if stmt.args.is_empty() {
            self.define(pending);
            self.fresh.insert(pending);
        } else {
            let mut regs = Vec::with_capacity(stmt.args.len());
            for &acc in &stmt.args {
                let image = self.image(acc);
                match image {
                    Image::Regs(owned) if self.owned[acc.index()] => regs.push(owned[0]),
                    _ => {
                        let from = self.reg(acc);
                        let copy = self.fresh(Class::Word);
                        self.line(format!("mov.b32 {copy}, {from}"));
                        regs.push(copy);
                    }
                }
            }
            self.set(pending, Image::Regs(regs));
        }
        self.line("wgmma.fence.sync.aligned");
    }

    fn wgmma(
        &mut self,
        stmt: &'k Stmt,
        n: u32,
        (a, b): (DType, DType),
        from: WgmmaA,
        major: WgmmaMajor,
    ) {
        let mixed = a != b && !is_fp8(a);
        self.needs.need_specific(if mixed { 84 } else { 80 }, 90);
        let Ty::Pending { dtype, .. } = self.ty(stmt.args[0]) else {
            return;
        };
        let first = self.fresh.remove(&stmt.args[0]);
        let regs = self.regs(stmt.args[0]);
        let operand_a = match from {
            WgmmaA::Desc => self.reg(stmt.args[1]).to_string(),
            WgmmaA::Regs => {
                let words = self.first_regs(&stmt.args[1..5]);
                self.line("wgmma.fence.sync.aligned");
                Self::vector(&words)
            }
        };
        let operand_b = self.reg(stmt.args[stmt.args.len() - 1]);
        let scale = self.fresh(Class::Pred);
        self.move_bits(scale, u64::from(!first));
        let depth = mma::wgmma_depth(a);
        let kind = [dtype, a, b].map(operand_name).join(".");
        let tail = match (dtype, from) {
            (DType::I32, _) => String::new(),
            _ if is_fp8(a) => ", 1, 1".to_string(),
            (_, WgmmaA::Desc) => format!(", 1, 1, {}, {}", major.a(), major.b()),
            (_, WgmmaA::Regs) => format!(", 1, 1, {}", major.b()),
        };
        self.line(format!(
            "wgmma.mma_async.sync.aligned.m64n{n}k{depth}.{kind} {}, {operand_a}, {operand_b}, {scale}{tail}",
            Self::vector(&regs),
        ));
        self.set(stmt.results[0], Image::Regs(regs));
    }

    fn wgmma_wait(&mut self, stmt: &'k Stmt, groups: u32) {
        self.needs.need_specific(80, 90);
        let mut regs = Vec::new();
        for &arg in &stmt.args {
            self.settle_fresh(arg);
            regs.extend(self.regs(arg));
        }
        self.line(format!("wgmma.wait_group.sync.aligned {groups}"));
        for (&result, reg) in stmt.results.iter().zip(regs) {
            self.set(result, Image::Regs(vec![reg]));
        }
    }
}

const fn trans_word(trans: Trans) -> &'static str {
    match trans {
        Trans::No => "",
        Trans::Trans => ".trans",
    }
}
