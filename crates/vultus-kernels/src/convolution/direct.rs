//! Convolutions of any kernel, stride and padding, straight from the definition.
//!
//! In: images `[batch, height, width, channels]` and packed weights. Out: images, or the gradient of the weights. The
//! channels of a row of the kernel lie side by side in memory, so that a kernel of h rows is h runs of numbers; where
//! it reaches over the edge, a band of the picture is first copied into a frame of zeros. The gradient of the input
//! with stride s is s^2 such convolutions, one for each row and column modulo s, with the weights that meet there.
//! Pictures of one channel, which the first layer sees, have loops of their own in `grey`.

use super::ConvolutionShape;
use super::grey::GreyBand;
use super::winograd::Finish;
use crate::panel::{load_line, pack, tile_panels, tile_rows, with_few_rows, with_rows};
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::{InstructionSet, Kernel, Lanes, PANEL};
use crate::sizes::elements;
use crate::threads::{share, share_chunks};
use crate::transpose::Transpose;

pub(super) use weight_gradient::{DirectSums, add_weight_gradient};

mod weight_gradient;

/// Pixels that share some panels of weights while these are in a cache that is near; whole windows of four.
const BLOCK_PIXELS: usize = 96;
const _: () = assert!(BLOCK_PIXELS.is_multiple_of(4));
/// Most multiply-adds of one task: about a millisecond.
const TASK_MULTIPLY_ADDS: usize = 32 * 1024 * 1024;

/// A correlation of images with packed weights; the outputs may be spread over a larger picture.
pub(super) struct Correlation<'a> {
    pub(super) batch: usize,
    pub(super) source: &'a [f32],
    pub(super) source_height: usize,
    pub(super) source_width: usize,
    pub(super) source_channels: usize,
    pub(super) kernel_height: usize,
    pub(super) kernel_width: usize,
    pub(super) stride: usize,
    /// Source row (column) under the first weight of the first output.
    pub(super) first_row: isize,
    pub(super) first_column: isize,
    /// Outputs of an image, and their channels.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
    /// `[channels / PANEL][kernel_height][kernel_width * source_channels][PANEL]`.
    pub(super) weights: &'a [f32],
    pub(super) finish: Finish<'a>,
    /// Numbers from one image of the target to the next.
    pub(super) target_image: usize,
    /// Place of the first output in its image, and numbers from one row (column) of outputs to the next.
    pub(super) target_start: usize,
    pub(super) target_row: usize,
    pub(super) target_column: usize,
}

/// Numbers of packed weights, of which each output has `inner`.
pub(super) fn weight_len(inner: usize, out_channels: usize) -> usize {
    elements([inner, out_channels.next_multiple_of(PANEL)])
}

/// Packs weights `[kernel_height, kernel_width, in, out]`.
pub(super) fn pack_weights(shape: &ConvolutionShape, weight: &[f32], packed: &mut [f32]) {
    pack(weight, shape.patch_length(), shape.out_channels, packed);
}

/// `y = finish(convolution(x, weights))`.
pub(super) fn forward(
    set: InstructionSet,
    shape: &ConvolutionShape,
    x: &[f32],
    weights: &[f32],
    finish: Finish,
    y: &mut [f32],
) {
    correlation(shape, x, weights, finish).run(set, y);
}

fn correlation<'a>(shape: &ConvolutionShape, x: &'a [f32], weights: &'a [f32], finish: Finish<'a>) -> Correlation<'a> {
    let (height, width) = (shape.out_height(), shape.out_width());
    let pooled = if finish.pool { 2 } else { 1 };
    let row = width / pooled * shape.out_channels;
    Correlation {
        batch: shape.batch,
        source: x,
        source_height: shape.in_height,
        source_width: shape.in_width,
        source_channels: shape.in_channels,
        kernel_height: shape.kernel_height,
        kernel_width: shape.kernel_width,
        stride: shape.stride,
        first_row: -(shape.padding as isize),
        first_column: -(shape.padding as isize),
        rows: height / pooled * pooled,
        columns: width / pooled * pooled,
        channels: shape.out_channels,
        weights,
        finish,
        target_image: height / pooled * row,
        target_start: 0,
        target_row: row,
        target_column: shape.out_channels,
    }
}

