//! Builds kernels: the only way to make one besides parsing its text.
//!
//! Every method checks its operands at once. The first mistake is kept, later calls go on with
//! placeholder values, and [`KernelBuilder::finish`] returns it: builder code needs no `?`.

mod arith;
mod control;
mod hardware;
mod memory;

use super::body::{Kernel, Kind, Launch, Param, Region, SharedArray, Stmt, Value};
use super::check::check;
use super::{Op, Problem, Space, Ty, canonical, verify};
use crate::DType;

/// Builds one kernel.
#[derive(Debug)]
pub struct KernelBuilder {
    name: String,
    kind: Kind,
    params: Vec<Param>,
    shared: Vec<SharedArray>,
    types: Vec<Ty>,
    open: Vec<Region>,
    problem: Option<Problem>,
}

impl KernelBuilder {
    /// A kernel for a grid of thread blocks.
    pub fn spmd(name: &str, launch: Launch) -> KernelBuilder {
        KernelBuilder::new(name, Kind::Spmd(launch))
    }

    /// A kernel for one CPU thread over rows `begin..end`, returned as the two values. They are
    /// its first parameters, of type `i64`.
    pub fn serial(name: &str) -> (KernelBuilder, Value, Value) {
        let mut k = KernelBuilder::new(name, Kind::Serial);
        let begin = k.param("begin", Ty::I64);
        let end = k.param("end", Ty::I64);
        (k, begin, end)
    }

    fn new(name: &str, kind: Kind) -> KernelBuilder {
        KernelBuilder {
            name: name.to_string(),
            kind,
            params: Vec::new(),
            shared: Vec::new(),
            types: Vec::new(),
            open: vec![Region::default()],
            problem: None,
        }
    }

    /// An empty kernel with the frame of another: name, kind, parameters, shared arrays.
    pub(crate) fn like(kernel: &Kernel) -> KernelBuilder {
        let mut k = KernelBuilder::new(&kernel.name, kernel.kind.clone());
        k.params = kernel.params.clone();
        k.shared = kernel.shared.clone();
        k.types = kernel.params.iter().map(|p| p.ty).collect();
        k
    }

    /// Appends a control-flow statement with finished regions; the verifier checks it.
    pub(crate) fn nest(
        &mut self,
        op: Op,
        args: Vec<Value>,
        regions: Vec<Region>,
        results: &[Ty],
    ) -> Vec<Value> {
        self.push(op, args, regions, results)
    }

    /// Adds a parameter. All parameters come before the first operation.
    pub fn param(&mut self, name: &str, ty: Ty) -> Value {
        if self.types.len() != self.params.len() {
            self.fail(Problem::new(
                "K16",
                format!("parameter `{name}` after the first operation"),
            ));
        }
        self.params.push(Param {
            name: name.to_string(),
            ty,
        });
        self.value(ty)
    }

    /// A pointer parameter to device memory that the kernel may write.
    pub fn param_ptr(&mut self, name: &str, elem: DType) -> Value {
        self.param(name, Ty::ptr(elem, Space::Global))
    }

    /// A pointer parameter to device memory that nobody writes while the kernel runs.
    pub fn param_ro(&mut self, name: &str, elem: DType) -> Value {
        self.param(name, Ty::ptr(elem, Space::ReadOnly))
    }

    /// Declares an array in shared memory and returns its address.
    pub fn shared(&mut self, name: &str, elem: DType, len: u32, align: u32) -> Value {
        self.shared_array(name, elem, Some(len), align)
    }

    /// Declares the array whose size the launch decides, and returns its address.
    pub fn dynamic_shared(&mut self, name: &str, elem: DType, align: u32) -> Value {
        self.shared_array(name, elem, None, align)
    }

    fn shared_array(&mut self, name: &str, elem: DType, len: Option<u32>, align: u32) -> Value {
        let array = self.shared.len() as u32;
        self.shared.push(SharedArray {
            name: name.to_string(),
            elem,
            len,
            align,
        });
        self.one(Op::SharedAddr { array }, &[], Ty::ptr(elem, Space::Shared))
    }

    /// Type of a value.
    pub fn ty(&self, v: Value) -> Ty {
        self.types.get(v.index()).copied().unwrap_or(Ty::BOOL)
    }

    /// Ends the kernel, verifies it and numbers its values canonically.
    ///
    /// # Errors
    /// The first rule that the kernel breaks.
    pub fn finish(mut self) -> Result<Kernel, Problem> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let body = self.open.pop().unwrap_or_default();
        let mut kernel = Kernel {
            name: self.name,
            kind: self.kind,
            params: self.params,
            shared: self.shared,
            types: self.types,
            body,
        };
        canonical::renumber(&mut kernel);
        match verify(&kernel).into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(kernel),
        }
    }

    /// Records a problem found by the caller; [`KernelBuilder::finish`] returns the first one.
    pub fn fail(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }

    pub(crate) fn value(&mut self, ty: Ty) -> Value {
        let v = Value(self.types.len() as u32);
        self.types.push(ty);
        v
    }

    /// Appends any operation without regions, with results of these types.
    pub fn op(&mut self, op: Op, args: &[Value], results: &[Ty]) -> Vec<Value> {
        let arg_types: Vec<Ty> = args.iter().map(|&a| self.ty(a)).collect();
        if let Err(problem) = check(&op, &arg_types, results) {
            let types: Vec<String> = arg_types.iter().map(Ty::to_string).collect();
            self.fail(problem.at(format!("{} {}", op.name(), types.join(", "))));
        }
        self.push(op, args.to_vec(), Vec::new(), results)
    }

    fn push(
        &mut self,
        op: Op,
        args: Vec<Value>,
        regions: Vec<Region>,
        results: &[Ty],
    ) -> Vec<Value> {
        let results: Vec<Value> = results.iter().map(|&ty| self.value(ty)).collect();
        if let Some(region) = self.open.last_mut() {
            region.stmts.push(Stmt {
                results: results.clone(),
                op,
                args,
                regions,
            });
        }
        results
    }

    fn one(&mut self, op: Op, args: &[Value], ty: Ty) -> Value {
        self.op(op, args, &[ty])[0]
    }

    fn none(&mut self, op: Op, args: &[Value]) {
        self.op(op, args, &[]);
    }
}
