//! Fully connected layers with bias and activation: the forward pass and all gradients.
//!
//! In: rows of features `[rows, inputs]` and weights `[inputs, outputs]`. Out: `[rows, outputs]`, or gradients of the
//! inputs. Flattening costs nothing in row-major order and is left to the caller.

use crate::activation::Activation;
use crate::matrix::{self, Matrix, Size};
use crate::scratch::Scratch;

/// `y = activation(x weight + bias)`: `x` `[rows, inputs]`, `weight` `[inputs, outputs]`, `bias` `[outputs]`, `y`
/// `[rows, outputs]`, overwritten.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    assert_eq!(x.len(), rows * inputs, "length of x");
    assert_eq!(weight.len(), inputs * outputs, "length of weight");
    assert_eq!(bias.len(), outputs, "length of bias");
    assert_eq!(y.len(), rows * outputs, "length of y");
    if y.is_empty() {
        return;
    }
    let size = Size { rows, inner: inputs, columns: outputs };
    matrix::multiply_parallel(size, Matrix::rows(x, inputs), Matrix::rows(weight, outputs), y);
    for row in y.chunks_exact_mut(outputs) {
        matrix::add(bias, row);
    }
    activation.forward(y);
}

/// Gradients of [`forward`]: of the input (`dx`, where wanted), the weights and the bias, all overwritten and summed
/// over the rows. `y` is what the forward pass returned, `dy` the gradient that arrives at it.
///
/// # Panics
/// If a slice has another length than its shape.
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn backward(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    weight: &[f32],
    y: &[f32],
    dy: &[f32],
    activation: Activation,
    dx: Option<&mut [f32]>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    assert_eq!(x.len(), rows * inputs, "length of x");
    assert_eq!(weight.len(), inputs * outputs, "length of weight");
    assert_eq!(y.len(), rows * outputs, "length of y");
    assert_eq!(dy.len(), rows * outputs, "length of dy");
    assert_eq!(dweight.len(), inputs * outputs, "length of dweight");
    assert_eq!(dbias.len(), outputs, "length of dbias");
    let mut inner = Scratch::take(dy.len()); // gradient before the activation: [rows, outputs]
    activation.backward_serial(y, dy, &mut inner);
    dbias.fill(0.0);
    if outputs > 0 {
        for row in inner.chunks_exact(outputs) {
            matrix::add(row, dbias);
        }
    }
    let size = Size { rows: inputs, inner: rows, columns: outputs };
    matrix::multiply_parallel(size, Matrix::transposed(x, inputs), Matrix::rows(&inner, outputs), dweight);
    if let Some(dx) = dx {
        assert_eq!(dx.len(), rows * inputs, "length of dx");
        let size = Size { rows, inner: outputs, columns: inputs };
        matrix::multiply_parallel(size, Matrix::rows(&inner, outputs), Matrix::transposed(weight, outputs), dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, finite_differences, numbers, same_for_any_thread_count, widen};
    use proptest::prelude::*;

    /// The definition, with tanh.
    fn reference(rows: usize, inputs: usize, outputs: usize, x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let mut y = Vec::new();
        for row in 0..rows {
            for output in 0..outputs {
                let total: f64 = (0..inputs).map(|i| x[row * inputs + i] * weight[i * outputs + output]).sum();
                y.push((total + bias[output]).tanh());
            }
        }
        y
    }

    fn check(rows: usize, inputs: usize, outputs: usize) {
        let (x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
        let (bias, dy) = (numbers(3, outputs), numbers(4, rows * outputs));
        let (wide_x, wide_weight, wide_bias) = (widen(&x), widen(&weight), widen(&bias));
        let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
        let (mut dweight, mut dbias) = (vec![f32::NAN; weight.len()], vec![f32::NAN; bias.len()]);
        forward(rows, inputs, outputs, &x, &weight, &bias, Activation::Tanh, &mut y);
        assert_close(&y, &reference(rows, inputs, outputs, &wide_x, &wide_weight, &wide_bias), 1e-5);
        let tanh = Activation::Tanh;
        backward(rows, inputs, outputs, &x, &weight, &y, &dy, tanh, Some(&mut dx), &mut dweight, &mut dbias);
        let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&reference(rows, inputs, outputs, x, w, b), &dy);
        assert_close(&dx, &finite_differences(&wide_x, |x| loss(x, &wide_weight, &wide_bias)), 2e-5);
        assert_close(&dweight, &finite_differences(&wide_weight, |w| loss(&wide_x, w, &wide_bias)), 2e-5);
        assert_close(&dbias, &finite_differences(&wide_bias, |b| loss(&wide_x, &wide_weight, b)), 2e-5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_shape_equals_the_definition(rows in 1_usize..5, inputs in 1_usize..12, outputs in 1_usize..12) {
            check(rows, inputs, outputs);
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads_and_nan_propagates() {
        let (rows, inputs, outputs) = (7, 3000, 90);
        let (mut x, weight) = (numbers(1, rows * inputs), numbers(2, inputs * outputs));
        x[inputs + 5] = f32::NAN;
        let (bias, dy) = (numbers(3, outputs), numbers(4, rows * outputs));
        let result = same_for_any_thread_count(|| {
            let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
            let (mut dweight, mut dbias) = (vec![0.0; weight.len()], vec![0.0; outputs]);
            let relu = Activation::Relu;
            forward(rows, inputs, outputs, &x, &weight, &bias, relu, &mut y);
            backward(rows, inputs, outputs, &x, &weight, &y, &dy, relu, Some(&mut dx), &mut dweight, &mut dbias);
            [y, dx, dweight, dbias].concat()
        });
        let (y, rest) = result.split_at(dy.len());
        assert!(y[outputs..2 * outputs].iter().all(|value| value.is_nan()));
        assert!(y[2 * outputs..].iter().all(|value| value.is_finite()));
        assert!(rest[inputs..2 * inputs].iter().all(|value| value.is_nan()));
        assert!(rest[2 * inputs..x.len()].iter().all(|value| value.is_finite()));
    }
}
