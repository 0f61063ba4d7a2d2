//! Matrix products of cuBLASLt.
//!
//! ```text
//! D[m, n] = epilogue( a_scale · b_scale · Σ_k A[m, k] · B[n, k] + bias[n] )
//! ```
//! all row-major. The library thinks in columns, so it is given the transposed product
//! `Dᵀ = B Aᵀ`: our `B` is its first factor, transposed, and the bias runs along its rows. That is
//! the one arrangement (TN) in which it multiplies 8-bit formats.
//!
//! | factors | accumulates in | result | scales |
//! |---|---|---|---|
//! | f16, bf16, f32 | f32 | f16, bf16 (as the factors), f32 | none |
//! | e4m3 (both) | f32, no fast accumulation | f16, bf16, f32 (without bias) | one f32 each, read from memory |
//! | i8 | i32, exact | i32 | none |
//!
//! The scales are in device memory because they may be computed by the kernel before. The
//! algorithm is the library's proposal of the given rank, within the given workspace.

use cudarc::cublaslt::sys::{self, cublasComputeType_t as Compute, cublasStatus_t as Status};
use cudarc::cublaslt::sys::{
    cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cudaDataType_t as Type,
};
use cudarc::driver::sys::CUstream;
use qcc_ir::diag::Result;
use std::ffi::c_void;
use std::ptr;
use std::sync::MutexGuard;

use super::error::vendor;
use super::gpu::Gpu;
use super::memory::lock;

/// Every function that is called.
const FUNCTIONS: &[&str] = &[
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];

/// Element type of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatrixType {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// 8-bit float with 4 exponent and 3 mantissa bits, without infinities.
    E4m3,
    /// 8-bit integer.
    I8,
    /// 32-bit integer.
    I32,
}

/// A matrix product; see the head of the module. Matrices and scales are addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of the result.
    pub m: u64,
    /// Columns of the result.
    pub n: u64,
    /// Length of the inner products.
    pub k: u64,
    /// Type of both factors.
    pub input: MatrixType,
    /// Type of the result and of the bias.
    pub output: MatrixType,
    /// The left factor, `[m, k]`.
    pub a: u64,
    /// The right factor, `[n, k]`.
    pub b: u64,
    /// The result, `[m, n]`.
    pub d: u64,
    /// Scale of the left factor: one f32.
    pub a_scale: Option<u64>,
    /// Scale of the right factor: one f32.
    pub b_scale: Option<u64>,
    /// Bias, `[n]`.
    pub bias: Option<u64>,
    /// Whether GELU (its tanh form) is applied at the end.
    pub gelu: bool,
    /// Memory that the library may use.
    pub workspace: u64,
    /// Its bytes.
    pub workspace_bytes: u64,
    /// Which of the library's proposals to take; 0 is the one it thinks fastest.
    pub proposal: usize,
}

/// The library, initialized for one GPU. Used with that GPU's context current.
pub(super) struct Blas(sys::cublasLtHandle_t);

// SAFETY: the handle may be used from any thread; calls go through a lock.
unsafe impl Send for Blas {}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: created once and destroyed once.
        unsafe {
            sys::cublasLtDestroy(self.0);
        }
    }
}

impl Blas {
    fn new() -> Result<Self> {
        // SAFETY: loading the library runs its initializers and nothing else.
        if !unsafe { sys::is_culib_present() } {
            return Err(vendor("the library libcublasLt cannot be loaded"));
        }
        // SAFETY: the library is present; symbols are looked up and not called.
        let has = |f: &&&str| unsafe { sys::culib().get::<*const c_void>(f.as_bytes()) }.is_ok();
        if let Some(missing) = FUNCTIONS.iter().find(|f| !has(f)) {
            return Err(vendor(format!("it has no `{missing}`")));
        }
        let mut handle = ptr::null_mut();
        // SAFETY: the function exists and writes one handle.
        check("cublasLtCreate", unsafe {
            sys::cublasLtCreate(&mut handle)
        })?;
        Ok(Blas(handle))
    }
}

impl Gpu {
    /// Whether cuBLASLt can be loaded and has everything that products need.
    pub fn has_cublaslt(&self) -> bool {
        self.enter().is_ok() && self.opened().is_ok()
    }

    /// The library, opened if it was not. The context is current.
    fn opened(&self) -> Result<MutexGuard<'_, Option<Blas>>> {
        let mut blas = lock(&self.blas);
        if blas.is_none() {
            *blas = Some(Blas::new()?);
        }
        Ok(blas)
    }

    /// Gives a product to a stream. The context is current.
    pub(super) fn gemm(&self, stream: CUstream, g: &Gemm) -> Result<()> {
        let blas = self.opened()?;
        let Some(Blas(handle)) = *blas else {
            return Err(vendor("it is not loaded"));
        };
        let problem = Problem::new(g)?;
        let algorithm = problem.algorithm(handle, g)?;
        problem.run(handle, &algorithm, stream, g)
    }
}

