//! Replacing a file as a whole: temporary file beside it, sync, rename, sync of the folder.
//!
//! Whatever fails, and wherever the process dies, the target is either the old file or the
//! complete new one. A temporary file that a killed process left behind is taken over by the
//! next writer of the same target: its owner held a lock that died with it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file operations that writing a plan needs; a test puts failures in their place.
pub(super) trait Disk {
    type File: Write;
    /// Makes an empty file beside the target that no other writer uses.
    fn create_beside(&self, target: &Path) -> io::Result<(PathBuf, Self::File)>;
    /// Forces the contents to the disk.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Puts the file in the place of the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Forces the names in a folder to the disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a file, as far as possible.
    fn remove(&self, path: &Path);
}

/// The operating system's files.
#[derive(Clone, Copy)]
pub(super) struct OsDisk;

/// How many writers may write the same target at a time.
const MAX_WRITERS: u32 = 1000;

impl Disk for OsDisk {
    type File = File;

    fn create_beside(&self, target: &Path) -> io::Result<(PathBuf, File)> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        for i in 0..MAX_WRITERS {
            let mut temp = OsString::from(".");
            temp.push(name);
            temp.push(format!(".{i}.tmp"));
            let path = target.with_file_name(temp);
            if let Some(file) = take(&path)? {
                return Ok((path, file));
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) {
        // A file that stays behind is taken over by the next writer.
        let _ = std::fs::remove_file(path);
    }
}

/// Creates the file, or takes over one that nobody holds; `None` if a writer holds it.
fn take(path: &Path) -> io::Result<Option<File>> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    let file = match created {
        Ok(file) => file,
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Err(_) => match std::fs::symlink_metadata(path) {
            Ok(m) if m.is_file() => match OpenOptions::new().write(true).open(path) {
                Ok(file) => file,
                Err(_) => return Ok(None),
            },
            _ => return Ok(None),
        },
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    // Before the lock was ours, its owner may have renamed the file to the target.
    if !is_at(&file, path)? {
        return Ok(None);
    }
    file.set_len(0)?;
    Ok(Some(file))
}

/// Whether the open file is the one that the path names.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    Ok(std::fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

/// Elsewhere an open file cannot be renamed away by another process.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// A file that appears at its target all at once, or not at all.
pub(super) struct AtomicFile<D: Disk> {
    disk: D,
    target: PathBuf,
    temp: PathBuf,
    file: Option<D::File>,
}

impl<D: Disk> AtomicFile<D> {
    pub(super) fn create(disk: D, target: &Path) -> io::Result<Self> {
        let (temp, file) = disk.create_beside(target)?;
        Ok(AtomicFile {
            disk,
            target: target.to_path_buf(),
            temp,
            file: Some(file),
        })
    }

    /// Puts the file in the place of its target.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut() else {
            return Ok(());
        };
        file.flush()?;
        self.disk.sync(file)?;
        self.disk.rename(&self.temp, &self.target)?;
        // Renamed: from here on there is nothing to remove.
        self.file = None;
        let dir = match self.target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        self.disk.sync_dir(dir)
    }
}

impl<D: Disk> Write for AtomicFile<D> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |f| f.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl<D: Disk> Drop for AtomicFile<D> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // While the lock is still held, so that no other writer's file is removed.
            self.disk.remove(&self.temp);
        }
    }
}
