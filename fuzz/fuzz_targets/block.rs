//! A convolution, its batch norm and what follows as one block against the same layers one after the other, which have
//! targets of their own.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use vultus_fuzz::{MOST_MULTIPLY_ADDS, assert_close, assert_within, convolution_shape, destination, numbers, widen};
use vultus_kernels::activation::Activation;
use vultus_kernels::batch_norm::{self, Norm, NormGradients};
use vultus_kernels::block::{Block, BlockGradients, Filters, InputGradient, Inputs, Kept, Outputs, Tail};
use vultus_kernels::convolution::{self, Algorithm};
use vultus_kernels::depthwise::{self, DepthwiseShape};
use vultus_kernels::dropout::Dropout;
use vultus_kernels::norm_pool;
use vultus_kernels::simd::InstructionSet;
use vultus_kernels::squeeze_excitation::{self, SqueezeShape, WeightGradients, Weights};
use vultus_kernels::threads;

/// Large, so that a channel of almost equal values does not amplify what differs in the last bit.
const EPSILON: f32 = 0.1;
/// Of the largest expected number, or of 1: a block sums in another order.
const TOLERANCE: f64 = 2e-4;

/// What a gradient is of, the block's, and that of the layers.
type Compared<'a> = (&'static str, &'a [f32], Box<[f32]>);

fuzz_target!(|data: &[u8]| {
    // As in a training step.
    let _ = threads::lead(|| check(&mut Unstructured::new(data)));
});

fn filters(u: &mut Unstructured) -> Result<Filters> {
    if u.ratio(3, 4)? {
        let mut shape = convolution_shape(u)?;
        if u.ratio(1, 3)? {
            // As many numbers out as in, so that the input can be the residual.
            shape.in_channels = shape.in_channels.min(shape.out_channels);
            shape.out_channels = shape.in_channels;
            shape.kernel_height |= 1;
            shape.kernel_width = shape.kernel_height;
            (shape.stride, shape.padding) = (1, shape.kernel_height / 2);
            while shape.multiply_adds() > MOST_MULTIPLY_ADDS {
                shape.in_channels = shape.in_channels * 3 / 4;
                shape.out_channels = shape.in_channels;
            }
        }
        return Ok(Filters::Dense(shape));
    }
    let (kernel, padding): (usize, usize) = (u.int_in_range(1..=5)?, u.int_in_range(0..=2)?);
    let mut size = || u.int_in_range(kernel.saturating_sub(2 * padding).max(1)..=20);
    let (in_height, in_width) = (size()?, size()?);
    let (batch, channels) = (u.int_in_range(1..=4)?, u.int_in_range(1..=70)?);
    let stride = u.int_in_range(1..=3)?;
    Ok(Filters::Depthwise(DepthwiseShape { batch, channels, in_height, in_width, kernel, stride, padding }))
}

fn tail(u: &mut Unstructured, filters: &Filters) -> Result<Tail> {
    let (height, width) = filters.out_size();
    if height.min(width) >= 2 && u.arbitrary()? {
        let size = u.int_in_range(2..=height.min(width).min(3))?;
        return Ok(Tail::Pooled { size, rate: *u.choose(&[0.0, 0.25])?, key: u.arbitrary()? });
    }
    let squeeze = if u.arbitrary()? { Some(u.int_in_range(1..=9)?) } else { None };
    let activation = *u.choose(&[Activation::Linear, Activation::Relu, Activation::Tanh])?;
    Ok(Tail::Activated { squeeze, residual: u.arbitrary()?, activation })
}

