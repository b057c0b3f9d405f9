//! The layers beside convolutions: batch norm, pooling, dropout, dense layers, depthwise convolution, and squeeze and
//! excitation against plain loops, and norm, pooling and dropout in one against the same one after the other.

#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use vultus_fuzz::{assert_close, assert_within, destination, numbers, widen};
use vultus_kernels::activation::Activation;
use vultus_kernels::batch_norm::{self, Norm, NormGradients, NormShape, Residual};
use vultus_kernels::depthwise::{self, DepthwiseShape};
use vultus_kernels::dropout::{self, Dropout};
use vultus_kernels::norm_pool::{self, NormPoolShape};
use vultus_kernels::pooling::{self, PoolingShape};
use vultus_kernels::squeeze_excitation::{self, SqueezeShape, WeightGradients, Weights};
use vultus_kernels::{dense, simd::InstructionSet};

const EPSILON: f32 = 1e-3;

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let _ = match u.int_in_range(0..=6) {
        Ok(0) => check_norm(u),
        Ok(1) => check_norm_pool(u),
        Ok(2) => check_pooling(u),
        Ok(3) => check_dropout(u),
        Ok(4) => check_depthwise(u),
        Ok(5) => check_squeeze(u),
        _ => check_dense(u),
    };
});

fn seed(u: &mut Unstructured) -> Result<u64> {
    u.int_in_range(0..=u64::from(u16::MAX))
}

/// What stands in front of a norm: its output is the norm's input.
fn before(u: &mut Unstructured, x: &mut [f32]) -> Result<Activation> {
    if u.arbitrary()? {
        x.iter_mut().for_each(|x| *x = x.max(0.0));
        return Ok(Activation::Relu);
    }
    Ok(Activation::Linear)
}

/// Bound on the error of the sums of each channel: terms that cancel leave theirs.
fn bound_of_sums(channels: usize, terms: &[f32]) -> f64 {
    let mut sums = vec![0.0_f64; channels];
    terms.iter().enumerate().for_each(|(place, term)| sums[place % channels] += f64::from(term.abs()));
    1e-6 * sums.iter().fold(0.0, |largest: f64, &sum| largest.max(sum))
}

