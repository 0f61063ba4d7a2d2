//! The same result for any number of threads, and counters that can be computed by hand.

use ptxsim::{Approx, Arg, Launch, Memory, Module, Options, Report, Simulator};

const SAXPY: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 x, .param .u64 y, .param .u32 n)
{
    .reg .pred %p<2>; .reg .b32 %r<6>; .reg .b64 %rd<6>; .reg .f32 %f<4>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    ld.param.u32 %r5, [n];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.u32 %r4, %r2, %r3, %r1;
    setp.ge.u32 %p1, %r4, %r5;
    @%p1 ret;
    mul.wide.u32 %rd3, %r4, 4;
    add.u64 %rd4, %rd1, %rd3;
    add.u64 %rd5, %rd2, %rd3;
    ld.global.f32 %f1, [%rd4];
    ex2.approx.f32 %f2, %f1;
    st.global.f32 [%rd5], %f2;
    ret;
}
";

fn run(threads: usize, races: bool, approx: Approx) -> (Report, Vec<u8>) {
    let module = Module::parse(SAXPY).unwrap();
    let mut memory = Memory::new();
    let n = 1000u32;
    let (x, y) = (memory.alloc(4000).unwrap(), memory.alloc(4000).unwrap());
    let data: Vec<u8> = (0..n)
        .flat_map(|i| (i as f32 / 100.0).to_le_bytes())
        .collect();
    memory.write(x, &data).unwrap();
    let launch = Launch::new(
        [8, 1, 1],
        [128, 1, 1],
        vec![Arg::Ptr(x), Arg::Ptr(y), Arg::U32(n)],
    );
    let options = Options {
        threads,
        races,
        approx,
        ..Options::default()
    };
    let report = Simulator::new(options)
        .launch(&module, "k", &launch, &mut memory)
        .unwrap();
    let mut out = vec![0; 4000];
    memory.read(y, &mut out).unwrap();
    (report, out)
}

#[test]
fn threads_change_nothing() {
    let one = run(1, false, Approx::Nearest);
    for threads in [2, 3, 8] {
        assert_eq!(run(threads, false, Approx::Nearest), one);
    }
    assert_eq!(run(2, true, Approx::Nearest), one);
}

#[test]
fn counters_follow_from_the_kernel() {
    let (r, _) = run(1, true, Approx::Nearest);
    assert_eq!((r.dram_read, r.dram_written), (4000, 4000));
    assert_eq!((r.l2_read, r.l2_written, r.requested), (4000, 4000, 8000));
    assert!((r.coalescing() - 1.0).abs() < 1e-9);
    assert_eq!(r.blocks, 8);
    // 32 warps of 16 instructions; the return that the guard switches off is issued all the same.
    assert_eq!(r.total_warp_instructions(), 32 * 16);
    assert!(
        r.to_json()
            .starts_with("{\"kernel\":\"k\",\"blocks\":8,\"waves\":1,")
    );
}

#[test]
fn approximate_functions_stay_inside_their_error() {
    let value = |out: &[u8], i: usize| {
        f32::from_le_bytes([out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]])
    };
    let [low, near, high] =
        [Approx::Low, Approx::Nearest, Approx::High].map(|a| run(1, false, a).1);
    assert_eq!(value(&low, 0), 1.0);
    let mut moved = 0;
    for i in 1..1000 {
        let exact = (f64::from(i as f32 / 100.0)).exp2();
        let (l, n, h) = (
            f64::from(value(&low, i)),
            f64::from(value(&near, i)),
            f64::from(value(&high, i)),
        );
        assert!(l <= n && n <= h);
        assert!(
            (h - exact).abs() / exact < 2f64.powi(-22)
                && (exact - l).abs() / exact < 2f64.powi(-22)
        );
        moved += usize::from(l < h);
    }
    assert_eq!(moved, 999);
}
