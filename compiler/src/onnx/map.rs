//! Memory-mapped files as shared bytes.

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::Mmap;

/// Maps a whole regular file for reading.
///
/// # Errors
/// What the operating system reports.
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is private and read-only and lives as long as the returned bytes. As
    // with every memory-mapped file, nobody may shorten or rewrite it meanwhile; the
    // documentation of `Model::open` passes that duty on to the caller.
    let mapping = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(mapping))
}
