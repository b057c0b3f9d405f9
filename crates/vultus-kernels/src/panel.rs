//! Matrix products on packed panels: the innermost loops of every convolution.
//!
//! In: one matrix packed in panels of [`PANEL`] columns, `[columns / PANEL][inner][PANEL]`, and one that is read where
//! it lies. Out: sums in registers, written once. Nothing here knows what the numbers mean.

use std::ops::Range;

use crate::simd::{Kernel, Lanes, PANEL};

/// Most lines of panels of which four fill half of a first-level cache of 32 KB.
/// Longer ones come from farther away: a tile of more rows reads them less often.
const SHORT: usize = 64;

/// Calls `$function::<L, ROWS, ..>($arguments)` with ROWS = `$rows`, which is from 1 to 12.
macro_rules! with_rows {
    ($rows:expr, $function:ident::<$lanes:ident $(, $more:literal)*>($($argument:expr),* $(,)?)) => {
        match $rows {
            7 => $function::<$lanes, 7 $(, $more)*>($($argument),*),
            8 => $function::<$lanes, 8 $(, $more)*>($($argument),*),
            9 => $function::<$lanes, 9 $(, $more)*>($($argument),*),
            10 => $function::<$lanes, 10 $(, $more)*>($($argument),*),
            11 => $function::<$lanes, 11 $(, $more)*>($($argument),*),
            12 => $function::<$lanes, 12 $(, $more)*>($($argument),*),
            rows => $crate::panel::with_few_rows!(rows, $function::<$lanes $(, $more)*>($($argument),*)),
        }
    };
}
pub(crate) use with_rows;

/// As [`with_rows`], for at most six.
macro_rules! with_few_rows {
    ($rows:expr, $function:ident::<$lanes:ident $(, $more:literal)*>($($argument:expr),* $(,)?)) => {
        match $rows {
            1 => $function::<$lanes, 1 $(, $more)*>($($argument),*),
            2 => $function::<$lanes, 2 $(, $more)*>($($argument),*),
            3 => $function::<$lanes, 3 $(, $more)*>($($argument),*),
            4 => $function::<$lanes, 4 $(, $more)*>($($argument),*),
            5 => $function::<$lanes, 5 $(, $more)*>($($argument),*),
            6 => $function::<$lanes, 6 $(, $more)*>($($argument),*),
            rows => unreachable!("no tile has {rows} rows"),
        }
    };
}
pub(crate) use with_few_rows;

/// `c = a b`: `a` is `[rows, inner]` with rows `a_stride` apart, `b` packed, `c` is `[rows, panels * PANEL]` with rows
/// `c_stride` apart, overwritten.
///
/// The addresses must be valid for all of that; whoever makes one vouches for it by calling [`RowsProduct::new`].
pub(crate) struct RowsProduct {
    rows: usize,
    inner: usize,
    panels: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
}

impl RowsProduct {
    /// # Safety
    /// Until it has run, `a` and `b` are valid for reads and `c` for writes of all elements named above, and nobody
    /// else touches those of `c`.
    #[expect(clippy::too_many_arguments, reason = "two matrices, a destination, and their sizes")]
    #[inline(always)]
    pub(crate) unsafe fn new(
        rows: usize,
        inner: usize,
        panels: usize,
        a: *const f32,
        a_stride: usize,
        b: *const f32,
        c: *mut f32,
        c_stride: usize,
    ) -> Self {
        Self { rows, inner, panels, a, a_stride, b, c, c_stride }
    }
}

impl Kernel for RowsProduct {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        if self.rows == 0 {
            return;
        }
        let mut panel = 0;
        while panel < self.panels {
            let left = self.panels - panel;
            let tile_panels = tile_panels::<L>(if self.inner <= SHORT { left } else { left.min(2) });
            let vectors = tile_panels * L::VECTORS;
            let tiles = self.rows.div_ceil(tile_rows::<L>(vectors));
            let mut row = 0;
            let lines = self.inner.div_ceil(tiles);
            for index in 0..tiles {
                let count = (self.rows - row).div_ceil(tiles - index);
                let ahead = index * lines..(index + 1) * lines;
                // SAFETY: the tile's rows and columns are inside the matrices that `new`'s contract names.
                unsafe {
                    let a = self.a.add(row * self.a_stride);
                    let b = self.b.add(panel * self.inner * PANEL);
                    let c = self.c.add(row * self.c_stride + panel * PANEL);
                    let (inner, a_stride, c_stride) = (self.inner, self.a_stride, self.c_stride);
                    match vectors {
                        1 => with_rows!(count, rows_tile::<L, 1>(inner, a, a_stride, b, c, c_stride, ahead)),
                        2 => with_rows!(count, rows_tile::<L, 2>(inner, a, a_stride, b, c, c_stride, ahead)),
                        4 => with_few_rows!(count, rows_tile::<L, 4>(inner, a, a_stride, b, c, c_stride, ahead)),
                        _ => unreachable!("no tile has {vectors} vectors"),
                    }
                }
                row += count;
            }
            panel += tile_panels;
        }
    }
}