/// `rows` rows of [`forward`]'s outputs from `first` on, of one image `x`, on this thread; `y` is `[rows, width, out]`.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub(super) fn forward_rows(
    set: InstructionSet,
    shape: &ConvolutionShape,
    x: &[f32],
    first: usize,
    rows: usize,
    weights: &[f32],
    finish: Finish,
    y: &mut [f32],
) {
    assert!(!finish.pool && finish.residual.is_none() && first + rows <= shape.out_height());
    let mut correlation = correlation(shape, x, weights, finish);
    correlation.batch = 1;
    correlation.first_row += (first * shape.stride) as isize;
    correlation.rows = rows;
    correlation.target_image = rows * correlation.target_row;
    if y.is_empty() {
        return;
    }
    correlation.check(y.len());
    correlation.band(set, 0, 0, rows, Shared::new(y));
}

/// Gradient of the input: `dx`, overwritten, from the gradient `dy` of the outputs and weights `[kernel_height,
/// kernel_width, in, out]`.
pub(super) fn input_gradient(
    set: InstructionSet,
    shape: &ConvolutionShape,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    let (inputs, outputs, stride) = (shape.in_channels, shape.out_channels, shape.stride);
    // The taps that meet a row (column) of inputs, modulo the stride: the first of them, their number, and the first
    // output under them.
    let taps = |phase: usize, kernel: usize| {
        let first = (phase + shape.padding) % stride;
        let count = if first < kernel { (kernel - first).div_ceil(stride) } else { 0 };
        let start = ((phase + shape.padding - first) / stride) as isize - count as isize + 1;
        (first, count, start)
    };
    if stride > shape.kernel_height.min(shape.kernel_width) {
        // A stride larger than the kernel leaves inputs out; those that are met are written below.
        share_chunks(dx, crate::ELEMENTS_PER_TASK, |_, dx| dx.fill(0.0));
    }
    let phases = |size: usize| 0..stride.min(size);
    for (row, column) in phases(shape.in_height).flat_map(|r| phases(shape.in_width).map(move |c| (r, c))) {
        let (first_row, kernel_height, source_row) = taps(row, shape.kernel_height);
        let (first_column, kernel_width, source_column) = taps(column, shape.kernel_width);
        if kernel_height * kernel_width == 0 {
            continue;
        }
        // Weights of these taps, turned round and with inputs and outputs exchanged: [taps, out, in].
        let block = inputs * outputs;
        let mut turned = Scratch::take(kernel_height * kernel_width * block);
        for (place, turned) in turned.chunks_exact_mut(block.max(1)).enumerate() {
            let i = first_row + stride * (kernel_height - 1 - place / kernel_width);
            let j = first_column + stride * (kernel_width - 1 - place % kernel_width);
            let from = &weight[(i * shape.kernel_width + j) * block..][..block];
            set.run(Transpose { rows: inputs, columns: outputs, from, from_row: outputs, to: turned, to_row: inputs });
        }
        let inner = kernel_height * kernel_width * outputs;
        let mut packed = Scratch::take(weight_len(inner, inputs));
        pack(&turned, inner, inputs, &mut packed);
        let correlation = Correlation {
            batch: shape.batch,
            source: dy,
            source_height: shape.out_height(),
            source_width: shape.out_width(),
            source_channels: outputs,
            kernel_height,
            kernel_width,
            stride: 1,
            first_row: source_row,
            first_column: source_column,
            rows: (shape.in_height - row).div_ceil(stride),
            columns: (shape.in_width - column).div_ceil(stride),
            channels: inputs,
            weights: &packed,
            finish: Finish { bias: None, residual: None, relu: false, pool: false },
            target_image: shape.in_height * shape.in_width * inputs,
            target_start: (row * shape.in_width + column) * inputs,
            target_row: stride * shape.in_width * inputs,
            target_column: stride * inputs,
        };
        correlation.run(set, dx);
    }
}

