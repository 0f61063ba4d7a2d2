//! Runs a module's GPU section on the simulator and compares it with the oracle.

use ptxsim::{
    Arg as SimArg, DevPtr, ElementType, Launch, Memory, OobFill, Options, Simulator, Swizzle,
    TensorMap,
};
use qcc_codegen::lower::emit_section;
use qcc_codegen::target::Target;
use qcc_ir::bind::{Sizes, bind_inputs};
use qcc_ir::eval::{self, weight_tensor};
use qcc_ir::format::{decode_slice, decode_slice_i64, encode_slice};
use qcc_ir::graph::{Module, parse, verify};
use qcc_ir::plan::{Action, Arg, Choice, Layout, TargetSection};
use qcc_ir::{DType, DimExpr, Tensor};
use std::collections::BTreeMap;

/// The module of this text, verified.
pub(crate) fn module(text: &str) -> Module {
    let m = parse(text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    let errors = verify(&m);
    assert!(errors.is_empty(), "{errors:?}\n{text}");
    m
}

/// The value of a size as the plan writes it.
fn size(text: &str, sizes: &Sizes, m: &Module) -> i64 {
    let dims: String = m
        .symbols
        .iter()
        .map(|s| format!("dim {} = {}..{}\n", s.name, s.min, s.max))
        .collect();
    let t = format!(
        "qir 1\n{dims}func @main(%x: f32[{text}]) -> (x: f32[{text}]) {{\n  return %x\n}}\n"
    );
    let d: DimExpr = parse(&t).unwrap_or_else(|e| panic!("{text}: {e:?}")).funcs[0].values[0]
        .ty
        .shape[0]
        .clone();
    d.eval(&|s| sizes.get(s))
        .unwrap_or_else(|| panic!("{text} is unbound"))
}

/// Device memory with the addresses of everything that launches mention.
struct Device<'a> {
    m: &'a Module,
    sizes: &'a Sizes,
    memory: Memory,
    values: BTreeMap<String, DevPtr>,
    /// By name and layout.
    weights: BTreeMap<(String, String), DevPtr>,
    faults: DevPtr,
}

impl Device<'_> {
    fn put(&mut self, bytes: &[u8]) -> DevPtr {
        let p = self.memory.alloc(bytes.len().max(1) as u64).unwrap();
        self.memory.write(p, bytes).unwrap();
        p
    }

    fn arg(&self, a: &Arg) -> SimArg {
        match a {
            Arg::Value(n) => SimArg::Ptr(*self.values.get(n).unwrap_or_else(|| panic!("{n}"))),
            Arg::Weight { name, layout } => {
                SimArg::Ptr(self.weights[&(name.clone(), layout.clone())])
            }
            Arg::Faults => SimArg::Ptr(self.faults),
            Arg::Dim { expr, dtype } => {
                let v = size(expr, self.sizes, self.m);
                match dtype {
                    DType::U32 => SimArg::U32(u32::try_from(v).unwrap()),
                    _ => SimArg::U64(v as u64),
                }
            }
            Arg::TensorMap {
                of,
                dtype,
                dims,
                strides,
                tile,
                swizzle,
            } => {
                assert_eq!((dtype.bits(), *swizzle), (8, 128));
                let SimArg::Ptr(p) = self.arg(of) else {
                    panic!("a map of {of:?}")
                };
                let sizes = |list: &[String]| {
                    let value = |e: &String| size(e, self.sizes, self.m) as u64;
                    list.iter().map(value).collect()
                };
                let map = TensorMap {
                    address: p.0,
                    element: ElementType::U8,
                    dims: sizes(dims),
                    strides: sizes(strides),
                    box_dims: tile.clone(),
                    swizzle: Swizzle::B128,
                    fill: OobFill::Zero,
                };
                SimArg::Bytes(map.encode().unwrap().to_vec())
            }
        }
    }

    fn applies(&self, c: &Choice) -> bool {
        // The simulated device is the specific one of its target.
        c.when.iter().all(|g| {
            let v = size(&g.expr, self.sizes, self.m) as u64;
            g.min <= v && v <= g.max
        })
    }
}

