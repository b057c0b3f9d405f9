//! Fully connected layers with bias and activation: the forward pass and all gradients.
//!
//! In: rows of features `[rows, inputs]` and weights `[inputs, outputs]`. Out: `[rows, outputs]`, or gradients of the
//! inputs. Weights are read where they lie, once from memory for each block of rows. How the work is cut into tasks
//! follows from the sizes alone, and where the sum of an output is cut from its length: a row's outputs are the same to
//! the last bit whatever other rows come with it. Flattening costs nothing in row-major order and is left to the
//! caller.

mod product;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::product::{Dots, Pack, Product, Size, Target};
use crate::activation::Activation;
use crate::scratch::Scratch;
use crate::shared::Shared;
use crate::simd::InstructionSet;
use crate::sizes::elements;
use crate::sum::add_serial;
use crate::threads::{share_chunks, share_runs};
use crate::transpose::Transpose;

/// Most products that one running sum takes in: so many rounding errors add up, and not thousands more.
const DEPTH: usize = 512;
/// As [`DEPTH`] for gradients of weights, so that what is packed of the features stays in the second-level cache.
const GRADIENT_DEPTH: usize = 128;
/// Most rows and columns of outputs of one task, so that their features and weights stay in the second-level cache.
const BLOCK_ROWS: usize = 128;
const BLOCK_COLUMNS: usize = 128;
/// Fewer blocks of outputs are not tasks enough for a forward pass: there pieces of a sum are tasks, too, and half a block is a block.
const ENOUGH_BLOCKS: usize = 16;
/// From more than so many rows on they are not: it would take longer to write and read the sums of all pieces.
const ROWS_APART: usize = 2 * BLOCK_ROWS;
/// Inputs of one step of the gradient of the input, and most of one of the weights': multiples of every tile and of a cache line.
const INPUT_STEP: usize = 128;
const WEIGHT_STEP: usize = 384;
/// As many steps are sought for the gradient of the weights, of no fewer inputs than these.
const ENOUGH_STEPS: usize = 8;
const LEAST_WEIGHT_STEP: usize = 48;
/// Up to so many rows features are not packed before a gradient of weights.
const FEW_ROWS: usize = 8;
/// From more than so many rows on, weights that lie far apart are packed before a forward pass.
const MANY_ROWS: usize = 12;
/// Least work of a task, in multiply-adds: some ten microseconds.
const TASK_WORK: usize = 512 * 1024;
/// Multiply-adds that could be done while one weight is read from memory.
const WORK_OF_READING: usize = 8;
/// Numbers that one task of the last step of a forward pass reads.
const FINISH_NUMBERS: usize = 32 * 1024;

/// How many pieces of at most `most` things `length` of them are cut in: one, or an even number, so that two cores
/// share them well.
fn cut(length: usize, most: usize) -> usize {
    if length > most { length.div_ceil(most).next_multiple_of(2) } else { 1 }
}

/// Part `index` of `length` things that are cut into `parts` parts.
fn part_of(length: usize, parts: usize, index: usize) -> Range<usize> {
    length * index / parts..length * (index + 1) / parts
}

/// Steps of `weights` weights each that make a task.
fn steps_of_task(weights: usize, rows: usize) -> usize {
    TASK_WORK.div_ceil((weights * (rows + WORK_OF_READING)).max(1))
}

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
    forward_by(InstructionSet::best(), rows, inputs, outputs, x, weight, bias, activation, y);
}

