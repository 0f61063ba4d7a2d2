//! The op that a step executes: values for its operands, and what the evaluator makes of them.
//!
//! The values have the names under which the plan's launches know them. Reshapes share their
//! operand's memory, constants are weights of the plan, and a static scale is the operand that the
//! quantizing op was given.

use qcc_codegen::lower::places::{Part, part_name, root, static_param};
use qcc_ir::bind::Sizes;
use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::eval::eval_op;
use qcc_ir::expr::{BinaryFn, Node, UnaryFn};
use qcc_ir::format::decode_slice_i64;
use qcc_ir::graph::{Func, Module, OpKind, QuantType, TensorType, ValueId};
use qcc_ir::{Bundle, DType, Tensor};
use std::collections::BTreeMap;

use super::values::{Fill, index, number, scales};

/// What a kernel is given, and what it should write.
pub(super) struct Case {
    /// Memory by name.
    pub(super) given: BTreeMap<String, Vec<u8>>,
    /// Nothing if the kernel must report an index instead.
    pub(super) expected: Vec<Expected>,
    /// The index outside of its table that must be reported.
    pub(super) outside: Option<i64>,
}

/// One result.
pub(super) struct Expected {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    /// The scheme, where the tensor holds codes.
    pub(super) quant: Option<QuantType>,
    /// Whether the tensor holds the scales of a result.
    pub(super) scale: bool,
    /// Whether it comes from sums of integers by arithmetic alone, which every device rounds alike.
    pub(super) exact: bool,
}

/// An op at given sizes.
pub(super) struct Subject<'m> {
    m: &'m Module,
    f: &'m Func,
    kind: OpKind,
    operands: Vec<ValueId>,
    /// Names and values of the results.
    results: Vec<(String, ValueId)>,
    sizes: Sizes,
}

/// Values that were made for a case, by the value whose memory they share.
#[derive(Default)]
struct Made {
    values: BTreeMap<ValueId, Bundle>,
    given: BTreeMap<String, Vec<u8>>,
    seed: u64,
}

impl<'m> Subject<'m> {
    /// The op whose step has this name.
    pub(super) fn new(m: &'m Module, step: &str, sizes: Sizes) -> Result<Self> {
        let missing = || {
            let text = format!("the module has no op for step `{step}`");
            Diagnostic::error(408, Class::Input, text)
        };
        let f = m.funcs.first().ok_or_else(missing)?;
        let value = |name: &str| f.find(name).ok_or_else(missing);
        // An output that nothing else writes is a copy of a value, under a name of its own.
        if let Some((name, _)) = step.split_once("#output") {
            let v = value(name)?;
            return Ok(Subject {
                m,
                f,
                kind: OpKind::Cast,
                operands: vec![v],
                results: vec![(step.to_string(), v)],
                sizes,
            });
        }
        let op = f.def_op(value(step)?).ok_or_else(missing)?;
        let result = |v: &ValueId| (part_name(f, *v, Part::Codes), *v);
        Ok(Subject {
            m,
            f,
            kind: op.kind.clone(),
            operands: op.operands.clone(),
            results: op.results.iter().map(result).collect(),
            sizes,
        })
    }

    /// Values of a kind and the results that they give; none if the evaluator refuses the values.
    ///
    /// # Errors
    /// When the values cannot be made.
    pub(super) fn case(&self, fill: Fill) -> Result<Option<Case>> {
        let mut made = Made {
            seed: 1,
            ..Made::default()
        };
        let mut operands = Vec::new();
        for (i, v) in self.operands.iter().enumerate() {
            operands.push(self.operand(&mut made, *v, self.role(i)?, fill)?);
        }
        let types: Vec<&TensorType> = self.operands.iter().map(|v| self.f.ty(*v)).collect();
        let results: Vec<&TensorType> = self.results.iter().map(|(_, v)| self.f.ty(*v)).collect();
        if let Fill::Outside = fill {
            return Ok(self.reported(&operands)?.map(|index| Case {
                given: made.given,
                expected: Vec::new(),
                outside: Some(index),
            }));
        }
        let given: Vec<&Bundle> = operands.iter().collect();
        let found = eval_op(self.m, &self.kind, &given, &types, &results, &self.sizes);
        let found = match found {
            Ok(found) => found,
            Err(d) if d.class() == Class::Input => return Ok(None),
            Err(d) => return Err(d),
        };
        let exact = exact_sums(&self.kind, &types);
        let mut expected = Vec::new();
        for ((name, v), bundle) in self.results.iter().zip(found) {
            let quant = self.f.ty(*v).elem.quant().cloned();
            if let (Some(q), Some(scale)) = (&quant, bundle.scale)
                && q.dynamic
            {
                expected.push(Expected {
                    name: format!("{name}#scale"),
                    tensor: scale,
                    quant: None,
                    scale: true,
                    exact: false,
                });
            }
            expected.push(Expected {
                name: name.clone(),
                tensor: bundle.codes,
                quant,
                scale: false,
                exact,
            });
        }
        Ok(Some(Case {
            given: made.given,
            expected,
            outside: None,
        }))
    }

