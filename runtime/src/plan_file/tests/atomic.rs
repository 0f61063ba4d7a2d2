//! Disks that fail at every possible moment: the target is the old file or the new one.

use super::*;
use crate::plan_file::disk::{Disk, OsDisk};
use crate::plan_file::writer::{create_on, finish_on};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What happens from the chosen call on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// That one call fails.
    Error,
    /// The process is gone: neither it nor any later call has an effect.
    Death,
}

#[derive(Clone)]
struct FaultyDisk {
    fault: Fault,
    at: usize,
    calls: Rc<Cell<usize>>,
}

impl FaultyDisk {
    fn call<T>(&self, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let n = self.calls.get();
        self.calls.set(n + 1);
        match self.fault {
            Fault::Error if n == self.at => Err(io::ErrorKind::StorageFull.into()),
            Fault::Death if n >= self.at => Err(io::ErrorKind::Other.into()),
            _ => run(),
        }
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    file: File,
}

impl Write for FaultyFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Short writes, so that faults also hit between the pieces of one buffer.
        let short = &buf[..buf.len().min(4000)];
        let FaultyFile { disk, file } = self;
        disk.call(|| file.write(short))
    }

    fn flush(&mut self) -> io::Result<()> {
        let FaultyFile { disk, file } = self;
        disk.call(|| file.flush())
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn create_beside(&self, target: &Path) -> io::Result<(PathBuf, FaultyFile)> {
        let (path, file) = self.call(|| OsDisk.create_beside(target))?;
        let disk = self.clone();
        Ok((path, FaultyFile { disk, file }))
    }

    fn sync(&self, file: &mut FaultyFile) -> io::Result<()> {
        self.call(|| OsDisk.sync(&mut file.file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|| OsDisk.rename(from, to))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(|| OsDisk.sync_dir(dir))
    }

    fn remove(&self, path: &Path) {
        if self.fault != Fault::Death {
            OsDisk.remove(path);
        }
    }
}

fn write_on<D: Disk>(disk: D, path: &Path, sample: &Sample) -> Result<()> {
    let mut stream = create_on(disk, path, &sample.contents())?;
    for w in &sample.plan.weights {
        stream.write(&w.entry, &sample.weight_bytes(&w.entry))?;
    }
    finish_on(stream).map(|_| ())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let name = |e: io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

fn fail_at_every_call(fault: Fault) {
    let (old, new) = (Sample::new(3).file(usize::MAX), Sample::new(40));
    let new_bytes = new.file(usize::MAX);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qplan");
    for at in 0.. {
        std::fs::write(&path, &old).unwrap();
        let calls = Rc::new(Cell::new(0));
        let disk = FaultyDisk {
            fault,
            at,
            calls: calls.clone(),
        };
        let Err(d) = write_on(disk, &path, &new) else {
            assert!(at > 20, "only {at} calls were tried");
            assert_eq!(names(dir.path()), ["a.qplan"]);
            break;
        };
        assert_eq!(d.code(), "Q0409");
        assert!(
            d.message()
                .contains(&format!("({} bytes)", new_bytes.len())),
            "{d}"
        );
        let left = std::fs::read(&path).unwrap();
        // The last call syncs the folder: by then the new file is in place.
        assert!(
            left == old || (left == new_bytes && calls.get() == at + 1),
            "call {at}"
        );
        if fault == Fault::Error {
            assert_eq!(names(dir.path()), ["a.qplan"]);
        }
    }
    write_on(OsDisk, &path, &new).unwrap();
    assert_eq!(names(dir.path()), ["a.qplan"]);
    assert_eq!(std::fs::read(&path).unwrap(), new_bytes);
}

#[test]
fn an_error_at_any_call_leaves_the_old_file_and_nothing_else() {
    fail_at_every_call(Fault::Error);
}

#[test]
fn death_at_any_call_leaves_the_old_file_and_the_next_writer_cleans_up() {
    fail_at_every_call(Fault::Death);
}

#[test]
fn two_writers_do_not_mix() {
    let (a, b) = (Sample::new(20), Sample::new(30));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.qplan");
    let first = create_on(OsDisk, &path, &a.contents()).unwrap();
    write_on(OsDisk, &path, &b).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b.file(usize::MAX));
    let mut first = first;
    for w in &a.plan.weights {
        first.write(&w.entry, &a.weight_bytes(&w.entry)).unwrap();
    }
    finish_on(first).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), a.file(usize::MAX));
    assert_eq!(names(dir.path()), ["a.qplan"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_replaced_not_followed() {
    let sample = Sample::new(2);
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.qplan"), dir.path().join("other"));
    std::fs::write(&other, b"precious").unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    std::os::unix::fs::symlink(&other, dir.path().join(".a.qplan.0.tmp")).unwrap();
    write_on(OsDisk, &path, &sample).unwrap();
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    assert_eq!(std::fs::read(&path).unwrap(), sample.file(usize::MAX));
}

#[test]
fn a_folder_that_is_not_there_is_a_typed_error() {
    let sample = Sample::new(2);
    let dir = tempfile::tempdir().unwrap();
    let d = write_on(OsDisk, &dir.path().join("none/a.qplan"), &sample).unwrap_err();
    assert_eq!(d.code(), "Q0409");
    assert!(d.place().is_some_and(|p| p.ends_with("a.qplan")));
}
