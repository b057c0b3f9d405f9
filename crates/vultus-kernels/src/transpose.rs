//! Blocks of matrices turned over, so that a loop can run along what were columns.

use crate::simd::{Kernel, Lanes};

/// The transpose of the `rows` x `columns` block at the start of `from`, whose rows are `from_row` numbers apart: its
/// columns become rows of `to`, `to_row` numbers apart.
pub(crate) struct Transpose<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) from: &'a [f32],
    pub(crate) from_row: usize,
    pub(crate) to: &'a mut [f32],
    pub(crate) to_row: usize,
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self { rows, columns, from, from_row, to, to_row } = self;
        if rows == 0 || columns == 0 {
            return;
        }
        assert!((rows - 1) * from_row + columns <= from.len() && (columns - 1) * to_row + rows <= to.len());
        for row in (0..rows).step_by(L::WIDTH) {
            for column in (0..columns).step_by(L::WIDTH) {
                let (row_end, column_end) = (row + L::WIDTH, column + L::WIDTH);
                if row_end <= rows && column_end <= columns {
                    // SAFETY: the block lies inside both slices, which were checked above.
                    unsafe {
                        let from = from.as_ptr().add(row * from_row + column);
                        L::transpose(from, from_row, to.as_mut_ptr().add(column * to_row + row), to_row);
                    }
                    continue;
                }
                for column in column..column_end.min(columns) {
                    for row in row..row_end.min(rows) {
                        to[column * to_row + row] = from[row * from_row + column];
                    }
                }
            }
        }
    }
}