fn check_norm(u: &mut Unstructured) -> Result<()> {
    let shape = NormShape { rows: u.int_in_range(1..=1600)?, channels: u.int_in_range(1..=150)? };
    let activation = *u.choose(&[Activation::Linear, Activation::Relu, Activation::Tanh, Activation::LeakyRelu])?;
    let (with_residual, with_dresidual, with_dbias) = (u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
    let seed = seed(u)?;
    let mut x = numbers(seed, shape.len());
    let before = before(u, &mut x)?;
    let (set, channels, rows) = (InstructionSet::best(), shape.channels, shape.rows as f64);
    let case = |what: &str| {
        format!("{what} of a norm with {set:?}, seed {seed}, {shape:?}, {before:?}, {activation:?}, {with_residual}")
    };
    let (gamma, beta) = (numbers(seed + 1, channels), numbers(seed + 2, channels));
    let (dy, residual) = (numbers(seed + 3, shape.len()), numbers(seed + 4, shape.len()));
    let residual: Option<&[f32]> = if with_residual { Some(&residual) } else { None };

    let (mut y, mut mean, mut variance) = (destination(x.len()), destination(channels), destination(channels));
    batch_norm::forward_training(
        &shape,
        &x,
        &gamma,
        &beta,
        EPSILON,
        residual,
        activation,
        &mut y,
        &mut mean,
        &mut variance,
    );
    let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: EPSILON };
    let mut again = destination(x.len());
    batch_norm::forward(&shape, &x, &norm, residual, activation, &mut again);
    assert_eq!(y, again, "{}", case("y from given statistics"));
    let [mut dx, mut dresidual] = [(); 2].map(|()| destination(x.len()));
    let [mut dgamma, mut dbeta, mut dbias] = [(); 3].map(|()| destination(channels));
    let gradients = NormGradients {
        dx: &mut dx,
        dgamma: &mut dgamma,
        dbeta: &mut dbeta,
        dbias: if with_dbias { Some(&mut dbias) } else { None },
    };
    let wants_dresidual = with_residual && with_dresidual;
    let gradient: Option<&mut [f32]> = if wants_dresidual { Some(&mut dresidual) } else { None };
    let added = with_residual.then_some(Residual { gradient });
    batch_norm::backward(&shape, &x, &norm, activation, &y, &dy, before, added, gradients);

    let [mut expected_y, mut expected_dx, mut gradient] = [(); 3].map(|()| vec![0.0; x.len()]);
    let [mut means, mut variances, mut dgammas, mut dbetas, mut dbiases] = [(); 5].map(|()| vec![0.0; channels]);
    for channel in 0..channels {
        let places = || (0..shape.rows).map(|row| row * channels + channel);
        let at = |place: usize| f64::from(x[place]);
        let mean = places().map(at).sum::<f64>() / rows;
        let variance = places().map(|place| (at(place) - mean).powi(2)).sum::<f64>() / rows;
        let inverse = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        let (gamma, beta) = (f64::from(gamma[channel]), f64::from(beta[channel]));
        let normal = |place: usize| (at(place) - mean) * inverse;
        for place in places() {
            let value = gamma * normal(place) + beta + residual.map_or(0.0, |residual| f64::from(residual[place]));
            expected_y[place] = match activation {
                Activation::Relu => value.max(0.0),
                Activation::LeakyRelu => value.max(0.2 * value),
                Activation::Tanh => value.tanh(),
                _ => value,
            };
            // The kernel's own output decides, so that rounding next to the kink is no disagreement.
            gradient[place] = f64::from(dy[place]) * f64::from(activation.derivative_from_output(y[place]));
        }
        let sum: f64 = places().map(|place| gradient[place]).sum();
        let product: f64 = places().map(|place| gradient[place] * normal(place)).sum();
        for place in places() {
            let dx = gamma * inverse * (gradient[place] - (sum + normal(place) * product) / rows);
            expected_dx[place] = if before == Activation::Relu && x[place] <= 0.0 { 0.0 } else { dx };
            dbiases[channel] += expected_dx[place];
        }
        (means[channel], variances[channel]) = (mean, variance);
        (dgammas[channel], dbetas[channel]) = (product, sum);
    }
    assert_close(&mean, &means, 1e-6, || case("mean"));
    assert_close(&variance, &variances, 1e-6, || case("variance"));
    assert_close(&y, &expected_y, 3e-5, || case("y"));
    assert_close(&dx, &expected_dx, 1e-4, || case("dx"));
    assert_close(&dgamma, &dgammas, 1e-4, || case("dgamma"));
    assert_close(&dbeta, &dbetas, 1e-5, || case("dbeta"));
    if with_dbias {
        assert_within(&dbias, &dbiases, 1e-4_f64.max(bound_of_sums(channels, &dx)), || case("dbias"));
    }
    if wants_dresidual {
        assert_close(&dresidual, &gradient, 1e-6, || case("dresidual"));
    }
    Ok(())
}

