//! What depends on time or on the machine: copies early and late, `try_wait` that gives up, register
//! pools, dependent launches, and how tensor cores and approximate functions round.

use ptxsim::{
    Accumulate, Approx, Arg, Fault, FaultKind, Launch, Memory, Module, Options, Simulator,
};

/// Runs a body on `x` (1024 words of ones) and `y` (1024 words, unwritten); returns `y[0]`.
fn run(tuning: &str, body: &str, threads: u32, options: Options) -> Result<u32, Box<Fault>> {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 x, .param .u64 y) {tuning}\n{{\n\
         .reg .pred %p<9>; .reg .b32 %r<30>; .reg .b64 %d<9>; .reg .f32 %f<9>;\n\
         .shared .align 128 .b8 s[4096]; .shared .align 8 .b64 bar;\n\
         ld.param.u64 %d1, [x]; ld.param.u64 %d2, [y]; mov.u32 %r1, %tid.x; mov.u32 %r2, s; setp.eq.u32 %p1, %r1, 0;\n\
         {body}\nret;\n}}"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut memory = Memory::new();
    let [x, y] = [0; 2].map(|_| memory.alloc(4096).expect("memory"));
    let ones: Vec<u8> = (0..1024).flat_map(|_| 1u32.to_le_bytes()).collect();
    memory.write(x, &ones).expect("in bounds");
    let constants = if options.dependent {
        vec![(y.0, 4096)]
    } else {
        vec![]
    };
    let options = Options {
        max_instructions: 100_000,
        constants,
        ..options
    };
    let launch = Launch::new([1, 1, 1], [threads, 1, 1], vec![Arg::Ptr(x), Arg::Ptr(y)]);
    Simulator::new(options).launch(&module, "k", &launch, &mut memory)?;
    let mut out = [0; 4];
    memory.read(y, &mut out).expect("in bounds");
    Ok(u32::from_le_bytes(out))
}

fn seed(schedule_seed: u64) -> Options {
    Options {
        schedule_seed,
        ..Options::default()
    }
}

#[test]
fn copies_complete_early_or_late() {
    // Without looking for faults the value tells when the copy was performed: 1 is copied over 7.
    let copy = "st.shared.u32 [s], 7; cp.async.ca.shared.global [%r2], [%d1], 4;
                cp.async.commit_group; ld.shared.u32 %r3, [s]; cp.async.wait_group 0;
                st.global.u32 [%d2], %r3;";
    let bulk = "st.shared.u32 [s], 7; mbarrier.init.shared.b64 [bar], 1; fence.proxy.async;
                mbarrier.arrive.expect_tx.shared.b64 _, [bar], 16;
                cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%d1], 16, [bar];
                ld.shared.u32 %r3, [s];
                A: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra A;
                st.global.u32 [%d2], %r3;";
    for body in [copy, bulk] {
        let fast = |schedule_seed| Options {
            schedule_seed,
            ..Options::fast()
        };
        assert_eq!(run("", body, 1, fast(0)).expect("no fault"), 1);
        assert_eq!(run("", body, 1, fast(1)).expect("no fault"), 7);
        let random: Vec<u32> = (2..12)
            .map(|s| run("", body, 1, fast(s)).expect("no fault"))
            .collect();
        assert!(random.contains(&1) && random.contains(&7), "{random:?}");
        // Whatever the schedule, the missing wait is found.
        for s in 0..4 {
            let fault = run("", body, 1, seed(s)).expect_err("a read before the wait");
            assert_eq!(fault.kind, FaultKind::NotWaited, "{fault}");
        }
    }
}

#[test]
fn a_try_wait_may_give_up() {
    // The copy is waited for once, and the answer is not looked at. In order and with late copies
    // the wait lasts until the data is there; a schedule in which it gives up finds the mistake.
    let body = "@%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0;
        @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [bar], 16;
        @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%d1], 16, [bar];
        mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0;
        ld.shared.u32 %r3, [s]; @%p1 st.global.u32 [%d2], %r3;";
    for s in 0..2 {
        assert_eq!(run("", body, 64, seed(s)).expect("no fault"), 1);
    }
    let faults: Vec<FaultKind> = (2..40)
        .filter_map(|s| run("", body, 64, seed(s)).err())
        .map(|f| f.kind)
        .collect();
    // The bytes were never written, or the copy has come but was not waited for.
    let known = [FaultKind::NotWaited, FaultKind::Uninitialized];
    assert!(!faults.is_empty() && faults.iter().all(|k| known.contains(k)));
    // A loop around it is right under all of them.
    let body = body
        .replace("mbarrier.try_wait", "A: mbarrier.try_wait")
        .replace("ld.shared", "@!%p2 bra A; ld.shared");
    for s in 0..40 {
        assert_eq!(run("", &body, 64, seed(s)).expect("no fault"), 1);
    }
}

