//! Every counter on a kernel whose numbers can be worked out by hand; the working is in the comments.

use ptxsim::{Arg, Class, Launch, Memory, Module, Options, Report, Simulator, TensorKind};

const DECLARE: &str = ".reg .pred %p<9>; .reg .b32 %r<40>; .reg .b64 %d<20>; .reg .f32 %f<9>;
    .shared .align 128 .b8 tile[4096]; .shared .align 8 .b8 bar[16];
    ld.param.u64 %d1, [x]; ld.param.u64 %d2, [y];
    mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, tile; mov.u32 %r4, bar;
    mul.wide.u32 %d3, %r1, 4; add.u64 %d4, %d1, %d3; add.u64 %d5, %d2, %d3;
    shl.b32 %r6, %r1, 2; add.u32 %r5, %r3, %r6;";

/// Runs a body on buffers `x` and `y` of 64 KiB (`%d1`, `%d2`; `%d4` and `%d5` are their words of this
/// thread, `%r5` the thread's word of shared `tile`).
fn run(target: &str, body: &str, blocks: u32, threads: u32, sms: u32) -> Report {
    let text = format!(
        ".version 8.0\n.target {target}\n.address_size 64\n.visible .entry k(.param .u64 x, .param .u64 y)\n{{\n{DECLARE}\n{body}\nret;\n}}"
    );
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let reports: Vec<Report> = (0..3)
        .map(|schedule_seed| {
            let mut memory = Memory::new();
            let args = [0; 2].map(|_| {
                let p = memory.alloc(1 << 16).expect("memory");
                memory.write(p, &[0; 1 << 16]).expect("in bounds");
                Arg::Ptr(p)
            });
            let launch = Launch::new([blocks, 1, 1], [threads, 1, 1], args.to_vec());
            let options = Options {
                schedule_seed,
                sms,
                ..Options::default()
            };
            Simulator::new(options)
                .launch(&module, "k", &launch, &mut memory)
                .unwrap_or_else(|e| panic!("{e}\n{text}"))
        })
        .collect();
    // How many waits find their data there already depends on the schedule, the rest does not.
    for r in &reports[1..] {
        let same = |r: &Report| (r.hops, r.l2_read, r.dram_read, r.before_dependency);
        assert_eq!(same(r), same(&reports[0]));
    }
    // Copies that complete late: what a wait finds on its way is all that is.
    reports.into_iter().nth(1).expect("three reports")
}

#[test]
fn instructions_by_class_and_tensor_operations() {
    // Two warps, one of which skips the addition: 1 f32 instruction of 32 lanes. Its guard fails in
    // all lanes of the other warp, which still issues it: 2 warp instructions, 32 lane instructions.
    let r = run(
        "sm_80",
        "mov.f32 %f1, 0f3F800000; setp.lt.u32 %p1, %r1, 32; @%p1 add.rn.f32 %f2, %f1, %f1;",
        1,
        64,
        1,
    );
    assert_eq!(r.warp_instructions[Class::Float as usize], 2);
    assert_eq!(r.lane_instructions[Class::Float as usize], 32);
    assert_eq!(r.warp_instructions[Class::Compare as usize], 2);
    // m16n8k16 is 16·8·16 = 2048 multiply-adds, m16n8k32 of s8 twice as many.
    let r = run(
        "sm_80",
        "mov.b32 %r10, 0;
         mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r10,%r10,%r10,%r10}, {%r10,%r10}, {0f00000000,0f00000000,0f00000000,0f00000000};
         mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r11,%r12,%r13,%r14}, {%r10,%r10,%r10,%r10}, {%r10,%r10}, {%r10,%r10,%r10,%r10};",
        1,
        32,
        1,
    );
    assert_eq!(r.tensor_macs, 2048 + 4096);
    assert_eq!(r.tensor_macs_by_kind[TensorKind::Half as usize], 2048);
    assert_eq!(r.tensor_macs_by_kind[TensorKind::Int8 as usize], 4096);
    assert_eq!(r.warp_instructions[Class::Tensor as usize], 2);
}

