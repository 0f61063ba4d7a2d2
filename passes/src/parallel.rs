//! Independent pieces of work on several threads. Results stay in order, and the pieces are the
//! same for any number of threads, so they do not show it.

/// `work` on each piece, neighbouring pieces on one thread.
pub(crate) fn map<I: Sync, T: Send>(
    pieces: &[I],
    threads: usize,
    work: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    consume(pieces.iter().collect(), threads, work)
}

/// As [`map`] of pieces that are given away.
pub(crate) fn consume<I: Send, T: Send>(
    pieces: Vec<I>,
    threads: usize,
    work: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    let share = pieces.len().div_ceil(threads.max(1)).max(1);
    let work = &work;
    let mut pieces = pieces.into_iter();
    std::thread::scope(|s| {
        let part = || Some(pieces.by_ref().take(share).collect::<Vec<I>>());
        let threads: Vec<_> = std::iter::from_fn(part)
            .take_while(|part| !part.is_empty())
            .map(|part| s.spawn(move || part.into_iter().map(work).collect::<Vec<T>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_stay_in_order() {
        let pieces: Vec<usize> = (0..7).collect();
        for threads in [0, 1, 3, 20] {
            let doubled = super::map(&pieces, threads, |p| 2 * p);
            assert_eq!(doubled, [0, 2, 4, 6, 8, 10, 12], "{threads} threads");
        }
        assert!(super::map(&[], 2, |p: &usize| *p).is_empty());
    }
}
