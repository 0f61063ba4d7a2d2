//! Options that change nothing on this model: the user is told, by a warning for each.

use super::assign::Assigned;
use super::scheme::{QuantSpec, Scheme};
use crate::options::{ActMode, Options};
use crate::ranges::CalibMethod;
use qcc_ir::diag::{Class, Diagnostic};

/// A warning for each option about quantization that has no effect on these layers.
pub(super) fn without_effect(
    options: &Options,
    layers: &[Assigned],
    gptq: bool,
) -> Vec<Diagnostic> {
    let head = layers.iter().any(|l| l.site.head);
    let mut schemes: Vec<&Scheme> = vec![&options.scheme];
    schemes.extend(options.overrides.iter().map(|(_, s)| s));
    schemes.extend(head.then_some(&options.head));
    let quantizes = |s: &Scheme| s.weights.is_some();
    let wanted = schemes.iter().any(|s| quantizes(s));
    let free = schemes
        .iter()
        .any(|s| s.acts.is_some() && s.act == ActMode::Auto);
    let mut out = Vec::new();
    if wanted && layers.iter().all(|l| l.choice.is_none()) {
        let scheme = format!("the scheme {}", options.scheme.name);
        out.push(idle(&scheme, "no layer could be quantized").hint("`qcc explain` says why"));
    }
    if quantizes(&options.head) && !head {
        out.push(idle("--head", "no layer is a language model head"));
    }
    if options.act != ActMode::Auto && !free {
        let why = match wanted {
            true => "the scheme fixes what is done to activations",
            false => "nothing is quantized",
        };
        out.push(idle("--act", why));
    }
    let fixed = |l: &Assigned| {
        let acts = l.choice.and_then(|q| q.acts);
        acts.is_some_and(|a| a.scale.is_some())
    };
    if options.calib != CalibMethod::MinMax && !layers.iter().any(fixed) {
        out.push(idle("--calib-method", "no activations are static"));
    }
    if let Some(named) = &options.algo {
        let forms = layers.iter().filter_map(|l| Some(l.choice?.weights));
        let takes = |spec: QuantSpec| named.iter().any(|a| a.applies(&spec));
        if !forms.into_iter().any(takes) {
            out.push(idle(
                "--algo",
                "no weights are of a form that it applies to",
            ));
        }
    }
    if options.gptq.act_order && !gptq {
        out.push(idle(
            "--act-order",
            "no layer's weights are rounded by gptq",
        ));
    }
    if !options.exclude.is_empty() && !quantizes(&options.scheme) && !quantizes(&options.head) {
        out.push(idle("--exclude", "nothing is quantized"));
    }
    out
}

fn idle(option: &str, why: &str) -> Diagnostic {
    let message = format!("{option} has no effect: {why}");
    Diagnostic::warning(48, Class::Usage, message)
}

#[cfg(test)]
mod tests {
    use crate::options::{ActMode, Options};
    use crate::pass::PassContext;
    use crate::quantize::Scheme;
    use crate::ranges::CalibMethod;
    use crate::testing::{module, run_with};

    const LAYER: &str = r#"weight @w: f32[4, 3] = normal(1, 1.0)
    func @main(%x: f32[2, 3]) -> (y: f32[2, 4]) {
      %w: f32[4, 3] = const @w
      %y: f32[2, 4] = linear %x, %w @"up"
      return %y
    }"#;
    const NO_LAYER: &str =
        "func @main(%x: f32[2]) -> (y: f32[2]) {\n %y: f32[2] = neg %x\n return %y\n}";

    fn warnings(text: &str, options: &Options) -> Vec<String> {
        let mut ctx = PassContext::new(options);
        run_with("quantize", module(text), &mut ctx).unwrap();
        assert!(ctx.warnings.iter().all(|w| w.code() == "Q0048"));
        let first = |w: &qcc_ir::Diagnostic| w.message().split(" has").next().unwrap().to_string();
        ctx.warnings.iter().map(first).collect()
    }

    fn scheme(name: &str) -> Scheme {
        Scheme::named(name).unwrap()
    }

    #[test]
    fn idle_options_are_named() {
        let idle = Options {
            act: ActMode::Dynamic,
            exclude: vec!["up".into()],
            ..Options::default()
        };
        assert_eq!(warnings(LAYER, &idle), ["--act", "--exclude"]);
        let fixed = Options {
            scheme: scheme("int8-weights"),
            act: ActMode::Dynamic,
            head: scheme("int8"),
            ..Options::default()
        };
        assert_eq!(warnings(LAYER, &fixed), ["--head", "--act"]);
        let dynamic = Options {
            scheme: scheme("int8"),
            calib: CalibMethod::Mse,
            ..Options::default()
        };
        assert_eq!(warnings(LAYER, &dynamic), ["--calib-method"]);
        let nothing = Options {
            scheme: scheme("int8"),
            ..Options::default()
        };
        assert_eq!(warnings(NO_LAYER, &nothing), ["the scheme int8"]);
    }

    #[test]
    fn effective_options_are_not() {
        let effective = Options {
            scheme: scheme("int8"),
            act: ActMode::Dynamic,
            ..Options::default()
        };
        assert!(warnings(LAYER, &effective).is_empty());
        let overridden = Options {
            overrides: vec![("up".into(), scheme("int8"))],
            act: ActMode::Dynamic,
            ..Options::default()
        };
        assert!(warnings(LAYER, &overridden).is_empty());
        assert!(warnings(LAYER, &Options::default()).is_empty());
    }
}
