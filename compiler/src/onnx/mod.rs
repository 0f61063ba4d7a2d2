//! ONNX: from an untrusted file to a module.
//!
//! A model passes through these files in this order:
//!
//! | file | does |
//! |---|---|
//! | `wire` | scans the bytes: may they be decoded at all? |
//! | `proto` | the messages, decoded without copying tensor data |
//! | `model` | opens a file and checks every tensor in it |
//! | `external` | tensor data in other files, by safe paths only |
//! | `tensor`, `elem` | constants and their 28 element types |
//! | `import` | visits the nodes and builds the module |
//! | `ops/` | one function per operator |
//! | `fold`, `sym`, `dims` | arithmetic on shapes, with symbols |
//!
//! Nothing here trusts a number, a name or a path of the file. Every error is a
//! [`Diagnostic`](qcc_ir::diag::Diagnostic) with a code of the Q01xx range (see `error`).

mod attrs;
mod dims;
mod elem;
mod error;
mod external;
mod fold;
mod import;
mod map;
mod model;
mod node;
mod ops;
mod proto;
mod scope;
mod sites;
mod sym;
mod tensor;
mod wire;

pub use elem::ElemType;
pub use external::{ExternalData, SharedBytes};
pub use import::{ImportOptions, Imported, NodeVerdict, check, import};
pub use model::Model;
pub use tensor::Tensor;
