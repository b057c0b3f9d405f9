//! Products of matrices that are read where they lie: the innermost loops of dense layers.
//!
//! In: two matrices seen through the distances of their rows and columns. Out: sums, written to rows of a destination
//! or added to them. Everything happens on the calling thread, in an order that the sizes alone decide. A sum is one
//! running sum for each product (for each lane of it in [`Dots`]); whoever calls cuts long ones into parts.

use crate::panel::{tile_rows, with_rows};
use crate::shared::Shared;
use crate::simd::{Kernel, Lanes};

/// Rows that [`Pack`] asks for before it reads them: they lie on pages of their own, where no processor expects them.
const PACK_AHEAD: usize = 8;

/// Sizes of a product `[rows, inner] x [inner, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
}

/// Where a product goes: to rows of the shared slice, `row` numbers apart, the first of them at `start`.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) shared: Shared<'a>,
    pub(super) start: usize,
    pub(super) row: usize,
    /// Whether the product is added to what is there.
    pub(super) add: bool,
}

impl Target<'_> {
    /// The address of a row, whose `columns` numbers are checked to be there.
    #[inline(always)]
    fn checked(&self, row: usize, columns: usize) -> *mut f32 {
        let place = self.start + row * self.row;
        let _ = self.shared.at(place + columns);
        self.shared.at(place)
    }
}

/// `c (+)= a b`: element (row, k) of `a` stands at `row * a_row + k * a_inner`, element (k, column) of `b` at
/// `k * b_row + column`.
pub(super) struct Product<'a> {
    size: Size,
    a: &'a [f32],
    a_row: usize,
    a_inner: usize,
    b: &'a [f32],
    b_row: usize,
    c: Target<'a>,
}

