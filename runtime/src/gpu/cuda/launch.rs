//! One kernel launch.
//!
//! A kernel that waits for its predecessors by itself (`griddepcontrol.wait`) is launched as a
//! dependent one: its blocks may start, and fetch what no earlier kernel writes, while the last
//! blocks of the kernel before still run. All others start after the kernel before them ended.

use cudarc::driver::sys::{
    self, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUstream,
};
use qcc_ir::diag::Result;
use std::ffi::c_void;

use super::api::{self, check};
use super::error::cannot_load;
use super::gpu::Gpu;
use super::module::Kernel;

/// Oldest driver that captures dependent launches into graphs.
const CAPTURES_DEPENDENT: u32 = 12030;

/// A kernel with its sizes and arguments.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Blocks of a cluster; none for a launch without clusters.
    pub cluster: Option<[u32; 3]>,
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// The bytes of each argument, in the order of the kernel's parameters.
    pub args: &'a [&'a [u8]],
}

/// An argument where the driver reads it: at least as aligned as any parameter.
#[repr(C, align(128))]
#[derive(Clone, Copy)]
struct Aligned([u8; 128]);

impl Gpu {
    /// Gives a launch to a stream. The context is current.
    pub(super) fn launch(&self, stream: CUstream, l: &Launch<'_>) -> Result<()> {
        let blocks = |c: [u32; 3]| c.iter().try_fold(1u32, |n, d| n.checked_mul(*d));
        let cluster = l.cluster.map_or(Some(1), blocks).unwrap_or(u32::MAX);
        let kernel = self.allowed(l.kernel, l.shared, cluster)?;
        let given = l.args.iter().map(|a| a.len());
        if !given.clone().eq(kernel.entry.params.iter().copied()) {
            let given: Vec<usize> = given.collect();
            let text = format!(
                "it takes arguments of {:?} bytes and is given {given:?}",
                kernel.entry.params
            );
            return Err(cannot_load(text));
        }
        let mut args = Vec::with_capacity(l.args.len());
        for a in l.args {
            let mut bytes = Aligned([0; 128]);
            match bytes.0.get_mut(..a.len()) {
                Some(place) => place.copy_from_slice(a),
                None => return Err(cannot_load(format!("an argument of {} bytes", a.len()))),
            }
            args.push(bytes);
        }
        let mut pointers: Vec<*mut c_void> = args
            .iter_mut()
            .map(|a| std::ptr::from_mut(a).cast())
            .collect();
        let dependent = kernel.entry.waits && api::version()? >= CAPTURES_DEPENDENT;
        let mut attributes = attributes(l.cluster, dependent);
        let config = CUlaunchConfig {
            gridDimX: l.grid[0],
            gridDimY: l.grid[1],
            gridDimZ: l.grid[2],
            blockDimX: l.block[0],
            blockDimY: l.block[1],
            blockDimZ: l.block[2],
            sharedMemBytes: l.shared,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        // SAFETY: the function takes exactly these arguments (compared above), which the driver
        // copies before it returns; config and attributes outlive the call.
        check("cuLaunchKernelEx", unsafe {
            sys::cuLaunchKernelEx(
                &config,
                kernel.function,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }
}

fn attributes(cluster: Option<[u32; 3]>, dependent: bool) -> Vec<CUlaunchAttribute> {
    use CUlaunchAttributeID::*;
    let one = |id, set: &dyn Fn(&mut CUlaunchAttributeValue)| {
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        set(&mut value);
        CUlaunchAttribute {
            id,
            pad: [0; 4],
            value,
        }
    };
    let mut out = Vec::new();
    if let Some([x, y, z]) = cluster {
        out.push(one(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &|v| {
            v.clusterDim.x = x;
            v.clusterDim.y = y;
            v.clusterDim.z = z;
        }));
    }
    if dependent {
        out.push(one(
            CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            &|v| v.programmaticStreamSerializationAllowed = 1,
        ));
    }
    out
}
