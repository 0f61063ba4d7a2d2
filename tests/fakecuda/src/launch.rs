//! Launches: the checks of the driver, and the arguments taken at the call.

use ptxsim::{Arg, Launch};
use std::ffi::{c_uint, c_void};

use crate::state::Op;
use crate::{Code, INVALID_HANDLE, INVALID_VALUE, with_context};

const CLUSTER: c_uint = 4;
const DEPENDENT: c_uint = 6;

/// `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: usize,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CUlaunchAttribute`: the value is a union of 64 bytes.
#[repr(C)]
struct Attribute {
    id: c_uint,
    pad: [u8; 4],
    value: [u32; 16],
}

/// # Safety
/// As the driver's documentation says.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernelEx(
    config: *const Config,
    function: usize,
    params: *const *const c_void,
    extra: *const c_void,
) -> Code {
    with_context("cuLaunchKernelEx", |s| {
        // SAFETY: the caller's pointer, null or valid.
        let config = unsafe { config.as_ref() }.ok_or(INVALID_VALUE)?;
        let f = s.functions.get(&function).cloned().ok_or(INVALID_HANDLE)?;
        let module = s.modules.get(&f.module).cloned().ok_or(INVALID_HANDLE)?;
        let threads: u64 = config.block.iter().map(|d| u64::from(*d)).product();
        let blocks: u64 = config.grid.iter().map(|d| u64::from(*d)).product();
        let large = config.grid[1] > 65535 || config.grid[2] > 65535;
        let shared = config.shared > f.max_shared;
        if !extra.is_null() || !(1..=1024).contains(&threads) || blocks == 0 || large || shared {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller's array.
        let cluster = unsafe { cluster(config, f.large_clusters) }?;
        let declared = module.params(&f.name).ok_or(INVALID_HANDLE)?;
        let mut args = Vec::new();
        for (i, p) in declared.iter().enumerate() {
            // SAFETY: the caller gives a pointer for each declared parameter, to as many bytes.
            args.push(unsafe {
                let at = *params.add(i);
                let bytes = std::slice::from_raw_parts(at.cast::<u8>(), p.size as usize);
                Arg::Bytes(bytes.to_vec())
            });
        }
        let mut launch = Launch::new(config.grid, config.block, args);
        launch.cluster = cluster;
        launch.shared_bytes = config.shared;
        let op = Op::Launch {
            module,
            name: f.name,
            launch,
        };
        s.push(config.stream, op)
    })
}

/// The cluster that the attributes ask for; zeros for none.
///
/// # Safety
/// The attributes are as many as the configuration says.
unsafe fn cluster(config: &Config, large: bool) -> Result<[u32; 3], Code> {
    let mut cluster = [0; 3];
    for i in 0..config.count as usize {
        // SAFETY: below the count.
        let attribute = unsafe { &*config.attributes.add(i) };
        let [x, y, z, ..] = attribute.value;
        match attribute.id {
            CLUSTER => cluster = [x, y, z],
            DEPENDENT if x <= 1 => {}
            _ => return Err(INVALID_VALUE),
        }
    }
    if cluster == [0; 3] {
        return Ok(cluster);
    }
    let blocks: u32 = cluster.iter().product();
    let divides = (0..3).all(|i| cluster[i] > 0 && config.grid[i].is_multiple_of(cluster[i]));
    let most = if large { 16 } else { 8 };
    if divides && blocks <= most {
        Ok(cluster)
    } else {
        Err(INVALID_VALUE)
    }
}
