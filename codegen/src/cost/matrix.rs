//! How long a product on tensor cores takes.
//!
//! ```text
//! t = max( bytes / min(bandwidth · e_mem, blocks · in flight / latency),
//!          waves · (tile operations / (rate/SMs · e_op) + tile conversions / (ALU rate/SMs)) )
//! waves = ⌈tiles / SMs⌉
//! ```
//!
//! A tile is computed whole whether its rows and columns exist or not. An operand that is not in
//! the tensor core's format is converted each time a tile reads it, on the ALUs, one slot for an
//! element: the four instructions for four codes of the published 4-bit kernels (two LOP3, one
//! HSUB2, one HFMA2).
//!
//! FP8 runs at its own rate only by Hopper's `wgmma`; `mma.sync` on FP8 is emulated on sm_90 and
//! does not exist before sm_89, so without `wgmma` codes become f16.

use super::count;
use crate::kernels::gemm;
use crate::target::{GEMM_TILES, Machine, Target};
use qcc_ir::DType;
use qcc_ir::exec::Bindings;
use qcc_ir::graph::{OpKind, TensorType};

/// Share of the bandwidth: public kernels for 8- and 16-bit weights reach 64 to 69 % of an H100's
/// at up to 16 rows and 4k to 8k columns (vllm#5514, cutlass#1139, humming#2).
const MEMORY: f64 = 0.68;
/// The same with converted weights: public 4-bit kernels stay between 37 and 81 % (humming#2,
/// vllm#23198).
const MEMORY_CONVERTED: f64 = 0.55;
/// `mma.sync` reaches at most about 75 % of a Hopper's peak (vllm#7174); a three-stage tile
/// without a persistent grid about two thirds of that.
const MMA: f64 = 0.5;
/// `wgmma` with a TMA ring reaches 59 to 82 % in public FP8 kernels (DeepGEMM, cuBLASLt).
const WGMMA: f64 = 0.6;
/// Seconds from a load to its data under load.
const LATENCY: f64 = 0.8e-6;
/// Bytes of the inner dimension in a stage of a tile's ring.
const STAGE_DEPTH: f64 = 128.0;
/// Tile and stages of the ring for `wgmma`.
const WGMMA_TILE: (f64, f64, f64) = (128.0, 128.0, 4.0);

/// A product as a kernel computes it.
pub(super) struct Product {
    tiles: f64,
    /// Operations of a tile, at the rate of this format.
    ops: f64,
    format: DType,
    efficiency: f64,
    /// Elements that a tile converts.
    conversions: f64,
    /// Bytes of a block that are on their way.
    in_flight: f64,
}

impl Product {
    /// The product of a linear layer that tensor cores of the target compute, if they do.
    ///
    /// # Errors
    /// When a size is not bound.
    pub(super) fn of(
        target: &Target,
        kind: &OpKind,
        operands: &[&TensorType],
        bind: Bindings<'_>,
    ) -> Result<Option<Product>, String> {
        if !matches!(kind, OpKind::Linear { .. }) || target.machine == Machine::Cpu {
            return Ok(None);
        }
        let (x, w) = (operands[0], operands[1]);
        let Some(how) = gemm::meeting(x, w) else {
            return Ok(None);
        };
        let rows = count(&x.shape[..x.rank() - 1], bind)?;
        let columns = count(&w.shape[..1], bind)?;
        let depth = count(&w.shape[1..], bind)?;
        let wgmma = gemm::wgmma_rows(x, w, target).is_some_and(|least| rows >= least as f64);
        let (m, n, stages) = match wgmma {
            true => WGMMA_TILE,
            false => {
                let fits = GEMM_TILES.iter().find(|t| rows <= t.most_rows as f64);
                let t = fits.unwrap_or(&GEMM_TILES[GEMM_TILES.len() - 1]);
                (f64::from(t.rows), f64::from(t.columns), f64::from(t.stages))
            }
        };
        let (left, right) = match wgmma {
            true => (false, false),
            false => how.converts(),
        };
        let converted = f64::from(u8::from(left)) * m + f64::from(u8::from(right)) * n;
        Ok(Some(Product {
            tiles: (rows / m).ceil() * (columns / n).ceil(),
            ops: 2.0 * m * n * depth,
            format: if wgmma { DType::E4M3 } else { how.format() },
            efficiency: if wgmma { WGMMA } else { MMA },
            conversions: converted * depth,
            in_flight: (m + n) * STAGE_DEPTH * (stages - 1.0),
        }))
    }

    /// Seconds on the target's default device, without the launch.
    pub(super) fn seconds(&self, target: &Target, moved: f64) -> f64 {
        let device = target.device();
        let sms = f64::from(device.sms);
        let share = match self.conversions > 0.0 {
            true => MEMORY_CONVERTED,
            false => MEMORY,
        };
        let blocks = self.tiles.clamp(1.0, sms);
        let bandwidth = (device.gbps * 1e9 * share).min(blocks * self.in_flight / LATENCY);
        // A multiply-add is two operations, any other instruction is one slot.
        let alu = device.f32_tflops * 1e12 / 2.0;
        let rate = target.matrix_rate(self.format) * self.efficiency;
        let tile = sms * (self.ops / rate + self.conversions / alu);
        (moved / bandwidth).max((self.tiles / sms).ceil() * tile)
    }
}
