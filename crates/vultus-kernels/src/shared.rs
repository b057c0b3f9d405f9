//! A destination that parallel tasks write disjoint parts of.

use std::marker::PhantomData;

/// The start of a mutably borrowed slice, handed to tasks that each write their own elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    length: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is only used through `at`, by unsafe code which promises that no two tasks touch the same element
// at a time.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `slice` for as long as it stays borrowed.
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), borrowed: PhantomData }
    }

    /// The address of element `offset`, which may be one past the end.
    ///
    /// # Panics
    /// If it lies beyond.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        assert!(offset <= self.length);
        self.start.wrapping_add(offset)
    }
}
