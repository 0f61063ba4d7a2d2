//! Rebuilds a kernel statement by statement, replacing some.

use super::body::{Kernel, Region, Stmt, Value};
use super::{KernelBuilder, Problem, Ty};

/// Builds the replacement of a statement from its operands in the new kernel; `None` keeps it.
/// The replacement gives as many values, of the same types, as the statement had results.
pub type Replace<'k, 'r> =
    dyn FnMut(&mut KernelBuilder, &'k Stmt, &[Value]) -> Option<Vec<Value>> + 'r;

/// The kernel with every statement for which `replace` gives something replaced by that. Control
/// flow is kept; statements inside it are offered one by one, in program order.
///
/// # Errors
/// The first rule that the new kernel breaks.
pub fn rewrite<'k>(kernel: &'k Kernel, replace: &mut Replace<'k, '_>) -> Result<Kernel, Problem> {
    let mut rewriter = Rewriter {
        old: kernel,
        new: vec![None; kernel.num_values()],
        replace,
    };
    let mut k = KernelBuilder::like(kernel);
    for i in 0..kernel.params().len() {
        rewriter.new[i] = Some(Value(i as u32));
    }
    rewriter.stmts(&mut k, kernel.body());
    k.finish()
}

struct Rewriter<'k, 'f, 'r> {
    old: &'k Kernel,
    new: Vec<Option<Value>>,
    replace: &'f mut Replace<'k, 'r>,
}

impl<'k> Rewriter<'k, '_, '_> {
    fn map(&self, values: &[Value]) -> Vec<Value> {
        // A verified kernel defines every value before its uses.
        values
            .iter()
            .map(|v| self.new[v.index()].unwrap_or(*v))
            .collect()
    }

    fn types(&self, values: &[Value]) -> Vec<Ty> {
        values.iter().map(|&v| self.old.ty(v)).collect()
    }

    fn stmts(&mut self, k: &mut KernelBuilder, region: &'k Region) {
        for stmt in &region.stmts {
            let args = self.map(&stmt.args);
            let types = self.types(&stmt.results);
            let results = if stmt.regions.is_empty() {
                match (self.replace)(k, stmt, &args) {
                    Some(values) => values,
                    None => k.op(stmt.op, &args, &types),
                }
            } else {
                let regions = stmt.regions.iter().map(|r| self.region(k, r)).collect();
                k.nest(stmt.op, args, regions, &types)
            };
            let found: Vec<Ty> = results.iter().map(|&v| k.ty(v)).collect();
            if found != types {
                let message = format!("the replacement of `{}` has other types", stmt.op.name());
                k.fail(Problem::new("K04", message));
            }
            for (old, new) in stmt.results.iter().zip(results) {
                self.new[old.index()] = Some(new);
            }
        }
    }

    fn region(&mut self, k: &mut KernelBuilder, old: &'k Region) -> Region {
        let types = self.types(&old.params);
        k.region(&types, |k, params| {
            for (old, &new) in old.params.iter().zip(params) {
                self.new[old.index()] = Some(new);
            }
            self.stmts(k, old);
            self.map(&old.yields)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Op, parse_kernel};
    use super::*;

    const TEXT: &str = "\
kernel spmd @k(%n: u32, %out: ptr<u32,global>) block(32,1,1) {
  shared @s: u32[4] align 16
  %2: u32 = const 1
  %3: u32 = for %2, %n, %2, %n {
    |%4: u32, %5: u32|
    %6: u32 = imul %5, %4
    yield %6
  }
  st %out, %3
}
";

    #[test]
    fn nothing_replaced_is_the_same_kernel() {
        let text = TEXT.replace("{\n    |", "{ |");
        let kernel = parse_kernel(&text).expect("parses");
        assert_eq!(rewrite(&kernel, &mut |_, _, _| None), Ok(kernel));
    }

    #[test]
    fn statements_inside_loops_are_replaced() {
        let kernel = parse_kernel(TEXT).expect("parses");
        let twice = rewrite(&kernel, &mut |k, stmt, args| {
            (stmt.op == Op::IMul).then(|| vec![k.add(args[0], args[1])])
        });
        assert_eq!(
            twice.map(|k| k.to_string()),
            Ok(kernel.to_string().replace("imul", "iadd"))
        );
    }

    #[test]
    fn a_replacement_of_another_type_is_refused() {
        let kernel = parse_kernel(TEXT).expect("parses");
        let wrong = rewrite(&kernel, &mut |k, stmt, _| {
            (stmt.op == Op::IMul).then(|| vec![k.f32(1.0)])
        });
        assert!(wrong.is_err());
    }
}