fn check_norm_pool(u: &mut Unstructured) -> Result<()> {
    let size = u.int_in_range(1..=7)?;
    let (height, width) = (u.int_in_range(size..=20)?, u.int_in_range(size..=20)?);
    let shape = NormPoolShape { batch: u.int_in_range(1..=4)?, height, width, channels: u.int_in_range(1..=70)?, size };
    let rate = *u.choose(&[0.0, 0.25, 0.9])?;
    let with_dbias = u.arbitrary()?;
    let seed = seed(u)?;
    let mut x = numbers(seed, shape.input_len());
    let before = before(u, &mut x)?;
    let (batch, channels, set) = (shape.batch, shape.channels, InstructionSet::best());
    let case =
        |what: &str| format!("{what} of norm and pooling with {set:?}, seed {seed}, {shape:?}, {rate}, {before:?}");
    let dropout = Dropout { rate, key: seed };
    let (gamma, beta) = (numbers(seed + 1, channels), numbers(seed + 2, channels));
    let dy = numbers(seed + 3, shape.output_len());

    let mut y = destination(dy.len());
    let [mut mean, mut variance, mut dgamma, mut dbeta, mut dbias] = [(); 5].map(|()| destination(channels));
    let (mut winners, mut dx) = (destination(dy.len()), destination(x.len()));
    norm_pool::forward_training(
        &shape,
        &x,
        &gamma,
        &beta,
        EPSILON,
        dropout,
        &mut winners,
        &mut y,
        &mut mean,
        &mut variance,
    );
    let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: EPSILON };
    let gradients = NormGradients {
        dx: &mut dx,
        dgamma: &mut dgamma,
        dbeta: &mut dbeta,
        dbias: if with_dbias { Some(&mut dbias) } else { None },
    };
    norm_pool::backward(&shape, &x, &winners, &norm, dropout, &dy, before, gradients);

    // One after the other.
    let pool = PoolingShape { batch, channels, in_height: height, in_width: width, size, stride: size };
    let (rows, linear) = (NormShape { rows: batch * height * width, channels }, Activation::Linear);
    let (mut normal, mut expected) = (destination(x.len()), destination(dy.len()));
    let [mut mean_of_norm, mut variance_of_norm] = [(); 2].map(|()| destination(channels));
    batch_norm::forward_training(
        &rows,
        &x,
        &gamma,
        &beta,
        EPSILON,
        None,
        linear,
        &mut normal,
        &mut mean_of_norm,
        &mut variance_of_norm,
    );
    pooling::max_forward(&pool, &normal, &mut expected, None);
    // Who wins is seen in front of the norm, which may round two inputs to one number.
    let sign = |gamma: &f32| if *gamma < 0.0 { -1.0 } else { 1.0 };
    let signed: Vec<f32> = x.iter().zip(gamma.iter().map(sign).cycle()).map(|(x, sign)| x * sign).collect();
    let (mut largest, mut winners) = (destination(dy.len()), vec![0; dy.len()].into_boxed_slice());
    pooling::max_forward(&pool, &signed, &mut largest, Some(&mut winners));
    dropout::apply(dropout, &mut expected);
    let (mut dpooled, mut dnormal) = (dy.clone(), destination(x.len()));
    dropout::apply(dropout, &mut dpooled);
    pooling::max_backward(&pool, &dpooled, &winners, &mut dnormal);
    let mut expected_dx = destination(x.len());
    let [mut dgammas, mut dbetas, mut dbiases] = [(); 3].map(|()| destination(channels));
    let gradients =
        NormGradients { dx: &mut expected_dx, dgamma: &mut dgammas, dbeta: &mut dbetas, dbias: Some(&mut dbiases) };
    batch_norm::backward(&rows, &x, &norm, linear, &normal, &dnormal, before, None, gradients);
    assert_eq!((&mean, &variance), (&mean_of_norm, &variance_of_norm), "{}", case("statistics"));
    assert_close(&y, &widen(&expected), 2e-5, || case("y"));
    assert_close(&dx, &widen(&expected_dx), 2e-5, || case("dx"));
    assert_close(&dgamma, &widen(&dgammas), 2e-5, || case("dgamma"));
    assert_close(&dbeta, &widen(&dbetas), 2e-5, || case("dbeta"));
    if with_dbias {
        assert_within(&dbias, &widen(&dbiases), 2e-5_f64.max(bound_of_sums(channels, &dx)), || case("dbias"));
    }
    Ok(())
}

