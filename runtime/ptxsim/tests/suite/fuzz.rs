//! Broken texts and broken kernels end in an error or a fault, never in a panic.

use ptxsim::{Module, Options, Simulator};

use crate::support::{compare, root, setup};

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }
}

/// Cuts a text into words and the characters between them.
fn pieces(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = false;
    for c in text.chars() {
        let is = c.is_alphanumeric() || "_%$.:".contains(c);
        match out.last_mut() {
            Some(last) if is && word => last.push(c),
            _ => out.push(c.into()),
        }
        word = is;
    }
    out
}

fn mutate(parts: &[String], rng: &mut Rng) -> String {
    let mut parts = parts.to_vec();
    for _ in 0..1 + rng.below(3) {
        let (i, j) = (rng.below(parts.len()), rng.below(parts.len()));
        match rng.below(5) {
            0 => {
                parts.remove(i);
            }
            1 => parts.swap(i, j),
            2 => parts[i] = parts[j].clone(),
            3 => {
                parts[i] = [
                    "0",
                    "-1",
                    "4294967295",
                    "0f7fc00000",
                    "%r1",
                    "%rd1",
                    "}",
                    "{",
                    ";",
                    ".v4",
                    "999999999999999999999",
                ][rng.below(11)]
                .into()
            }
            _ => {
                let digits: String = parts[i]
                    .chars()
                    .map(|c| {
                        if c.is_ascii_digit() {
                            char::from(b'0' + rng.below(10) as u8)
                        } else {
                            c
                        }
                    })
                    .collect();
                parts[i] = digits;
            }
        }
    }
    parts.concat()
}

fn fuzz(case: &str, seed: u64, rounds: usize) -> (usize, usize) {
    let dir = root().join(case);
    let text = std::fs::read_to_string(dir.join("kernel.ptx")).expect("kernel.ptx");
    let parts = pieces(&text);
    let mut rng = Rng(seed);
    let (mut read, mut ran) = (0, 0);
    for round in 0..rounds {
        let mutant = mutate(&parts, &mut rng);
        let Ok(module) = Module::parse(&mutant) else {
            continue;
        };
        read += 1;
        let mut s = setup(&dir);
        let races = round % 2 == 0;
        let options = Options {
            schedule_seed: round as u64 % 3,
            races,
            uninit: races,
            max_instructions: 20_000,
            ..Options::default()
        };
        let result = Simulator::new(options).launch(&module, &s.entry, &s.launch, &mut s.memory);
        ran += usize::from(result.is_ok());
        // Whatever was computed can be read back.
        let _ = s
            .outputs
            .iter()
            .filter(|o| compare(&s.memory, o).is_ok())
            .count();
    }
    (read, ran)
}

#[test]
fn broken_kernels_do_not_panic() {
    let cases = [
        "triton_dot_f16_sm80",
        "triton_dot_s8_sm90",
        "triton_tma_f16_sm90",
        "triton_scan_sm80",
        "cuda_pipeline_sm90",
        "cuda_warp_sm80",
        "cuda_cluster_sm90",
        "cuda_floats_sm80",
    ];
    for (i, case) in cases.iter().enumerate() {
        let (read, ran) = fuzz(case, 77 + i as u64, 150);
        assert!(
            read > 10 && ran > 0,
            "{case}: {read} texts were read, {ran} ran"
        );
    }
}
