//! Matrix products in f32 arithmetic: batched `a[…, m, k] · b[…, k, n]` of any float format, and
//! linear layers that the tensor cores do not take (f32, mixed formats).
//!
//! A block computes 64 × 64 elements, a thread 4 × 4 of them; slices of 16 of K pass through
//! shared memory. Sums run in the order of K.

use super::gemm::{Epilogue, Scales};
use crate::lower::frame::{Frame, Launched, Tensor, internal};
use crate::lower::index::{Position, coordinates, load_operand};
use qcc_ir::diag::Result;
use qcc_ir::graph::{Func, Module, Op, OpKind};
use qcc_ir::kernel::{Launch, Special, Value};
use qcc_ir::{DType, DimExpr};

const TILE: u32 = 64;
const DEPTH: u32 = 16;
const THREADS: u32 = 256;
/// Elements of a thread along each side.
const SIDE: u32 = 4;
/// Length of a row in shared memory; odd, so that columns fall on different banks.
const STRIDE: u32 = TILE + 1;

/// A product as the kernel sees it.
struct Product {
    /// Batch dimensions of the output: the grid's x walks matrices, and row tiles within each.
    batch: Vec<DimExpr>,
    /// Dimensions of the output's rows.
    lead: Vec<DimExpr>,
    n: DimExpr,
    k: DimExpr,
    accs: u32,
    /// Whether the right operand is `[n, k]`, as a linear layer's weight.
    transposed: bool,
}

impl Product {
    fn of(f: &Func, op: &Op) -> Result<Product> {
        let (a, b) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
        let out = f.ty(op.results[0]);
        match &op.kind {
            OpKind::Linear { accs, .. } => Ok(Product {
                batch: Vec::new(),
                lead: a.shape[..a.rank() - 1].to_vec(),
                n: b.shape[0].floor_div(&DimExpr::from(i64::from(*accs))),
                k: b.shape[1].clone(),
                accs: u32::from(*accs),
                transposed: true,
            }),
            OpKind::MatMul => {
                let r = out.rank();
                Ok(Product {
                    batch: out.shape[..r - 2].to_vec(),
                    lead: vec![out.shape[r - 2].clone()],
                    n: out.shape[r - 1].clone(),
                    k: a.shape[a.rank() - 1].clone(),
                    accs: 1,
                    transposed: false,
                })
            }
            other => Err(internal(format!("`{}` is no product", other.name()))),
        }
    }
}

/// Leaves the registers to the kernel: otherwise ptxas spills a few for a fuller machine.
fn launch() -> Launch {
    Launch {
        min_blocks: 1,
        ..Launch::threads(THREADS)
    }
}

/// Builds the kernel.
///
/// # Errors
/// When the op is no product, or a result's scheme cannot be stored.
pub fn build(m: &Module, f: &Func, op: &Op) -> Result<Launched> {
    let product = Product::of(f, op)?;
    let mut fr = Frame::open(m, f, op, launch(), std::slice::from_ref(&product.n))?;
    let size = TILE * STRIDE;
    let planes = (1 + product.accs) * DEPTH * STRIDE;
    let shared =
        fr.k.shared("tiles", DType::F32, planes.max(size * product.accs), 16);
    let (bx, by) = (fr.k.special(Special::CtaidX), fr.k.special(Special::CtaidY));
    let rows = fr.product(&product.lead);
    let (matrix, tile) = match product.batch.is_empty() {
        true => (fr.k.u32(0), bx),
        false => {
            let up = fr.k.add_imm(rows, i64::from(TILE) - 1);
            let tiles = fr.k.div_imm(up, i64::from(TILE));
            (fr.k.div(bx, tiles), fr.k.rem(bx, tiles))
        }
    };
    let block = Block {
        shared,
        matrix,
        batch: coordinates(&mut fr, &product.batch, matrix),
        row: fr.k.mul_imm(tile, i64::from(TILE)),
        column: fr.k.mul_imm(by, i64::from(TILE)),
        rows,
        columns: fr.dim(&product.n),
        depth: fr.dim(&product.k),
        tid: fr.k.tid(),
        p: &product,
    };
    let sums = block.sums(&mut fr);
    block.finish(&mut fr, op, &sums);
    let tiles = |d: &DimExpr| {
        (d + &DimExpr::from(i64::from(TILE) - 1)).floor_div(&DimExpr::from(i64::from(TILE)))
    };
    let grid = [
        tiles(&DimExpr::product(&product.lead)) * DimExpr::product(&product.batch),
        tiles(&product.n),
        DimExpr::from(1),
    ];
    fr.close(grid, 0)
}

