//! An ONNX file, opened and checked.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use qcc_ir::diag::{Diagnostic, Result};

use super::error::{self, input, unsupported};
use super::external::{ExternalData, ExternalFiles};
use super::map::Mapped;
use super::proto::ModelProto;
use super::tensor::Tensor;
use super::{map, sites, tensor, wire};

/// The IR versions that qcc reads; 3 was the first with operator sets.
const IR_VERSIONS: std::ops::RangeInclusive<i64> = 3..=14;

/// Bytes that are hashed at a time.
const PART: usize = 1 << 24;

/// An ONNX model whose bytes are well-formed and whose tensors are all within bounds.
///
/// Tensor data stay in the files until they are used.
pub struct Model {
    pub(super) proto: ModelProto,
    pub(super) files: ExternalFiles,
    bytes: Bytes,
}

impl Model {
    /// Opens a model file; external data are looked for in its folder and below.
    ///
    /// The files are memory-mapped: nobody may shorten or rewrite them while the model, or what
    /// was made from it, is in use.
    ///
    /// # Errors
    /// A file that cannot be read (Q0100), malformed or hostile bytes (Q0101, Q0102), no model
    /// (Q0103), or a tensor that is out of bounds (Q0106 to Q0113).
    pub fn open(path: &Path) -> Result<Model> {
        let place = path.display().to_string();
        let file = open_file(path).map_err(|e| {
            input(error::FILE, format!("the model cannot be read: {e}")).at(place.clone())
        })?;
        let folder = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut files = ExternalFiles::folder(folder);
        files.model = file.pages;
        Model::new(file.bytes, files).map_err(|e| e.or_at(place))
    }

    /// Reads a model that has no external data.
    ///
    /// # Errors
    /// As [`Model::open`]; Q0107 if there are external data all the same.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Model> {
        Model::new(Bytes::from(bytes), ExternalFiles::none())
    }

    /// Reads a model whose external data the caller supplies.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_bytes_with(bytes: Vec<u8>, data: Box<dyn ExternalData>) -> Result<Model> {
        Model::new(Bytes::from(bytes), ExternalFiles::callback(data))
    }

    fn new(bytes: Bytes, files: ExternalFiles) -> Result<Model> {
        wire::scan(&bytes, &wire::Limits::default()).map_err(wire_error)?;
        let proto = ModelProto::decode(bytes.clone())
            .map_err(|e| input(error::MALFORMED, format!("the file is no ONNX model: {e}")))?;
        check_header(&proto)?;
        sites::for_each(&proto, &mut |tensor, place| {
            let place = match tensor.name.as_deref() {
                Some(name) if !place.ends_with(name) => format!("tensor {name} of {place}"),
                _ => place.to_string(),
            };
            match tensor::check(tensor, &files) {
                // An unsupported tensor matters only where it is used.
                Err(e) if e.class() == qcc_ir::diag::Class::Unsupported => Ok(()),
                other => other.map_err(|e| e.at(place)),
            }
        })?;
        Ok(Model {
            proto,
            files,
            bytes,
        })
    }

    /// The bytes of the model file itself, without external data.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A hash of those bytes, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in self.bytes.chunks(PART) {
            hasher.update(part);
            if let Some(pages) = &self.files.model {
                pages.release(part);
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The version of the default operator set, if the model imports it.
    pub fn opset(&self) -> Option<i64> {
        self.proto
            .opset_import
            .iter()
            .find(|set| matches!(set.domain.as_deref(), None | Some("" | "ai.onnx")))
            .map(|set| set.version.unwrap_or(0))
    }

    /// The initializers of the main graph, in the order of the file.
    pub fn initializers(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        let graph = self.proto.graph.as_deref();
        graph
            .into_iter()
            .flat_map(|g| &g.initializer)
            .map(|t| tensor::read(t, &self.files).map_err(|e| e.at(sites::initializer_place(t))))
    }
}

fn open_file(path: &Path) -> std::io::Result<Mapped> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    map::map(&file)
}

fn wire_error(e: wire::WireError) -> Diagnostic {
    let message = format!("at byte {}: {}", e.offset, e.fault);
    if e.fault.is_limit() {
        input(
            error::LIMIT,
            format!("the file exceeds a limit of the loader {message}"),
        )
        .hint("store large tensors as raw_data or as external data")
    } else {
        input(
            error::MALFORMED,
            format!("the file is no ONNX model {message}"),
        )
        .hint("the file may be cut short or damaged")
    }
}

fn check_header(model: &ModelProto) -> Result<()> {
    let version = model.ir_version.unwrap_or(0);
    if model.graph.is_none() {
        return Err(input(
            error::MODEL,
            "the file holds no graph, so it is no ONNX model",
        ));
    }
    if version > *IR_VERSIONS.end() || version < *IR_VERSIONS.start() {
        return Err(unsupported(
            error::MODEL,
            format!(
                "the model has IR version {version}; qcc reads {} to {}",
                IR_VERSIONS.start(),
                IR_VERSIONS.end()
            ),
        )
        .hint("export the model again with another version of onnx"));
    }
    Ok(())
}
