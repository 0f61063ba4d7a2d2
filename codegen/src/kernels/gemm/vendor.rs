//! Linear layers by the vendor's library (cuBLASLt), in front of the ways of our own.
//!
//! ```text
//! direct   D = epilogue(sx · sw · x wᵀ + bias)        one call, where the epilogue says it all
//! else     acc = x wᵀ;  results = expr(acc · sx · sw)  the call, then a kernel over its sums
//! ```
//!
//! | x | w | sums | direct |
//! |---|---|---|---|
//! | f16, bf16 | the same | f32 | no expression but a bias along the columns and the tanh form of GELU |
//! | e4m3 | e4m3 | f32 | the same, and one static scale for each operand; f32 results have no bias |
//! | i8, no zero points | i8 | i32, exact | never: the library has no scales for it |
//!
//! The library multiplies 8-bit formats only where rows are multiples of 16 bytes (cuBLAS
//! documentation, `cublasLtMatmul`). It is offered from [`LEAST_ROWS`] rows on: with fewer a
//! product is bound by reading the weight, of which the library has no less to read.

use super::epilogue::{Epilogue, Scales};
use super::{Candidate, per_row};
use crate::lower::frame::{Frame, Launched, internal};
use crate::lower::places::{Part, Place, part_name, place};
use crate::target::{Machine, Target};
use qcc_ir::diag::Result;
use qcc_ir::expr::{BinaryFn, Expr, Node, UnaryFn};
use qcc_ir::graph::{Func, Module, Op, OpKind, ScaleType, TensorType, ValueId};
use qcc_ir::kernel::{Launch, Special};
use qcc_ir::plan::{Arg, Guard, VENDOR, VendorGemm};
use qcc_ir::{DType, DimExpr};

/// The fewest rows for which the library is asked.
pub const LEAST_ROWS: u64 = 65;
/// Memory that the library may use: what NVIDIA recommends for Hopper.
const WORKSPACE: u64 = 32 << 20;
/// Rows and columns of the sums that a block of the second kernel takes, and its threads.
const TILE: (u32, u32, u32) = (16, 128, 256);

/// The way to run a linear layer by the library, if it can be.
///
/// # Errors
/// When an operand has no place.
pub fn candidate(m: &Module, f: &Func, op: &Op, target: &Target) -> Result<Option<Candidate>> {
    let OpKind::Linear { accs, .. } = &op.kind else {
        return Ok(None);
    };
    let Some(mut product) = sums_of(m, f, op, target)? else {
        return Ok(None);
    };
    let mut way = Candidate {
        requires: Some(VENDOR),
        when: Vec::new(),
        ..Candidate::default()
    };
    let x = f.ty(op.operands[0]);
    let rows = DimExpr::product(&x.shape[..x.rank() - 1]);
    if rows.as_const().is_none() {
        way.when.push(Guard {
            expr: rows.to_string(),
            min: LEAST_ROWS,
            max: u64::MAX,
        });
    }
    if let Some(direct) = direct(m, f, op, &product)? {
        way.vendor = Some(direct);
        return Ok(Some(way));
    }
    // `#` occurs in no name of a value.
    let sums = format!("{}#sums", f.value(op.results[0]).name);
    product.d = Arg::Value(sums.clone());
    way.launches = vec![over_sums(m, f, op, u32::from(*accs), &product)?];
    let width = f.ty(op.operands[1]).shape[0].clone();
    way.scratch = Some((sums, rows * width * DimExpr::from(4)));
    way.vendor = Some(product);
    Ok(Some(way))
}

/// Where a part of a value is in memory, if it is there.
fn memory(m: &Module, f: &Func, v: ValueId, part: Part) -> Result<Option<Arg>> {
    Ok(match place(m, f, v, part)? {
        Some(Place::Memory(a)) => Some(a),
        _ => None,
    })
}

