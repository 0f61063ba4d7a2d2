//! Writing a plan: texts first, then the weights as they are made.

use qcc_ir::Diagnostic;
use qcc_ir::diag::Result;
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{FormatVersion, Plan, WeightEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::bytes::AlignedBytes;
use super::container::{Container, Layout, WriteError};
use super::disk::{AtomicFile, Disk, OsDisk};
use super::error::{cannot_write, misfit, over_limit};
use super::hash::Root;
use super::header::{Header, safetensors_name};
use super::{LEDGER, MANIFEST, MAX_JSON, VERSION_KEY};

/// Everything in a plan file but the bytes of the weights.
pub struct PlanContents<'a> {
    /// The manifest.
    pub plan: &'a Plan,
    /// The decisions.
    pub ledger: &'a Ledger,
    /// Texts by entry name: each entry that a module or a kernel of the plan names.
    pub texts: &'a BTreeMap<String, String>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Hash over the whole file.
    pub root: Root,
}

/// Writes a plan file as a stream: the weights one after another, each in pieces of any size.
///
/// The file appears at its path when [`PlanWriter::finish`] succeeds; until then, and whenever
/// anything fails, an older file of that name stays as it was.
pub struct PlanWriter(Stream<BufWriter<AtomicFile<OsDisk>>>);

impl PlanWriter {
    /// Begins a plan file at `path`: writes all but the weights to a temporary file beside it.
    ///
    /// # Errors
    /// `Q0408` if the manifest contradicts itself, `Q0410` if the texts are not those that it
    /// names, `Q0407` if it is too large, `Q0409` if the file system refuses.
    pub fn create(path: impl AsRef<Path>, contents: &PlanContents<'_>) -> Result<Self> {
        create_on(OsDisk, path.as_ref(), contents).map(PlanWriter)
    }

    /// Writes the next bytes of a weight; weights come in the order of the manifest.
    ///
    /// # Errors
    /// `Q0410` if the entry is not the next one or would become too long, `Q0409` if the file
    /// system refuses.
    pub fn write(&mut self, entry: &str, bytes: &[u8]) -> Result<()> {
        self.0.write(entry, bytes)
    }

    /// Writes the hashes, syncs, and puts the file in its place.
    ///
    /// # Errors
    /// `Q0410` if a weight is not complete, `Q0409` if the file system refuses.
    pub fn finish(self) -> Result<Written> {
        finish_on(self.0)
    }
}

