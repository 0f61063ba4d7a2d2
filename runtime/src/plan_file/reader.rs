//! Opening a plan: nothing is used before it was checked.
//!
//! The order of the checks makes the errors clear: what kind of file it is, its format version,
//! its layout and length, the root of the hashes, the manifest, then every entry but the
//! weights. Weights are checked at open ([`Verify::Full`]) or each before its first use
//! ([`Verify::Lazy`]).

use qcc_ir::diag::Result;
use qcc_ir::ledger::Ledger;
use qcc_ir::plan::{Plan, WeightEntry};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::archive::Archive;
use super::bytes::{AlignedBytes, Backing};
use super::error::{cannot_read, contradicts, malformed, not_a_plan, over_limit};
use super::hash::Root;
use super::writer::stored_as;
use super::{HASHES, LEDGER, MANIFEST, MAX_JSON};

/// When the weights are checked against their hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Verify {
    /// All of them when the plan is opened.
    Full,
    /// Each before its first use.
    #[default]
    Lazy,
}

/// One entry of a plan file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryInfo<'a> {
    /// Name of the tensor.
    pub name: &'a str,
    /// Element type, as safetensors calls it.
    pub dtype: &'a str,
    /// Dimensions.
    pub shape: &'a [u64],
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// An open plan file.
pub struct PlanFile {
    archive: Archive,
    plan: Plan,
    /// Which entries have been found to fit their hashes.
    checked: Vec<AtomicBool>,
    place: String,
}

impl PlanFile {
    /// Maps a plan file and checks it.
    ///
    /// While it is open, the file may be replaced by another or removed, but must not be changed
    /// in place.
    ///
    /// # Errors
    /// `Q0400` if it cannot be read, `Q0401` if it is no plan, `Q0402` if it is cut or too long,
    /// `Q0403` if bytes are damaged, `Q0404` for another major version, `Q0405`, `Q0407` and
    /// `Q0408` for contents that are malformed, too large or contradictory.
    pub fn open(path: impl AsRef<Path>, verify: Verify) -> Result<Self> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let file = File::open(path).map_err(|e| cannot_read(path, &e))?;
        let meta = file.metadata().map_err(|e| cannot_read(path, &e))?;
        if !meta.is_file() {
            return Err(not_a_plan("it is no regular file").at(place));
        }
        if meta.len() == 0 {
            return Err(not_a_plan("it is empty").at(place));
        }
        let bytes = Backing::map(&file).map_err(|e| cannot_read(path, &e))?;
        PlanFile::check(bytes, place, verify)
    }

    /// Opens a plan whose bytes are in memory.
    ///
    /// # Errors
    /// As [`PlanFile::open`].
    pub fn from_bytes(bytes: AlignedBytes, verify: Verify) -> Result<Self> {
        PlanFile::check(Backing::Memory(bytes), "plan in memory".to_string(), verify)
    }

    fn check(bytes: Backing, place: String, verify: Verify) -> Result<Self> {
        let checked = Archive::new(bytes).and_then(|archive| {
            let plan = read_manifest(&archive)?;
            let checked = check_entries(&archive, &plan, verify)?;
            check_references(&archive, &plan)?;
            Ok((archive, plan, checked))
        });
        let (archive, plan, checked) = checked.map_err(|d| d.or_at(&place))?;
        Ok(PlanFile {
            archive,
            plan,
            checked,
            place,
        })
    }

    /// The manifest.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The hash over the whole file.
    pub fn root(&self) -> Root {
        self.archive.root()
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.archive.file_len()
    }

    /// The decisions of the compiler.
    ///
    /// # Errors
    /// `Q0405` if the entry is no ledger.
    pub fn ledger(&self) -> Result<Ledger> {
        let bytes = json_entry(&self.archive, LEDGER)?;
        serde_json::from_slice(bytes).map_err(|e| malformed(format!("ledger: {e}")).at(&self.place))
    }

    /// The text of an entry: a module or the PTX of kernels.
    ///
    /// # Errors
    /// `Q0408` if the plan has no such entry, `Q0405` if it is not UTF-8.
    pub fn text(&self, entry: &str) -> Result<&str> {
        text(&self.archive, entry).map_err(|d| d.or_at(&self.place))
    }

    /// The bytes of a weight, checked against their hashes the first time. They start at a
    /// multiple of 64 bytes.
    ///
    /// # Errors
    /// `Q0408` if the plan has no such entry, `Q0403` if the bytes are damaged.
    pub fn weight(&self, weight: &WeightEntry) -> Result<&[u8]> {
        let place = |d: qcc_ir::Diagnostic| d.or_at(&self.place);
        let i = self.archive.find(&weight.entry).map_err(place)?;
        // Two threads may both check; the flag only says that a check has succeeded.
        if !self.checked[i].load(Ordering::Acquire) {
            self.archive.check_entry(i).map_err(place)?;
            self.checked[i].store(true, Ordering::Release);
        }
        Ok(self.archive.entry_bytes(i))
    }

    /// All entries in file order, fillers and hashes included.
    pub fn entries(&self) -> impl Iterator<Item = EntryInfo<'_>> {
        let entries = self.archive.entries().iter().enumerate();
        entries.map(|(i, e)| EntryInfo {
            name: &e.name,
            dtype: &e.info.dtype,
            shape: &e.info.shape,
            offset: self.archive.offset(i),
            bytes: e.len(),
        })
    }
}

