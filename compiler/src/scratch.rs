//! A temporary file for what a compilation cannot hold in memory.
//!
//! The file is made when something is first kept. It has no name: it is gone when the process ends,
//! however it ends. Space that is no longer needed is used again by what has the same length
//! (activations of one value do).

use qcc_ir::diag::{Class, Diagnostic, Result};
use qcc_ir::graph::WeightBytes;
use qcc_passes::Spill;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The file.
#[derive(Debug)]
pub(crate) struct Scratch(Arc<Mutex<Space>>);

#[derive(Debug)]
struct Space {
    folder: PathBuf,
    file: Option<File>,
    end: u64,
    /// Beginnings of unused pieces by their length.
    free: BTreeMap<u64, Vec<u64>>,
}

/// Bytes in the file.
#[derive(Debug)]
struct Piece {
    space: Arc<Mutex<Space>>,
    at: u64,
    len: u64,
}

impl Scratch {
    /// A file in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Scratch(Arc::new(Mutex::new(Space {
            folder: folder.to_path_buf(),
            file: None,
            end: 0,
            free: BTreeMap::new(),
        })))
    }
}

impl Space {
    /// The file at a place.
    fn seek(&mut self, at: u64) -> std::io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.folder)?,
        };
        let file = self.file.insert(file);
        file.seek(SeekFrom::Start(at))?;
        Ok(file)
    }
}

fn lock(space: &Mutex<Space>) -> MutexGuard<'_, Space> {
    space.lock().unwrap_or_else(|e| e.into_inner())
}

fn failed(e: &std::io::Error) -> Diagnostic {
    let message = format!("the temporary file beside the plan failed: {e}");
    Diagnostic::error(13, Class::Input, message)
        .hint("give the plan a folder with more space, or raise --max-memory")
}

impl Spill for Scratch {
    fn keep(&self, bytes: &[u8]) -> Result<Arc<dyn WeightBytes>> {
        let len = bytes.len() as u64;
        let mut space = lock(&self.0);
        let at = match space.free.get_mut(&len).and_then(Vec::pop) {
            Some(at) => at,
            None => {
                space.end += len;
                space.end - len
            }
        };
        let written = space.seek(at).and_then(|f| f.write_all(bytes));
        written.map_err(|e| failed(&e))?;
        drop(space);
        Ok(Arc::new(Piece {
            space: self.0.clone(),
            at,
            len,
        }))
    }
}

impl WeightBytes for Piece {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        // INVARIANT: bytes of this length were in memory once.
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        let mut space = lock(&self.space);
        let read = space.seek(self.at).and_then(|f| f.read_exact(&mut bytes));
        read.map_err(|e| failed(&e))?;
        Ok(Cow::Owned(bytes))
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut space = lock(&self.space);
        space.free.entry(self.len).or_default().push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_space_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(folder.path());
        let a = scratch.keep(&[1, 2, 3]).unwrap();
        let b = scratch.keep(&[4; 5]).unwrap();
        assert_eq!(
            (&*a.bytes().unwrap(), &*b.bytes().unwrap()),
            (&[1, 2, 3][..], &[4; 5][..])
        );
        drop(a);
        let c = scratch.keep(&[6, 7, 8]).unwrap();
        assert_eq!(lock(&scratch.0).end, 8);
        drop(scratch);
        assert_eq!(
            (&*b.bytes().unwrap(), &*c.bytes().unwrap()),
            (&[4; 5][..], &[6, 7, 8][..])
        );
        // No name is left behind.
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let scratch = Scratch::new(Path::new("/nonexistent/folder"));
        let e = scratch.keep(&[1]).unwrap_err();
        assert_eq!(e.code(), "Q0013");
    }
}
