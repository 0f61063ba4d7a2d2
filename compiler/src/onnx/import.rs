//! From an ONNX graph to a module of the graph IR, operator by operator.
//!
//! Nodes are visited in order (ONNX demands that they are sorted). Each is looked up in the
//! table of [`super::ops`], first as arithmetic on small symbolic integers, then as ops of the
//! graph IR. Where two dimensions must be equal for the model to make sense, or a symbol must
//! be bounded, the import begins again with that [`Assumption`] until none is missing.

use std::collections::{BTreeMap, BTreeSet};

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::{Func, Module, Symbol, TensorType, ValueId, verify};

use super::attrs::{Attrs, Bound};
use super::dims::{Assumption, Dims};
use super::error::{self, input, unsupported};
use super::model::Model;
use super::node::{Node, Val, supported};
use super::ops;
use super::proto::{FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use super::scope::Scope;
use super::sites::node_place;
use super::{sites, tensor};

/// The versions of the default operator set that are imported.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=23;
/// Function calls within function calls.
const CALL_DEPTH: usize = 16;
/// Assumptions about one model.
const ASSUMPTIONS: usize = 64;
/// Named dimensions of one model.
const SYMBOLS: usize = 1024;
/// Ops of one function.
const OPS: usize = 250_000;

/// What the caller knows about a model.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Ranges and preferred sizes of dimensions, by the names that the model gives them; a
    /// dimension without a name is called `INPUT.AXIS`.
    pub symbols: Vec<Symbol>,
}

/// A model as a module.
#[derive(Debug)]
pub struct Imported {
    /// The module; its only function is `main`.
    pub module: Module,
    /// What had to be assumed about the inputs.
    pub warnings: Vec<Diagnostic>,
}

/// The verdict on one node.
#[derive(Clone, Debug)]
pub struct NodeVerdict {
    /// The node's name; that of its first result if it has none.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// Why it cannot be imported, if so.
    pub refused: Option<Diagnostic>,
}

/// Imports a model.
///
/// # Errors
/// The first node that is not supported (Q0104, Q0105, Q0116) or does not fit its operands
/// (Q0114, Q0115); tensors as in [`Model::open`]; Q0118 for an unknown symbol in `options`.
pub fn import(model: &Model, options: &ImportOptions) -> Result<Imported> {
    let (run, assumptions) = attempt(model, options)?;
    if let Some(refused) = run.verdicts.into_iter().find_map(|v| v.refused) {
        return Err(refused);
    }
    let module = run.module?;
    if let Some(violation) = verify(&module).into_iter().next() {
        return Err(violation);
    }
    if let Some(unknown) = options
        .symbols
        .iter()
        .find(|s| !module.symbols.iter().any(|m| m.name == s.name))
    {
        let known: Vec<&str> = module.symbols.iter().map(|s| s.name.as_str()).collect();
        return Err(Diagnostic::error(
            error::SYMBOL,
            Class::Usage,
            format!("the model has no dimension `{}`", unknown.name),
        )
        .hint(format!("its dimensions are {}", known.join(", "))));
    }
    let warnings = assumptions.iter().map(narrowed).collect();
    Ok(Imported { module, warnings })
}

/// The verdict on every node, in the order of the model.
///
/// # Errors
/// Only what concerns the model as a whole: operator set, inputs, initializers.
pub fn check(model: &Model, options: &ImportOptions) -> Result<Vec<NodeVerdict>> {
    Ok(attempt(model, options)?.0.verdicts)
}

fn narrowed(assumption: &Assumption) -> Diagnostic {
    Diagnostic::warning(
        error::NARROWED,
        Class::Input,
        format!("the model makes sense only if {assumption}; other shapes will be refused"),
    )
}

/// One pass over the model under some assumptions.
struct Run {
    module: Result<Module>,
    verdicts: Vec<NodeVerdict>,
}

/// Imports under more and more assumptions, until none is missing.
fn attempt(model: &Model, options: &ImportOptions) -> Result<(Run, Vec<Assumption>)> {
    let mut assumptions: Vec<Assumption> = Vec::new();
    loop {
        let mut importer = Importer::new(model, Dims::new(&options.symbols, &assumptions))?;
        let run = importer.run()?;
        match importer.scope.assume.take() {
            Some(new) if assumptions.len() < ASSUMPTIONS && !assumptions.contains(&new) => {
                assumptions.push(new);
            }
            _ => return Ok((run, assumptions)),
        }
    }
}

/// Values by their names in the model.
type Env<'m> = BTreeMap<&'m str, Val>;

/// Where nodes are imported: the main graph, or the body of a function.
struct Place<'a, 'm> {
    bound: &'a Bound<'m>,
    prefix: &'a str,
    depth: usize,
}