struct Block<'a> {
    shared: Value,
    /// Position of the block's matrix in the batch, and its coordinates.
    matrix: Value,
    batch: Vec<Value>,
    row: Value,
    column: Value,
    rows: Value,
    columns: Value,
    depth: Value,
    tid: Value,
    p: &'a Product,
}

impl Block<'_> {
    fn sums(&self, fr: &mut Frame) -> Vec<Value> {
        let zero = fr.k.f32(0.0);
        let count = (SIDE * SIDE * self.p.accs) as usize;
        let (lo, step) = (fr.k.u32(0), fr.k.u32(DEPTH));
        fr.carry(
            (lo, self.depth, step),
            &vec![zero; count],
            |fr, at, sums| {
                fr.k.barrier();
                self.fill(fr, at);
                fr.k.barrier();
                let sums = sums.to_vec();
                let (lo, end, one) = (fr.k.u32(0), fr.k.u32(DEPTH), fr.k.u32(1));
                fr.carry((lo, end, one), &sums, |fr, k, sums| self.step(fr, k, sums))
            },
        )
    }

    /// Loads a slice of both operands; what does not exist is 0.
    fn fill(&self, fr: &mut Frame, first: Value) {
        let (a, b) = (fr.operands[0].clone(), fr.operands[1].clone());
        for pass in 0..TILE * DEPTH / THREADS {
            let i = fr.k.add_imm(self.tid, i64::from(pass * THREADS));
            let (r, k) = (
                fr.k.div_imm(i, i64::from(DEPTH)),
                fr.k.rem_imm(i, i64::from(DEPTH)),
            );
            let row = fr.k.add(self.row, r);
            let exists = fr.k.lt(row, self.rows);
            let at = fr.k.add(first, k);
            self.put(fr, (0, r, k), exists, at, |fr, at| {
                let p = self.left(fr, &a, row, at);
                load_operand(fr, &a, &p)
            });
            for acc in 0..self.p.accs {
                // Neighbouring threads read neighbouring elements of either layout.
                let (c, k) = match self.p.transposed {
                    true => (r, k),
                    false => (
                        fr.k.rem_imm(i, i64::from(TILE)),
                        fr.k.div_imm(i, i64::from(TILE)),
                    ),
                };
                let at = fr.k.add(first, k);
                let column = fr.k.add(self.column, c);
                let exists = fr.k.lt(column, self.columns);
                let before = fr.k.mul_imm(self.columns, i64::from(acc));
                let source = fr.k.add(column, before);
                self.put(fr, (1 + acc, c, k), exists, at, |fr, at| {
                    let p = self.right(&b, source, at);
                    load_operand(fr, &b, &p)
                });
            }
        }
    }

    fn put(
        &self,
        fr: &mut Frame,
        (plane, across, k): (u32, Value, Value),
        exists: Value,
        at: Value,
        load: impl FnOnce(&mut Frame, Value) -> Value,
    ) {
        let deep = fr.k.lt(at, self.depth);
        let inside = fr.k.and(exists, deep);
        let zero = fr.k.f32(0.0);
        let v = fr.choose(inside, &[zero], |fr| vec![load(fr, at)])[0];
        let to = fr.k.mul_imm(k, i64::from(STRIDE));
        let to = fr.k.add(to, across);
        let to = fr.k.add_imm(to, i64::from(plane * DEPTH * STRIDE));
        let p = fr.k.ptr_add(self.shared, to);
        fr.k.store(p, v);
    }

    fn left(&self, fr: &mut Frame, t: &Tensor, row: Value, k: Value) -> Position {
        let mut at = self.batch.clone();
        at.extend(coordinates(fr, &self.p.lead, row));
        at.push(k);
        self.position(t, at)
    }

    fn right(&self, t: &Tensor, column: Value, k: Value) -> Position {
        let mut at = self.batch.clone();
        at.extend(match self.p.transposed {
            true => [column, k],
            false => [k, column],
        });
        self.position(t, at)
    }

    /// A position whose shape is the operand's own, with the batch before it.
    fn position(&self, t: &Tensor, at: Vec<Value>) -> Position {
        let mut shape = vec![DimExpr::from(1); at.len().saturating_sub(t.ty.shape.len())];
        shape.extend(t.ty.shape.iter().cloned());
        let skip = shape.len() - at.len();
        Position {
            shape: shape.split_off(skip),
            at,
        }
    }

    fn load_side(&self, fr: &mut Frame, plane: u32, k: Value, first: Value, by: u32) -> Vec<Value> {
        let at = fr.k.mul_imm(k, i64::from(STRIDE));
        let at = fr.k.add(at, first);
        (0..SIDE)
            .map(|i| {
                let at = fr.k.add_imm(at, i64::from(plane * DEPTH * STRIDE + i * by));
                let p = fr.k.ptr_add(self.shared, at);
                fr.k.load(p)
            })
            .collect()
    }

    fn step(&self, fr: &mut Frame, k: Value, sums: &[Value]) -> Vec<Value> {
        let (ty, tx) = (fr.k.shr_imm(self.tid, 4), fr.k.and_imm(self.tid, 15));
        let a = self.load_side(fr, 0, k, ty, 16);
        let mut out = Vec::with_capacity(sums.len());
        for acc in 0..self.p.accs {
            let b = self.load_side(fr, 1 + acc, k, tx, 16);
            for i in 0..SIDE {
                for j in 0..SIDE {
                    let c = sums[(acc * SIDE * SIDE + i * SIDE + j) as usize];
                    out.push(fr.k.fma(a[i as usize], b[j as usize], c));
                }
            }
        }
        out
    }

    /// Spreads the sums over shared memory and runs the epilogue over the tile.
    fn finish(&self, fr: &mut Frame, op: &Op, sums: &[Value]) {
        let (ty, tx) = (fr.k.shr_imm(self.tid, 4), fr.k.and_imm(self.tid, 15));
        fr.k.barrier();
        for (n, v) in sums.iter().enumerate() {
            let n = n as u32;
            let (acc, i, j) = (n / (SIDE * SIDE), n / SIDE % SIDE, n % SIDE);
            let r = fr.k.add_imm(ty, i64::from(16 * i));
            let at = fr.k.mul_imm(r, i64::from(STRIDE));
            let at = fr.k.add(at, tx);
            let at = fr.k.add_imm(at, i64::from(16 * j + acc * TILE * STRIDE));
            let p = fr.k.ptr_add(self.shared, at);
            fr.k.store(p, *v);
        }
        fr.k.barrier();
        let lead: Vec<DimExpr> = self.p.batch.iter().chain(&self.p.lead).cloned().collect();
        // The output's row counts through the batch; the tile's rows end within their matrix.
        let before = fr.k.mul(self.matrix, self.rows);
        let end = fr.k.add(before, self.rows);
        let row = fr.k.add(before, self.row);
        let epilogue = Epilogue {
            op,
            lead: &lead,
            n: &self.p.n,
            rows: end,
            columns: self.columns,
            scales: Scales::default(),
            thread: self.tid,
        };
        let accs = self.p.accs;
        epilogue.run(
            fr,
            (row, self.column),
            (TILE, TILE, THREADS),
            &mut |fr, r, c| {
                let at = fr.k.mul_imm(r, i64::from(STRIDE));
                let at = fr.k.add(at, c);
                (0..accs)
                    .map(|a| {
                        let at = fr.k.add_imm(at, i64::from(a * TILE * STRIDE));
                        let p = fr.k.ptr_add(self.shared, at);
                        fr.k.load(p)
                    })
                    .collect()
            },
        );
    }
}
