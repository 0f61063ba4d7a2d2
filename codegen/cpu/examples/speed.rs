//! Prints the speed of linears beside the `gemm` crate, and of a small transformer.
//!
//! `cargo run --release -p qcc-cpu --example speed [threads]`

use qcc_cpu::{CpuOptions, CpuProgram, Threads};
use qcc_ir::graph::{Module, parse, verify};
use qcc_ir::{DType, Tensor};
use std::time::Instant;

fn module(text: &str) -> Module {
    let m = parse(text).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    let problems = verify(&m);
    assert!(problems.is_empty(), "{problems:?}\n{text}");
    m
}

/// Seconds that the calling thread has been running, where the system tells; else a wall clock.
///
/// On a shared machine a long run on one thread is rarely undisturbed, and its own time is what
/// counts. With more threads only the wall clock says how long a run took.
struct Clock {
    start: Instant,
    own: bool,
}

impl Clock {
    fn new(threads: usize) -> Self {
        Clock {
            start: Instant::now(),
            own: threads == 1 && Self::running().is_some(),
        }
    }

    fn running() -> Option<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        let nanos: f64 = text.split_whitespace().next()?.parse().ok()?;
        Some(nanos * 1e-9)
    }

    fn now(&self) -> f64 {
        let wall = self.start.elapsed().as_secs_f64();
        if self.own {
            Self::running().unwrap_or(wall)
        } else {
            wall
        }
    }

    /// Seconds of a run: the mean of the thread's own time, which is counted in coarse ticks, or
    /// the best of the wall clock.
    fn time(&self, mut f: impl FnMut()) -> f64 {
        f();
        let (start, mut best, mut runs) = (self.now(), f64::INFINITY, 0);
        while self.now() - start < 0.5 {
            let t = self.now();
            f();
            best = best.min(self.now() - t);
            runs += 1;
        }
        if self.own {
            (self.now() - start) / f64::from(runs)
        } else {
            best
        }
    }
}

/// A linear of `[rows, k]` by `[n, k]` in one scheme: `(what, quantize, weight type, weight)`.
const SCHEMES: [(&str, &str, &str, &str); 5] = [
    ("f32", "", "f32", "f32"),
    ("f16", "", "f16", "f16"),
    (
        "int8",
        "q<i8, [1, *], scale=f32, dynamic, narrow>",
        "q<i8, [1, *], scale=f32>",
        "i8",
    ),
    (
        "fp8",
        "q<e4m3, [1, *], scale=f32, dynamic>",
        "q<e4m3, [1, *], scale=f32>",
        "e4m3",
    ),
    ("w4", "", "q<u4, [1, 128], scale=f32, zero=u4>", "u4"),
];

fn linear(scheme: (&str, &str, &str, &str), k: u64, n: u64) -> Module {
    let (name, act, ty, storage) = scheme;
    let groups = if name == "w4" { k.div_ceil(128) } else { 1 };
    let scales = if ty.starts_with('q') { ", @s" } else { "" };
    let zero = if name == "w4" { ", @z" } else { "" };
    let x = if act.is_empty() { "%x" } else { "%q" };
    let quantize = match act {
        "" => String::new(),
        q => format!("%q: {q}[m, {k}] = quantize %x"),
    };
    module(&format!(
        "qir 1
        dim m = 1..65536
        weight @w: {storage}[{n}, {k}] = normal(1, 3)
        weight @s: f32[{n}, {groups}] = normal(2, 0.1)
        weight @z: u4[{n}, {groups}] = normal(3, 3)
        func @main(%x: f32[m, {k}]) -> (y: f32[m, {n}]) {{
          %w: {ty}[{n}, {k}] = const @w{scales}{zero}
          {quantize}
          %y: f32[m, {n}] = linear {x}, %w
          return %y
        }}"
    ))
}

