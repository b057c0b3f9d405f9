//! Updates of the Muon optimiser (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"), whose direction
//! is the orthogonal matrix nearest to what other optimisers would take.
//!
//! In: a matrix, its gradient and its velocity. Out: matrix and velocity, updated in place. With `U S V^T` the singular value
//! decomposition of the direction it becomes about `U V^T`: singular values between 0.7 and 1.2 instead of all 1, which is as
//! good for an update and takes five steps of a Newton-Schulz iteration.

use crate::ELEMENTS_PER_TASK;
use crate::activation::Activation;
use crate::dense;
use crate::optimizer::squared_sum;
use crate::scratch::Scratch;
use crate::simd::{InstructionSet, Kernel, Lanes};
use crate::sizes::elements;
use crate::threads::{share_chunks, share_items};
use crate::transpose::Transpose;

/// Steps of the iteration.
pub const STEPS: usize = 5;

/// Coefficients of `p(s) = a s + b s^3 + c s^5`, which takes small singular values up fastest (Jordan et al. 2024).
pub const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// Added to the norm of the matrix, so that one of zeros is not divided by zero.
pub const TINY: f64 = 1e-7;

/// What one step of Muon needs to know besides the tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonUpdate {
    /// Step size, the matrix's share of it included.
    pub learning_rate: f32,
    /// Share of the velocity that is kept.
    pub momentum: f32,
    /// Multiplies the gradient first: 1, or what clipping makes of it.
    pub scale: f32,
    /// Multiplies the parameter first: 1, or what decay leaves of it.
    pub kept: f32,
}

/// One step of Muon (Jordan et al. 2024) for a matrix `[rows, columns]`: `v = momentum * v + g`, then
/// `p = kept * p - learning_rate * O(g + momentum * v)` with [`orthogonalize`] for `O`. `gradient` is overwritten. Products
/// are rounded before they are added, so that every instruction set gives the same velocities.
///
/// # Panics
/// If a slice's length is not `rows * columns`.
pub fn muon(
    update: &MuonUpdate,
    [rows, columns]: [usize; 2],
    parameter: &mut [f32],
    gradient: &mut [f32],
    velocity: &mut [f32],
) {
    assert_eq!(gradient.len(), parameter.len(), "length of gradient");
    assert_eq!(velocity.len(), parameter.len(), "length of velocity");
    let set = InstructionSet::best();
    let values = gradient.chunks_mut(ELEMENTS_PER_TASK).zip(velocity.chunks_mut(ELEMENTS_PER_TASK));
    share_items(values, |_, (gradient, velocity)| set.run(Momentum { update, gradient, velocity }));
    orthogonalize(rows, columns, gradient);
    let values = parameter.chunks_mut(ELEMENTS_PER_TASK).zip(gradient.chunks(ELEMENTS_PER_TASK));
    share_items(values, |_, (parameter, direction)| set.run(Descent { update, parameter, direction }));
}

/// Velocity and direction of [`muon`], before the latter is orthogonal.
struct Momentum<'a> {
    update: &'a MuonUpdate,
    /// Becomes the direction.
    gradient: &'a mut [f32],
    velocity: &'a mut [f32],
}

impl Kernel for Momentum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let MuonUpdate { momentum, scale, .. } = *self.update;
        let length = self.gradient.len();
        assert_eq!(self.velocity.len(), length);
        let (gradient, velocity) = (self.gradient.as_mut_ptr(), self.velocity.as_mut_ptr());
        for index in (0..length).step_by(L::WIDTH) {
            // SAFETY: both slices hold `length` numbers, as checked above; nothing is read or written beyond.
            unsafe {
                let g = L::load_within(gradient, index, length).times(scale);
                let v = L::load_within(velocity, index, length).times(momentum).add(g);
                v.store_within(velocity, index, length);
                g.add(v.times(momentum)).store_within(gradient, index, length);
            }
        }
    }
}

/// The parameter of [`muon`].
struct Descent<'a> {
    update: &'a MuonUpdate,
    parameter: &'a mut [f32],
    direction: &'a [f32],
}

impl Kernel for Descent<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let MuonUpdate { learning_rate, kept, .. } = *self.update;
        let length = self.parameter.len();
        assert_eq!(self.direction.len(), length);
        let (parameter, direction) = (self.parameter.as_mut_ptr(), self.direction.as_ptr());
        for index in (0..length).step_by(L::WIDTH) {
            // SAFETY: both slices hold `length` numbers, as checked above; nothing is read or written beyond.
            unsafe {
                let step = L::load_within(direction, index, length).times(learning_rate);
                L::load_within(parameter, index, length).times(kept).sub(step).store_within(parameter, index, length);
            }
        }
    }
}

