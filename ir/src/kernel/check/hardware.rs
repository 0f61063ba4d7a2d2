//! Typing rules of synchronization, warp, copy and tensor-core operations.

use super::super::{Cache, Multicast, Space, WgmmaA, WgmmaMajor, mma};
use super::{Checked, DType, Op, Problem, Sig, Ty, ensure, operand, result};

const MBAR: &[Space] = &[Space::Shared];

fn limit(ok: bool, message: impl Into<String>) -> Checked {
    ensure(ok, || Problem::new("K17", message))
}

pub(super) fn check_thread(op: &Op, sig: &Sig) -> Checked {
    match op {
        Op::Special { .. } => {
            sig.counts(0, 1)?;
            ensure(sig.results[0] == Ty::U32, || result("expected `u32`"))
        }
        Op::SharedAddr { .. } => {
            sig.counts(0, 1)?;
            let shared = matches!(
                sig.results[0],
                Ty::Ptr {
                    space: Space::Shared,
                    ..
                }
            );
            ensure(shared, || result("expected a pointer to shared memory"))
        }
        Op::NamedBarrier { id, threads } | Op::NamedArrive { id, threads } => {
            sig.counts(0, 0)?;
            limit(
                (1..16).contains(id),
                format!("barrier {id} is not in 1..=15"),
            )?;
            let whole = *threads > 0 && threads.is_multiple_of(32) && *threads <= 1024;
            limit(
                whole,
                format!("{threads} threads are not whole warps of a block"),
            )
        }
        Op::SetMaxNReg { regs, .. } => {
            sig.counts(0, 0)?;
            let ok = (24..=256).contains(regs) && regs.is_multiple_of(8);
            limit(ok, format!("{regs} registers: a multiple of 8 in 24..=256"))
        }
        Op::Barrier
        | Op::WarpSync
        | Op::Fence { .. }
        | Op::ClusterBarrier { .. }
        | Op::GridDep { .. } => sig.counts(0, 0),
        Op::Shuffle { .. } => {
            sig.counts(2, 1)?;
            sig.word(0)?;
            sig.arg_is(1, Ty::U32)?;
            ensure(sig.results[0] == sig.args[0], || {
                result(format!("expected `{}`", sig.args[0]))
            })
        }
        Op::Vote { .. } => warp_question(sig, Ty::BOOL),
        Op::Ballot => warp_question(sig, Ty::U32),
        Op::Redux { .. } => {
            let ty = sig.uniform(1)?;
            ensure(matches!(ty, Ty::I32 | Ty::U32), || {
                operand(format!("reduction of `{ty}`"))
            })
        }
        Op::Elect => {
            sig.counts(0, 1)?;
            ensure(sig.results[0] == Ty::BOOL, || result("expected `bool`"))
        }
        Op::MapRank => map_rank(sig),
        Op::Atomic { .. } => atomic(sig, 2),
        Op::AtomicCas { .. } => atomic(sig, 3),
        _ => Err(Problem::new("K02", "no typing rule")),
    }
}

fn warp_question(sig: &Sig, answer: Ty) -> Checked {
    sig.counts(1, 1)?;
    sig.arg_is(0, Ty::BOOL)?;
    ensure(sig.results[0] == answer, || {
        result(format!("expected `{answer}`"))
    })
}

fn map_rank(sig: &Sig) -> Checked {
    sig.counts(2, 1)?;
    let elem = sig.pointer(0, &[Space::Shared])?;
    sig.arg_is(1, Ty::U32)?;
    let expected = Ty::ptr(elem, Space::Cluster);
    ensure(sig.results[0] == expected, || {
        result(format!("expected `{expected}`"))
    })
}

fn atomic(sig: &Sig, n: usize) -> Checked {
    sig.counts(n, 1)?;
    let elem = sig.pointer(0, &Space::ALL)?;
    ensure(
        !matches!(
            sig.args[0],
            Ty::Ptr {
                space: Space::ReadOnly,
                ..
            }
        ),
        || Problem::new("K08", "atomic on read-only memory"),
    )?;
    let integer = elem.is_int() && elem.bits() >= 32;
    ensure(integer, || {
        Problem::new(
            "K10",
            format!("atomic on `{elem}`: only 32 and 64-bit integers"),
        )
    })?;
    let ty = Ty::scalar(elem);
    (1..n).try_for_each(|i| sig.arg_is(i, ty))?;
    ensure(sig.results[0] == ty, || result(format!("expected `{ty}`")))
}