impl<'a> Product<'a> {
    /// # Panics
    /// If a matrix is shorter than its size.
    ///
    /// # Safety
    /// Until it has run, nobody else touches the elements of the destination.
    #[inline(always)]
    pub(super) unsafe fn new(
        size: Size,
        (a, a_row, a_inner): (&'a [f32], usize, usize),
        (b, b_row): (&'a [f32], usize),
        c: Target<'a>,
    ) -> Self {
        let Size { rows, inner, columns } = size;
        assert!(rows > 0 && columns > 0 && columns <= c.row);
        assert!(inner == 0 || (rows - 1) * a_row + (inner - 1) * a_inner < a.len());
        assert!(inner == 0 || (inner - 1) * b_row + columns <= b.len());
        c.checked(rows - 1, columns);
        Self { size, a, a_row, a_inner, b, b_row, c }
    }
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Size { rows, inner, columns } = self.size;
        // A tile that sums up little mostly writes: few rows, and more of each.
        let most = if inner < 8 {
            L::TILE_ROWS.div_ceil(4)
        } else {
            tile_rows::<L>(L::TILE_VECTORS.min(columns.div_ceil(L::WIDTH)))
        };
        let tiles = rows.div_ceil(most);
        let mut row = 0;
        for index in 0..tiles {
            let count = (rows - row).div_ceil(tiles - index);
            // Tiles of few rows are wider, so that enough sums are under way: at most `TILE_SUMS` vectors.
            let vectors = match L::TILE_SUMS / count {
                0..4 => 2,
                4..8 => 4,
                _ => 8,
            };
            let mut column = 0;
            while column < columns {
                let left = columns - column;
                // SAFETY: rows and columns of the tile are inside the matrices, whose sizes `new` has checked; nobody
                // else touches the destination, as its caller has vouched.
                unsafe {
                    let tile = Tile {
                        inner,
                        a: self.a.as_ptr().wrapping_add(row * self.a_row),
                        a_row: self.a_row,
                        a_inner: self.a_inner,
                        b: self.b.as_ptr().wrapping_add(column),
                        b_row: self.b_row,
                        c: self.c.shared.at(self.c.start + row * self.c.row + column),
                        c_row: self.c.row,
                        add: self.c.add,
                        columns: left,
                    };
                    if vectors == 8 && left >= 8 * L::WIDTH {
                        match count {
                            1 => tile_sums::<L, 1, 8, true>(&tile),
                            2 => tile_sums::<L, 2, 8, true>(&tile),
                            _ => tile_sums::<L, 3, 8, true>(&tile),
                        }
                        column += 8 * L::WIDTH;
                    } else if vectors >= 4 && left >= 4 * L::WIDTH {
                        match count {
                            1 => tile_sums::<L, 1, 4, true>(&tile),
                            2 => tile_sums::<L, 2, 4, true>(&tile),
                            3 => tile_sums::<L, 3, 4, true>(&tile),
                            4 => tile_sums::<L, 4, 4, true>(&tile),
                            5 => tile_sums::<L, 5, 4, true>(&tile),
                            _ => tile_sums::<L, 6, 4, true>(&tile),
                        }
                        column += 4 * L::WIDTH;
                    } else if left >= 2 * L::WIDTH {
                        with_rows!(count, tile_sums::<L, 2, true>(&tile));
                        column += 2 * L::WIDTH;
                    } else if left > L::WIDTH {
                        with_rows!(count, tile_sums::<L, 2, false>(&tile));
                        column += 2 * L::WIDTH;
                    } else {
                        with_rows!(count, tile_sums::<L, 1, false>(&tile));
                        column += L::WIDTH;
                    }
                }
            }
            row += count;
        }
    }
}

/// Some rows and columns of a product; all addresses are of its first element.
struct Tile {
    inner: usize,
    a: *const f32,
    a_row: usize,
    a_inner: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    add: bool,
    /// Columns from the first on, of which the tile takes as many as its vectors hold.
    columns: usize,
}

/// Computes a tile of `ROWS` rows and `VECTORS` vectors, all of them full where `WHOLE`.
///
/// # Safety
/// The tile's part of `a` and `b` can be read and that of `c` read and written; it has at least `VECTORS * WIDTH`
/// columns if `WHOLE`, and more than one vector less in any case.
#[inline(always)]
unsafe fn tile_sums<L: Lanes, const ROWS: usize, const VECTORS: usize, const WHOLE: bool>(tile: &Tile) {
    let Tile { inner, a, a_row, a_inner, b, b_row, c, c_row, add, columns } = *tile;
    let last = if WHOLE { L::WIDTH } else { columns - (VECTORS - 1) * L::WIDTH };
    let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
    if inner >= 16 {
        // The destination is on its way while the sums are made.
        for row in 0..ROWS {
            for v in 0..VECTORS {
                L::prefetch(c.wrapping_add(row * c_row + v * L::WIDTH));
            }
        }
    }
    // SAFETY: k < inner, row < ROWS, and columns as the contract says.
    unsafe {
        for k in 0..inner {
            let (a, b) = (a.add(k * a_inner), b.add(k * b_row));
            let mut line = [L::splat(0.0); VECTORS];
            for v in 0..VECTORS {
                if VECTORS <= 2 {
                    L::prefetch(b.wrapping_add(8 * b_row + v * L::WIDTH));
                }
                line[v] = load::<L, WHOLE>(b.add(v * L::WIDTH), v + 1 == VECTORS, last);
            }
            for row in 0..ROWS {
                let value = L::splat(*a.add(row * a_row));
                for v in 0..VECTORS {
                    sums[row][v] = value.mul_add(line[v], sums[row][v]);
                }
            }
        }
        for row in 0..ROWS {
            for v in 0..VECTORS {
                let to = c.add(row * c_row + v * L::WIDTH);
                let (is_last, mut sum) = (v + 1 == VECTORS, sums[row][v]);
                if add {
                    sum = sum.add(load::<L, WHOLE>(to, is_last, last));
                }
                if WHOLE || !is_last { sum.store(to) } else { sum.store_some(to, last) }
            }
        }
    }
}

/// A vector, or the first `last` numbers of one that is the last and not `WHOLE`.
///
/// # Safety
/// The numbers can be read; `last <= WIDTH`.
#[inline(always)]
unsafe fn load<L: Lanes, const WHOLE: bool>(from: *const f32, is_last: bool, last: usize) -> L {
    // SAFETY: by this function's contract.
    unsafe { if WHOLE || !is_last { L::load(from) } else { L::load_some(from, last) } }
}

/// `c (+)= a b^T` for at most [`Dots::ROWS`] rows: rows of `a` are `a_row` numbers apart, rows of `b`, one for each column
/// of `c`, `b_row`.
pub(super) struct Dots<'a> {
    size: Size,
    a: &'a [f32],
    a_row: usize,
    b: &'a [f32],
    b_row: usize,
    c: Target<'a>,
}

impl<'a> Dots<'a> {
    /// Most rows.
    pub(super) const ROWS: usize = 4;

