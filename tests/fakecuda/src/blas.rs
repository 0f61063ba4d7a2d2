//! cuBLASLt: descriptions, proposals, and products that are given to streams.
//!
//! The constants and the rules of what is multiplied are those of the cuBLAS documentation
//! (`cublasLtMatmul`, its tables of supported types and alignments); `product` says what a product
//! is. It proposes two algorithms: one that asks for a workspace, if it may have one, and one that
//! needs none. Results are statuses of cuBLAS, which `FAKECUDA_FAIL` gives as they are.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};

use crate::call;
use crate::product::{Layout, Product};
use crate::state::{Op, State};

/// `cublasStatus_t`.
type Status = u32;

const NOT_INITIALIZED: Status = 1;
const INVALID_VALUE: Status = 7;
const NOT_SUPPORTED: Status = 15;

const R_32F: c_uint = 0;
const R_16F: c_uint = 2;
const R_8I: c_uint = 3;
const R_32I: c_uint = 10;
const R_16BF: c_uint = 14;
const R_8F_E4M3: c_uint = 28;
const COMPUTE_32F: c_uint = 68;
const COMPUTE_32I: c_uint = 72;

/// Bytes of workspace that the first proposal asks for.
const WORKSPACE: u64 = 1 << 20;

/// `cublasLtMatmulDesc_t`.
#[derive(Clone, Default)]
pub(crate) struct Desc {
    compute: c_uint,
    scale: c_uint,
    transposed: [bool; 2],
    epilogue: c_uint,
    bias: u64,
    bias_type: Option<c_uint>,
    scales: [u64; 2],
}

/// Everything that the library made.
#[derive(Default)]
pub(crate) struct Library {
    handles: BTreeMap<usize, ()>,
    descs: BTreeMap<usize, Desc>,
    layouts: BTreeMap<usize, Layout>,
    preferences: BTreeMap<usize, u64>,
}

impl Library {
    /// What was not destroyed.
    pub(crate) fn live(&self) -> usize {
        self.handles.len() + self.descs.len() + self.layouts.len() + self.preferences.len()
    }

    fn layout(&self, handle: usize) -> Result<Layout, Status> {
        self.layouts.get(&handle).cloned().ok_or(INVALID_VALUE)
    }
}

