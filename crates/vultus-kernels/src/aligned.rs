//! Memory for numbers that begins at a cache line, so that no vector of a pixel lies in two of them.
//!
//! In: a length. Out: as many zeros, to write over.
//!
//! Built with `--cfg fuzzing`, as `cargo fuzz` does, the numbers end where the memory ends, so that a sanitizer sees what is read or
//! written past the end.

use std::ops::{Deref, DerefMut};

/// Numbers of one cache line.
const LINE: usize = 16;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// A slice that begins at a cache line.
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    buffer: Vec<Line>,
    length: usize,
}

impl Aligned {
    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        Self::filled(length, 0.0)
    }

    /// `length` numbers of one value.
    pub(crate) fn filled(length: usize, value: f32) -> Self {
        Self { buffer: vec![Line([value; LINE]); length.div_ceil(LINE)], length }
    }

    /// How many numbers there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.len() * LINE
    }

    /// Makes it `length` numbers, zeros or left over from earlier: what was there may be lost.
    pub fn set_length(&mut self, length: usize) {
        if self.capacity() < length {
            *self = Self::default(); // gives the old memory back first
            *self = Self::zeros(length);
        }
        self.length = length;
    }

    /// Numbers of the buffer in front of the slice.
    fn skipped(&self) -> usize {
        if cfg!(fuzzing) { self.capacity() - self.length } else { 0 }
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
