//! Mean and variance of channels, of rows that come as a whole or in parts.
//!
//! In: `[rows, channels]`. Out: both of each channel. Rows are counted task by task, around a value near each task's mean, and
//! the tasks joined in a fixed order, so that neither the number of threads nor a far mean changes the result.

use super::{GROUP, NormShape, store_sums};
use crate::scratch::Scratch;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;
use crate::threads::share_chunks;

/// Channels whose tasks are joined together: they lie side by side, and one need not wait for another.
const TOGETHER: usize = 16;

/// Mean and biased variance of each channel of `x` `[rows, channels]`; both results are `[channels]`, overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn statistics(shape: &NormShape, x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    assert_eq!(x.len(), shape.len(), "length of x");
    assert_eq!(mean.len(), shape.channels, "length of mean");
    assert_eq!(variance.len(), shape.channels, "length of variance");
    if shape.is_empty() {
        mean.fill(0.0);
        variance.fill(0.0);
        return;
    }
    let mut statistics = Statistics::new(InstructionSet::best(), shape.channels, shape.task_rows(), shape.rows, 1);
    statistics.add(x);
    statistics.finish(mean, variance);
}

/// Mean and variance of rows that come in parts.
pub(crate) struct Statistics {
    set: InstructionSet,
    channels: usize,
    task_rows: usize,
    /// What [`Sums`] found in each task's rows, which stay in the cache between its two passes; room for all tasks.
    sums: Scratch,
    /// Rows of each task.
    counts: Vec<usize>,
}

impl Statistics {
    /// For `rows` rows in at most so many `parts`; each part is cut into tasks of `task_rows` rows.
    pub(crate) fn new(set: InstructionSet, channels: usize, task_rows: usize, rows: usize, parts: usize) -> Self {
        // Each part may leave a task that is not full.
        let tasks = rows / task_rows.max(1) + parts;
        let sums = Scratch::take(elements([tasks, 3, channels]));
        Self { set, channels, task_rows, sums, counts: Vec::with_capacity(tasks) }
    }

    /// Takes in the rows of `x`.
    ///
    /// # Panics
    /// If there are more of them than were announced.
    pub(crate) fn add(&mut self, x: &[f32]) {
        let (set, channels, numbers) = (self.set, self.channels, self.task_rows * self.channels);
        let known = self.counts.len() * 3 * channels;
        self.counts.extend(x.chunks(numbers).map(|x| x.len() / channels));
        let sums = &mut self.sums[known..self.counts.len() * 3 * channels];
        share_chunks(sums, 3 * channels, |task, sums| {
            let x = &x[task * numbers..x.len().min((task + 1) * numbers)];
            set.run(Sums { channels, x, sums });
        });
    }

    /// Both of each channel, overwritten.
    pub(crate) fn finish(&self, mean: &mut [f32], variance: &mut [f32]) {
        assert_eq!(mean.len(), self.channels, "length of mean");
        assert_eq!(variance.len(), self.channels, "length of variance");
        join_statistics(self.counts.iter().copied(), &self.sums, mean, variance);
    }

    /// The means of each task's rows, `[tasks, channels]`, overwritten.
    pub(crate) fn task_means(&self, means: &mut [f32]) {
        let channels = self.channels;
        assert_eq!(means.len(), self.counts.len() * channels, "length of the means");
        let tasks = means.chunks_exact_mut(channels).zip(self.sums.chunks_exact(3 * channels)).zip(&self.counts);
        for ((means, sums), &count) in tasks {
            let (near, differences) = sums[..2 * channels].split_at(channels);
            let share = 1.0 / count as f32;
            means.iter_mut().zip(near).zip(differences).for_each(|((mean, near), sum)| *mean = near + sum * share);
        }
    }
}

