//! Bulk copies between blocks, multicast, bulk reductions and stores, cluster addressing.

use ptxsim::{
    Arg, ElementType, Fault, Launch, Memory, Module, OobFill, Options, Simulator, Swizzle,
    TensorMap,
};

const HEAD: &str = ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 x, .param .u64 y, .param .align 64 .b8 map[128])\n{\n\
    .reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .b64 %rd<8>; .reg .f32 %f<8>;\n\
    .shared .align 1024 .b8 s[4096]; .shared .align 8 .b64 bar;\n\
    ld.param.u64 %rd1, [x];\nld.param.u64 %rd2, [y];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %cluster_ctarank;\nmov.u32 %r3, %ctaid.x;\n\
    setp.eq.u32 %p1, %r1, 0;\nmov.u32 %r4, s;\nshl.b32 %r5, %r1, 2;\nadd.u32 %r6, %r4, %r5;\n";

const INIT: &str = "@%p1 mbarrier.init.shared::cta.b64 [bar], 1;\n@%p1 fence.mbarrier_init.release.cluster;\n\
    barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n";

const WAIT: &str =
    "again:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [bar], 0;\n@!%p2 bra again;\n";

/// Word t of block b's shared memory goes to y[64 b + t].
const STORE: &str = "ld.shared.u32 %r7, [%r6];\nmad.lo.u32 %r8, %r3, 64, %r1;\nmul.wide.u32 %rd3, %r8, 4;\nadd.u64 %rd4, %rd2, %rd3;\nst.global.u32 [%rd4], %r7;\n";

/// Keeps a block alive while others reach into it.
const CLOSE: &str = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\nret;\n}\n";

fn launch(
    body: &str,
    blocks: u32,
    cluster: u32,
    y: &[u32],
    map: impl Fn(u64) -> TensorMap,
) -> Result<Vec<u32>, Box<Fault>> {
    let text = format!("{HEAD}{body}");
    let module = Module::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut out = Vec::new();
    for schedule_seed in 0..4 {
        let mut memory = Memory::new();
        let bytes = |v: &[u32]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let x: Vec<u32> = (0..1024).collect();
        let (px, py) = (
            memory.alloc(4096).unwrap(),
            memory.alloc(4 * y.len() as u64).unwrap(),
        );
        memory.write(px, &bytes(&x)).unwrap();
        memory.write(py, &bytes(y)).unwrap();
        let args = vec![
            Arg::Ptr(px),
            Arg::Ptr(py),
            Arg::Bytes(map(px.0).encode().unwrap().to_vec()),
        ];
        let launch = Launch {
            cluster: [cluster, 1, 1],
            ..Launch::new([blocks, 1, 1], [64, 1, 1], args)
        };
        let options = Options {
            schedule_seed,
            max_instructions: 100_000,
            ..Options::default()
        };
        Simulator::new(options).launch(&module, "k", &launch, &mut memory)?;
        let mut raw = vec![0; 4 * y.len()];
        memory.read(py, &mut raw).unwrap();
        let got: Vec<u32> = raw
            .chunks(4)
            .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
            .collect();
        assert!(
            out.is_empty() || out == got,
            "schedule {schedule_seed} differs"
        );
        out = got;
    }
    Ok(out)
}

fn plain(address: u64) -> TensorMap {
    TensorMap {
        address,
        element: ElementType::U32,
        dims: vec![30, 20],
        strides: vec![128],
        box_dims: vec![8, 8],
        swizzle: Swizzle::None,
        fill: OobFill::Zero,
    }
}

#[test]
fn a_multicast_copy_reaches_every_block_of_its_mask() {
    let body = format!(
        "{INIT}@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 %rd5, [bar], 256;\nsetp.eq.and.u32 %p3, %r2, 1, %p1;\n\
         barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\nmov.u16 %h1, 15;\n\
         @%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [s], [%rd1], 256, [bar], %h1;\n{WAIT}{STORE}{CLOSE}"
    );
    let got = launch(&body, 4, 4, &[0; 256], plain).unwrap();
    assert!(got.iter().enumerate().all(|(i, v)| *v == i as u32 % 64));
}