/// Makes `matrix` `[rows, columns]`, row-major, about orthogonal. A matrix of zeros stays one; with a NaN or an
/// infinity in it all becomes NaN.
///
/// # Panics
/// If the length of `matrix` is not `rows * columns`.
pub fn orthogonalize(rows: usize, columns: usize, matrix: &mut [f32]) {
    assert_eq!(matrix.len(), elements([rows, columns]), "length of the matrix");
    if matrix.is_empty() {
        return;
    }
    let factor = (1.0 / (squared_sum(matrix).sqrt() + TINY)) as f32;
    share_chunks(matrix, ELEMENTS_PER_TASK, |_, part| part.iter_mut().for_each(|value| *value *= factor));
    if rows < columns {
        let mut tall = transposed(rows, columns, matrix);
        iterate(columns, rows, &mut tall);
        matrix.copy_from_slice(&transposed(columns, rows, &tall));
    } else {
        iterate(rows, columns, matrix);
    }
}

/// `X <- X P` with `P = a I + b G + c G^2` and `G = X^T X`, for a matrix of at least as many rows as columns. All `P` are
/// polynomials of the first `G`: they are multiplied together, and `G <- P G P` follows without `X`, whose rows are many.
fn iterate(rows: usize, columns: usize, x: &mut [f32]) {
    let [a, b, c] = COEFFICIENTS;
    let zeros = Scratch::zeros(columns);
    let rows_at_once = ELEMENTS_PER_TASK.div_ceil(columns);
    let product = |rows: usize, left: &[f32], right: &[f32], out: &mut [f32]| {
        dense::forward(rows, columns, columns, left, right, &zeros, Activation::Linear, out);
    };
    let [mut gram, mut step, mut spare, mut all] = [(); 4].map(|()| Scratch::take(columns * columns));
    dense::weight_gradient_by(InstructionSet::best(), rows, columns, columns, x, x, &mut gram);
    for count in 1..=STEPS {
        product(columns, &gram, &gram, &mut step);
        share_chunks(&mut step, rows_at_once * columns, |task, squares| {
            let first = task * rows_at_once;
            let gram = &gram[first * columns..][..squares.len()];
            squares.iter_mut().zip(gram).for_each(|(square, gram)| *square = b * gram + c * *square);
            squares[first..].iter_mut().step_by(columns + 1).for_each(|value| *value += a);
        });
        if count == 1 {
            all.copy_from_slice(&step);
        } else {
            product(columns, &all, &step, &mut spare);
            std::mem::swap(&mut all, &mut spare);
        }
        if count < STEPS {
            product(columns, &step, &gram, &mut spare);
            product(columns, &spare, &step, &mut gram);
        }
    }
    let mut orthogonal = Scratch::take(x.len());
    product(rows, x, &all, &mut orthogonal);
    share_chunks(x, ELEMENTS_PER_TASK, |task, part| {
        part.copy_from_slice(&orthogonal[task * ELEMENTS_PER_TASK..][..part.len()]);
    });
}

