//! Where many kernels run one after the other: on a thread of rayon's pool.
//!
//! In: work that calls kernels. Out: what it returns. A kernel that is called from any other thread hands its tasks to the
//! pool and sleeps until they are done, which costs more than a small kernel itself; inside the pool its own thread takes
//! the first task and, with others idle, all of them.

use std::sync::{Mutex, TryLockError};

/// Held by the work that is inside the pool.
static INSIDE: Mutex<()> = Mutex::new(());

/// Does `work` on a thread of rayon's global pool, or where it is called if that is in a pool already.
///
/// One piece of work at a time goes inside; others stay on the threads that call. A thread of the pool that waits for a
/// part of its work takes up what else there is, and with many pieces inside it would begin one in the middle of another,
/// and so on, until its stack is full.
pub fn enter<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    let _inside = match INSIDE.try_lock() {
        Ok(guard) => guard,
        // Work that panicked has left the pool.
        Err(TryLockError::Poisoned(error)) => error.into_inner(),
        Err(TryLockError::WouldBlock) => return work(),
    };
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_inside_and_one_piece_at_a_time() {
        let (inside, nested, beside) = enter(|| {
            let beside = std::thread::scope(|scope| scope.spawn(|| enter(rayon::current_thread_index)).join().unwrap());
            (rayon::current_thread_index(), enter(rayon::current_thread_index), beside)
        });
        assert!(inside.is_some());
        assert_eq!(inside, nested);
        assert_eq!(beside, None);
        // A panic reaches the caller and keeps nobody out.
        assert!(std::panic::catch_unwind(|| enter(|| panic!("as asked"))).is_err());
        assert!(enter(rayon::current_thread_index).is_some());
    }
}
