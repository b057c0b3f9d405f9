//! One row of a depthwise convolution: sums over the taps of a window, and what each tap adds up over a row.
//!
//! In: a row's number and an image. Out: the row, or sums of products for each weight. Rows of all images are numbered
//! through.

use super::axis::{Axis, Run};
use crate::simd::{Kernel, Lanes};

/// Which numbers of an image meet in a row: the same for forward and back.
#[derive(Debug)]
pub(super) struct Geometry {
    rows: Axis,
    columns: Axis,
    runs: Vec<Run>,
    channels: usize,
}

/// One weight of each channel, and what it is multiplied by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    /// Place of the first channel's weight.
    weight: usize,
    /// Place of the first channel of the pixel that it reads, for the first of a run.
    from: usize,
}

impl Geometry {
    pub(super) fn new(rows: Axis, columns: Axis, channels: usize) -> Self {
        Self { rows, columns, runs: columns.runs(), channels }
    }

    /// Numbers of a row that is written.
    pub(super) fn to_line(&self) -> usize {
        self.columns.to * self.channels
    }

    pub(super) fn weight_len(&self) -> usize {
        self.rows.kernel * self.columns.kernel * self.channels
    }

    /// Rows that make up about `length` numbers.
    pub(super) fn rows_of(&self, length: usize) -> usize {
        length.div_ceil(self.to_line().max(1))
    }

    /// The image that a row is computed from.
    pub(super) fn image_under<'a>(&self, row: usize, from: &'a [f32]) -> &'a [f32] {
        let image = self.rows.from * self.columns.from * self.channels;
        &from[row / self.rows.to * image..][..image]
    }

    /// Puts the taps of a run of `row` into `taps`, and makes sure that all they reach lies inside a row of
    /// [`Geometry::to_line`] numbers, weights of [`Geometry::weight_len`], and an image of `image` numbers.
    fn reach(&self, row: usize, run: &Run, image: usize, taps: &mut Vec<Tap>) {
        let (channels, width, kernel) = (self.channels, self.columns.from, self.columns.kernel);
        let (to_step, from_step) = self.columns.steps();
        taps.clear();
        for (i, from_row) in self.rows.taps(row % self.rows.to) {
            taps.extend(run.taps.iter().map(|&(j, column)| Tap {
                weight: (i * kernel + j) * channels,
                from: (from_row * width + column) * channels,
            }));
        }
        let last = (run.count - 1) * from_step * channels;
        assert!(taps.iter().all(|tap| tap.from + last + channels <= image));
        assert!(taps.iter().all(|tap| tap.weight + channels <= self.weight_len()));
        assert!(run.first + (run.count - 1) * to_step < self.columns.to);
    }
}

/// A vector of channels, `count` of them where it is not `WHOLE`.
///
/// # Safety
/// As many numbers can be read.
#[inline(always)]
unsafe fn load<L: Lanes, const WHOLE: bool>(from: *const f32, count: usize) -> L {
    // SAFETY: by this function's contract.
    unsafe { if WHOLE { L::load(from) } else { L::load_some(from, count) } }
}

/// One row as sums over its taps.
pub(super) struct Line<'a> {
    pub(super) geometry: &'a Geometry,
    /// Its number.
    pub(super) row: usize,
    /// `[kernel, kernel, channels]`.
    pub(super) weight: &'a [f32],
    /// `[channels]`.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
    /// The image below.
    pub(super) from: &'a [f32],
    /// Room for the taps of a run.
    pub(super) taps: &'a mut Vec<Tap>,
    /// The row.
    pub(super) to: &'a mut [f32],
}

impl Kernel for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { geometry, row, weight, bias, relu, from, taps, to } = self;
        let channels = geometry.channels;
        assert!(to.len() == geometry.to_line() && weight.len() == geometry.weight_len());
        assert!(bias.is_none_or(|bias| bias.len() == channels));
        let (to_step, from_step) = geometry.columns.steps();
        let (to_step, from_step) = (to_step * channels, from_step * channels);
        for run in &geometry.runs {
            geometry.reach(row, run, from.len(), taps);
            let mut done = 0;
            while done < run.count {
                // SAFETY: pixels `done` up to below `count` of the run lie inside the row, and what its taps reach inside the
                // image: `reach` and the assertions above have made sure of it. Without taps `from` may lie outside, and nothing
                // is read from it.
                let tile = unsafe {
                    Tile {
                        channels,
                        taps: taps.as_slice(),
                        weight: weight.as_ptr(),
                        bias: bias.map(<[f32]>::as_ptr),
                        floor: L::splat(if relu { 0.0 } else { f32::NEG_INFINITY }),
                        from: from.as_ptr().wrapping_add(done * from_step),
                        from_step,
                        to: to.as_mut_ptr().add(run.first * channels + done * to_step),
                        to_step,
                    }
                };
                // SAFETY: as above; as many pixels are left as are computed.
                done += unsafe {
                    match run.count - done {
                        6.. => tile.pixels::<6>(),
                        4.. => tile.pixels::<4>(),
                        2.. => tile.pixels::<2>(),
                        _ => tile.pixels::<1>(),
                    }
                };
            }
        }
    }
}

/// Some pixels of a run. The addresses are those of the first channel; who makes one vouches for them.
struct Tile<'a, L> {
    channels: usize,
    taps: &'a [Tap],
    weight: *const f32,
    bias: Option<*const f32>,
    floor: L,
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
}

