//! Emitted kernels with their inputs and what they must leave, and edits of their text.

use ptxsim::{Accumulate, Approx, Arg as SimArg, DevPtr, Launch, Memory, Options, Simulator};
use qcc_codegen::kernels::hard::fp8_gemm::Fp8Gemm;
use qcc_codegen::kernels::hard::w4a16::W4A16;
use qcc_codegen::lower::emit_section;
use qcc_codegen::ptx::emit;
use qcc_codegen::target::Target;
use qcc_ir::eval::{self, weight_tensor};
use qcc_ir::format::{decode_slice, encode_slice};
use qcc_ir::graph::{parse, verify};
use qcc_ir::kernel::eval::{decode, encode};
use qcc_ir::plan::{Action, Arg};
use qcc_ir::{DType, Tensor};
use qcc_tests::on_sim::strict;
use std::collections::BTreeMap;

/// What becomes of a line; none when it does not hold what is to be changed.
type Change = Box<dyn Fn(&str) -> Option<String>>;

/// One change of a text.
pub(crate) struct Edit {
    what: String,
    /// Which of the lines that hold `what`; none is the last.
    nth: Option<usize>,
    /// Look upwards from there for the first line that holds this.
    above: Option<String>,
    change: Change,
}

impl Edit {
    fn new(
        what: &str,
        nth: Option<usize>,
        change: impl Fn(&str) -> Option<String> + 'static,
    ) -> Self {
        Self {
            what: what.into(),
            nth,
            above: None,
            change: Box::new(change),
        }
    }

    /// Without the line.
    pub(crate) fn drop(what: &str, nth: usize) -> Self {
        Self::new(what, Some(nth), |_| Some(String::new()))
    }

    /// `from` becomes `to` in the line.
    pub(crate) fn set(what: &str, nth: usize, from: &str, to: &str) -> Self {
        let (from, to) = (from.to_string(), to.to_string());
        Self::new(what, Some(nth), move |l| {
            l.contains(&from).then(|| l.replacen(&from, &to, 1))
        })
    }

    /// As [`Edit::set`], in the last such line.
    pub(crate) fn last(what: &str, from: &str, to: &str) -> Self {
        Self {
            nth: None,
            ..Self::set(what, 0, from, to)
        }
    }

    /// As [`Edit::set`], in the first line with `upwards` above from the line with `what`.
    pub(crate) fn above(what: &str, nth: usize, upwards: &str, from: &str, to: &str) -> Self {
        Self {
            above: Some(upwards.into()),
            ..Self::set(what, nth, from, to)
        }
    }

    /// The line becomes what a function makes of it.
    pub(crate) fn with(what: &str, nth: usize, change: impl Fn(&str) -> String + 'static) -> Self {
        Self::new(what, Some(nth), move |l| Some(change(l)))
    }

    /// The changed text; lines keep their numbers.
    pub(crate) fn apply(&self, text: &str) -> Result<String, String> {
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        let holds: Vec<usize> = (0..lines.len())
            .filter(|&i| lines[i].contains(&self.what))
            .collect();
        let found = match self.nth {
            Some(n) => holds.get(n),
            None => holds.last(),
        };
        let Some(mut at) = found.copied() else {
            return Err(format!("{} lines hold `{}`", holds.len(), self.what));
        };
        if let Some(above) = &self.above {
            at = (0..at)
                .rev()
                .find(|&i| lines[i].contains(above))
                .ok_or("no such line above")?;
        }
        let changed =
            (self.change)(&lines[at]).ok_or_else(|| format!("no change in `{}`", lines[at]))?;
        if changed == lines[at] {
            return Err(format!("`{changed}` stays as it was"));
        }
        lines[at] = changed;
        Ok(lines.join("\n"))
    }
}

/// What gave a broken copy away.
pub(crate) struct Found {
    pub(crate) kind: String,
    pub(crate) op: String,
    pub(crate) line: u32,
    message: String,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

type Prepare = Box<dyn Fn(&mut Memory) -> (Vec<SimArg>, DevPtr, u64)>;

/// A kernel with its inputs.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) text: String,
    entry: String,
    launch: Launch,
    prepare: Prepare,
    want: Vec<f64>,
    dtype: DType,
    tolerance: f64,
}

impl Case {
    /// Runs a text under several schedules; the first fault or wrong result.
    pub(crate) fn judge(&self, text: &str) -> Option<Found> {
        (0..4).find_map(|schedule_seed| {
            let options = Options {
                schedule_seed,
                ..Options::default()
            };
            self.run(text, options)
        })
    }

    /// The fault or wrong result of one run.
    fn run(&self, text: &str, options: Options) -> Option<Found> {
        let module = strict(text).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let mut memory = Memory::new();
        let (args, out, bytes) = (self.prepare)(&mut memory);
        let launch = Launch {
            args,
            ..self.launch.clone()
        };
        let options = Options {
            max_instructions: 1 << 22,
            ..options
        };
        let run = Simulator::new(options).launch(&module, &self.entry, &launch, &mut memory);
        if let Err(f) = run {
            return Some(Found {
                kind: f.kind.name().into(),
                op: f.note.clone().unwrap_or_default(),
                line: f.line,
                message: f.to_string(),
            });
        }
        self.differs(&memory, out, bytes).map(|message| Found {
            kind: "wrong result".into(),
            op: String::new(),
            line: 0,
            message,
        })
    }

