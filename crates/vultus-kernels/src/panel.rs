//! Matrix products on packed panels: the innermost loops of every convolution.
//!
//! In: one matrix packed in panels of [`PANEL`] columns, `[columns / PANEL][inner][PANEL]`, and one that is read where
//! it lies. Out: sums in registers, written once. Nothing here knows what the numbers mean.

use crate::simd::{Kernel, Lanes, PANEL};

/// Calls `$function::<L, ROWS, ..>($arguments)` with ROWS = `$rows`, which is from 1 to 12.
macro_rules! with_rows {
    ($rows:expr, $function:ident::<$lanes:ident $(, $more:literal)*>($($argument:expr),* $(,)?)) => {
        match $rows {
            1 => $function::<$lanes, 1 $(, $more)*>($($argument),*),
            2 => $function::<$lanes, 2 $(, $more)*>($($argument),*),
            3 => $function::<$lanes, 3 $(, $more)*>($($argument),*),
            4 => $function::<$lanes, 4 $(, $more)*>($($argument),*),
            5 => $function::<$lanes, 5 $(, $more)*>($($argument),*),
            6 => $function::<$lanes, 6 $(, $more)*>($($argument),*),
            7 => $function::<$lanes, 7 $(, $more)*>($($argument),*),
            8 => $function::<$lanes, 8 $(, $more)*>($($argument),*),
            9 => $function::<$lanes, 9 $(, $more)*>($($argument),*),
            10 => $function::<$lanes, 10 $(, $more)*>($($argument),*),
            11 => $function::<$lanes, 11 $(, $more)*>($($argument),*),
            12 => $function::<$lanes, 12 $(, $more)*>($($argument),*),
            _ => unreachable!("tiles have at most twelve rows"),
        }
    };
}
pub(crate) use with_rows;

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
        let Self { rows, inner, panels, a, a_stride, b, c, c_stride } = self;
        for panel in 0..panels {
            let mut row = 0;
            while row < rows {
                let count = L::TILE_ROWS.min(rows - row);
                // SAFETY: the tile's rows and columns are inside the matrices that `new`'s contract names.
                unsafe {
                    let a = a.add(row * a_stride);
                    let b = b.add(panel * inner * PANEL);
                    let c = c.add(row * c_stride + panel * PANEL);
                    if count == L::TILE_ROWS {
                        with_rows!(L::TILE_ROWS, rows_tile::<L>(inner, a, a_stride, b, c, c_stride));
                    } else {
                        with_rows!(count, rows_tile::<L>(inner, a, a_stride, b, c, c_stride));
                    }
                }
                row += count;
            }
        }
    }
}

/// One number of each row times one line of a panel, added to `sums`. A function and not a closure: closures are not
/// always inlined, and then lack the instructions.
///
/// # Safety
/// `ROWS` numbers can be read at `a`, `a_stride` apart, and `PANEL` at `line`.
#[inline(always)]
pub(crate) unsafe fn multiply_line<L: Lanes, const ROWS: usize>(
    a: *const f32,
    a_stride: usize,
    line: *const f32,
    sums: &mut [[L; 2]; ROWS],
) {
    // SAFETY: by this function's contract.
    unsafe {
        let first = L::load(line);
        let second = if L::VECTORS == 2 { L::load(line.add(L::WIDTH)) } else { first };
        for row in 0..ROWS {
            let value = L::splat(*a.add(row * a_stride));
            sums[row][0] = value.mul_add(first, sums[row][0]);
            if L::VECTORS == 2 {
                sums[row][1] = value.mul_add(second, sums[row][1]);
            }
        }
    }
}

/// # Safety
/// `ROWS` rows of `inner` numbers can be read at `a`, `inner * PANEL` at `b`, `ROWS` rows of `PANEL` written at `c`.
#[inline(always)]
unsafe fn rows_tile<L: Lanes, const ROWS: usize>(
    inner: usize,
    a: *const f32,
    a_stride: usize,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
) {
    let mut sums = [[L::splat(0.0); 2]; ROWS];
    // SAFETY: k < inner and row < ROWS, so that every address is one that the contract allows.
    unsafe {
        let mut k = 0;
        while k + 4 <= inner {
            for k in k..k + 4 {
                multiply_line::<L, ROWS>(a.add(k), a_stride, b.add(k * PANEL), &mut sums);
            }
            k += 4;
        }
        while k < inner {
            multiply_line::<L, ROWS>(a.add(k), a_stride, b.add(k * PANEL), &mut sums);
            k += 1;
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate().take(L::VECTORS) {
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
            for b_panel in 0..self.b_panels {
                let mut row = 0;
                while row < PANEL {
                    // SAFETY: `PANEL_ROWS` divides `PANEL`, so that the tile is inside both panels and `c`.
                    unsafe {
                        let a = self.a.add(a_panel * self.a_stride + row);
                        let b = self.b.add(b_panel * self.b_stride);
                        let c = self.c.add((a_panel * PANEL + row) * columns + b_panel * PANEL);
                        match L::PANEL_ROWS {
                            16 => panels_tile::<L, 16>(self.inner, a, b, c, columns, self.add),
                            4 => panels_tile::<L, 4>(self.inner, a, b, c, columns, self.add),
                            _ => panels_tile::<L, 2>(self.inner, a, b, c, columns, self.add),
                        }
                    }
                    row += L::PANEL_ROWS;
                }
            }
        }
    }
}

/// # Safety
/// `inner` lines of a panel can be read at `a` (from its row on) and `b`, `ROWS` rows of `PANEL` read and written at `c`.
#[inline(always)]
unsafe fn panels_tile<L: Lanes, const ROWS: usize>(
    inner: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    let mut sums = [[L::splat(0.0); 2]; ROWS];
    // The destination is on its way while the sums are made.
    for row in 0..ROWS {
        L::prefetch(c.wrapping_add(row * c_stride));
    }
    // SAFETY: k < inner and row < ROWS, so that every address is one that the contract allows.
    unsafe {
        let mut k = 0;
        while k + 4 <= inner {
            for k in k..k + 4 {
                multiply_line::<L, ROWS>(a.add(k * PANEL), 1, b.add(k * PANEL), &mut sums);
            }
            k += 4;
        }
        while k < inner {
            multiply_line::<L, ROWS>(a.add(k * PANEL), 1, b.add(k * PANEL), &mut sums);
            k += 1;
        }
        for (row, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate().take(L::VECTORS) {
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