#[test]
fn dram_bytes_apart_from_l2_bytes() {
    // Four blocks read the same 32 words: 128 bytes of memory, 4·128 from L2. Each writes them at the
    // same place: 128 bytes of memory, 512 to L2. 1024 requested of 1024 moved.
    let body = "ld.global.f32 %f1, [%d4]; st.global.f32 [%d5], %f1;";
    let r = run("sm_80", body, 4, 32, 1);
    assert_eq!(
        (r.dram_read, r.l2_read, r.dram_written, r.l2_written),
        (128, 512, 128, 512)
    );
    assert_eq!((r.requested, r.coalescing()), (1024, 1.0));
    // Words 32 bytes apart: 32 sectors of 32 bytes for 128 requested: 1/8.
    let body = "mul.wide.u32 %d6, %r1, 32; add.u64 %d6, %d1, %d6; ld.global.f32 %f1, [%d6];";
    let r = run("sm_80", body, 1, 32, 1);
    assert_eq!((r.requested, r.l2_read, r.coalescing()), (128, 1024, 0.125));
}

#[test]
fn wavefronts_of_shared_memory() {
    // Consecutive words: 128 bytes in one wavefront, 8 to a KiB.
    let r = run("sm_80", "st.shared.b32 [%r5], %r1;", 1, 32, 1);
    assert_eq!((r.shared_bytes, r.wavefronts), (128, 1));
    assert_eq!(r.wavefronts_per_kib(), 8.0);
    // Every second word: lanes l and l + 16 meet in bank 2l mod 32. Two wavefronts, 16 to a KiB.
    let body = "shl.b32 %r7, %r1, 3; add.u32 %r7, %r3, %r7; st.shared.b32 [%r7], %r1;";
    let r = run("sm_80", body, 1, 32, 1);
    assert_eq!((r.wavefronts, r.ideal_wavefronts), (2, 1));
    assert_eq!(r.wavefronts_per_kib(), 16.0);
}

#[test]
fn bytes_per_block_and_waves() {
    // Block 0 reads 128 bytes twice, the other four once: 256 at most, (256 + 4·128) / 5 in the mean.
    // Five blocks on two multiprocessors are three waves.
    let body = "ld.global.f32 %f1, [%d4]; setp.eq.u32 %p1, %r2, 0;
                @%p1 ld.global.f32 %f2, [%d4+512];";
    let r = run("sm_80", body, 5, 32, 2);
    assert_eq!((r.max_block_bytes, r.waves), (256, 3));
    assert_eq!(r.mean_block_bytes(), 153.6);
}

#[test]
fn bytes_before_the_dependency_wait() {
    // Each of two warps loads 128 bytes before its wait and 128 after: 2·128, and not less because
    // one warp may have passed its wait when the other loads.
    let body = "ld.global.f32 %f1, [%d4]; griddepcontrol.wait; ld.global.f32 %f2, [%d5];";
    let r = run("sm_90", body, 1, 64, 1);
    assert_eq!((r.before_dependency, r.l2_read), (256, 512));
    assert!(r.dependent);
}

#[test]
fn chains_of_loads_are_hops() {
    // Two loads whose results are used afterwards travel together.
    let apart = "ld.global.u32 %r10, [%d4]; ld.global.u32 %r11, [%d5]; add.u32 %r12, %r10, %r11;";
    assert_eq!(run("sm_80", apart, 3, 64, 1).hops, 1);
    // The first gives the address of the second.
    let chain = "ld.global.u32 %r10, [%d4]; mul.wide.u32 %d6, %r10, 4; add.u64 %d6, %d1, %d6;
                 ld.global.u32 %r11, [%d6]; st.global.u32 [%d5], %r11;";
    assert_eq!(run("sm_80", chain, 3, 64, 1).hops, 2);
    // Warp 0 loads and gives what it read to warp 1 through shared memory, which loads from there.
    let across = "setp.ge.u32 %p1, %r1, 32; @%p1 bra AFTER;
                  ld.global.u32 %r10, [%d4]; st.shared.u32 [%r5], %r10;
                  AFTER: bar.sync 0; @!%p1 ret;
                  ld.shared.u32 %r11, [%r5+-128]; mul.wide.u32 %d6, %r11, 4;
                  add.u64 %d6, %d1, %d6; ld.global.u32 %r12, [%d6]; add.u32 %r13, %r12, 1;";
    assert_eq!(run("sm_80", across, 1, 64, 1).hops, 2);
    // Nobody reads the result of the load: no hop. An atomic's old value is one.
    assert_eq!(run("sm_80", "ld.global.u32 %r10, [%d4];", 1, 32, 1).hops, 0);
    let atomic = "atom.global.add.u32 %r10, [%d4], 1; add.u32 %r11, %r10, 1;";
    assert_eq!(run("sm_80", atomic, 1, 32, 1).hops, 1);
}

