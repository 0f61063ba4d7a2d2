//! Whole models for GPU targets: every op has a kernel, every kernel assembles without spills.

use qcc::Compiled;
use qcc_tests::example::compile;

/// Assembles every kernel of every section for the architectures that the section claims.
fn assemble(test: &str, compiled: &Compiled) {
    assert!(compiled.plan.validate().is_ok());
    for section in &compiled.plan.targets {
        assert!(!section.steps.is_empty());
        for kernel in &section.kernels {
            let text = &compiled.texts()[&kernel.entry];
            let claimed = [kernel.arch.as_str(), section.target.as_str()];
            // A text for one architecture only assembles for no other.
            let claimed = match kernel.arch.ends_with('a') {
                true => &claimed[..1],
                false => &claimed,
            };
            qcc_tests::ptxas::assert_assembles(test, text, claimed);
        }
    }
}

#[test]
fn static_fp8_for_ampere_and_hopper() {
    assemble("static_fp8", &compile("fp8", &["sm_80", "sm_90"], true));
}

#[test]
fn dynamic_int8_for_ampere() {
    assemble("dynamic_int8", &compile("int8", &["sm_80"], false));
}

#[test]
fn float_for_hopper() {
    assemble("float", &compile("float", &["sm_90"], false));
}

/// Static scales are weights, so blocks of one shape launch the same kernels.
#[test]
fn static_int8_needs_the_kernels_of_one_block() {
    let compiled = compile("int8-static", &["sm_80"], true);
    let section = &compiled.plan.targets[0];
    assert!(section.steps.len() > 30, "{}", section.steps.len());
    assert!(section.kernels.len() < 25, "{}", section.kernels.len());
    insta::assert_snapshot!("static_int8_steps", qcc_tests::launches::steps(section));
}
