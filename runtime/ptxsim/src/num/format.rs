//! Binary float formats up to 32 bits: exact decoding to f64 and correctly rounded encoding.
//!
//! A finite value is n · 2^q with an integer n of at most `man`+1 bits; encoding rounds |x| / 2^q to an
//! integer in the chosen direction, so one routine serves every format and every rounding mode.

/// Rounding direction (PTX ISA §9.7.3 and `.rna`, `.rs` is not built).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rnd {
    /// To nearest, ties to even.
    Near,
    /// To nearest, ties away from zero.
    Away,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
}

/// What a format does above its largest finite value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Top {
    /// Has infinities and NaNs, as IEEE 754.
    Ieee,
    /// All codes finite but one NaN (`e4m3fn`).
    OneNan,
    /// All codes finite (`e2m1`, `e2m3`, `e3m2`).
    Finite,
}

/// A binary format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) exp: u32,
    pub(crate) man: u32,
    pub(crate) top: Top,
}

const fn ieee(exp: u32, man: u32) -> Format {
    Format {
        exp,
        man,
        top: Top::Ieee,
    }
}

pub(crate) const F32: Format = ieee(8, 23);
pub(crate) const F16: Format = ieee(5, 10);
pub(crate) const BF16: Format = ieee(8, 7);
pub(crate) const TF32: Format = ieee(8, 10);
pub(crate) const E5M2: Format = ieee(5, 2);
pub(crate) const E4M3: Format = Format {
    exp: 4,
    man: 3,
    top: Top::OneNan,
};
pub(crate) const E2M1: Format = Format {
    exp: 2,
    man: 1,
    top: Top::Finite,
};
pub(crate) const E2M3: Format = Format {
    exp: 2,
    man: 3,
    top: Top::Finite,
};
pub(crate) const E3M2: Format = Format {
    exp: 3,
    man: 2,
    top: Top::Finite,
};

impl Format {
    const fn bias(self) -> i32 {
        (1 << (self.exp - 1)) - 1
    }

    /// Code of the largest finite value, without sign.
    pub(crate) const fn max_code(self) -> u32 {
        let all = (1 << (self.exp + self.man)) - 1;
        match self.top {
            Top::Ieee => (((1 << self.exp) - 1) << self.man) - 1,
            Top::OneNan => all - 1,
            Top::Finite => all,
        }
    }

    /// Code of infinity; only meaningful for [`Top::Ieee`].
    pub(crate) const fn inf_code(self) -> u32 {
        ((1 << self.exp) - 1) << self.man
    }

    /// The NaN that hardware produces: all exponent and mantissa bits set, sign clear.
    pub(crate) const fn nan_code(self) -> u32 {
        (1 << (self.exp + self.man)) - 1
    }

    pub(crate) const fn sign_bit(self) -> u32 {
        1 << (self.exp + self.man)
    }

    /// Exact value of a code.
    pub(crate) fn decode(self, code: u32) -> f64 {
        let negative = code & self.sign_bit() != 0;
        let mag = code & (self.sign_bit() - 1);
        let value = if mag > self.max_code() {
            if self.top == Top::Ieee && mag == self.inf_code() {
                f64::INFINITY
            } else {
                f64::NAN
            }
        } else {
            let e = (mag >> self.man) as i32;
            let m = mag & ((1 << self.man) - 1);
            let (n, q) = if e == 0 {
                (m, 1)
            } else {
                (m | 1 << self.man, e)
            };
            f64::from(n) * pow2(q - self.bias() - self.man as i32)
        };
        if negative { -value } else { value }
    }

    /// Nearest code in the direction `rnd`; `saturate` clamps to the largest finite value instead of
    /// overflowing. NaN gives [`Format::nan_code`], or the largest positive value where no NaN exists.
    pub(crate) fn encode(self, x: f64, rnd: Rnd, saturate: bool) -> u32 {
        if x.is_nan() {
            return if self.top == Top::Finite {
                self.max_code()
            } else {
                self.nan_code()
            };
        }
        let negative = x.is_sign_negative();
        let sign = if negative { self.sign_bit() } else { 0 };
        if x.is_infinite() {
            return sign | self.overflow(Rnd::Near, negative, saturate);
        }
        let bits = x.to_bits() & (u64::MAX >> 1);
        if bits == 0 {
            return sign;
        }
        let raw = (bits >> 52) as i32;
        let (sig, k) = if raw == 0 {
            (bits, -1074)
        } else {
            (bits & ((1 << 52) - 1) | 1 << 52, raw - 1075)
        };
        let min_exp = 1 - self.bias();
        let q = (k + 52).max(min_exp) - self.man as i32;
        let n = round_shift(sig, q - k, rnd, negative);
        let code = i64::from(q + self.man as i32 + self.bias() - 1) * (1i64 << self.man) + n as i64;
        if code > i64::from(self.max_code()) {
            return sign | self.overflow(rnd, negative, saturate);
        }
        sign | code as u32
    }

