//! Plan files: written, read back, damaged, and written on failing disks.

mod atomic;
mod damage;
mod format;

use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::ledger::{Candidate, Decision, Ledger, Topic};
use qcc_ir::plan::{
    Arena, Arg, Buffer, FormatVersion, Kernel, Launch, ModuleEntry, Plan, Port, Step, Symbol,
    TargetSection, WeightEntry,
};
use std::collections::BTreeMap;

use super::{AlignedBytes, PlanContents, PlanFile, Verify, plan_in_memory};

/// A plan with everything in it, and the bytes of its weights.
struct Sample {
    plan: Plan,
    ledger: Ledger,
    texts: BTreeMap<String, String>,
}

impl Sample {
    /// Weights of several types; the largest has `rows` rows of 1000 bytes.
    fn new(rows: u64) -> Self {
        let weight = |name: &str, dtype: DType, dims: &[u64]| WeightEntry {
            name: name.to_string(),
            dtype,
            dims: dims.to_vec(),
            layout: WeightEntry::ROW_MAJOR.to_string(),
            entry: name.to_string(),
            bytes: WeightEntry::dense_bytes(dtype, dims).unwrap(),
            source: format!("model.{name}"),
        };
        let mut packed = weight("fc.w", DType::E4M3, &[rows, 1000]);
        packed.layout = "tiled".to_string();
        packed.entry = "fc.w@tiled".to_string();
        let plan = Plan {
            format: FormatVersion::CURRENT,
            qcc_version: "0.1.0".to_string(),
            model: "mlp".to_string(),
            model_hash: "00ff00".to_string(),
            options: [("fp8".to_string(), "dynamic".to_string())].into(),
            symbols: vec![symbol("N", 1, 4096)],
            inputs: vec![port("x", DType::F32, &["N", "1000"])],
            outputs: vec![port("y", DType::F16, &["N", "64"])],
            modules: vec![ModuleEntry {
                id: "m0".to_string(),
                entry: "module.m0".to_string(),
                func: "main".to_string(),
            }],
            weights: vec![
                weight("bias", DType::F32, &[3, 5]),
                weight("fc.w", DType::E4M3, &[rows, 1000]),
                packed,
                weight("odd", DType::I4, &[3, 7]),
                weight("none", DType::F16, &[0, 4]),
            ],
            targets: vec![cpu_section(), gpu_section()],
        };
        let mut ledger = Ledger::new();
        let candidate = Candidate::new("fp8").error(0.1).predicted("1", 1.0 / 3.0);
        ledger.record(Decision::new("MatMul_3", Topic::Scheme, "fp8").consider(candidate));
        let texts = [
            ("module.m0", "func @main() -> () {\n  return\n}\n"),
            ("kernels", ".version 8.0\n.target sm_80\n.address_size 64\n"),
        ];
        let texts = texts.map(|(k, v)| (k.to_string(), v.to_string())).into();
        Sample {
            plan,
            ledger,
            texts,
        }
    }

    fn contents(&self) -> PlanContents<'_> {
        PlanContents {
            plan: &self.plan,
            ledger: &self.ledger,
            texts: &self.texts,
        }
    }

    /// Bytes that differ between weights and between places.
    fn weight_bytes(&self, entry: &str) -> Vec<u8> {
        let i = self.plan.weights.iter().position(|w| w.entry == entry);
        let i = i.unwrap() as u64;
        let bytes = self.plan.weights[i as usize].bytes;
        (0..bytes)
            .map(|b| (b * 31 + (b >> 8) + i * 101) as u8)
            .collect()
    }

    /// The file in memory; weights written in pieces of `step` bytes.
    fn file(&self, step: usize) -> Vec<u8> {
        let (bytes, written) = plan_in_memory(&self.contents(), |w, put| {
            let data = self.weight_bytes(&w.entry);
            data.chunks(step).try_for_each(&mut *put)
        })
        .unwrap();
        assert_eq!(bytes.len() as u64, written.bytes);
        bytes.to_vec()
    }
}

fn open(bytes: &[u8], verify: Verify) -> Result<PlanFile> {
    PlanFile::from_bytes(AlignedBytes::copy_of(bytes), verify)
}

fn symbol(name: &str, min: u64, max: u64) -> Symbol {
    Symbol {
        name: name.to_string(),
        min,
        max,
        points: vec![1, 16],
    }
}

fn port(name: &str, dtype: DType, dims: &[&str]) -> Port {
    Port {
        name: name.to_string(),
        dtype,
        dims: dims.iter().map(|d| d.to_string()).collect(),
    }
}

fn cpu_section() -> TargetSection {
    TargetSection {
        target: "cpu".to_string(),
        module: "m0".to_string(),
        min_driver: None,
        steps: vec![Step::cpu("y")],
        arena: Arena::default(),
        outputs: Vec::new(),
        kernels: Vec::new(),
    }
}

fn gpu_section() -> TargetSection {
    let weight = Arg::Weight {
        name: "fc.w".to_string(),
        layout: "tiled".to_string(),
    };
    let launch = Launch {
        kernel: "gemm".to_string(),
        grid: ["(N + 127)//128", "1", "1"].map(str::to_string),
        block: [256, 1, 1],
        cluster: None,
        shared: 1024,
        args: vec![
            Arg::Value("x".to_string()),
            weight.clone(),
            Arg::Value("scratch".to_string()),
            Arg::Value("product".to_string()),
            Arg::Dim {
                expr: "N".to_string(),
                dtype: DType::U32,
            },
            Arg::TensorMap {
                of: Box::new(weight),
                dtype: DType::U8,
                dims: vec!["1000".to_string(), "N".to_string()],
                strides: vec!["1000".to_string()],
                tile: vec![128, 64],
                swizzle: 128,
            },
        ],
    };
    TargetSection {
        target: "sm_80".to_string(),
        module: "m0".to_string(),
        min_driver: Some("525.60".to_string()),
        steps: vec![Step::launch("y", launch)],
        arena: Arena {
            bytes: "4*N".to_string(),
            buffers: vec![Buffer {
                value: "scratch".to_string(),
                offset: "0".to_string(),
                bytes: "4*N".to_string(),
            }],
        },
        outputs: vec!["product".to_string()],
        kernels: vec![Kernel {
            name: "gemm".to_string(),
            arch: "sm_80".to_string(),
            entry: "kernels".to_string(),
            symbol: "gemm_128x64".to_string(),
        }],
    }
}
