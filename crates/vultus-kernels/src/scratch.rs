//! Scratch memory that threads keep, so that no kernel allocates a large buffer in every call.
//!
//! In: a length. Out: a slice, aligned to a cache line, with arbitrary but initialised contents, given back to its
//! thread when dropped. It does not share memory between threads and never shrinks.
//!
//! Built with `--cfg fuzzing` nothing is kept: every slice is NaN in memory of its own, so that results show what is read unwritten.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::aligned::Aligned;

thread_local! {
    static KEPT: RefCell<Vec<Aligned>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed scratch slice. Of the buffers that are free the smallest that is large enough is taken: a kernel that
/// runs again gets the same buffers again.
pub(crate) struct Scratch(Aligned);

impl Scratch {
    /// Takes a buffer of `length` elements; what they hold is left over from earlier use.
    pub(crate) fn take(length: usize) -> Self {
        if cfg!(fuzzing) {
            return Self(Aligned::filled(length, f32::NAN));
        }
        let free = KEPT.try_with(|kept| free(&mut kept.borrow_mut(), length));
        let mut buffer = free.ok().flatten().unwrap_or_default();
        buffer.set_length(length);
        Self(buffer)
    }

    /// Takes a buffer of `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut scratch = Self::take(length);
        scratch.fill(0.0);
        scratch
    }
}

/// The smallest kept buffer with room for `length` numbers, or else the largest.
fn free(kept: &mut Vec<Aligned>, length: usize) -> Option<Aligned> {
    let fits = (0..kept.len()).filter(|&index| kept[index].capacity() >= length);
    let index = fits.min_by_key(|&index| kept[index].capacity());
    let index = index.or_else(|| (0..kept.len()).max_by_key(|&index| kept[index].capacity()))?;
    Some(kept.swap_remove(index))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if cfg!(fuzzing) {
            return;
        }
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no store any more; the buffer is then simply freed.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(buffer));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_aligned_and_have_the_length_asked_for() {
        let address = {
            let mut scratch = Scratch::take(100);
            scratch.fill(7.0);
            scratch.as_ptr()
        };
        assert_eq!(address as usize % 64, 0);
        let again = Scratch::take(60);
        assert_eq!(again.as_ptr(), address);
        assert_eq!(again.len(), 60);
        assert!(again.iter().all(|&value| value == 7.0));
        let second = Scratch::zeros(100);
        assert_ne!(second.as_ptr(), address);
        assert!(second.iter().all(|&value| value == 0.0));
    }

    #[test]
    fn the_smallest_buffer_that_fits_is_taken() {
        let (large, small) = (Scratch::take(5000), Scratch::take(40));
        let (large_address, small_address) = (large.as_ptr(), small.as_ptr());
        drop(small);
        drop(large);
        assert_eq!(Scratch::take(33).as_ptr(), small_address);
        assert_eq!(Scratch::take(700).as_ptr(), large_address);
    }
}
