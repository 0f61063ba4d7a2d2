//! Random valid modules, for tests that compare two ways of computing the same.
//!
//! A list of [`Step`]s always makes a module, so that a failing one can be shortened step by
//! step. Values stay moderate: products are damped and exponentials taken of negative numbers,
//! so that a comparison is not drowned in overflow.

use qcc_ir::expr::{BinaryFn, Expr, Node, UnaryFn};
use qcc_ir::format::{BlockShape, DType};
use qcc_ir::graph::{
    AttentionAttrs, Builder, Elem, Module, OpKind, QuantType, ReduceFn, RotaryAttrs, TensorType,
    ValueId, Weight, WeightData,
};
use qcc_ir::{DimExpr, Tensor, eval};

/// One op to add: what, and which values and numbers it takes.
pub type Step = [u8; 4];

/// Rows of the input when a module is run.
pub const ROWS: u64 = 3;

/// Builds a module of one input `x[n, 8]` and the last values as results.
pub struct Random {
    b: Builder,
    m: Module,
    /// Values `f32[n, w]` of any width.
    pool: Vec<ValueId>,
}

impl Random {
    /// The module that these steps make. `quantized` allows steps that round to 16 or 8 bits,
    /// after which a difference of one bit may grow to a whole code.
    pub fn module(steps: &[Step], quantized: bool) -> Module {
        let mut b = Builder::new("main");
        let n = DimExpr::sym("n");
        let x = b.param("x", TensorType::new(DType::F32, [n, DimExpr::from(8)]));
        let mut r = Random {
            b,
            m: Module::default(),
            pool: vec![x],
        };
        for s in steps {
            // A step whose operands do not fit adds nothing.
            if let Some(v) = r.step(*s, quantized) {
                r.pool.push(v);
            }
        }
        let names: Vec<String> = (0..3).map(|i| format!("y{i}")).collect();
        let last = r.pool.iter().rev().copied();
        let mut m =
            r.b.finish_module(names.iter().map(String::as_str).zip(last));
        m.weights = r.m.weights;
        m
    }

    /// An input for such a module.
    pub fn input(seed: u64) -> Tensor {
        let v: Vec<f32> = eval::normal(seed, 1.0, 8 * ROWS as usize)
            .into_iter()
            .map(|v| v as f32)
            .collect();
        Tensor::f32(&[ROWS, 8], &v).expect("as many numbers as elements")
    }

    fn pick(&self, i: u8) -> ValueId {
        self.pool[usize::from(i) % self.pool.len()]
    }

    fn width(&self, v: ValueId) -> u64 {
        let last = self.b.ty(v).shape.last().and_then(DimExpr::as_const);
        last.and_then(|w| u64::try_from(w).ok()).unwrap_or(1)
    }

    /// A value of the same width as `v`.
    fn partner(&self, v: ValueId, i: u8) -> ValueId {
        let w = self.width(v);
        let fits: Vec<ValueId> = self
            .pool
            .iter()
            .copied()
            .filter(|o| self.width(*o) == w)
            .collect();
        fits[usize::from(i) % fits.len()]
    }

    fn weight(&mut self, dims: &[u64], seed: u8) -> ValueId {
        let data = match seed % 4 {
            0 => WeightData::Splat(0.25f64.to_bits()),
            _ => WeightData::Normal(u64::from(seed), 0.3f64.to_bits()),
        };
        let id = self.m.add_weight(Weight {
            name: format!("w{}", self.m.weights.len()),
            dtype: DType::F32,
            dims: dims.to_vec(),
            data,
        });
        self.b.constant(id, &self.m)
    }

    fn step(&mut self, [op, a, b, c]: Step, quantized: bool) -> Option<ValueId> {
        let x = self.pick(a);
        let w = self.width(x);
        match op % 16 {
            0 | 1 => self.unary(x, b),
            2 | 3 => self.binary(x, b, c),
            4 | 5 => self.linear(x, b, c),
            6 => self.norm(x, b),
            7 => self.b.same(OpKind::Softmax { axis: 1 }, &[x]).ok(),
            8 => self.slice(x, b, c),
            9 => {
                let y = self.pick(b);
                (w + self.width(y) <= 32)
                    .then(|| self.b.same(OpKind::Concat { axis: 1 }, &[x, y]).ok())?
            }
            10 => self.reduce(x, b),
            // Fused ops do not round what they no longer store, so this counts as quantizing.
            11 if quantized => {
                let half = self.b.cast(x, DType::F16);
                Some(self.b.cast(half, DType::F32))
            }
            12 => self.turn(x, b),
            13 => self.map(x, b, c),
            14 => self.heads(x, b, c),
            _ if quantized => self.quantize(x, b),
            _ => self.select(x, b, c),
        }
    }

