//! What a product of cuBLASLt is: column-major matrices, sums in f64.
//!
//! ```text
//! D[i, j] = epilogue( sa · sb · Σ_l op(A)[i, l] · op(B)[l, j] + bias[i] )
//! element (i, j) of a matrix lies at i + j · ld
//! ```

use ptxsim::{DevPtr, Memory};
use qcc_ir::DType;
use qcc_ir::format::{decode_slice, encode_slice, encode_slice_i64};

/// `cublasLtMatrixLayout_t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// `cudaDataType`.
    pub(crate) ty: u32,
    pub(crate) rows: u64,
    pub(crate) columns: u64,
    pub(crate) ld: u64,
}

impl Layout {
    /// Rows and columns of the matrix or of its transpose.
    pub(crate) fn turned(&self, transposed: bool) -> (u64, u64) {
        match transposed {
            true => (self.columns, self.rows),
            false => (self.rows, self.columns),
        }
    }

    fn dtype(&self) -> Option<DType> {
        Some(match self.ty {
            0 => DType::F32,
            2 => DType::F16,
            3 => DType::I8,
            10 => DType::I32,
            14 => DType::BF16,
            28 => DType::E4M3,
            _ => return None,
        })
    }
}

/// A product with its addresses.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) a: Layout,
    pub(crate) b: Layout,
    pub(crate) out: Layout,
    pub(crate) transposed: [bool; 2],
    /// Address, 0 for none; so for the scales.
    pub(crate) bias: u64,
    pub(crate) gelu: bool,
    pub(crate) scales: [u64; 2],
    /// Of A, B and D.
    pub(crate) at: [u64; 3],
}

impl Product {
    /// A number of its sizes and types, by which algorithms know their problem.
    pub(crate) fn number(&self) -> u64 {
        let parts = [&self.a, &self.b, &self.out];
        let words = parts
            .iter()
            .flat_map(|l| [u64::from(l.ty), l.rows, l.columns]);
        words.fold(17, |h, w| h.wrapping_mul(1_000_003) ^ w)
    }

    /// Computes it; none if it lies outside of memory that was written.
    pub(crate) fn run(&self, memory: &mut Memory) -> Option<()> {
        let (a, b) = (
            read(memory, &self.a, self.at[0])?,
            read(memory, &self.b, self.at[1])?,
        );
        let dtype = self.out.dtype()?;
        let (m, n) = (self.out.rows, self.out.columns);
        let k = self.a.turned(self.transposed[0]).1;
        let row = |len, ty| Layout {
            ty,
            rows: len,
            columns: 1,
            ld: len,
        };
        let bias = match self.bias {
            0 => vec![0.0; m as usize],
            at => read(memory, &row(m, self.out.ty), at)?,
        };
        let mut scale = 1.0;
        for at in self.scales.into_iter().filter(|at| *at != 0) {
            scale *= read(memory, &row(1, 0), at)?[0];
        }
        let at = |l: &Layout, t: bool, i: u64, j: u64| match t {
            true => (j + i * l.ld) as usize,
            false => (i + j * l.ld) as usize,
        };
        let mut out = vec![0.0; (self.out.ld * n) as usize];
        for j in 0..n {
            for i in 0..m {
                let sum: f64 = (0..k)
                    .map(|l| {
                        a[at(&self.a, self.transposed[0], i, l)]
                            * b[at(&self.b, self.transposed[1], l, j)]
                    })
                    .sum();
                let v = sum * scale + bias[i as usize];
                out[(i + j * self.out.ld) as usize] = if self.gelu { gelu(v) } else { v };
            }
        }
        let mut bytes = vec![0; dtype.byte_len(self.out.ld * n)? as usize];
        if dtype == DType::I32 {
            let whole: Vec<i64> = out.iter().map(|v| *v as i64).collect();
            encode_slice_i64(dtype, &whole, &mut bytes).ok()?;
        } else {
            encode_slice(dtype, &out, &mut bytes).ok()?;
        }
        memory.write(DevPtr(self.at[2]), &bytes).ok()
    }
}

fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn read(memory: &Memory, l: &Layout, at: u64) -> Option<Vec<f64>> {
    let (dtype, n) = (l.dtype()?, l.ld * l.columns);
    let mut bytes = vec![0; dtype.byte_len(n)? as usize];
    if !memory.is_written(DevPtr(at), bytes.len() as u64).ok()? {
        return None;
    }
    memory.read(DevPtr(at), &mut bytes).ok()?;
    let mut out = vec![0f64; n as usize];
    decode_slice(dtype, &bytes, &mut out).ok()?;
    Some(out)
}
