//! Scratch memory that threads keep, so that no kernel allocates a large buffer per image.
//!
//! In: a length. Out: a slice with arbitrary but initialised contents, given back to its thread when dropped. It does
//! not share memory between threads and never shrinks.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A borrowed scratch slice. Taken last, given back first: a kernel that runs again gets the same buffers again.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    length: usize,
}

impl Scratch {
    /// Takes a buffer of `length` elements; what they hold is left over from earlier use.
    pub(crate) fn take(length: usize) -> Self {
        let mut buffer = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten().unwrap_or_default();
        if buffer.len() < length {
            buffer.clear();
            buffer.resize(length, 0.0);
        }
        Self { buffer, length }
    }

    /// Takes a buffer of `length` zeros.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut scratch = Self::take(length);
        scratch.fill(0.0);
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is ending has no store any more; the buffer is then simply freed.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(buffer));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.length]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_have_the_length_asked_for() {
        let address = {
            let mut scratch = Scratch::take(100);
            scratch.fill(7.0);
            scratch.as_ptr()
        };
        let again = Scratch::take(60);
        assert_eq!(again.as_ptr(), address);
        assert_eq!(again.len(), 60);
        assert!(again.iter().all(|&value| value == 7.0));
        let second = Scratch::zeros(100);
        assert_ne!(second.as_ptr(), address);
        assert!(second.iter().all(|&value| value == 0.0));
    }
}
