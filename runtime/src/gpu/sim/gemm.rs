//! A product of the vendor's library by its definition.
//!
//! ```text
//! D[i, j] = gelu?(a_scale · b_scale · Σ_l A[i, l] · B[j, l] + bias[j])
//! gelu(x) = x · ½(1 + tanh(√(2/π)(x + 0.044715 x³)))
//! ```
//!
//! Sums are exact for integers and computed in f64 for floats, then rounded to f32, in which the
//! scales and the bias follow. An i32 result of integer factors is the sum itself.

use ptxsim::{DevPtr, Memory};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::format::{decode_slice, encode_slice, encode_slice_i64};
use std::fmt::Display;

use super::super::driver::{Address, GemmNumbers};
use super::super::error::{fault, impossible};

/// Computes the product in device memory.
///
/// # Errors
/// `Q0732` if a factor lies outside of memory, `Q0730` if the sizes or types are impossible.
pub(super) fn run(g: &GemmNumbers<Address>, memory: &mut Memory) -> Result<()> {
    let (m, n, k) = (length(g.m)?, length(g.n)?, length(g.k)?);
    let a = read(memory, g.a, g.input, m, k)?;
    let b = read(memory, g.b, g.input, n, k)?;
    let bias = match g.bias {
        Some(at) => read(memory, at, g.output, 1, n)?,
        None => vec![0.0; n],
    };
    let mut scale = 1f32;
    for at in [g.a_scale, g.b_scale].into_iter().flatten() {
        scale *= read(memory, at, DType::F32, 1, 1)?[0] as f32;
    }
    let exact = g.output == DType::I32;
    let mut sums = Vec::with_capacity(m * n);
    for i in 0..m {
        for (j, bias) in bias.iter().enumerate() {
            let rows = a[i * k..][..k].iter().zip(&b[j * k..][..k]);
            let sum: f64 = rows.map(|(x, y)| x * y).sum();
            sums.push(match exact {
                true => sum,
                false => f64::from(after(g.gelu, sum as f32 * scale + *bias as f32)),
            });
        }
    }
    let mut out = vec![0; bytes(g.output, m, n)?];
    if exact {
        // Sums of products of 8-bit integers are exact in f64 and, as on a GPU, wrap at 32 bits.
        let whole: Vec<i64> = sums.iter().map(|s| i64::from(*s as i64 as i32)).collect();
        encode_slice_i64(g.output, &whole, &mut out).map_err(wrong)?;
    } else {
        encode_slice(g.output, &sums, &mut out).map_err(wrong)?;
    }
    memory.write(DevPtr(g.d), &out).map_err(fault)
}

fn after(gelu: bool, x: f32) -> f32 {
    if !gelu {
        return x;
    }
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    (x * 0.5 * (1.0 + libm::tanh(inner))) as f32
}

fn length(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(impossible)
}

fn bytes(dtype: DType, rows: usize, columns: usize) -> Result<usize> {
    let elems = (rows as u64).checked_mul(columns as u64);
    let bytes = elems.and_then(|n| dtype.byte_len(n));
    bytes
        .and_then(|b| usize::try_from(b).ok())
        .ok_or_else(|| impossible(format!("{rows} × {columns} elements of {dtype}")))
}

fn read(
    memory: &Memory,
    at: Address,
    dtype: DType,
    rows: usize,
    columns: usize,
) -> Result<Vec<f64>> {
    let len = bytes(dtype, rows, columns)?;
    // Nothing is allocated for a range that is not there.
    memory.is_written(DevPtr(at), len as u64).map_err(fault)?;
    let mut data = vec![0; len];
    memory.read(DevPtr(at), &mut data).map_err(fault)?;
    let mut out = vec![0f64; rows * columns];
    decode_slice(dtype, &data, &mut out).map_err(wrong)?;
    Ok(out)
}

fn wrong(e: impl Display) -> qcc_ir::Diagnostic {
    impossible(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(memory: &mut Memory, bytes: &[u8]) -> Address {
        let at = memory.alloc(bytes.len() as u64).unwrap();
        memory.write(at, bytes).unwrap();
        at.0
    }

    #[test]
    fn scaled_products_and_exact_integers() {
        let mut memory = Memory::new();
        let f = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let mut codes = [0; 4];
        encode_slice(DType::E4M3, &[1.0f32, 2.0, -3.0, 0.5], &mut codes).unwrap();
        let a = put(&mut memory, &codes);
        let scale = put(&mut memory, &f(&[0.5]));
        let bias = put(&mut memory, &f(&[10.0, 20.0]));
        let d = put(&mut memory, &[0; 16]);
        let mut g = GemmNumbers {
            m: 2,
            n: 2,
            k: 2,
            input: DType::E4M3,
            output: DType::F32,
            a,
            b: a,
            d,
            a_scale: Some(scale),
            b_scale: Some(scale),
            bias: Some(bias),
            gelu: false,
            workspace: (0, 0),
        };
        run(&g, &mut memory).unwrap();
        let mut out = [0; 16];
        memory.read(DevPtr(d), &mut out).unwrap();
        // [[1, 2], [-3, ½]] times its transpose is [[5, -2], [-2, 9¼]].
        assert_eq!(out[..], f(&[11.25, 19.5, 9.5, 22.3125])[..]);
        g.input = DType::I8;
        g.output = DType::I32;
        (g.a_scale, g.b_scale, g.bias) = (None, None, None);
        g.a = put(&mut memory, &[127, 128, 1, 0]);
        g.b = g.a;
        run(&g, &mut memory).unwrap();
        memory.read(DevPtr(d), &mut out).unwrap();
        let want: Vec<u8> = [127 * 127 + 128 * 128, 127, 127, 1i32]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(out[..], want[..]);
    }
}
