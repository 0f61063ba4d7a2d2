//! Sums over vectors, each in one fixed order, so that results are the same on every machine and
//! for any number of threads.
//!
//! These are the inner loops of what computes on whole weights. They are not generic: they are
//! compiled once, here, with the optimization that this crate gets in every profile.

/// `Σ a·b`: eight sums side by side, then one.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, a1) = a.as_chunks::<8>();
    let (b8, b1) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += a * b;
        }
    }
    let rest: f64 = a1.iter().zip(b1).map(|(a, b)| a * b).sum();
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
}

/// As [`dot`] for f32.
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a8, a1) = a.as_chunks::<8>();
    let (b8, b1) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += a * b;
        }
    }
    let rest: f32 = a1.iter().zip(b1).map(|(a, b)| a * b).sum();
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
}

/// `y += a·x`.
pub fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// As [`add_scaled`] for f32.
pub fn add_scaled_f32(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// `y += Σ a·x` over four vectors at once, so that `y` is read and written a quarter as often.
pub fn add_four_scaled(y: &mut [f64], a: [f64; 4], x: [&[f64]; 4]) {
    let [p, q, r, s] = x;
    for ((((y, p), q), r), s) in y.iter_mut().zip(p).zip(q).zip(r).zip(s) {
        *y += (a[0] * p + a[1] * q) + (a[2] * r + a[3] * s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_any_length() {
        for n in [0, 1, 7, 8, 9, 40] {
            let a: Vec<f64> = (0..n).map(f64::from).collect();
            let b: Vec<f64> = (0..n).map(|i| f64::from(i % 5) - 2.0).collect();
            let want: f64 = (0..n as usize).map(|i| a[i] * b[i]).sum();
            assert_eq!(dot(&a, &b), want);
            let f32s = |v: &[f64]| -> Vec<f32> { v.iter().map(|v| *v as f32).collect() };
            let (a32, b32) = (f32s(&a), f32s(&b));
            assert_eq!(f64::from(dot_f32(&a32, &b32)), want);

            let (mut y, mut y32) = (a.clone(), a32.clone());
            add_scaled(&mut y, -2.0, &b);
            add_scaled_f32(&mut y32, -2.0, &b32);
            let wanted: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - 2.0 * b).collect();
            assert_eq!((&y, &y32), (&wanted, &f32s(&wanted)));
            add_four_scaled(&mut y, [2.0, 1.0, 4.0, -4.0], [&b, &a, &a, &a]);
            let doubled: Vec<f64> = a.iter().map(|a| a * 2.0).collect();
            assert_eq!(y, doubled);
        }
    }
}
