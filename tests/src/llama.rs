//! A decoder of the shape of Llama 2 70B, for searches that have to scale.

use qcc_ir::graph::{Module, parse};
use qcc_passes::{Statistics, ValueStats, calibration_points};

/// Width, width of keys and values, inner width of the MLP.
const SHAPE: (u64, u64, u64) = (8192, 1024, 28672);

/// A decoder of so many blocks without embedding and head. Weights are made on demand, so that none
/// is in memory.
pub fn llama_70b(layers: usize) -> Module {
    let (d, kv, ff) = SHAPE;
    let mut weights = format!("weight @gain: f16[{d}] = splat(1.0)\n");
    let mut body = format!("%gain: f16[{d}] = const @gain\n");
    for i in 0..layers {
        let shapes = [
            ("q", d, d),
            ("k", kv, d),
            ("v", kv, d),
            ("o", d, d),
            ("g", ff, d),
            ("u", ff, d),
            ("d", d, ff),
        ];
        for (w, n, k) in shapes {
            weights += &format!("weight @w{w}{i}: f16[{n}, {k}] = normal(1, 0.02)\n");
            body += &format!("%w{w}{i}: f16[{n}, {k}] = const @w{w}{i}\n");
        }
        body += &format!(
            "%n{i}: f16[1, s, {d}] = rms_norm %x{i}, %gain {{ eps = 1e-5 }}
             %q{i}: f16[1, s, {d}] = linear %n{i}, %wq{i} @\"q{i}\"
             %k{i}: f16[1, s, {kv}] = linear %n{i}, %wk{i} @\"k{i}\"
             %v{i}: f16[1, s, {kv}] = linear %n{i}, %wv{i} @\"v{i}\"
             %qr{i}: f16[1, s, {d}] = rotary %q{i}, %cos, %sin {{ heads = 64 }}
             %kr{i}: f16[1, s, {kv}] = rotary %k{i}, %cos, %sin {{ heads = 8 }}
             %a{i}: f16[1, s, {d}] = attention %qr{i}, %kr{i}, %v{i} {{ heads = 64, kv_heads = 8, scale = 0.088, causal }}
             %o{i}: f16[1, s, {d}] = linear %a{i}, %wo{i} @\"o{i}\"
             %h{i}: f16[1, s, {d}] = add %x{i}, %o{i}
             %m{i}: f16[1, s, {d}] = rms_norm %h{i}, %gain {{ eps = 1e-5 }}
             %g{i}: f16[1, s, {ff}] = linear %m{i}, %wg{i} @\"gate{i}\"
             %u{i}: f16[1, s, {ff}] = linear %m{i}, %wu{i} @\"up{i}\"
             %t{i}: f16[1, s, {ff}] = silu %g{i}
             %p{i}: f16[1, s, {ff}] = mul %t{i}, %u{i}
             %d{i}: f16[1, s, {d}] = linear %p{i}, %wd{i} @\"down{i}\"
             %x{}: f16[1, s, {d}] = add %h{i}, %d{i}
            ",
            i + 1
        );
    }
    let text = format!(
        "qir 1\ndim s = 1..4096 @ 1, 2048\n{weights}func @main(%x0: f16[1, s, {d}], %cos: f16[s, 64], \
         %sin: f16[s, 64]) -> (y: f16[1, s, {d}]) {{\n{body}return %x{layers}\n}}\n"
    );
    // INVARIANT: the text above is valid for any number of blocks.
    parse(&text).expect("a decoder")
}

/// Statistics of every layer's input: all values lie within ±4.
pub fn flat_statistics(m: &Module) -> Statistics {
    let mut s = Statistics::new();
    for p in calibration_points(m) {
        let mut v = ValueStats::new(p.channels);
        // INVARIANT: a row of finite numbers, one for each channel.
        v.observe(&vec![4.0; p.channels]).expect("a row");
        s.insert(&p.value, v);
    }
    s.samples = 1;
    s
}

/// Errors as published tools see them, in nats, another factor for each layer.
pub fn usual_error(layer: &str, scheme: &str) -> f64 {
    let mixed = layer.bytes().fold(7u64, |h, b| h * 31 + u64::from(b));
    let sensitive = 1.0 + (mixed % 101) as f64 / 25.0;
    let error = match scheme {
        "float" => 0.0,
        s if s.starts_with("fp8") => 3e-6,
        "int8-static" => 4e-5,
        s if s.starts_with("int8") => 2e-6,
        "w4a8-static" => 6e-5,
        "w8a8-fp8-block128-dynamic" => 2e-6,
        _ => 2e-5,
    };
    error * sensitive
}