#[test]
fn registers_move_through_the_pool() {
    // Two warps of 64: one gives 24 back, then the other may take 24, but not 32.
    let body = |more: u32| {
        format!(
            "setp.lt.u32 %p2, %r1, 32; @%p2 bra LESS;
             setmaxnreg.inc.sync.aligned.u32 {more}; bra END;
             LESS: setmaxnreg.dec.sync.aligned.u32 40; END:"
        )
    };
    let kind = |tuning: &str, body: &str| {
        let all: Vec<_> = (0..4)
            .map(|s| run(tuning, body, 64, seed(s)).err().map(|f| f.kind))
            .collect();
        assert!(all.iter().all(|k| *k == all[0]), "{all:?}");
        all[0]
    };
    assert_eq!(kind(".maxnreg 64", &body(88)), None);
    assert_eq!(kind(".maxnreg 64", &body(96)), Some(FaultKind::Deadlock));
    // Raising below what there is, and lowering above it.
    assert_eq!(kind(".maxnreg 64", &body(56)), Some(FaultKind::Operand));
    assert_eq!(kind(".maxnreg 32", &body(64)), Some(FaultKind::Operand));
    // Without a number at the start nothing is known, and nothing happens.
    assert_eq!(kind("", &body(256)), None);
}

#[test]
fn nothing_but_constants_before_the_dependency_wait() {
    let dependent = |s| Options {
        dependent: true,
        ..seed(s)
    };
    let mbarrier = "@%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @!%p1 bra W;
        mbarrier.arrive.expect_tx.shared.b64 _, [bar], 16;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%d1], 16, [bar];
        W: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra W;";
    // `y` is a constant of earlier launches here, `x` is not.
    let early = [
        "ld.global.u32 %r3, [%d1];",
        "atom.global.add.u32 %r3, [%d1], 1;",
        "cp.async.ca.shared.global [%r2], [%d1], 4; cp.async.wait_all;",
        "st.global.u32 [%d1], 5;",
        mbarrier,
    ];
    for access in early {
        for s in 0..3 {
            let before = format!("{access} griddepcontrol.wait; st.global.u32 [%d2], 1;");
            let fault = run("", &before, 32, dependent(s)).expect_err(access);
            assert_eq!(fault.kind, FaultKind::BeforeDependency, "{access}: {fault}");
            let after = format!(
                "griddepcontrol.launch_dependents; griddepcontrol.wait; {access} st.global.u32 [%d2], 1;"
            );
            assert_eq!(run("", &after, 1, dependent(s)).expect(access), 1);
        }
    }
}

#[test]
fn tensor_cores_accumulate_exactly_or_as_hopper_does() {
    // All elements are 0x0800 = 2⁻¹³: sixteen products of 2⁻²⁶ are 2⁻²², added to 1. The exact sum is
    // an f32. Hopper's cuts off each product below the 25 fraction bits that it keeps under 1.
    let body = "mov.b32 %r3, 0x08000800; mov.b32 %r4, 0;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r3,%r3,%r3,%r3}, {%r3,%r3}, {0f3F800000,0f3F800000,0f3F800000,0f3F800000};
        @%p1 st.global.f32 [%d2], %f1;";
    let with = |accumulate| Options {
        accumulate,
        ..seed(0)
    };
    let exact = run("", body, 32, with(Accumulate::Exact)).expect("no fault");
    let hopper = run("", body, 32, with(Accumulate::Hopper)).expect("no fault");
    assert_eq!(f32::from_bits(exact), 1.0 + 2f32.powi(-22));
    assert_eq!(f32::from_bits(hopper), 1.0);
    // Products of 0x0C00 · 0x0800 = 2⁻²⁵ are kept: sixteen of them are 2⁻²¹ under both.
    let larger = body
        .replace("0x08000800", "0x0C000C00")
        .replace("{%r3,%r3}, {0f", "{%r5,%r5}, {0f");
    let larger = format!("mov.b32 %r5, 0x08000800; {larger}");
    for accumulate in [Accumulate::Exact, Accumulate::Hopper] {
        let sum = run("", &larger, 32, with(accumulate)).expect("no fault");
        assert_eq!(f32::from_bits(sum), 1.0 + 2f32.powi(-21));
    }
}

#[test]
fn approximate_functions_at_both_ends() {
    // Documented errors (PTX ISA): relative 2⁻²² for ex2 and 2⁻²³ for rcp, 1 ulp; sqrt 2⁻²³; the ends
    // lie on both sides of the true value and within a slightly larger band.
    for (op, x, exact) in [
        ("ex2.approx.f32", 0.3f32, (0.3f32 as f64).exp2()),
        ("rcp.approx.f32", 3.0, 1.0 / 3.0),
        ("sqrt.approx.f32", 2.0, 2f64.sqrt()),
        ("rsqrt.approx.f32", 2.0, 2f64.sqrt().recip()),
        ("lg2.approx.f32", 10.0, 10f64.log2()),
        ("tanh.approx.f32", 0.5, 0.5f64.tanh()),
        ("sin.approx.f32", 1.0, 1f64.sin()),
    ] {
        let body = format!(
            "mov.f32 %f1, 0f{:08X}; {op} %f2, %f1; @%p1 st.global.f32 [%d2], %f2;",
            x.to_bits()
        );
        let value = |approx| {
            let options = Options { approx, ..seed(0) };
            f64::from(f32::from_bits(
                run("", &body, 32, options).expect("no fault"),
            ))
        };
        let (low, near, high) = (
            value(Approx::Low),
            value(Approx::Nearest),
            value(Approx::High),
        );
        assert!(
            low < exact && exact < high && low <= near && near <= high,
            "{op}: {low} {exact} {high}"
        );
        assert!((high - low) / exact < 3e-3, "{op}: {low} {high}");
    }
}