/// Descriptions of the product and of its matrices, freed with it.
struct Problem {
    product: sys::cublasLtMatmulDesc_t,
    /// Our B, our A, and the result, as the library sees them.
    layouts: Vec<sys::cublasLtMatrixLayout_t>,
    integer: bool,
}

impl Problem {
    fn new(g: &Gemm) -> Result<Self> {
        let (compute, scale) = arithmetic(g)?;
        let mut product = ptr::null_mut();
        // SAFETY: the library is loaded; the function writes one handle.
        check("cublasLtMatmulDescCreate", unsafe {
            sys::cublasLtMatmulDescCreate(&mut product, compute, scale)
        })?;
        let mut problem = Problem {
            product,
            layouts: Vec::new(),
            integer: g.input == MatrixType::I8,
        };
        problem.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &1i32)?;
        problem.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &0i32)?;
        if let Some(s) = &g.b_scale {
            problem.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, s)?;
        }
        if let Some(s) = &g.a_scale {
            problem.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, s)?;
        }
        problem.epilogue(g)?;
        for (ty, rows, columns) in [
            (g.input, g.k, g.n),
            (g.input, g.k, g.m),
            (g.output, g.n, g.m),
        ] {
            problem.layout(ty, rows, columns)?;
        }
        Ok(problem)
    }

    fn epilogue(&self, g: &Gemm) -> Result<()> {
        use sys::cublasLtEpilogue_t::*;
        let epilogue = match (g.bias.is_some(), g.gelu) {
            (false, false) => CUBLASLT_EPILOGUE_DEFAULT,
            (true, false) => CUBLASLT_EPILOGUE_BIAS,
            (false, true) => CUBLASLT_EPILOGUE_GELU,
            (true, true) => CUBLASLT_EPILOGUE_GELU_BIAS,
        };
        self.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(epilogue as u32))?;
        if let Some(bias) = &g.bias {
            let ty = data_type(g.output) as u32;
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &ty)?;
        }
        Ok(())
    }

    fn set<T: Copy>(&self, attribute: Attribute, value: &T) -> Result<()> {
        // SAFETY: the description is live; the value is read during the call, with its size.
        check("cublasLtMatmulDescSetAttribute", unsafe {
            sys::cublasLtMatmulDescSetAttribute(
                self.product,
                attribute,
                ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        })
    }

    fn layout(&mut self, ty: MatrixType, rows: u64, columns: u64) -> Result<()> {
        let ld = i64::try_from(rows).map_err(vendor)?;
        let mut layout = ptr::null_mut();
        // SAFETY: the function writes one handle.
        check("cublasLtMatrixLayoutCreate", unsafe {
            sys::cublasLtMatrixLayoutCreate(&mut layout, data_type(ty), rows, columns, ld)
        })?;
        self.layouts.push(layout);
        Ok(())
    }

    /// The proposal of the asked rank.
    fn algorithm(&self, h: sys::cublasLtHandle_t, g: &Gemm) -> Result<sys::cublasLtMatmulAlgo_t> {
        /// Proposals that are asked for.
        const MOST: usize = 32;
        let wanted = Wanted::new(g.workspace_bytes)?;
        // SAFETY: the results are numbers and a status, for which zeros are valid.
        let mut found: [sys::cublasLtMatmulHeuristicResult_t; MOST] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        // SAFETY: all descriptions are live; at most `MOST` results are written.
        let asked = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                h,
                self.product,
                self.layouts[0],
                self.layouts[1],
                self.layouts[2],
                self.layouts[2],
                wanted.0,
                MOST as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        };
        check("cublasLtMatmulAlgoGetHeuristic", asked)?;
        let count = usize::try_from(count).unwrap_or(0).min(MOST);
        let good = found[..count]
            .iter()
            .filter(|f| f.state == Status::CUBLAS_STATUS_SUCCESS)
            .nth(g.proposal);
        good.map(|f| f.algo).ok_or_else(|| {
            let Gemm { m, n, k, .. } = g;
            vendor(format!(
                "no proposal {} for {m} x {n} x {k}, {:?} to {:?}",
                g.proposal, g.input, g.output
            ))
        })
    }

    fn run(
        &self,
        h: sys::cublasLtHandle_t,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        stream: CUstream,
        g: &Gemm,
    ) -> Result<()> {
        let (f_one, f_zero) = (1f32, 0f32);
        let (i_one, i_zero) = (1i32, 0i32);
        let (alpha, beta): (*const c_void, *const c_void) = if self.integer {
            (ptr::from_ref(&i_one).cast(), ptr::from_ref(&i_zero).cast())
        } else {
            (ptr::from_ref(&f_one).cast(), ptr::from_ref(&f_zero).cast())
        };
        let at = |address: u64| ptr::without_provenance_mut::<c_void>(address as usize);
        // SAFETY: descriptions, factors and algorithm belong together (made from one `Gemm`);
        // alpha and beta are read during the call. Addresses are the GPU's, which checks them.
        check("cublasLtMatmul", unsafe {
            sys::cublasLtMatmul(
                h,
                self.product,
                alpha,
                at(g.b),
                self.layouts[0],
                at(g.a),
                self.layouts[1],
                beta,
                at(g.d),
                self.layouts[2],
                at(g.d),
                self.layouts[2],
                algorithm,
                at(g.workspace),
                usize::try_from(g.workspace_bytes).map_err(vendor)?,
                stream.cast(),
            )
        })
    }
}

