//! Indices, barriers, warps, asynchronous copies and tensor cores.

use super::super::attr::*;
use super::super::{Op, Problem, Ty, Value, mma};
use super::KernelBuilder;
use crate::DType;

impl KernelBuilder {
    /// A built-in index, as `u32`.
    pub fn special(&mut self, which: Special) -> Value {
        self.one(Op::Special { which }, &[], Ty::U32)
    }

    /// Thread index in the block, x.
    pub fn tid(&mut self) -> Value {
        self.special(Special::TidX)
    }

    /// Block index in the grid, x.
    pub fn block_id(&mut self) -> Value {
        self.special(Special::CtaidX)
    }

    /// Waits for all threads of the block.
    pub fn barrier(&mut self) {
        self.none(Op::Barrier, &[]);
    }

    /// Waits at a named barrier for this many threads.
    pub fn barrier_named(&mut self, id: u32, threads: u32) {
        self.none(Op::NamedBarrier { id, threads }, &[]);
    }

    /// Waits for the lanes of the warp.
    pub fn warp_sync(&mut self) {
        self.none(Op::WarpSync, &[]);
    }

    /// A memory fence.
    pub fn fence(&mut self, fence: Fence) {
        self.none(Op::Fence { fence }, &[]);
    }

    /// Half of a cluster barrier.
    pub fn cluster_barrier(&mut self, half: ClusterHalf) {
        self.none(Op::ClusterBarrier { half }, &[]);
    }

    /// The word `v` of another lane.
    pub fn shuffle(&mut self, mode: ShflMode, v: Value, lane: Value) -> Value {
        let ty = self.ty(v);
        self.one(Op::Shuffle { mode }, &[v, lane], ty)
    }

    /// The word `v` of the lane whose number differs by exclusive or with `mask`.
    pub fn shuffle_xor(&mut self, v: Value, mask: u32) -> Value {
        let mask = self.u32(mask);
        self.shuffle(ShflMode::Bfly, v, mask)
    }

    /// Whether `p` holds in all lanes, or in any.
    pub fn vote(&mut self, mode: VoteMode, p: Value) -> Value {
        self.one(Op::Vote { mode }, &[p], Ty::BOOL)
    }

    /// The truth values of all lanes as bits.
    pub fn ballot(&mut self, p: Value) -> Value {
        self.one(Op::Ballot, &[p], Ty::U32)
    }

    /// Reduces a 32-bit integer over the warp.
    pub fn redux(&mut self, op: ReduxOp, v: Value) -> Value {
        let ty = self.ty(v);
        self.one(Op::Redux { op }, &[v], ty)
    }

    /// True in one lane of the warp.
    pub fn elect(&mut self) -> Value {
        self.one(Op::Elect, &[], Ty::BOOL)
    }

    /// Changes the warpgroup's registers per thread.
    pub fn set_max_regs(&mut self, change: RegChange, regs: u32) {
        self.none(Op::SetMaxNReg { change, regs }, &[]);
    }

    /// Dependent launch.
    pub fn grid_dep(&mut self, which: GridDep) {
        self.none(Op::GridDep { which }, &[]);
    }

    /// Copies `bytes` (4, 8, 16) from device to shared memory; with `read`, only that many are
    /// read and the rest is zero. 16 bytes bypass L1.
    pub fn cp_async(&mut self, dst: Value, src: Value, bytes: u32, read: Option<Value>) {
        let cache = if bytes == 16 { Cache::Cg } else { Cache::Ca };
        let args: Vec<Value> = [dst, src].into_iter().chain(read).collect();
        self.none(Op::CpAsync { bytes, cache }, &args);
    }

    /// Closes a group of this thread's `cp_async`.
    pub fn cp_async_commit(&mut self) {
        self.none(Op::CpAsyncCommit, &[]);
    }

    /// Waits until at most `groups` of this thread's groups are under way.
    pub fn cp_async_wait(&mut self, groups: u32) {
        self.none(Op::CpAsyncWait { groups }, &[]);
    }

    /// Initialises an mbarrier for `count` arrivals.
    pub fn mbar_init(&mut self, mbar: Value, count: Value) {
        self.none(Op::MbarInit, &[mbar, count]);
    }

    /// Arrives and announces `bytes` of bulk copies.
    pub fn mbar_expect_tx(&mut self, mbar: Value, bytes: Value) {
        self.none(Op::MbarExpectTx, &[mbar, bytes]);
    }

    /// Arrives.
    pub fn mbar_arrive(&mut self, mbar: Value) {
        self.none(Op::MbarArrive, &[mbar]);
    }

    /// Waits until the phase of parity 0 or 1 is complete.
    pub fn mbar_wait(&mut self, mbar: Value, parity: Value) {
        self.none(Op::MbarWait, &[mbar, parity]);
    }

    /// Bulk copy of `bytes` (a multiple of 16) from device to shared memory, counted by `mbar`.
    pub fn bulk_load(&mut self, dst: Value, src: Value, bytes: Value, mbar: Value) {
        self.none(
            Op::BulkLoad {
                multicast: Multicast::No,
            },
            &[dst, src, bytes, mbar],
        );
    }

    /// Bulk copy of `bytes` (a multiple of 16) from shared to device memory.
    pub fn bulk_store(&mut self, dst: Value, src: Value, bytes: Value) {
        self.none(Op::BulkStore, &[dst, src, bytes]);
    }