    /// The first index that lies outside of its table; none for an op without indices.
    fn reported(&self, operands: &[Bundle]) -> Result<Option<i64>> {
        let (Some(n), Some(indices)) = (self.role(1)?, operands.get(1)) else {
            return Ok(None);
        };
        let mut values = vec![0i64; indices.codes.numel()];
        let (d, bytes) = (indices.codes.dtype(), indices.codes.bytes());
        decode_slice_i64(d, bytes, &mut values).map_err(|e| {
            let text = format!("indices of {d}: {e}");
            Diagnostic::error(917, Class::Internal, text)
        })?;
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        Ok(values.into_iter().find(|i| *i < -n || *i >= n))
    }

    /// The number of entries that an operand chooses among, if it is an index.
    fn role(&self, operand: usize) -> Result<Option<u64>> {
        let data = self.operands.first().map(|v| self.f.ty(*v));
        let axis = data.and_then(|t| self.kind.indexed(t.rank()).filter(|_| operand == 1));
        let (Some(data), Some(axis)) = (data, axis) else {
            return Ok(None);
        };
        Ok(Some(self.sizes.dims(data)?.get(axis).copied().unwrap_or(1)))
    }

    /// An operand in its own shape.
    fn operand(
        &self,
        made: &mut Made,
        v: ValueId,
        entries: Option<u64>,
        fill: Fill,
    ) -> Result<Bundle> {
        let r = root(self.f, v);
        if !made.values.contains_key(&r) {
            let bundle = self.root_value(made, r, entries, fill)?;
            made.values.insert(r, bundle);
        }
        let mut bundle = made.values[&r].clone();
        let ty = self.f.ty(v);
        bundle.codes = bundle.codes.reshape(&self.sizes.dims(ty)?)?;
        if let Some(shape) = ty.scale_shape() {
            let dims = self.sizes.dims(&TensorType::new(DType::F32, shape))?;
            bundle.scale = bundle.scale.map(|s| s.reshape(&dims)).transpose()?;
            bundle.zero = bundle.zero.map(|z| z.reshape(&dims)).transpose()?;
        }
        Ok(bundle)
    }

    fn root_value(
        &self,
        made: &mut Made,
        r: ValueId,
        entries: Option<u64>,
        fill: Fill,
    ) -> Result<Bundle> {
        let ty = self.f.ty(r);
        let kind = self.f.def_op(r).map(|o| &o.kind);
        if let Some(kind @ (OpKind::Const { .. } | OpKind::Splat { .. })) = kind {
            let mut found = eval_op(self.m, kind, &[], &[], &[ty], &self.sizes)?;
            return found
                .pop()
                .ok_or_else(|| Diagnostic::error(917, Class::Internal, "a constant has no value"));
        }
        made.seed += 1;
        let dims = self.sizes.dims(ty)?;
        let codes = match entries {
            Some(n) => index(made.seed, ty.elem.storage(), &dims, n, fill)?,
            None => number(made.seed, &ty.elem, &dims, fill)?,
        };
        let name = part_name(self.f, r, Part::Codes);
        made.given.insert(name, codes.bytes().to_vec());
        let mut bundle = Bundle::from(codes);
        if let Some(q) = ty.elem.quant().cloned() {
            let d = q.scale.stored();
            bundle.scale = Some(self.param(made, r, Part::Scale, d, fill)?);
            if let Some(z) = q.zero {
                bundle.zero = Some(self.param(made, r, Part::Zero, z, fill)?);
            }
        }
        Ok(bundle)
    }

    /// Scales or zero points of a value.
    fn param(
        &self,
        made: &mut Made,
        r: ValueId,
        part: Part,
        dtype: DType,
        fill: Fill,
    ) -> Result<Tensor> {
        if let Some(p) = static_param(self.f, r, part) {
            return Ok(self.operand(made, p, None, Fill::Scales)?.codes);
        }
        let shape = self.f.ty(r).scale_shape().unwrap_or_default();
        let dims = self.sizes.dims(&TensorType::new(dtype, shape))?;
        made.seed += 1;
        let t = match part {
            Part::Zero => number(made.seed, &qcc_ir::graph::Elem::Plain(dtype), &dims, fill)?,
            _ => scales(made.seed, dtype, &dims)?,
        };
        let name = part_name(self.f, r, part);
        made.given.insert(name, t.bytes().to_vec());
        Ok(t)
    }
}

/// Whether an op sums products of integer codes exactly and does nothing to the sums but arithmetic:
/// special functions have errors of their own.
fn exact_sums(kind: &OpKind, operands: &[&TensorType]) -> bool {
    let rows = match (kind, operands) {
        (OpKind::Linear { .. }, [x, ..]) => x.rank().saturating_sub(1),
        (OpKind::Conv { .. }, _) => 0,
        _ => return false,
    };
    let codes = |t: &TensorType, rows: usize| {
        let q = t.elem.quant();
        q.is_some_and(|q| q.storage.is_int() && q.one_scale_per_row(rows))
    };
    let arithmetic = |n: &Node| match n {
        Node::Unary(f, _) => {
            use UnaryFn::*;
            matches!(f, Neg | Abs | Relu | Sqrt | Recip)
        }
        Node::Binary(f, ..) => !matches!(f, BinaryFn::Pow | BinaryFn::Mod),
        _ => true,
    };
    codes(operands[0], rows)
        && codes(operands[1], 1)
        && kind.expr().is_none_or(|e| e.nodes.iter().all(arithmetic))
}