fn floats(dims: &[u64]) -> Tensor {
    let n: u64 = dims.iter().product();
    let v: Vec<f32> = (0..n).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    Tensor::f32(dims, &v).unwrap()
}

/// The `gemm` crate on the same product, with its own threads.
fn reference(m: usize, k: usize, n: usize, threads: usize) -> f64 {
    let (a, b, mut c) = (vec![1f32; m * k], vec![1f32; n * k], vec![0f32; m * n]);
    let p = match threads {
        1 => gemm::Parallelism::None,
        t => gemm::Parallelism::Rayon(t),
    };
    // SAFETY: the strides describe the three vectors.
    Clock::new(threads).time(|| unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            p,
        )
    })
}

fn linears(threads: &Threads) {
    println!("linear, GFLOP/s on {} threads", threads.count());
    print!("{:>16} {:>8}", "m x k x n", "gemm");
    SCHEMES.iter().for_each(|s| print!(" {:>8}", s.0));
    println!();
    for (m, k, n) in [
        (1, 2048, 2048),
        (256, 256, 768),
        (256, 768, 256),
        (256, 1024, 1024),
        (2048, 256, 2048),
    ] {
        let flops = 2.0 * (m * k * n) as f64 / 1e9;
        print!(
            "{:>16} {:>8.1}",
            format!("{m} x {k} x {n}"),
            flops / reference(m, k, n, threads.count())
        );
        for scheme in SCHEMES {
            let program = CpuProgram::new(
                &linear(scheme, k as u64, n as u64),
                &CpuOptions::new(threads.clone()),
            )
            .unwrap();
            let x = floats(&[m as u64, k as u64]);
            let t = Clock::new(threads.count()).time(|| drop(program.run(&[&x]).unwrap()));
            print!(" {:>8.1}", flops / t);
        }
        println!();
    }
}

/// A linear of the transformer, quantized as the scheme says.
fn layer(
    scheme: (&str, &str, &str, &str),
    x: &str,
    name: &str,
    [k, n]: [u64; 2],
    out: &mut [String; 2],
) -> String {
    let (_, act, ty, storage) = scheme;
    let [weights, body] = out;
    weights.push_str(&format!(
        "weight @{name}: {storage}[{n}, {k}] = normal(1, {})\n",
        if storage == "i8" { 30.0 } else { 0.05 }
    ));
    let scales = if ty.starts_with('q') {
        weights.push_str(&format!("weight @{name}.s: f32[{n}, 1] = splat(0.002)\n"));
        format!(", @{name}.s")
    } else {
        String::new()
    };
    body.push_str(&format!(
        "%{name}.w: {ty}[{n}, {k}] = const @{name}{scales}\n"
    ));
    let x = match act {
        "" => x.to_string(),
        q => {
            body.push_str(&format!(
                "%{name}.q: {}[b, s, {k}] = quantize %{x}\n",
                q.replace("[1, *]", "[1, 1, *]")
            ));
            format!("{name}.q")
        }
    };
    body.push_str(&format!(
        "%{name}.y: f32[b, s, {n}] = linear %{x}, %{name}.w\n"
    ));
    format!("{name}.y")
}