impl<L: Lanes> Tile<'_, L> {
    /// Computes `PIXELS` pixels and gives their number.
    ///
    /// # Safety
    /// So many pixels can be read by every tap, and written.
    #[inline(always)]
    unsafe fn pixels<const PIXELS: usize>(&self) -> usize {
        let whole = self.channels / L::WIDTH * L::WIDTH;
        // SAFETY: vectors from `first` on hold no more than the channels from there on.
        unsafe {
            for first in (0..whole).step_by(L::WIDTH) {
                self.vector::<PIXELS, true>(first, L::WIDTH);
            }
            if whole < self.channels {
                self.vector::<PIXELS, false>(whole, self.channels - whole);
            }
        }
        PIXELS
    }

    /// `count` channels from `first` on.
    ///
    /// # Safety
    /// As for [`Tile::pixels`], and the pixels have so many channels.
    #[inline(always)]
    unsafe fn vector<const PIXELS: usize, const WHOLE: bool>(&self, first: usize, count: usize) {
        // SAFETY: by this function's contract.
        unsafe {
            let start = self.bias.map_or(L::splat(0.0), |bias| load::<L, WHOLE>(bias.add(first), count));
            let mut sums = [start; PIXELS];
            for tap in self.taps {
                let weight = load::<L, WHOLE>(self.weight.add(tap.weight + first), count);
                let from = self.from.add(tap.from + first);
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    *sum = load::<L, WHOLE>(from.add(pixel * self.from_step), count).mul_add(weight, *sum);
                }
            }
            for (pixel, sum) in sums.into_iter().enumerate() {
                let (sum, to) = (sum.at_least(self.floor), self.to.add(pixel * self.to_step + first));
                if WHOLE {
                    sum.store(to);
                } else {
                    sum.store_some(to, count);
                }
            }
        }
    }
}

/// What one row of outputs adds to the gradient of the weights.
pub(super) struct Gradient<'a> {
    /// Forward.
    pub(super) geometry: &'a Geometry,
    /// The row's number.
    pub(super) row: usize,
    /// The image below.
    pub(super) x: &'a [f32],
    /// Gradient of the row.
    pub(super) dy: &'a [f32],
    /// Room for the taps of a run.
    pub(super) taps: &'a mut Vec<Tap>,
    /// `[kernel, kernel, channels]`, added to.
    pub(super) sums: &'a mut [f32],
}

impl Kernel for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { geometry, row, x, dy, taps, sums } = self;
        let channels = geometry.channels;
        assert!(dy.len() == geometry.to_line() && sums.len() == geometry.weight_len());
        let (to_step, from_step) = geometry.columns.steps();
        for run in &geometry.runs {
            geometry.reach(row, run, x.len(), taps);
            let stretch = Stretch {
                channels,
                count: run.count,
                x: x.as_ptr(),
                x_step: from_step * channels,
                dy: dy[run.first * channels..].as_ptr(),
                dy_step: to_step * channels,
                sums: sums.as_mut_ptr(),
            };
            let mut left = taps.as_slice();
            while !left.is_empty() {
                // SAFETY: all pixels of the run, and its taps, lie inside the slices: `reach` and the assertions above have
                // made sure of it; as many taps are there as are asked for.
                let done = unsafe {
                    match left.len() {
                        9.. => stretch.taps::<L, 9>(left),
                        3.. => stretch.taps::<L, 3>(left),
                        _ => stretch.taps::<L, 1>(left),
                    }
                };
                left = &left[done..];
            }
        }
    }
}

/// All pixels of a run. The addresses are those of the first channel; who makes one vouches for them.
struct Stretch {
    channels: usize,
    count: usize,
    x: *const f32,
    x_step: usize,
    dy: *const f32,
    dy_step: usize,
    sums: *mut f32,
}

impl Stretch {
    /// Adds up the products of the first `TAPS` taps, kept in registers, and gives their number.
    ///
    /// # Safety
    /// There are so many taps, and every pixel and weight that they reach can be read and written.
    #[inline(always)]
    unsafe fn taps<L: Lanes, const TAPS: usize>(&self, taps: &[Tap]) -> usize {
        let whole = self.channels / L::WIDTH * L::WIDTH;
        // SAFETY: vectors from `first` on hold no more than the channels from there on.
        unsafe {
            for first in (0..whole).step_by(L::WIDTH) {
                self.vector::<L, TAPS, true>(taps, first, L::WIDTH);
            }
            if whole < self.channels {
                self.vector::<L, TAPS, false>(taps, whole, self.channels - whole);
            }
        }
        TAPS
    }

    /// `count` channels from `first` on.
    ///
    /// # Safety
    /// As for [`Stretch::taps`], and the pixels have so many channels.
    #[inline(always)]
    unsafe fn vector<L: Lanes, const TAPS: usize, const WHOLE: bool>(&self, taps: &[Tap], first: usize, count: usize) {
        // SAFETY: by this function's contract.
        unsafe {
            let mut sums = [L::splat(0.0); TAPS];
            let mut from = [self.x; TAPS];
            for ((sum, from), tap) in sums.iter_mut().zip(&mut from).zip(taps) {
                *sum = load::<L, WHOLE>(self.sums.add(tap.weight + first), count);
                *from = self.x.add(tap.from + first);
            }
            for pixel in 0..self.count {
                let gradient = load::<L, WHOLE>(self.dy.add(pixel * self.dy_step + first), count);
                for (sum, from) in sums.iter_mut().zip(&from) {
                    *sum = load::<L, WHOLE>(from.add(pixel * self.x_step), count).mul_add(gradient, *sum);
                }
            }
            for (sum, tap) in sums.into_iter().zip(taps) {
                let to = self.sums.add(tap.weight + first);
                if WHOLE {
                    sum.store(to);
                } else {
                    sum.store_some(to, count);
                }
            }
        }
    }
}