    /// The text as emitted has no fault, under both models of tensor cores and both ends of the
    /// errors of approximate functions.
    fn is_right(&self) {
        let models = [Accumulate::Exact, Accumulate::Hopper];
        let ends = models.into_iter().zip([Approx::Low, Approx::High]);
        let found = self.judge(&self.text).or_else(|| {
            ends.into_iter().find_map(|(accumulate, approx)| {
                let options = Options {
                    accumulate,
                    approx,
                    ..Options::default()
                };
                self.run(&self.text, options)
            })
        });
        assert!(found.is_none(), "{}: {found:?}", self.name);
    }

    fn differs(&self, memory: &Memory, out: DevPtr, bytes: u64) -> Option<String> {
        let mut content = vec![0; bytes as usize];
        memory
            .read(out, &mut content)
            .expect("the output is allocated");
        let got = decode(self.dtype, &content);
        let (mut error, mut norm) = (0.0, 0.0);
        for (g, w) in got.iter().zip(&self.want) {
            error += (g - w) * (g - w);
            norm += w * w;
        }
        let relative = (error / norm).sqrt();
        // A NaN is wrong too.
        let right = relative <= self.tolerance;
        (!right).then(|| format!("relative error {relative:e}"))
    }
}

fn put(memory: &mut Memory, bytes: &[u8]) -> DevPtr {
    let p = memory.alloc(bytes.len() as u64).expect("memory");
    memory.write(p, bytes).expect("in bounds");
    p
}

/// The only kernel of a module of one op whose sizes are numbers; its result is called `y`.
pub(crate) fn graph(name: &str, text: &str) -> Case {
    let m = parse(text).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(verify(&m).is_empty(), "{:?}", verify(&m));
    let target = Target::find("sm_80").expect("a target");
    let (section, texts) = emit_section(&m, "main", target).unwrap_or_else(|e| panic!("{e:?}"));
    let f = &m.funcs[0];
    let mut buffers: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut inputs = Vec::new();
    for (i, v) in f.params.iter().enumerate() {
        let ty = f.ty(*v);
        let dims: Vec<u64> = ty
            .shape
            .iter()
            .map(|d| d.to_string().parse().expect("a number"))
            .collect();
        let mut t = Tensor::zeros(ty.elem.storage(), &dims).expect("a size");
        let values = eval::normal(i as u64 + 1, 1.0, t.numel());
        encode_slice(t.dtype(), &values, t.bytes_mut()).expect("encodes");
        buffers.insert(f.value(*v).name.clone(), t.bytes().to_vec());
        inputs.push(t);
    }
    for w in &m.weights {
        buffers.insert(
            w.name.clone(),
            weight_tensor(w).expect("a weight").bytes().to_vec(),
        );
    }
    let want = eval::run(&m, &inputs)
        .expect("the oracle runs")
        .swap_remove(0);
    let mut numbers = vec![0f64; want.numel()];
    decode_slice(want.dtype(), want.bytes(), &mut numbers).expect("decodes");
    let Action::Launch(l) = &section.steps[0].run[0].actions[0] else {
        panic!("{:?}", section.steps)
    };
    let (args, bytes) = (l.args.clone(), want.bytes().len() as u64);
    let kernel = section.kernel(&l.kernel).expect("a kernel");
    let mut launch = Launch::new(
        [0, 1, 2].map(|i| l.grid[i].parse().expect("a number")),
        l.block,
        vec![],
    );
    launch.shared_bytes = l.shared;
    let prepare = move |memory: &mut Memory| {
        let out = memory.alloc(bytes).expect("memory");
        let arg = |a: &Arg| match a {
            Arg::Value(n) if n == "y" => SimArg::Ptr(out),
            Arg::Value(n) | Arg::Weight { name: n, .. } => SimArg::Ptr(put(memory, &buffers[n])),
            Arg::Dim { expr, .. } => SimArg::U32(expr.parse().expect("a number")),
            Arg::TensorMap { .. } | Arg::Faults => panic!("{a:?} is not expected here"),
        };
        (args.iter().map(arg).collect(), out, bytes)
    };
    let case = Case {
        name: name.into(),
        text: texts[&kernel.entry].clone(),
        entry: kernel.symbol.clone(),
        launch,
        prepare: Box::new(prepare),
        want: numbers,
        dtype: want.dtype(),
        tolerance: 2e-3,
    };
    case.is_right();
    case
}

