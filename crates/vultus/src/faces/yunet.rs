//! Faces by the network YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), from an ONNX file.
//!
//! In: a picture. Out: boxes with confidence and five landmarks, overlapping ones removed. [`crate::onnx`] reads the file,
//! `network` makes of it a program of our own kernels. The file's input is `[1, 3, height, width]`, blue, green, red,
//! 0..255; its outputs are `cls`, `obj`, `bbox` and `kps` for grids of 8, 16 and 32 pixels a cell.

mod network;

use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::DynamicImage;
use rayon::{ThreadPool, ThreadPoolBuilder};

use self::network::Output;
use super::region::turn;
use super::{Area, Face, FaceError, Region, overlap};
use crate::onnx;
use crate::plan::Program;
use crate::preprocess::over_black;

/// Bytes of a file: YuNet's have less than half a million.
const MOST_BYTES: u64 = 64 << 20;

/// Pixels a cell of the three grids.
const STRIDES: [usize; 3] = [8, 16, 32];

/// Of two boxes that overlap more than this, only the surer one is kept.
const MOST_OVERLAP: f32 = 0.3;

/// The side of the input where the file leaves it open.
const USUAL_SIDE: usize = 640;

/// Largest input that a file may ask for, in pixels.
const MOST_INPUT_PIXELS: usize = 2048 * 2048;

/// Small pictures are enlarged by up to this.
const MOST_ENLARGEMENT: f32 = 2.0;

/// The square around a box in which a face is framed as in FER-2013: its side in parts of the box's, and how far its
/// centre is below the box's, likewise. Means over training faces; docs/results/faces.md says how they were measured.
const SCALE: f32 = 1.125;
const SHIFT: f32 = -0.016;

/// What the network gives for each grid: its name, the values of a cell, and whether it is a probability.
const RESULTS: [(&str, usize, bool); 4] = [("cls", 1, true), ("obj", 1, true), ("bbox", 4, false), ("kps", 10, false)];

/// A loaded network.
#[derive(Debug)]
pub(super) struct Yunet {
    program: Program,
    /// What is in [`RESULTS`], of each stride.
    outputs: Vec<Output>,
    width: usize,
    height: usize,
    /// Where the network runs.
    threads: ThreadPool,
    /// Held while it runs: one run uses all threads, and one that waited in the middle of another would begin there.
    running: Mutex<()>,
}