    fn unary(&mut self, x: ValueId, f: u8) -> Option<ValueId> {
        let all = [
            UnaryFn::Neg,
            UnaryFn::Abs,
            UnaryFn::Tanh,
            UnaryFn::Sigmoid,
            UnaryFn::Relu,
            UnaryFn::Gelu,
            UnaryFn::Silu,
            UnaryFn::HardSwish,
            UnaryFn::Cos,
        ];
        match all.get(usize::from(f) % (all.len() + 1)) {
            Some(f) => self.b.unary(*f, x).ok(),
            None => {
                let abs = self.b.unary(UnaryFn::Abs, x).ok()?;
                let neg = self.b.unary(UnaryFn::Neg, abs).ok()?;
                self.b.unary(UnaryFn::Exp, neg).ok()
            }
        }
    }

    /// The other operand is a value, a row of numbers or one number.
    fn binary(&mut self, x: ValueId, f: u8, c: u8) -> Option<ValueId> {
        let other = match c % 4 {
            0 => self.b.scalar(DType::F32, f64::from(c) / 64.0),
            1 => {
                let w = self.width(x);
                self.weight(&[w], c)
            }
            _ => self.partner(x, c),
        };
        let all = [
            BinaryFn::Add,
            BinaryFn::Sub,
            BinaryFn::Min,
            BinaryFn::Max,
            BinaryFn::Mul,
        ];
        let f = all[usize::from(f) % all.len()];
        let other = match f {
            BinaryFn::Mul => self.b.unary(UnaryFn::Tanh, other).ok()?,
            _ => other,
        };
        // Constants stand left as often as right.
        if c.is_multiple_of(2) {
            self.b.binary(f, x, other).ok()
        } else {
            self.b.binary(f, other, x).ok()
        }
    }

    fn linear(&mut self, x: ValueId, b: u8, c: u8) -> Option<ValueId> {
        let (k, n) = (self.width(x), [4, 8, 6][usize::from(b) % 3]);
        if b & 16 != 0 {
            let w = self.weight(&[k, n], c);
            return self.b.same(OpKind::MatMul, &[x, w]).ok();
        }
        let w = self.weight(&[n, k], c);
        let kind = OpKind::Linear {
            segments: Vec::new(),
            accs: 1,
            expr: None,
        };
        if b & 8 == 0 {
            return self.b.same(kind, &[x, w]).ok();
        }
        let bias = self.weight(&[n], c ^ 1);
        self.b.same(kind, &[x, w, bias]).ok()
    }

    fn norm(&mut self, x: ValueId, b: u8) -> Option<ValueId> {
        let w = self.width(x);
        let gain = self.weight(&[w], b | 1);
        let (eps, expr) = (0.1f32.to_bits(), None);
        if b.is_multiple_of(2) {
            return self.b.same(OpKind::RmsNorm { eps, expr }, &[x, gain]).ok();
        }
        let bias = self.weight(&[w], b);
        let kind = OpKind::LayerNorm { eps, expr };
        self.b.same(kind, &[x, gain, bias]).ok()
    }

    fn slice(&mut self, x: ValueId, b: u8, c: u8) -> Option<ValueId> {
        let w = self.width(x);
        let start = u64::from(b) % w;
        let kind = OpKind::Slice {
            starts: vec![DimExpr::from(0), DimExpr::extent(start)],
            ends: vec![DimExpr::sym("n"), DimExpr::extent(w)],
            steps: vec![1, 1 + u64::from(c) % 2],
        };
        self.b.same(kind, &[x]).ok()
    }