fn noise(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// The FP8 GEMM with its ring of tensor-map copies on a problem that fills no tile.
pub(crate) fn fp8_gemm() -> Case {
    let (m, n, depth) = (130usize, 70usize, 656usize);
    let config = Fp8Gemm {
        bn: 64,
        stages: 4,
        out: DType::BF16,
        even_n: true,
    };
    let kernel = config.build("fp8_gemm").expect("a valid kernel");
    let module = emit(&[kernel], 80).expect("an instruction for each operation");
    let codes = |n, seed| -> Vec<u8> { noise(n, seed).iter().map(|b| b & 0xd7).collect() };
    let (a, b) = (codes(m * depth, 1), codes(n * depth, 2));
    let (x, w) = (decode(DType::E4M3, &a), decode(DType::E4M3, &b));
    let dot = |i: usize, j: usize| {
        (0..depth)
            .map(|k| x[i * depth + k] * w[j * depth + k])
            .sum()
    };
    let want = (0..m * n).map(|at| dot(at / n, at % n)).collect();
    let ones = |n| encode(DType::F32, &vec![1.0; n]);
    let bytes = (m * n * 2) as u64;
    let prepare = move |memory: &mut Memory| {
        let map = |memory: &mut Memory, data: &[u8], rows: usize, tile: u32| {
            let map = ptxsim::TensorMap {
                element: ptxsim::ElementType::U8,
                address: put(memory, data).0,
                dims: vec![depth as u64, rows as u64],
                strides: vec![depth as u64],
                box_dims: vec![128, tile],
                swizzle: ptxsim::Swizzle::B128,
                fill: ptxsim::OobFill::Zero,
            };
            SimArg::Bytes(map.encode().expect("a tensor map").to_vec())
        };
        let maps = [map(memory, &a, m, 128), map(memory, &b, n, 64)];
        let scales = [ones(m), ones(n)].map(|s| SimArg::Ptr(put(memory, &s)));
        let out = memory.alloc(bytes).expect("memory");
        let sizes = [m, n, depth].map(|v| SimArg::U32(v as u32));
        let args = maps
            .into_iter()
            .chain(scales)
            .chain([SimArg::Ptr(out)])
            .chain(sizes);
        (args.collect(), out, bytes)
    };
    let mut launch = Launch::new([2, 1, 1], module.entries[0].launch.block, vec![]);
    launch.shared_bytes = config.shared_bytes();
    let case = Case {
        name: "fp8_gemm".into(),
        text: module.text,
        entry: "fp8_gemm".into(),
        launch,
        prepare: Box::new(prepare),
        want,
        dtype: DType::BF16,
        tolerance: 4e-3,
    };
    case.is_right();
    case
}

/// The W4A16 loop with fewer tokens than its tile.
pub(crate) fn w4a16() -> Case {
    let (tokens, rows, depth) = (5usize, 128usize, 640usize);
    let config = W4A16 {
        token_tiles: 1,
        stages: 3,
    };
    let kernel = config.build("w4a16").expect("a valid kernel");
    let module = emit(&[kernel], 80).expect("an instruction for each operation");
    let codes: Vec<u32> = noise(rows * depth, 7)
        .iter()
        .map(|b| u32::from(b % 16))
        .collect();
    let mut words = vec![0u32; rows * depth / 8];
    for (i, &q) in codes.iter().enumerate() {
        let (row, k) = (i / depth, i % depth);
        let (word, nibble) = W4A16::nibble_place(row as u32 % 16, k as u32 % 128);
        let block = row / 16 * (depth / 128) + k / 128;
        words[block * 256 + word as usize] |= q << (4 * nibble);
    }
    let weights: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let x: Vec<f64> = noise(tokens * depth, 11)
        .iter()
        .map(|b| f64::from(*b) / 64.0 - 2.0)
        .collect();
    let term =
        |t: usize, r: usize, k: usize| (f64::from(codes[r * depth + k]) - 8.0) * x[t * depth + k];
    let want = (0..tokens * rows)
        .map(|i| (0..depth).map(|k| term(i / rows, i % rows, k)).sum())
        .collect();
    let buffers = [
        weights,
        encode(DType::F16, &vec![1.0; rows * depth / 128]),
        encode(DType::F16, &x),
    ];
    let bytes = (tokens * rows * 4) as u64;
    let prepare = move |memory: &mut Memory| {
        let mut args: Vec<SimArg> = buffers
            .iter()
            .map(|b| SimArg::Ptr(put(memory, b)))
            .collect();
        let out = memory.alloc(bytes).expect("memory");
        args.push(SimArg::Ptr(out));
        args.extend([tokens, rows, depth].map(|v| SimArg::U32(v as u32)));
        (args, out, bytes)
    };
    let mut launch = Launch::new(
        [rows as u32 / 128, 1, 1],
        module.entries[0].launch.block,
        vec![],
    );
    launch.shared_bytes = config.shared_bytes();
    let case = Case {
        name: "w4a16".into(),
        text: module.text,
        entry: "w4a16".into(),
        launch,
        prepare: Box::new(prepare),
        want,
        dtype: DType::F32,
        tolerance: 1e-5,
    };
    case.is_right();
    case
}