struct Importer<'m> {
    model: &'m Model,
    scope: Scope<'m>,
    functions: BTreeMap<(&'m str, &'m str), &'m FunctionProto>,
    /// The model's names of values of the graph IR, first name first.
    names: Vec<(ValueId, &'m str)>,
    /// Results of nodes that were refused, with the name of the node.
    missing: BTreeMap<&'m str, String>,
}

fn domain(d: Option<&str>) -> &str {
    match d {
        None | Some("ai.onnx") => "",
        Some(other) => other,
    }
}

/// Refuses versions of the default operator set that are not imported.
fn check_opset(sets: &[OperatorSetIdProto]) -> Result<()> {
    let set = sets.iter().find(|s| domain(s.domain.as_deref()).is_empty());
    let version = set.map_or(0, |s| s.version.unwrap_or(0));
    if OPSETS.contains(&version) {
        return Ok(());
    }
    Err(unsupported(
        error::MODEL,
        format!(
            "the model uses operator set {version}; qcc imports {} to {}",
            OPSETS.start(),
            OPSETS.end()
        ),
    )
    .hint("convert the model with onnx.version_converter, or export it again"))
}

impl<'m> Importer<'m> {
    fn new(model: &'m Model, dims: Dims) -> Result<Self> {
        let functions = model.proto.functions.iter().map(|f| {
            let key = (
                domain(f.domain.as_deref()),
                f.name.as_deref().unwrap_or_default(),
            );
            (key, f)
        });
        Ok(Importer {
            model,
            scope: Scope::new(dims, &model.files),
            functions: functions.collect(),
            names: Vec::new(),
            missing: BTreeMap::new(),
        })
    }