/// [`forward`] by a given instruction set; for tests and benchmarks.
///
/// # Panics
/// As [`forward`].
#[expect(clippy::too_many_arguments, reason = "a kernel's signature names every slice it reads and writes")]
pub fn forward_by(
    set: InstructionSet,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
    y: &mut [f32],
) {
    assert_eq!(x.len(), elements([rows, inputs]), "length of x");
    assert_eq!(weight.len(), elements([inputs, outputs]), "length of weight");
    assert_eq!(bias.len(), outputs, "length of bias");
    assert_eq!(y.len(), elements([rows, outputs]), "length of y");
    if y.is_empty() {
        return;
    }
    let (column_blocks, pieces) = (outputs.div_ceil(BLOCK_COLUMNS), cut(inputs, DEPTH));
    // Where whole blocks and pieces are no tasks for many cores, half a block is one.
    let few = cut(rows, BLOCK_ROWS) * column_blocks * pieces < ENOUGH_BLOCKS;
    let row_blocks = cut(rows, if few { BLOCK_ROWS / 2 } else { BLOCK_ROWS });
    let blocks = row_blocks * column_blocks;
    // Apart, pieces have sums of their own, which are added up at the end; else a block's task adds one after the other
    // to the output. The order of the additions is the same.
    let parts = if blocks < ENOUGH_BLOCKS && rows <= ROWS_APART { pieces } else { 1 };
    let mut partial = Scratch::take(if parts > 1 { parts * y.len() } else { 0 });
    let length = y.len();
    let target = Shared::new(if parts > 1 { &mut partial } else { &mut *y });
    let steps = steps_of_task((inputs * outputs).div_ceil(parts * column_blocks), rows.div_ceil(row_blocks));
    share_runs(parts * blocks, steps, |task| {
        let (part, block) = (task / blocks, task % blocks);
        let rows = part_of(rows, row_blocks, block / column_blocks);
        let first = block % column_blocks * BLOCK_COLUMNS;
        let columns = BLOCK_COLUMNS.min(outputs - first);
        let of_part = part_of(pieces, parts, part);
        for piece in of_part.clone() {
            let depth = part_of(inputs, pieces, piece);
            let (k, inner) = (depth.start, depth.len());
            let size = Size { rows: rows.len(), inner, columns };
            let start = part * length + rows.start * outputs + first;
            let c = Target { shared: target, start, row: outputs, add: piece > of_part.start };
            let (x, weight) = (&x[rows.start * inputs + k..], &weight[(k * outputs + first).min(weight.len())..]);
            // Weights that lie far apart are brought together where several tiles of rows read them.
            let far = column_blocks > 1 && rows.len() > MANY_ROWS;
            let mut packed = Scratch::take(if far { inner * columns } else { 0 });
            let lines = if far {
                set.run(Pack { rows: inner, columns, from: weight, from_row: outputs, to: &mut packed });
                (&packed[..], columns)
            } else {
                (weight, outputs)
            };
            // SAFETY: the rows and columns of this part of the sums are this task's own.
            set.run(unsafe { Product::new(size, (x, inputs, 1), lines, c) });
        }
    });
    let rows_at_once = (FINISH_NUMBERS / (parts * outputs)).max(1);
    share_chunks(y, rows_at_once * outputs, |task, y| {
        let start = task * rows_at_once * outputs;
        if parts > 1 {
            y.copy_from_slice(&partial[start..][..y.len()]);
            for part in 1..parts {
                add_serial(y, &partial[part * length + start..][..y.len()]);
            }
        }
        for row in y.chunks_exact_mut(outputs) {
            add_serial(row, bias);
        }
        if activation != Activation::Linear {
            activation.forward_serial(y);
        }
    });
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
    assert_eq!(y.len(), elements([rows, outputs]), "length of y");
    assert_eq!(dy.len(), elements([rows, outputs]), "length of dy");
    assert_eq!(dbias.len(), outputs, "length of dbias");
    let linear = activation == Activation::Linear;
    let mut before = Scratch::take(if linear { 0 } else { dy.len() });
    // The gradient before the activation: [rows, outputs].
    let gradient = if linear {
        dy
    } else {
        activation.backward_serial(y, dy, &mut before);
        &before
    };
    bias_gradient(outputs, gradient, dbias);
    let set = InstructionSet::best();
    weight_gradient_by(set, rows, inputs, outputs, x, gradient, dweight);
    if let Some(dx) = dx {
        input_gradient_by(set, rows, inputs, outputs, gradient, weight, dx);
    } else {
        assert_eq!(weight.len(), elements([inputs, outputs]), "length of weight");
    }
}

/// Sums over the rows, in parts of at most [`DEPTH`] rows.
fn bias_gradient(outputs: usize, gradient: &[f32], dbias: &mut [f32]) {
    dbias.fill(0.0);
    if gradient.is_empty() {
        return;
    }
    let mut sums = Scratch::take(outputs);
    for part in gradient.chunks(DEPTH * outputs) {
        sums.fill(0.0);
        for row in part.chunks_exact(outputs) {
            add_serial(&mut sums, row);
        }
        add_serial(dbias, &sums);
    }
}

