//! Matrix products: the only place that calls the `gemm` crate, and the only unsafe code.
//!
//! In: two matrices seen through strides. Out: their product in a row-major destination. How the work is cut follows
//! from the shapes alone, never from the number of threads. It does not add biases or apply activations.

use crate::scratch::Scratch;
use rayon::prelude::*;

/// Inner size of one part when a long inner dimension is cut.
const INNER_PER_PART: usize = 768;
/// Largest number of parts, and so of partial products that are held at once.
const MOST_PARTS: usize = 16;
/// Destinations up to this many elements are summed from partial products; larger ones are cut themselves.
const SMALL_DESTINATION: usize = 64 * 1024;
/// Smallest side of a destination block: narrower ones would spend their time packing the other operand.
const NARROWEST_BLOCK: usize = 64;

/// A matrix inside a slice: element (row, column) stands at `row * row_stride + column * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows are `row_stride` elements apart.
    pub(crate) fn rows(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, column_stride: 1 }
    }

    /// The transpose of [`Matrix::rows`], without moving anything.
    pub(crate) fn transposed(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride: 1, column_stride: row_stride }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.data.len()
    }

    fn skip(&self, rows: usize, columns: usize) -> Self {
        Self { data: &self.data[rows * self.row_stride + columns * self.column_stride..], ..*self }
    }
}

/// Whether a product replaces the destination or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Replace,
    Add,
}

/// Sizes of a product: `[rows, inner] x [inner, columns] -> [rows, columns]`.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
}

/// One product on the calling thread. `destination` is row-major with rows `row_stride` elements apart.
pub(crate) fn multiply(
    size: Size,
    left: Matrix,
    right: Matrix,
    store: Store,
    destination: &mut [f32],
    row_stride: usize,
) {
    let Size { rows, columns, .. } = size;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(row_stride >= columns && (rows - 1) * row_stride + columns <= destination.len());
    // SAFETY: the destination holds rows x columns elements at this stride, as checked just above, and no two of them
    // coincide because a row is at most `row_stride` long.
    unsafe { multiply_into(size, left, right, store, destination.as_mut_ptr(), row_stride) }
}