impl Correlation<'_> {
    /// Rows of the source that lie under `rows` rows of outputs.
    fn span(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.kernel_height
    }

    /// Columns of the source that lie under a row of outputs.
    fn frame_width(&self) -> usize {
        (self.columns - 1) * self.stride + self.kernel_width
    }

    /// Asserts what the tasks rely on: all sources, weights and `length` numbers of the target are there.
    fn check(&self, length: usize) {
        let pooled = if self.finish.pool { 2 } else { 1 };
        let inner = elements([self.source_channels, self.kernel_height, self.kernel_width]);
        let sources = [self.batch, self.source_channels, self.source_height, self.source_width];
        assert_eq!(self.source.len(), elements(sources));
        assert!(self.weights.len() >= weight_len(inner, self.channels));
        let (rows, columns) = (self.rows / pooled, self.columns / pooled);
        let steps = [elements([rows - 1, self.target_row]), elements([columns - 1, self.target_column])];
        let last = [self.target_start, steps[0], steps[1], self.channels].map(|numbers| numbers as u128);
        assert!(last.into_iter().sum::<u128>() <= self.target_image as u128);
        assert!(elements([self.batch, self.target_image]) <= length);
        assert!(self.finish.bias.is_none_or(|bias| bias.len() == self.channels));
        assert!(self.finish.residual.is_none_or(|residual| residual.len() == length && pooled == 1));
    }

    /// Where the sums of `VECTORS` vectors of channels begin.
    #[inline(always)]
    pub(super) fn bias<L: Lanes, const VECTORS: usize>(&self, channel: usize) -> [L; VECTORS] {
        let mut bias = [L::splat(0.0); VECTORS];
        if let Some(values) = self.finish.bias {
            for (v, bias) in bias.iter_mut().enumerate() {
                // SAFETY: the bias holds `channels` numbers (checked in `check`).
                *bias = unsafe { L::load_padded(values.as_ptr(), channel + v * L::WIDTH, self.channels) };
            }
        }
        bias
    }

    fn run(&self, set: InstructionSet, target: &mut [f32]) {
        if [self.batch, self.rows, self.columns, self.channels].contains(&0) {
            return;
        }
        let pooled = if self.finish.pool { 2 } else { 1 };
        self.check(target.len());
        let target = Shared::new(target);
        let inner = self.kernel_height * self.kernel_width * self.source_channels;
        let per_row = self.columns.saturating_mul(inner).saturating_mul(self.channels);
        let most =
            (TASK_MULTIPLY_ADDS / per_row.max(1)).max(1).min(self.rows.div_ceil(if self.batch < 4 { 8 } else { 1 }));
        let band = self.rows.div_ceil(self.rows.div_ceil(most)).next_multiple_of(pooled);
        let bands = self.rows.div_ceil(band);
        share(self.batch * bands, |task| {
            let (image, first) = (task / bands, task % bands * band);
            self.band(set, image, first, band.min(self.rows - first), target);
        });
    }

    /// Some rows of outputs of one image. [`Correlation::check`] has passed, and nobody else writes to them.
    fn band(&self, set: InstructionSet, image: usize, first: usize, rows: usize, target: Shared) {
        let (top, height) = (self.first_row + (first * self.stride) as isize, self.span(rows));
        let size = [self.source_height, self.source_width, self.source_channels];
        let picture = elements(size);
        let picture = &self.source[image * picture..][..picture];
        let frame = Frame::cut(picture, size, top, self.first_column, height, self.frame_width());
        let (start, row_stride) = (frame.pixels().as_ptr(), frame.row_stride);
        // SAFETY: `check` has passed, and nobody else writes to these rows; a frame has all rows and columns that lie under the
        // band's.
        let band = unsafe { Band::new(self, image, first, rows, start, row_stride, target) };
        if self.finish.residual.is_none()
            && GreyBand::can(self.kernel_height, self.kernel_width, self.source_channels, self.stride)
        {
            set.run(GreyBand(band));
        } else {
            set.run(band);
        }
    }
}

/// The pixels under some rows of outputs of one image, zero where a kernel reaches over the edge.
pub(crate) struct Frame<'a> {
    picture: &'a [f32],
    /// In place of a part of the picture, where there is an edge.
    copy: Option<Scratch>,
    /// Numbers from one row to the next.
    pub(crate) row_stride: usize,
}

