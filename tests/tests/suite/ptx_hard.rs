//! The two hard kernels: they assemble with ptxas 13.0 and 13.5 without spills, without serialized
//! wgmma and without an ignored `setmaxnreg`.

use qcc_codegen::kernels::hard::fp8_gemm::Fp8Gemm;
use qcc_codegen::kernels::hard::w4a16::W4A16;
use qcc_codegen::ptx::{self, PtxModule};
use qcc_ir::DType;
use qcc_ir::kernel::{Kernel, parse_kernel};
use qcc_tests::ptxas;

fn print(kernel: &Kernel) -> PtxModule {
    assert_eq!(parse_kernel(&kernel.to_string()).as_ref(), Ok(kernel));
    ptx::emit(std::slice::from_ref(kernel), 80).expect("an instruction for each operation")
}

#[test]
fn fp8_gemm_keeps_the_tensor_core_fed() {
    for (bn, stages, out, even_n) in [
        (128, 6, DType::BF16, true),
        (128, 4, DType::F16, false),
        (64, 8, DType::BF16, false),
        (96, 6, DType::F16, true),
        (16, 8, DType::BF16, true),
    ] {
        let config = Fp8Gemm {
            bn,
            stages,
            out,
            even_n,
        };
        let module = print(&config.build("fp8_gemm").expect("a valid kernel"));
        assert_eq!(
            (module.arch.to_string(), module.version.to_string()),
            ("sm_90a".into(), "8.0".into())
        );
        assert!(
            config.shared_bytes() + module.entries[0].static_shared <= 232_448,
            "{config:?}"
        );
        for info in ptxas::assert_assembles("fp8_gemm", &module.text, &["sm_90a"]) {
            assert_eq!(
                info.entries[0].regs, 168,
                "the budget that setmaxnreg shares out"
            );
        }
    }
}

#[test]
fn w4a16_main_loop_fits_its_registers() {
    for (token_tiles, stages, regs) in [(1, 6, 96), (2, 6, 128), (8, 4, 255)] {
        let config = W4A16 {
            token_tiles,
            stages,
        };
        let module = print(&config.build("w4a16").expect("a valid kernel"));
        assert_eq!(
            (module.arch.to_string(), module.version.to_string()),
            ("sm_80".into(), "7.0".into())
        );
        for info in
            ptxas::assert_assembles("w4a16", &module.text, &["sm_80", "sm_86", "sm_89", "sm_90"])
        {
            assert!(info.entries[0].regs <= regs, "{config:?}: {info:?}");
        }
    }
}

#[test]
fn texts_of_the_hard_kernels() {
    let gemm = Fp8Gemm {
        bn: 16,
        stages: 4,
        out: DType::BF16,
        even_n: true,
    };
    let kernel = gemm.build("fp8_gemm").expect("a valid kernel");
    insta::assert_snapshot!("fp8_gemm_kernel", kernel.to_string());
    insta::assert_snapshot!("fp8_gemm_ptx", print(&kernel).text);
    let kernel = W4A16 {
        token_tiles: 1,
        stages: 4,
    }
    .build("w4a16")
    .expect("a valid kernel");
    insta::assert_snapshot!("w4a16_kernel", kernel.to_string());
    insta::assert_snapshot!("w4a16_ptx", print(&kernel).text);
}