#[test]
fn a_tensor_copy_fills_what_is_outside_and_counts_it() {
    // Box of 8 × 8 words at column 25, row -2 of a 30 × 20 tensor with rows of 32 words.
    let body = format!(
        "{INIT}@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 %rd5, [bar], 256;\nmov.u32 %r9, 25;\nmov.u32 %r10, -2;\n\
         @%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [s], [map, {{%r9, %r10}}], [bar];\n{WAIT}{STORE}{CLOSE}"
    );
    let got = launch(&body, 1, 1, &[7; 64], plain).unwrap();
    for (i, v) in got.iter().enumerate() {
        let (row, col) = (i as i32 / 8 - 2, i as i32 % 8 + 25);
        let want = if row >= 0 && col < 30 {
            row * 32 + col
        } else {
            0
        };
        assert_eq!(*v, want as u32, "element {i}");
    }
}

#[test]
fn stores_and_reductions_in_bulk_groups() {
    let fill = "st.shared.u32 [%r6], %r1;\nfence.proxy.async.shared::cta;\nbar.sync 0;\n";
    let end = "cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;\nret;\n}\n";
    let add = format!(
        "{fill}@%p1 cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd2], [%r4], 256;\n{end}"
    );
    let got = launch(&add, 3, 1, &[100; 64], plain).unwrap();
    assert!(
        got.iter()
            .enumerate()
            .all(|(i, v)| *v == 100 + 3 * i as u32)
    );
    let max = add.replace(".add.u32", ".max.u32");
    let got = launch(&max, 1, 1, &[32; 64], plain).unwrap();
    assert!(got.iter().enumerate().all(|(i, v)| *v == 32.max(i as u32)));
    // A plain store by two blocks to the same place is a race.
    let store = add
        .replace("cp.reduce.async", "cp.async")
        .replace(".add.u32", "");
    assert_eq!(
        launch(&store, 2, 1, &[0; 64], plain)
            .unwrap_err()
            .kind
            .name(),
        "race"
    );
    assert!(launch(&store, 1, 1, &[0; 64], plain).is_ok());
    let unfenced = store.replace("fence.proxy.async.shared::cta;\n", "");
    assert_eq!(
        launch(&unfenced, 1, 1, &[0; 64], plain)
            .unwrap_err()
            .kind
            .name(),
        "missing-proxy-fence"
    );
}

#[test]
fn remote_arrives_and_asynchronous_stores() {
    // Every block writes its rank into the next one and arrives there.
    let next = "add.u32 %r9, %r2, 1;\nand.b32 %r9, %r9, 3;\nmapa.shared::cluster.u32 %r10, %r6, %r9;\nmov.u32 %r11, bar;\nmapa.shared::cluster.u32 %r12, %r11, %r9;\n";
    let body = format!(
        "{INIT}{next}@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 %rd5, [bar], 256;\n\
         st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r10], %r2, [%r12];\n{WAIT}{STORE}{CLOSE}"
    );
    let got = launch(&body, 4, 4, &[9; 256], plain).unwrap();
    assert!(
        got.iter()
            .enumerate()
            .all(|(i, v)| *v == (i as u32 / 64 + 3) % 4)
    );
    // The same with a plain remote store and a release at cluster scope.
    let body = format!(
        "{}{next}st.shared::cluster.u32 [%r10], %r2;\nmbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r12];\n{}{STORE}{CLOSE}",
        INIT.replace("[bar], 1", "[bar], 64"),
        WAIT.replace("try_wait.parity", "try_wait.parity.acquire.cluster")
    );
    let got = launch(&body, 4, 4, &[9; 256], plain).unwrap();
    assert!(
        got.iter()
            .enumerate()
            .all(|(i, v)| *v == (i as u32 / 64 + 3) % 4)
    );
    // Without the wait the words are not there yet, or race.
    let early = body.replace(
        &WAIT.replace("try_wait.parity", "try_wait.parity.acquire.cluster"),
        "",
    );
    assert!(matches!(
        launch(&early, 4, 4, &[9; 256], plain)
            .unwrap_err()
            .kind
            .name(),
        "race" | "uninitialized"
    ));
}

#[test]
fn tensor_maps_must_fit_their_instruction() {
    let copy = |n: &str| {
        format!(
            "{INIT}mov.u32 %r9, 0;\n@%p1 cp.async.bulk.tensor.{n}.shared::cluster.global.mbarrier::complete_tx::bytes [s], [map, {}], [bar];\nret;\n}}\n",
            if n == "1d" { "{%r9}" } else { "{%r9, %r9}" }
        )
    };
    assert_eq!(
        launch(&copy("1d"), 1, 1, &[0; 64], plain)
            .unwrap_err()
            .kind
            .name(),
        "operand"
    );
    let misplaced = copy("2d").replace("[s]", "[s+64]");
    assert_eq!(
        launch(&misplaced, 1, 1, &[0; 64], plain)
            .unwrap_err()
            .kind
            .name(),
        "misaligned"
    );
}
