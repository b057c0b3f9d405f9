//! Scratch memory that threads keep, so that no kernel allocates a large buffer in every call.
//!
//! In: a length. Out: a slice, aligned to a cache line, with arbitrary but initialised contents, given back to its
//! thread when dropped. It does not share memory between threads and never shrinks.
//!
//! Built with `--cfg fuzzing`, as `cargo fuzz` does, nothing is kept: every slice is NaN in memory of its own, and ends
//! where that ends. A sanitizer then sees what is read or written past the end, and results what is read unwritten.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Numbers of one cache line.
const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

thread_local! {
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A slice that begins at a cache line. Owned, for what a caller keeps between calls.
#[derive(Clone)]
pub(crate) struct Aligned {
    buffer: Vec<Line>,
    length: usize,
}

impl Aligned {
    /// `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        Self { buffer: vec![Line([0.0; LINE]); length.div_ceil(LINE)], length }
    }

    /// Numbers of the buffer in front of the slice.
    fn skipped(&self) -> usize {
        if cfg!(fuzzing) { self.buffer.len() * LINE - self.length } else { 0 }
    }
}

/// A borrowed scratch slice. Of the buffers that are free the smallest that is large enough is taken: a kernel that
/// runs again gets the same buffers again.
pub(crate) struct Scratch(Aligned);

impl Scratch {
    /// Takes a buffer of `length` elements; what they hold is left over from earlier use.
    pub(crate) fn take(length: usize) -> Self {
        let lines = length.div_ceil(LINE);
        if cfg!(fuzzing) {
            return Self(Aligned { buffer: vec![Line([f32::NAN; LINE]); lines], length });
        }
        let mut buffer = KEPT.try_with(|kept| free(&mut kept.borrow_mut(), lines)).ok().flatten().unwrap_or_default();
        if buffer.len() < lines {
            buffer.clear();
            buffer.resize(lines, Line([0.0; LINE]));
        }
        Self(Aligned { buffer, length })
    }

    /// Takes a buffer of `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut scratch = Self::take(length);
        scratch.fill(0.0);
        scratch
    }
}

/// The smallest kept buffer of at least `lines` lines, or else the largest.
fn free(kept: &mut Vec<Vec<Line>>, lines: usize) -> Option<Vec<Line>> {
    let fits = (0..kept.len()).filter(|&index| kept[index].len() >= lines).min_by_key(|&index| kept[index].len());
    let index = fits.or_else(|| (0..kept.len()).max_by_key(|&index| kept[index].len()))?;
    Some(kept.swap_remove(index))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if cfg!(fuzzing) {
            return;
        }
        let buffer = std::mem::take(&mut self.0.buffer);
        // A thread that is ending has no store any more; the buffer is then simply freed.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(buffer));
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are `LINE` numbers each without padding (64 bytes, as aligned), all initialised, and there
        // are at least `length` numbers of them (see where they are made) after those skipped.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast::<f32>().add(self.skipped()), self.length) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `deref`; the buffer is borrowed mutably with `self`.
        unsafe {
            std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast::<f32>().add(self.skipped()), self.length)
        }
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