impl Yunet {
    pub(super) fn load(path: &Path) -> Result<Self, FaceError> {
        let unusable = |reason: String| FaceError::Model { path: path.to_owned(), reason };
        let mut bytes = Vec::new();
        fs_err::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(unusable(format!("it has more than {} MB", MOST_BYTES >> 20)));
        }
        let graph = onnx::read(&bytes).map_err(unusable)?;
        // Older files list their tensors among the inputs.
        let is_tensor = |name: &str| graph.tensors.iter().any(|tensor| tensor.name == name);
        let inputs: Vec<&onnx::Value> = graph.inputs.iter().filter(|input| !is_tensor(&input.name)).collect();
        let [input] = inputs[..] else {
            return Err(unusable(format!("it has {} inputs, not one", inputs.len())));
        };
        let dims = input.dims();
        let side = |index: usize| dims.get(index).copied().filter(|&side| side > 0).unwrap_or(USUAL_SIDE);
        let (height, width) = (side(2), side(3));
        let whole_cells = |side: usize| side.is_multiple_of(STRIDES[2]);
        if dims.len() != 4 || dims[1] != 3 || !whole_cells(width) || !whole_cells(height) {
            return Err(unusable("its input is not [1, 3, height, width] with sides of whole cells".to_owned()));
        }
        if width.saturating_mul(height) > MOST_INPUT_PIXELS {
            return Err(unusable(format!("its input of {width} x {height} pixels is too large")));
        }
        let names: Vec<String> =
            STRIDES.iter().flat_map(|stride| RESULTS.map(|(name, ..)| format!("{name}_{stride}"))).collect();
        let (program, outputs) = network::compile(&graph, &input.name, (height, width), &names).map_err(unusable)?;
        let expected = STRIDES.iter().flat_map(|stride| {
            RESULTS.map(|(_, values, probability)| (values * (width / stride) * (height / stride), probability))
        });
        for ((output, name), (size, probability)) in outputs.iter().zip(&names).zip(expected) {
            if output.len != size {
                return Err(unusable(format!("its output {name} has {} values, not {size}", output.len)));
            }
            if output.logistic && !probability {
                return Err(unusable(format!("its output {name} has a sigmoid")));
            }
        }
        let threads = ThreadPoolBuilder::new()
            .thread_name(|index| format!("yunet-{index}"))
            .num_threads(rayon::current_num_threads())
            .build()
            .map_err(|error| FaceError::Failed(error.to_string()))?;
        Ok(Self { program, outputs, width, height, threads, running: Mutex::new(()) })
    }

    /// Boxes of at least the given confidence, the surest first.
    pub(super) fn find(&self, picture: &DynamicImage, minimum: f32) -> Result<Vec<Face>, FaceError> {
        let (pixels, width, scale) = self.scaled(picture)?;
        let mut candidates = self.run(&pixels, width, minimum)?;
        candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if kept.iter().all(|other| overlap(&other.bounds, &candidate.bounds) <= MOST_OVERLAP) {
                kept.push(candidate);
            }
        }
        let size = (picture.width(), picture.height());
        Ok(kept.into_iter().filter_map(|candidate| candidate.face(size, scale)).collect())
    }

    /// Runs the network on threads of its own, a picture at a time, and waits outside of any pool: a thread of rayon's that
    /// waits for a part of its work takes up other work in the meantime, such as another picture, until its stack is full.
    fn run(&self, pixels: &[u8], width: usize, minimum: f32) -> Result<Vec<Candidate>, FaceError> {
        let run = || {
            let mut workspace = self.program.workspace(1);
            self.fill(self.program.input(1, &mut workspace), pixels, width);
            self.program.run(1, &mut workspace);
            let mut candidates = Vec::new();
            for (index, stride) in STRIDES.into_iter().enumerate() {
                let grid =
                    [0, 1, 2, 3].map(|result| self.program.result(1, &workspace, RESULTS.len() * index + result));
                let logistic = [0, 1].map(|result| self.outputs[RESULTS.len() * index + result].logistic);
                self.decode(grid, logistic, stride, minimum, &mut candidates);
            }
            self.program.keep(workspace);
            candidates
        };
        let failed = |reason: String| FaceError::Failed(reason);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                let _one = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                self.threads.install(run)
            });
            let thread = thread.map_err(|error| failed(error.to_string()))?;
            thread.join().map_err(|_| failed("the network panicked".to_owned()))
        })
    }

    /// The picture as it fits the input: four bytes a pixel, of which the last means nothing; its width, and by how much it
    /// was scaled.
    fn scaled(&self, picture: &DynamicImage) -> Result<(Vec<u8>, usize, f32), FaceError> {
        let fit = (self.width as f32 / picture.width() as f32).min(self.height as f32 / picture.height() as f32);
        let scale = fit.min(MOST_ENLARGEMENT);
        let side = |length: u32, limit: usize| ((length as f32 * scale).round() as u32).clamp(1, limit as u32);
        let (width, height) = (side(picture.width(), self.width), side(picture.height(), self.height));
        let mut pixels = picture.to_rgba8();
        if picture.color().has_alpha() {
            // The finder sees what the classifier will see.
            for pixel in pixels.pixels_mut() {
                let colours = over_black(pixel.0);
                pixel.0[..3].copy_from_slice(&colours);
            }
        }
        let mut pixels = pixels.into_raw();
        if (width, height) != (picture.width(), picture.height()) {
            let failed = |error: &dyn std::fmt::Display| FaceError::Failed(format!("resizing: {error}"));
            let from = ImageRef::new(picture.width(), picture.height(), &pixels, PixelType::U8x4);
            let mut to = Image::new(width, height, PixelType::U8x4);
            let options =
                ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
            Resizer::new()
                .resize(&from.map_err(|error| failed(&error))?, &mut to, &options)
                .map_err(|error| failed(&error))?;
            pixels = to.into_vec();
        }
        Ok((pixels, width as usize, scale))
    }

    /// Writes a picture to the upper left of the input `[height, width, 3]`, black beside it.
    fn fill(&self, input: &mut [f32], pixels: &[u8], width: usize) {
        let mut pictured = pixels.chunks_exact(4 * width);
        for row in input.chunks_exact_mut(3 * self.width) {
            let pixels = pictured.next().unwrap_or_default();
            let (picture, beside) = row.split_at_mut(pixels.len() / 4 * 3);
            for (value, pixel) in picture.chunks_exact_mut(3).zip(pixels.chunks_exact(4)) {
                value.copy_from_slice(&[pixel[2], pixel[1], pixel[0]].map(f32::from));
            }
            beside.fill(0.0);
        }
    }

    /// Reads one grid's outputs: `[cells, 1]`, `[cells, 1]`, `[cells, 4]` and `[cells, 10]`; of the first two the logistic
    /// function where `logistic` says so.
    fn decode(
        &self,
        [class, object, bounds, points]: [&[f32]; 4],
        logistic: [bool; 2],
        stride: usize,
        minimum: f32,
        candidates: &mut Vec<Candidate>,
    ) {
        let columns = self.width / stride;
        let probability = |value: f32, logistic: bool| {
            if logistic { 1.0 / (1.0 + (-value).exp()) } else { value.clamp(0.0, 1.0) }
        };
        let stride = stride as f32;
        for cell in 0..class.len() {
            let scores = [probability(class[cell], logistic[0]), probability(object[cell], logistic[1])];
            let confidence = (scores[0] * scores[1]).sqrt();
            if confidence.is_nan() || confidence < minimum {
                continue;
            }
            let (column, row) = ((cell % columns) as f32, (cell / columns) as f32);
            let [dx, dy, dw, dh] = [0, 1, 2, 3].map(|index| bounds[4 * cell + index]);
            let (width, height) = (dw.exp() * stride, dh.exp() * stride);
            let bounds = [(column + dx) * stride - width / 2.0, (row + dy) * stride - height / 2.0, width, height];
            let landmarks = std::array::from_fn(|point| {
                let place = 10 * cell + 2 * point;
                ((column + points[place]) * stride, (row + points[place + 1]) * stride)
            });
            if bounds.iter().all(|value| value.is_finite()) {
                candidates.push(Candidate { confidence, bounds, landmarks });
            }
        }
    }
}

/// A box in the input's pixels.
struct Candidate {
    confidence: f32,
    /// Left, top, width, height.
    bounds: [f32; 4],
    landmarks: [(f32, f32); 5],
}

impl Candidate {
    /// The face in the pixels of a picture of the given size; `None` outside it.
    fn face(self, (width, height): (u32, u32), scale: f32) -> Option<Face> {
        let bounds = self.bounds.map(|value| value / scale);
        let landmarks = self.landmarks.map(|(x, y)| (x / scale, y / scale));
        let area = Area::inside(width, height, bounds)?;
        let region = Region::around(bounds, SCALE, SHIFT, turn(&landmarks));
        Some(Face { area, confidence: self.confidence, landmarks: Some(landmarks), region })
    }
}

#[cfg(test)]
mod tests;
