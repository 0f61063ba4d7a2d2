//! Kernels of other compilers with one synchronizing instruction taken out: each must be found.

use ptxsim::{Module, Options, Simulator};

use crate::support::{compare, root, setup};

/// The name of the fault, or what else gave the mutant away, over several schedules.
fn judge(case: &str, text: &str) -> Option<String> {
    let module = Module::parse(text).expect("a mutant is still PTX");
    for schedule_seed in 0..4 {
        let mut s = setup(&root().join(case));
        let options = Options {
            schedule_seed,
            max_instructions: 1 << 22,
            ..Options::default()
        };
        if let Err(f) = Simulator::new(options).launch(&module, &s.entry, &s.launch, &mut s.memory)
        {
            return Some(f.kind.name().into());
        }
        if s.outputs.iter().any(|o| compare(&s.memory, o).is_err()) {
            return Some("wrong result".into());
        }
    }
    None
}

/// Replaces the n-th line that holds `what`; none when there are fewer.
fn mutate(text: &str, what: &str, with: &str, n: usize) -> Option<(usize, String)> {
    let hits: Vec<usize> = text
        .lines()
        .enumerate()
        .filter(|(_, l)| l.contains(what))
        .map(|(i, _)| i)
        .collect();
    let at = *hits.get(n)?;
    let lines: Vec<String> = text
        .lines()
        .enumerate()
        .map(|(i, l)| {
            if i == at {
                l.replace(what, with)
            } else {
                l.into()
            }
        })
        .collect();
    Some((at + 1, lines.join("\n")))
}

/// Removes the n-th occurrence of an instruction from a case and demands the fault.
fn caught(case: &str, what: &str, n: usize, fault: &str) {
    let text = std::fs::read_to_string(root().join(case).join("kernel.ptx")).expect("kernel.ptx");
    let (line, mutant) =
        mutate(&text, what, &format!("// {what}"), n).expect("the instruction is there");
    assert_eq!(
        judge(case, &mutant).as_deref(),
        Some(fault),
        "{case} without line {line}: {what}"
    );
}

#[test]
fn a_missing_barrier_is_found() {
    for (n, fault) in [
        (0, "not-waited"),
        (2, "race"),
        (3, "not-waited"),
        (5, "race"),
        (6, "race"),
        (7, "race"),
    ] {
        caught("triton_dot_f16_sm80", "bar.sync", n, fault);
    }
    caught("triton_dot_f16_sm90", "bar.sync", 0, "not-waited");
    caught("triton_dot_f16_sm90", "bar.sync", 1, "wgmma-order");
    caught("triton_tma_f16_sm90", "bar.sync", 12, "race");
    for n in 0..3 {
        caught("triton_softmax_sm80", "bar.sync", n, "race");
    }
    caught("triton_scan_sm80", "bar.sync", 0, "race");
}

#[test]
fn data_that_was_not_waited_for_is_found() {
    caught(
        "triton_dot_f16_sm80",
        "cp.async.wait_group",
        0,
        "not-waited",
    );
    caught(
        "triton_dot_f16_sm80",
        "cp.async.wait_group",
        4,
        "not-waited",
    );
    caught("triton_dot_s8_sm90", "cp.async.wait_group", 0, "not-waited");
    caught(
        "triton_tma_f16_sm90",
        "cp.async.bulk.wait_group",
        0,
        "not-waited",
    );
}

#[test]
fn missing_fences_are_found() {
    caught(
        "triton_dot_f16_sm90",
        "fence.proxy.async",
        0,
        "missing-proxy-fence",
    );
    caught(
        "triton_dot_s8_sm90",
        "fence.proxy.async",
        0,
        "missing-proxy-fence",
    );
    caught(
        "triton_tma_f16_sm90",
        "fence.proxy.async",
        0,
        "missing-proxy-fence",
    );
    for case in [
        "triton_dot_f16_sm90",
        "triton_dot_s8_sm90",
        "triton_tma_f16_sm90",
    ] {
        caught(case, "wgmma.fence", 0, "wgmma-order");
    }
}

#[test]
fn accumulators_in_flight_are_not_read() {
    for case in [
        "triton_dot_f16_sm90",
        "triton_dot_s8_sm90",
        "triton_tma_f16_sm90",
    ] {
        caught(case, "wgmma.wait_group", 0, "wgmma-order");
    }
    caught("triton_tma_f16_sm90", "wgmma.wait_group", 1, "wgmma-order");
}

#[test]
fn a_wait_one_stage_early_is_found() {
    let text = std::fs::read_to_string(root().join("triton_dot_f16_sm80").join("kernel.ptx"))
        .expect("kernel.ptx");
    let (_, mutant) =
        mutate(&text, "cp.async.wait_group \t2", "cp.async.wait_group 4", 0).expect("a wait");
    assert_eq!(
        judge("triton_dot_f16_sm80", &mutant).as_deref(),
        Some("not-waited")
    );
}

#[test]
fn a_wrong_swizzle_gives_a_wrong_result() {
    let text = std::fs::read_to_string(root().join("triton_dot_f16_sm90").join("kernel.ptx"))
        .expect("kernel.ptx");
    // The upper two bits of the descriptor constant: 128-byte swizzle to 64-byte swizzle.
    let (_, mutant) =
        mutate(&text, "4611686293305294848", "-9223371899415822336", 0).expect("a descriptor");
    assert!(judge("triton_dot_f16_sm90", &mutant).is_some());
}