fn check_pooling(u: &mut Unstructured) -> Result<()> {
    let (size, stride) = (u.int_in_range(1..=7)?, u.int_in_range(1..=4)?);
    let (in_height, in_width) = (u.int_in_range(size..=20)?, u.int_in_range(size..=20)?);
    let (batch, channels) = (u.int_in_range(1..=4)?, u.int_in_range(1..=70)?);
    let s = PoolingShape { batch, channels, in_height, in_width, size, stride };
    let seed = seed(u)?;
    let case = |what: &str| format!("{what}, seed {seed}, {s:?}");
    let (x, dy) = (numbers(seed, s.input_len()), numbers(seed + 1, s.output_len()));

    let [mut largest, mut average] = [(); 2].map(|()| vec![0.0; dy.len()]);
    let [mut dlargest, mut daverage] = [(); 2].map(|()| vec![0.0; x.len()]);
    for (place, &dy) in dy.iter().enumerate() {
        let (pixel, channel) = (place / channels, place % channels);
        let (line, column) = (pixel / s.out_width(), pixel % s.out_width());
        let (image, row) = (line / s.out_height(), line % s.out_height());
        let window = (0..size * size).map(|index| {
            let (r, c) = (row * stride + index / size, column * stride + index % size);
            ((image * in_height + r) * in_width + c) * channels + channel
        });
        let share = 1.0 / (size * size) as f64;
        let mut winner = None;
        for from in window {
            average[place] += share * f64::from(x[from]);
            daverage[from] += share * f64::from(dy);
            if winner.is_none_or(|winner: usize| x[from] > x[winner]) {
                winner = Some(from);
            }
        }
        let winner = winner.expect("a window has pixels");
        largest[place] = f64::from(x[winner]);
        dlargest[winner] += f64::from(dy);
    }

    let (mut y, mut dx) = (destination(dy.len()), destination(x.len()));
    let mut winners = vec![u8::MAX; dy.len()].into_boxed_slice();
    pooling::max_forward(&s, &x, &mut y, Some(&mut winners));
    assert_close(&y, &largest, 0.0, || case("the largest"));
    y.fill(f32::NAN);
    pooling::max_forward(&s, &x, &mut y, None);
    assert_close(&y, &largest, 0.0, || case("the largest without winners"));
    pooling::max_backward(&s, &dy, &winners, &mut dx);
    assert_close(&dx, &dlargest, 1e-6, || case("gradient of the largest"));
    y.fill(f32::NAN);
    dx.fill(f32::NAN);
    pooling::average_forward(&s, &x, &mut y);
    assert_close(&y, &average, 1e-6, || case("the average"));
    pooling::average_backward(&s, &dy, &mut dx);
    assert_close(&dx, &daverage, 1e-6, || case("gradient of the average"));

    let (spatial, dy) = (in_height * in_width, numbers(seed + 2, batch * channels));
    let (mut mean, mut means) = (destination(dy.len()), vec![0.0; dy.len()]);
    let owner = |place: usize| place / channels / spatial * channels + place % channels;
    x.iter().enumerate().for_each(|(place, &x)| means[owner(place)] += f64::from(x) / spatial as f64);
    pooling::global_average_forward(batch, spatial, channels, &x, &mut mean);
    assert_close(&mean, &means, 1e-6, || case("the global average"));
    dx.fill(f32::NAN);
    pooling::global_average_backward(batch, spatial, channels, &dy, &mut dx);
    let expected: Vec<f64> = (0..x.len()).map(|place| f64::from(dy[owner(place)]) / spatial as f64).collect();
    assert_close(&dx, &expected, 1e-6, || case("gradient of the global average"));
    Ok(())
}

fn check_dropout(u: &mut Unstructured) -> Result<()> {
    let (length, more) = (u.int_in_range(0..=40_000)?, u.int_in_range(0..=40)?);
    let dropout = Dropout { rate: f32::from(u.int_in_range(0..=99_u8)?) / 100.0, key: u.arbitrary()? };
    let values = numbers(dropout.key, length + more);
    let mut dropped: Box<[f32]> = values[..length].into();
    dropout::apply(dropout, &mut dropped);
    let scale = 1.0 / (1.0 - dropout.rate);
    for (place, (&value, &dropped)) in values.iter().zip(&dropped).enumerate() {
        assert!(dropped == 0.0 || dropped == scale * value, "{dropped} from {value} at {place}, {dropout:?}, {length}");
    }
    // The length has no say in the mask.
    let mut longer = values;
    dropout::apply(dropout, &mut longer);
    assert_eq!(longer[..length], dropped[..], "{dropout:?}, {length} and {more} more");
    Ok(())
}

fn check_dense(u: &mut Unstructured) -> Result<()> {
    let (rows, inputs) = (u.int_in_range(1..=40)?, u.int_in_range(1..=150)?);
    let (outputs, seed) = (u.int_in_range(1..=150)?, seed(u)?);
    let case = |what: &str| format!("{what} of a dense layer, seed {seed}, {rows} x {inputs} x {outputs}");
    let (x, weight) = (numbers(seed, rows * inputs), numbers(seed + 1, inputs * outputs));
    let (bias, dy) = (numbers(seed + 2, outputs), numbers(seed + 3, rows * outputs));

    let [mut expected, mut dx, mut dw, mut db] =
        [rows * outputs, rows * inputs, inputs * outputs, outputs].map(|length| vec![0.0; length]);
    for (row, output) in (0..rows).flat_map(|row| (0..outputs).map(move |output| (row, output))) {
        let (place, mut sum) = (row * outputs + output, f64::from(bias[output]));
        let gradient = f64::from(dy[place]);
        for input in 0..inputs {
            let (x, w) = (f64::from(x[row * inputs + input]), f64::from(weight[input * outputs + output]));
            sum += x * w;
            dx[row * inputs + input] += gradient * w;
            dw[input * outputs + output] += gradient * x;
        }
        expected[place] = sum;
        db[output] += gradient;
    }

    let (mut y, mut dinput) = (destination(dy.len()), destination(x.len()));
    let (mut dweight, mut dbias) = (destination(weight.len()), destination(outputs));
    let linear = Activation::Linear;
    dense::forward(rows, inputs, outputs, &x, &weight, &bias, linear, &mut y);
    assert_close(&y, &expected, 1e-5, || case("y"));
    dense::backward(rows, inputs, outputs, &x, &weight, &y, &dy, linear, Some(&mut dinput), &mut dweight, &mut dbias);
    assert_close(&dinput, &dx, 1e-5, || case("dx"));
    assert_close(&dweight, &dw, 1e-5, || case("dweight"));
    assert_close(&dbias, &db, 1e-5, || case("dbias"));
    Ok(())
}