    fn graph(&self) -> Result<&'m GraphProto> {
        let graph = self.model.proto.graph.as_deref();
        graph.ok_or_else(|| input(error::MODEL, "the file holds no graph"))
    }

    fn run(&mut self) -> Result<Run> {
        let graph = self.graph()?;
        check_opset(&self.model.proto.opset_import)?;
        let mut env = Env::new();
        self.initializers(graph, &mut env)?;
        self.inputs(graph, &mut env)?;
        let bound = Bound::new();
        let place = Place {
            bound: &bound,
            prefix: "",
            depth: 0,
        };
        let mut verdicts = Vec::with_capacity(graph.node.len());
        for node in &graph.node {
            let result = self.node(node, &mut env, &place);
            if self.scope.assume.is_some() {
                // Begin again; what follows from this node is of no interest.
                break;
            }
            verdicts.push(self.verdict(node, result.err()));
        }
        let module = self.finish(graph, &mut env);
        Ok(Run { module, verdicts })
    }

    fn verdict(&mut self, node: &'m NodeProto, refused: Option<Diagnostic>) -> NodeVerdict {
        let name = node_name(node);
        if refused.is_some() {
            for output in &node.output {
                self.missing.insert(output, name.clone());
            }
        }
        NodeVerdict {
            node: name,
            op: node.op_type.clone().unwrap_or_default(),
            refused,
        }
    }

    fn initializers(&mut self, graph: &'m GraphProto, env: &mut Env<'m>) -> Result<()> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().and_then(|v| v.name.as_deref());
            return Err(unsupported(
                error::TENSOR_STORAGE,
                "sparse initializers are not supported",
            )
            .at(format!("initializer {}", name.unwrap_or_default()))
            .hint("save the model with dense tensors"));
        }
        for proto in &graph.initializer {
            let place = sites::initializer_place(proto);
            let read = tensor::read(proto, &self.model.files).map_err(|e| e.at(place.clone()))?;
            let name = proto.name.as_deref().unwrap_or_default();
            self.define(env, name, Val::Const(read))
                .map_err(|e| e.at(place))?;
        }
        Ok(())
    }

    fn inputs(&mut self, graph: &'m GraphProto, env: &mut Env<'m>) -> Result<()> {
        for info in &graph.input {
            let name = info.name.as_deref().unwrap_or_default();
            if matches!(env.get(name), Some(Val::Const(_))) {
                // An initializer that is also listed as an input is only its default value.
                continue;
            }
            let place = format!("input {name}");
            let ty = self
                .input_type(info, name)
                .map_err(|e| e.at(place.clone()))?;
            if self.scope.dims.count() > SYMBOLS {
                let message = format!("the model has more than {SYMBOLS} named dimensions");
                return Err(input(error::LIMIT, message).at(place));
            }
            let value = self.scope.b.param(name, ty);
            self.define(env, name, Val::Value(value))
                .map_err(|e| e.at(place))?;
        }
        Ok(())
    }

    fn input_type(&mut self, info: &ValueInfoProto, name: &str) -> Result<TensorType> {
        let ty = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let ty = ty.ok_or_else(|| {
            unsupported(
                error::ELEM_TYPE,
                "only inputs that are tensors are supported",
            )
        })?;
        let dtype = supported(tensor::elem_type(ty.elem_type.unwrap_or(0))?)?;
        let shape = ty.shape.as_ref().ok_or_else(|| {
            unsupported(error::DYNAMIC, "the number of dimensions is not declared")
                .hint("declare the shape; dimensions may be names")
        })?;
        let dims = &mut self.scope.dims;
        let dims = shape.dim.iter().enumerate().map(|(axis, dim)| {
            match (dim.dim_value, dim.dim_param.as_deref()) {
                (Some(n), _) if n < 0 => Err(input(
                    error::TENSOR_DIMS,
                    format!("dimension {axis} is {n}"),
                )),
                (Some(n), _) => Ok(n.into()),
                (None, Some(text)) if !text.is_empty() => Ok(dims.parse(text)),
                (None, _) => Ok(dims.unnamed(name, axis)),
            }
        });
        Ok(TensorType::new(dtype, dims.collect::<Result<Vec<_>>>()?))
    }

    fn define(&mut self, env: &mut Env<'m>, name: &'m str, value: Val) -> Result<()> {
        if name.is_empty() {
            return Err(input(error::GRAPH, "a value has no name"));
        }
        if let Val::Value(v) = value {
            self.names.push((v, name));
        }
        match env.insert(name, value) {
            Some(_) => Err(input(
                error::GRAPH,
                format!("value `{name}` is defined twice"),
            )),
            None => Ok(()),
        }
    }

    fn node(&mut self, proto: &'m NodeProto, env: &mut Env<'m>, at: &Place<'_, 'm>) -> Result<()> {
        let name = format!("{}{}", at.prefix, node_name(proto));
        self.scope.at(&name);
        let results = self
            .results(proto, env, at, &name)
            .and_then(|results| self.check_size(results))
            .map_err(|e| as_model_error(e).or_at(node_place(proto)))?;
        for (output, value) in proto.output.iter().zip(results) {
            if !output.is_empty() {
                let value = named(value, at.prefix, output);
                self.define(env, output, value)
                    .map_err(|e| e.at(node_place(proto)))?;
            }
        }
        Ok(())
    }

    /// Refuses results that would make the import too slow or too large.
    fn check_size(&self, results: Vec<Val>) -> Result<Vec<Val>> {
        if self.scope.b.func().ops.len() > OPS {
            let message = format!("the model has more than {OPS} operations");
            return Err(input(error::LIMIT, message));
        }
        match results.iter().all(|v| self.scope.is_simple(v)) {
            true => Ok(results),
            false => Err(input(error::LIMIT, "the shapes become too complicated")),
        }
    }

    /// The results of a node, at least as many as it has names for.
    fn results(
        &mut self,
        proto: &'m NodeProto,
        env: &mut Env<'m>,
        at: &Place<'_, 'm>,
        name: &str,
    ) -> Result<Vec<Val>> {
        let op = proto.op_type.as_deref().unwrap_or_default();
        let attrs = Attrs::new(proto, at.bound)?;
        let inputs = proto
            .input
            .iter()
            .map(|name| self.operand(name, env))
            .collect::<Result<Vec<_>>>()?;
        let key = (domain(proto.domain.as_deref()), op);
        let results = match (self.functions.get(&key), ops::find(key.0, op)) {
            (Some(function), _) => self.call(function, inputs, &attrs.bound(), at, name)?,
            (None, Some(row)) => {
                let outputs = proto.output.iter().map(|o| !o.is_empty()).collect();
                let node = Node::new(op, attrs, inputs, outputs);
                ops::apply(row, &mut self.scope, &node)?
            }
            (None, None) => return Err(unknown_operator(key.0, op)),
        };
        if results.len() < proto.output.len() {
            return Err(input(
                error::GRAPH,
                format!(
                    "{op} has {} results, the node names {}",
                    results.len(),
                    proto.output.len()
                ),
            ));
        }
        Ok(results)
    }

    fn operand(&self, name: &str, env: &Env<'m>) -> Result<Option<Val>> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(value) = env.get(name) {
            return Ok(Some(value.clone()));
        }
        Err(match self.missing.get(name) {
            Some(node) => unsupported(
                error::BLOCKED,
                format!("not looked at: it reads from node {node}, which is not supported"),
            ),
            None => input(
                error::GRAPH,
                format!("value `{name}` is not defined before its use"),
            ),
        })
    }

    /// Imports the body of a function in place of a call.
    fn call(
        &mut self,
        function: &'m FunctionProto,
        inputs: Vec<Option<Val>>,
        given: &Bound<'m>,
        at: &Place<'_, 'm>,
        name: &str,
    ) -> Result<Vec<Val>> {
        if at.depth >= CALL_DEPTH {
            return Err(input(error::LIMIT, "functions call each other too deeply"));
        }
        if !function.opset_import.is_empty() {
            check_opset(&function.opset_import)?;
        }
        let mut bound = given.clone();
        for default in &function.attribute_proto {
            bound
                .entry(default.name.as_deref().unwrap_or_default())
                .or_insert(default);
        }
        let mut env: Env<'m> = function
            .input
            .iter()
            .zip(inputs)
            .filter_map(|(name, value)| Some((name.as_str(), value?)))
            .collect();
        let inner = Place {
            bound: &bound,
            prefix: &format!("{name}/"),
            depth: at.depth + 1,
        };
        for node in &function.node {
            self.node(node, &mut env, &inner)?;
        }
        let outputs = function.output.iter().map(|name| {
            self.operand(name, &env)?
                .ok_or_else(|| input(error::GRAPH, "a result of a function has no name"))
        });
        outputs.collect()
    }

    fn finish(&mut self, graph: &'m GraphProto, env: &mut Env<'m>) -> Result<Module> {
        let mut results = Vec::with_capacity(graph.output.len());
        for info in &graph.output {
            let name = info.name.as_deref().unwrap_or_default();
            let place = format!("output {name}");
            let value = self.operand(name, env).map_err(|e| e.at(place.clone()))?;
            let value = value.ok_or_else(|| input(error::GRAPH, "an output has no name"))?;
            self.scope.at(name);
            let v = self.scope.value(&value).map_err(|e| e.at(place.clone()))?;
            self.output_type(info, v).map_err(|e| e.at(place))?;
            results.push((name, v));
        }
        let b = std::mem::take(&mut self.scope.b);
        let mut func = b.finish(results);
        rename(&mut func, &self.names);
        let mut module = std::mem::take(&mut self.scope.module);
        module.symbols = self.scope.dims.symbols();
        module.funcs = vec![func];
        Ok(module)
    }

    fn output_type(&self, info: &ValueInfoProto, v: ValueId) -> Result<()> {
        let ty = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let Some(declared) = ty.and_then(|t| t.elem_type).filter(|&t| t != 0) else {
            return Ok(());
        };
        let declared = supported(tensor::elem_type(declared)?)?;
        let found = self.scope.plain(v)?;
        if declared == found {
            return Ok(());
        }
        Err(input(
            error::OPERAND,
            format!("the model declares {declared}, its nodes give {found}"),
        ))
    }
}

