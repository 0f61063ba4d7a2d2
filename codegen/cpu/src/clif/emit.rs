//! Statements of a serial kernel as Cranelift instructions: control flow, memory, constants.

use super::calls::Signature;
use super::failed;
use super::lanes::pieces;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, ConstantData, FuncRef, Function, InstBuilder, MemFlagsData, Type, Value,
    condcodes::IntCC, types,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::JITModule;
use cranelift_module::{Linkage, Module};
use qcc_ir::DType;
use qcc_ir::diag::Result;
use qcc_ir::kernel::{self, Kernel, Kind, Op, Region, Stmt, Ty};
use std::collections::BTreeMap;

pub(super) type Pieces = Vec<Value>;

/// State of the translation of one kernel.
pub(super) struct Emitter<'m, 'f> {
    pub(super) b: FunctionBuilder<'f>,
    module: &'m mut JITModule,
    kernel: &'m Kernel,
    /// The pieces of each kernel value that is defined so far.
    values: Vec<Pieces>,
    calls: BTreeMap<&'static str, FuncRef>,
}

/// Fills `func` with the code of `kernel`. The function takes the address of its arguments.
pub(super) fn function(
    module: &mut JITModule,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    kernel: &Kernel,
) -> Result<()> {
    if *kernel.kind() != Kind::Serial {
        return Err(failed("a grid kernel for the CPU"));
    }
    let config = module.target_config();
    let mut e = Emitter {
        b: FunctionBuilder::new(func, context),
        module,
        kernel,
        values: vec![Vec::new(); kernel.num_values()],
        calls: BTreeMap::new(),
    };
    let block = e.b.create_block();
    e.b.append_block_params_for_function_params(block);
    e.b.switch_to_block(block);
    let args = e.b.block_params(block)[0];
    for i in 0..kernel.params().len() {
        let v = kernel
            .param_value(i)
            .ok_or_else(|| failed("a parameter is missing"))?;
        let ty = pieces(kernel.ty(v))?[0];
        let word = e.b.ins().load(ty, memory(), args, i as i32 * 8);
        e.values[v.index()] = vec![word];
    }
    e.region(kernel.body())?;
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(config);
    Ok(())
}