/// Runs the section on the simulator, with races and uninitialised reads looked for.
pub(crate) fn simulate(m: &Module, target: &str, inputs: &[Tensor]) -> Vec<Tensor> {
    let f = &m.funcs[0];
    let sizes = bind_inputs(m, f, &inputs.iter().collect::<Vec<_>>()).unwrap();
    let (section, texts) =
        emit_section(m, "main", Target::find(target).unwrap()).unwrap_or_else(|e| panic!("{e:?}"));
    let mut memory = Memory::new();
    let faults = memory.alloc(16).unwrap();
    memory.write(faults, &[0xff; 16]).unwrap();
    let mut d = Device {
        m,
        sizes: &sizes,
        memory,
        values: BTreeMap::new(),
        weights: BTreeMap::new(),
        faults,
    };
    for (v, t) in f.params.iter().zip(inputs) {
        let p = d.put(t.bytes());
        d.values.insert(f.value(*v).name.clone(), p);
    }
    for w in &m.weights {
        let dense = weight_tensor(w).unwrap();
        for layout in Layout::ALL {
            if let Some(bytes) = layout.pack(w.dtype, &w.dims, dense.bytes()) {
                let key = (w.name.clone(), layout.name().to_string());
                let p = d.put(&bytes);
                d.weights.insert(key, p);
            }
        }
    }
    let arena = d
        .memory
        .alloc(size(&section.arena.bytes, &sizes, m).max(1) as u64)
        .unwrap();
    for b in &section.arena.buffers {
        let at = size(&b.offset, &sizes, m) as u64;
        d.values.insert(b.value.clone(), arena.offset(at));
    }
    let results: Vec<_> = f
        .results
        .iter()
        .map(|(_, v)| {
            let ty = f.ty(*v);
            let dims = sizes.dims(ty).unwrap();
            let n: u64 = dims.iter().product();
            (
                ty.elem.storage(),
                dims,
                ty.elem.storage().byte_len(n).unwrap(),
            )
        })
        .collect();
    assert_eq!(section.outputs.len(), results.len());
    for (name, (_, _, bytes)) in section.outputs.iter().zip(&results) {
        let p = d.memory.alloc((*bytes).max(1)).unwrap();
        assert!(
            d.values.insert(name.clone(), p).is_none(),
            "{name} has two places"
        );
    }
    launch_all(&mut d, &section, &texts);
    let mut words = [0; 16];
    d.memory.read(faults, &mut words).unwrap();
    assert_eq!(words, [0xff; 16], "an index was found outside of its table");
    section
        .outputs
        .iter()
        .zip(results)
        .map(|(name, (dtype, dims, bytes))| {
            let mut out = vec![0; bytes as usize];
            d.memory.read(d.values[name], &mut out).unwrap();
            Tensor::from_bytes(dtype, &dims, &out).unwrap()
        })
        .collect()
}

fn launch_all(d: &mut Device<'_>, section: &TargetSection, texts: &BTreeMap<String, String>) {
    for step in &section.steps {
        let way = step.run.iter().find(|c| d.applies(c));
        let way = way.unwrap_or_else(|| panic!("no way to run {}", step.op));
        // Of the ways without a requirement one applies, whatever the device.
        let portable = |c: &&Choice| c.requires.is_none() && d.applies(c);
        assert_eq!(step.run.iter().filter(portable).count(), 1, "{}", step.op);
        for a in &way.actions {
            let Action::Launch(l) = a else {
                panic!("{a:?}")
            };
            let kernel = section.kernel(&l.kernel).unwrap();
            let module = ptxsim::Module::parse(&texts[&kernel.entry]).unwrap();
            let grid = [0, 1, 2].map(|i| u32::try_from(size(&l.grid[i], d.sizes, d.m)).unwrap());
            if grid.contains(&0) {
                continue;
            }
            let mut launch = Launch::new(grid, l.block, l.args.iter().map(|a| d.arg(a)).collect());
            launch.shared_bytes = l.shared;
            let options = Options {
                threads: 2,
                schedule_seed: 7,
                count: false,
                ..Options::default()
            };
            Simulator::new(options)
                .launch(&module, &kernel.symbol, &launch, &mut d.memory)
                .unwrap_or_else(|e| panic!("{} {l:?}: {e}", step.op));
        }
    }
}

/// Pseudo-random numbers of a format: floats about normal with this deviation, integers in
/// `−bound..bound`.
pub(crate) fn random(seed: u64, dtype: DType, dims: &[u64], spread: f64) -> Tensor {
    let mut t = Tensor::zeros(dtype, dims).unwrap();
    let mut v = eval::normal(seed, spread, t.numel());
    if !dtype.is_float() {
        v.iter_mut().for_each(|x| *x = x.round());
    }
    if dtype == DType::Bool {
        v.iter_mut()
            .for_each(|x| *x = f64::from(u8::from(*x > 0.0)));
    }
    encode_slice(dtype, &v, t.bytes_mut()).unwrap();
    t
}

fn floats(t: &Tensor) -> Vec<f64> {
    let mut v = vec![0f64; t.numel()];
    decode_slice(t.dtype(), t.bytes(), &mut v).unwrap();
    v
}

/// Asserts that two tensors agree: integers exactly, floats within a relative Frobenius error.
pub(crate) fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(
        (got.dtype(), got.dims()),
        (want.dtype(), want.dims()),
        "{what}"
    );
    if !want.dtype().is_float() {
        let ints = |t: &Tensor| {
            let mut v = vec![0i64; t.numel()];
            decode_slice_i64(t.dtype(), t.bytes(), &mut v).unwrap();
            v
        };
        assert_eq!(ints(got), ints(want), "{what}");
        return;
    }
    let (g, w) = (floats(got), floats(want));
    let (mut err, mut norm) = (0.0, 0.0);
    for (i, (g, w)) in g.iter().zip(&w).enumerate() {
        if w.is_nan() || w.is_infinite() {
            assert!(
                g == w || (g.is_nan() && w.is_nan()),
                "{what}[{i}]: {g} for {w}"
            );
            continue;
        }
        assert!(!g.is_nan(), "{what}[{i}]: NaN for {w}");
        err += (g - w) * (g - w);
        norm += w * w;
    }
    let rel = (err / norm.max(1e-30)).sqrt();
    assert!(
        rel <= tolerance,
        "{what}: relative error {rel:e}\n got {:?}\nwant {:?}",
        &g[..g.len().min(16)],
        &w[..w.len().min(16)]
    );
}

/// Runs on the simulator for both architectures and compares with the oracle.
pub(crate) fn check(what: &str, text: &str, inputs: &[Tensor], tolerance: f64) {
    let m = module(text);
    let want = eval::run(&m, inputs).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    for target in ["sm_80", "sm_90"] {
        let got = simulate(&m, target, inputs);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            assert_close(&format!("{what} on {target}, output {i}"), g, w, tolerance);
        }
    }
}
