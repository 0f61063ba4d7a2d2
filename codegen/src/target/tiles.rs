//! Tile shapes of the matrix kernels, as data.

/// A tile of a matrix product with tensor cores: what one block computes, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmTile {
    /// Rows of the output.
    pub rows: u32,
    /// Rows of the weight (columns of the output, times the accumulators).
    pub columns: u32,
    /// Warps along the rows.
    pub warps_m: u32,
    /// Warps along the columns.
    pub warps_n: u32,
    /// Slots of the ring of copies, each 128 bytes of the inner dimension deep.
    pub stages: u32,
    /// The tile serves products of at most this many rows; the last one of a list any number.
    pub most_rows: u64,
}

impl GemmTile {
    /// Threads of a block.
    pub const fn threads(&self) -> u32 {
        self.warps_m * self.warps_n * 32
    }
}

/// The tiles, for the fewest rows first. The last one takes what the others leave.
///
/// All fit the shared memory of every target (99 KiB at least).
pub const GEMM_TILES: [GemmTile; 3] = [
    GemmTile {
        rows: 16,
        columns: 64,
        warps_m: 1,
        warps_n: 4,
        stages: 6,
        most_rows: 16,
    },
    GemmTile {
        rows: 64,
        columns: 64,
        warps_m: 2,
        warps_n: 2,
        stages: 4,
        most_rows: 256,
    },
    GemmTile {
        rows: 128,
        columns: 128,
        warps_m: 2,
        warps_n: 4,
        stages: 3,
        most_rows: u64::MAX,
    },
];
