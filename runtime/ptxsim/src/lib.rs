//! Executes PTX **text** on the CPU as the ISA says, finds races and other faults, and counts traffic.
//!
//! ```
//! use ptxsim::{Arg, Launch, Memory, Module, Options, Simulator};
//!
//! let text = "
//!     .version 7.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry double(.param .u64 x) {
//!         .reg .b64 %rd<4>;
//!         .reg .b32 %r<4>;
//!         ld.param.u64 %rd1, [x];
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd2, %r1, 4;
//!         add.s64 %rd3, %rd1, %rd2;
//!         ld.global.u32 %r2, [%rd3];
//!         shl.b32 %r3, %r2, 1;
//!         st.global.u32 [%rd3], %r3;
//!         ret;
//!     }";
//! let module = Module::parse(text)?;
//! let mut memory = Memory::new();
//! let x = memory.alloc(16)?;
//! memory.write(x, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0])?;
//! let launch = Launch::new([1, 1, 1], [4, 1, 1], vec![Arg::Ptr(x)]);
//! let report = Simulator::new(Options::default()).launch(&module, "double", &launch, &mut memory)?;
//! let mut out = [0; 16];
//! memory.read(x, &mut out)?;
//! assert_eq!(out[12], 8);
//! assert_eq!(report.dram_read, 32);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

mod alu;
mod check;
mod count;
mod decode;
mod exec;
mod fault;
mod gpu;
mod isa;
mod launch;
mod memory;
mod module;
mod num;
mod parse;
mod report;
mod sass;
mod time;

pub use decode::ParseOptions;
pub use exec::{ElementType, OobFill, Simulator, Swizzle, TensorMap, TensorMapError};
pub use fault::{Fault, FaultKind};
pub use gpu::{GPUS, Gpu};
pub use isa::Class;
pub use isa::tensor::TensorKind;
pub use launch::{Accumulate, Approx, Arg, Launch, Options};
pub use memory::{DevPtr, Memory, MemoryError};
pub use module::Module;
pub use parse::ast::Param;
pub use parse::error::{ParseError, ParseErrorKind, Pos};
pub use report::{Report, Wait};
pub use time::Prediction;
