//! Approximate functions: the exact value moved to an end of the documented error.
//!
//! The ISA gives each `.approx` function a largest error. A kernel that passes with the lowest, the
//! nearest and the highest value of that interval does not depend on which one a chip produces.
//! Values that the ISA states exactly (zeros, infinities, NaN) are never moved.

use super::arith::{canon, flush};

/// Which end of the error interval approximate functions return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approx {
    /// The correctly rounded value.
    #[default]
    Nearest,
    /// The value at the lower end of the error.
    Low,
    /// The value at the higher end of the error.
    High,
}

/// Approximate functions of one or two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Func {
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
    Div,
    DivFull,
}

fn end(mode: Approx) -> f64 {
    match mode {
        Approx::Nearest => 0.0,
        Approx::Low => -1.0,
        Approx::High => 1.0,
    }
}

/// The function in f64, before error.
fn exact(f: Func, a: f64, b: f64) -> f64 {
    match f {
        Func::Rcp => 1.0 / a,
        Func::Sqrt => a.sqrt(),
        Func::Rsqrt => 1.0 / a.sqrt(),
        Func::Ex2 => a.exp2(),
        Func::Lg2 => a.log2(),
        Func::Sin => a.sin(),
        Func::Cos => a.cos(),
        Func::Tanh => a.tanh(),
        Func::Div | Func::DivFull => a / b,
    }
}

/// Relative and absolute error at argument `a` (PTX ISA §9.7.3, one row per function).
fn error(f: Func, a: f64) -> (f64, f64) {
    let bits = |n: f64| (-n).exp2();
    match f {
        Func::Rcp => (bits(23.0), 0.0),
        Func::Sqrt => (bits(23.0), 0.0),
        Func::Rsqrt => (bits(22.9), 0.0),
        Func::Ex2 => (bits(22.5), 0.0),
        Func::Lg2 if a > 0.5 && a < 2.0 => (0.0, bits(22.0)),
        Func::Lg2 => (bits(22.0), 0.0),
        Func::Sin | Func::Cos if a.abs() <= std::f64::consts::TAU => (0.0, bits(20.5)),
        Func::Sin | Func::Cos => (0.0, bits(14.7)),
        Func::Tanh => (bits(11.0), 0.0),
        Func::Div | Func::DivFull => (bits(22.0), 0.0),
    }
}

/// One f32 function at an end of its error; `ftz` flushes inputs and result.
pub(crate) fn f32_func(f: Func, a: f32, b: f32, ftz: bool, mode: Approx) -> f32 {
    let (a, b) = if ftz { (flush(a), flush(b)) } else { (a, b) };
    // For |b| in (2^126, 2^128) the approximate quotients are defined to give zero (or NaN for infinite a).
    if f == Func::Div && b.abs() > 2f32.powi(126) && b.is_finite() {
        let zero = if a.is_sign_negative() == b.is_sign_negative() {
            0.0
        } else {
            -0.0
        };
        return if a.is_infinite() {
            canon(f32::NAN)
        } else {
            zero
        };
    }
    let x = exact(f, f64::from(a), f64::from(b));
    let y = if x == 0.0
        || !x.is_finite()
        || (f == Func::Ex2 && a == 0.0)
        || (f == Func::Lg2 && a == 1.0)
    {
        x
    } else {
        let (rel, abs) = error(f, f64::from(a));
        x + end(mode) * (x.abs() * rel + abs)
    };
    let y = if f == Func::Tanh {
        y.clamp(-1.0, 1.0)
    } else {
        y
    };
    let y = canon(y as f32);
    if ftz { flush(y) } else { y }
}

/// Half-precision `tanh` and `ex2`: f16 errors 2^-10.987 absolute and 2^-9.9 relative, bf16 2^-8 and 2^-7.
pub(crate) fn half_func(f: Func, a: f64, bf16: bool, mode: Approx) -> f64 {
    let x = exact(f, a, 0.0);
    if x == 0.0 || !x.is_finite() || a == 0.0 {
        return x;
    }
    let (rel, abs) = match (f, bf16) {
        (Func::Tanh, false) => (0.0, (-10.987f64).exp2()),
        (Func::Tanh, true) => (0.0, (-8f64).exp2()),
        (_, false) => ((-9.9f64).exp2(), 0.0),
        (_, true) => ((-7f64).exp2(), 0.0),
    };
    let y = x + end(mode) * (x.abs() * rel + abs);
    if f == Func::Tanh {
        y.clamp(-1.0, 1.0)
    } else {
        y
    }
}
