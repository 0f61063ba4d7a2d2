//! Small kernels with one fault each, and the same kernels without it.

use ptxsim::{Arg, FaultKind, Launch, Memory, Module, Options, Simulator};

/// Runs a body over a block; `%rd1` is a buffer of 4096 initialized bytes, `%r1` the thread.
fn run(decls: &str, body: &str, block: u32, seed: u64) -> Result<(), (FaultKind, u32, String)> {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 buf)\n{{\n\
         .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .b64 %rd<8>; .reg .f32 %f<8>; {decls}\n\
         ld.param.u64 %rd1, [buf];\nmov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut memory = Memory::new();
    let p = memory.alloc(4096).unwrap();
    memory.write(p, &[0; 4096]).unwrap();
    let options = Options {
        schedule_seed: seed,
        max_instructions: 100_000,
        ..Options::default()
    };
    let launch = Launch::new([1, 1, 1], [block, 1, 1], vec![Arg::Ptr(p)]);
    let result = Simulator::new(options).launch(&module, "k", &launch, &mut memory);
    result.map(|_| ()).map_err(|f| (f.kind, f.line, f.message))
}

fn clean(decls: &str, body: &str, block: u32) {
    for seed in 0..5 {
        if let Err((kind, line, message)) = run(decls, body, block, seed) {
            panic!("{kind:?} at line {line}: {message}\n{body}");
        }
    }
}

/// The fault must be found under every schedule, at the line that holds `// here`.
fn faulty(decls: &str, body: &str, block: u32, kind: FaultKind) {
    let line = body
        .lines()
        .position(|l| l.contains("// here"))
        .map(|i| i as u32 + 9);
    for seed in 0..5 {
        match run(decls, body, block, seed) {
            Ok(()) => panic!("no fault with schedule {seed}:\n{body}"),
            Err((k, at, message)) => {
                assert_eq!(k, kind, "{message}\n{body}");
                if let Some(line) = line {
                    assert_eq!(at, line, "{message}\n{body}");
                }
            }
        }
    }
}

#[test]
fn bounds_and_alignment() {
    faulty(
        "",
        "ld.global.u32 %r2, [%rd1+4096]; // here",
        1,
        FaultKind::OutOfBounds,
    );
    faulty(
        "",
        "ld.global.u32 %r2, [%rd1+2]; // here",
        1,
        FaultKind::Misaligned,
    );
    faulty(
        "",
        "ld.global.v4.u32 {%r2,%r3,%r4,%r5}, [%rd1+8]; // here",
        1,
        FaultKind::Misaligned,
    );
    faulty(
        ".shared .align 16 .b8 s[64];",
        "st.shared.u32 [s+64], %r1; // here",
        1,
        FaultKind::OutOfBounds,
    );
    faulty(
        "",
        "mov.u32 %r2, 0;\nst.shared.u32 [%r2], %r1; // here",
        1,
        FaultKind::OutOfBounds,
    );
    clean(
        ".shared .align 16 .b8 s[64];",
        "st.shared.u32 [s+60], %r1;",
        1,
    );
}

#[test]
fn unwritten_data() {
    faulty(
        "",
        "add.u32 %r2, %r3, 1; // here",
        1,
        FaultKind::Uninitialized,
    );
    faulty(
        ".shared .b32 s[4];",
        "ld.shared.u32 %r2, [s]; // here",
        1,
        FaultKind::Uninitialized,
    );
    faulty(
        "",
        "@%p1 mov.u32 %r2, 1; // here",
        1,
        FaultKind::Uninitialized,
    );
    // Only one lane has written.
    faulty(
        "",
        "setp.eq.u32 %p1, %r1, 0;\n@%p1 mov.u32 %r2, 1;\nadd.u32 %r3, %r2, 1; // here",
        32,
        FaultKind::Uninitialized,
    );
}

const EXCHANGE: &str = ".shared .align 16 .b32 s[64];";

#[test]
fn races_in_shared_memory() {
    let body = "mov.u32 %r2, s;\nshl.b32 %r3, %r1, 2;\nadd.u32 %r3, %r2, %r3;\nst.shared.u32 [%r3], %r1;\n";
    let read = "xor.b32 %r4, %r1, 32;\nshl.b32 %r5, %r4, 2;\nadd.u32 %r5, %r2, %r5;\nld.shared.u32 %r6, [%r5]; // here";
    clean(EXCHANGE, &format!("{body}bar.sync 0;\n{read}"), 64);
    // Without the barrier the other warp has either not written or not been waited for.
    let found = run(EXCHANGE, &format!("{body}{read}"), 64, 0)
        .unwrap_err()
        .0;
    assert!(matches!(found, FaultKind::Race | FaultKind::Uninitialized));
    // Inside one warp the lanes need bar.warp.sync.
    let near = read.replace("%r1, 32", "%r1, 1");
    faulty(EXCHANGE, &format!("{body}{near}"), 32, FaultKind::Race);
    clean(
        EXCHANGE,
        &format!("{body}bar.warp.sync 0xffffffff;\n{near}"),
        32,
    );
    // Two lanes write one word: different values race, equal ones do not.
    faulty(
        EXCHANGE,
        "st.shared.u32 [s], %r1; // here",
        32,
        FaultKind::Race,
    );
    clean(EXCHANGE, "st.shared.u32 [s], 7;", 64);
}

#[test]
fn a_barrier_of_half_the_block_orders_only_that_half() {
    let write = "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [s], 5;\nsetp.lt.u32 %p2, %r1, 64;\n";
    let read = "ld.shared.u32 %r2, [s];";
    clean(
        EXCHANGE,
        &format!("{write}@!%p2 bra out;\nbar.sync 1, 64;\n{read}\nout:"),
        96,
    );
    let all = format!("{write}@!%p2 bra after;\nbar.sync 1, 64;\nafter:\n{read}");
    assert!(run(EXCHANGE, &all, 96, 0).is_err());
}

#[test]
fn races_in_global_memory() {
    faulty(
        "",
        "st.global.u32 [%rd1], %r1; // here",
        64,
        FaultKind::Race,
    );
    clean("", "red.global.add.u32 [%rd1], %r1;", 64);
    // Message passing by release and acquire.
    let pass = |store: &str, load: &str| {
        format!(
            "setp.ge.u32 %p1, %r1, 32;\n@%p1 bra reader;\nsetp.eq.u32 %p2, %r1, 0;\n@!%p2 bra done;\n\
             st.global.u32 [%rd1], 42;\n{store} [%rd1+64], 1;\nbra done;\nreader:\nspin:\n{load} %r2, [%rd1+64];\n\
             setp.eq.u32 %p3, %r2, 0;\n@%p3 bra spin;\nld.global.u32 %r3, [%rd1];\ndone:"
        )
    };
    clean(
        "",
        &pass("st.release.gpu.global.u32", "ld.acquire.gpu.global.u32"),
        64,
    );
    for (store, load) in [
        ("st.relaxed.gpu.global.u32", "ld.acquire.gpu.global.u32"),
        ("st.release.gpu.global.u32", "ld.relaxed.gpu.global.u32"),
    ] {
        let kind = run("", &pass(store, load), 64, 0).unwrap_err().0;
        assert_eq!(kind, FaultKind::Race);
    }
}

#[test]
fn copies_must_be_waited_for() {
    let copy = "cp.async.ca.shared.global [s], [%rd1], 16;\ncp.async.commit_group;\n";
    let read = "ld.shared.u32 %r2, [s]; // here";
    clean(
        EXCHANGE,
        &format!("{copy}cp.async.wait_group 0;\n{read}"),
        1,
    );
    faulty(EXCHANGE, &format!("{copy}{read}"), 1, FaultKind::NotWaited);
    faulty(
        EXCHANGE,
        &format!("{copy}cp.async.wait_group 1;\n{read}"),
        1,
        FaultKind::NotWaited,
    );
    // A wait makes data visible to the waiting thread only.
    let first =
        format!("setp.eq.u32 %p1, %r1, 0;\n@!%p1 bra next;\n{copy}next:\ncp.async.wait_group 0;\n");
    clean(EXCHANGE, &format!("{first}bar.sync 0;\n{read}"), 64);
    assert!(run(EXCHANGE, &format!("{first}{read}"), 64, 0).is_err());
}

const BULK: &str = ".shared .align 128 .b8 s[256]; .shared .align 8 .b64 bar;";

fn bulk(before: &str, wait: &str, after: &str) -> String {
    format!(
        "setp.eq.u32 %p1, %r1, 0;\n@%p1 mbarrier.init.shared::cta.b64 [bar], 1;\n@%p1 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n{before}\
         @!%p1 bra go;\nmbarrier.arrive.expect_tx.shared::cta.b64 %rd2, [bar], 64;\n\
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [%rd1], 64, [bar];\ngo:\n\
         {wait}\n{after}"
    )
}

const WAIT: &str =
    "again:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [bar], 0;\n@!%p2 bra again;";

#[test]
fn bulk_copies_and_mbarriers() {
    let read = "ld.shared.u32 %r2, [s]; // here";
    clean(BULK, &bulk("", WAIT, read), 64);
    let kind = run(BULK, &bulk("", "", read), 64, 1).unwrap_err().0;
    assert_eq!(kind, FaultKind::NotWaited);
    // The wrong parity of a fresh barrier succeeds at once.
    let kind = run(
        BULK,
        &bulk("", &WAIT.replace("[bar], 0", "[bar], 1"), read),
        64,
        1,
    )
    .unwrap_err()
    .0;
    assert_eq!(kind, FaultKind::NotWaited);
    // The second phase never completes.
    let twice = format!(
        "{WAIT}\n{}",
        WAIT.replace("again", "more")
            .replace("[bar], 0", "[bar], 1")
    );
    faulty(BULK, &bulk("", &twice, ""), 64, FaultKind::Deadlock);
    // Generic writes before an asynchronous overwrite need the proxy fence.
    let clear = "@%p1 st.shared.u32 [s], 9;\n";
    clean(
        BULK,
        &bulk(
            &format!("{clear}fence.proxy.async.shared::cta;\n"),
            WAIT,
            read,
        ),
        64,
    );
    let kind = run(BULK, &bulk(clear, WAIT, read), 64, 0).unwrap_err().0;
    assert_eq!(kind, FaultKind::MissingProxyFence);
}

#[test]
fn mbarrier_misuse() {
    faulty(
        BULK,
        "mbarrier.arrive.shared::cta.b64 %rd2, [bar]; // here",
        1,
        FaultKind::Mbarrier,
    );
    let init = "mbarrier.init.shared::cta.b64 [bar], 1;\n";
    faulty(
        BULK,
        &format!("{init}mbarrier.arrive.shared::cta.b64 %rd2, [bar], 2;"),
        1,
        FaultKind::Mbarrier,
    );
    clean(
        BULK,
        &format!(
            "{init}mbarrier.arrive.shared::cta.b64 %rd2, [bar];\nmbarrier.test_wait.shared::cta.b64 %p1, [bar], %rd2;\n@!%p1 trap;"
        ),
        1,
    );
}

#[test]
fn divergence_and_deadlock() {
    faulty(
        "",
        "setp.lt.u32 %p1, %r1, 16;\n@%p1 bar.sync 0;",
        32,
        FaultKind::Divergent,
    );
    faulty(
        "",
        "setp.lt.u32 %p1, %r1, 32;\n@%p1 bra skip;\nbar.sync 0;\nskip:\nbar.sync 1;",
        64,
        FaultKind::Deadlock,
    );
    faulty(
        "",
        "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra skip;\nshfl.sync.idx.b32 %r2, %r1, 0, 31, 0xffffffff;\nskip:\nshfl.sync.idx.b32 %r2, %r1, 0, 31, 0xffffffff;",
        32,
        FaultKind::Divergent,
    );
    faulty("", "loop:\nbra loop;", 1, FaultKind::Limit);
    faulty("", "trap; // here", 1, FaultKind::Trap);
    // A lane that waits for another of its own warp makes progress.
    clean(
        EXCHANGE,
        "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.shared.u32 [s], 0;\nbar.warp.sync 0xffffffff;\n@%p1 bra writer;\nspin:\n\
        ld.acquire.cta.shared.u32 %r2, [s];\nsetp.eq.u32 %p2, %r2, 0;\n@%p2 bra spin;\nbra end;\nwriter:\nst.release.cta.shared.u32 [s], 1;\nend:",
        32,
    );
}

#[test]
fn launches_are_checked() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n.entry k(.param .u32 n) .reqntid 32 { ret; }";
    let module = Module::parse(text).unwrap();
    let sim = Simulator::new(Options::default());
    let mut memory = Memory::new();
    let mut go = |block, args| {
        sim.launch(
            &module,
            "k",
            &Launch::new([1, 1, 1], [block, 1, 1], args),
            &mut memory,
        )
        .map_err(|f| f.kind)
    };
    assert!(go(32, vec![Arg::U32(1)]).is_ok());
    assert_eq!(go(64, vec![Arg::U32(1)]).unwrap_err(), FaultKind::Launch);
    assert_eq!(go(32, vec![]).unwrap_err(), FaultKind::Launch);
    assert_eq!(go(32, vec![Arg::U64(1)]).unwrap_err(), FaultKind::Launch);
    assert!(
        sim.launch(&module, "none", &Launch::default(), &mut memory)
            .is_err()
    );
}