/// The product alone, without a place for its sums.
fn sums_of(m: &Module, f: &Func, op: &Op, target: &Target) -> Result<Option<VendorGemm>> {
    let (x, w) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let rows = DimExpr::product(&x.shape[..x.rank() - 1]);
    let few = rows.as_const().is_some_and(|r| r < LEAST_ROWS as i64);
    let (Some(input), false) = (factors(x, w, target), few) else {
        return Ok(None);
    };
    let codes = |i: usize| memory(m, f, op.operands[i], Part::Codes);
    let (Some(a), Some(b)) = (codes(0)?, codes(1)?) else {
        return Ok(None);
    };
    Ok(Some(VendorGemm {
        m: rows.to_string(),
        n: w.shape[0].to_string(),
        k: w.shape[1].to_string(),
        input,
        output: match input {
            DType::I8 => DType::I32,
            _ => DType::F32,
        },
        a,
        b,
        d: Arg::Value(String::new()),
        a_scale: None,
        b_scale: None,
        bias: None,
        gelu: false,
        workspace: WORKSPACE,
    }))
}

/// The product with scales and epilogue straight into the result, where that is all of the op.
fn direct(m: &Module, f: &Func, op: &Op, sums: &VendorGemm) -> Result<Option<VendorGemm>> {
    let Some((bias, gelu)) = epilogue(f, op, sums.input) else {
        return Ok(None);
    };
    let scale = |i: usize| memory(m, f, op.operands[i], Part::Scale);
    let place = bias.map(|v| memory(m, f, v, Part::Codes)).transpose()?;
    let product = VendorGemm {
        output: f.ty(op.results[0]).elem.storage(),
        d: Arg::Value(part_name(f, op.results[0], Part::Codes)),
        a_scale: scale(0)?,
        b_scale: scale(1)?,
        bias: place.flatten(),
        gelu,
        ..sums.clone()
    };
    let scales = [&product.a_scale, &product.b_scale];
    let plain = f.ty(op.operands[0]).elem.quant().is_none();
    let scaled = plain || scales.iter().all(|s| s.is_some());
    Ok((scaled && product.bias.is_some() == bias.is_some()).then_some(product))
}

/// The format of both factors, if the library multiplies them.
fn factors(x: &TensorType, w: &TensorType, target: &Target) -> Option<DType> {
    let Machine::Gpu(sm) = target.machine else {
        return None;
    };
    let d = x.elem.storage();
    let quantized = |t: &TensorType| {
        let symmetric = t.elem.quant().is_some_and(|q| q.zero.is_none());
        symmetric && per_row(t)
    };
    let by_16 = |d: &DimExpr| d.as_const().is_some_and(|n| n > 0 && n % 16 == 0);
    let known = w.shape.iter().all(|d| d.as_const().is_some_and(|n| n > 0));
    let fits = match d {
        DType::F16 | DType::BF16 => x.elem.quant().is_none() && w.elem.quant().is_none(),
        DType::I8 => quantized(x) && quantized(w) && w.shape.iter().all(by_16),
        DType::E4M3 => sm >= 89 && quantized(x) && quantized(w) && w.shape.iter().all(by_16),
        _ => false,
    };
    (fits && known && w.elem.storage() == d).then_some(d)
}

/// The bias and whether GELU follows, if that is all that is done to the sums.
fn epilogue(f: &Func, op: &Op, input: DType) -> Option<(Option<ValueId>, bool)> {
    let OpKind::Linear {
        accs: 1, segments, ..
    } = &op.kind
    else {
        return None;
    };
    let result = f.ty(op.results[0]);
    let out = result.elem.plain()?;
    let one_scale = |i: usize| {
        let q = f.ty(op.operands[i]).elem.quant();
        q.is_none_or(|q| q.block.is_tensor() && q.scale == ScaleType::Plain(DType::F32))
    };
    let stored = match input {
        DType::E4M3 => matches!(out, DType::F16 | DType::BF16 | DType::F32),
        d => d == out || out == DType::F32,
    };
    if input == DType::I8 || !stored || !one_scale(0) || !one_scale(1) || !segments.is_empty() {
        return None;
    }
    let (bias, gelu) = match op.kind.expr() {
        None => (op.operands.get(2).copied(), false),
        Some(e) => {
            let (bias, gelu) = bias_and_gelu(e)?;
            (bias.map(|i| op.operands[usize::from(i)]), gelu)
        }
    };
    if let Some(b) = bias {
        let t = f.ty(b);
        let along_columns = t.shape == [f.ty(op.operands[1]).shape[0].clone()];
        let no_bias = input == DType::E4M3 && out == DType::F32;
        if no_bias || t.elem.plain() != Some(out) || !along_columns {
            return None;
        }
    }
    Some((bias, gelu))
}

