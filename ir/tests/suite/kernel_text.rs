//! The text form of kernels: round trips, and errors with their positions.

use proptest::prelude::*;
use qcc_ir::DType;
use qcc_ir::kernel::*;

fn errors(text: &str) -> Vec<String> {
    parse_kernels(text)
        .expect_err("does not parse")
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_text_of_the_documentation_is_canonical() {
    let text = "\
kernel spmd @scale(%x: ptr<f32,readonly>, %y: ptr<f32,global>, %n: u32) block(256,1,1) {
  shared @tile: f32[256] align 16
  %3: u32 = sreg.tid_x
  %4: bool = cmp.lt %3, %n
  if %4 {
    %5: ptr<f32,readonly> = ptradd %x, %3
    %6: f32 = ld %5
    %7: f32 = const 2.0
    %8: f32 = fmul.rn %6, %7
    %9: ptr<f32,global> = ptradd %y, %3
    st %9, %8
  }
}
";
    let kernel = parse_kernel(text).expect("parses");
    assert!(verify(&kernel).is_empty());
    assert_eq!(kernel.to_string(), text);
}

#[test]
fn names_and_spacing_are_free_numbers_are_not_kept() {
    // An operand list begins on the line of its operation: the next line may define a value.
    let text = "kernel spmd @k(%n: u32) block(1,1,1) {\n %a: u32 = iadd\n %n, %n\n}";
    assert_eq!(errors(text), ["3:4: expected `:`, found `,`"]);
    let text = "kernel spmd @k(%n: u32) block(1,1,1) { %sum: u32 = iadd %n, %n // twice\n %9: u32 = iadd %sum,\n %n }";
    let kernel = parse_kernel(text).expect("parses");
    assert_eq!(
        kernel.to_string(),
        "kernel spmd @k(%n: u32) block(1,1,1) {\n  %1: u32 = iadd %n, %n\n  %2: u32 = iadd %1, %n\n}\n"
    );
}

#[test]
fn every_error_is_reported_with_its_place() {
    let text = "\
kernel spmd @k(%x: u32) block(1,1,1) {
  %a: u33 = iadd %x, %x
  %b: u32 = frobnicate %x
  %c: u32 = iadd %x, %nowhere
  if %x {
    %d: u32 = const 5000000000
  }
  %e: u32 = iadd %x, %x
}
kernel parallel @l() {
}
kernel serial @m(%begin: i64, %begin: i64) {
}
";
    assert_eq!(
        errors(text),
        [
            "2:7: expected a type, found `u33`",
            "3:13: no operation is named `frobnicate`",
            "4:22: `%nowhere` is not defined",
            "6:21: `5000000000` is no constant of this type",
            "10:8: expected `spmd` or `serial`, found `parallel`",
            "12:31: `%begin` is defined twice",
        ]
    );
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!(
        "kernel spmd @k(%x: u32) block(1,1,1) {{ %c: bool = cmp.eq %x, %x\n{}{}}}\n",
        "if %c {\n".repeat(100),
        "}\n".repeat(100)
    );
    assert!(errors(&text)[0].contains("too deeply nested"));
}

#[test]
fn several_kernels_stand_in_one_text() {
    let text = "kernel spmd @a() block(1,1,1) {\n}\nkernel spmd @b() block(2,1,1) cluster(2,1,1) max_regs(64) {\n}\n";
    let kernels = parse_kernels(text).expect("parses");
    assert_eq!(
        kernels.iter().map(ToString::to_string).collect::<String>(),
        text
    );
    assert!(parse_kernel(text).is_err());
}

/// One step of a random kernel: which operation, on which earlier values.
type Step = (u8, usize, usize, i32);

fn random_kernel(steps: &[Step]) -> Kernel {
    let mut k = KernelBuilder::spmd("random", Launch::threads(64));
    let out = k.param_ptr("out", DType::I32);
    let (x, n) = (k.param("x", Ty::F32), k.param("n", Ty::I32));
    let (mut floats, mut ints) = (vec![x], vec![n]);
    fn grow(
        k: &mut KernelBuilder,
        out: Value,
        floats: &mut Vec<Value>,
        ints: &mut Vec<Value>,
        steps: &[Step],
    ) {
        for (i, &(op, a, b, c)) in steps.iter().enumerate() {
            let (fa, fb) = (floats[a % floats.len()], floats[b % floats.len()]);
            let (ia, ib) = (ints[a % ints.len()], ints[b % ints.len()]);
            match op % 10 {
                0 => floats.push(k.add(fa, fb)),
                1 => floats.push(k.fma(fa, fb, fa)),
                2 => floats.push(k.f32(f32::from_bits(c as u32))),
                3 => ints.push(k.i32(c)),
                4 => ints.push(k.mul(ia, ib)),
                5 => ints.push(k.cvt_with(fa, DType::I32, Round::Rz, Sat::Wrap)),
                6 => floats.push(k.cvt(ia, DType::F32)),
                7 => {
                    let p = k.ptr_add(out, ia);
                    k.store_with(p, ib, c & 0xff0, Cache::Default);
                }
                8 => {
                    let (one, rest) = (k.i32(1), &steps[i + 1..]);
                    let carried = k.for_range(ia, ib, one, &[fa, ia], |k, j, c| {
                        let (mut f, mut n) = (vec![c[0]], vec![c[1], j]);
                        grow(k, out, &mut f, &mut n, rest);
                        vec![f[f.len() - 1], n[n.len() - 1]]
                    });
                    return floats.push(carried[0]);
                }
                _ => {
                    let (p, rest) = (k.lt(fa, fb), &steps[i + 1..]);
                    let both = k.if_else(
                        p,
                        |_| vec![fa],
                        |k| {
                            let (mut f, mut n) = (vec![fb], vec![ib]);
                            grow(k, out, &mut f, &mut n, rest);
                            vec![f[f.len() - 1]]
                        },
                    );
                    return floats.push(both[0]);
                }
            }
        }
    }
    grow(&mut k, out, &mut floats, &mut ints, steps);
    let last = k.bitcast(floats[floats.len() - 1], Ty::I32);
    k.store(out, last);
    k.finish().expect("a valid kernel")
}

proptest! {
    #[test]
    fn random_kernels_round_trip(steps in prop::collection::vec((0u8..10, 0usize..50, 0usize..50, any::<i32>()), 0..40)) {
        let kernel = random_kernel(&steps);
        let text = kernel.to_string();
        let parsed = parse_kernel(&text);
        prop_assert_eq!(parsed.as_ref(), Ok(&kernel), "{}", text);
    }

    #[test]
    fn damaged_text_gives_errors_not_panics(steps in prop::collection::vec((0u8..10, 0usize..50, 0usize..50, any::<i32>()), 0..20), at in any::<prop::sample::Index>(), with in "[%@{}|,:=a-z0-9 ]{0,3}") {
        let mut text = random_kernel(&steps).to_string();
        let at = at.index(text.len());
        text.replace_range(at..at + 1, &with);
        if let Ok(kernels) = parse_kernels(&text) {
            for kernel in kernels {
                let _ = verify(&kernel);
            }
        }
    }
}