fn check(u: &mut Unstructured) -> Result<()> {
    let filters = filters(u)?;
    let tail = tail(u, &filters)?;
    let before = *u.choose(&[Activation::Linear, Activation::Relu])?;
    let biased = u.arbitrary()?;
    let wants_dx: bool = u.arbitrary()?;
    let seed = u64::from(u.arbitrary::<u16>()?);
    let block = Block { filters, biased, before, epsilon: EPSILON, tail };

    let channels = filters.channels();
    let (hidden, has_residual) = match tail {
        Tail::Activated { squeeze, residual, .. } => (squeeze, residual),
        Tail::Pooled { .. } => (None, false),
    };
    let is_residual = wants_dx && has_residual && filters.input_len() == filters.output_len() && u.arbitrary()?;
    let is_added = wants_dx && u.arbitrary()?;
    let case = |what: &str| {
        format!("{what} of {block:?}, seed {seed}, dx {wants_dx}, added {is_added}, is the residual {is_residual}")
    };
    let units = hidden.unwrap_or(0);
    let lengths = [channels * units, units, units * channels, channels];
    // Each by another seed: where two have one length, they must not be the same numbers.
    let [x, weight, dy, residual] = [
        (seed + 20, filters.input_len()),
        (seed + 21, filters.weight_len()),
        (seed + 22, block.output_len()),
        (seed + 23, filters.output_len()),
    ]
    .map(|(seed, length)| numbers(seed, length));
    let residual = if is_residual { x.clone() } else { residual };
    let [bias, gamma, beta] = [1, 2, 3].map(|more| numbers(seed + more, channels));
    let squeeze = lengths.map(|length| numbers(seed + 7 + length as u64, length));
    let weights = {
        let [squeeze, squeeze_bias, excitation, excitation_bias] = &squeeze;
        Weights { squeeze, squeeze_bias, excitation, excitation_bias }
    };

    let inputs = Inputs {
        x: &x,
        weight: &weight,
        bias: &bias,
        gamma: &gamma,
        beta: &beta,
        residual: &residual,
        squeeze: weights,
    };
    let [mut z, mut winners, mut y] = [block.kept_len(), block.winners_len(), block.output_len()].map(destination);
    let (mut mean, mut variance) = (destination(channels), destination(channels));
    let outputs = Outputs { z: &mut z, winners: &mut winners, y: &mut y, mean: &mut mean, variance: &mut variance };
    let squeezed = block.forward(&inputs, outputs);
    let kept = Kept { z: &z, winners: &winners, y: &y, mean: &mean, variance: &variance, squeezed: squeezed.as_ref() };
    // What came to the input by another way.
    let other_dx = if is_added { numbers(seed + 11, x.len()) } else { vec![0.0; x.len()].into() };
    let mut dx = if is_added { other_dx.clone() } else { destination(x.len()) };
    let mut dweight = destination(weight.len());
    let [mut dgamma, mut dbeta, mut dbias] = [(); 3].map(|()| destination(channels));
    let mut dresidual = destination(residual.len());
    let [mut own_w1, mut own_b1, mut own_w2, mut own_b2] = lengths.map(destination);
    let gradients = BlockGradients {
        dx: wants_dx.then_some(InputGradient { dx: &mut dx, added: is_added, is_residual }),
        dweight: &mut dweight,
        dbias: if biased { Some(&mut dbias) } else { None },
        dgamma: &mut dgamma,
        dbeta: &mut dbeta,
        dresidual: if has_residual && !is_residual { Some(&mut dresidual) } else { None },
        squeeze: hidden.map(|_| WeightGradients {
            squeeze: &mut own_w1,
            squeeze_bias: &mut own_b1,
            excitation: &mut own_w2,
            excitation_bias: &mut own_b2,
        }),
    };
    block.backward(&inputs, &kept, &dy, gradients);

    // One after the other, from the block's own statistics, and from its own values where it keeps them. Those that it
    // computes again come from the same algorithm, so that they are the same: next to the kink of a ReLU, and between
    // the two largest values of a window, the last bit decides.
    let (linear, added) = (Activation::Linear, biased.then_some(&bias[..]));
    let keeps = !z.is_empty();
    let mut plain_z = destination(filters.output_len());
    match &filters {
        Filters::Dense(shape) if keeps || wants_dx => {
            convolution::forward(shape, &x, &weight, added, before, &mut plain_z);
        }
        Filters::Dense(shape) => {
            let (direct, set) = (Algorithm::Direct, InstructionSet::best());
            convolution::forward_by(direct, set, shape, &x, &weight, added, before, &mut plain_z);
        }
        Filters::Depthwise(shape) => depthwise::forward(shape, &x, &weight, added, before, &mut plain_z),
    }
    if keeps {
        assert_close(&z, &widen(&plain_z), TOLERANCE, || case("convolution"));
    }
    let z = if keeps { &z } else { &plain_z };
    let shape = filters.norm();
    check_statistics(z, channels, &mean, &variance, &case);
    let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: EPSILON };
    let (mut plain_y, mut dz) = (destination(y.len()), destination(z.len()));
    let [mut plain_dgamma, mut plain_dbeta, mut plain_dbias] = [(); 3].map(|()| destination(channels));
    let norm_gradients = NormGradients {
        dx: &mut dz,
        dgamma: &mut plain_dgamma,
        dbeta: &mut plain_dbeta,
        dbias: Some(&mut plain_dbias),
    };
    let mut results: Vec<Compared> = Vec::new();
    let mut expected_dx = other_dx;
    let add = |sum: &mut [f32], part: &[f32]| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    match tail {
        Tail::Pooled { size, rate, key } => {
            let (windows, dropout) = (filters.pooled(size), Dropout { rate, key });
            let mut winners = destination(plain_y.len());
            norm_pool::winners(&windows, z, &gamma, &mut winners);
            norm_pool::forward(&windows, &winners, &norm, dropout, &mut plain_y);
            norm_pool::backward(&windows, z, &winners, &norm, dropout, &dy, before, norm_gradients);
        }
        Tail::Activated { activation, .. } => {
            let mut normal = destination(z.len());
            batch_norm::forward(&shape, z, &norm, None, linear, &mut normal);
            let (height, width) = filters.out_size();
            let squeeze_shape =
                SqueezeShape { batch: filters.batch(), spatial: height * width, channels, hidden: units };
            plain_y.copy_from_slice(&normal);
            let middle =
                hidden.map(|_| squeeze_excitation::forward_training(&squeeze_shape, &normal, &weights, &mut plain_y));
            if has_residual {
                add(&mut plain_y, &residual);
            }
            activation.forward(&mut plain_y);
            let mut dsum = dy.clone();
            // With squeeze and residual the block rounds otherwise: what it gave decides.
            activation.backward(if keeps { &y } else { &plain_y }, &mut dsum);
            let mut dnormal = dsum.clone();
            if let Some(middle) = &middle {
                let [mut w1, mut b1, mut w2, mut b2] = lengths.map(destination);
                let gradients = WeightGradients {
                    squeeze: &mut w1,
                    squeeze_bias: &mut b1,
                    excitation: &mut w2,
                    excitation_bias: &mut b2,
                };
                let into = Some(&mut dnormal[..]);
                squeeze_excitation::backward(&squeeze_shape, &normal, &weights, middle, &dsum, into, gradients);
                results.extend([("squeeze", &own_w1[..], w1), ("squeeze bias", &own_b1, b1)]);
                results.extend([("excitation", &own_w2[..], w2), ("excitation bias", &own_b2, b2)]);
            }
            batch_norm::backward(&shape, z, &norm, linear, &normal, &dnormal, before, None, norm_gradients);
            if is_residual {
                add(&mut expected_dx, &dsum);
            } else if has_residual {
                results.push(("residual", &dresidual, dsum));
            }
        }
    }
    let (mut plain_dx, mut plain_dweight) = (destination(x.len()), destination(weight.len()));
    match &filters {
        Filters::Dense(shape) => {
            convolution::weight_gradient(shape, &x, &dz, &mut plain_dweight);
            convolution::input_gradient(shape, &dz, &weight, &mut plain_dx);
        }
        Filters::Depthwise(shape) => {
            depthwise::weight_gradient(shape, &x, &dz, &mut plain_dweight);
            depthwise::input_gradient(shape, &dz, &weight, &mut plain_dx);
        }
    }
    assert_close(&y, &widen(&plain_y), TOLERANCE, || case("y"));
    results.extend([("weight", &dweight[..], plain_dweight), ("gamma", &dgamma, plain_dgamma)]);
    results.push(("beta", &dbeta, plain_dbeta));
    if wants_dx {
        add(&mut expected_dx, &plain_dx);
        results.push(("x", &dx, expected_dx));
    }
    for (what, own, plain) in results {
        assert_close(own, &widen(&plain), TOLERANCE, || case(what));
    }
    // In front of a norm a bias decides nothing, unless a ReLU lies between: its gradient is a sum of as many terms as
    // there are rows, and that sum is zero.
    if biased {
        let expected = if before == linear { vec![0.0; channels] } else { widen(&plain_dbias) };
        assert_within(&dbias, &expected, 1e-4 * shape.rows as f64, || case("bias"));
    }
    Ok(())
}

/// Mean and variance by their definition.
fn check_statistics(z: &[f32], channels: usize, mean: &[f32], variance: &[f32], case: &impl Fn(&str) -> String) {
    let rows = (z.len() / channels) as f64;
    let (mut means, mut variances) = (vec![0.0; channels], vec![0.0; channels]);
    for (place, &value) in z.iter().enumerate() {
        means[place % channels] += f64::from(value) / rows;
    }
    for (place, &value) in z.iter().enumerate() {
        variances[place % channels] += (f64::from(value) - means[place % channels]).powi(2) / rows;
    }
    assert_close(mean, &means, TOLERANCE, || case("mean"));
    assert_close(variance, &variances, TOLERANCE, || case("variance"));
}