impl<'a> Frame<'a> {
    /// Those under rows `first..first + rows` of the outputs.
    pub(crate) fn new(shape: &ConvolutionShape, picture: &'a [f32], first: usize, rows: usize) -> Self {
        let size = [shape.in_height, shape.in_width, shape.in_channels];
        let width = (shape.out_width() - 1) * shape.stride + shape.kernel_width;
        let height = (rows - 1) * shape.stride + shape.kernel_height;
        let top = (first * shape.stride) as isize - shape.padding as isize;
        Self::cut(picture, size, top, -(shape.padding as isize), height, width)
    }

    /// `height` rows and `width` columns of a picture of this `size`, from a row and a column on that may lie in front of it.
    fn cut(picture: &'a [f32], size: [usize; 3], top: isize, left: isize, height: usize, width: usize) -> Self {
        let [in_height, in_width, channels] = size;
        let ends = |first: isize, count: usize| first.saturating_add_unsigned(count);
        let inside =
            top >= 0 && left >= 0 && ends(top, height) <= in_height as isize && ends(left, width) <= in_width as isize;
        if inside {
            let picture = &picture[(top as usize * in_width + left as usize) * channels..];
            return Self { picture, copy: None, row_stride: in_width * channels };
        }
        let mut copy = Scratch::take(elements([height, width, channels]));
        copy_frame(picture, size, top, left, height, width, &mut copy);
        Self { picture, copy: Some(copy), row_stride: width * channels }
    }

    /// From the first pixel under the first output on.
    pub(crate) fn pixels(&self) -> &[f32] {
        self.copy.as_deref().unwrap_or(self.picture)
    }
}

/// Copies a part of `picture` `[height, width, channels]`, zero where it reaches over the edge.
fn copy_frame(
    picture: &[f32],
    [in_height, in_width, channels]: [usize; 3],
    top: isize,
    left: isize,
    height: usize,
    width: usize,
    frame: &mut [f32],
) {
    let line = width * channels;
    // Columns of the frame that lie inside the picture.
    let start = left.min(0).unsigned_abs().min(width);
    let end = (in_width as isize - left).clamp(start as isize, width as isize) as usize;
    for (row, frame) in frame.chunks_exact_mut(line).take(height).enumerate() {
        let y = top + row as isize;
        if y < 0 || y as usize >= in_height || start == end {
            frame.fill(0.0);
            continue;
        }
        frame[..start * channels].fill(0.0);
        frame[end * channels..].fill(0.0);
        let from = (y as usize * in_width + (left + start as isize) as usize) * channels;
        frame[start * channels..end * channels].copy_from_slice(&picture[from..][..(end - start) * channels]);
    }
}

/// Some rows of outputs of one image.
///
/// The addresses must be valid for all that is read; whoever makes one vouches for it by calling [`Band::new`].
pub(super) struct Band<'a> {
    pub(super) correlation: &'a Correlation<'a>,
    pub(super) image: usize,
    pub(super) first: usize,
    pub(super) rows: usize,
    /// The source under the first weight of the first output of the band.
    start: *const f32,
    pub(super) row_stride: usize,
    pub(super) target: Shared<'a>,
}

impl<'a> Band<'a> {
    /// # Safety
    /// [`Correlation::check`] has passed for the target. Until it has run, from `start` on all that lies under the band's
    /// outputs can be read without a look at edges, rows a `row_stride` apart; nobody else touches the outputs.
    unsafe fn new(
        correlation: &'a Correlation<'a>,
        image: usize,
        first: usize,
        rows: usize,
        start: *const f32,
        row_stride: usize,
        target: Shared<'a>,
    ) -> Self {
        Self { correlation, image, first, rows, start, row_stride, target }
    }

    /// The source under the first weight of the first output of a row, counted from the band's first.
    #[inline(always)]
    pub(super) fn source(&self, row: usize) -> *const f32 {
        self.start.wrapping_add(row * self.correlation.stride * self.row_stride)
    }
}