/// Gradient of the weights by a given instruction set, overwritten; `dy` is the gradient before the activation. For
/// tests and benchmarks; [`backward`] otherwise.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn weight_gradient_by(
    set: InstructionSet,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    dy: &[f32],
    dweight: &mut [f32],
) {
    assert_eq!(x.len(), elements([rows, inputs]), "length of x");
    assert_eq!(dy.len(), elements([rows, outputs]), "length of dy");
    assert_eq!(dweight.len(), elements([inputs, outputs]), "length of dweight");
    if dweight.is_empty() {
        return;
    }
    if rows == 0 {
        dweight.fill(0.0);
        return;
    }
    let target = Shared::new(dweight);
    let pieces = rows.div_ceil(GRADIENT_DEPTH);
    let step = inputs.div_ceil(ENOUGH_STEPS).next_multiple_of(LEAST_WEIGHT_STEP).min(WEIGHT_STEP);
    let steps = steps_of_task(step * outputs, rows);
    share_runs(inputs.div_ceil(step), steps, |block| {
        let first = block * step;
        let width = step.min(inputs - first);
        for piece in 0..pieces {
            let rows = part_of(rows, pieces, piece);
            let (from, inner) = (&x[rows.start * inputs + first..], rows.len());
            // Features of this block, side by side: where they lie, a column of them fills few places of a cache.
            let mut packed = Scratch::take(if inner <= FEW_ROWS { 0 } else { inner * width });
            let features = if inner <= FEW_ROWS {
                (from, 1, inputs)
            } else {
                set.run(Pack { rows: inner, columns: width, from, from_row: inputs, to: &mut packed });
                (&packed[..], 1, width)
            };
            for column in (0..outputs).step_by(BLOCK_COLUMNS) {
                let size = Size { rows: width, inner, columns: BLOCK_COLUMNS.min(outputs - column) };
                let start = first * outputs + column;
                let c = Target { shared: target, start, row: outputs, add: piece > 0 };
                let dy = &dy[rows.start * outputs + column..];
                // SAFETY: the rows of the gradient that belong to this block are this task's own.
                set.run(unsafe { Product::new(size, features, (dy, outputs), c) });
            }
        }
    });
}

/// Gradient of the input by a given instruction set, overwritten; `dy` is the gradient before the activation. For tests
/// and benchmarks; [`backward`] otherwise.
///
/// # Panics
/// If a slice has another length than its shape.
pub fn input_gradient_by(
    set: InstructionSet,
    rows: usize,
    inputs: usize,
    outputs: usize,
    dy: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    assert_eq!(dy.len(), elements([rows, outputs]), "length of dy");
    assert_eq!(weight.len(), elements([inputs, outputs]), "length of weight");
    assert_eq!(dx.len(), elements([rows, inputs]), "length of dx");
    if dx.is_empty() {
        return;
    }
    if outputs == 0 {
        dx.fill(0.0);
        return;
    }
    let target = Shared::new(dx);
    let pieces = outputs.div_ceil(DEPTH);
    let steps = steps_of_task(INPUT_STEP * outputs, rows);
    share_runs(inputs.div_ceil(INPUT_STEP), steps, |block| {
        let first = block * INPUT_STEP;
        let width = INPUT_STEP.min(inputs - first);
        for piece in 0..pieces {
            let depth = part_of(outputs, pieces, piece);
            let size = Size { rows, inner: depth.len(), columns: width };
            let c = Target { shared: target, start: first, row: inputs, add: piece > 0 };
            let (weight, dy) = (&weight[first * outputs + depth.start..], &dy[depth.start..]);
            if rows <= Dots::ROWS {
                // SAFETY: the columns of the gradient that belong to this block are this task's own.
                set.run(unsafe { Dots::new(size, (dy, outputs), (weight, outputs), c) });
                continue;
            }
            let mut turned = Scratch::take(depth.len() * INPUT_STEP);
            set.run(Transpose {
                rows: width,
                columns: depth.len(),
                from: weight,
                from_row: outputs,
                to: &mut turned,
                to_row: INPUT_STEP,
            });
            // SAFETY: as above.
            set.run(unsafe { Product::new(size, (dy, outputs, 1), (&turned, INPUT_STEP), c) });
        }
    });
}