    /// # Panics
    /// If a matrix is shorter than its size, or there are too many rows.
    ///
    /// # Safety
    /// Until it has run, nobody else touches the elements of the destination.
    #[inline(always)]
    pub(super) unsafe fn new(
        size: Size,
        (a, a_row): (&'a [f32], usize),
        (b, b_row): (&'a [f32], usize),
        c: Target<'a>,
    ) -> Self {
        let Size { rows, inner, columns } = size;
        assert!((1..=Self::ROWS).contains(&rows) && columns > 0 && columns <= c.row);
        assert!((rows - 1) * a_row + inner <= a.len() && (columns - 1) * b_row + inner <= b.len());
        c.checked(rows - 1, columns);
        Self { size, a, a_row, b, b_row, c }
    }
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        // SAFETY: `new` has checked the number of rows.
        unsafe {
            match self.size.rows {
                1 => self.rows::<L, 1>(),
                2 => self.rows::<L, 2>(),
                3 => self.rows::<L, 3>(),
                _ => self.rows::<L, 4>(),
            }
        }
    }
}

impl Dots<'_> {
    /// # Safety
    /// `ROWS` is the number of rows.
    #[inline(always)]
    unsafe fn rows<L: Lanes, const ROWS: usize>(&self) {
        let columns = self.size.columns;
        let mut column = 0;
        // SAFETY: columns as the loops say, rows by this function's contract.
        unsafe {
            while column + 4 <= columns {
                self.columns::<L, ROWS, 4>(column);
                column += 4;
            }
            while column < columns {
                self.columns::<L, ROWS, 1>(column);
                column += 1;
            }
        }
    }

    /// # Safety
    /// `ROWS` is the number of rows, and there are `COLUMNS` columns from `column` on.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const ROWS: usize, const COLUMNS: usize>(&self, column: usize) {
        let inner = self.size.inner;
        let mut sums = [[L::splat(0.0); COLUMNS]; ROWS];
        // SAFETY: all that is read and written lies inside the matrices, whose sizes `new` has checked; nobody else
        // touches the destination, as its caller has vouched.
        unsafe {
            let b = self.b.as_ptr().add(column * self.b_row);
            let mut k = 0;
            while k + L::WIDTH <= inner {
                self.multiply::<L, ROWS, COLUMNS, true>(b, k, &mut sums);
                k += L::WIDTH;
            }
            if k < inner {
                self.multiply::<L, ROWS, COLUMNS, false>(b, k, &mut sums);
            }
            for row in 0..ROWS {
                for index in 0..COLUMNS {
                    let to = self.c.shared.at(self.c.start + row * self.c.row + column + index);
                    let sum = sums[row][index].sum();
                    *to = if self.c.add { *to + sum } else { sum };
                }
            }
        }
    }

    /// Adds the products of one vector, from number `k` of each row on.
    ///
    /// # Safety
    /// `ROWS` is the number of rows, `COLUMNS` rows of the other matrix can be read from `b` on; `k` is less than `inner`,
    /// by a vector at least if `WHOLE`.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, const ROWS: usize, const COLUMNS: usize, const WHOLE: bool>(
        &self,
        b: *const f32,
        k: usize,
        sums: &mut [[L; COLUMNS]; ROWS],
    ) {
        let count = if WHOLE { L::WIDTH } else { self.size.inner - k };
        // SAFETY: by this function's contract.
        unsafe {
            let mut line = [L::splat(0.0); COLUMNS];
            for index in 0..COLUMNS {
                line[index] = load::<L, WHOLE>(b.add(index * self.b_row + k), true, count);
            }
            for row in 0..ROWS {
                let values = load::<L, WHOLE>(self.a.as_ptr().add(row * self.a_row + k), true, count);
                for index in 0..COLUMNS {
                    sums[row][index] = values.mul_add(line[index], sums[row][index]);
                }
            }
        }
    }
}

/// The `rows` x `columns` block at the start of `from`, whose rows are `from_row` numbers apart, side by side in `to`.
pub(super) struct Pack<'a> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) from: &'a [f32],
    pub(super) from_row: usize,
    pub(super) to: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, columns, from, from_row, to } = self;
        if rows == 0 || columns == 0 {
            return;
        }
        assert!((rows - 1) * from_row + columns <= from.len() && rows * columns <= to.len());
        for row in 0..rows {
            // SAFETY: row and columns lie inside both slices, which were checked above.
            unsafe {
                let (from, to) = (from.as_ptr().add(row * from_row), to.as_mut_ptr().add(row * columns));
                for column in (0..columns).step_by(L::WIDTH) {
                    L::prefetch(from.wrapping_add(PACK_AHEAD * from_row + column));
                    L::load_within(from, column, columns).store_within(to, column, columns);
                }
            }
        }
    }
}
