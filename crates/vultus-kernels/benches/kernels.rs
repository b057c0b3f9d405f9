//! Speed of the kernels, beside the machine's measured peaks: `cargo bench -p vultus-kernels [-- FILTER]`.
//!
//! Operations are counted directly (two for each multiply-add of the definition), so that Winograd's algorithms may
//! exceed the peak. Kernels that memory sets the pace of have a second figure: the bytes of their slices, each as often as a pass goes
//! over it, beside what copying a large slice moves. Each figure is the median of several calls. A filter keeps the layers
//! whose name contains it.

use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use vultus_kernels::activation::Activation;
use vultus_kernels::batch_norm::{self, Norm, NormGradients, NormShape};
use vultus_kernels::block::{Block, BlockGradients, Filters, InputGradient, Inputs, Kept, Outputs, Tail};
use vultus_kernels::convolution::{self, Algorithm, ConvolutionShape};
use vultus_kernels::depthwise::{self, DepthwiseShape};
use vultus_kernels::dropout::{self, Dropout};
use vultus_kernels::norm_pool::{self, NormPoolShape};
use vultus_kernels::optimizer::{self, AdamUpdate, SgdUpdate};
use vultus_kernels::pooling::{self, PoolingShape};
use vultus_kernels::simd::InstructionSet;
use vultus_kernels::squeeze_excitation::{self, SqueezeShape, WeightGradients, Weights};
use vultus_kernels::{dense, muon, peak, softmax};

/// As in the program: large buffers lie in large pages, without which some kernels take twice as long.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time that one figure takes.
const PATIENCE: Duration = Duration::from_millis(250);

fn layers() -> Vec<(&'static str, ConvolutionShape)> {
    let square = |size, in_channels, out_channels, kernel, stride, padding| ConvolutionShape {
        batch: 32,
        in_channels,
        in_height: size,
        in_width: size,
        out_channels,
        kernel_height: kernel,
        kernel_width: kernel,
        stride,
        padding,
    };
    vec![
        ("first 1-64 @48", square(48, 1, 64, 3, 1, 0)),
        ("first 1-32 @48", square(48, 1, 32, 3, 1, 1)),
        ("32-32 @48", square(48, 32, 32, 3, 1, 1)),
        ("64-64 @24", square(24, 64, 64, 3, 1, 1)),
        ("128-128 @12", square(12, 128, 128, 3, 1, 1)),
        ("256-256 @6", square(6, 256, 256, 3, 1, 1)),
        ("64-128 @23", square(23, 64, 128, 3, 1, 0)),
        ("32-64 @48 stride 2", square(48, 32, 64, 3, 2, 1)),
        ("64-128 @24 stride 2", square(24, 64, 128, 3, 2, 1)),
        ("128-256 @12 stride 2", square(12, 128, 256, 3, 2, 1)),
        ("32-64 @48 1x1 stride 2", square(48, 32, 64, 1, 2, 0)),
        ("128-256 @12 1x1 stride 2", square(12, 128, 256, 1, 2, 0)),
        ("32-64 @22 5x5", square(22, 32, 64, 5, 1, 0)),
        ("64-128 @22 5x5", square(22, 64, 128, 5, 1, 0)),
        ("64-64 @12 5x5", square(12, 64, 64, 5, 1, 2)),
        ("batch 1: 32-32 @48", ConvolutionShape { batch: 1, ..square(48, 32, 32, 3, 1, 1) }),
        ("batch 1: 256-256 @6", ConvolutionShape { batch: 1, ..square(6, 256, 256, 3, 1, 1) }),
    ]
}

/// Channels, size of the picture, kernel and stride of depthwise convolutions.
const DEPTHWISE: [(usize, usize, usize, usize); 6] =
    [(32, 48, 3, 1), (64, 24, 3, 1), (128, 12, 3, 1), (256, 6, 3, 1), (64, 24, 3, 2), (64, 24, 5, 1)];

/// Rows, inputs and outputs of dense layers.
const DENSE: [(usize, usize, usize); 4] = [(128, 12800, 128), (32, 12800, 128), (1, 12800, 128), (128, 256, 7)];

fn numbers(length: usize) -> Vec<f32> {
    (0..length).map(|index| (index * 7919 % 1013) as f32 / 506.5 - 1.0).collect()
}

