//! Lane functions: what each arithmetic instruction does to one value, chosen once when decoding.

pub(crate) mod cvt;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod int;

use crate::isa::Lanes;

/// Applies `f` to the four sources on the lanes of `mask`.
#[inline(always)]
pub(crate) fn each(
    d: &mut Lanes,
    s: [&Lanes; 4],
    mask: u32,
    f: impl Fn(u64, u64, u64, u64) -> u64,
) {
    let [a, b, c, e] = s;
    if mask == u32::MAX {
        for l in 0..32 {
            d[l] = f(a[l], b[l], c[l], e[l]);
        }
    } else {
        for l in 0..32 {
            if mask >> l & 1 == 1 {
                d[l] = f(a[l], b[l], c[l], e[l]);
            }
        }
    }
}

/// A [`crate::isa::LaneFn`] from an expression over up to four sources.
macro_rules! lane {
    (|$a:pat_param| $body:expr) => {
        lane!(|$a, _, _, _| $body)
    };
    (|$a:pat_param, $b:pat_param| $body:expr) => {
        lane!(|$a, $b, _, _| $body)
    };
    (|$a:pat_param, $b:pat_param, $c:pat_param| $body:expr) => {
        lane!(|$a, $b, $c, _| $body)
    };
    (|$a:pat_param, $b:pat_param, $c:pat_param, $e:pat_param| $body:expr) => {
        (|d: &mut $crate::isa::Lanes, s: [&$crate::isa::Lanes; 4], m: u32| {
            $crate::alu::each(d, s, m, |$a: u64, $b: u64, $c: u64, $e: u64| $body)
        }) as $crate::isa::LaneFn
    };
}
pub(crate) use lane;

/// A [`crate::isa::CmpFn`] from a predicate over two sources.
macro_rules! compare {
    (|$a:ident, $b:ident| $body:expr) => {
        (|x: &$crate::isa::Lanes, y: &$crate::isa::Lanes, m: u32| {
            let mut out = 0u32;
            for l in 0..32 {
                let ($a, $b) = (x[l], y[l]);
                out |= u32::from($body) << l;
            }
            out & m
        }) as $crate::isa::CmpFn
    };
}
pub(crate) use compare;
