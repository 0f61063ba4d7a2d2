//! What legalization writes instead of missing operations, assembled for each architecture.

use qcc_codegen::ptx::{self, Arch};
use qcc_ir::DType;
use qcc_ir::kernel::*;
use qcc_tests::ptxas;

/// Loads, applies `f`, stores; vectors of at most 16 bytes.
fn map(name: &str, from: Ty, to: Ty, f: &dyn Fn(&mut KernelBuilder, Value) -> Value) -> Kernel {
    let mut k = KernelBuilder::spmd(name, Launch::threads(128));
    let x = k.param_ro("x", from.dtype().expect("a number"));
    let out = k.param_ptr("out", to.dtype().expect("a number"));
    let tid = k.tid();
    let at = k.mul_imm(tid, i64::from(from.lanes()));
    let p = k.ptr_add(x, at);
    let v = k.load_with(p, from, 0, Cache::Default);
    let v = f(&mut k, v);
    let p = k.ptr_add(out, at);
    k.store(p, v);
    k.finish().expect("a valid kernel")
}

fn kernels() -> Vec<Kernel> {
    use DType::*;
    let mut out = Vec::new();
    for func in [
        Math::Exp,
        Math::Exp2,
        Math::Log,
        Math::Log2,
        Math::Tanh,
        Math::Erf,
        Math::Sin,
        Math::Cos,
        Math::Rsqrt,
    ] {
        for ty in [Ty::F32, Ty::F16, Ty::vec(F32, 4)] {
            let name = format!("{}_{}", func.name(), ty);
            out.push(map(&name, ty, ty, &|k, v| k.math(func, v)));
        }
    }
    let conversions = [
        (Ty::vec(F32, 4), E4M3),
        (Ty::vec(F16, 8), E5M2),
        (Ty::vec(E4M3, 8), F16),
        (Ty::vec(E5M2, 4), F32),
        (Ty::scalar(E4M3), BF16),
        (Ty::vec(BF16, 4), F32),
        (Ty::I64, BF16),
        (Ty::vec(F32, 4), I8),
        (Ty::vec(I8, 4), F32),
    ];
    for (from, to) in conversions {
        let name = format!("cvt_{from}_{to}");
        out.push(map(&name, from, from.with_dtype(to), &|k, v| {
            k.cvt_sat(v, to)
        }));
    }
    for ty in [Ty::vec(BF16, 2), Ty::F16] {
        out.push(map(&format!("ops_{ty}"), ty, ty, &|k, v| {
            let square = k.mul(v, v);
            let ratio = k.div(square, v);
            k.max_nan(ratio, v)
        }));
    }
    out
}

#[test]
fn legalized_kernels_assemble_everywhere() {
    for arch in [
        Arch::sm(75),
        Arch::sm(80),
        Arch::sm(86),
        Arch::sm(89),
        Arch::sm(90),
    ] {
        let module = ptx::compile(&kernels(), arch).expect("nothing is missing");
        assert_eq!(module.arch, arch);
        assert_eq!(module.entries.len(), kernels().len());
        ptxas::assert_assembles("ptx_legal", &module.text, &[&arch.to_string()]);
    }
}