/// Five Llama layers of width 256, four heads, two key heads, SwiGLU of 768, a head of 2048.
fn transformer(scheme: (&str, &str, &str, &str)) -> Module {
    let mut out = [
        String::from(
            "weight @emb: f32[2048, 256] = normal(9, 1)\nweight @g: f32[256] = splat(1)\nweight @cos: f32[256, 32] = splat(0.6)\nweight @sin: f32[256, 32] = splat(0.8)\n",
        ),
        String::from(
            "%emb: f32[2048, 256] = const @emb\n%g: f32[256] = const @g\n%cos: f32[256, 32] = const @cos\n%sin: f32[256, 32] = const @sin\n%x: f32[b, s, 256] = gather %emb, %ids { axis = 0 }\n",
        ),
    ];
    let mut x = "x".to_string();
    let line = |out: &mut [String; 2], text: String| out[1].push_str(&text);
    for i in 0..5 {
        line(
            &mut out,
            format!("%n{i}: f32[b, s, 256] = rms_norm %{x}, %g {{ eps = 1e-5 }}\n"),
        );
        let n = format!("n{i}");
        let q = layer(scheme, &n, &format!("q{i}"), [256, 256], &mut out);
        let k = layer(scheme, &n, &format!("k{i}"), [256, 128], &mut out);
        let v = layer(scheme, &n, &format!("v{i}"), [256, 128], &mut out);
        line(
            &mut out,
            format!(
                "%qr{i}: f32[b, s, 256] = rotary %{q}, %cos, %sin {{ heads = 4 }}\n%kr{i}: f32[b, s, 128] = rotary %{k}, %cos, %sin {{ heads = 2 }}\n%a{i}: f32[b, s, 256] = attention %qr{i}, %kr{i}, %{v} {{ heads = 4, kv_heads = 2, scale = 0.125, causal }}\n"
            ),
        );
        let o = layer(
            scheme,
            &format!("a{i}"),
            &format!("o{i}"),
            [256, 256],
            &mut out,
        );
        line(
            &mut out,
            format!(
                "%h{i}: f32[b, s, 256] = add %{x}, %{o}\n%m{i}: f32[b, s, 256] = rms_norm %h{i}, %g {{ eps = 1e-5 }}\n"
            ),
        );
        let g = layer(
            scheme,
            &format!("m{i}"),
            &format!("gate{i}"),
            [256, 768],
            &mut out,
        );
        let u = layer(
            scheme,
            &format!("m{i}"),
            &format!("up{i}"),
            [256, 768],
            &mut out,
        );
        line(
            &mut out,
            format!(
                "%act{i}: f32[b, s, 768] = silu %{g}\n%p{i}: f32[b, s, 768] = mul %act{i}, %{u}\n"
            ),
        );
        let d = layer(
            scheme,
            &format!("p{i}"),
            &format!("down{i}"),
            [768, 256],
            &mut out,
        );
        line(
            &mut out,
            format!("%x{i}: f32[b, s, 256] = add %h{i}, %{d}\n"),
        );
        x = format!("x{i}");
    }
    line(
        &mut out,
        format!("%last: f32[b, s, 256] = rms_norm %{x}, %g {{ eps = 1e-5 }}\n"),
    );
    let y = layer(SCHEMES[0], "last", "head", [256, 2048], &mut out);
    let [weights, body] = out;
    module(&format!(
        "qir 1\ndim b = 1..64\ndim s = 256..256\n{weights}func @main(%ids: i64[b, s]) -> (logits: f32[b, s, 2048]) {{\n{body}return %{y}\n}}"
    ).replace("dim s = 256..256\n", "").replace("[b, s", "[b, 256"))
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(0);
    let threads = Threads::new(count).unwrap();
    linears(&threads);
    println!("\ntransformer (5 layers, width 256), milliseconds per window of 256 tokens");
    for scheme in SCHEMES.into_iter().filter(|s| s.0 != "w4") {
        let m = transformer(scheme);
        let t = Instant::now();
        let program = CpuProgram::new(&m, &CpuOptions::new(threads.clone())).unwrap();
        let prepare = t.elapsed().as_secs_f64();
        for b in [1u64, 8] {
            let ids: Vec<i64> = (0..b * 256).map(|i| (i * 37 % 2048) as i64).collect();
            let ids = Tensor::from_slice(DType::I64, &[b, 256], &ids).unwrap();
            let t = Clock::new(threads.count()).time(|| drop(program.run(&[&ids]).unwrap()));
            println!(
                "{:>6} batch {b}: {:7.2} ms (prepared in {:.1} ms)",
                scheme.0,
                t * 1e3 / b as f64,
                prepare * 1e3
            );
        }
    }
}