/// # Safety
/// `destination` must be valid for writes (and reads) of `rows` rows of `columns` elements, `row_stride` apart, and
/// nothing else may touch those elements meanwhile.
unsafe fn multiply_into(
    size: Size,
    left: Matrix,
    right: Matrix,
    store: Store,
    destination: *mut f32,
    row_stride: usize,
) {
    let Size { rows, inner, columns } = size;
    assert!(left.holds(rows, inner) && right.holds(inner, columns), "a matrix is shorter than its shape");
    if inner == 0 {
        if store == Store::Replace {
            for row in 0..rows {
                // SAFETY: inside the destination, by this function's contract.
                unsafe { std::slice::from_raw_parts_mut(destination.add(row * row_stride), columns) }.fill(0.0);
            }
        }
        return;
    }
    // SAFETY: both operands hold every element that their strides reach (asserted above), the destination does by
    // this function's contract, and slices are never longer than isize::MAX bytes, so the casts keep their values.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            destination,
            1,
            row_stride as isize,
            store == Store::Add,
            left.data.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.data.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// A destination that tasks write disjoint blocks of.
#[derive(Clone, Copy)]
struct Blocks(*mut f32);

// SAFETY: the pointer is only used for writes to blocks that no two tasks share.
unsafe impl Send for Blocks {}
// SAFETY: as above.
unsafe impl Sync for Blocks {}

impl Blocks {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// One product on all threads; `destination` is `[rows, columns]`, contiguous, and replaced.
pub(crate) fn multiply_parallel(size: Size, left: Matrix, right: Matrix, destination: &mut [f32]) {
    let Size { rows, inner, columns } = size;
    assert_eq!(destination.len(), rows * columns);
    if destination.is_empty() || inner == 0 {
        // A sum of nothing; blocks could not be cut from operands without elements.
        destination.fill(0.0);
        return;
    }
    if destination.len() <= SMALL_DESTINATION && inner >= 2 * INNER_PER_PART {
        return multiply_by_parts(size, left, right, destination);
    }
    let blocks = Blocks(destination.as_mut_ptr());
    let along_columns = columns >= rows;
    let side = rows.max(columns);
    let block = side.div_ceil(MOST_PARTS).max(NARROWEST_BLOCK);
    (0..side.div_ceil(block)).into_par_iter().for_each(|index| {
        let start = index * block;
        let length = block.min(side - start);
        // SAFETY: blocks are disjoint ranges of columns (or rows) of a destination of rows x columns elements, which
        // stays mutably borrowed until every task has ended.
        unsafe {
            if along_columns {
                let part = Size { rows, inner, columns: length };
                multiply_into(part, left, right.skip(0, start), Store::Replace, blocks.at(start), columns);
            } else {
                let part = Size { rows: length, inner, columns };
                let offset = start * columns;
                multiply_into(part, left.skip(start, 0), right, Store::Replace, blocks.at(offset), columns);
            }
        }
    });
}

/// Cuts the inner dimension: partial products side by side, then one sum in fixed order.
fn multiply_by_parts(size: Size, left: Matrix, right: Matrix, destination: &mut [f32]) {
    let Size { rows, inner, columns } = size;
    let part = inner.div_ceil(MOST_PARTS).max(INNER_PER_PART);
    let mut partial = Scratch::take(inner.div_ceil(part) * destination.len());
    partial.par_chunks_mut(destination.len()).enumerate().for_each(|(index, product)| {
        let start = index * part;
        let piece = Size { rows, inner: part.min(inner - start), columns };
        multiply(piece, left.skip(0, start), right.skip(start, 0), Store::Replace, product, columns);
    });
    for (index, product) in partial.chunks(destination.len()).enumerate() {
        if index == 0 {
            destination.copy_from_slice(product);
        } else {
            add(product, destination);
        }
    }
}

/// `sum += term`, element by element.
pub(crate) fn add(term: &[f32], sum: &mut [f32]) {
    for (sum, term) in sum.iter_mut().zip(term) {
        *sum += term;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers, same_for_any_thread_count};
    use proptest::prelude::*;

    fn reference(size: Size, left: &[f32], right: &[f32]) -> Vec<f64> {
        let mut product = vec![0.0; size.rows * size.columns];
        for row in 0..size.rows {
            for column in 0..size.columns {
                product[row * size.columns + column] = (0..size.inner)
                    .map(|k| left[row * size.inner + k] as f64 * right[k * size.columns + column] as f64)
                    .sum();
            }
        }
        product
    }

    fn check(size: Size) {
        let (left, right) = (numbers(1, size.rows * size.inner), numbers(2, size.inner * size.columns));
        let expected = reference(size, &left, &right);
        let product = same_for_any_thread_count(|| {
            let mut product = vec![f32::NAN; size.rows * size.columns];
            multiply_parallel(size, Matrix::rows(&left, size.inner), Matrix::rows(&right, size.columns), &mut product);
            product
        });
        assert_close(&product, &expected, 1e-5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn products_equal_the_plain_sum(rows in 0_usize..90, inner in 0_usize..40, columns in 0_usize..90) {
            check(Size { rows, inner, columns });
        }
    }

    #[test]
    fn every_way_of_cutting_gives_the_product() {
        check(Size { rows: 5, inner: 2000, columns: 7 });
        check(Size { rows: 300, inner: 9, columns: 20 });
        check(Size { rows: 20, inner: 9, columns: 300 });
        check(Size { rows: 1, inner: 0, columns: 65 });
    }

    #[test]
    fn a_transposed_view_and_an_added_product_give_the_sum() {
        let (left, right) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        let size = Size { rows: 2, inner: 2, columns: 2 };
        let mut destination = [100.0; 5];
        let (left, right) = (Matrix::transposed(&left, 2), Matrix::rows(&right, 2));
        multiply(size, left, right, Store::Add, &mut destination, 3);
        assert_eq!(destination, [126.0, 130.0, 100.0, 138.0, 144.0]);
    }
}
