//! Every place of a model where a tensor may stand.
//!
//! Initializers, sparse initializers, node attributes (dense and sparse), the same in the graphs
//! that attributes hold, and functions with their attribute defaults. Loaders that forget a
//! place leave a hole for external data, so all of them pass through here.

use qcc_ir::diag::Result;

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto,
};

type Visit<'a> = dyn FnMut(&TensorProto, &str) -> Result<()> + 'a;

/// Calls `visit` with every tensor and the name of its place; stops at the first error.
///
/// Recursion follows the nesting of messages, which [`super::wire::scan`] bounds.
pub(super) fn for_each(model: &ModelProto, visit: &mut Visit) -> Result<()> {
    if let Some(g) = &model.graph {
        graph(g, visit)?;
    }
    for function in &model.functions {
        let name = function.name.as_deref().unwrap_or_default();
        let place = format!("function {name}");
        attributes(&function.attribute_proto, &place, visit)?;
        nodes(&function.node, visit)?;
    }
    Ok(())
}

fn graph(graph: &GraphProto, visit: &mut Visit) -> Result<()> {
    for tensor in &graph.initializer {
        visit(tensor, &initializer_place(tensor))?;
    }
    for sparse in &graph.sparse_initializer {
        let name = sparse.values.as_ref().and_then(|v| v.name.as_deref());
        let place = format!("sparse initializer {}", name.unwrap_or_default());
        sparse_tensor(sparse, &place, visit)?;
    }
    nodes(&graph.node, visit)
}

/// How errors call an initializer.
pub(super) fn initializer_place(tensor: &TensorProto) -> String {
    format!("initializer {}", tensor.name.as_deref().unwrap_or_default())
}

/// How errors call a node: its name, or the name of its first output.
pub(super) fn node_place(node: &NodeProto) -> String {
    let op = node.op_type.as_deref().unwrap_or_default();
    match node.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("node {name} ({op})"),
        None => {
            let output = node.output.first().map(String::as_str).unwrap_or_default();
            format!("node with output {output} ({op})")
        }
    }
}

fn nodes(nodes: &[NodeProto], visit: &mut Visit) -> Result<()> {
    nodes
        .iter()
        .try_for_each(|node| attributes(&node.attribute, &node_place(node), visit))
}

fn attributes(attributes: &[AttributeProto], place: &str, visit: &mut Visit) -> Result<()> {
    for attribute in attributes {
        let tensors = attribute.t.as_deref().into_iter();
        for tensor in tensors.chain(&attribute.tensors) {
            visit(tensor, place)?;
        }
        let sparse = attribute.sparse_tensor.as_deref().into_iter();
        for tensor in sparse.chain(&attribute.sparse_tensors) {
            sparse_tensor(tensor, place, visit)?;
        }
        let graphs = attribute.g.as_deref().into_iter();
        for inner in graphs.chain(&attribute.graphs) {
            graph(inner, visit)?;
        }
    }
    Ok(())
}

fn sparse_tensor(sparse: &SparseTensorProto, place: &str, visit: &mut Visit) -> Result<()> {
    let parts = [&sparse.values, &sparse.indices];
    parts
        .into_iter()
        .flatten()
        .try_for_each(|tensor| visit(tensor, place))
}
