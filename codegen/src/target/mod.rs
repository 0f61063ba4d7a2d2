//! Targets: what a chip can do, and how fast.
//!
//! A GPU generation is a row of capabilities, a representative device is a row of rates. Nothing
//! else in the project depends on which generation it is: kernels ask for a capability, the
//! cost model for a rate.
//!
//! Rates are the vendors' dense figures for the device named in the row; public sources list
//! them in product data sheets.

mod table;
mod tiles;

pub use table::{DEVICES, TARGETS};
pub use tiles::{GEMM_TILES, GemmTile};

use qcc_ir::DType;

/// The kind of machine a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A CPU: the plan's section is compiled when it is loaded.
    Cpu,
    /// An NVIDIA GPU of this compute capability, `10·major + minor`.
    Gpu(u32),
}

/// How a matrix format is served by the tensor cores of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Support {
    /// Not at all: weights only, converted before use.
    None,
    /// The instruction exists, but is executed through another format.
    Emulated,
    /// Executed by the matrix units.
    Native,
}

/// A name that `--target` accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// As on the command line.
    pub name: &'static str,
    /// What kind of machine.
    pub machine: Machine,
    /// Devices of [`DEVICES`] that the cost model and the reports use, the default first.
    pub devices: &'static [&'static str],
    /// Shared memory that one block may use, in bytes.
    pub shared_bytes: u32,
    /// Architectures whose PTX a section for this target may hold, the portable one last.
    pub ptx: &'static [&'static str],
    /// One line for `qcc targets`.
    pub summary: &'static str,
}

/// What one device reaches at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// Product name.
    pub name: &'static str,
    /// Multiprocessors (cores for a CPU).
    pub sms: u32,
    /// Memory bandwidth, GB/s.
    pub gbps: f64,
    /// Memory, GB.
    pub gb: f64,
    /// Dense 16-bit float rate, TFLOP/s.
    pub f16_tflops: f64,
    /// Dense 8-bit float rate, TFLOP/s; 0 where there is none.
    pub fp8_tflops: f64,
    /// Dense 8-bit integer rate, TOP/s; 0 where there is none.
    pub int8_tops: f64,
    /// Rate of ordinary f32 arithmetic, TFLOP/s.
    pub f32_tflops: f64,
}

impl Target {
    /// The target of this name.
    pub fn find(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|t| t.name == name)
    }

    /// Whether sections of this target hold PTX.
    pub fn is_gpu(&self) -> bool {
        matches!(self.machine, Machine::Gpu(_))
    }

    /// The device whose rates predict times for this target.
    pub fn device(&self) -> &'static Device {
        let found = self
            .devices
            .first()
            .and_then(|n| DEVICES.iter().find(|d| d.name == *n));
        // INVARIANT: a test checks that every target's devices exist.
        found.unwrap_or(&DEVICES[0])
    }

    /// How products of two operands of this format are computed.
    pub fn matrix_support(&self, d: DType) -> Support {
        let cc = match self.machine {
            Machine::Cpu => {
                return match d {
                    DType::F32 | DType::I8 | DType::U8 => Support::Native,
                    DType::F64 => Support::None,
                    _ => Support::Emulated,
                };
            }
            Machine::Gpu(cc) => cc,
        };
        match d {
            DType::F16 => Support::Native,
            DType::BF16 if cc >= 80 => Support::Native,
            DType::I8 | DType::U8 => Support::Native,
            DType::I4 | DType::U4 if cc < 90 => Support::Native,
            DType::I4 | DType::U4 => Support::Emulated,
            DType::E4M3 | DType::E5M2 if cc >= 89 => Support::Native,
            _ => Support::None,
        }
    }

    /// Rate of matrix products in this format, in operations (two per multiply-add) per second;
    /// what is not native runs as 16-bit floats.
    pub fn matrix_rate(&self, d: DType) -> f64 {
        let dev = self.device();
        let tera = match (d, self.matrix_support(d)) {
            (DType::E4M3 | DType::E5M2, Support::Native) => dev.fp8_tflops,
            (DType::I8 | DType::U8, Support::Native) => dev.int8_tops,
            (DType::F32 | DType::F64, _) => dev.f32_tflops,
            _ => dev.f16_tflops,
        };
        tera * 1e12
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_device_and_a_unique_name() {
        for (i, t) in TARGETS.iter().enumerate() {
            assert!(!t.devices.is_empty(), "{}", t.name);
            for d in t.devices {
                assert!(DEVICES.iter().any(|o| o.name == *d), "{d}");
            }
            assert!(TARGETS[..i].iter().all(|o| o.name != t.name), "{}", t.name);
            assert_eq!(t.is_gpu(), !t.ptx.is_empty(), "{}", t.name);
        }
    }

    #[test]
    fn fp8_is_native_from_ada_on() {
        let support = |n: &str| Target::find(n).unwrap().matrix_support(DType::E4M3);
        assert_eq!(support("sm_80"), Support::None);
        assert_eq!(support("sm_89"), Support::Native);
        assert_eq!(support("sm_90"), Support::Native);
        assert_eq!(
            Target::find("sm_80").unwrap().matrix_rate(DType::E4M3),
            312e12
        );
    }
}
