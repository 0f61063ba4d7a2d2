//! A compilation holds a layer at a time: what is in memory at once does not grow with depth.
//!
//! Bytes are those that were asked of the allocator and not yet given back, counted exactly, on
//! one thread. With each layer grow the text, the decisions and the statistics of its inputs (a
//! histogram of 64 KiB each); its weights must not be among what grows.

use qcc::data::Dataset;
use qcc::{Algo, Compiler, Options, Prepared, Scheme, SpillTo, interface};
use qcc_ir::Tensor;
use qcc_ir::graph::{Module, parse};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of what is held.
struct Counting;

// SAFETY: every call is handed to the system's allocator as it is; the counts touch no memory that
// was allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as for `alloc`.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const WIDTH: u64 = 256;
const INNER: u64 = 512;
/// Bytes of the weights of a layer in f32.
const LAYER: usize = 4 * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER) as usize;

/// Decoder layers whose weights are made whenever they are read.
fn decoder(layers: usize) -> Module {
    let mut weights = format!("weight @gain: f32[{WIDTH}] = splat(1)\n");
    let mut body = format!("%gain: f32[{WIDTH}] = const @gain\n");
    for l in 0..layers {
        let x = |n: u64| format!("f32[2, 8, {n}]");
        let mut linear = |from: &str, name: &str, n: u64, k: u64| {
            let _ = writeln!(
                weights,
                "weight @{name}{l}: f32[{n}, {k}] = normal({l}, 0.06)"
            );
            let y = x(n);
            format!(
                "%w.{name}{l}: f32[{n}, {k}] = const @{name}{l}\n\
                 %{name}{l}: {y} = linear %{from}{l}, %w.{name}{l} @\"{name}{l}\"\n"
            )
        };
        let w = x(WIDTH);
        let norm = |of: &str, to: &str| {
            format!("%{to}{l}: {w} = rms_norm %{of}{l}, %gain {{ eps = 1e-5 }} @\"{to}{l}\"\n")
        };
        body += &norm("x", "h");
        for name in ["q", "k", "v"] {
            body += &linear("h", name, WIDTH, WIDTH);
        }
        let heads = "{ heads = 4, scale = 0.125, causal }";
        body += &format!("%a{l}: {w} = attention %q{l}, %k{l}, %v{l} {heads}\n");
        body += &linear("a", "o", WIDTH, WIDTH);
        body += &format!("%r{l}: {w} = add %x{l}, %o{l}\n");
        body += &norm("r", "m");
        body += &linear("m", "up", INNER, WIDTH);
        body += &linear("m", "gate", INNER, WIDTH);
        let inner = x(INNER);
        body += &format!("%s{l}: {inner} = silu %gate{l}\n%p{l}: {inner} = mul %s{l}, %up{l}\n");
        body += &linear("p", "down", WIDTH, INNER);
        body += &format!("%x{}: {w} = add %r{l}, %down{l}\n", l + 1);
    }
    let ty = format!("f32[2, 8, {WIDTH}]");
    parse(&format!(
        "qir 1\n{weights}func @main(%x0: {ty}) -> (y: {ty}) {{\n{body}return %x{layers}\n}}"
    ))
    .unwrap()
}

/// Most bytes held at once while a model of so many layers is compiled and its plan written.
fn most_held(layers: usize, options: &Options) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options.clone();
    options.spill = Some(SpillTo {
        folder: folder.path().to_path_buf(),
        above: 0,
    });
    let prepared = Prepared {
        module: decoder(layers),
        warnings: Vec::new(),
        model_hash: String::new(),
        source_bytes: 0,
    };
    let values = qcc_ir::eval::normal(7, 1.0, 16 * WIDTH as usize);
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    let x = Tensor::f32(&[2, 8, WIDTH], &values).unwrap();
    let io = interface(&prepared).unwrap();
    let data = Dataset::new(vec![("x0".into(), x)], &io).unwrap();
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let compiled = Compiler::new(options)
        .complete(prepared, Some(&data))
        .unwrap();
    compiled.write(&folder.path().join("plan")).unwrap();
    MOST.load(Ordering::Relaxed) - before
}

/// One test, because the counts are of the whole process.
#[test]
fn what_is_held_does_not_grow_with_depth() {
    for (scheme, algo) in [("int8", "rtn"), ("w4a16-g128-asym", "gptq")] {
        let mut options = Options {
            threads: 1,
            ..Options::default()
        };
        options.passes.scheme = Scheme::named(scheme).unwrap();
        options.passes.algo = Some(Algo::list(algo).unwrap());
        let [few, many] = [2, 6].map(|layers| most_held(layers, &options));
        let each = many.saturating_sub(few) / 4;
        assert!(
            each < LAYER / 3,
            "{scheme}: {few} bytes with 2 layers, {many} with 6: {each} for each more, whose \
             weights are {LAYER}"
        );
    }
}