/// `cublasLtMatmulHeuristicResult_t`; the first word of the algorithm is its workspace, the second
/// tells for which problem it is.
#[repr(C)]
struct Proposal {
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// Writes a result through a pointer of the caller.
///
/// # Safety
/// `at` is null or may be written.
unsafe fn give<T>(at: *mut T, value: T) -> Result<(), Status> {
    // SAFETY: as the caller promises.
    unsafe { crate::give(at, value) }.map_err(|_| INVALID_VALUE)
}

/// Reads a value of an attribute.
///
/// # Safety
/// `at` is null or points to `bytes` bytes.
unsafe fn take<T: Copy>(at: *const c_void, bytes: usize) -> Result<T, Status> {
    if at.is_null() || bytes != size_of::<T>() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: as many bytes as a `T` has.
    Ok(unsafe { at.cast::<T>().read_unaligned() })
}

/// # Safety
/// As the library's documentation says; so for all functions here.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtCreate(out: *mut usize) -> Status {
    call("cublasLtCreate", |s| {
        s.usable().map_err(|_| NOT_INITIALIZED)?;
        let handle = s.handle();
        s.blas.handles.insert(handle, ());
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: the name is the library's, whose place this one takes; so for all functions here.
#[unsafe(no_mangle)]
extern "C" fn cublasLtDestroy(handle: usize) -> Status {
    call("cublasLtDestroy", |s| gone(s.blas.handles.remove(&handle)))
}

fn gone<T>(removed: Option<T>) -> Result<(), Status> {
    removed.map(|_| ()).ok_or(INVALID_VALUE)
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescCreate(
    out: *mut usize,
    compute: c_uint,
    scale: c_uint,
) -> Status {
    call("cublasLtMatmulDescCreate", |s| {
        let handle = s.handle();
        let desc = Desc {
            compute,
            scale,
            epilogue: 1,
            ..Desc::default()
        };
        s.blas.descs.insert(handle, desc);
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: see above.
#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulDescDestroy(desc: usize) -> Status {
    call("cublasLtMatmulDescDestroy", |s| {
        gone(s.blas.descs.remove(&desc))
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    desc: usize,
    attribute: c_uint,
    value: *const c_void,
    bytes: usize,
) -> Status {
    call("cublasLtMatmulDescSetAttribute", |s| {
        let d = s.blas.descs.get_mut(&desc).ok_or(INVALID_VALUE)?;
        // SAFETY: the caller's value of as many bytes.
        unsafe {
            match attribute {
                3 | 4 => d.transposed[attribute as usize - 3] = take::<i32>(value, bytes)? == 1,
                7 => d.epilogue = take(value, bytes)?,
                8 => d.bias = take(value, bytes)?,
                17 | 18 => d.scales[attribute as usize - 17] = take(value, bytes)?,
                26 => d.bias_type = Some(take(value, bytes)?),
                _ => return Err(INVALID_VALUE),
            }
        }
        Ok(())
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    out: *mut usize,
    ty: c_uint,
    rows: u64,
    columns: u64,
    ld: i64,
) -> Status {
    call("cublasLtMatrixLayoutCreate", |s| {
        let ld = u64::try_from(ld).map_err(|_| INVALID_VALUE)?;
        if rows == 0 || columns == 0 || ld < rows {
            return Err(INVALID_VALUE);
        }
        let layout = Layout {
            ty,
            rows,
            columns,
            ld,
        };
        let handle = s.handle();
        s.blas.layouts.insert(handle, layout);
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: see above.
#[unsafe(no_mangle)]
extern "C" fn cublasLtMatrixLayoutDestroy(layout: usize) -> Status {
    call("cublasLtMatrixLayoutDestroy", |s| {
        gone(s.blas.layouts.remove(&layout))
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceCreate(out: *mut usize) -> Status {
    call("cublasLtMatmulPreferenceCreate", |s| {
        let handle = s.handle();
        s.blas.preferences.insert(handle, 0);
        // SAFETY: the caller's pointer.
        unsafe { give(out, handle) }
    })
}

// SAFETY: see above.
#[unsafe(no_mangle)]
extern "C" fn cublasLtMatmulPreferenceDestroy(preference: usize) -> Status {
    call("cublasLtMatmulPreferenceDestroy", |s| {
        gone(s.blas.preferences.remove(&preference))
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: usize,
    attribute: c_uint,
    value: *const c_void,
    bytes: usize,
) -> Status {
    call("cublasLtMatmulPreferenceSetAttribute", |s| {
        let known = s.blas.preferences.get_mut(&preference);
        let most = known.ok_or(INVALID_VALUE)?;
        if attribute != 1 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's value of as many bytes.
        *most = unsafe { take(value, bytes)? };
        Ok(())
    })
}

/// The product that descriptions amount to, without addresses.
fn problem(s: &State, desc: usize, layouts: [usize; 4]) -> Result<Product, Status> {
    let d = s.blas.descs.get(&desc).ok_or(INVALID_VALUE)?;
    let [a, b, c, d_layout] = layouts.map(|l| s.blas.layout(l));
    let (a, b, c, out) = (a?, b?, c?, d_layout?);
    let (m, k) = a.turned(d.transposed[0]);
    let (k_too, n) = b.turned(d.transposed[1]);
    if k != k_too || (out.rows, out.columns) != (m, n) || c != out || a.ty != b.ty {
        return Err(INVALID_VALUE);
    }
    let (bias, gelu) = match d.epilogue {
        1 => (false, false),
        4 => (true, false),
        32 => (false, true),
        36 => (true, true),
        _ => return Err(NOT_SUPPORTED),
    };
    if bias != (d.bias != 0) || (bias && d.bias_type.is_some_and(|t| t != out.ty)) {
        return Err(INVALID_VALUE);
    }
    let tn = d.transposed == [true, false];
    let scaled = d.scales != [0, 0];
    let whole = |by: u64| m.is_multiple_of(by) && k.is_multiple_of(by);
    let float = (d.compute, d.scale) == (COMPUTE_32F, R_32F);
    let good = match (a.ty, out.ty) {
        (R_16F, R_16F | R_32F) | (R_16BF, R_16BF | R_32F) | (R_32F, R_32F) => float && !scaled,
        (R_8F_E4M3, R_16F | R_16BF) => float && tn && whole(16) && s.config.sm >= 89,
        (R_8F_E4M3, R_32F) => float && tn && whole(16) && s.config.sm >= 89 && !bias,
        (R_8I, R_32I) => {
            (d.compute, d.scale) == (COMPUTE_32I, R_32I)
                && tn
                && whole(4)
                && !scaled
                && d.epilogue == 1
        }
        _ => false,
    };
    let product = Product {
        a,
        b,
        out,
        transposed: d.transposed,
        bias: d.bias,
        gelu,
        scales: d.scales,
        at: [0; 3],
    };
    good.then_some(product).ok_or(NOT_SUPPORTED)
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: usize,
    desc: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    preference: usize,
    asked: c_int,
    out: *mut Proposal,
    count: *mut c_int,
) -> Status {
    call("cublasLtMatmulAlgoGetHeuristic", |s| {
        s.blas.handles.get(&handle).ok_or(NOT_INITIALIZED)?;
        let known = s.blas.preferences.get(&preference);
        let most = *known.ok_or(INVALID_VALUE)?;
        let problem = problem(s, desc, [a, b, c, d])?;
        let fits = [WORKSPACE, 0].into_iter().filter(|w| *w <= most);
        let mut found = 0;
        for workspace in fits.take(usize::try_from(asked).unwrap_or(0)) {
            let mut algorithm = [0; 8];
            algorithm[..2].copy_from_slice(&[workspace, problem.number()]);
            let proposal = Proposal {
                algorithm,
                workspace: workspace as usize,
                state: 0,
                waves: 1.0,
                reserved: [0; 4],
            };
            // SAFETY: the caller has room for as many as it asks for.
            unsafe { give(out.add(found), proposal)? };
            found += 1;
        }
        // SAFETY: the caller's pointer.
        unsafe { give(count, found as c_int) }
    })
}

/// # Safety
/// See above.
#[unsafe(no_mangle)]
unsafe extern "C" fn cublasLtMatmul(
    handle: usize,
    desc: usize,
    alpha: *const c_void,
    a: u64,
    a_layout: usize,
    b: u64,
    b_layout: usize,
    beta: *const c_void,
    c: u64,
    c_layout: usize,
    d: u64,
    d_layout: usize,
    algorithm: *const [u64; 8],
    workspace: u64,
    workspace_bytes: usize,
    stream: usize,
) -> Status {
    call("cublasLtMatmul", |s| {
        s.usable().map_err(|_| NOT_INITIALIZED)?;
        s.blas.handles.get(&handle).ok_or(NOT_INITIALIZED)?;
        let layouts = [a_layout, b_layout, c_layout, d_layout];
        let mut product = problem(s, desc, layouts)?;
        // SAFETY: the caller's pointer, null or valid.
        let algorithm = unsafe { algorithm.as_ref() }.ok_or(INVALID_VALUE)?;
        let enough = workspace_bytes as u64 >= algorithm[0];
        let placed = workspace.is_multiple_of(16) && (algorithm[0] == 0 || workspace != 0);
        if algorithm[1] != product.number() || !enough || !placed || c != d {
            return Err(INVALID_VALUE);
        }
        // SAFETY: one number each of the type in which the sums are scaled.
        let (alpha, beta) = unsafe {
            match product.out.ty {
                R_32I => (
                    f64::from(take::<i32>(alpha, 4)?),
                    f64::from(take::<i32>(beta, 4)?),
                ),
                _ => (
                    f64::from(take::<f32>(alpha, 4)?),
                    f64::from(take::<f32>(beta, 4)?),
                ),
            }
        };
        if alpha != 1.0 || beta != 0.0 || [a, b, d].iter().any(|at| !at.is_multiple_of(16)) {
            return Err(NOT_SUPPORTED);
        }
        product.at = [a, b, d];
        let pushed = s.push(stream, Op::Product(Box::new(product)));
        pushed.map_err(|_| INVALID_VALUE)
    })
}