/// Panels of the next tile where `left` are left.
#[inline(always)]
pub(crate) fn tile_panels<L: Lanes>(left: usize) -> usize {
    let most = L::TILE_VECTORS / L::VECTORS;
    if left >= most {
        most
    } else if left >= 2 && most >= 2 {
        2
    } else {
        1
    }
}

/// Most rows of a tile whose rows hold `vectors` vectors.
#[inline(always)]
pub(crate) fn tile_rows<L: Lanes>(vectors: usize) -> usize {
    L::TILE_ROWS.min(L::TILE_SUMS / vectors)
}

/// One line of panels that are `panel` numbers apart.
///
/// # Safety
/// From `line` on `VECTORS` vectors of lines of panels can be read, `panel` numbers apart.
#[inline(always)]
pub(crate) unsafe fn load_line<L: Lanes, const VECTORS: usize>(line: *const f32, panel: usize) -> [L; VECTORS] {
    let mut vectors = [L::splat(0.0); VECTORS];
    for (v, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: by this function's contract.
        *vector = unsafe { L::load(line.add(v / L::VECTORS * panel + v % L::VECTORS * L::WIDTH)) };
    }
    vectors
}

/// One number of each row times one line of some panels, added to `sums`. A function and not a closure: closures are not
/// always inlined, and then lack the instructions.
///
/// # Safety
/// `ROWS` numbers can be read at `a`, `a_stride` apart, and at `line` those of panels, `panel` numbers apart,
/// of `VECTORS` vectors.
#[inline(always)]
pub(crate) unsafe fn multiply_line<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    a: *const f32,
    a_stride: usize,
    line: *const f32,
    panel: usize,
    sums: &mut [[L; VECTORS]; ROWS],
) {
    // SAFETY: by this function's contract.
    unsafe {
        let factors = load_line::<L, VECTORS>(line, panel);
        for row in 0..ROWS {
            let value = L::splat(*a.add(row * a_stride));
            for v in 0..VECTORS {
                sums[row][v] = value.mul_add(factors[v], sums[row][v]);
            }
        }
    }
}

/// `ahead` are numbers of lines of the panels behind these, those of the next tile of columns, that are asked for on the way; each tile
/// of rows asks for its share. They are near when their turn comes: where rows are few, weights would else be waited for most of the time.
///
/// # Safety
/// `ROWS` rows of `inner` numbers can be read at `a`, panels of `VECTORS` vectors of as many lines at `b`, and `ROWS` rows
/// of these vectors written at `c`.
#[inline(always)]
unsafe fn rows_tile<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    inner: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    ahead: Range<usize>,
) {
    let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
    let panel = inner * PANEL;
    let panels = VECTORS / L::VECTORS;
    let behind = b.wrapping_add(panels * panel + ahead.start * PANEL);
    let lines = ahead.len();
    // SAFETY: k < inner and row < ROWS, so that every address that is read or written is one that the contract allows.
    unsafe {
        let mut k = 0;
        while k + 4 <= inner {
            for k in k..k + 4 {
                multiply_line::<L, ROWS, VECTORS>(a.add(k), a_stride, b.add(k * PANEL), panel, &mut sums);
            }
            if k < lines {
                for line in k..k + 4 {
                    for next in 0..panels {
                        L::prefetch_far(behind.wrapping_add(next * panel + line * PANEL));
                    }
                }
            }
            k += 4;
        }
        while k < inner {
            multiply_line::<L, ROWS, VECTORS>(a.add(k), a_stride, b.add(k * PANEL), panel, &mut sums);
            k += 1;
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                sum.store(c.add(row * c_stride + v * L::WIDTH));
            }
        }
    }
}

/// `c (+)= a^T b` for two packed operands: `a` `[a_panels][inner][PANEL]`, `b` `[b_panels][inner][PANEL]`, both with
/// panels a stride apart, `c` `[a_panels * PANEL, b_panels * PANEL]`, contiguous; added to where `add`.
pub(crate) struct PanelsProduct {
    inner: usize,
    a: *const f32,
    a_stride: usize,
    a_panels: usize,
    b: *const f32,
    b_stride: usize,
    b_panels: usize,
    c: *mut f32,
    add: bool,
}