    fn reduce(&mut self, x: ValueId, b: u8) -> Option<ValueId> {
        let f = [ReduceFn::Mean, ReduceFn::Max, ReduceFn::Sum][usize::from(b) % 3];
        let kind = OpKind::Reduce {
            f,
            axes: vec![1],
            keep: true,
        };
        let r = self.b.same(kind, &[x]).ok()?;
        self.b.binary(BinaryFn::Sub, x, r).ok()
    }

    /// There and back, so that layout passes have something to cancel.
    fn turn(&mut self, x: ValueId, b: u8) -> Option<ValueId> {
        let shape = self.b.ty(x).shape.clone();
        if b.is_multiple_of(2) {
            let t = self.b.transpose(x, vec![1, 0]).ok()?;
            let y = self.unary(t, b / 2)?;
            return self.b.transpose(y, vec![1, 0]).ok();
        }
        let flat = self.b.reshape(x, vec![DimExpr::product(&shape)]);
        let y = self.unary(flat, b / 2)?;
        Some(self.b.reshape(y, shape))
    }

    fn map(&mut self, x: ValueId, b: u8, c: u8) -> Option<ValueId> {
        let y = self.partner(x, b);
        let mut e = Expr::default();
        let (l, r) = (e.push(Node::Input(0)), e.push(Node::Input(1)));
        let half = e.constant(f32::from(c) / 256.0);
        let p = e.push(Node::Binary(BinaryFn::Mul, l, half));
        let s = e.push(Node::Binary(BinaryFn::Add, p, r));
        let t = e.push(Node::Unary(UnaryFn::Tanh, s));
        e.store(t);
        self.b.same(OpKind::Map(e), &[x, y]).ok()
    }

    /// Attention over the rows, or a rotation of them.
    fn heads(&mut self, x: ValueId, b: u8, c: u8) -> Option<ValueId> {
        let w = self.width(x);
        let heads = if w.is_multiple_of(4) { 2 } else { 1 };
        let (n, w_) = (DimExpr::sym("n"), DimExpr::extent(w));
        let flat = self.b.ty(x).shape.clone();
        let batched = self.b.reshape(x, vec![DimExpr::from(1), n.clone(), w_]);
        let y = if c.is_multiple_of(2) {
            let attrs = AttentionAttrs {
                heads,
                kv_heads: heads,
                scale: 0.5f32.to_bits(),
                mask: false,
                causal: b.is_multiple_of(2),
            };
            let kind = OpKind::Attention { attrs, expr: None };
            self.b.same(kind, &[batched, batched, batched]).ok()?
        } else if w.is_multiple_of(2 * heads) {
            let table = self.weight(&[1, w / heads / 2], b);
            let tables = [UnaryFn::Cos, UnaryFn::Sin].map(|f| self.b.unary(f, table));
            let [cos, sin] = tables;
            let kind = OpKind::Rotary(RotaryAttrs {
                heads,
                interleaved: b.is_multiple_of(2),
            });
            self.b.same(kind, &[batched, cos.ok()?, sin.ok()?]).ok()?
        } else {
            return None;
        };
        Some(self.b.reshape(y, flat))
    }

    fn select(&mut self, x: ValueId, b: u8, c: u8) -> Option<ValueId> {
        let y = self.partner(x, b);
        let limit = self.b.scalar(DType::F32, f64::from(c) / 64.0 - 2.0);
        let cond = self.b.binary(BinaryFn::Lt, x, limit).ok()?;
        let real = Elem::Plain(DType::F32);
        let out = self.b.infer(OpKind::Select, &[cond, x, y], real).ok()?;
        out.first().copied()
    }

    fn quantize(&mut self, x: ValueId, b: u8) -> Option<ValueId> {
        let storage = [DType::I8, DType::E4M3][usize::from(b) % 2];
        let q = QuantType {
            dynamic: true,
            narrow: storage == DType::I8,
            ..QuantType::symmetric(storage, BlockShape::row(2))
        };
        let codes = self.b.infer(OpKind::Quantize, &[x], Elem::Quant(q)).ok()?;
        let real = Elem::Plain(DType::F32);
        let out = self.b.infer(OpKind::Dequantize, &codes, real).ok()?;
        out.first().copied()
    }
}