#[test]
fn a_ring_of_copies() {
    // Four tiles of 32·16 = 512 bytes through two slots. Waits 0, 1, 2 find their tile and the next
    // in flight (1024 bytes), wait 3 the last one alone (512). Tiles 0 and 1 leave at time 0 and are
    // there at 1; tile 2 leaves after wait 0, at 1, tile 3 after wait 1, also at 1; both are there at
    // 2. So two hops for four tiles.
    let body =
        "shl.b32 %r7, %r1, 4; add.u32 %r8, %r3, %r7; cvt.u64.u32 %d6, %r7; add.u64 %d6, %d1, %d6;
        cp.async.cg.shared.global [%r8], [%d6], 16; cp.async.commit_group;
        mov.u32 %r9, 0;
        LOOP: add.u32 %r10, %r9, 1; setp.lt.u32 %p1, %r10, 4; @!%p1 bra EMPTY;
        and.b32 %r11, %r10, 1; mad.lo.u32 %r12, %r11, 512, %r8;
        mul.wide.u32 %d7, %r10, 512; add.u64 %d7, %d6, %d7;
        cp.async.cg.shared.global [%r12], [%d7], 16;
        EMPTY: cp.async.commit_group; cp.async.wait_group 1; bar.warp.sync -1;
        and.b32 %r13, %r9, 1; mad.lo.u32 %r14, %r13, 512, %r8;
        ld.shared.u32 %r15, [%r14]; bar.warp.sync -1;
        add.u32 %r9, %r9, 1; setp.lt.u32 %p2, %r9, 4; @%p2 bra LOOP;";
    let r = run("sm_80", body, 1, 32, 1);
    let [wait] = &r.waits[..] else {
        panic!("{:?}", r.waits)
    };
    assert_eq!((wait.count, wait.least_in_flight), (4, 512));
    assert_eq!((r.hops, r.l2_read), (2, 2048));
}

#[test]
fn bulk_copies_on_an_mbarrier() {
    // One thread sends for 256 + 128 bytes and waits, then for 512 more: two hops. At the first wait
    // that blocks 384 bytes are on their way, at the second 512.
    let body = "setp.ne.u32 %p1, %r1, 0; @%p1 ret;
        mbarrier.init.shared.b64 [%r4], 1; fence.mbarrier_init.release.cluster;
        mbarrier.arrive.expect_tx.shared.b64 _, [%r4], 384;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r3], [%d1], 256, [%r4];
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r3+256], [%d1+256], 128, [%r4];
        A: mbarrier.try_wait.parity.shared.b64 %p2, [%r4], 0; @!%p2 bra A;
        mbarrier.arrive.expect_tx.shared.b64 _, [%r4], 512;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r3+512], [%d2], 512, [%r4];
        B: mbarrier.try_wait.parity.shared.b64 %p3, [%r4], 1; @!%p3 bra B;
        ld.shared.u32 %r10, [%r3];";
    let r = run("sm_90", body, 1, 32, 1);
    assert_eq!((r.hops, r.bulk_bytes, r.l2_read), (2, 896, 896));
    let least: Vec<u64> = r.waits.iter().map(|w| w.least_in_flight).collect();
    assert_eq!(least, [384, 512]);
}
