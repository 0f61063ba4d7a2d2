//! The W4A16 main loop computes what its definition says, by the kernel evaluator and as PTX in the
//! simulator (which finds no race in its ring).

use qcc_codegen::kernels::hard::w4a16::W4A16;
use qcc_ir::DType;
use qcc_ir::kernel::eval::{decode, encode};
use qcc_tests::on_sim::{Input, OnSim, Shape, evaluate};

/// Numbers that look random and are exact in f16.
fn noise(n: usize, seed: u32) -> Vec<f64> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from((state >> 24) as i32 - 128) / 64.0
        })
        .collect()
}

struct Problem {
    config: W4A16,
    tokens: usize,
    rows: usize,
    depth: usize,
    slices: usize,
}

impl Problem {
    fn codes(&self) -> Vec<u8> {
        noise(self.rows * self.depth, 7)
            .iter()
            .map(|v| (v * 64.0 + 128.0) as u8 % 16)
            .collect()
    }

    /// Weights in the kernel's layout.
    fn packed(&self, codes: &[u8]) -> Vec<u8> {
        let groups = self.depth / 128;
        let mut words = vec![0u32; self.rows * self.depth / 8];
        for (i, &q) in codes.iter().enumerate() {
            let (row, k) = (i / self.depth, i % self.depth);
            let (word, nibble) = W4A16::nibble_place(row as u32 % 16, k as u32 % 128);
            let block = row / 16 * groups + k / 128;
            words[block * 256 + word as usize] |= u32::from(q) << (4 * nibble);
        }
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    /// Scales `[row tile][group][16]` from `[row][group]`.
    fn packed_scales(&self, scales: &[f64]) -> Vec<f64> {
        let groups = self.depth / 128;
        let at = |tile: usize, group: usize, row: usize| scales[(tile * 16 + row) * groups + group];
        let tiles = 0..self.rows / 16;
        tiles
            .flat_map(|t| (0..groups).flat_map(move |g| (0..16).map(move |r| at(t, g, r))))
            .collect()
    }

    fn check(&self) {
        let groups = self.depth / 128;
        let (codes, scales) = (self.codes(), noise(self.rows * groups, 3));
        let x = noise(self.tokens * self.depth, 11);
        let kernel = self.config.build("w4a16").expect("a valid kernel");
        let weights = self.packed(&codes);
        let scale_bytes = encode(DType::F16, &self.packed_scales(&scales));
        let x_bytes = encode(DType::F16, &x);
        let inputs = [
            Input::Memory(weights),
            Input::Memory(scale_bytes),
            Input::Memory(x_bytes),
            Input::Memory(vec![0; self.slices * self.tokens * self.rows * 4]),
            Input::Scalar(self.tokens as u64),
            Input::Scalar(self.rows as u64),
            Input::Scalar(self.depth as u64),
        ];
        let shape = Shape {
            grid: [self.rows as u32 / 128, self.slices as u32, 1],
            shared: self.config.shared_bytes(),
        };
        let memory = evaluate(&kernel, shape, &inputs).expect("runs");
        let parts = decode(DType::F32, &memory[3]);
        self.compare(&codes, &scales, &x, &parts);
        for schedule_seed in [0, 1, 3] {
            let options = ptxsim::Options {
                schedule_seed,
                ..ptxsim::Options::default()
            };
            let mut sim = OnSim::new(&kernel, 80).expect("text that the simulator reads");
            let (memory, _) = sim.run(shape, &inputs, options).expect("no fault");
            self.compare(&codes, &scales, &x, &decode(DType::F32, &memory[3]));
        }
    }

    /// The sums of all slices against the definition in f64.
    fn compare(&self, codes: &[u8], scales: &[f64], x: &[f64], parts: &[f64]) {
        let groups = self.depth / 128;
        for token in 0..self.tokens {
            for row in 0..self.rows {
                let term = |k: usize| {
                    let q = f64::from(codes[row * self.depth + k]) - 8.0;
                    scales[row * groups + k / 128] * q * x[token * self.depth + k]
                };
                let expected: f64 = (0..self.depth).map(term).sum();
                let found: f64 = (0..self.slices)
                    .map(|s| parts[(s * self.tokens + token) * self.rows + row])
                    .sum();
                let bound: f64 = (0..self.depth).map(|k| term(k).abs()).sum::<f64>() * 1e-6;
                assert!(
                    (found - expected).abs() <= bound,
                    "token {token}, row {row}: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn w4a16_equals_its_definition() {
    let config = W4A16 {
        token_tiles: 1,
        stages: 3,
    };
    Problem {
        config,
        tokens: 5,
        rows: 128,
        depth: 640,
        slices: 1,
    }
    .check();
    Problem {
        config,
        tokens: 8,
        rows: 256,
        depth: 384,
        slices: 2,
    }
    .check();
    // More slices than groups: the last ones have nothing to do.
    Problem {
        config,
        tokens: 1,
        rows: 128,
        depth: 256,
        slices: 3,
    }
    .check();
    let config = W4A16 {
        token_tiles: 3,
        stages: 4,
    };
    Problem {
        config,
        tokens: 17,
        rows: 128,
        depth: 256,
        slices: 1,
    }
    .check();
}
