//! Indices, barriers, fences, warps, registers, dependent launch.

use qcc_ir::kernel::{Fence, GridDep, Op, ReduxOp, ShflMode, Special, Stmt, Ty};

use super::emit::{Emitted, Emitter};
use super::regs::Class;

/// All lanes of a warp.
const FULL: &str = "0xffffffff";

const fn special_name(which: Special) -> &'static str {
    match which {
        Special::TidX => "%tid.x",
        Special::TidY => "%tid.y",
        Special::TidZ => "%tid.z",
        Special::NtidX => "%ntid.x",
        Special::CtaidX => "%ctaid.x",
        Special::CtaidY => "%ctaid.y",
        Special::CtaidZ => "%ctaid.z",
        Special::NctaidX => "%nctaid.x",
        Special::NctaidY => "%nctaid.y",
        Special::NctaidZ => "%nctaid.z",
        Special::LaneId => "%laneid",
        Special::ClusterRank => "%cluster_ctarank",
        Special::ClusterSize => "%cluster_nctarank",
    }
}

/// Instruction, version, compute capability.
const fn fence_row(fence: Fence) -> (&'static str, u32, u32) {
    match fence {
        Fence::Cta => ("fence.acq_rel.cta", 63, 75),
        Fence::Cluster => ("fence.acq_rel.cluster", 78, 90),
        Fence::Gpu => ("fence.acq_rel.gpu", 63, 75),
        Fence::ProxyAsync => ("fence.proxy.async.shared::cta", 80, 90),
        Fence::MbarInit => ("fence.mbarrier_init.release.cluster", 80, 90),
    }
}

impl<'k> Emitter<'k> {
    pub(super) fn sync(&mut self, stmt: &'k Stmt) -> Emitted {
        match stmt.op {
            Op::Special { which } => {
                if matches!(which, Special::ClusterRank | Special::ClusterSize) {
                    self.needs.need(78, 90);
                }
                let reg = self.define1(stmt.results[0]);
                self.line(format!("mov.u32 {reg}, {}", special_name(which)));
            }
            Op::Barrier => self.line("bar.sync 0"),
            Op::NamedBarrier { id, threads } => self.line(format!("bar.sync {id}, {threads}")),
            Op::NamedArrive { id, threads } => self.line(format!("bar.arrive {id}, {threads}")),
            Op::WarpSync => self.line(format!("bar.warp.sync {FULL}")),
            Op::Fence { fence } => {
                let (text, version, sm) = fence_row(fence);
                self.needs.need(version, sm);
                self.line(text);
            }
            Op::ClusterBarrier { half } => {
                self.needs.need(78, 90);
                self.line(format!("barrier.cluster.{}.aligned", half.name()));
            }
            Op::Shuffle { mode } => self.shuffle(mode, stmt),
            Op::Vote { mode } => {
                let p = self.reg(stmt.args[0]);
                let to = self.define1(stmt.results[0]);
                self.line(format!("vote.sync.{}.pred {to}, {p}, {FULL}", mode.name()));
            }
            Op::Ballot => {
                let p = self.reg(stmt.args[0]);
                let to = self.define1(stmt.results[0]);
                self.line(format!("vote.sync.ballot.b32 {to}, {p}, {FULL}"));
            }
            Op::Redux { op } => self.redux(op, stmt),
            Op::Elect => {
                self.needs.need(80, 90);
                let lane = self.fresh(Class::Word);
                let p = self.define1(stmt.results[0]);
                self.line(format!("elect.sync {lane}|{p}, {FULL}"));
            }
            Op::SetMaxNReg { change, regs } => {
                self.needs.need_specific(80, 90);
                self.line(format!(
                    "setmaxnreg.{}.sync.aligned.u32 {regs}",
                    change.name()
                ));
            }
            Op::GridDep { which } => {
                self.needs.need(78, 90);
                self.line(match which {
                    GridDep::Launch => "griddepcontrol.launch_dependents",
                    GridDep::Wait => "griddepcontrol.wait",
                });
            }
            _ => return self.fail(stmt, "no row in the table"),
        }
        Ok(())
    }

    fn shuffle(&mut self, mode: ShflMode, stmt: &'k Stmt) {
        // The last operand clamps at the warp's end: lane 0 for `up`, else lane 31.
        let clamp = if mode == ShflMode::Up { "0" } else { "31" };
        let v = self.reg(stmt.args[0]);
        let lane = self.operand(stmt.args[1]);
        let to = self.define1(stmt.results[0]);
        self.line(format!(
            "shfl.sync.{}.b32 {to}, {v}, {lane}, {clamp}, {FULL}",
            mode.name()
        ));
    }

    fn redux(&mut self, op: ReduxOp, stmt: &'k Stmt) {
        self.needs.need(70, 80);
        let kind = match op {
            ReduxOp::And | ReduxOp::Or | ReduxOp::Xor => "b32",
            _ if self.ty(stmt.args[0]) == Ty::I32 => "s32",
            _ => "u32",
        };
        let v = self.reg(stmt.args[0]);
        let to = self.define1(stmt.results[0]);
        self.line(format!("redux.sync.{}.{kind} {to}, {v}, {FULL}", op.name()));
    }
}
