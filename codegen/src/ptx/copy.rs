//! Asynchronous copies: `cp.async`, mbarriers, bulk and tensor copies.

use qcc_ir::kernel::{BulkWait, Multicast, Op, Space, Stmt, Ty, Value};

use super::emit::{Emitted, Emitter};
use super::regs::Class;

impl<'k> Emitter<'k> {
    pub(super) fn copy(&mut self, stmt: &'k Stmt) -> Emitted {
        match stmt.op {
            Op::CpAsync { bytes, cache } => {
                self.needs.need(70, 80);
                let (dst, src) = (self.reg(stmt.args[0]), self.reg(stmt.args[1]));
                let read = match stmt.args.get(2) {
                    Some(&n) => format!(", {}", self.operand(n)),
                    None => String::new(),
                };
                let cache = cache.name();
                self.line(format!(
                    "cp.async.{cache}.shared.global [{dst}], [{src}], {bytes}{read}"
                ));
            }
            Op::CpAsyncCommit => {
                self.needs.need(70, 80);
                self.line("cp.async.commit_group");
            }
            Op::CpAsyncWait { groups } => {
                self.needs.need(70, 80);
                self.line(format!("cp.async.wait_group {groups}"));
            }
            Op::CpAsyncMbar => {
                self.needs.need(70, 80);
                let mbar = self.reg(stmt.args[0]);
                self.line(format!(
                    "cp.async.mbarrier.arrive.noinc.shared.b64 [{mbar}]"
                ));
            }
            Op::MbarInit | Op::MbarExpectTx | Op::MbarArrive | Op::MbarTryWait | Op::MbarWait => {
                self.mbarrier(stmt);
            }
            Op::TmaPrefetch => {
                self.needs.need(80, 90);
                let map = self.reg(stmt.args[0]);
                self.line(format!("prefetch.tensormap [{map}]"));
            }
            _ => self.bulk(stmt),
        }
        Ok(())
    }

    fn mbarrier(&mut self, stmt: &'k Stmt) {
        let mbar = self.reg(stmt.args[0]);
        let second = stmt
            .args
            .get(1)
            .map(|&v| self.operand(v))
            .unwrap_or_default();
        match stmt.op {
            Op::MbarInit => {
                self.needs.need(70, 80);
                self.line(format!("mbarrier.init.shared.b64 [{mbar}], {second}"));
            }
            Op::MbarExpectTx => {
                self.needs.need(80, 90);
                self.line(format!(
                    "mbarrier.arrive.expect_tx.shared.b64 _, [{mbar}], {second}"
                ));
            }
            Op::MbarArrive
                if self.ty(stmt.args[0]).bits() == 32 && self.is_cluster(stmt.args[0]) =>
            {
                self.needs.need(80, 90);
                self.line(format!(
                    "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [{mbar}]"
                ));
            }
            Op::MbarArrive => {
                self.needs.need(70, 80);
                let state = self.fresh(Class::Double);
                self.line(format!("mbarrier.arrive.shared.b64 {state}, [{mbar}]"));
            }
            Op::MbarTryWait => {
                self.needs.need(78, 90);
                let p = self.define1(stmt.results[0]);
                self.line(format!(
                    "mbarrier.try_wait.parity.shared.b64 {p}, [{mbar}], {second}"
                ));
            }
            _ => {
                self.needs.need(78, 90);
                let (top, p) = (self.label(), self.fresh(Class::Pred));
                self.place(&top);
                self.line(format!(
                    "mbarrier.try_wait.parity.shared.b64 {p}, [{mbar}], {second}"
                ));
                self.line(format!("@!{p} bra {top}"));
            }
        }
    }

    fn is_cluster(&self, p: Value) -> bool {
        matches!(
            self.ty(p),
            Ty::Ptr {
                space: Space::Cluster,
                ..
            }
        )
    }

    fn coordinates(&mut self, values: &[Value]) -> String {
        let coords: Vec<String> = values.iter().map(|&v| self.operand(v)).collect();
        format!("{{{}}}", coords.join(", "))
    }

    /// The mask operand of a multicast is a 16-bit register.
    fn mask(&mut self, multicast: Multicast, v: Option<&Value>) -> (&'static str, String) {
        match (multicast, v) {
            (Multicast::Multicast, Some(&v)) => {
                // Legal on sm_90, but only the specific target promises its speed.
                self.needs.need_specific(80, 90);
                let word = self.reg(v);
                let half = self.fresh(Class::Half);
                self.line(format!("cvt.u16.u32 {half}, {word}"));
                (".multicast::cluster", format!(", {half}"))
            }
            _ => ("", String::new()),
        }
    }

    fn bulk(&mut self, stmt: &'k Stmt) {
        const LOAD: &str = "shared::cluster.global";
        self.needs.need(80, 90);
        let args = &stmt.args;
        match stmt.op {
            Op::BulkLoad { multicast } => {
                let (dst, src) = (self.reg(args[0]), self.reg(args[1]));
                let (bytes, mbar) = (self.operand(args[2]), self.reg(args[3]));
                let (word, mask) = self.mask(multicast, args.get(4));
                self.line(format!(
                    "cp.async.bulk.{LOAD}.mbarrier::complete_tx::bytes{word} [{dst}], [{src}], {bytes}, [{mbar}]{mask}"
                ));
            }
            Op::BulkStore => {
                let (dst, src) = (self.reg(args[0]), self.reg(args[1]));
                let bytes = self.operand(args[2]);
                self.line(format!(
                    "cp.async.bulk.global.shared::cta.bulk_group [{dst}], [{src}], {bytes}"
                ));
            }
            Op::BulkCommit => self.line("cp.async.bulk.commit_group"),
            Op::BulkWaitGroup { groups, until } => {
                let read = if until == BulkWait::Read { ".read" } else { "" };
                self.line(format!("cp.async.bulk.wait_group{read} {groups}"));
            }
            Op::TmaLoad { dims, multicast } => {
                let (dst, map, mbar) = (self.reg(args[0]), self.reg(args[1]), self.reg(args[2]));
                let coords = self.coordinates(&args[3..][..dims as usize]);
                let (word, mask) = self.mask(multicast, args.get(3 + dims as usize));
                self.line(format!(
                    "cp.async.bulk.tensor.{dims}d.{LOAD}.tile.mbarrier::complete_tx::bytes{word} [{dst}], [{map}, {coords}], [{mbar}]{mask}"
                ));
            }
            Op::TmaStore { dims } => {
                let (map, src) = (self.reg(args[0]), self.reg(args[1]));
                let coords = self.coordinates(&args[2..]);
                self.line(format!(
                    "cp.async.bulk.tensor.{dims}d.global.shared::cta.tile.bulk_group [{map}, {coords}], [{src}]"
                ));
            }
            _ => {}
        }
    }
}
