//! The verifier: everything that must hold of a module, checked and reported together.
//!
//! | | invariant |
//! |---|---|
//! | G01 | an operand is defined before it is used, and every id exists |
//! | G02 | names of values, weights and functions are unique and not empty |
//! | G03 | operand count and result shapes follow the op's shape rule |
//! | G04 | element formats follow the op's format rule |
//! | G05 | a quantized type is one that exists: storage, block rank, scale, zero point, range |
//! | G06 | a constant's tensors have the formats and shapes that its type says; a weight that is listed has as many numbers as elements |
//! | G07 | an expression's steps are typed, in order, and its stores match the results |
//! | G08 | scales and zero points are given exactly where the type needs them, in its shape |
//! | G09 | every symbol of a type or an attribute is declared, once, with a range that is not empty |
//! | G10 | reshape keeps the number of elements; expand broadcasts |
//!
//! Each diagnostic begins with the number of the invariant that is broken.

mod scheme;

use super::infer::{broadcast, infer_shapes, show};
use super::module::{Def, Func, Module, Op, ValueId, WeightData, WeightId};
use super::op::OpKind;
use super::types::{Elem, TensorType};
use crate::DimExpr;
use crate::diag::{Class, Diagnostic};
use crate::expr::{Compute, Expr, Node};
use crate::format::DType;
use scheme::{params_of_quantize, plain_type, quant_type, scale_operands};
use std::collections::{BTreeSet, HashSet};

/// All violations, in program order; empty for a valid module.
pub fn verify(m: &Module) -> Vec<Diagnostic> {
    let mut v = Verifier { m, out: Vec::new() };
    v.weights();
    v.symbols();
    let mut names = HashSet::new();
    for f in &m.funcs {
        if f.name.is_empty() || !names.insert(f.name.as_str()) {
            let message = format!("function name `@{}` is empty or taken", f.name);
            v.report(2, &f.name, message);
        }
        v.func(f);
    }
    v.out
}

struct Verifier<'a> {
    m: &'a Module,
    out: Vec<Diagnostic>,
}

/// The number in `Q02nn` of invariant `Gnn` is `10 + nn`.
fn violation(rule: u16, place: &str, message: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(
        210 + rule,
        Class::Internal,
        format!("G{rule:02}: {message}"),
    )
    .at(place)
}