/// Mean and biased variance from what [`Sums`] found in rows of these counts, by Chan's formula, in a fixed order.
pub(crate) fn join_statistics(
    counts: impl Iterator<Item = usize> + Clone,
    partial: &[f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    let channels = mean.len();
    let results = mean.chunks_mut(TOGETHER).zip(variance.chunks_mut(TOGETHER));
    for (group, (mean, variance)) in results.enumerate() {
        let (first, here) = (group * TOGETHER, mean.len());
        let (mut count, mut centre, mut squares) = (0.0, [0.0; TOGETHER], [0.0; TOGETHER]);
        for (more, sums) in counts.clone().zip(partial.chunks_exact(3 * channels)) {
            let more = more as f64;
            let (of_one, pace, weight) = (1.0 / more, more / (count + more), count * more / (count + more));
            let row = |kind: usize| &sums[kind * channels + first..][..here];
            let sums = row(0).iter().zip(row(1)).zip(row(2));
            for (((&shift, &sum), &sum_of_squares), (centre, joined)) in
                sums.zip(centre.iter_mut().zip(squares.iter_mut()))
            {
                let [shift, sum, sum_of_squares] = [f64::from(shift), f64::from(sum), f64::from(sum_of_squares)];
                let (task_mean, task_squares) = (shift + sum * of_one, sum_of_squares - sum * sum * of_one);
                let difference = task_mean - *centre;
                *joined += task_squares + difference * difference * weight;
                *centre += difference * pace;
            }
            count += more;
        }
        for (channel, (mean, variance)) in mean.iter_mut().zip(variance).enumerate() {
            *mean = centre[channel] as f32;
            // Rounding may leave a constant channel a hair below zero; NaN stays.
            let value = squares[channel] / count;
            *variance = if value < 0.0 { 0.0 } else { value as f32 };
        }
    }
}

/// Makes one result of [`Sums`] out of several, of `counts` rows each.
pub(crate) fn merge_sums(counts: impl Iterator<Item = usize> + Clone, partial: &[f32], merged: &mut [f32]) {
    let channels = merged.len() / 3;
    let total = counts.clone().sum::<usize>() as f64;
    for channel in 0..channels {
        let parts = || {
            let sums = partial.chunks_exact(3 * channels);
            sums.map(move |sums| [0, 1, 2].map(|kind| f64::from(sums[kind * channels + channel])))
        };
        let mean =
            parts().zip(counts.clone()).map(|([near, sum, _], count)| near * count as f64 + sum).sum::<f64>() / total;
        let shift = mean as f32;
        merged[channel] = shift;
        merged[channels + channel] = ((mean - f64::from(shift)) * total) as f32;
        // Around another centre: sum (x - s)^2 = sum (x - n)^2 + 2 (n - s) sum (x - n) + count (n - s)^2.
        let squares = parts().zip(counts.clone()).map(|([near, sum, squares], count)| {
            let step = near - f64::from(shift);
            squares + 2.0 * step * sum + count as f64 * step * step
        });
        merged[2 * channels + channel] = squares.sum::<f64>() as f32;
    }
}

/// Of some rows: a value near each channel's mean, the sum of the differences from it, and that of their squares.
pub(crate) struct Sums<'a> {
    pub(crate) channels: usize,
    pub(crate) x: &'a [f32],
    /// `[3, channels]`, overwritten.
    pub(crate) sums: &'a mut [f32],
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (channels, rows) = (self.channels, self.x.len() / self.channels);
        assert_eq!(self.sums.len(), 3 * channels);
        let share = 1.0 / rows as f32;
        for first in (0..channels).step_by(GROUP * L::WIDTH) {
            let mut mean = [L::splat(0.0); GROUP];
            let mut sums = [[L::splat(0.0); 2]; GROUP];
            // SAFETY: rows of `channels` numbers are read inside `x`, and three of them written inside `sums`.
            unsafe {
                for row in 0..rows {
                    let x = self.x.as_ptr().add(row * channels);
                    for (v, mean) in mean.iter_mut().enumerate() {
                        *mean = mean.add(L::load_padded(x, first + v * L::WIDTH, channels));
                    }
                }
                for mean in &mut mean {
                    *mean = mean.times(share);
                }
                for row in 0..rows {
                    let x = self.x.as_ptr().add(row * channels);
                    for v in 0..GROUP {
                        let value = L::load_padded(x, first + v * L::WIDTH, channels).sub(mean[v]);
                        sums[v][0] = sums[v][0].add(value);
                        sums[v][1] = value.mul_add(value, sums[v][1]);
                    }
                }
                let means = self.sums.as_mut_ptr();
                for (v, mean) in mean.iter().enumerate() {
                    if first + v * L::WIDTH < channels {
                        mean.store_within(means, first + v * L::WIDTH, channels);
                    }
                }
                store_sums(&sums, means.add(channels), first, channels);
            }
        }
    }
}
