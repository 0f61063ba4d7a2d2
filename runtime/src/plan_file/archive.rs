//! A plan file as entries of bytes: kind, version, length, layout and hashes.
//!
//! What [`Archive::new`] accepts has a sound layout, the root of its hash rows fits, and so does
//! its header; each entry is checked against its rows by [`Archive::check_entry`].

use qcc_ir::diag::Result;
use qcc_ir::plan::FormatVersion;
use std::collections::BTreeMap;

use super::bytes::Backing;
use super::container::count_rows;
use super::error::{contradicts, damaged, malformed, not_a_plan, other_version, wrong_length};
use super::hash::{self, ROW, Root, check_region};
use super::header::{Entry, Header, PREFIX};
use super::{HASHES, MAX_HEADER, VERSION_KEY};

pub(super) struct Archive {
    bytes: Backing,
    header: Header,
    data_start: u64,
    index: BTreeMap<String, usize>,
    /// First hash row of each entry.
    rows: Vec<u64>,
    root: Root,
}

impl Archive {
    pub(super) fn new(bytes: Backing) -> Result<Self> {
        let (header, data_start) = read_header(&bytes)?;
        let mut rows = Vec::with_capacity(header.entries.len());
        let mut next = hash::chunks(data_start);
        for e in &header.entries {
            rows.push(next);
            next = next.saturating_add(hash::chunks(e.len()));
        }
        let names = header.entries.iter().enumerate();
        let mut archive = Archive {
            index: names.map(|(i, e)| (e.name.clone(), i)).collect(),
            bytes,
            header,
            data_start,
            rows,
            root: Root([0; 32]),
        };
        archive.root = archive.check_root()?;
        archive.check_region_at("header", &archive.bytes[..data_start as usize], 0, 0)?;
        Ok(archive)
    }

    /// The entries in file order.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.header.entries
    }

    /// The format version in the header, as text.
    pub(super) fn version(&self) -> Option<&str> {
        self.header.metadata.get(VERSION_KEY).map(String::as_str)
    }

    pub(super) fn root(&self) -> Root {
        self.root
    }

    pub(super) fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Offset in the file of the entry with that index.
    pub(super) fn offset(&self, i: usize) -> u64 {
        self.data_start + self.header.entries[i].begin()
    }

    /// Index of the entry of that name.
    pub(super) fn find(&self, entry: &str) -> Result<usize> {
        let found = self.index.get(entry).copied();
        found.ok_or_else(|| contradicts(format!("it has no entry `{entry}`")))
    }

    /// The bytes of an entry, checked or not; `read_header` saw that they lie within the file.
    pub(super) fn entry_bytes(&self, i: usize) -> &[u8] {
        let e = &self.header.entries[i];
        let at = |offset: u64| (self.data_start + offset) as usize;
        &self.bytes[at(e.begin())..at(e.end())]
    }

    /// Compares an entry with its hash rows.
    pub(super) fn check_entry(&self, i: usize) -> Result<()> {
        let name = &self.header.entries[i].name;
        self.check_region_at(name, self.entry_bytes(i), self.rows[i], self.offset(i))
    }

    fn check_region_at(&self, name: &str, bytes: &[u8], row: u64, offset: u64) -> Result<()> {
        // `hash_rows` has as many rows as all regions have chunks.
        let rows = self.hash_rows()?.get((row * ROW) as usize..);
        check_region(bytes, rows.unwrap_or(&[])).map_err(|at| damaged(name, offset + at))
    }

    /// Compares the hash rows with their root, which is their last row.
    fn check_root(&self) -> Result<Root> {
        let rows = self.hash_rows()?;
        let (rows, stored) = rows.split_at(rows.len() - ROW as usize);
        let root = Root::of_rows(rows);
        if root.0 != *stored {
            return Err(damaged(HASHES, self.file_len() - ROW));
        }
        Ok(root)
    }

    /// The last entry, which must have one row for each chunk and one for the root.
    fn hash_rows(&self) -> Result<&[u8]> {
        let expected = count_rows(self.data_start, &self.header).saturating_add(1);
        let last = self.header.entries.iter().enumerate().next_back();
        match last {
            Some((i, e)) if e.name == HASHES && Some(e.len()) == expected.checked_mul(ROW) => {
                Ok(self.entry_bytes(i))
            }
            _ => Err(malformed(format!(
                "`{HASHES}` must come last and have {expected} rows"
            ))),
        }
    }
}

/// Checks kind, version, layout and length; gives the header and the offset of the data.
fn read_header(bytes: &[u8]) -> Result<(Header, u64)> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<{ PREFIX as usize }>() else {
        return Err(not_a_plan("it is too short"));
    };
    let len = u64::from_le_bytes(*prefix);
    if rest.first().is_some_and(|b| *b != b'{') || len > MAX_HEADER {
        return Err(not_a_plan("it does not begin with a safetensors header"));
    }
    let found = bytes.len() as u64;
    let Some(json) = rest.get(..len as usize) else {
        return Err(wrong_length(PREFIX + len, found));
    };
    let header = Header::parse(json)?;
    check_version(&header)?;
    header.check_layout()?;
    let data_start = PREFIX + len;
    match data_start.checked_add(header.data_len()) {
        Some(promised) if promised == found => Ok((header, data_start)),
        promised => Err(wrong_length(promised.unwrap_or(u64::MAX), found)),
    }
}

fn check_version(header: &Header) -> Result<()> {
    let Some(text) = header.metadata.get(VERSION_KEY) else {
        return Err(not_a_plan(
            "it is a safetensors file that qcc did not write",
        ));
    };
    let version: FormatVersion = text.parse().map_err(malformed)?;
    if version.major != FormatVersion::CURRENT.major {
        return Err(other_version(version));
    }
    Ok(())
}
