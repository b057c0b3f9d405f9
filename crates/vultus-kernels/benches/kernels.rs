//! Speed of convolutions, depthwise ones and dense layers, beside the machine's measured peak: `cargo bench -p vultus-kernels [-- FILTER]`.
//!
//! Operations are counted directly (two for each multiply-add of the definition), so that Winograd's algorithms may
//! exceed the peak. Each figure is the median of several calls. A filter keeps the layers whose name contains it.

use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;
use vultus_kernels::activation::Activation;
use vultus_kernels::convolution::{self, Algorithm, ConvolutionShape};
use vultus_kernels::dense;
use vultus_kernels::depthwise::{self, DepthwiseShape};
use vultus_kernels::peak;
use vultus_kernels::simd::InstructionSet;

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
            let peak = peak::measure(threads);
            println!("\n{threads} threads, peak {peak:.1} GFLOP/s");
            println!("{:26} {:7} {:>16} {:>16} {:>16}", "layer", "", "forward", "input gradient", "weight gradient");
            for (name, shape) in layers().into_iter().filter(|(name, _)| name.contains(&filter)) {
                let (x, weight) = (numbers(shape.input_len()), numbers(shape.weight_len()));
                let dy = numbers(shape.output_len());
                let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
                for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.can(&shape)) {
                    let work = 2.0 * shape.multiply_adds() as f64 / 1e9;
                    let (relu, bias) = (Activation::Relu, None);
                    let seconds = [
                        median(|| convolution::forward_by(algorithm, set, &shape, &x, &weight, bias, relu, &mut y)),
                        median(|| convolution::input_gradient_by(algorithm, set, &shape, &dy, &weight, &mut dx)),
                        median(|| convolution::weight_gradient_by(algorithm, set, &shape, &x, &dy, &mut dweight)),
                    ];
                    let chosen = if algorithm == Algorithm::choose(&shape) { "*" } else { "" };
                    print_row(name, &format!("{}{chosen}", algorithm.name()), work, peak, seconds);
                }
            }
            for (channels, size, kernel, stride) in DEPTHWISE {
                let name = format!("depthwise {channels} @{size} {kernel}x{kernel} / {stride}");
                if !name.contains(&filter) {
                    continue;
                }
                let padding = (kernel - 1) / 2;
                let shape =
                    DepthwiseShape { batch: 32, channels, in_height: size, in_width: size, kernel, stride, padding };
                let (x, weight) = (numbers(shape.input_len()), numbers(shape.weight_len()));
                let dy = numbers(shape.output_len());
                let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
                let relu = Activation::Relu;
                let seconds = [
                    median(|| depthwise::forward_by(set, &shape, &x, &weight, None, relu, &mut y)),
                    median(|| depthwise::input_gradient_by(set, &shape, &dy, &weight, &mut dx)),
                    median(|| depthwise::weight_gradient_by(set, &shape, &x, &dy, &mut dweight)),
                ];
                print_row(&name, "", 2.0 * shape.multiply_adds() as f64 / 1e9, peak, seconds);
            }
            for (rows, inputs, outputs) in DENSE {
                let name = format!("dense {rows} x {inputs}-{outputs}");
                if !name.contains(&filter) {
                    continue;
                }
                let (x, weight) = (numbers(rows * inputs), numbers(inputs * outputs));
                let (dy, bias) = (numbers(rows * outputs), numbers(outputs));
                let (mut y, mut dx, mut dweight) = (dy.clone(), x.clone(), weight.clone());
                let relu = Activation::Relu;
                let seconds = [
                    median(|| dense::forward_by(set, rows, inputs, outputs, &x, &weight, &bias, relu, &mut y)),
                    median(|| dense::input_gradient_by(set, rows, inputs, outputs, &dy, &weight, &mut dx)),
                    median(|| dense::weight_gradient_by(set, rows, inputs, outputs, &x, &dy, &mut dweight)),
                ];
                print_row(&name, "", 2.0 * (rows * inputs * outputs) as f64 / 1e9, peak, seconds);
            }
        });
    }
}

/// One row of the table: `work` is 1e9 operations.
fn print_row(layer: &str, algorithm: &str, work: f64, peak: f64, seconds: [f64; 3]) {
    let [forward, input, weight] = seconds.map(|s| format!("{:.0} ({:.0} %)", work / s, 100.0 * work / s / peak));
    println!("{layer:26} {algorithm:7} {forward:>16} {input:>16} {weight:>16}");
}