fn mbar(sig: &Sig, i: usize) -> Checked {
    let elem = sig.pointer(i, MBAR)?;
    ensure(elem == DType::U64, || {
        operand(format!("an mbarrier is `u64`, not `{elem}`"))
    })
}

pub(super) fn check_async(op: &Op, sig: &Sig) -> Checked {
    match op {
        Op::CpAsync { bytes, cache } => cp_async(*bytes, *cache, sig),
        Op::CpAsyncCommit | Op::CpAsyncWait { .. } | Op::BulkCommit | Op::BulkWaitGroup { .. } => {
            sig.counts(0, 0)
        }
        Op::CpAsyncMbar => {
            sig.counts(1, 0)?;
            mbar(sig, 0)
        }
        Op::MbarInit | Op::MbarExpectTx | Op::MbarWait => {
            sig.counts(2, 0)?;
            mbar(sig, 0)?;
            sig.arg_is(1, Ty::U32)
        }
        Op::MbarTryWait => {
            sig.counts(2, 1)?;
            mbar(sig, 0)?;
            sig.arg_is(1, Ty::U32)?;
            ensure(sig.results[0] == Ty::BOOL, || result("expected `bool`"))
        }
        Op::MbarArrive => {
            sig.counts(1, 0)?;
            let elem = sig.pointer(0, &[Space::Shared, Space::Cluster])?;
            ensure(elem == DType::U64, || operand("an mbarrier is `u64`"))
        }
        Op::BulkLoad { multicast } => {
            let masked = *multicast == Multicast::Multicast;
            sig.counts(if masked { 5 } else { 4 }, 0)?;
            sig.pointer(0, &[Space::Shared, Space::Cluster])?;
            sig.pointer(1, &[Space::Global, Space::ReadOnly])?;
            sig.arg_is(2, Ty::U32)?;
            mbar(sig, 3)?;
            if masked {
                sig.arg_is(4, Ty::U32)
            } else {
                Ok(())
            }
        }
        Op::BulkStore => {
            sig.counts(3, 0)?;
            sig.pointer(0, &[Space::Global])?;
            sig.pointer(1, &[Space::Shared])?;
            sig.arg_is(2, Ty::U32)
        }
        Op::TmaLoad { dims, multicast } => {
            let masked = *multicast == Multicast::Multicast;
            dims_ok(*dims)?;
            sig.counts(3 + *dims as usize + usize::from(masked), 0)?;
            sig.pointer(0, &[Space::Shared])?;
            sig.arg_is(1, Ty::TensorMap)?;
            mbar(sig, 2)?;
            coordinates(sig, 3, *dims)?;
            if masked {
                sig.arg_is(3 + *dims as usize, Ty::U32)
            } else {
                Ok(())
            }
        }
        Op::TmaStore { dims } => {
            dims_ok(*dims)?;
            sig.counts(2 + *dims as usize, 0)?;
            sig.arg_is(0, Ty::TensorMap)?;
            sig.pointer(1, &[Space::Shared])?;
            coordinates(sig, 2, *dims)
        }
        Op::TmaPrefetch => {
            sig.counts(1, 0)?;
            sig.arg_is(0, Ty::TensorMap)
        }
        _ => Err(Problem::new("K02", "no typing rule")),
    }
}

fn dims_ok(dims: u32) -> Checked {
    limit(
        (1..=5).contains(&dims),
        format!("{dims} dimensions: a tensor map has 1 to 5"),
    )
}

fn coordinates(sig: &Sig, first: usize, dims: u32) -> Checked {
    (first..first + dims as usize).try_for_each(|i| sig.arg_is(i, Ty::I32))
}

fn cp_async(bytes: u32, cache: Cache, sig: &Sig) -> Checked {
    ensure(matches!(sig.args.len(), 2 | 3), || {
        Problem::new("K02", "takes 2 or 3 operands")
    })?;
    sig.counts(sig.args.len(), 0)?;
    limit(
        matches!(bytes, 4 | 8 | 16),
        format!("{bytes} bytes: 4, 8 or 16"),
    )?;
    let ok = cache == Cache::Ca || cache == Cache::Cg && bytes == 16;
    limit(ok, "the cache is `ca`, or `cg` with 16 bytes")?;
    sig.pointer(0, &[Space::Shared])?;
    sig.pointer(1, &[Space::Global, Space::ReadOnly])?;
    if sig.args.len() == 3 {
        sig.arg_is(2, Ty::U32)
    } else {
        Ok(())
    }
}

