//! A model of 80 layers: equal parts are searched once, and the choice is exact.

use super::statistics;
use crate::Options;
use crate::choose::{Budget, Study};
use crate::pass::PassContext;
use crate::testing::module;

/// A decoder of the shape of Llama 2 70B; weights are made on demand, so none is.
fn llama_70b() -> String {
    let (d, kv, ff) = (8192, 1024, 28672);
    let mut weights = format!("weight @gain: f16[{d}] = splat(1.0)\n");
    let mut body = format!("%gain: f16[{d}] = const @gain\n");
    for i in 0..80 {
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
    format!(
        "dim s = 1..4096 @ 1, 2048\n{weights}func @main(%x0: f16[1, s, {d}], %cos: f16[s, 64], \
         %sin: f16[s, 64]) -> (y: f16[1, s, {d}]) {{\n{body}return %x80\n}}\n"
    )
}

#[test]
fn a_model_of_80_layers_is_chosen_for_exactly() {
    let m = module(&llama_70b());
    let options = Options::default();
    let mut ctx = PassContext::new(&options);
    ctx.statistics = Some(statistics(&m));
    let mut study = Study::without_errors(&m, &ctx).unwrap();
    assert_eq!(study.menus.len(), 560);
    // Errors as published tools see them, another factor for each layer.
    for (at, menu) in study.menus.iter_mut().enumerate() {
        let sensitive = 1.0 + (at * 37 % 101) as f64 / 25.0;
        for item in &mut menu.items {
            let error = match item.scheme.as_str() {
                "float" => 0.0,
                s if s.starts_with("fp8") => 3e-6,
                "int8-static" => 4e-5,
                s if s.starts_with("int8") => 2e-6,
                _ => 2e-5,
            };
            item.error = error * sensitive;
        }
    }
    let s = study.choose(Budget::Divergence(0.01)).unwrap().summary;
    assert!(s.feasible && s.chosen.divergence <= 0.01);
    assert_eq!(s.bound, s.cost, "the search was complete");
    assert_eq!(s.groups, 320);
    // What 80 layers have in common is searched once.
    assert!(s.regions.0 < 200 && s.regions.1 == 0, "{:?}", s.regions);
    let [uniform, one_by_one] = [s.uniform.map(|(_, t)| t), s.precision_first];
    for other in [uniform, one_by_one].into_iter().flatten() {
        assert!(s.chosen.mean_micros <= other.mean_micros);
    }
}
