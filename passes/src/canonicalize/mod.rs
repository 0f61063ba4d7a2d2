//! One normal form for each computation, so that later passes meet one spelling of it.
//!
//! The rules are directional and applied until none fits. *Exact* ones keep every bit, *real*
//! ones are equal in real arithmetic. A rule declines where its conditions (in the comments of
//! its function) do not hold.
//!
//! | rule | from | to | |
//! |---|---|---|---|
//! | `cast-identity`, `cast-of-cast` | `cast cast x` through a wider format | `cast x` | exact |
//! | `unary-twice` | `neg neg x`, `relu relu x`, … | `x`, `relu x` | exact |
//! | `constant-right` | `c + x` | `x + c` | exact |
//! | `neutral` | `x + 0`, `x − 0`, `x · 1`, `x / 1`, `x¹` | `x` | real (−0 + 0) |
//! | `double-negation` | `x − neg y`, `x + neg y` | `x + y`, `x − y` | exact |
//! | `select` | `c ? a : a`, `(not c) ? a : b` | `a`, `c ? b : a` | exact |
//! | `implicit-broadcast` | `a + expand b` | `a + b` where the shape is the same | exact |
//! | `reshape`, `transpose`, `expand`, `slice` | the identity; one after another; of a splat | `x`; one; a splat | exact |
//! | `constant-layout` | reshape, transpose or cast of a constant | a derived constant | exact |
//! | `concat` | of one; of a concat along the same axis | `x`; one | exact |
//! | `pad` | by nothing; zeros in front of `conv` | `x`; the window's padding | exact |
//! | `matmul-weight` | `matmul x, W[k, n]` | `linear x, Wᵀ` | exact |
//! | `linear-bias` | `linear + b[n]` | `linear` with bias | real |
//! | `conv-bias`, `conv-scale` | `conv ± c[n, 1, 1]`, `conv · c`, `conv / c` | bias, scaled weights | real |
//! | `reshape-below` | `linear (reshape x)` of whole rows | `reshape (linear x)` | exact |

mod arith;
mod contract;
mod layout;
#[cfg(test)]
mod tests;

use crate::pass::{Pass, PassContext};
use crate::rewrite::{Replacement, Rewriter, rewrite};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Module, Op};

/// The pass.
pub(crate) struct Canonicalize;

type RuleFn = fn(&mut Rewriter<'_>, &Op) -> Replacement;

/// The rules in the order in which they are tried on an op.
const RULES: &[(&str, RuleFn)] = &[
    ("cast-identity", arith::cast_identity),
    ("cast-of-cast", arith::cast_of_cast),
    ("unary-twice", arith::unary_twice),
    ("constant-right", arith::constant_right),
    ("neutral", arith::neutral),
    ("double-negation", arith::double_negation),
    ("select", arith::select),
    ("implicit-broadcast", layout::implicit_broadcast),
    ("reshape", layout::reshape),
    ("transpose", layout::transpose),
    ("expand", layout::expand),
    ("slice", layout::slice),
    ("constant-layout", layout::constant_layout),
    ("concat", layout::concat),
    ("pad", layout::pad),
    ("matmul-weight", contract::matmul_weight),
    ("linear-bias", contract::linear_bias),
    ("conv-bias", contract::conv_bias),
    ("conv-scale", contract::conv_scale),
    ("reshape-below", contract::reshape_below),
];

/// Chains in exported models are short; this only guards against rules that undo each other.
const MAX_SWEEPS: usize = 64;

impl Pass for Canonicalize {
    fn name(&self) -> &'static str {
        "canonicalize"
    }

    fn summary(&self) -> &'static str {
        "brings every computation into one normal form"
    }

    fn run(&self, module: &Module, _: &mut PassContext<'_>) -> Result<Module> {
        let mut module = module.clone();
        for _ in 0..MAX_SWEEPS {
            let swept = rewrite(&module, &mut first_that_fits)?;
            module = swept.module;
            if swept.replaced == 0 {
                break;
            }
        }
        Ok(module)
    }
}

fn first_that_fits(rw: &mut Rewriter<'_>, op: &Op) -> Replacement {
    for (_, rule) in RULES {
        if let Some(results) = rule(rw, op)? {
            return Ok(Some(results));
        }
    }
    Ok(None)
}
