//! Differential properties on random modules: text, executors and passes change nothing that is
//! computed.

use proptest::collection::vec;
use proptest::prelude::*;
use qcc_cpu::{CpuExecutor, CpuOptions, Threads};
use qcc_ir::exec::Executor;
use qcc_ir::format::decode_slice;
use qcc_ir::graph::{Module, parse, verify};
use qcc_ir::{Tensor, eval};
use qcc_passes::{Manager, Options, PassContext, registry};
use qcc_tests::random::{Random, Step};

/// Passes that keep every bit.
const EXACT: &str = "cse,dce,fold-constants";

/// Passes whose result is equal in real arithmetic.
const EQUAL: &str = "fold-constants,canonicalize,fold-constants,cse,dce,fold-positions,fold-gelu,\
                     fold-silu,fold-layer-norm,fold-rms-norm,fold-rotary,fold-attention,\
                     canonicalize,fuse,dce";

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(any::<Step>(), 1..14)
}

/// A module that a failure shows as text.
fn fail(m: &Module, why: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(format!("{why}\n{m}"))
}

fn oracle(m: &Module) -> Result<Vec<Tensor>, TestCaseError> {
    eval::run(m, &[Random::input(1)]).map_err(|d| fail(m, d))
}

fn optimised(m: &Module, passes: &str) -> Result<Module, TestCaseError> {
    let options = Options::default();
    let mut ctx = PassContext::new(&options);
    let passes = registry::parse_list(passes).map_err(|d| fail(m, d))?;
    let out = Manager::new(passes).run(m.clone(), &mut ctx);
    Ok(out.map_err(|d| fail(m, d))?.module)
}

/// Every element within `tolerance · max(1, magnitude)`.
fn close(m: &Module, got: &[Tensor], want: &[Tensor], tolerance: f32) -> Result<(), TestCaseError> {
    for (g, w) in got.iter().zip(want) {
        let reals = |t: &Tensor| {
            let mut v = vec![0f32; t.numel()];
            decode_slice(t.dtype(), t.bytes(), &mut v).map(|()| v)
        };
        let (a, b) = (reals(g), reals(w));
        let (a, b) = (a.map_err(|e| fail(m, e))?, b.map_err(|e| fail(m, e))?);
        if g.dims() != w.dims() {
            return Err(fail(m, format!("{:?}, expected {:?}", g.dims(), w.dims())));
        }
        for (i, (x, y)) in a.iter().zip(&b).enumerate() {
            let near = x == y || (x - y).abs() <= tolerance * y.abs().max(1.0);
            if !(near || x.is_nan() && y.is_nan()) {
                return Err(fail(m, format!("element {i} is {x}, expected {y}")));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn modules_are_valid_and_read_back(steps in steps()) {
        let m = Random::module(&steps, true);
        prop_assert!(verify(&m).is_empty(), "{:?}\n{m}", verify(&m));
        let text = m.to_string();
        let back = parse(&text).map_err(|e| fail(&m, &e[0]))?;
        prop_assert_eq!(&back.funcs, &m.funcs);
        prop_assert_eq!(back.to_string(), text);
    }

    #[test]
    fn the_cpu_agrees_with_the_oracle(steps in steps()) {
        let m = Random::module(&steps, false);
        let cpu = CpuExecutor::new(CpuOptions::new(Threads::single()));
        let mut ready = cpu.prepare(&m, &[]).map_err(|d| fail(&m, d))?;
        let got = ready.run(&[Random::input(1)], &mut |_, _| ()).map_err(|d| fail(&m, d))?;
        close(&m, &got, &oracle(&m)?, 1e-4)?;
    }

    #[test]
    fn exact_passes_keep_every_bit(steps in steps()) {
        let m = Random::module(&steps, true);
        let after = optimised(&m, EXACT)?;
        prop_assert_eq!(oracle(&after)?, oracle(&m)?, "{}\nbecame\n{}", m, after);
    }

    #[test]
    fn real_passes_keep_what_is_computed(steps in steps()) {
        let m = Random::module(&steps, false);
        let after = optimised(&m, EQUAL)?;
        close(&after, &oracle(&after)?, &oracle(&m)?, 1e-4)
            .map_err(|e| fail(&m, format!("{e}\ncame from")))?;
    }
}
