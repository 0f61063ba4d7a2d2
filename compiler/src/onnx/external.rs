//! External data: the bytes of a tensor that lie in another file.
//!
//! A location is a path relative to the model's folder, and the model is not trusted. Refused
//! are absolute paths and any component but plain names, symbolic links on the way or at the
//! end, everything that is not a regular file, files with several hard links, and ranges that
//! end behind the file. Nothing is allocated for a range: files are memory-mapped.
//!
//! A model given as bytes has no folder; its embedder supplies the files as [`ExternalData`].

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use qcc_ir::diag::{Diagnostic, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use sha1::{Digest, Sha1};

use super::error::{self, input};
use super::map::{Mapped, Pages, map};
use super::proto::StringStringEntryProto;

/// Bytes that are shared with whoever supplied them.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Supplies external data files by their location, for a model that has no folder.
pub trait ExternalData: Send + Sync {
    /// The whole content of the file that the model calls `location`, or `None` if there is no
    /// such file. The location comes from the model: do not use it as a path unchecked.
    fn file(&self, location: &str) -> Option<SharedBytes>;
}

impl<F> ExternalData for F
where
    F: Fn(&str) -> Option<SharedBytes> + Send + Sync,
{
    fn file(&self, location: &str) -> Option<SharedBytes> {
        self(location)
    }
}

/// A range of an external data file, from the `external_data` entries of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) location: String,
    pub(super) offset: u64,
    /// Bytes; to the end of the file if absent.
    pub(super) length: Option<u64>,
    /// SHA-1 of the whole file, in hexadecimal.
    pub(super) checksum: Option<String>,
}

impl Range {
    /// Reads the entries; every key at most once, and no key that ONNX does not define.
    pub(super) fn parse(entries: &[StringStringEntryProto]) -> Result<Range> {
        let mut values: BTreeMap<&str, &str> = BTreeMap::new();
        for entry in entries {
            let key = entry.key.as_deref().unwrap_or_default();
            let value = entry.value.as_deref().unwrap_or_default();
            if !["location", "offset", "length", "checksum"].contains(&key) {
                return Err(input(
                    error::EXTERNAL_ENTRY,
                    format!(
                        "external data has the key `{key}`; known are location, offset, length, checksum"
                    ),
                ));
            }
            if values.insert(key, value).is_some() {
                return Err(input(
                    error::EXTERNAL_ENTRY,
                    format!("external data has the key `{key}` twice"),
                ));
            }
        }
        let number = |key: &str| -> Result<Option<u64>> {
            let Some(text) = values.get(key) else {
                return Ok(None);
            };
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            match text.parse::<u64>() {
                Ok(n) if digits => Ok(Some(n)),
                _ => Err(input(
                    error::EXTERNAL_ENTRY,
                    format!("external data has the {key} `{text}`, which is no 64-bit number"),
                )),
            }
        };
        match values.get("location") {
            Some(location) if !location.is_empty() => Ok(Range {
                location: (*location).to_string(),
                offset: number("offset")?.unwrap_or(0),
                length: number("length")?,
                checksum: values.get("checksum").map(|s| s.to_ascii_lowercase()),
            }),
            _ => Err(input(
                error::EXTERNAL_ENTRY,
                "external data has no location",
            )),
        }
    }
}

/// Where external data files come from.
enum Source {
    Folder(PathBuf),
    Callback(Box<dyn ExternalData>),
    None,
}

/// The external data files of one model, each opened once.
pub(super) struct ExternalFiles {
    /// The model's own file, if it is mapped: what is not external lies there.
    pub(super) model: Option<Pages>,
    source: Source,
    open: Mutex<BTreeMap<String, OpenFile>>,
}

#[derive(Clone)]
struct OpenFile {
    mapped: Mapped,
    /// Computed when a checksum is first asked for.
    sha1: Option<String>,
}

impl ExternalFiles {
    /// Files below a folder.
    pub(super) fn folder(folder: PathBuf) -> Self {
        ExternalFiles::new(Source::Folder(folder))
    }

    /// Files that the embedder supplies.
    pub(super) fn callback(data: Box<dyn ExternalData>) -> Self {
        ExternalFiles::new(Source::Callback(data))
    }

    /// No external files.
    pub(super) fn none() -> Self {
        ExternalFiles::new(Source::None)
    }

    fn new(source: Source) -> Self {
        ExternalFiles {
            model: None,
            source,
            open: Mutex::new(BTreeMap::new()),
        }
    }

    /// The `wanted` bytes of a tensor at `range`, shared with the mapped file.
    ///
    /// # Errors
    /// Refused path (Q0106), missing or short file (Q0107), a length that is not `wanted`
    /// (Q0110).
    pub(super) fn bytes(&self, range: &Range, wanted: u64) -> Result<Mapped> {
        let file = self.open(&range.location)?.mapped;
        let size = file.bytes.len() as u64;
        let end = range
            .offset
            .checked_add(range.length.unwrap_or(wanted))
            .filter(|&end| end <= size && range.offset <= size);
        let Some(_) = end else {
            return Err(input(
                error::EXTERNAL_RANGE,
                format!(
                    "external data `{}` has {size} bytes, but the tensor wants {} from offset {}",
                    range.location,
                    range.length.unwrap_or(wanted),
                    range.offset
                ),
            )
            .hint("the data file is cut short or belongs to another model"));
        };
        let length = range.length.unwrap_or(wanted);
        if length != wanted {
            return Err(input(
                error::TENSOR_DATA,
                format!("the dimensions need {wanted} bytes, the external data have {length}"),
            ));
        }
        // Both ends are at most the length of a mapped file, so they fit in usize.
        let start = range.offset as usize;
        Ok(Mapped {
            bytes: file.bytes.slice(start..start + length as usize),
            pages: file.pages,
        })
    }

