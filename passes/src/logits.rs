//! The logits of a language model: finding them, and what normalizes them.

use crate::quantize::embedding_rows;
use qcc_ir::graph::Module;

/// The position among the entry function's results of the logits, if it is a language model's:
/// from integers `[b, s]` to floats `[b, s, v]`, called `logits` or as wide as an embedding table
/// has rows.
pub fn logits(m: &Module) -> Option<usize> {
    let f = m.funcs.first()?;
    let at = f.results.iter().position(|(n, _)| n == "logits");
    let at = at.unwrap_or(0);
    let (name, result) = f.results.get(at)?;
    let ty = f.ty(*result);
    let [b, s, v] = ty.shape.as_slice() else {
        return None;
    };
    let ids = |p: &&qcc_ir::graph::ValueId| {
        let t = f.ty(**p);
        t.elem.plain().is_some_and(|d| d.is_int()) && t.shape == [b.clone(), s.clone()]
    };
    f.params.iter().find(ids)?;
    let v = u64::try_from(v.as_const()?).ok()?;
    let float = ty.elem.plain().is_some_and(|d| d.is_float());
    (float && (name == "logits" || embedding_rows(m, f).contains(&v))).then_some(at)
}

/// `ln Σ eˣ`, with the largest `x` taken out so that nothing overflows.
pub fn log_sum_exp(x: &[f32]) -> f64 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x.iter().map(|v| libm::exp(f64::from(v - max))).sum();
    f64::from(max) + libm::log(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::module;

    fn model(result: &str, width: u64) -> Module {
        module(&format!(
            r#"dim b = 1..9
            dim s = 1..9
            weight @table: f32[7, 4] = normal(1, 1.0)
            weight @w: f32[{width}, 4] = normal(2, 1.0)
            func @main(%ids: i64[b, s]) -> ({result}: f32[b, s, {width}]) {{
              %t: f32[7, 4] = const @table
              %x: f32[b, s, 4] = gather %t, %ids {{axis = 0}}
              %w: f32[{width}, 4] = const @w
              %y: f32[b, s, {width}] = linear %x, %w
              return %y
            }}"#
        ))
    }

    #[test]
    fn by_name_or_by_the_width_of_the_vocabulary() {
        assert_eq!(logits(&model("y", 7)), Some(0));
        assert_eq!(logits(&model("logits", 5)), Some(0));
        assert_eq!(logits(&model("hidden", 5)), None);
        let image = module(
            "func @main(%x: f32[2, 3, 4]) -> (logits: f32[2, 3, 4]) {
               %y: f32[2, 3, 4] = neg %x
               return %y
             }",
        );
        assert_eq!(logits(&image), None);
    }
}