impl Kernel for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Correlation { source_channels, stride, columns, channels, finish, .. } = *self.correlation;
        let (target_row, target_column) = (self.correlation.target_row, self.correlation.target_column);
        let target = self.image * self.correlation.target_image + self.correlation.target_start;
        let floor = L::splat(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
        let pixels = self.rows * columns;
        let mut sources = [std::ptr::null::<f32>(); BLOCK_PIXELS];
        let mut targets = [0_usize; BLOCK_PIXELS];
        // Pixels go row by row, or, where they are pooled, window by window.
        let side = if finish.pool { 2 } else { 1 };
        let (mut row, mut column) = (0, 0);
        for first in (0..pixels).step_by(BLOCK_PIXELS) {
            let count = BLOCK_PIXELS.min(pixels - first);
            for index in 0..count {
                let corner = if finish.pool { (first + index) % 4 } else { 0 };
                let (y, x) = (row * side + corner / 2, column * side + corner % 2);
                sources[index] = self.source(y).wrapping_add(x * stride * source_channels);
                targets[index] = target + (self.first / side + row) * target_row + column * target_column;
                if corner + 1 == side * side {
                    column += 1;
                    if column == columns / side {
                        (row, column) = (row + 1, 0);
                    }
                }
            }
            let (mut panel, panels) = (0, channels.div_ceil(PANEL));
            while panel < panels {
                let tile_panels = tile_panels::<L>(panels - panel);
                let (row_stride, channel) = (self.row_stride, panel * PANEL);
                let tile = Tile { correlation: self.correlation, row_stride, floor, channel, target: self.target };
                // SAFETY: under each pixel lie as many runs of numbers as the kernel has rows, a row stride apart; each panel
                // holds a line for each number; targets are pixels of the band (all by the contract of `new`). Where they are
                // pooled, rows and columns are even and blocks whole windows.
                unsafe {
                    match tile_panels * L::VECTORS {
                        1 => tile.run::<1>(&sources[..count], &targets[..count]),
                        2 => tile.run::<2>(&sources[..count], &targets[..count]),
                        4 => tile.run::<4>(&sources[..count], &targets[..count]),
                        vectors => unreachable!("no tile has {vectors} vectors"),
                    }
                }
                panel += tile_panels;
            }
        }
    }
}

/// What all tiles of some panels of channels share.
struct Tile<'a, L> {
    correlation: &'a Correlation<'a>,
    row_stride: usize,
    floor: L,
    /// The first of the tile's channels.
    channel: usize,
    target: Shared<'a>,
}

