//! One tile on its way through a transform.
//!
//! In: a square of pixels that may reach over the picture's edge. Out: its vectors at each point.

use std::mem::MaybeUninit;

use crate::convolution::transform::{MOST_POINTS, Side, ToPoints};
use crate::simd::{Lanes, PANEL};

/// Addresses of the pixels of a square that may reach over the picture's edge; those outside are `zeros`.
///
/// # Safety
/// `image` is `[height, width, channels]`, and `zeros` holds a row of channels.
#[expect(clippy::too_many_arguments, reason = "a picture, a place and a size")]
#[inline(always)]
pub(super) unsafe fn pixels(
    image: *const f32,
    height: usize,
    width: usize,
    channels: usize,
    row: isize,
    column: isize,
    side: usize,
    zeros: *const f32,
) -> [[*const f32; MOST_POINTS]; MOST_POINTS] {
    let mut addresses = [[zeros; MOST_POINTS]; MOST_POINTS];
    let inside = row >= 0 && column >= 0 && row as usize + side <= height && column as usize + side <= width;
    for (i, line) in addresses.iter_mut().enumerate().take(side) {
        let y = row + i as isize;
        if !inside && (y < 0 || y as usize >= height) {
            continue;
        }
        for (j, address) in line.iter_mut().enumerate().take(side) {
            let x = column + j as isize;
            if inside || (x >= 0 && (x as usize) < width) {
                // SAFETY: the pixel is inside the picture.
                *address = unsafe { image.add((y as usize * width + x as usize) * channels) };
            }
        }
    }
    addresses
}

/// Where the transformed vectors of a tile go.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Channel 0 at point 0.
    pub(super) to: *mut f32,
    /// Numbers from one point to the next.
    pub(super) point: usize,
    /// Numbers from a run of [`PANEL`] channels to the next.
    pub(super) panel: usize,
    /// Numbers from one tile to the next.
    pub(super) tile: usize,
}

impl Layout {
    #[inline(always)]
    fn at(self, point: usize, channel: usize) -> *mut f32 {
        self.to.wrapping_add(point * self.point + channel / PANEL * self.panel + channel % PANEL)
    }
}

/// A tile's vectors, transformed along its columns. It begins unset: setting all of it to zero would cost as much as a
/// transform.
pub(super) struct Columns<L>([[MaybeUninit<L>; MOST_POINTS]; MOST_POINTS]);

impl<L: Lanes> Columns<L> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self([const { [const { MaybeUninit::uninit() }; MOST_POINTS] }; MOST_POINTS])
    }

    /// Column `j`, of which the first `count` vectors are kept.
    #[inline(always)]
    pub(super) fn set(&mut self, j: usize, column: &Side<L>, count: usize) {
        for i in 0..count {
            self.0[j][i].write(column[i]);
        }
    }

    /// The first `count` vectors of row `i`; the others are zero.
    ///
    /// # Safety
    /// The first `count` columns were set, with more than `i` vectors each.
    #[inline(always)]
    pub(super) unsafe fn row(&self, i: usize, count: usize) -> Side<L> {
        let mut row = [L::splat(0.0); MOST_POINTS];
        for j in 0..count {
            // SAFETY: by contract it was written.
            row[j] = unsafe { self.0[j][i].assume_init() };
        }
        row
    }
}

/// Transforms a square of pixels, vector by vector, along both axes. `layout` says where the vectors go; channels beyond the
/// last are zero. While one vector is transformed, what the next one reads and writes is on its way: each of its numbers lies in
/// a line of its own, too many for the processor to guess.
///
/// # Safety
/// Every address is valid for reads of `channels` numbers, and the layout for writes of them, rounded up to whole vectors,
/// at each point.
#[inline(always)]
pub(super) unsafe fn transform_pixels<T: ToPoints, L: Lanes>(
    addresses: &[[*const f32; MOST_POINTS]; MOST_POINTS],
    channels: usize,
    layout: Layout,
) {
    let mut first = 0;
    while first < channels {
        let whole = first + L::WIDTH <= channels;
        let last = first + L::WIDTH >= channels;
        // Whether what comes next lies in other lines of the cache than this: exactly so where channels fill whole panels.
        let ahead = last || (first + L::WIDTH).is_multiple_of(PANEL);
        let mut columns = Columns::new();
        for j in 0..T::SIDE {
            let mut column = [L::splat(0.0); MOST_POINTS];
            for i in 0..T::SIDE {
                // SAFETY: `channels` numbers can be read at each address, by contract.
                column[i] = unsafe {
                    let from = addresses[i][j].add(first);
                    if ahead {
                        L::prefetch(from.wrapping_add(L::WIDTH));
                    }
                    if whole { L::load(from) } else { L::load_some(from, channels - first) }
                };
            }
            columns.set(j, &T::apply(&column), T::POINTS);
        }
        for i in 0..T::POINTS {
            // SAFETY: `SIDE` columns of `POINTS` vectors were set.
            let row = T::apply(&unsafe { columns.row(i, T::SIDE) });
            for (j, &value) in row.iter().enumerate().take(T::POINTS) {
                let point = i * T::POINTS + j;
                if ahead {
                    let next = if last {
                        layout.at(point, 0).wrapping_add(layout.tile)
                    } else {
                        layout.at(point, first + L::WIDTH)
                    };
                    L::prefetch(next);
                }
                // SAFETY: by this function's contract.
                unsafe { value.store(layout.at(point, first)) }
            }
        }
        first += L::WIDTH;
    }
}
