//! Whole pictures in parallel.
//!
//! In: items and what to do with each. Out: the results, in order. The threads are not those of rayon: a thread of
//! rayon's that waits for a part of one picture may begin with another picture in the meantime, and so on, until its
//! stack is full. Here every thread has one picture at a time, and memory has one a thread. There are as many threads as
//! rayon has.

use std::sync::{Mutex, PoisonError};

/// Applies `work` to all `items`.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = rayon::current_num_threads().min(items.len());
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let worker = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, item)) = next else { return };
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread, those that there are do all of it.
            let _ = std::thread::Builder::new().spawn_scoped(scope, worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_order_whatever_takes_long() {
        let slow = |number: u64| {
            std::thread::sleep(std::time::Duration::from_micros(500 * (7 - number % 7)));
            number * number
        };
        let results = super::map((0..50).collect(), slow);
        assert_eq!(results, (0..50).map(|number| number * number).collect::<Vec<_>>());
        assert!(super::map(Vec::new(), slow).is_empty());
    }
}