impl Verifier<'_> {
    fn report(&mut self, rule: u16, place: &str, message: impl std::fmt::Display) {
        self.out.push(violation(rule, place, message));
    }

    fn weights(&mut self) {
        let (m, mut seen) = (self.m, HashSet::new());
        for w in &m.weights {
            if w.name.is_empty() || !seen.insert(w.name.as_str()) {
                let message = format!("weight name `{}` is empty or taken", w.name);
                self.report(2, &w.name, message);
            }
            if let WeightData::List(list) = &w.data
                && w.numel() != Some(list.len() as u64)
            {
                let (n, ty) = (list.len(), TensorType::fixed(w.dtype, &w.dims));
                self.report(6, &w.name, format!("{n} numbers are listed for {ty}"));
            }
        }
    }

    fn symbols(&mut self) {
        let (m, mut seen) = (self.m, HashSet::new());
        for s in &m.symbols {
            if s.min > s.max || i64::try_from(s.max).is_err() {
                let message = format!("range {}..{} is empty or too large", s.min, s.max);
                self.report(9, &s.name, message);
            }
            if s.name.is_empty() || !seen.insert(s.name.as_str()) {
                let message = format!("symbol name `{}` is empty or taken", s.name);
                self.report(9, &s.name, message);
            }
        }
    }

    /// Reports the symbols of sizes that are not declared, each once.
    fn declared<'d>(&mut self, place: &str, sizes: impl IntoIterator<Item = &'d DimExpr>) {
        let mut unknown = BTreeSet::new();
        for d in sizes {
            d.visit_syms(&mut |s| {
                if !self.m.symbols.iter().any(|o| o.name == s) {
                    unknown.insert(s.to_string());
                }
            });
        }
        for s in unknown {
            self.report(9, place, format!("symbol `{s}` is not declared"));
        }
    }

    fn func(&mut self, f: &Func) {
        let mut names = HashSet::new();
        for v in &f.values {
            if v.name.is_empty() || !names.insert(v.name.as_str()) {
                self.report(
                    2,
                    &f.name,
                    format!("value name `%{}` is empty or taken", v.name),
                );
            }
            self.value_type(&v.name, &v.ty);
        }
        let mut defined: HashSet<ValueId> = f.params.iter().copied().collect();
        for (id, op) in f.ops() {
            let place = describe(f, op);
            if op
                .operands
                .iter()
                .chain(&op.results)
                .any(|v| v.index() >= f.values.len())
            {
                self.report(1, &place, "an operand or result does not exist");
                continue;
            }
            for o in op.operands.iter().filter(|o| !defined.contains(o)) {
                self.report(
                    1,
                    &place,
                    format!("%{} is used before it is defined", f.value(*o).name),
                );
            }
            for (i, r) in op.results.iter().enumerate() {
                if f.value(*r).def != Def::Result(id, i as u32) || !defined.insert(*r) {
                    self.report(
                        1,
                        &place,
                        format!("%{} is defined twice or elsewhere", f.value(*r).name),
                    );
                }
            }
            self.op(f, op, &place);
        }
        for (name, r) in &f.results {
            if !defined.contains(r) {
                self.report(1, &f.name, format!("result `{name}` is not defined"));
            }
        }
    }

    fn value_type(&mut self, name: &str, t: &TensorType) {
        self.declared(name, &t.shape);
        let exists = match &t.elem {
            Elem::Plain(d) => plain_type(*d),
            Elem::Quant(q) => quant_type(q, t.rank()),
        };
        if let Err(e) = exists {
            self.report(5, name, e);
        }
    }

    fn op(&mut self, f: &Func, op: &Op, place: &str) {
        let operands: Vec<&TensorType> = op.operands.iter().map(|v| f.ty(*v)).collect();
        let results: Vec<&TensorType> = op.results.iter().map(|v| f.ty(*v)).collect();
        match &op.kind {
            OpKind::Dim { value } => self.declared(place, [value]),
            OpKind::Slice { starts, ends, .. } => self.declared(place, starts.iter().chain(ends)),
            _ => {}
        }
        match infer_shapes(&op.kind, &operands) {
            Err(e) => {
                self.report(3, place, e.message());
                return;
            }
            Ok(shapes) if shapes.len() != results.len() => {
                self.report(
                    3,
                    place,
                    format!("{} results, not {}", shapes.len(), results.len()),
                );
                return;
            }
            Ok(shapes) => {
                for (want, got) in shapes.iter().zip(&results) {
                    if let Some(want) = want
                        && *want != got.shape
                    {
                        self.report(
                            3,
                            place,
                            format!(
                                "result shape is {}, the op gives {}",
                                show(&got.shape),
                                show(want)
                            ),
                        );
                    }
                }
            }
        }
        if results.is_empty() {
            self.report(3, place, "an op without results computes nothing");
            return;
        }
        if let Err(e) = shape_by_type(&op.kind, &operands, &results) {
            self.report(10, place, e);
        }
        match op.kind.expr() {
            Some(e) => self.expr(e, &op.kind, &operands, &results, place),
            None => {
                if let Err(e) = formats(&op.kind, &operands, &results) {
                    self.report(4, place, e);
                }
            }
        }
        self.quantization(op, &operands, &results, place);
    }

    fn quantization(
        &mut self,
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
        place: &str,
    ) {
        match &op.kind {
            OpKind::Const {
                weight,
                scale,
                zero,
                global,
            } => {
                let params = [*scale, *zero, *global];
                if let Err(e) = self.constant(results[0], *weight, params) {
                    self.report(6, place, e);
                }
            }
            OpKind::Quantize => {
                let params = params_of_quantize(results[0], &operands[1..]);
                if let Err(e) = params.and_then(|p| scale_operands(results[0], p)) {
                    self.report(8, place, e);
                }
            }
            _ => {}
        }
    }

    fn constant(
        &self,
        t: &TensorType,
        w: WeightId,
        params: [Option<WeightId>; 3],
    ) -> Result<(), String> {
        let tensor = |id: WeightId| {
            let w = self
                .m
                .weights
                .get(id.index())
                .ok_or("a weight does not exist")?;
            Ok::<_, String>(TensorType::fixed(w.dtype, &w.dims))
        };
        let codes = tensor(w)?;
        if codes.elem != Elem::Plain(t.elem.storage()) || codes.shape != t.shape {
            return Err(format!("weight is {codes}, the type says {t}"));
        }
        let mut given = [None, None, None];
        for (to, id) in given.iter_mut().zip(params) {
            *to = id.map(tensor).transpose()?;
        }
        match t.elem.quant() {
            None if given.iter().all(Option::is_none) => Ok(()),
            None => Err(format!("{t} takes no scale")),
            Some(_) => scale_operands(t, [given[0].as_ref(), given[1].as_ref(), given[2].as_ref()]),
        }
    }

    fn expr(
        &mut self,
        e: &Expr,
        kind: &OpKind,
        operands: &[&TensorType],
        results: &[&TensorType],
        place: &str,
    ) {
        let accs = match kind {
            OpKind::Map(_) => 0,
            OpKind::Linear { accs, .. } => *accs,
            _ => 1,
        };
        let last = e.nodes.len();
        for (i, n) in e.nodes.iter().enumerate() {
            if Expr::args(*n).any(|a| a.0 as usize >= i) || matches!(n, Node::Acc(a) if *a >= accs)
            {
                self.report(
                    7,
                    place,
                    format!("step t{i} uses a later step or an accumulator that is not there"),
                );
                return;
            }
        }
        let types = match e.types(&|k| operands.get(usize::from(k)).map(|t| t.elem.read_as())) {
            Ok(t) => t,
            Err(at) => {
                self.report(
                    7,
                    place,
                    format!(
                        "step t{} has arguments of types it is not defined for",
                        at.0
                    ),
                );
                return;
            }
        };
        let merged = matches!(kind, OpKind::Linear { segments, .. } if !segments.is_empty());
        if !merged && e.stores.len() != results.len() || merged && e.stores.len() != 1 {
            self.report(
                7,
                place,
                format!("{} stores for {} results", e.stores.len(), results.len()),
            );
            return;
        }
        for (i, r) in results.iter().enumerate() {
            let s = e.stores[if merged { 0 } else { i }];
            if s.value.0 as usize >= last {
                self.report(7, place, "a store names a step that does not exist");
                continue;
            }
            let param = |k: Option<u8>| k.and_then(|k| operands.get(usize::from(k)).copied());
            let fits = match &r.elem {
                Elem::Plain(d) => (types[s.value.0 as usize] == Compute::of(*d)
                    && s.scale.is_none())
                .then_some(())
                .ok_or_else(|| format!("store {i} does not fit the result {r}")),
                Elem::Quant(_) => scale_operands(r, [param(s.scale), param(s.zero), None]),
            };
            if let Err(e) = fits {
                self.report(8, place, e);
            }
        }
    }
}

