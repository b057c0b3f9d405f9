//! Sums of gradients that come to one tensor by several ways.
//!
//! In: a tensor, and who writes gradients. Out: the tensor with their sum.

use crate::scratch::Scratch;
use crate::threads::share_chunks;

/// `sum += other`: two gradients of one tensor, as where a branch leaves a network's main way.
///
/// # Panics
/// If the lengths differ.
pub fn add(sum: &mut [f32], other: &[f32]) {
    assert_eq!(sum.len(), other.len(), "lengths of the gradients");
    share_chunks(sum, crate::ELEMENTS_PER_TASK, |task, sum| {
        let other = &other[task * crate::ELEMENTS_PER_TASK..][..sum.len()];
        add_serial(sum, other);
    });
}

/// [`add`] on the calling thread. It asserts nothing, so that it costs nothing inside a loop: the shorter one ends it.
#[inline]
pub(crate) fn add_serial(sum: &mut [f32], other: &[f32]) {
    debug_assert_eq!(sum.len(), other.len());
    sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
}

/// A sum of gradients.
pub(crate) struct Sum<'a> {
    values: &'a mut [f32],
    begun: bool,
}

impl<'a> Sum<'a> {
    /// With what `values` hold as the first gradient if that has `begun`; else their values do not matter.
    pub(crate) fn new(values: &'a mut [f32], begun: bool) -> Self {
        Self { values, begun }
    }

    /// Length of the tensor.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Adds what `write` writes; the first time that is written in place.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut [f32])) {
        self.add_in_place(|values, begun| {
            if begun {
                let mut part = Scratch::take(values.len());
                write(&mut part);
                add(values, &part);
            } else {
                write(values);
            }
        });
    }

    /// Adds what `write` writes, itself to what is there, where its second argument says that there is something.
    pub(crate) fn add_in_place(&mut self, write: impl FnOnce(&mut [f32], bool)) {
        write(self.values, std::mem::replace(&mut self.begun, true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, same_for_any_thread_count};

    #[test]
    fn sums_of_gradients() {
        let (one, other) = (numbers(1, 40_000), numbers(2, 40_000));
        let expected: Vec<f32> = one.iter().zip(&other).map(|(a, b)| a + b).collect();
        let sum = same_for_any_thread_count(|| {
            let mut sum = one.clone();
            add(&mut sum, &other);
            sum
        });
        assert_eq!(sum, expected);
    }

    #[test]
    fn the_first_gradient_is_written_in_place_unless_something_is_there() {
        for begun in [false, true] {
            let mut values = [f32::NAN, 8.0];
            let mut sum = Sum::new(&mut values[1..], begun);
            sum.add(|to| to.fill(1.0));
            sum.add(|to| to.fill(2.0));
            sum.add_in_place(|to, begun| {
                assert!(begun);
                to[0] += 4.0;
            });
            assert_eq!(values[1], if begun { 15.0 } else { 7.0 });
        }
    }
}
