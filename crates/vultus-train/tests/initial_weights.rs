//! Weights of a fresh network: Keras' Glorot uniform kernels, by their bounds and variance, and everything else
//! constant.

use vultus::weights::Weights;
use vultus_train::config::paper_network;
use vultus_train::model::initial_weights;

/// Name of each kernel of the paper's network on 48 x 48 pixels and seven classes, with its values, inputs and outputs
/// of a unit: a convolution counts each channel once for every place of the window.
const KERNELS: [(&str, usize, usize, usize); 4] = [
    ("layers.0.weight", 64 * 9, 9, 64 * 9),
    ("layers.4.weight", 128 * 64 * 9, 64 * 9, 128 * 9),
    ("layers.9.weight", 12_800 * 128, 12_800, 128),
    ("layers.12.weight", 128 * 7, 128, 7),
];

fn weights(seed: u64) -> Weights {
    initial_weights(&paper_network().resolve(48, 48, 7).unwrap(), seed)
}

/// Uniform between plus and minus sqrt(6 / (inputs + outputs)), so that the variance is 2 / (inputs + outputs).
#[test]
fn kernels_have_glorots_bounds_and_variance() {
    let weights = weights(1);
    for (name, count, inputs, outputs) in KERNELS {
        let values = &weights.get(name).unwrap().data;
        assert_eq!(values.len(), count, "{name}");
        let sum = (inputs + outputs) as f64;
        let limit = (6.0 / sum).sqrt();
        let largest = values.iter().fold(0.0_f64, |largest, &value| largest.max(f64::from(value).abs()));
        assert!(largest <= limit * (1.0 + 1e-6), "{name}: {largest} is beyond {limit}");
        assert!(largest > limit * 0.98, "{name}: {largest} stays far below {limit}");
        // Five standard errors: of a mean of uniform values, and of their mean square, whose relative one is sqrt(4 / 5).
        let error = 5.0 / (count as f64).sqrt();
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count as f64;
        assert!(mean.abs() < error * (2.0 / sum).sqrt(), "{name}: mean {mean}");
        let variance = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / count as f64;
        assert!((variance * sum / 2.0 - 1.0).abs() < error * 0.8_f64.sqrt(), "{name}: variance {variance}");
    }
}

#[test]
fn everything_else_does_nothing() {
    let weights = weights(1);
    let kernels = KERNELS.map(|(name, ..)| name);
    let mut others = 0;
    for (name, tensor) in weights.iter().filter(|(name, _)| !kernels.contains(name)) {
        let expected = if name.ends_with("gamma") || name.ends_with("variance") { 1.0 } else { 0.0 };
        assert!(tensor.data.iter().all(|&value| value == expected), "{name}");
        others += 1;
    }
    // Four biases, and four tensors of each of three batch norms.
    assert_eq!(others, 4 + 3 * 4);
}

#[test]
fn the_seed_decides_and_tensors_differ() {
    assert!(weights(1) == weights(1));
    let [first, second] = [weights(1), weights(2)];
    for (name, ..) in KERNELS {
        assert_ne!(first.get(name).unwrap().data[..4], second.get(name).unwrap().data[..4], "{name}");
    }
    // The same stream, scaled, would begin with the same shares of the limits.
    let share = |(name, _, inputs, outputs): (&str, usize, usize, usize)| {
        f64::from(first.get(name).unwrap().data[0]) / (6.0 / (inputs + outputs) as f64).sqrt()
    };
    assert!((share(KERNELS[0]) - share(KERNELS[1])).abs() > 1e-3);
}
