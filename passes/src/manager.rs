//! Runs passes in order, verifies between them and tells an observer.

use crate::pass::{Pass, PassContext};
use qcc_ir::Diagnostic;
use qcc_ir::diag::{Class, Result};
use qcc_ir::graph::{Module, verify};
use std::time::{Duration, Instant};

/// Watches a pipeline: progress, dumps of every phase, cancellation.
pub trait Observer {
    /// Called before the pass at position `index`.
    ///
    /// # Errors
    /// An error ends the run and is its result: this is how a caller cancels.
    fn before(&mut self, index: usize, pass: &dyn Pass, module: &Module) -> Result<()> {
        let _ = (index, pass, module);
        Ok(())
    }

    /// Called with the verified result of the pass at position `index`.
    ///
    /// # Errors
    /// As [`Observer::before`].
    fn after(&mut self, index: usize, run: &PassRun, module: &Module) -> Result<()> {
        let _ = (index, run, module);
        Ok(())
    }
}

/// What one pass took and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassRun {
    /// The pass.
    pub name: &'static str,
    /// Wall time, verification included. For reports only: no result depends on it.
    pub time: Duration,
    /// Ops of all functions before.
    pub ops_before: usize,
    /// Ops of all functions after.
    pub ops_after: usize,
}

/// A module and how it came about.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result of the last pass.
    pub module: Module,
    /// One entry per pass.
    pub runs: Vec<PassRun>,
}

/// A list of passes.
pub struct Manager<'o> {
    passes: Vec<Box<dyn Pass>>,
    observer: Option<&'o mut dyn Observer>,
}

impl<'o> Manager<'o> {
    /// A manager of these passes.
    pub fn new(passes: Vec<Box<dyn Pass>>) -> Self {
        Manager {
            passes,
            observer: None,
        }
    }

    /// Sets who watches.
    #[must_use]
    pub fn observe(mut self, observer: &'o mut dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Runs the passes in order.
    ///
    /// # Errors
    /// The first violation if `module` is not valid; what a pass or the observer reports; `Q0910`
    /// when a pass makes an invalid module, which is a defect of that pass.
    pub fn run(&mut self, module: Module, ctx: &mut PassContext<'_>) -> Result<Outcome> {
        if let Some(first) = verify(&module).into_iter().next() {
            return Err(first);
        }
        let mut out = Outcome {
            module,
            runs: Vec::with_capacity(self.passes.len()),
        };
        for (i, pass) in self.passes.iter().enumerate() {
            if let Some(o) = self.observer.as_deref_mut() {
                o.before(i, pass.as_ref(), &out.module)?;
            }
            let start = Instant::now();
            let next = pass.run(&out.module, ctx)?;
            check(pass.as_ref(), &next)?;
            let run = PassRun {
                name: pass.name(),
                time: start.elapsed(),
                ops_before: count_ops(&out.module),
                ops_after: count_ops(&next),
            };
            if let Some(o) = self.observer.as_deref_mut() {
                o.after(i, &run, &next)?;
            }
            out.module = next;
            out.runs.push(run);
        }
        Ok(out)
    }
}

fn count_ops(m: &Module) -> usize {
    m.funcs.iter().map(|f| f.ops.len()).sum()
}

fn check(pass: &dyn Pass, module: &Module) -> Result<()> {
    let violations = verify(module);
    let Some(first) = violations.first() else {
        return Ok(());
    };
    let more = match violations.len() {
        1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let error = Diagnostic::error(
        910,
        Class::Internal,
        format!(
            "pass `{}` made an invalid module: {}{more}",
            pass.name(),
            first.message()
        ),
    )
    .hint("this is a defect of qcc: please report it with the model and the options");
    Err(match first.place() {
        Some(p) => error.at(p),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, registry};
    use qcc_ir::DType;
    use qcc_ir::expr::UnaryFn;
    use qcc_ir::graph::{Builder, OpKind, TensorType};

    fn module() -> Module {
        let mut b = Builder::new("main");
        let x = b.param("x", TensorType::fixed(DType::F32, &[2]));
        let y = b.unary(UnaryFn::Neg, x).unwrap();
        b.finish_module([("y", y)])
    }

    /// Gives a result of the wrong shape.
    struct Broken;

    impl Pass for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }
        fn summary(&self) -> &'static str {
            "breaks"
        }
        fn run(&self, _: &Module, _: &mut PassContext<'_>) -> Result<Module> {
            let mut b = Builder::new("main");
            let x = b.param("x", TensorType::fixed(DType::F32, &[2]));
            let wrong = TensorType::fixed(DType::F32, &[3]);
            let y = b.op(OpKind::Unary(UnaryFn::Neg), &[x], wrong);
            Ok(b.finish_module([("y", y)]))
        }
    }

    #[derive(Default)]
    struct Log(Vec<String>);

    impl Observer for Log {
        fn before(&mut self, index: usize, pass: &dyn Pass, _: &Module) -> Result<()> {
            self.0.push(format!("{index} {}", pass.name()));
            match index {
                1 => Err(Diagnostic::error(1, Class::Usage, "cancelled")),
                _ => Ok(()),
            }
        }
        fn after(&mut self, _: usize, run: &PassRun, _: &Module) -> Result<()> {
            self.0
                .push(format!("{} to {}", run.ops_before, run.ops_after));
            Ok(())
        }
    }

    #[test]
    fn an_invalid_result_names_the_pass() {
        let options = Options::default();
        let mut ctx = PassContext::new(&options);
        let error = Manager::new(vec![Box::new(Broken)])
            .run(module(), &mut ctx)
            .unwrap_err();
        assert_eq!(error.code(), "Q0910");
        assert_eq!(error.class(), Class::Internal);
        assert!(error.message().contains("pass `broken`"), "{error}");
    }

    #[test]
    fn an_invalid_input_is_refused_before_any_pass() {
        let options = Options::default();
        let mut ctx = PassContext::new(&options);
        let mut m = module();
        m.funcs[0].ops[0].operands.clear();
        let error = Manager::new(Vec::new()).run(m, &mut ctx).unwrap_err();
        assert!(error.code().starts_with("Q02"), "{error}");
    }

    #[test]
    fn the_observer_sees_each_pass_and_can_cancel() {
        let options = Options::default();
        let mut ctx = PassContext::new(&options);
        let mut log = Log::default();
        let error = Manager::new(registry::parse_list("dce,cse").unwrap())
            .observe(&mut log)
            .run(module(), &mut ctx)
            .unwrap_err();
        assert_eq!(error.message(), "cancelled");
        assert_eq!(log.0, ["0 dce", "1 to 1", "1 cse"]);
    }
}