fn check_depthwise(u: &mut Unstructured) -> Result<()> {
    let (kernel, stride): (usize, usize) = (u.int_in_range(1..=7)?, u.int_in_range(1..=3)?);
    let padding = u.int_in_range(0..=4)?;
    let smallest = kernel.saturating_sub(2 * padding).max(1);
    let (in_height, in_width) = (u.int_in_range(smallest..=20)?, u.int_in_range(smallest..=20)?);
    let (batch, channels, seed) = (u.int_in_range(1..=4)?, u.int_in_range(1..=70)?, seed(u)?);
    let s = DepthwiseShape { batch, channels, in_height, in_width, kernel, stride, padding };
    let relu = u.arbitrary()?;
    let (x, weight) = (numbers(seed, s.input_len()), numbers(seed + 1, s.weight_len()));
    let (bias, dy) = (numbers(seed + 2, channels), numbers(seed + 3, s.output_len()));

    let [mut expected, mut dx, mut dw] = [dy.len(), x.len(), weight.len()].map(|length| vec![0.0; length]);
    for (place, &dy) in dy.iter().enumerate() {
        let (pixel, channel) = (place / channels, place % channels);
        let (line, column) = (pixel / s.out_width(), pixel % s.out_width());
        let (image, row) = (line / s.out_height(), line % s.out_height());
        let mut sum = f64::from(bias[channel]);
        for (i, j) in (0..kernel).flat_map(|i| (0..kernel).map(move |j| (i, j))) {
            let (r, c) = (row * stride + i, column * stride + j);
            if r < padding || c < padding || r - padding >= in_height || c - padding >= in_width {
                continue;
            }
            let input = ((image * in_height + r - padding) * in_width + c - padding) * channels + channel;
            let tap = (i * kernel + j) * channels + channel;
            sum += f64::from(x[input]) * f64::from(weight[tap]);
            dx[input] += f64::from(dy) * f64::from(weight[tap]);
            dw[tap] += f64::from(dy) * f64::from(x[input]);
        }
        expected[place] = if relu { sum.max(0.0) } else { sum };
    }

    for set in InstructionSet::available().into_iter().filter(|&set| set <= InstructionSet::best()) {
        let case = |what: &str| format!("{what} of a depthwise convolution with {set:?}, seed {seed}, {s:?}");
        let [mut y, mut dinput, mut dweight] = [dy.len(), x.len(), weight.len()].map(destination);
        let activation = if relu { Activation::Relu } else { Activation::Linear };
        depthwise::forward_by(set, &s, &x, &weight, Some(&bias), activation, &mut y);
        assert_close(&y, &expected, 1e-5, || case("y"));
        depthwise::input_gradient_by(set, &s, &dy, &weight, &mut dinput);
        assert_close(&dinput, &dx, 1e-5, || case("dx"));
        depthwise::weight_gradient_by(set, &s, &x, &dy, &mut dweight);
        assert_close(&dweight, &dw, 1e-5, || case("dweight"));
    }
    Ok(())
}

