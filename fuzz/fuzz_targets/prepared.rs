//! Convolutions prepared for inference, with residual, activation and pooling, against the definition.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use vultus_fuzz::{assert_within, convolution, convolution_shape, destination, numbers};
use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::{ConvolutionShape, Prepared};

fuzz_target!(|data: &[u8]| {
    let _ = check(&mut Unstructured::new(data));
});

fn check(u: &mut Unstructured) -> Result<()> {
    let shape = convolution_shape(u)?;
    // Weights are packed for another batch size than is run, which may call for another algorithm.
    let packed_for = ConvolutionShape { batch: u.int_in_range(1..=64)?, ..shape };
    let activation = *u.choose(&[Activation::Linear, Activation::Relu, Activation::Tanh])?;
    let (pool, with_residual): (bool, bool) = (u.arbitrary()?, u.arbitrary()?);
    let seed = u.int_in_range(0..=u64::from(u16::MAX))?;

    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let bias = numbers(seed + 2, shape.out_channels);
    let residual = numbers(seed + 3, shape.output_len());
    let residual = (with_residual && !pool).then_some(&residual[..]);
    let prepared = Prepared::new(&packed_for, &weight, &bias, activation, pool);
    assert_eq!(shape.batch * prepared.input_len(), x.len());
    let mut y = destination(shape.batch * prepared.output_len());
    prepared.run(shape.batch, &x, residual, &mut y);

    let mut expected = convolution(&shape, &x, &weight);
    // Errors are those of the sums, which no activation enlarges.
    let mut scale = 1.0_f64;
    for (index, value) in expected.iter_mut().enumerate() {
        *value += f64::from(bias[index % shape.out_channels]);
        *value += residual.map_or(0.0, |residual| f64::from(residual[index]));
        scale = scale.max(value.abs());
        *value = match activation {
            Activation::Relu => value.max(0.0),
            Activation::Tanh => value.tanh(),
            _ => *value,
        };
    }
    let expected = if pool { pooled(&shape, &expected) } else { expected };
    let case = || format!("{prepared:?}, seed {seed}, residual {with_residual}, {shape:?}");
    assert_within(&y, &expected, prepared.algorithm().tolerance() * scale, case);
    Ok(())
}

/// The largest of each 2 x 2 outputs; a last odd row or column is dropped.
fn pooled(shape: &ConvolutionShape, y: &[f64]) -> Vec<f64> {
    let (height, width, channels) = (shape.out_height(), shape.out_width(), shape.out_channels);
    let mut pooled = Vec::new();
    for (image, row) in (0..shape.batch).flat_map(|image| (0..height / 2).map(move |row| (image, row))) {
        for (column, channel) in (0..width / 2).flat_map(|c| (0..channels).map(move |channel| (c, channel))) {
            let at = |i, j| y[((image * height + 2 * row + i) * width + 2 * column + j) * channels + channel];
            pooled.push(f64::max(at(0, 0), at(0, 1)).max(at(1, 0)).max(at(1, 1)));
        }
    }
    pooled
}
