//! A pool of threads that runs independent pieces of one op.
//!
//! Work is always cut into the same pieces, whatever the number of threads, and no piece reads
//! what another writes; so results are the same bits for any number of threads.

use qcc_ir::diag::{Class, Diagnostic, Result};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// Threads that programs run on; cheap to clone and to share between programs.
#[derive(Clone, Debug)]
pub struct Threads {
    /// `None` runs on the calling thread.
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Threads {
    /// Runs everything on the calling thread.
    pub fn single() -> Self {
        Threads { pool: None }
    }

    /// A pool of `count` threads; 0 takes one for each processor.
    ///
    /// # Errors
    /// When the operating system refuses the threads.
    pub fn new(count: usize) -> Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        if count == 1 {
            return Ok(Threads::single());
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("qcc-cpu-{i}"))
            .build()
            .map_err(|e| {
                Diagnostic::error(703, Class::Device, format!("{count} threads: {e}"))
                    .hint("ask for fewer threads")
            })?;
        Ok(Threads {
            pool: Some(Arc::new(pool)),
        })
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.pool.as_ref().map_or(1, |p| p.current_num_threads())
    }

    /// Calls `f` with every index below `n`, in any order; the error of the lowest index wins.
    pub(crate) fn each(&self, n: usize, f: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        match &self.pool {
            Some(pool) if n > 1 => pool.install(|| {
                (0..n)
                    .into_par_iter()
                    .map(&f)
                    .reduce(|| Ok(()), |a, b| a.and(b))
            }),
            _ => (0..n).try_for_each(f),
        }
    }

    /// Calls `f` with pieces of `0..n` of `grain` elements, the last one shorter.
    pub(crate) fn ranges(
        &self,
        n: usize,
        grain: usize,
        f: impl Fn(Range<usize>) -> Result<()> + Sync,
    ) -> Result<()> {
        let grain = grain.max(1);
        self.each(n.div_ceil(grain), |i| f(i * grain..n.min((i + 1) * grain)))
    }

    /// Calls `f` with the position and the elements of each piece of `out`, all of `chunk`
    /// elements but the last.
    pub(crate) fn chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        f: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
    ) -> Result<()> {
        let len = out.len();
        let chunk = chunk.max(1);
        let out = Scatter::new(out);
        self.ranges(len, chunk, |r| {
            // SAFETY: `ranges` gives each element to one call only.
            let piece = unsafe { out.slice(r.clone()) }?;
            f(r.start, piece)
        })
    }
}

/// A slice of which several threads write disjoint parts.
pub(crate) struct Scatter<'a, T> {
    ptr: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: all access goes through `slice`, whose caller promises disjoint parts, so sharing a
// `Scatter` is sending pieces of a `&mut [T]`, which is sound for `T: Send`.
unsafe impl<T: Send> Sync for Scatter<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Scatter<'_, T> {}

impl<'a, T> Scatter<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Scatter {
            ptr: slice.as_mut_ptr(),
            len: slice.len(),
            life: PhantomData,
        }
    }

    /// The elements of `r`, to be written.
    ///
    /// # Safety
    /// No two slices that are alive at the same time may overlap.
    ///
    /// # Errors
    /// When `r` reaches past the end.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, r: Range<usize>) -> Result<&mut [T]> {
        if r.start > r.end || r.end > self.len {
            return Err(crate::internal(format!(
                "a piece {r:?} of {} elements",
                self.len
            )));
        }
        // SAFETY: in bounds by the check above; not aliased by the caller's promise; the
        // exclusive borrow of the slice lives as long as `self`.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r.start), r.len()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_visited_once_and_the_first_error_wins() {
        for threads in [Threads::single(), Threads::new(3).unwrap()] {
            let mut v = vec![0u32; 1001];
            threads
                .chunks(&mut v, 10, |at, c| {
                    c.iter_mut()
                        .enumerate()
                        .for_each(|(i, x)| *x += (at + i) as u32);
                    Ok(())
                })
                .unwrap();
            assert!(v.iter().enumerate().all(|(i, x)| *x == i as u32));
            let e = threads.each(100, |i| match i {
                0..40 => Ok(()),
                _ => Err(crate::internal(format!("{i}"))),
            });
            assert_eq!(e.unwrap_err().message(), "40");
        }
    }
}