fn check_squeeze(u: &mut Unstructured) -> Result<()> {
    let (batch, spatial) = (u.int_in_range(1..=4)?, u.int_in_range(1..=100)?);
    let (channels, hidden, seed) = (u.int_in_range(1..=70)?, u.int_in_range(1..=20)?, seed(u)?);
    let shape = SqueezeShape { batch, spatial, channels, hidden };
    let (x, dy) = (numbers(seed, shape.len()), numbers(seed + 1, shape.len()));
    let (squeeze, excitation) = (numbers(seed + 2, channels * hidden), numbers(seed + 3, hidden * channels));
    let (squeeze_bias, excitation_bias) = (numbers(seed + 4, hidden), numbers(seed + 5, channels));
    let weights = Weights {
        squeeze: &squeeze,
        squeeze_bias: &squeeze_bias,
        excitation: &excitation,
        excitation_bias: &excitation_bias,
    };

    let (mut expected, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let (mut dw1, mut db1) = (vec![0.0; squeeze.len()], vec![0.0; hidden]);
    let (mut dw2, mut db2) = (vec![0.0; excitation.len()], vec![0.0; channels]);
    let mut nearest_kink = f64::INFINITY;
    for image in 0..batch {
        let places = |channel: usize| (0..spatial).map(move |pixel| (image * spatial + pixel) * channels + channel);
        let means: Vec<f64> =
            (0..channels).map(|c| places(c).map(|place| f64::from(x[place])).sum::<f64>() / spatial as f64).collect();
        let arguments = (0..hidden).map(|unit| {
            let terms = (0..channels).map(|c| means[c] * f64::from(squeeze[c * hidden + unit]));
            terms.sum::<f64>() + f64::from(squeeze_bias[unit])
        });
        let arguments: Vec<f64> = arguments.collect();
        nearest_kink = arguments.iter().fold(nearest_kink, |nearest, argument| nearest.min(argument.abs()));
        let units: Vec<f64> = arguments.iter().map(|argument| argument.max(0.0)).collect();
        let mut dunits = vec![0.0; hidden];
        for channel in 0..channels {
            let terms = (0..hidden).map(|unit| units[unit] * f64::from(excitation[unit * channels + channel]));
            let factor = 1.0 / (1.0 + (-terms.sum::<f64>() - f64::from(excitation_bias[channel])).exp());
            let mut product = 0.0;
            for place in places(channel) {
                expected[place] = f64::from(x[place]) * factor;
                dx[place] = f64::from(dy[place]) * factor;
                product += f64::from(dy[place]) * f64::from(x[place]);
            }
            let gradient = product * factor * (1.0 - factor);
            db2[channel] += gradient;
            for unit in 0..hidden {
                dw2[unit * channels + channel] += gradient * units[unit];
                dunits[unit] += gradient * f64::from(excitation[unit * channels + channel]);
            }
        }
        for unit in (0..hidden).filter(|&unit| units[unit] > 0.0) {
            db1[unit] += dunits[unit];
            for channel in 0..channels {
                dw1[channel * hidden + unit] += dunits[unit] * means[channel];
                let dmean = dunits[unit] * f64::from(squeeze[channel * hidden + unit]);
                places(channel).for_each(|place| dx[place] += dmean / spatial as f64);
            }
        }
    }

    let case = |what: &str| format!("{what} of squeeze and excitation, seed {seed}, {shape:?}");
    let (mut y, mut dinput) = (destination(x.len()), destination(x.len()));
    let middle = squeeze_excitation::forward_training(&shape, &x, &weights, &mut y);
    assert_close(&y, &expected, 1e-5, || case("y"));
    if nearest_kink < 1e-4 {
        return Ok(()); // rounding may have put a unit on the other side
    }
    let [mut first, mut first_bias, mut second, mut second_bias] =
        [squeeze.len(), hidden, excitation.len(), channels].map(destination);
    let gradients = WeightGradients {
        squeeze: &mut first,
        squeeze_bias: &mut first_bias,
        excitation: &mut second,
        excitation_bias: &mut second_bias,
    };
    squeeze_excitation::backward(&shape, &x, &weights, &middle, &dy, Some(&mut dinput), gradients);
    assert_close(&dinput, &dx, 1e-4, || case("dx"));
    assert_close(&first, &dw1, 1e-4, || case("dsqueeze"));
    assert_close(&first_bias, &db1, 1e-4, || case("dsqueeze_bias"));
    assert_close(&second, &dw2, 1e-4, || case("dexcitation"));
    assert_close(&second_bias, &db2, 1e-4, || case("dexcitation_bias"));
    Ok(())
}