/// Shows what is open, not its bytes.
impl fmt::Debug for PlanFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanFile")
            .field("place", &self.place)
            .field("bytes", &self.file_len())
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}

fn read_manifest(archive: &Archive) -> Result<Plan> {
    archive.check_entry(archive.find(MANIFEST)?)?;
    let plan: Plan = serde_json::from_slice(json_entry(archive, MANIFEST)?)
        .map_err(|e| malformed(format!("manifest: {e}")))?;
    if archive.version() != Some(&plan.format.to_string()) {
        return Err(contradicts(
            "header and manifest name different format versions",
        ));
    }
    Ok(plan)
}

/// Checks every entry, or every entry but the weights; tells which were checked.
fn check_entries(archive: &Archive, plan: &Plan, verify: Verify) -> Result<Vec<AtomicBool>> {
    let later: BTreeSet<&str> = match verify {
        Verify::Full => BTreeSet::new(),
        Verify::Lazy => plan.weights.iter().map(|w| w.entry.as_str()).collect(),
    };
    let mut checked = Vec::with_capacity(archive.entries().len());
    for (i, e) in archive.entries().iter().enumerate() {
        // The hashes have no row of their own: the root covers them.
        let now = e.name != HASHES && !later.contains(e.name.as_str());
        if now {
            archive.check_entry(i)?;
        }
        checked.push(AtomicBool::new(now));
    }
    Ok(checked)
}

/// Checks that each entry that the manifest names is there and is what the manifest says.
fn check_references(archive: &Archive, plan: &Plan) -> Result<()> {
    plan.validate()?;
    archive.find(LEDGER)?;
    for name in plan.text_entries() {
        text(archive, name)?;
    }
    for w in &plan.weights {
        let e = &archive.entries()[archive.find(&w.entry)?];
        let (dtype, shape) = stored_as(w);
        if (e.info.dtype.as_str(), &e.info.shape, e.len()) != (dtype, &shape, w.bytes) {
            return Err(contradicts(format!(
                "entry `{}` is {}{:?} of {} bytes, the manifest says {dtype}{shape:?} of {}",
                e.name,
                e.info.dtype,
                e.info.shape,
                e.len(),
                w.bytes
            )));
        }
    }
    Ok(())
}

fn text<'a>(archive: &'a Archive, entry: &str) -> Result<&'a str> {
    let bytes = archive.entry_bytes(archive.find(entry)?);
    std::str::from_utf8(bytes).map_err(|_| malformed(format!("`{entry}` is not UTF-8")))
}

fn json_entry<'a>(archive: &'a Archive, name: &str) -> Result<&'a [u8]> {
    let bytes = archive.entry_bytes(archive.find(name)?);
    if bytes.len() as u64 > MAX_JSON {
        return Err(over_limit(name, bytes.len() as u64, MAX_JSON));
    }
    Ok(bytes)
}