#[test]
fn memory_before_the_dependency_wait() {
    let text = ".version 8.0\n.target sm_90\n.address_size 64\n.entry k(.param .u64 a, .param .u64 b) {\n\
        .reg .b64 %rd<3>; .reg .b32 %r<3>;\nld.param.u64 %rd1, [a];\nld.param.u64 %rd2, [b];\n\
        ld.global.u32 %r1, [%rd1];\ngriddepcontrol.wait;\nld.global.u32 %r2, [%rd2];\nret;\n}";
    let module = Module::parse(text).unwrap();
    let mut memory = Memory::new();
    let p: Vec<_> = (0..2).map(|_| memory.alloc(64).unwrap()).collect();
    p.iter().for_each(|p| memory.write(*p, &[1; 64]).unwrap());
    let launch = Launch::new([1, 1, 1], [32, 1, 1], vec![Arg::Ptr(p[0]), Arg::Ptr(p[1])]);
    let with = |constants| Options {
        dependent: true,
        constants,
        ..Options::default()
    };
    let good = Simulator::new(with(vec![(p[0].0, 64)])).launch(&module, "k", &launch, &mut memory);
    assert!(good.is_ok());
    let bad = Simulator::new(with(vec![(p[1].0, 64)])).launch(&module, "k", &launch, &mut memory);
    assert_eq!(bad.unwrap_err().kind, FaultKind::BeforeDependency);
}

#[test]
fn a_fault_carries_the_note_above_its_line() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n.entry k() {\n.reg .b32 %r<3>;\n//@ linear \"MatMul_3\"\n\
        mov.u32 %r1, 1;\n//@ store\nadd.u32 %r1, %r2, 1;\nret;\n}";
    let module = Module::parse(text).unwrap();
    let launch = Launch::new([1, 1, 1], [32, 1, 1], vec![]);
    let fault = Simulator::new(Options::default())
        .launch(&module, "k", &launch, &mut Memory::new())
        .unwrap_err();
    assert_eq!((fault.line, fault.note.as_deref()), (9, Some("store")));
    assert!(
        fault
            .to_string()
            .contains("uninitialized in `k` line 9 (store)"),
        "{fault}"
    );
}