/// `linear %y (at MatMul_3)`
fn describe(f: &Func, op: &Op) -> String {
    let result = op.results.first().filter(|r| r.index() < f.values.len());
    let result = result.map_or("?", |r| f.value(*r).name.as_str());
    format!("{} %{result} ({})", op.kind.name(), op.loc)
}

/// Shapes that the result type carries itself.
fn shape_by_type(
    kind: &OpKind,
    operands: &[&TensorType],
    results: &[&TensorType],
) -> Result<(), String> {
    let r = results[0];
    match kind {
        OpKind::Reshape => {
            let (a, b) = (operands[0].numel(), r.numel());
            match (&a - &b).as_const() {
                Some(0) | None => Ok(()),
                Some(_) => Err(format!("{} has {a} elements, {r} has {b}", operands[0])),
            }
        }
        OpKind::Expand => match broadcast(&operands[0].shape, &r.shape) {
            Ok(s) if s == r.shape => Ok(()),
            _ => Err(format!("{} does not broadcast to {r}", operands[0])),
        },
        OpKind::Iota { axis } if *axis >= r.rank() => {
            Err(format!("axis {axis} does not exist in {r}"))
        }
        _ => Ok(()),
    }
}

/// Format rules of ops without an expression.
fn formats(kind: &OpKind, o: &[&TensorType], r: &[&TensorType]) -> Result<(), String> {
    let mismatch = |what: &str| {
        Err(format!(
            "{what}: operands {} and result {}",
            list(o),
            list(r)
        ))
    };
    let plain = |t: &TensorType| t.elem.plain();
    let float = |t: &TensorType| plain(t).is_some_and(DType::is_float);
    match kind {
        OpKind::Const { .. } => Ok(()),
        OpKind::Dim { .. } if plain(r[0]) != Some(DType::I64) => mismatch("a size is i64"),
        OpKind::Iota { .. } if !plain(r[0]).is_some_and(DType::is_int) => {
            mismatch("an index is an integer")
        }
        OpKind::Splat { .. } if plain(r[0]).is_none() => mismatch("a splat is not quantized"),
        OpKind::Unary(f) => match plain(o[0]) {
            Some(d) if f.result(Compute::of(d)).is_some() && plain(r[0]) == Some(d) => Ok(()),
            _ => mismatch("not defined for these formats"),
        },
        OpKind::Binary(f) => {
            let same = plain(o[0]).is_some() && o[0].elem == o[1].elem;
            let want = plain(o[0]).and_then(|d| match f.result(Compute::of(d))? {
                Compute::Bool => Some(DType::Bool),
                _ => Some(d),
            });
            if same && want.is_some() && plain(r[0]) == want {
                Ok(())
            } else {
                mismatch("not defined for these formats")
            }
        }
        OpKind::Select => {
            let ok = plain(o[0]) == Some(DType::Bool)
                && o[1].elem == o[2].elem
                && r[0].elem == o[1].elem
                && plain(r[0]).is_some();
            if ok {
                Ok(())
            } else {
                mismatch("select needs bool and two values of one format")
            }
        }
        OpKind::Cast if plain(o[0]).is_none() || plain(r[0]).is_none() => {
            mismatch("cast works on plain formats")
        }
        OpKind::Quantize if !float(o[0]) || r[0].elem.quant().is_none() => {
            mismatch("quantize needs a float and gives a quantized value")
        }
        OpKind::Quantize if r[0].elem.quant().is_some_and(|q| q.scale.is_table()) => {
            mismatch("codes of a table are found ahead of time")
        }
        OpKind::Dequantize if o[0].elem.quant().is_none() || !float(r[0]) => {
            mismatch("dequantize needs a quantized value and gives a float")
        }
        OpKind::Reshape
        | OpKind::Transpose { .. }
        | OpKind::Expand
        | OpKind::Slice { .. }
        | OpKind::Pad { .. }
        | OpKind::Concat { .. }
        | OpKind::Reduce { .. }
        | OpKind::CumSum { .. }
        | OpKind::Pool { .. } => {
            let ok = plain(r[0]).is_some() && o.iter().all(|t| t.elem == r[0].elem);
            if ok {
                Ok(())
            } else {
                mismatch("needs one plain format throughout")
            }
        }
        OpKind::Gather { .. } => {
            let ok = o[0].elem == r[0].elem
                && plain(r[0]).is_some()
                && plain(o[1]).is_some_and(DType::is_int);
            if ok {
                Ok(())
            } else {
                mismatch("gather needs integer indices and one plain format")
            }
        }
        OpKind::SparseLinear => {
            let ok = [o[0], o[2], r[0]].iter().all(|t| float(t))
                && plain(o[1]).is_some_and(DType::is_int);
            if ok {
                Ok(())
            } else {
                mismatch("sparse_linear needs floats and integer columns")
            }
        }
        OpKind::Softmax { .. } if !float(o[0]) || !float(r[0]) => mismatch("softmax needs floats"),
        OpKind::MatMul => {
            let ok = plain(r[0]).is_some() && o.iter().all(|t| t.elem == r[0].elem);
            if ok {
                Ok(())
            } else {
                mismatch("matmul needs one plain format")
            }
        }
        OpKind::Linear { .. } | OpKind::Conv { .. } => {
            let rest = o[2..].iter().all(|t| float(t));
            if rest && r.iter().all(|t| float(t)) {
                Ok(())
            } else {
                mismatch("bias and result are floats")
            }
        }
        OpKind::LayerNorm { .. } | OpKind::RmsNorm { .. } | OpKind::Rotary(_) => {
            if o.iter().chain(r).all(|t| float(t)) {
                Ok(())
            } else {
                mismatch("needs floats")
            }
        }
        OpKind::Attention { .. } => {
            let mask = o
                .get(3)
                .is_none_or(|t| float(t) || plain(t) == Some(DType::Bool));
            if o[..3].iter().chain(r).all(|t| float(t)) && mask {
                Ok(())
            } else {
                mismatch("needs floats and a float or bool mask")
            }
        }
        _ => Ok(()),
    }
}

fn list(t: &[&TensorType]) -> String {
    let parts: Vec<String> = t.iter().map(ToString::to_string).collect();
    parts.join(", ")
}
