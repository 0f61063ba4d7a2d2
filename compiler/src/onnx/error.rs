//! The codes of everything that can be wrong with an ONNX model.
//!
//! | code | meaning |
//! |---|---|
//! | Q0100 | the file cannot be opened, mapped or read |
//! | Q0101 | the bytes are not a well-formed protobuf message |
//! | Q0102 | the file would exceed a limit of the loader (depth, counts, memory) |
//! | Q0103 | a well-formed file that is no usable ONNX model (no graph, versions) |
//! | Q0104 | an operator is not known |
//! | Q0105 | an attribute is missing, has the wrong type or an unsupported value |
//! | Q0106 | an external data location leaves the model's folder or is no plain file |
//! | Q0107 | an external data file is missing or shorter than the tensor says |
//! | Q0108 | the external data entries of a tensor are malformed |
//! | Q0109 | the checksum of an external data file does not match |
//! | Q0110 | a tensor's data do not fit its dimensions or its type |
//! | Q0111 | a tensor's dimensions are negative or overflow |
//! | Q0112 | a tensor is stored in a way that is not supported (segment, strings, sparse) |
//! | Q0113 | an element type is unknown or not supported |
//! | Q0114 | the graph is inconsistent (undefined or redefined value, missing input) |
//! | Q0115 | a node's operands do not fit it (type, rank, shape) |
//! | Q0116 | a shape depends on run-time data in a way that is not supported |
//! | Q0117 | a node was not looked at because one that it reads from is not supported |
//! | Q0118 | a size was given for a dimension that the model does not have |
//! | Q0119 | (warning) the compiled model accepts fewer shapes than the model declares |

use qcc_ir::diag::{Class, Diagnostic};

pub(super) const FILE: u16 = 100;
pub(super) const MALFORMED: u16 = 101;
pub(super) const LIMIT: u16 = 102;
pub(super) const MODEL: u16 = 103;
pub(super) const OPERATOR: u16 = 104;
pub(super) const ATTRIBUTE: u16 = 105;
pub(super) const EXTERNAL_PATH: u16 = 106;
pub(super) const EXTERNAL_RANGE: u16 = 107;
pub(super) const EXTERNAL_ENTRY: u16 = 108;
pub(super) const EXTERNAL_SUM: u16 = 109;
pub(super) const TENSOR_DATA: u16 = 110;
pub(super) const TENSOR_DIMS: u16 = 111;
pub(super) const TENSOR_STORAGE: u16 = 112;
pub(super) const ELEM_TYPE: u16 = 113;
pub(super) const GRAPH: u16 = 114;
pub(super) const OPERAND: u16 = 115;
pub(super) const DYNAMIC: u16 = 116;
pub(super) const BLOCKED: u16 = 117;
pub(super) const SYMBOL: u16 = 118;
pub(super) const NARROWED: u16 = 119;

/// The model is malformed or inconsistent.
pub(super) fn input(number: u16, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(number, Class::Input, message)
}

/// The model is valid, but qcc does not support this.
pub(super) fn unsupported(number: u16, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(number, Class::Unsupported, message)
}
