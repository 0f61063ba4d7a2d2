//! Numbers: small float formats, rounding in every direction, and the approximate functions.

pub(crate) mod approx;
pub(crate) mod arith;
pub(crate) mod format;