/// Accesses do not trap; nothing is promised about their alignment.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Emitter<'_, '_> {
    pub(super) fn ty(&self, v: kernel::Value) -> Ty {
        self.kernel.ty(v)
    }

    pub(super) fn get(&self, v: kernel::Value) -> Pieces {
        self.values[v.index()].clone()
    }

    /// The single piece of a scalar.
    pub(super) fn one(&self, v: kernel::Value) -> Result<Value> {
        match self.values[v.index()][..] {
            [one] => Ok(one),
            _ => Err(failed("a vector where a scalar belongs")),
        }
    }

    fn set(&mut self, v: kernel::Value, pieces: Pieces) {
        self.values[v.index()] = pieces;
    }

    fn region(&mut self, r: &Region) -> Result<()> {
        r.stmts.iter().try_for_each(|s| self.stmt(s))
    }

    fn stmt(&mut self, s: &Stmt) -> Result<()> {
        match s.op {
            Op::For => self.for_loop(s),
            Op::While => self.while_loop(s),
            Op::If => self.branch(s),
            Op::Store { offset, .. } => self.store(s, offset.0),
            Op::Unpack => {
                let lanes = self.lanes(s.args[0])?;
                if lanes.len() != s.results.len() {
                    return Err(failed("unpack to vectors"));
                }
                for (r, v) in s.results.iter().zip(lanes) {
                    self.set(*r, vec![v]);
                }
                Ok(())
            }
            _ => {
                let [r] = s.results[..] else {
                    return Err(failed(format!("operation `{}`", s.op.name())));
                };
                let pieces = self.value(s, self.ty(r))?;
                self.set(r, pieces);
                Ok(())
            }
        }
    }

    /// Operations with one result and no region.
    fn value(&mut self, s: &Stmt, ty: Ty) -> Result<Pieces> {
        match s.op {
            Op::Const { bits } => self.constant(ty, bits.0),
            Op::Load { offset, .. } if s.args.len() == 1 => self.load(s.args[0], ty, offset.0),
            Op::PtrAdd => {
                let (p, i) = (self.one(s.args[0])?, self.index(s.args[1])?);
                let Ty::Ptr { elem, .. } = ty else {
                    return Err(failed("pointer arithmetic on a number"));
                };
                let bytes = self.b.ins().imul_imm_u(i, i64::from(elem.bits() / 8));
                Ok(vec![self.b.ins().iadd(p, bytes)])
            }
            Op::PtrCast | Op::PtrToInt => Ok(self.get(s.args[0])),
            Op::Pack => self.pack(s, ty),
            Op::Convert { round, sat } => self.convert(s.args[0], ty, round, sat),
            Op::Bitcast => self.bitcast(s.args[0], ty),
            Op::Math { func, .. } => self.math(func, s.args[0]),
            _ => self.arith(s, ty),
        }
    }

    /// An index as 64 bits.
    fn index(&mut self, v: kernel::Value) -> Result<Value> {
        let i = self.one(v)?;
        Ok(match self.ty(v).dtype() {
            Some(DType::I32) => self.b.ins().sextend(types::I64, i),
            Some(DType::U32) => self.b.ins().uextend(types::I64, i),
            _ => i,
        })
    }

    fn constant(&mut self, ty: Ty, bits: u64) -> Result<Pieces> {
        let piece_types = pieces(ty)?;
        let one = piece_types[0];
        let d = ty.dtype().ok_or_else(|| failed("a constant pointer"))?;
        let v = if one.is_vector() {
            let lane = match d {
                DType::Bool => [0u8, 0xff][usize::from(bits != 0)].into(),
                _ => bits,
            };
            let lane = if d == DType::Bool && lane != 0 {
                u64::MAX
            } else {
                lane
            };
            let width = one.lane_bits() as usize / 8;
            let bytes: Vec<u8> = lane.to_le_bytes()[..width].repeat(16 / width);
            let data = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
            self.b.ins().vconst(one, data)
        } else {
            match one {
                types::F32 => self.b.ins().f32const(f32::from_bits(bits as u32)),
                types::F64 => self.b.ins().f64const(f64::from_bits(bits)),
                int => self.b.ins().iconst(int, masked(int, bits)),
            }
        };
        Ok(vec![v; piece_types.len()])
    }

    fn load(&mut self, p: kernel::Value, ty: Ty, offset: i32) -> Result<Pieces> {
        let p = self.one(p)?;
        let mut at = offset;
        let mut out = Vec::new();
        for t in pieces(ty)? {
            out.push(self.b.ins().load(t, memory(), p, at));
            at += t.bytes() as i32;
        }
        Ok(out)
    }

    fn store(&mut self, s: &Stmt, offset: i32) -> Result<()> {
        let [p, v] = s.args[..] else {
            return Err(failed("a predicated store"));
        };
        let p = self.one(p)?;
        let mut at = offset;
        for v in self.get(v) {
            self.b.ins().store(memory(), v, p, at);
            at += self.b.func.dfg.value_type(v).bytes() as i32;
        }
        Ok(())
    }

    /// The lanes of a value, one by one.
    pub(super) fn lanes(&mut self, v: kernel::Value) -> Result<Vec<Value>> {
        let mut out = Vec::new();
        for piece in self.get(v) {
            let ty = self.b.func.dfg.value_type(piece);
            if !ty.is_vector() {
                out.push(piece);
                continue;
            }
            for i in 0..ty.lane_count() {
                out.push(self.b.ins().extractlane(piece, i as u8));
            }
        }
        Ok(out)
    }

    /// Pieces of type `ty` from single lanes.
    pub(super) fn join(&mut self, ty: Ty, lanes: &[Value]) -> Result<Pieces> {
        let types = pieces(ty)?;
        let per = lanes.len() / types.len().max(1);
        let mut out = Vec::new();
        for (t, part) in types.iter().zip(lanes.chunks(per.max(1))) {
            if !t.is_vector() {
                out.push(part[0]);
            } else if part.iter().all(|v| *v == part[0]) {
                out.push(self.b.ins().splat(*t, part[0]));
            } else {
                let mut v = self.b.ins().scalar_to_vector(*t, part[0]);
                for (i, lane) in part.iter().enumerate().skip(1) {
                    v = self.b.ins().insertlane(v, *lane, i as u8);
                }
                out.push(v);
            }
        }
        Ok(out)
    }

    fn pack(&mut self, s: &Stmt, ty: Ty) -> Result<Pieces> {
        let scalars = s.args.iter().all(|a| self.ty(*a).lanes() == 1);
        if !scalars || ty.dtype() == Some(DType::Bool) {
            return Err(failed("a pack of vectors or truth values"));
        }
        let lanes: Vec<Value> = s.args.iter().map(|a| self.one(*a)).collect::<Result<_>>()?;
        self.join(ty, &lanes)
    }

    fn block_args(values: &[Value]) -> Vec<BlockArg> {
        values.iter().map(|v| BlockArg::Value(*v)).collect()
    }

    /// Every piece of several values, in order.
    fn flat(&self, values: &[kernel::Value]) -> Vec<Value> {
        values.iter().flat_map(|v| self.get(*v)).collect()
    }

    /// Makes the parameters of a block the pieces of these kernel values.
    fn bind(&mut self, values: &[kernel::Value], mut params: &[Value]) {
        for v in values {
            let n = pieces(self.ty(*v)).map_or(0, |p| p.len());
            let (own, rest) = params.split_at(n.min(params.len()));
            self.set(*v, own.to_vec());
            params = rest;
        }
    }

    /// A block whose parameters carry these values.
    fn block(&mut self, values: &[kernel::Value]) -> Result<cranelift_codegen::ir::Block> {
        let block = self.b.create_block();
        for v in values {
            for t in pieces(self.ty(*v))? {
                self.b.append_block_param(block, t);
            }
        }
        Ok(block)
    }

    fn enter(&mut self, block: cranelift_codegen::ir::Block, values: &[kernel::Value]) {
        self.b.switch_to_block(block);
        let params = self.b.block_params(block).to_vec();
        self.bind(values, &params);
    }

    fn for_loop(&mut self, s: &Stmt) -> Result<()> {
        let region = &s.regions[0];
        let (hi, step) = (self.one(s.args[1])?, self.one(s.args[2])?);
        let head = self.block(&region.params)?;
        let body = self.b.create_block();
        let done = self.block(&s.results)?;
        let init = [&s.args[..1], &s.args[3..]].concat();
        let init = Self::block_args(&self.flat(&init));
        self.b.ins().jump(head, &init);
        self.enter(head, &region.params);
        let index = self.one(region.params[0])?;
        let signed = matches!(self.ty(s.args[0]), Ty::I32 | Ty::I64);
        let below = if signed {
            IntCC::SignedLessThan
        } else {
            IntCC::UnsignedLessThan
        };
        let again = self.b.ins().icmp(below, index, hi);
        let carried = Self::block_args(&self.flat(&region.params[1..]));
        self.b.ins().brif(again, body, &[], done, &carried);
        self.b.switch_to_block(body);
        self.region(region)?;
        let next = self.b.ins().iadd(index, step);
        let mut args = vec![next];
        args.extend(self.flat(&region.yields));
        self.b.ins().jump(head, &Self::block_args(&args));
        self.enter(done, &s.results);
        Ok(())
    }

    fn while_loop(&mut self, s: &Stmt) -> Result<()> {
        let [test, body] = &s.regions[..] else {
            return Err(failed("a loop without a body"));
        };
        let head = self.block(&test.params)?;
        let inner = self.block(&body.params)?;
        let done = self.block(&s.results)?;
        let init = Self::block_args(&self.flat(&s.args));
        self.b.ins().jump(head, &init);
        self.enter(head, &test.params);
        self.region(test)?;
        let again = self.one(test.yields[0])?;
        let rest = Self::block_args(&self.flat(&test.yields[1..]));
        self.b.ins().brif(again, inner, &rest, done, &rest);
        self.enter(inner, &body.params);
        self.region(body)?;
        let carried = Self::block_args(&self.flat(&body.yields));
        self.b.ins().jump(head, &carried);
        self.enter(done, &s.results);
        Ok(())
    }

    fn branch(&mut self, s: &Stmt) -> Result<()> {
        let cond = self.one(s.args[0])?;
        let (yes, no) = (self.b.create_block(), self.b.create_block());
        let done = self.block(&s.results)?;
        self.b.ins().brif(cond, yes, &[], no, &[]);
        for (block, region) in [yes, no].into_iter().zip(&s.regions) {
            self.b.switch_to_block(block);
            self.region(region)?;
            let out = Self::block_args(&self.flat(&region.yields));
            self.b.ins().jump(done, &out);
        }
        self.enter(done, &s.results);
        Ok(())
    }

    /// Calls an imported function of one argument.
    pub(super) fn call(&mut self, name: &'static str, sig: Signature, x: Value) -> Result<Value> {
        let f = match self.calls.get(name) {
            Some(f) => *f,
            None => {
                let (from, to): (Type, Type) = match sig {
                    Signature::Decode => (types::I32, types::F32),
                    Signature::Encode => (types::F32, types::I32),
                    Signature::Real => (types::F32, types::F32),
                };
                let mut s = self.module.make_signature();
                s.params.push(AbiParam::new(from));
                s.returns.push(AbiParam::new(to));
                let id = self
                    .module
                    .declare_function(name, Linkage::Import, &s)
                    .map_err(failed)?;
                let f = self.module.declare_func_in_func(id, self.b.func);
                self.calls.insert(name, f);
                f
            }
        };
        let inst = self.b.ins().call(f, &[x]);
        Ok(self.b.inst_results(inst)[0])
    }
}

/// The bits of an integer constant, sign-extended as `iconst` wants them.
fn masked(ty: Type, bits: u64) -> i64 {
    match ty.bits() {
        64 => bits as i64,
        n => (bits & ((1 << n) - 1)) as i64,
    }
}