/// Median seconds of `call`.
fn median(mut call: impl FnMut()) -> f64 {
    call();
    let (started, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || started.elapsed() < PATIENCE {
        let one = Instant::now();
        call();
        times.push(one.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let set = InstructionSet::best();
    println!("instructions: {}; * marks what is chosen; GFLOP/s and, in brackets, per cent of the peak", set.name());
    for threads in [1, cores] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool can be made");
        pool.install(|| {
            let table = Table { filter: &filter, set, peak: peak::measure(threads), copy: copy_speed() };
            println!("\n{threads} threads, peak {:.1} GFLOP/s, copying {:.1} GB/s", table.peak, table.copy);
            println!("{:26} {:9} {:>16} {:>16} {:>16}", "layer", "", "forward", "input gradient", "weight gradient");
            table.convolutions();
            table.depthwise();
            table.dense();
            println!("{:36} {:>16} {:>16} {:>16} {:>16}", "", "forward", "GB/s", "backward", "GB/s");
            table.blocks();
            table.norms();
            table.pooling();
            table.others();
        });
    }
}

/// Bytes that a copy of a large slice reads and writes, in 1e9 a second.
fn copy_speed() -> f64 {
    let (from, mut to) = (numbers(1 << 25), vec![0.0_f32; 1 << 25]);
    let parts = || 0..1 << 25 >> 14;
    let seconds = median(|| {
        to.par_chunks_mut(1 << 14).zip(parts().into_par_iter()).for_each(|(to, part)| {
            to.copy_from_slice(&from[part << 14..][..1 << 14]);
        });
    });
    8.0 * (1 << 25) as f64 / seconds / 1e9
}

/// What one direction of a kernel does: operations, numbers that it reads or writes, and seconds.
struct Pass {
    operations: f64,
    numbers: f64,
    seconds: f64,
}

impl Pass {
    fn new(operations: usize, numbers: usize, call: impl FnMut()) -> Self {
        Self { operations: operations as f64, numbers: numbers as f64, seconds: median(call) }
    }
}

/// The rows that a filter leaves, and what they are compared with.
struct Table<'a> {
    filter: &'a str,
    set: InstructionSet,
    /// GFLOP/s of multiply-adds.
    peak: f64,
    /// GB/s of a copy.
    copy: f64,
}

impl Table<'_> {
    fn has(&self, name: &str) -> bool {
        name.contains(self.filter)
    }

    fn convolutions(&self) {
        for (name, shape) in layers().into_iter().filter(|(name, _)| self.has(name)) {
            let (x, weight) = (numbers(shape.input_len()), numbers(shape.weight_len()));
            let dy = numbers(shape.output_len());
            let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
            for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.can(&shape)) {
                let (set, relu, bias) = (self.set, Activation::Relu, None);
                let seconds = [
                    median(|| convolution::forward_by(algorithm, set, &shape, &x, &weight, bias, relu, &mut y)),
                    median(|| convolution::input_gradient_by(algorithm, set, &shape, &dy, &weight, &mut dx)),
                    median(|| convolution::weight_gradient_by(algorithm, set, &shape, &x, &dy, &mut dweight)),
                ];
                let chosen = if algorithm == Algorithm::choose(&shape) { "*" } else { "" };
                self.products(name, &format!("{}{chosen}", algorithm.name()), shape.multiply_adds(), seconds);
            }
        }
    }

    fn depthwise(&self) {
        for (channels, size, kernel, stride) in DEPTHWISE {
            let name = format!("depthwise {channels} @{size} {kernel}x{kernel} / {stride}");
            if !self.has(&name) {
                continue;
            }
            let padding = (kernel - 1) / 2;
            let shape =
                DepthwiseShape { batch: 32, channels, in_height: size, in_width: size, kernel, stride, padding };
            let (x, weight) = (numbers(shape.input_len()), numbers(shape.weight_len()));
            let dy = numbers(shape.output_len());
            let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
            let (set, relu) = (self.set, Activation::Relu);
            let seconds = [
                median(|| depthwise::forward_by(set, &shape, &x, &weight, None, relu, &mut y)),
                median(|| depthwise::input_gradient_by(set, &shape, &dy, &weight, &mut dx)),
                median(|| depthwise::weight_gradient_by(set, &shape, &x, &dy, &mut dweight)),
            ];
            self.products(&name, "", shape.multiply_adds(), seconds);
        }
    }

    fn dense(&self) {
        for (rows, inputs, outputs) in DENSE {
            let name = format!("dense {rows} x {inputs}-{outputs}");
            if !self.has(&name) {
                continue;
            }
            let (x, weight) = (numbers(rows * inputs), numbers(inputs * outputs));
            let (dy, bias) = (numbers(rows * outputs), numbers(outputs));
            let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
            let (set, relu) = (self.set, Activation::Relu);
            let seconds = [
                median(|| dense::forward_by(set, rows, inputs, outputs, &x, &weight, &bias, relu, &mut y)),
                median(|| dense::input_gradient_by(set, rows, inputs, outputs, &dy, &weight, &mut dx)),
                median(|| dense::weight_gradient_by(set, rows, inputs, outputs, &x, &dy, &mut dweight)),
            ];
            self.products(&name, "", rows * inputs * outputs, seconds);
        }
    }

    /// A convolution, its batch norm and what follows; the operations are those of the convolution alone.
    fn blocks(&self) {
        let relu = Tail::Activated { squeeze: None, residual: false, activation: Activation::Relu };
        let pooled = Tail::Pooled { size: 2, rate: 0.25, key: 1 };
        for (layer, after, tail) in [
            ("64-64 @24", "ReLU", relu),
            ("64-128 @23", "pool, dropout", pooled),
            ("first 1-32 @48", "ReLU", relu),
            ("first 1-64 @48", "pool, dropout", pooled),
        ] {
            let name = format!("block {layer}, {after}");
            let shape = layers().into_iter().find(|(name, _)| *name == layer).map(|(_, shape)| shape);
            let Some(shape) = shape.filter(|_| self.has(&name)) else { continue };
            let block = Block {
                filters: Filters::Dense(shape),
                biased: false,
                before: Activation::Linear,
                epsilon: 1e-5,
                tail,
            };
            let (channels, first) = (shape.out_channels, shape.in_channels == 1);
            let (x, weight) = (numbers(shape.input_len()), numbers(shape.weight_len()));
            let [gamma, beta, mut mean, mut variance] = [(); 4].map(|()| numbers(channels));
            let squeeze = Weights { squeeze: &[], squeeze_bias: &[], excitation: &[], excitation_bias: &[] };
            let inputs =
                Inputs { x: &x, weight: &weight, bias: &[], gamma: &gamma, beta: &beta, residual: &[], squeeze };
            let [mut z, mut winners, mut y] = [block.kept_len(), block.winners_len(), block.output_len()].map(numbers);
            let (dy, mut dx, mut dweight) = (y.clone(), x.clone(), weight.clone());
            let [mut dgamma, mut dbeta] = [(); 2].map(|()| numbers(channels));
            let forward = Pass::new(2 * shape.multiply_adds(), 0, || {
                let outputs =
                    Outputs { z: &mut z, winners: &mut winners, y: &mut y, mean: &mut mean, variance: &mut variance };
                block.forward(&inputs, outputs);
            });
            let kept = Kept { z: &z, winners: &winners, y: &y, mean: &mean, variance: &variance, squeezed: None };
            let gradients = if first { 1 } else { 2 };
            let backward = Pass::new(2 * gradients * shape.multiply_adds(), 0, || {
                let gradients = BlockGradients {
                    dx: (!first).then(|| InputGradient::from(&mut dx[..])),
                    dweight: &mut dweight,
                    dbias: None,
                    dgamma: &mut dgamma,
                    dbeta: &mut dbeta,
                    dresidual: None,
                    squeeze: None,
                };
                block.backward(&inputs, &kept, &dy, gradients);
            });
            self.passes(&name, forward, Some(backward));
        }
    }

    fn norms(&self) {
        let (channels, size, batch) = (64, 24, 32);
        let shape = NormShape { rows: batch * size * size, channels };
        let length = shape.len();
        let (x, mut y, dy) = (numbers(length), numbers(length), numbers(length));
        let [gamma, beta, mut mean, mut variance] = [(); 4].map(|()| numbers(channels));
        let (mut dx, [mut dgamma, mut dbeta]) = (numbers(length), [(); 2].map(|()| numbers(channels)));
        let relu = Activation::Relu;
        if self.has("batch norm, ReLU 64 @24") {
            // Statistics 3, scale and shift 2, ReLU 1; back: what was normalised 2, its sums 3, the gradient 4, ReLU 1.
            let forward = Pass::new(6 * length, 3 * length, || {
                let statistics = (&mut mean, &mut variance);
                batch_norm::forward_training(
                    &shape,
                    &x,
                    &gamma,
                    &beta,
                    1e-5,
                    None,
                    relu,
                    &mut y,
                    statistics.0,
                    statistics.1,
                );
            });
            let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: 1e-5 };
            let backward = Pass::new(10 * length, 5 * length, || {
                let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: None };
                batch_norm::backward(&shape, &x, &norm, relu, &y, &dy, Activation::Linear, None, gradients);
            });
            self.passes("batch norm, ReLU 64 @24", forward, Some(backward));
        }
        if self.has("batch norm, pool, dropout 64 @24") {
            let shape = NormPoolShape { batch, height: size, width: size, channels, size: 2 };
            let (dropout, pooled) = (Dropout { rate: 0.25, key: 1 }, shape.output_len());
            let (y, dy) = (&mut y[..pooled], &dy[..pooled]);
            let mut winners = numbers(pooled);
            // Statistics 3, sign and comparison 2; of each window, scale and shift 2, dropout 1.
            let forward = Pass::new(5 * length + 3 * pooled, 2 * length + 3 * pooled, || {
                norm_pool::forward_training(
                    &shape,
                    &x,
                    &gamma,
                    &beta,
                    1e-5,
                    dropout,
                    &mut winners,
                    y,
                    &mut mean,
                    &mut variance,
                );
            });
            let norm = Norm { gamma: &gamma, beta: &beta, mean: &mean, variance: &variance, epsilon: 1e-5 };
            // Of each window, dropout 1 (twice) and its sums 4; comparison 1, what is left 1, the gradient 5.
            let backward = Pass::new(7 * length + 6 * pooled, 2 * length + 4 * pooled, || {
                let gradients = NormGradients { dx: &mut dx, dgamma: &mut dgamma, dbeta: &mut dbeta, dbias: None };
                norm_pool::backward(&shape, &x, &winners, &norm, dropout, dy, Activation::Linear, gradients);
            });
            self.passes("batch norm, pool, dropout 64 @24", forward, Some(backward));
        }
        if self.has("squeeze, excitation 64 @24") {
            let shape = SqueezeShape { batch, spatial: size * size, channels, hidden: channels / 4 };
            let weights = [numbers(channels * shape.hidden), numbers(shape.hidden), numbers(channels)];
            let weights = Weights {
                squeeze: &weights[0],
                squeeze_bias: &weights[1],
                excitation: &weights[0],
                excitation_bias: &weights[2],
            };
            let mut of_weights = [(); 2].map(|()| numbers(channels * shape.hidden));
            let mut of_biases = [numbers(shape.hidden), numbers(channels)];
            let middle = squeeze_excitation::forward_training(&shape, &x, &weights, &mut y);
            let forward = Pass::new(2 * length, 3 * length, || {
                squeeze_excitation::forward_training(&shape, &x, &weights, &mut y);
            });
            let backward = Pass::new(4 * length, 4 * length, || {
                let [squeeze, excitation] = &mut of_weights;
                let [squeeze_bias, excitation_bias] = &mut of_biases;
                let gradients = WeightGradients { squeeze, squeeze_bias, excitation, excitation_bias };
                squeeze_excitation::backward(&shape, &x, &weights, &middle, &dy, Some(&mut dx), gradients);
            });
            self.passes("squeeze, excitation 64 @24", forward, Some(backward));
        }
    }

    fn pooling(&self) {
        let shape = PoolingShape { batch: 32, channels: 64, in_height: 24, in_width: 24, size: 2, stride: 2 };
        let (length, pooled) = (shape.input_len(), shape.output_len());
        let (x, mut dx, mut y, dy) = (numbers(length), numbers(length), numbers(pooled), numbers(pooled));
        let mut winners = vec![0; pooled];
        // A winner is a byte.
        let moved = length + pooled + pooled / 4;
        if self.has("max pooling 2x2 64 @24") {
            let forward = Pass::new(length, moved, || pooling::max_forward(&shape, &x, &mut y, Some(&mut winners)));
            let backward = Pass::new(pooled, moved, || pooling::max_backward(&shape, &dy, &winners, &mut dx));
            self.passes("max pooling 2x2 64 @24", forward, Some(backward));
        }
        if self.has("average pooling 2x2 64 @24") {
            let moved = length + pooled;
            let forward = Pass::new(length, moved, || pooling::average_forward(&shape, &x, &mut y));
            let backward = Pass::new(length, moved, || pooling::average_backward(&shape, &dy, &mut dx));
            self.passes("average pooling 2x2 64 @24", forward, Some(backward));
        }
        if self.has("global average pooling 64 @24") {
            let (y, dy) = (&mut y[..32 * 64], &dy[..32 * 64]);
            let forward = Pass::new(length, length, || pooling::global_average_forward(32, 24 * 24, 64, &x, y));
            let backward = Pass::new(length, length, || pooling::global_average_backward(32, 24 * 24, 64, dy, &mut dx));
            self.passes("global average pooling 64 @24", forward, Some(backward));
        }
    }

    fn others(&self) {
        let length = 1 << 20;
        let (mut parameter, gradient) = (numbers(length), numbers(length));
        let (mut first, mut second) = (vec![0.0; length], vec![0.0; length]);
        if self.has("dropout 1 M") {
            let dropout = Dropout { rate: 0.25, key: 1 };
            let (mut x, mut dx) = (numbers(length), numbers(length));
            let forward = Pass::new(length, 2 * length, || dropout::apply(dropout, &mut x));
            let backward = Pass::new(length, 2 * length, || dropout::apply(dropout, &mut dx));
            self.passes("dropout 1 M", forward, Some(backward));
        }
        if self.has("Adam 1 M") {
            let update = AdamUpdate {
                learning_rate: 1e-3,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-7,
                step: 1,
                scale: 1.0,
                kept: 1.0,
            };
            let step = Pass::new(13 * length, 7 * length, || {
                optimizer::adam(&update, &mut parameter, &gradient, &mut first, &mut second);
            });
            self.passes("Adam 1 M", step, None);
        }
        if self.has("SGD, Nesterov 1 M") {
            let update = SgdUpdate { learning_rate: 1e-3, momentum: 0.9, nesterov: true, scale: 1.0, kept: 1.0 };
            let step = Pass::new(6 * length, 5 * length, || {
                optimizer::sgd(&update, &mut parameter, &gradient, &mut first);
            });
            self.passes("SGD, Nesterov 1 M", step, None);
        }
        if self.has("orthogonal 1152 x 128") {
            let (rows, columns) = (1152, 128);
            let matrix = numbers(rows * columns);
            let mut work = matrix.clone();
            // The Gram matrix and the last product; between them four small products a step, three less at the ends.
            let operations = 2 * columns * columns * (2 * rows + 17 * columns);
            let step = Pass::new(operations, 0, || {
                work.copy_from_slice(&matrix);
                muon::orthogonalize(rows, columns, &mut work);
            });
            self.passes("orthogonal 1152 x 128", step, None);
        }
        if self.has("softmax, cross-entropy 128 x 7") {
            let (rows, classes) = (128, 7);
            let [logits, targets, mut probabilities, mut dlogits] = [(); 4].map(|()| numbers(rows * classes));
            let weights = numbers(rows);
            let forward = Pass::new(6 * rows * classes, 3 * rows * classes, || {
                softmax::cross_entropy_forward(classes, &logits, &targets, &weights, &mut probabilities);
            });
            let probabilities = &logits;
            let backward = Pass::new(4 * rows * classes, 3 * rows * classes, || {
                softmax::cross_entropy_backward(classes, probabilities, &targets, &weights, 1.0, &mut dlogits);
            });
            self.passes("softmax, cross-entropy 128 x 7", forward, Some(backward));
        }
    }

    /// A row of three speeds of the same products.
    fn products(&self, layer: &str, algorithm: &str, multiply_adds: usize, seconds: [f64; 3]) {
        let work = 2.0 * multiply_adds as f64 / 1e9;
        let speed = |seconds: f64| share(work / seconds, self.peak);
        let [forward, input, weight] = seconds.map(speed);
        println!("{layer:26} {algorithm:9} {forward:>16} {input:>16} {weight:>16}");
    }

    /// A row of one direction or two.
    fn passes(&self, name: &str, forward: Pass, backward: Option<Pass>) {
        print!("{name:36}");
        for pass in [Some(forward), backward].into_iter().flatten() {
            let moved = 4.0 * pass.numbers / pass.seconds / 1e9;
            let moved = if moved > 0.0 { share(moved, self.copy) } else { String::new() };
            print!(" {:>16} {moved:>16}", share(pass.operations / pass.seconds / 1e9, self.peak));
        }
        println!();
    }
}

/// A speed, and its share of another.
fn share(speed: f64, peak: f64) -> String {
    let digits = if speed < 10.0 { 1 } else { 0 };
    format!("{speed:.digits$} ({:.0} %)", 100.0 * speed / peak)
}