impl PanelsProduct {
    /// # Safety
    /// Until it has run, `a` and `b` are valid for reads and `c` for reads and writes of all elements named above, and
    /// nobody else touches those of `c`.
    #[expect(clippy::too_many_arguments, reason = "two matrices, a destination, and their sizes")]
    #[inline(always)]
    pub(crate) unsafe fn new(
        inner: usize,
        a: *const f32,
        a_stride: usize,
        a_panels: usize,
        b: *const f32,
        b_stride: usize,
        b_panels: usize,
        c: *mut f32,
        add: bool,
    ) -> Self {
        Self { inner, a, a_stride, a_panels, b, b_stride, b_panels, c, add }
    }
}

impl Kernel for PanelsProduct {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let columns = self.b_panels * PANEL;
        for a_panel in 0..self.a_panels {
            let mut b_panel = 0;
            while b_panel < self.b_panels {
                let tile_panels = tile_panels::<L>((self.b_panels - b_panel).min(2));
                let vectors = tile_panels * L::VECTORS;
                let tiles = PANEL.div_ceil(L::PANEL_SUMS / vectors);
                let mut row = 0;
                for index in 0..tiles {
                    let count = (PANEL - row).div_ceil(tiles - index);
                    // SAFETY: the tiles' rows are those of a panel, so that each is inside the panels and `c`.
                    unsafe {
                        let a = self.a.add(a_panel * self.a_stride + row);
                        let b = self.b.add(b_panel * self.b_stride);
                        let c = self.c.add((a_panel * PANEL + row) * columns + b_panel * PANEL);
                        let (inner, b_stride, add) = (self.inner, self.b_stride, self.add);
                        match (count, vectors) {
                            (16, 1) => panels_tile::<L, 16, 1>(inner, a, b, b_stride, c, columns, add),
                            (8, 2) => panels_tile::<L, 8, 2>(inner, a, b, b_stride, c, columns, add),
                            (6, 2) => panels_tile::<L, 6, 2>(inner, a, b, b_stride, c, columns, add),
                            (5, 2) => panels_tile::<L, 5, 2>(inner, a, b, b_stride, c, columns, add),
                            (2, 2) => panels_tile::<L, 2, 2>(inner, a, b, b_stride, c, columns, add),
                            _ => unreachable!("no tile has {count} rows of {vectors} vectors"),
                        }
                    }
                    row += count;
                }
                b_panel += tile_panels;
            }
        }
    }
}

/// # Safety
/// `inner` lines of a panel can be read at `a` (from its row on), and at `b`, of panels of `VECTORS` vectors, `b_stride`
/// apart; `ROWS` rows of these vectors read and written at `c`.
#[inline(always)]
unsafe fn panels_tile<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    inner: usize,
    a: *const f32,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
    // The destination is on its way while the sums are made.
    for row in 0..ROWS {
        for v in (0..VECTORS).step_by(L::VECTORS) {
            L::prefetch(c.wrapping_add(row * c_stride + v * L::WIDTH));
        }
    }
    // SAFETY: k < inner and row < ROWS, so that every address is one that the contract allows.
    unsafe {
        let mut k = 0;
        while k + 4 <= inner {
            for k in k..k + 4 {
                multiply_line::<L, ROWS, VECTORS>(a.add(k * PANEL), 1, b.add(k * PANEL), b_stride, &mut sums);
            }
            k += 4;
        }
        while k < inner {
            multiply_line::<L, ROWS, VECTORS>(a.add(k * PANEL), 1, b.add(k * PANEL), b_stride, &mut sums);
            k += 1;
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let to = c.add(row * c_stride + v * L::WIDTH);
                if add { sum.add(L::load(to)).store(to) } else { sum.store(to) }
            }
        }
    }
}

/// `values` packed in panels: from `[inner, columns]` to `[columns / PANEL][inner][PANEL]`, the last panel filled up
/// with zeros.
pub(crate) fn pack(values: &[f32], inner: usize, columns: usize, packed: &mut [f32]) {
    assert!(values.len() == inner * columns && packed.len() >= columns.div_ceil(PANEL) * inner * PANEL);
    for (panel, packed) in packed.chunks_mut(inner * PANEL).take(columns.div_ceil(PANEL)).enumerate() {
        let width = PANEL.min(columns - panel * PANEL);
        for (row, packed) in packed.chunks_exact_mut(PANEL).enumerate() {
            packed[..width].copy_from_slice(&values[row * columns + panel * PANEL..][..width]);
            packed[width..].fill(0.0);
        }
    }
}
