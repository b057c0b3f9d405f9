//! Convolutions, forward and both gradients, by any algorithm and instruction set, against the definition.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use vultus_fuzz::{assert_close, assert_sums, convolution, convolution_shape, destination, each_tap, numbers};
use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::{
    Algorithm, ConvolutionShape, backward, forward_by, input_gradient_by, weight_gradient_by,
};
use vultus_kernels::simd::InstructionSet;

fuzz_target!(|data: &[u8]| {
    let _ = check(&mut Unstructured::new(data));
});

fn check(u: &mut Unstructured) -> Result<()> {
    let shape = convolution_shape(u)?;
    let possible: Vec<Algorithm> = Algorithm::ALL.into_iter().filter(|algorithm| algorithm.can(&shape)).collect();
    let algorithm = *u.choose(&possible)?;
    // As everywhere, VULTUS_SIMD bounds what is used.
    let mut sets = InstructionSet::available();
    sets.retain(|&set| set <= InstructionSet::best());
    let set = *u.choose(&sets)?;
    let (with_bias, relu): (bool, bool) = (u.arbitrary()?, u.arbitrary()?);
    let seed = u.int_in_range(0..=u64::from(u16::MAX))?;
    let case = |what: &str| format!("{what} by {algorithm:?} with {set:?}, seed {seed}, {shape:?}");

    let (x, weight) = (numbers(seed, shape.input_len()), numbers(seed + 1, shape.weight_len()));
    let (dy, bias) = (numbers(seed + 2, shape.output_len()), numbers(seed + 3, shape.out_channels));
    let bias = with_bias.then_some(&bias[..]);
    let activation = if relu { Activation::Relu } else { Activation::Linear };
    let mut expected = convolution(&shape, &x, &weight);
    for (index, value) in expected.iter_mut().enumerate() {
        *value += bias.map_or(0.0, |bias| f64::from(bias[index % shape.out_channels]));
        *value = if relu { value.max(0.0) } else { *value };
    }
    let (taps, pixels) = (shape.kernel_height * shape.kernel_width, dy.len() / shape.out_channels);
    let mut y = destination(dy.len());
    forward_by(algorithm, set, &shape, &x, &weight, bias, activation, &mut y);
    assert_sums(&y, &expected, algorithm.tolerance(), taps * shape.in_channels, || case("forward"));

    let (expected_dx, expected_dweight) = gradients(&shape, &x, &weight, &dy);
    let (mut dx, mut dweight) = (destination(x.len()), destination(weight.len()));
    input_gradient_by(algorithm, set, &shape, &dy, &weight, &mut dx);
    assert_sums(&dx, &expected_dx, algorithm.tolerance(), taps * shape.out_channels, || case("input gradient"));
    weight_gradient_by(algorithm, set, &shape, &x, &dy, &mut dweight);
    assert_sums(&dweight, &expected_dweight, algorithm.tolerance(), pixels, || case("weight gradient"));

    // All together, by whatever algorithm is chosen for the shape; linear, so that the gradients stay those above.
    let (mut dx, mut dweight) = (destination(x.len()), destination(weight.len()));
    let mut dbias = bias.map(|bias| destination(bias.len()));
    backward(&shape, &x, &weight, &y, &dy, Activation::Linear, Some(&mut dx), &mut dweight, dbias.as_deref_mut());
    assert_sums(&dx, &expected_dx, 2e-4, taps * shape.out_channels, || case("dx of backward"));
    assert_sums(&dweight, &expected_dweight, 2e-4, pixels, || case("dweight of backward"));
    if let Some(dbias) = dbias {
        let mut sums = vec![0.0; shape.out_channels];
        dy.iter().enumerate().for_each(|(place, &dy)| sums[place % shape.out_channels] += f64::from(dy));
        assert_close(&dbias, &sums, 5e-6, || case("dbias of backward"));
    }
    Ok(())
}

/// Gradients of input and weights by the definition.
fn gradients(s: &ConvolutionShape, x: &[f32], weight: &[f32], dy: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    each_tap(s, |output, input, tap| {
        let dy = &dy[output..][..s.out_channels];
        for channel in 0..s.in_channels {
            let (x, dx) = (f64::from(x[input + channel]), &mut dx[input + channel]);
            let start = tap + channel * s.out_channels;
            for ((&dy, &w), dw) in dy.iter().zip(&weight[start..]).zip(&mut dweight[start..]) {
                *dx += f64::from(dy) * f64::from(w);
                *dw += f64::from(dy) * x;
            }
        }
    });
    (dx, dweight)
}