pub(super) fn check_tensor(op: &Op, sig: &Sig) -> Checked {
    match op {
        Op::LdMatrix { tiles, .. } => {
            limit(
                matches!(tiles, 1 | 2 | 4),
                format!("{tiles} tiles: 1, 2 or 4"),
            )?;
            sig.counts(1, *tiles as usize)?;
            sig.pointer(0, &[Space::Shared])?;
            ensure(sig.results.iter().all(|t| t.is_word()), || {
                result("expected 32 bits each")
            })
        }
        Op::StMatrix { tiles, .. } => {
            limit(
                matches!(tiles, 1 | 2 | 4),
                format!("{tiles} tiles: 1, 2 or 4"),
            )?;
            sig.counts(1 + *tiles as usize, 0)?;
            sig.pointer(0, &[Space::Shared])?;
            (1..sig.args.len()).try_for_each(|i| sig.word(i))
        }
        Op::Mma { shape, a, b, acc } => {
            let Some(f) = mma::fragments(*shape, *a, *b, *acc) else {
                return Err(Problem::new("K17", format!("no mma `{}`", op.name())));
            };
            sig.counts(f.a + f.b + f.c, f.c)?;
            (0..f.a + f.b).try_for_each(|i| sig.word(i))?;
            (f.a + f.b..sig.args.len()).try_for_each(|i| sig.arg_is(i, f.acc))?;
            ensure(sig.results.iter().all(|t| *t == f.acc), || {
                result(format!("expected `{}`", f.acc))
            })
        }
        Op::WgmmaBegin => wgmma_begin(sig),
        Op::Wgmma {
            n,
            a,
            b,
            from,
            major,
        } => {
            let sixteen = a.bits() == 16 && (*from == WgmmaA::Desc || major.a() == 0);
            limit(
                *major == WgmmaMajor::K || sixteen,
                "8-bit and register operands lie K contiguous",
            )?;
            wgmma(*n, *a, *b, *from, sig)
        }
        Op::WgmmaCommit => {
            sig.counts(sig.args.len(), sig.args.len())?;
            let same =
                sig.args == sig.results && sig.args.iter().all(|t| matches!(t, Ty::Pending { .. }));
            ensure(same, || operand("accumulators in flight pass through"))
        }
        Op::WgmmaWait { .. } => wgmma_wait(sig),
        _ => Err(Problem::new("K02", "no typing rule")),
    }
}

/// The register type of an accumulator word.
fn accumulator(dtype: DType) -> Ty {
    if dtype == DType::F16 {
        Ty::vec(DType::F16, 2)
    } else {
        Ty::scalar(dtype)
    }
}

fn wgmma_begin(sig: &Sig) -> Checked {
    ensure(sig.results.len() == 1, || result("gives one result"))?;
    let Ty::Pending { dtype, words } = sig.results[0] else {
        return Err(result("expected accumulators in flight"));
    };
    let given = sig.args.len();
    ensure(given == 0 || given == words as usize, || {
        Problem::new("K02", format!("{given} accumulators for {words}"))
    })?;
    (0..given).try_for_each(|i| sig.arg_is(i, accumulator(dtype)))
}

fn wgmma(n: u32, a: DType, b: DType, from: WgmmaA, sig: &Sig) -> Checked {
    let words_of_a = if from == WgmmaA::Regs { 4 } else { 1 };
    sig.counts(2 + words_of_a, 1)?;
    let Ty::Pending { dtype, words } = sig.args[0] else {
        return Err(operand("operand 0 must be accumulators in flight"));
    };
    sig.arg_is(0, sig.results[0])?;
    let Some(expected) = mma::wgmma_words(n, a, b, dtype) else {
        return Err(Problem::new(
            "K17",
            format!("no wgmma m64n{n} of `{a}`, `{b}` into `{dtype}`"),
        ));
    };
    ensure(words == expected, || {
        operand(format!("{words} accumulators, expected {expected}"))
    })?;
    if from == WgmmaA::Regs {
        (1..5).try_for_each(|i| sig.word(i))?;
    } else {
        sig.arg_is(1, Ty::U64)?;
    }
    sig.arg_is(1 + words_of_a, Ty::U64)
}

fn wgmma_wait(sig: &Sig) -> Checked {
    let mut expected = Vec::new();
    for arg in sig.args {
        let Ty::Pending { dtype, words } = arg else {
            return Err(operand("expected accumulators in flight"));
        };
        expected.extend(std::iter::repeat_n(accumulator(*dtype), *words as usize));
    }
    ensure(sig.results == expected, || {
        result(format!("gives {} accumulators", expected.len()))
    })
}
