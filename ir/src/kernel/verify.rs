//! The verifier. Every rule has a number; the tests hold a kernel that breaks each.
//!
//! | rule | says |
//! |---|---|
//! | K01 | a value is defined once, before its uses, in an enclosing region |
//! | K02 | an operation has the operands that it takes |
//! | K03 | operands have the types that the operation takes |
//! | K04 | results have the types that the operation gives |
//! | K05 | types exist (`Ty::exists`) |
//! | K06 | regions take and yield what their statement says; loop bounds share one integer type |
//! | K07 | a serial kernel holds no spmd operation, shared array or tensor map |
//! | K08 | read-only memory is not written |
//! | K09 | a memory access is at most 16 bytes wide |
//! | K10 | atomics are on integers of 32 or 64 bits |
//! | K11 | accumulators in flight are used exactly once |
//! | K12 | accumulators are committed before a wait returns them, and the wait covers their group |
//! | K13 | accumulators handed to the tensor core are not used again |
//! | K14 | shared arrays are aligned to powers of two, at most 48 KiB static, one dynamic |
//! | K15 | blocks have 1 to 1024 threads, clusters 1 to 16 blocks |
//! | K16 | names are identifiers and unique; parameters are scalars of 32 or 64 bits, pointers to device memory, or tensor maps |
//! | K17 | immediates are in range |
//! | K18 | a constant loop step is positive |
//! | K19 | a serial kernel begins with `begin: i64, end: i64` |

mod flight;
mod frame;

use super::body::{Kernel, Kind, Region, Stmt, Value};
use super::check::check;
use super::text::stmt_line;
use super::{Op, Problem, Ty};

/// Every rule that the kernel breaks, in program order. Empty for a valid kernel.
pub fn verify(kernel: &Kernel) -> Vec<Problem> {
    let mut v = Verifier {
        kernel,
        defined: vec![false; kernel.types.len()],
        visible: vec![false; kernel.types.len()],
        constants: vec![None; kernel.types.len()],
        problems: frame::check(kernel),
    };
    for i in 0..kernel.params.len() {
        v.define(Value(i as u32), "");
    }
    if !kernel.body.yields.is_empty() || !kernel.body.params.is_empty() {
        v.problems
            .push(Problem::new("K06", "the body takes and yields nothing"));
    }
    v.region(&kernel.body);
    let mut problems = v.problems;
    if problems.is_empty() {
        problems.extend(flight::check(kernel));
    }
    problems
}

struct Verifier<'k> {
    kernel: &'k Kernel,
    defined: Vec<bool>,
    visible: Vec<bool>,
    constants: Vec<Option<u64>>,
    problems: Vec<Problem>,
}

impl<'k> Verifier<'k> {
    fn define(&mut self, v: Value, at: &str) {
        match self.defined.get_mut(v.index()) {
            Some(seen) if !*seen => {
                *seen = true;
                self.visible[v.index()] = true;
            }
            _ => self
                .problems
                .push(Problem::new("K01", format!("%{} is defined twice", v.0)).at(at)),
        }
    }

    fn uses(&mut self, values: &[Value], at: &str) -> bool {
        let hidden = values
            .iter()
            .find(|v| !self.visible.get(v.index()).copied().unwrap_or(false));
        if let Some(v) = hidden {
            let message = format!("%{} is not defined here", v.0);
            self.problems.push(Problem::new("K01", message).at(at));
        }
        hidden.is_none()
    }

    fn types(&self, values: &[Value]) -> Vec<Ty> {
        values.iter().map(|v| self.kernel.ty(*v)).collect()
    }

    fn region(&mut self, region: &'k Region) {
        let mut here = region.params.clone();
        for &p in &region.params {
            self.define(p, "");
        }
        for stmt in &region.stmts {
            self.stmt(stmt);
            here.extend(&stmt.results);
        }
        self.uses(&region.yields, "yield");
        for v in here {
            if let Some(seen) = self.visible.get_mut(v.index()) {
                *seen = false;
            }
        }
    }

    fn stmt(&mut self, stmt: &'k Stmt) {
        let at = stmt_line(self.kernel, stmt);
        let known = self.uses(&stmt.args, &at);
        if stmt.regions.len() != stmt.op.regions() {
            self.problems
                .push(Problem::new("K06", "wrong number of regions").at(&at));
            return;
        }
        if known {
            let (args, results) = (self.types(&stmt.args), self.types(&stmt.results));
            if let Err(problem) = check(&stmt.op, &args, &results) {
                self.problems.push(problem.at(&at));
            }
            self.local_rules(stmt, &at);
        }
        for region in &stmt.regions {
            self.region(region);
        }
        if known && !stmt.regions.is_empty() {
            self.control(stmt, &at);
        }
        for &v in &stmt.results {
            self.define(v, &at);
        }
    }

    fn local_rules(&mut self, stmt: &Stmt, at: &str) {
        if matches!(self.kernel.kind, Kind::Serial) && !stmt.op.is_serial() {
            self.problems
                .push(Problem::new("K07", "spmd operation in a serial kernel").at(at));
        }
        match (stmt.op, stmt.results.first()) {
            (Op::Const { bits }, Some(v)) => self.constants[v.index()] = Some(bits.0),
            (Op::SharedAddr { array }, Some(&v)) => {
                let elem = self.kernel.shared.get(array as usize).map(|a| a.elem);
                let found = match self.kernel.ty(v) {
                    Ty::Ptr { elem, .. } => Some(elem),
                    _ => None,
                };
                if elem.is_none() || elem != found {
                    let message =
                        format!("shared array {array} has no such type, or does not exist");
                    self.problems.push(Problem::new("K14", message).at(at));
                }
            }
            _ => {}
        }
    }

    fn control(&mut self, stmt: &Stmt, at: &str) {
        let results = self.types(&stmt.results);
        let args = self.types(&stmt.args);
        let params = |i: usize| self.types(&stmt.regions[i].params);
        let yields = |i: usize| self.types(&stmt.regions[i].yields);
        let ok = match stmt.op {
            Op::For => {
                let index = args.first().copied().filter(|t| t.is_index());
                let bounds =
                    index.is_some_and(|t| args.len() >= 3 && args[..3].iter().all(|a| *a == t));
                let inner: Vec<Ty> = index.into_iter().chain(results.iter().copied()).collect();
                bounds && args[3..] == results && params(0) == inner && yields(0) == results
            }
            Op::While => {
                let tested: Vec<Ty> = [Ty::BOOL]
                    .into_iter()
                    .chain(results.iter().copied())
                    .collect();
                args == results
                    && params(0) == results
                    && params(1) == results
                    && yields(0) == tested
                    && yields(1) == results
            }
            _ => args == [Ty::BOOL] && (0..2).all(|i| params(i).is_empty() && yields(i) == results),
        };
        if !ok {
            let message = "regions do not take and yield what the statement carries";
            self.problems.push(Problem::new("K06", message).at(at));
        } else if stmt.op == Op::For {
            self.step(stmt, at);
        }
    }

    fn step(&mut self, stmt: &Stmt, at: &str) {
        let step = stmt.args[2];
        let Some(bits) = self.constants[step.index()] else {
            return;
        };
        let signed = match self.kernel.ty(step) {
            Ty::I32 => i64::from(bits as i32),
            Ty::I64 => bits as i64,
            _ => i64::try_from(bits).unwrap_or(i64::MAX),
        };
        if signed <= 0 {
            self.problems
                .push(Problem::new("K18", format!("step {signed}")).at(at));
        }
    }
}