/// `store gelu?(acc0 + in?)`: the operand that is added, and whether GELU follows.
fn bias_and_gelu(e: &Expr) -> Option<(Option<u8>, bool)> {
    let [store] = e.stores.as_slice() else {
        return None;
    };
    let node = |id: qcc_ir::expr::NodeId| e.nodes.get(id.0 as usize).copied();
    let mut last = node(store.value)?;
    let gelu = match last {
        Node::Unary(UnaryFn::GeluTanh, a) => {
            last = node(a)?;
            true
        }
        _ => false,
    };
    match last {
        Node::Acc(0) => Some((None, gelu)),
        Node::Binary(BinaryFn::Add, a, b) => match (node(a)?, node(b)?) {
            (Node::Acc(0), Node::Input(i)) | (Node::Input(i), Node::Acc(0)) => {
                Some((Some(i), gelu))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The kernel that makes results of the product's sums, `[rows, accumulators × columns]`.
fn over_sums(m: &Module, f: &Func, op: &Op, accs: u32, product: &VendorGemm) -> Result<Launched> {
    let (xt, wt) = (f.ty(op.operands[0]), f.ty(op.operands[1]));
    let lead = xt.shape[..xt.rank() - 1].to_vec();
    let n = wt.shape[0].floor_div(&DimExpr::from(i64::from(accs)));
    let (rows, columns, threads) = TILE;
    let mut fr = Frame::open(m, f, op, Launch::threads(threads), std::slice::from_ref(&n))?;
    let sums = fr.scratch(product.d.clone(), product.output);
    let (bx, by) = (fr.k.special(Special::CtaidX), fr.k.special(Special::CtaidY));
    let (row, column) = (
        fr.k.mul_imm(bx, i64::from(rows)),
        fr.k.mul_imm(by, i64::from(columns)),
    );
    let width = wt.shape[0]
        .as_const()
        .ok_or_else(|| internal("columns of a product"))?;
    let epilogue = Epilogue {
        op,
        lead: &lead,
        n: &n,
        rows: fr.product(&lead),
        columns: fr.dim(&n),
        scales: match xt.elem.quant() {
            Some(_) => Scales::both(&fr),
            None => Scales::default(),
        },
        thread: fr.k.tid(),
    };
    epilogue.run(&mut fr, (row, column), TILE, &mut |fr, r, c| {
        let (r, c) = (fr.k.add(row, r), fr.k.add(column, c));
        let (r, c) = (fr.k.cvt(r, DType::I64), fr.k.cvt(c, DType::I64));
        let line = fr.k.mul_imm(r, width);
        let first = fr.k.add(line, c);
        let load = |a: u32| {
            let at = fr.k.add_imm(first, i64::from(a) * width / i64::from(accs));
            let p = fr.k.ptr_add(sums, at);
            let v = fr.k.load(p);
            match product.output {
                DType::I32 => fr.k.cvt(v, DType::F32),
                _ => v,
            }
        };
        (0..accs).map(load).collect()
    });
    let tiles = |d: &DimExpr, by: u32| {
        let by = i64::from(by);
        (d + &DimExpr::from(by - 1)).floor_div(&DimExpr::from(by))
    };
    let grid = [
        tiles(&DimExpr::product(&lead), rows),
        tiles(&n, columns),
        DimExpr::from(1),
    ];
    fr.close(grid, 0)
}
