//! Chunk hashes and their root.
//!
//! `rows = H(chunk 0) ‖ H(chunk 1) ‖ …`, `root = K(rows)`, with H the BLAKE3 hash and K the
//! BLAKE3 key derivation of a fixed context, so that a root is never taken for a chunk's hash.
//! A region of length 0 has no chunks; a chunk never crosses from one region into the next.

use std::fmt;

/// Bytes of a chunk; the last one of a region may be shorter.
pub(super) const CHUNK: u64 = 1 << 20;
/// Bytes of a hash.
pub(super) const ROW: u64 = 32;

const ROOT_CONTEXT: &str = "qcc plan file, format 1, root of the chunk hashes";

/// The hash over all of a plan file: equal for equal files.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root(pub [u8; 32]);

impl Root {
    pub(super) fn of_rows(rows: &[u8]) -> Self {
        Root(blake3::derive_key(ROOT_CONTEXT, rows))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({self})")
    }
}

/// How many chunks a region of that length has.
pub(super) fn chunks(len: u64) -> u64 {
    len.div_ceil(CHUNK)
}

/// Hashes regions as they are written.
#[derive(Default)]
pub(super) struct RowBuilder {
    rows: Vec<u8>,
    current: blake3::Hasher,
    filled: u64,
}

impl RowBuilder {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(CHUNK - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.filled += now.len() as u64;
            if self.filled == CHUNK {
                self.end_chunk();
            }
            bytes = later;
        }
    }

    /// Ends the region: what follows begins a new chunk.
    pub(super) fn end_region(&mut self) {
        if self.filled > 0 {
            self.end_chunk();
        }
    }

    fn end_chunk(&mut self) {
        self.rows
            .extend_from_slice(self.current.finalize().as_bytes());
        self.current.reset();
        self.filled = 0;
    }

    pub(super) fn into_rows(self) -> Vec<u8> {
        self.rows
    }
}

/// Checks a region against its rows: `Err(offset in the region)` of the first chunk that fails.
pub(super) fn check_region(bytes: &[u8], rows: &[u8]) -> Result<(), u64> {
    let mut rows = rows.chunks_exact(ROW as usize);
    for (i, chunk) in bytes.chunks(CHUNK as usize).enumerate() {
        if rows.next() != Some(blake3::hash(chunk).as_bytes()) {
            return Err(i as u64 * CHUNK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(regions: &[&[u8]], step: usize) -> Vec<u8> {
        let mut b = RowBuilder::default();
        for r in regions {
            r.chunks(step).for_each(|c| b.update(c));
            b.end_region();
        }
        b.into_rows()
    }

    #[test]
    fn rows_do_not_depend_on_the_pieces_written() {
        let a = vec![7u8; 2 * CHUNK as usize + 5];
        let regions: [&[u8]; 4] = [&a, &[], &a[..CHUNK as usize], b"x"];
        let whole = rows(&regions, usize::MAX);
        assert_eq!(whole.len() as u64, (3 + 1 + 1) * ROW);
        assert_eq!(whole, rows(&regions, 4097));
        assert_eq!(check_region(&a, &whole[..96]), Ok(()));
    }

    #[test]
    fn a_changed_byte_is_found_in_its_chunk() {
        let mut a = vec![7u8; 3 * CHUNK as usize];
        let good = rows(&[&a], usize::MAX);
        a[CHUNK as usize + 1] ^= 1;
        assert_eq!(check_region(&a, &good), Err(CHUNK));
        assert_eq!(check_region(&a, &good[..32]), Err(CHUNK));
    }
}