impl Drop for Problem {
    fn drop(&mut self) {
        // SAFETY: each handle was created once and is destroyed once.
        unsafe {
            for layout in self.layouts.drain(..) {
                sys::cublasLtMatrixLayoutDestroy(layout);
            }
            sys::cublasLtMatmulDescDestroy(self.product);
        }
    }
}

/// What an algorithm must keep to.
struct Wanted(sys::cublasLtMatmulPreference_t);

impl Wanted {
    fn new(workspace: u64) -> Result<Self> {
        let mut preference = ptr::null_mut();
        // SAFETY: the function writes one handle.
        check("cublasLtMatmulPreferenceCreate", unsafe {
            sys::cublasLtMatmulPreferenceCreate(&mut preference)
        })?;
        let wanted = Wanted(preference);
        // SAFETY: the value is a 64-bit number of bytes, read during the call.
        check("cublasLtMatmulPreferenceSetAttribute", unsafe {
            sys::cublasLtMatmulPreferenceSetAttribute(
                wanted.0,
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                ptr::from_ref(&workspace).cast(),
                size_of::<u64>(),
            )
        })?;
        Ok(wanted)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // SAFETY: created once and destroyed once.
        unsafe {
            sys::cublasLtMatmulPreferenceDestroy(self.0);
        }
    }
}

/// How a product is computed, or why the library cannot.
fn arithmetic(g: &Gemm) -> Result<(Compute, Type)> {
    use MatrixType::*;
    let scaled = g.a_scale.is_some() || g.b_scale.is_some();
    let float = (Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_32F);
    match (g.input, g.output) {
        (E4m3, F16 | Bf16) => Ok(float),
        (E4m3, F32) if g.bias.is_none() => Ok(float),
        (F16, F16 | F32) | (Bf16, Bf16 | F32) | (F32, F32) if !scaled => Ok(float),
        (I8, I32) if !scaled && g.bias.is_none() && !g.gelu => {
            Ok((Compute::CUBLAS_COMPUTE_32I, Type::CUDA_R_32I))
        }
        (input, output) => Err(vendor(format!(
            "no product of {input:?} into {output:?}{}",
            match (scaled, g.bias.is_some()) {
                (true, _) => " with scales",
                (_, true) => " with a bias",
                _ => "",
            }
        ))),
    }
}

fn data_type(ty: MatrixType) -> Type {
    match ty {
        MatrixType::F16 => Type::CUDA_R_16F,
        MatrixType::Bf16 => Type::CUDA_R_16BF,
        MatrixType::F32 => Type::CUDA_R_32F,
        MatrixType::E4m3 => Type::CUDA_R_8F_E4M3,
        MatrixType::I8 => Type::CUDA_R_8I,
        MatrixType::I32 => Type::CUDA_R_32I,
    }
}

fn check(call: &str, status: Status) -> Result<()> {
    match status {
        Status::CUBLAS_STATUS_SUCCESS => Ok(()),
        bad => Err(vendor(format!("{call} failed: {bad:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Gemm, MatrixType, arithmetic};

    #[test]
    fn products_that_the_library_lacks_are_refused_before_it_is_asked() {
        use MatrixType::*;
        let gemm = |input, output, scale: Option<u64>, bias: Option<u64>| Gemm {
            m: 1,
            n: 1,
            k: 1,
            input,
            output,
            a: 0,
            b: 0,
            d: 0,
            a_scale: scale,
            b_scale: None,
            bias,
            gelu: false,
            workspace: 0,
            workspace_bytes: 0,
            proposal: 0,
        };
        assert!(arithmetic(&gemm(E4m3, Bf16, Some(1), Some(1))).is_ok());
        assert!(arithmetic(&gemm(I8, I32, None, None)).is_ok());
        for bad in [
            gemm(F16, Bf16, None, None),
            gemm(F16, F16, Some(1), None),
            gemm(I8, I32, None, Some(1)),
            gemm(I8, F32, None, None),
            gemm(E4m3, F32, Some(1), Some(1)),
        ] {
            assert_eq!(arithmetic(&bad).unwrap_err().number(), 744);
        }
    }
}