    /// Tensor copy into shared memory, counted by `mbar`; coordinates innermost first, as `i32`.
    pub fn tma_load(&mut self, dst: Value, map: Value, mbar: Value, coords: &[Value]) {
        let op = Op::TmaLoad {
            dims: coords.len() as u32,
            multicast: Multicast::No,
        };
        let args: Vec<Value> = [dst, map, mbar].iter().chain(coords).copied().collect();
        self.none(op, &args);
    }

    /// Tensor copy from shared memory.
    pub fn tma_store(&mut self, map: Value, src: Value, coords: &[Value]) {
        let args: Vec<Value> = [map, src].iter().chain(coords).copied().collect();
        self.none(
            Op::TmaStore {
                dims: coords.len() as u32,
            },
            &args,
        );
    }

    /// Fetches a tensor map early.
    pub fn tma_prefetch(&mut self, map: Value) {
        self.none(Op::TmaPrefetch, &[map]);
    }

    /// Closes a group of bulk stores.
    pub fn bulk_commit(&mut self) {
        self.none(Op::BulkCommit, &[]);
    }

    /// Waits until at most `groups` groups of bulk stores are under way.
    pub fn bulk_wait(&mut self, groups: u32, until: BulkWait) {
        self.none(Op::BulkWaitGroup { groups, until }, &[]);
    }

    /// Loads 8×8 tiles of 16-bit elements: one word of type `ty` for each of 1, 2 or 4 tiles.
    pub fn ldmatrix(&mut self, p: Value, tiles: u32, trans: Trans, ty: Ty) -> Vec<Value> {
        self.op(
            Op::LdMatrix { tiles, trans },
            &[p],
            &vec![ty; tiles as usize],
        )
    }

    /// Stores 8×8 tiles of 16-bit elements.
    pub fn stmatrix(&mut self, p: Value, words: &[Value], trans: Trans) {
        let args: Vec<Value> = std::iter::once(&p).chain(words).copied().collect();
        self.none(
            Op::StMatrix {
                tiles: words.len() as u32,
                trans,
            },
            &args,
        );
    }

    /// `A B + C` over the warp, of these formats.
    pub fn mma(
        &mut self,
        shape: MmaShape,
        (a_type, b_type, acc): (DType, DType, DType),
        a: &[Value],
        b: &[Value],
        c: &[Value],
    ) -> Vec<Value> {
        let op = Op::Mma {
            shape,
            a: a_type,
            b: b_type,
            acc,
        };
        let Some(f) = mma::fragments(shape, a_type, b_type, acc) else {
            self.fail(Problem::new("K17", format!("no mma `{}`", op.name())));
            return c.to_vec();
        };
        let args: Vec<Value> = a.iter().chain(b).chain(c).copied().collect();
        self.op(op, &args, &vec![f.acc; f.c])
    }

    /// Hands accumulators to the tensor core; none means `words` zeros of format `dtype`.
    pub fn wgmma_begin(&mut self, acc: &[Value], dtype: DType, words: u16) -> Value {
        self.one(Op::WgmmaBegin, acc, Ty::Pending { dtype, words })
    }

    /// Starts `acc += A B` with both operands in shared memory.
    pub fn wgmma(
        &mut self,
        n: u32,
        (a_type, b_type): (DType, DType),
        acc: Value,
        a: Value,
        b: Value,
    ) -> Value {
        let op = Op::Wgmma {
            n,
            a: a_type,
            b: b_type,
            from: WgmmaA::Desc,
            major: WgmmaMajor::K,
        };
        let ty = self.ty(acc);
        self.one(op, &[acc, a, b], ty)
    }

    /// Starts `acc += A B` with A in registers (four words).
    pub fn wgmma_reg_a(
        &mut self,
        n: u32,
        (a_type, b_type): (DType, DType),
        acc: Value,
        a: [Value; 4],
        b: Value,
    ) -> Value {
        let op = Op::Wgmma {
            n,
            a: a_type,
            b: b_type,
            from: WgmmaA::Regs,
            major: WgmmaMajor::K,
        };
        let ty = self.ty(acc);
        self.one(op, &[acc, a[0], a[1], a[2], a[3], b], ty)
    }

    /// Closes a group of the wgmmas started so far.
    pub fn wgmma_commit(&mut self, pending: &[Value]) -> Vec<Value> {
        let types: Vec<Ty> = pending.iter().map(|&p| self.ty(p)).collect();
        self.op(Op::WgmmaCommit, pending, &types)
    }

    /// Waits until at most `groups` groups are under way; returns the accumulators of `pending`.
    pub fn wgmma_wait(&mut self, groups: u32, pending: &[Value]) -> Vec<Value> {
        let mut types = Vec::new();
        for &p in pending {
            let Ty::Pending { dtype, words } = self.ty(p) else {
                self.fail(Problem::new("K03", "waiting for something not in flight"));
                continue;
            };
            let word = if dtype == DType::F16 {
                Ty::vec(DType::F16, 2)
            } else {
                Ty::scalar(dtype)
            };
            types.extend(std::iter::repeat_n(word, words as usize));
        }
        self.op(Op::WgmmaWait { groups }, pending, &types)
    }
}