fn transposed(rows: usize, columns: usize, matrix: &[f32]) -> Scratch {
    let mut turned = Scratch::take(matrix.len());
    let to = &mut turned;
    InstructionSet::best().run(Transpose { rows, columns, from: matrix, from_row: columns, to, to_row: rows });
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, same_for_any_thread_count};

    #[test]
    fn every_instruction_set_gives_the_same_velocities() {
        let update = MuonUpdate { learning_rate: 0.1, momentum: 0.5, scale: 0.7, kept: 0.9 };
        for length in [1, 7, 16, 45] {
            let results = InstructionSet::available().into_iter().map(|set| {
                let [mut parameter, mut gradient, mut velocity] = [1, 2, 3].map(|seed| numbers(seed, length));
                set.run(Momentum { update: &update, gradient: &mut gradient, velocity: &mut velocity });
                set.run(Descent { update: &update, parameter: &mut parameter, direction: &gradient });
                [parameter, gradient, velocity].concat()
            });
            let results: Vec<_> = results.collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "length {length}");
        }
    }

    /// With a matrix of one row and one column the direction is the sign of what it is made of, about.
    #[test]
    fn muon_equals_a_hand_calculation() {
        let update = MuonUpdate { learning_rate: 0.1, momentum: 0.5, scale: 0.5, kept: 0.9 };
        let (mut parameter, mut gradient, mut velocity) = ([1.0], [2.0], [-8.0]);
        muon(&update, [1, 1], &mut parameter, &mut gradient, &mut velocity);
        // g = 0.5 * 2 = 1; v = 0.5 * -8 + 1 = -3; g + 0.5 v = -0.5.
        let mut direction = [-0.5];
        orthogonalize(1, 1, &mut direction);
        assert_eq!((velocity, gradient), ([-3.0], direction));
        assert!((parameter[0] - (0.9 - 0.1 * direction[0])).abs() < 1e-6 && direction[0] < -0.6, "{parameter:?}");
    }

    /// `X^T X` of a tall matrix, `X X^T` of a wide one.
    fn gram(rows: usize, columns: usize, x: &[f32]) -> Vec<f64> {
        let (long, short) = (rows.max(columns), rows.min(columns));
        let at = |i: usize, j: usize| f64::from(if rows >= columns { x[i * columns + j] } else { x[j * columns + i] });
        (0..short * short).map(|place| (0..long).map(|i| at(i, place / short) * at(i, place % short)).sum()).collect()
    }

    #[test]
    fn singular_values_come_near_one() {
        for (rows, columns) in [(40, 12), (12, 40), (16, 16), (9, 1), (1, 9), (288, 64)] {
            let mut matrix = numbers(3, rows * columns);
            orthogonalize(rows, columns, &mut matrix);
            let short = rows.min(columns);
            let gram = gram(rows, columns, &matrix);
            // The trace is the sum of the squared singular values; Gershgorin's circles bound the largest.
            let trace: f64 = (0..short).map(|i| gram[i * short + i]).sum();
            assert!((0.4..1.5).contains(&(trace / short as f64)), "{rows} x {columns}: {trace}");
            let squares: f64 = gram.iter().map(|value| value * value).sum();
            assert!(squares / short as f64 <= 1.3_f64.powi(4), "{rows} x {columns}: {squares}");
        }
    }

    /// The iteration as it is defined, in double precision.
    fn by_definition(rows: usize, columns: usize, matrix: &[f32]) -> Vec<f64> {
        let [a, b, c] = COEFFICIENTS.map(f64::from);
        let norm = matrix.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let mut x: Vec<f64> = matrix.iter().map(|&value| f64::from(value) / norm).collect();
        let product = |height: usize, left: &[f64], right: &[f64]| -> Vec<f64> {
            let at = |row: usize, column: usize| -> f64 {
                (0..columns).map(|i| left[row * columns + i] * right[i * columns + column]).sum()
            };
            (0..height * columns).map(|place| at(place / columns, place % columns)).collect()
        };
        for _ in 0..STEPS {
            let entry = |i: usize, j: usize| (0..rows).map(|row| x[row * columns + i] * x[row * columns + j]).sum();
            let gram: Vec<f64> = (0..columns * columns).map(|place| entry(place / columns, place % columns)).collect();
            let square = product(columns, &gram, &gram);
            let step: Vec<f64> = gram.iter().zip(square).map(|(gram, square)| b * gram + c * square).collect();
            let change = product(rows, &x, &step);
            x.iter_mut().zip(change).for_each(|(x, change)| *x = a * *x + change);
        }
        x
    }

    #[test]
    fn small_singular_values_are_taken_up_as_defined() {
        // Column after column shorter, down to a hundred thousandth, and mixed with its neighbours.
        let (rows, columns) = (72, 24);
        let mut matrix = numbers(7, rows * columns);
        for row in matrix.chunks_exact_mut(columns) {
            (0..columns).for_each(|column| row[column] *= 10.0_f32.powf(-5.0 * column as f32 / 23.0));
            (1..columns).for_each(|column| row[column] += 0.5 * row[column - 1]);
        }
        let expected = by_definition(rows, columns, &matrix);
        orthogonalize(rows, columns, &mut matrix);
        for (found, expected) in matrix.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-4, "{found} {expected}");
        }
    }

    #[test]
    fn a_scaled_rotation_comes_back_as_a_multiple_of_itself() {
        let (sin, cos) = 0.7_f32.sin_cos();
        let mut matrix = [0.01 * cos, -0.01 * sin, 0.01 * sin, 0.01 * cos];
        orthogonalize(2, 2, &mut matrix);
        let factor = matrix[0] / cos;
        assert!((0.7..1.25).contains(&factor), "{factor}");
        for (found, expected) in matrix.iter().zip([cos, -sin, sin, cos]) {
            assert!((found - factor * expected).abs() < 1e-5, "{matrix:?}");
        }
    }

    #[test]
    fn zeros_stay_and_what_is_no_number_spreads_to_all() {
        let mut zeros = vec![0.0; 12];
        orthogonalize(4, 3, &mut zeros);
        assert_eq!(zeros, [0.0; 12]);
        for (rows, columns) in [(4, 3), (3, 4), (12, 1), (1, 12)] {
            for value in [f32::NAN, f32::INFINITY] {
                let mut broken = numbers(1, 12);
                broken[5] = value;
                orthogonalize(rows, columns, &mut broken);
                assert!(broken.iter().all(|value| value.is_nan()), "{rows} x {columns}, {value}: {broken:?}");
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let update = MuonUpdate { learning_rate: 0.1, momentum: 0.5, scale: 0.5, kept: 0.9 };
        same_for_any_thread_count(|| {
            let [mut parameter, mut gradient, mut velocity] = [5, 6, 7].map(|seed| numbers(seed, 576 * 64));
            muon(&update, [576, 64], &mut parameter, &mut gradient, &mut velocity);
            [parameter, gradient, velocity].concat()
        });
    }
}