impl<L: Lanes> Tile<'_, L> {
    /// All pixels, whose channels are `VECTORS` vectors.
    ///
    /// # Safety
    /// Under each pixel of `sources` lie `kernel_height` runs of `kernel_width * source_channels` numbers, and the weights hold
    /// as many lines of each panel; `targets` are places of the target that nobody else touches, as many as `sources`. Where they
    /// are pooled, `sources` are whole windows of four.
    #[inline(always)]
    unsafe fn run<const VECTORS: usize>(&self, sources: &[*const f32], targets: &[usize]) {
        let pool = self.correlation.finish.pool;
        // Each pixel needs a register for its address, too.
        let most = if pool { 4 } else { L::POINTER_ROWS.min(tile_rows::<L>(VECTORS)) };
        for (sources, targets) in sources.chunks(most).zip(targets.chunks(most)) {
            // SAFETY: by this function's contract.
            unsafe {
                match (pool, VECTORS) {
                    (true, 1) => self.pool::<1>(sources, targets[0]),
                    (true, 2) => self.pool::<2>(sources, targets[0]),
                    (true, 4) => self.pool::<4>(sources, targets[0]),
                    (false, 1) => with_rows!(sources.len(), write::<L, 1>(self, sources, targets)),
                    (false, 2) => with_rows!(sources.len(), write::<L, 2>(self, sources, targets)),
                    (false, 4) => with_few_rows!(sources.len(), write::<L, 4>(self, sources, targets)),
                    _ => unreachable!("no tile has {VECTORS} vectors"),
                }
            }
        }
    }

    /// # Safety
    /// As for [`Tile::run`]; `sources` are the four pixels of a window, `target` its place.
    #[inline(always)]
    unsafe fn pool<const VECTORS: usize>(&self, sources: &[*const f32], target: usize) {
        // SAFETY: by this function's contract; stores stay inside the pixel's channels.
        unsafe {
            let sums = self.sums::<4, VECTORS>(sources);
            let channels = self.correlation.channels;
            for v in 0..VECTORS {
                let channel = self.channel + v * L::WIDTH;
                if channel >= channels {
                    break;
                }
                let largest = sums[0][v].larger(sums[1][v]).larger(sums[2][v].larger(sums[3][v]));
                largest.at_least(self.floor).store_within(self.target.at(target), channel, channels);
            }
        }
    }

    /// Sums of `ROWS` pixels over the whole kernel.
    ///
    /// # Safety
    /// As for [`Tile::run`].
    #[inline(always)]
    unsafe fn sums<const ROWS: usize, const VECTORS: usize>(&self, sources: &[*const f32]) -> [[L; VECTORS]; ROWS] {
        let Correlation { kernel_height, kernel_width, source_channels, weights, .. } = *self.correlation;
        let inner = kernel_width * source_channels;
        let panel = kernel_height * inner * PANEL;
        let mut sums = [self.correlation.bias::<L, VECTORS>(self.channel); ROWS];
        // SAFETY: tap < kernel_height and k < inner, so that every address is one that the contract allows.
        unsafe {
            let weights = weights.as_ptr().add(self.channel / PANEL * panel);
            for tap in 0..kernel_height {
                let weights = weights.add(tap * inner * PANEL);
                let mut pixels = [std::ptr::null::<f32>(); ROWS];
                for (row, pixel) in pixels.iter_mut().enumerate() {
                    *pixel = sources.get_unchecked(row).add(tap * self.row_stride);
                }
                let mut k = 0;
                while k + 4 <= inner {
                    for k in k..k + 4 {
                        multiply_pixels::<L, ROWS, VECTORS>(&pixels, k, weights.add(k * PANEL), panel, &mut sums);
                    }
                    k += 4;
                }
                while k < inner {
                    multiply_pixels::<L, ROWS, VECTORS>(&pixels, k, weights.add(k * PANEL), panel, &mut sums);
                    k += 1;
                }
            }
        }
        sums
    }
}

/// Number `k` of each pixel's run times one line of some panels, added to `sums`.
///
/// # Safety
/// Number `k` can be read from each pixel on, and lines of panels, `panel` numbers apart, of `VECTORS` vectors at `line`.
#[inline(always)]
unsafe fn multiply_pixels<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    pixels: &[*const f32; ROWS],
    k: usize,
    line: *const f32,
    panel: usize,
    sums: &mut [[L; VECTORS]; ROWS],
) {
    // SAFETY: by this function's contract.
    unsafe {
        let factors = load_line::<L, VECTORS>(line, panel);
        for row in 0..ROWS {
            let value = L::splat(*pixels[row].add(k));
            for v in 0..VECTORS {
                sums[row][v] = value.mul_add(factors[v], sums[row][v]);
            }
        }
    }
}

/// # Safety
/// As for [`Tile::run`], of `ROWS` pixels.
#[inline(always)]
unsafe fn write<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    tile: &Tile<L>,
    sources: &[*const f32],
    targets: &[usize],
) {
    // SAFETY: by this function's contract; stores stay inside the pixel's channels.
    unsafe {
        let sums = tile.sums::<ROWS, VECTORS>(sources);
        let (channels, residual) = (tile.correlation.channels, tile.correlation.finish.residual);
        for (row, sums) in sums.iter().enumerate() {
            let place = *targets.get_unchecked(row);
            for (v, &sum) in sums.iter().enumerate() {
                let channel = tile.channel + v * L::WIDTH;
                if channel >= channels {
                    break;
                }
                let mut value = sum;
                if let Some(residual) = residual {
                    value = value.add(L::load_within(residual.as_ptr().add(place), channel, channels));
                }
                value.at_least(tile.floor).store_within(tile.target.at(place), channel, channels);
            }
        }
    }
}