    fn overflow(self, rnd: Rnd, negative: bool, saturate: bool) -> u32 {
        let inward = match rnd {
            Rnd::Zero => true,
            Rnd::Down => !negative,
            Rnd::Up => negative,
            Rnd::Near | Rnd::Away => false,
        };
        if saturate || inward || self.top == Top::Finite {
            return self.max_code();
        }
        if self.top == Top::OneNan {
            self.nan_code()
        } else {
            self.inf_code()
        }
    }
}

/// `sig / 2^shift` rounded to an integer; `negative` is the sign of the whole value.
pub(crate) fn round_shift(sig: u64, shift: i32, rnd: Rnd, negative: bool) -> u64 {
    if shift <= 0 {
        return sig << -shift;
    }
    let (n, rest, half) = if shift >= 64 {
        (0, u64::from(sig != 0), 2)
    } else {
        (sig >> shift, sig & ((1 << shift) - 1), 1u64 << (shift - 1))
    };
    let up = match rnd {
        Rnd::Near => rest > half || (rest == half && n & 1 == 1),
        Rnd::Away => rest >= half,
        Rnd::Zero => false,
        Rnd::Down => negative && rest != 0,
        Rnd::Up => !negative && rest != 0,
    };
    n + u64::from(up)
}

/// 2^e for e in the normal range of f64.
pub(crate) fn pow2(e: i32) -> f64 {
    debug_assert!((-1022..=1023).contains(&e));
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// f16 code to f32, exact.
#[inline]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let mag = u32::from(h & 0x7fff);
    if mag >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | (mag & 0x3ff) << 13);
    }
    // The shifted code read as f32 is the value times 2^-112, subnormals included.
    let scaled = f32::from_bits(mag << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(scaled.to_bits() | sign)
}

/// f32 to f16, ties to even.
#[inline]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let mag = bits & 0x7fff_ffff;
    if mag > 0x7f80_0000 {
        return 0x7fff;
    }
    if mag >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    if mag < 0x3880_0000 {
        // Adding 0.5 puts the f16 subnormal grid at the bottom of the f32 mantissa.
        let sum = f32::from_bits(mag) + 0.5;
        return sign | (sum.to_bits() - 0x3f00_0000) as u16;
    }
    let rounded = mag + 0xfff + (mag >> 13 & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

/// bf16 code to f32, exact.
#[inline]
pub(crate) fn bf16_to_f32(h: u16) -> f32 {
    f32::from_bits(u32::from(h) << 16)
}

/// f32 to bf16, ties to even.
#[inline]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return 0x7fff;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_every_small_format_round_trips() {
        for f in [F16, BF16, E5M2, E4M3, E2M1, E2M3, E3M2] {
            for code in 0..f.sign_bit() * 2 {
                let x = f.decode(code);
                if x.is_nan() {
                    assert_eq!(f.encode(x, Rnd::Near, false), f.nan_code());
                } else {
                    for rnd in [Rnd::Near, Rnd::Away, Rnd::Zero, Rnd::Down, Rnd::Up] {
                        assert_eq!(f.encode(x, rnd, false), code, "{f:?} {x}");
                    }
                }
            }
        }
    }

    #[test]
    fn quick_paths_equal_the_general_one() {
        let mut x = 1u32;
        for _ in 0..200_000 {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            for bits in [x, x & 0x8fff_ffff | 0x3000_0000] {
                let v = f32::from_bits(bits);
                let (a, b) = (f32_to_f16(v), f32_to_bf16(v));
                assert_eq!(
                    u32::from(a),
                    F16.encode(f64::from(v), Rnd::Near, false),
                    "{v:e}"
                );
                assert_eq!(
                    u32::from(b),
                    BF16.encode(f64::from(v), Rnd::Near, false),
                    "{v:e}"
                );
            }
        }
        for h in 0..=u16::MAX {
            let (a, b) = (f64::from(f16_to_f32(h)), F16.decode(u32::from(h)));
            assert!(a == b || (a.is_nan() && b.is_nan()));
        }
    }

    #[test]
    fn f32_encoding_in_directions_brackets_the_value() {
        let x = 0.1f64;
        let down = f32::from_bits(F32.encode(x, Rnd::Down, false));
        let up = f32::from_bits(F32.encode(x, Rnd::Up, false));
        assert!(f64::from(down) < x && x < f64::from(up) && up.to_bits() - down.to_bits() == 1);
        assert_eq!(F32.encode(-x, Rnd::Zero, false), (-down).to_bits());
        assert_eq!(E4M3.encode(1e9, Rnd::Near, true), 0x7e);
        assert_eq!(E4M3.encode(1e9, Rnd::Near, false), 0x7f);
    }
}