/// A constant takes the name of the value it defines, if it has none.
fn named(value: Val, prefix: &str, name: &str) -> Val {
    match value {
        Val::Const(t) if t.name().is_empty() => Val::Const(t.renamed(&format!("{prefix}{name}"))),
        other => other,
    }
}

/// A node's name, or that of its first result.
fn node_name(node: &NodeProto) -> String {
    let name = node.name.as_ref().filter(|n| !n.is_empty());
    name.or(node.output.first()).cloned().unwrap_or_default()
}

fn unknown_operator(domain: &str, op: &str) -> Diagnostic {
    let full = match domain {
        "" => op.to_string(),
        domain => format!("{domain}.{op}"),
    };
    unsupported(
        error::OPERATOR,
        format!("operator `{full}` is not supported"),
    )
    .hint("export the model without it, or cut the model there and run this part elsewhere")
}

/// Shape rules of the graph IR report defects of qcc; here the model is at fault.
fn as_model_error(e: Diagnostic) -> Diagnostic {
    match e.class() {
        Class::Internal => input(error::OPERAND, e.message()),
        _ => e,
    }
}

/// Gives values the names that the model has for them; the others keep theirs as far as they
/// are free.
fn rename(func: &mut Func, names: &[(ValueId, &str)]) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut done = vec![false; func.values.len()];
    for (v, name) in names {
        if !done[v.index()] && taken.insert((*name).to_string()) {
            done[v.index()] = true;
            func.values[v.index()].name = (*name).to_string();
        }
    }
    for (value, done) in func.values.iter_mut().zip(done) {
        if done {
            continue;
        }
        let wish = value.name.clone();
        let mut at = 0u64;
        while !taken.insert(value.name.clone()) {
            at += 1;
            value.name = format!("{wish}.{at}");
        }
    }
}
