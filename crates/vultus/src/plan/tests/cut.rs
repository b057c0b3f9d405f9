//! Plans in parts: where networks are cut, and that it changes nothing.

use super::*;
use crate::plan::parts::{self, CACHE_BYTES, MOST_SAMPLES as MOST};

#[test]
fn parts_chunks_and_threads_do_not_matter() {
    let samples = 45;
    let x = numbers(9, samples * 120);
    let sum = vec![residual(Activation::Relu, vec![conv(6, 3, Padding::Same, Activation::Relu), squeeze(2)], vec![])];
    let squeezed = [vec![conv(6, 3, Padding::Same, Activation::Relu)], sum, vec![global_average()]].concat();
    for layers in [paper(Padding::Same), small_resnet(), squeezed] {
        let mut plan = check(layers.clone(), 7, -1.0, samples);
        let expected = plan.probabilities(&x);
        let network = NetworkConfig { layers }.resolve(12, 10, 3).unwrap();
        let compiled = || compile(&network, &weights(&network, 7, -1.0)).unwrap();
        let steps = compiled();
        let cuts: Vec<usize> = (0..=steps.len()).filter(|&cut| parts::can_cut(&steps, cut)).collect();
        assert!(cuts.len() > 3, "{cuts:?}");
        for (cut, few) in cuts.into_iter().zip([20, 1, 7].into_iter().cycle()) {
            plan.parts = parts::cut_at(cut, compiled(), plan.inputs, few, 16);
            let once = plan.probabilities(&x);
            let difference = once.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-5, "cut at {cut}, {few} at a time: {difference}");
            std::thread::scope(|scope| {
                let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| plan.probabilities(&x))).collect();
                for run in runs {
                    assert_eq!(run.join().unwrap(), once);
                }
            });
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let probabilities = pool.install(|| plan.probabilities(&x));
                assert_eq!(probabilities, once, "{threads} threads, cut at {cut}, {few} at a time");
            }
        }
        assert!(expected.chunks(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
        assert!(plan.logits(&[]).is_empty());
    }
}

#[test]
fn large_pictures_go_first_and_many_weights_last() {
    let samples = |layers: Vec<LayerConfig>, side: usize| -> Vec<(usize, usize)> {
        let network = NetworkConfig { layers }.resolve(side, side, 3).unwrap();
        let plan = Plan::new(&network, &weights(&network, 1, 0.1)).unwrap();
        plan.parts.iter().map(|part| (part.program.steps.len(), part.samples)).collect()
    };
    let stage = |filters: usize| {
        let block = vec![unbiased(filters, 3, 1), activation(Activation::Relu), unbiased(filters, 3, 1)];
        [
            unbiased(filters, 3, 1),
            LayerConfig::MaxPool(PoolConfig { size: 2 }),
            residual(Activation::Relu, block, vec![]),
        ]
    };
    let layers =
        || [stage(64), stage(64), stage(128), stage(256)].concat().into_iter().chain([global_average()]).collect();
    // The sums of the second stage, 24 x 24 x 64, read two and write one of 9 in 4 MB; those before, 48 x 48 x 64, of 2.
    assert_eq!(samples(layers(), 96), [(6, 2), (8, MOST)]);
    assert_eq!(samples(layers(), 48), [(3, CACHE_BYTES / (4 * 3 * 24 * 24 * 64)), (11, MOST)]);
    assert_eq!(samples(layers(), 24), [(14, MOST)]);
    // However large the picture is, a sample at a time.
    assert_eq!(samples(vec![unbiased(64, 3, 1), global_average()], 300), [(2, 1), (1, MOST)]);
}