    /// Compares the SHA-1 of the whole file with the checksum of `range`, if it has one.
    ///
    /// # Errors
    /// As [`ExternalFiles::bytes`], and Q0109 if they differ.
    pub(super) fn verify(&self, range: &Range) -> Result<()> {
        let Some(expected) = &range.checksum else {
            return Ok(());
        };
        let file = self.open(&range.location)?;
        let found = file
            .sha1
            .unwrap_or_else(|| hex(&Sha1::digest(&file.mapped.bytes)));
        if let Some(entry) = self.files().get_mut(&range.location) {
            entry.sha1 = Some(found.clone());
        }
        if *expected == found {
            return Ok(());
        }
        Err(input(
            error::EXTERNAL_SUM,
            format!(
                "external data `{}` has the SHA-1 {found}, the model says {expected}",
                range.location
            ),
        )
        .hint("the data file was changed or belongs to another model"))
    }

    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, OpenFile>> {
        // The map is consistent between any two statements, so a poisoned lock is harmless.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, location: &str) -> Result<OpenFile> {
        if let Some(file) = self.files().get(location) {
            return Ok(file.clone());
        }
        let mapped = match &self.source {
            Source::Folder(folder) => open_below(folder, location)?,
            Source::Callback(data) => match data.file(location) {
                Some(shared) => Bytes::from_owner(Owner(shared)).into(),
                None => return Err(missing(location, "it was not supplied")),
            },
            Source::None => {
                return Err(missing(location, "the model was given without its folder")
                    .hint("give the model as a path, or supply its external data"));
            }
        };
        let file = OpenFile { mapped, sha1: None };
        self.files().insert(location.to_string(), file.clone());
        Ok(file)
    }
}

struct Owner(SharedBytes);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn missing(location: &str, why: &str) -> Diagnostic {
    input(
        error::EXTERNAL_RANGE,
        format!("external data `{location}` cannot be read: {why}"),
    )
}

fn refused(location: &str, why: &str) -> Diagnostic {
    input(
        error::EXTERNAL_PATH,
        format!("external data `{location}` is refused: {why}"),
    )
    .hint("keep data files as plain files in the model's folder or below it")
}

/// Opens and maps a plain file below `folder`.
fn open_below(folder: &Path, location: &str) -> Result<Mapped> {
    let names = plain_names(location)?;
    let file = open_walking(folder, &names).map_err(|errno| open_error(location, errno))?;
    let facts = rustix::fs::fstat(&file).map_err(|errno| open_error(location, errno))?;
    if !rustix::fs::FileType::from_raw_mode(facts.st_mode).is_file() {
        return Err(refused(location, "it is not a regular file"));
    }
    if facts.st_nlink != 1 {
        return Err(refused(location, "the file has other hard links"));
    }
    map(&file).map_err(|e| missing(location, &e.to_string()))
}

/// The components of a location, if all are plain names.
fn plain_names(location: &str) -> Result<Vec<&std::ffi::OsStr>> {
    if location.contains(['\\', '\0']) {
        return Err(refused(location, "it contains a backslash or a zero"));
    }
    let components = Path::new(location).components();
    components
        .map(|component| match component {
            Component::Normal(name) => Ok(name),
            Component::CurDir => Ok(std::ffi::OsStr::new(".")),
            Component::ParentDir => Err(refused(location, "it contains `..`")),
            _ => Err(refused(location, "it is not relative to the model")),
        })
        .filter(|name| !matches!(name, Ok(name) if *name == "."))
        .collect()
}

/// Opens `folder/names…` without ever following a symbolic link below `folder`.
///
/// Each component is opened relative to the one before, so that nobody can exchange a folder
/// for a link between a check and its use; the last without blocking on a FIFO.
fn open_walking(folder: &Path, names: &[&std::ffi::OsStr]) -> Result<File, Errno> {
    let (last, folders) = names.split_last().ok_or(Errno::ISDIR)?;
    let down = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, folder, down, Mode::empty())?;
    for name in folders {
        at = rustix::fs::openat(&at, *name, down | OFlags::NOFOLLOW, Mode::empty())?;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(
        &at,
        *last,
        flags,
        Mode::empty(),
    )?))
}

fn open_error(location: &str, errno: Errno) -> Diagnostic {
    match errno {
        Errno::LOOP | Errno::NOTDIR => refused(location, "a symbolic link or a file is on the way"),
        Errno::ISDIR => refused(location, "it is not a regular file"),
        Errno::NOENT => missing(location, "there is no such file"),
        other => missing(location, &std::io::Error::from(other).to_string()),
    }
}
