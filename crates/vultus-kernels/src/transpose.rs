//! Transposes of blocks of matrices, so that a loop can run along what were columns.
//!
//! In: rows, as far apart as the caller says. Out: their columns as rows, likewise.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;
    use crate::testing::{numbers, with_every_instruction_set};

    #[test]
    fn columns_become_rows_whatever_the_size() {
        for (rows, columns, from_row, to_row) in [(16, 16, 16, 16), (33, 20, 25, 40), (7, 50, 50, 7), (1, 1, 1, 1)] {
            let from = numbers(rows as u64, rows * from_row);
            with_every_instruction_set(|| {
                let mut to = vec![f32::NAN; columns * to_row];
                InstructionSet::best().run(Transpose { rows, columns, from: &from, from_row, to: &mut to, to_row });
                for (place, &value) in to.iter().enumerate() {
                    let (column, row) = (place / to_row, place % to_row);
                    if row < rows {
                        assert_eq!(
                            value,
                            from[row * from_row + column],
                            "{rows} x {columns}, row {row}, column {column}"
                        );
                    } else {
                        assert!(value.is_nan(), "written between the rows");
                    }
                }
            });
        }
    }
}
