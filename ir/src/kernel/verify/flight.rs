//! Linearity of accumulators in flight (rules K11 to K13).
//!
//! A pending value is used once, in the region that defines it, so its registers have one owner
//! at every moment. Groups are counted along each region: a wait that leaves `g` groups under way
//! covers a pending whose group has at least `g` younger ones. Groups closed inside nested regions
//! and in earlier iterations only make a group older, so leaving them out is safe.

use std::collections::HashMap;

use super::super::body::{Kernel, Region, Stmt, Value};
use super::super::text::stmt_line;
use super::super::{Op, Problem, Ty};

pub(super) fn check(kernel: &Kernel) -> Vec<Problem> {
    let mut flight = Flight {
        kernel,
        uses: count_uses(kernel),
        problems: Vec::new(),
    };
    flight.region(&kernel.body);
    flight.problems
}

fn count_uses(kernel: &Kernel) -> Vec<u32> {
    fn region(r: &Region, uses: &mut [u32]) {
        let args = r.stmts.iter().flat_map(|s| &s.args);
        for v in args.chain(&r.yields) {
            uses[v.index()] += 1;
        }
        for stmt in &r.stmts {
            stmt.regions.iter().for_each(|inner| region(inner, uses));
        }
    }
    let mut uses = vec![0; kernel.num_values()];
    region(&kernel.body, &mut uses);
    uses
}

/// Number of the commit that closed a pending's group; `None` while it is open.
type Closed = Option<u32>;

struct Flight<'k> {
    kernel: &'k Kernel,
    uses: Vec<u32>,
    problems: Vec<Problem>,
}

impl<'k> Flight<'k> {
    fn pending(&self, values: &[Value]) -> Vec<Value> {
        let flying = |v: &Value| matches!(self.kernel.ty(*v), Ty::Pending { .. });
        values.iter().copied().filter(flying).collect()
    }

    fn say(&mut self, code: &'static str, message: impl Into<String>, at: &Stmt) {
        self.problems
            .push(Problem::new(code, message).at(stmt_line(self.kernel, at)));
    }

    fn region(&mut self, region: &'k Region) {
        let mut open: HashMap<Value, Closed> = HashMap::new();
        let mut commits = 0u32;
        for p in self.pending(&region.params) {
            self.once(p, None);
            open.insert(p, Some(commits));
        }
        for stmt in &region.stmts {
            self.stmt(stmt, &mut open, &mut commits);
            stmt.regions.iter().for_each(|inner| self.region(inner));
        }
        for v in self.pending(&region.yields) {
            if !matches!(open.remove(&v), Some(Some(_))) {
                let message = format!("%{} leaves the region before its commit", v.index());
                self.problems.push(Problem::new("K12", message));
            }
        }
    }

    fn once(&mut self, v: Value, at: Option<&Stmt>) {
        let n = self.uses[v.index()];
        if n != 1 {
            let problem = Problem::new("K11", format!("%{} is used {n} times", v.index()));
            self.problems.push(match at {
                Some(stmt) => problem.at(stmt_line(self.kernel, stmt)),
                None => problem,
            });
        }
    }

    fn stmt(&mut self, stmt: &'k Stmt, open: &mut HashMap<Value, Closed>, commits: &mut u32) {
        for arg in self.pending(&stmt.args) {
            let Some(closed) = open.remove(&arg) else {
                self.say(
                    "K11",
                    format!("%{} comes from another region", arg.index()),
                    stmt,
                );
                continue;
            };
            match (stmt.op, closed) {
                (Op::WgmmaWait { groups }, Some(c)) if *commits - c < groups => {
                    let message =
                        format!("the wait leaves the group of %{} under way", arg.index());
                    self.say("K12", message, stmt);
                }
                (Op::WgmmaWait { .. } | Op::For | Op::While, None) => {
                    self.say("K12", format!("%{} was not committed", arg.index()), stmt);
                }
                _ => {}
            }
        }
        match stmt.op {
            Op::WgmmaCommit => *commits += 1,
            Op::WgmmaBegin => self.handed_over(stmt),
            _ => {}
        }
        let closed = !matches!(stmt.op, Op::WgmmaBegin | Op::Wgmma { .. });
        for r in self.pending(&stmt.results) {
            self.once(r, Some(stmt));
            open.insert(r, closed.then_some(*commits));
        }
    }

    fn handed_over(&mut self, stmt: &Stmt) {
        for &acc in &stmt.args {
            if self.uses[acc.index()] != 1 && !self.is_constant(acc) {
                let message = format!("%{} is handed over and used elsewhere", acc.index());
                self.say("K13", message, stmt);
            }
        }
    }

    fn is_constant(&self, v: Value) -> bool {
        let mut found = false;
        self.kernel.visit(&mut |s| {
            found |= s.results.first() == Some(&v) && matches!(s.op, Op::Const { .. });
        });
        found
    }
}