/// Writes a plan file into memory; the weights in the order of the manifest.
///
/// # Errors
/// As [`PlanWriter`], and what `fill` returns. `fill` is called with each weight and a place
/// for the bytes of its entry.
pub fn plan_in_memory(
    contents: &PlanContents<'_>,
    mut fill: impl FnMut(&WeightEntry, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<(AlignedBytes, Written)> {
    let prepared = Prepared::new(contents)?;
    let bytes = prepared.layout.file_len();
    let len = usize::try_from(bytes).map_err(|_| over_limit("size", bytes, usize::MAX as u64))?;
    let mut memory = AlignedBytes::zeroed(len);
    let mut stream = Stream::start(memory.as_mut_slice(), Path::new("memory"), prepared)?;
    for w in &contents.plan.weights {
        fill(w, &mut |piece| stream.write(&w.entry, piece))?;
    }
    let (_, written, _) = stream.finish()?;
    Ok((memory, written))
}

pub(super) fn create_on<D: Disk>(
    disk: D,
    path: &Path,
    contents: &PlanContents<'_>,
) -> Result<Stream<BufWriter<AtomicFile<D>>>> {
    let prepared = Prepared::new(contents)?;
    let needed = prepared.layout.file_len();
    let file = AtomicFile::create(disk, path).map_err(|e| cannot_write(path, needed, &e))?;
    let out = BufWriter::with_capacity(1 << 20, file);
    Stream::start(out, path, prepared)
}

pub(super) fn finish_on<D: Disk>(stream: Stream<BufWriter<AtomicFile<D>>>) -> Result<Written> {
    let (out, written, path) = stream.finish()?;
    let failed = |e: &std::io::Error| cannot_write(&path, written.bytes, e);
    let file = out.into_inner().map_err(|e| failed(e.error()))?;
    file.commit().map_err(|e| failed(&e))?;
    Ok(written)
}

/// A container with the place of its errors.
pub(super) struct Stream<W> {
    container: Container<W>,
    path: PathBuf,
    bytes: u64,
}

impl<W: Write> Stream<W> {
    fn start(out: W, path: &Path, prepared: Prepared<'_>) -> Result<Self> {
        let bytes = prepared.layout.file_len();
        let container =
            Container::start(out, prepared.layout).map_err(|e| cannot_write(path, bytes, &e))?;
        let mut stream = Stream {
            container,
            path: path.to_path_buf(),
            bytes,
        };
        stream.write(MANIFEST, &prepared.manifest)?;
        stream.write(LEDGER, &prepared.ledger)?;
        for (name, text) in prepared.texts {
            stream.write(name, text.as_bytes())?;
        }
        Ok(stream)
    }

    pub(super) fn write(&mut self, entry: &str, bytes: &[u8]) -> Result<()> {
        let written = self.container.write(entry, bytes);
        written.map_err(|e| diagnose(e, &self.path, self.bytes))
    }

    fn finish(self) -> Result<(W, Written, PathBuf)> {
        let finished = self.container.finish();
        let (out, root) = finished.map_err(|e| diagnose(e, &self.path, self.bytes))?;
        let bytes = self.bytes;
        Ok((out, Written { bytes, root }, self.path))
    }
}

fn diagnose(e: WriteError, path: &Path, needed: u64) -> Diagnostic {
    match e {
        WriteError::Io(e) => cannot_write(path, needed, &e),
        WriteError::Misfit(d) => d,
    }
}

/// A plan file before its first byte is written.
struct Prepared<'a> {
    layout: Layout,
    manifest: Vec<u8>,
    ledger: Vec<u8>,
    texts: &'a BTreeMap<String, String>,
}

impl<'a> Prepared<'a> {
    fn new(contents: &PlanContents<'a>) -> Result<Self> {
        let plan = contents.plan;
        plan.validate()?;
        if plan.format != FormatVersion::CURRENT {
            return Err(misfit(format!(
                "its format is {}, this qcc writes {}",
                plan.format,
                FormatVersion::CURRENT
            )));
        }
        check_texts(contents)?;
        let mut header = Header::default();
        let metadata = [
            (VERSION_KEY, plan.format.to_string()),
            ("qcc_version", plan.qcc_version.clone()),
        ];
        let metadata = metadata.map(|(k, v)| (k.to_string(), v));
        header.metadata.extend(metadata);
        let (manifest, ledger) = (json(plan)?, json(contents.ledger)?);
        for (name, text) in [(MANIFEST, &manifest), (LEDGER, &ledger)] {
            let len = text.len() as u64;
            if len > MAX_JSON {
                return Err(over_limit(name, len, MAX_JSON));
            }
            header.push(name, "U8", vec![len], len)?;
        }
        for (name, text) in contents.texts {
            let len = text.len() as u64;
            header.push(name, "U8", vec![len], len)?;
        }
        for w in &plan.weights {
            let (dtype, shape) = stored_as(w);
            header.push(&w.entry, dtype, shape, w.bytes)?;
        }
        Ok(Prepared {
            layout: Layout::new(header)?,
            manifest,
            ledger,
            texts: contents.texts,
        })
    }
}

/// How safetensors describes a weight: by its own type and dims where these tell its bytes,
/// else as plain bytes.
pub(super) fn stored_as(w: &WeightEntry) -> (&'static str, Vec<u64>) {
    match safetensors_name(w.dtype) {
        Some(name) if w.layout == WeightEntry::ROW_MAJOR => (name, w.dims.clone()),
        _ => ("U8", vec![w.bytes]),
    }
}

/// Checks that the texts are those that the plan names.
fn check_texts(contents: &PlanContents<'_>) -> Result<()> {
    let wanted: BTreeSet<&str> = contents.plan.text_entries().collect();
    let given: BTreeSet<&str> = contents.texts.keys().map(String::as_str).collect();
    if let Some(missing) = wanted.difference(&given).next() {
        return Err(misfit(format!("the text of entry `{missing}` is missing")));
    }
    if let Some(unused) = given.difference(&wanted).next() {
        return Err(misfit(format!("nothing names the text `{unused}`")));
    }
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| misfit(format!("manifest or ledger: {e}")))
}
