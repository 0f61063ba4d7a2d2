//! Memory-mapped files as shared bytes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

/// A file in memory.
#[derive(Clone)]
pub(super) struct Mapped {
    pub(super) bytes: Bytes,
    /// None of bytes that are not mapped.
    pub(super) pages: Option<Pages>,
}

impl From<Bytes> for Mapped {
    fn from(bytes: Bytes) -> Self {
        Mapped { bytes, pages: None }
    }
}

/// The pages of a mapped file. Those that were read count as memory of the process until they are
/// given back, although the system could take them at any time.
#[derive(Clone)]
pub(super) struct Pages(Arc<Mmap>);

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Pages {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Pages {}

impl Pages {
    /// Gives back the pages of a part of the file; whoever reads it again gets them again. Nothing
    /// happens to bytes that are no part of the file.
    pub(super) fn release(&self, part: &[u8]) {
        let at = (part.as_ptr() as usize).checked_sub(self.0.as_ptr() as usize);
        let inside = |at: &usize| {
            at.checked_add(part.len())
                .is_some_and(|e| e <= self.0.len())
        };
        let Some(at) = at.filter(inside) else {
            return;
        };
        #[cfg(unix)]
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is of a file, private and never written, so that its bytes are
            // those of the file again whenever they are read next. Whether the system follows
            // the advice changes nothing but its accounts.
            let _ = unsafe { self.0.unchecked_advise_range(advice, at, part.len()) };
        }
    }
}

/// Maps a whole regular file for reading.
///
/// # Errors
/// What the operating system reports.
pub(super) fn map(file: &File) -> io::Result<Mapped> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new().into());
    }
    // SAFETY: the mapping is private and read-only and lives as long as the returned bytes. As
    // with every memory-mapped file, nobody may shorten or rewrite it meanwhile; the
    // documentation of `Model::open` passes that duty on to the caller.
    let pages = Pages(Arc::new(unsafe { Mmap::map(file)? }));
    Ok(Mapped {
        bytes: Bytes::from_owner(pages.clone()),
        pages: Some(pages),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn released_bytes_are_read_again() {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mapped = map(&file).unwrap();
        assert_eq!(mapped.bytes, content);
        let pages = mapped.pages.unwrap();
        pages.release(&mapped.bytes[5000..60_000]);
        pages.release(&mapped.bytes[..0]);
        pages.release(&content);
        assert_eq!(mapped.bytes, content);
        assert!(content[251] == 0 && content[252] == 1);
    }
}
