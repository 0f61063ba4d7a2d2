//! What runs gives the oracle's numbers, the same ones every time.

use crate::model::*;
use qcc_ir::eval;
use qcc_runtime::{Engine, Memory, Session, Tensor};

/// Relative Frobenius error.
fn error(got: &Tensor, want: &Tensor) -> f64 {
    let (got, want) = (
        got.as_slice::<f32>().unwrap(),
        want.as_slice::<f32>().unwrap(),
    );
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let both = got.iter().zip(want);
    let diff = norm(&mut both.map(|(a, b)| f64::from(*a) - f64::from(*b)));
    diff / norm(&mut want.iter().map(|x| f64::from(*x)))
}

#[test]
fn outputs_are_those_of_the_oracle() {
    let engine = engine(2);
    let mut session = engine.session();
    for n in [1, 3, 64] {
        let [ids, gain] = inputs(n);
        let want = eval::run(&module(TEXT), &inputs(n)).unwrap();
        let got = session.run(&[("gain", &gain), ("ids", &ids)]).unwrap();
        let names: Vec<_> = got.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["probs", "hidden"]);
        for ((name, got), want) in got.iter().zip(&want) {
            assert_eq!(got.dims(), want.dims());
            assert!(
                error(got, want) < 1e-6,
                "{name} at n = {n}: {}",
                error(got, want)
            );
        }
    }
}

#[test]
fn threads_and_sessions_do_not_change_a_bit() {
    let run = |mut session: Session| {
        let [ids, gain] = inputs(61);
        session.run(&[("ids", &ids), ("gain", &gain)]).unwrap()
    };
    let one = run(engine(1).session());
    let shared = engine(3);
    let beside = std::thread::scope(|s| {
        let runs = [0; 4].map(|_| s.spawn(|| run(shared.session())));
        runs.map(|r| r.join().unwrap())
    });
    for other in beside {
        assert_eq!(other, one);
    }
}

#[test]
fn engines_are_shared_and_sessions_are_sent() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Engine>();
    sent::<Session>();
}

#[test]
fn memory_is_known_before_a_run() {
    let engine = engine(1);
    let need = engine.memory(&[("n", 10)]).unwrap();
    // %e and %r (f16), then %r and %x, %x and %h's input only: the largest pair is %r + %x.
    // Later %q (codes and one scale a row) + %y, %y + %s, %s + %z: 24·4 + 24·4 bytes a row.
    let row = [
        32 * 2 + 32 * 2,
        32 * 2 + 32 * 4,
        (32 + 4) + 24 * 4,
        24 * 4 + 24 * 4,
    ];
    assert_eq!(
        need,
        Memory {
            weights: 50 * 32 * 2 + 32 * 4 + 24 * 32 + 24 * 4 + 24 * 4 + 4,
            intermediates: 10 * row.into_iter().max().unwrap(),
            workspace: 0,
            inputs: 10 * (8 + 24 * 4),
            outputs: 10 * (24 * 4 + 32 * 4),
        }
    );
    let refused = |sizes: &[(&str, u64)]| engine.memory(sizes).unwrap_err().to_string();
    assert!(refused(&[]).contains("Q0720") && refused(&[]).contains("`n` is not given"));
    assert!(refused(&[("n", 65)]).contains("n = 65 lies outside the compiled range 1..64"));
    assert!(refused(&[("n", 1), ("m", 1)]).contains("no symbol `m`"));
}
