//! Writes header, entries and hashes to a stream, in file order and without seeking.
//!
//! All sizes are declared before the first byte, so the header can go out first; contents are
//! given entry by entry in any number of pieces, and nothing but the hash rows is kept.

use qcc_ir::diag::Result;
use std::io::{self, Write};

use super::error::misfit;
use super::hash::{self, ROW, Root, RowBuilder};
use super::header::Header;
use super::{HASHES, PAD};

/// Zeros for fillers, which are shorter than a page.
const ZEROS: [u8; 4096] = [0; 4096];

/// Why a piece could not be written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The stream failed.
    Io(io::Error),
    /// The piece does not fit what was declared.
    Misfit(qcc_ir::Diagnostic),
}

impl From<io::Error> for WriteError {
    fn from(e: io::Error) -> Self {
        WriteError::Io(e)
    }
}

/// Sizes of a file before it is written.
pub(super) struct Layout {
    header: Header,
    head: Vec<u8>,
}

impl Layout {
    /// Ends the list of entries with the hashes, and fixes every offset.
    pub(super) fn new(mut header: Header) -> Result<Self> {
        // The number of rows depends on the header's length, which depends on the number of
        // digits of the number of rows. Each is monotone in the other, so this ends.
        let data = header.clone();
        let mut rows = 0;
        loop {
            header.clone_from(&data);
            header.push(HASHES, "U8", vec![rows + 1, ROW], (rows + 1) * ROW)?;
            let head = header.to_bytes()?;
            let needed = count_rows(head.len() as u64, &header);
            if needed == rows {
                return Ok(Layout { header, head });
            }
            rows = needed;
        }
    }

    /// Length of the whole file.
    pub(super) fn file_len(&self) -> u64 {
        self.head.len() as u64 + self.header.data_len()
    }
}

/// Hash rows of a file: the chunks of the header and of all entries but the hashes.
pub(super) fn count_rows(head_len: u64, header: &Header) -> u64 {
    let data = header.entries.iter().filter(|e| e.name != HASHES);
    hash::chunks(head_len) + data.map(|e| hash::chunks(e.len())).sum::<u64>()
}

/// A file on its way out.
pub(super) struct Container<W> {
    out: W,
    header: Header,
    rows: RowBuilder,
    entry: usize,
    filled: u64,
}

impl<W: Write> Container<W> {
    /// Writes the header.
    pub(super) fn start(mut out: W, layout: Layout) -> io::Result<Self> {
        let mut rows = RowBuilder::default();
        out.write_all(&layout.head)?;
        rows.update(&layout.head);
        rows.end_region();
        Ok(Container {
            out,
            header: layout.header,
            rows,
            entry: 0,
            filled: 0,
        })
    }

    /// Writes the next bytes of the entry `name`. Entries come in file order; one begins when
    /// the one before it is complete.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(i) = self
            .header
            .entries
            .iter()
            .skip(self.entry)
            .position(|e| e.name == name)
        else {
            let text = format!("`{name}` was not declared, or is complete already");
            return Err(WriteError::Misfit(misfit(text)));
        };
        self.advance_to(self.entry + i)?;
        let room = self.header.entries[self.entry].len() - self.filled;
        if bytes.len() as u64 > room {
            let text = format!(
                "`{name}` got {} bytes more than declared",
                bytes.len() as u64 - room
            );
            return Err(WriteError::Misfit(misfit(text)));
        }
        self.put(bytes)?;
        Ok(())
    }

    /// Writes the hashes and hands back the stream.
    pub(super) fn finish(mut self) -> Result<(W, Root), WriteError> {
        // The hashes are the last entry, see `Layout::new`.
        self.advance_to(self.header.entries.len() - 1)?;
        let rows = self.rows.into_rows();
        let root = Root::of_rows(&rows);
        self.out.write_all(&rows)?;
        self.out.write_all(&root.0)?;
        Ok((self.out, root))
    }

    /// Completes fillers and empty entries up to the entry with that index.
    fn advance_to(&mut self, target: usize) -> Result<(), WriteError> {
        while self.entry < target {
            let e = &self.header.entries[self.entry];
            let missing = e.len() - self.filled;
            if missing > 0 && !e.name.starts_with(PAD) {
                let text = format!("`{}` lacks {missing} of its {} bytes", e.name, e.len());
                return Err(WriteError::Misfit(misfit(text)));
            }
            self.put(&ZEROS[..missing as usize])?;
            self.rows.end_region();
            self.entry += 1;
            self.filled = 0;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.rows.update(bytes);
        self.filled += bytes.len() as u64;
        Ok(())
    }
}
