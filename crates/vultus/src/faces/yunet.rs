//! Faces by the network YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), from an ONNX file.
//!
//! In: a picture. Out: boxes with confidence and five landmarks, overlapping ones removed. The file's input is
//! `[1, 3, height, width]`, blue, green, red, 0..255; its outputs are `cls`, `obj`, `bbox` and `kps` for grids of 8, 16
//! and 32 pixels a cell.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::{DynamicImage, RgbImage, imageops};
use rten::{Dimension, Model, NodeId, Value};

use super::{Area, Face, FaceError, Region};

/// Pixels a cell of the three grids.
const STRIDES: [usize; 3] = [8, 16, 32];

/// Of two boxes that overlap more than this, only the surer one is kept.
const MOST_OVERLAP: f32 = 0.3;

/// How ONNX files begin: the tag of the field `ir_version`.
const ONNX_START: u8 = 0x08;

/// The side of the input where the file leaves it open.
const USUAL_SIDE: usize = 640;

/// Largest input that a file may ask for, in pixels.
const MOST_INPUT_PIXELS: usize = 4096 * 4096;

/// Small pictures are enlarged by up to this.
const MOST_ENLARGEMENT: f32 = 2.0;

/// A loaded network.
#[derive(Debug)]
pub(super) struct Yunet {
    model: ModelBox,
    input: NodeId,
    /// `cls`, `obj`, `bbox` and `kps` of each stride.
    outputs: Vec<NodeId>,
    width: usize,
    height: usize,
    /// Held while the network runs: one run uses all cores, and many at a time would pile up on the runtime's threads.
    running: Mutex<()>,
}

/// The runtime's model, which cannot be printed.
struct ModelBox(Model);

impl std::fmt::Debug for ModelBox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Model")
    }
}

impl Yunet {
    pub(super) fn load(path: &Path) -> Result<Self, FaceError> {
        let unusable = |reason: String| FaceError::Model { path: path.to_owned(), reason };
        let bytes = fs_err::read(path)?;
        // The runtime's reader does not come back from every file that is something else.
        if bytes.first() != Some(&ONNX_START) {
            return Err(unusable("it is no ONNX file".to_owned()));
        }
        let model = Model::load(bytes).map_err(|error| unusable(error.to_string()))?;
        let &[input] = model.input_ids() else {
            return Err(unusable(format!("it has {} inputs, not one", model.input_ids().len())));
        };
        let shape = model.input_shape(0).unwrap_or_default();
        let side = |index: usize| match shape.get(index) {
            Some(Dimension::Fixed(side)) => *side,
            _ => USUAL_SIDE,
        };
        let (height, width) = (side(2), side(3));
        let whole_cells = |side: usize| side > 0 && side.is_multiple_of(STRIDES[2]);
        if shape.len() != 4 || side(1) != 3 || !whole_cells(width) || !whole_cells(height) {
            return Err(unusable("its input is not [1, 3, height, width] with sides of whole cells".to_owned()));
        }
        if width.saturating_mul(height) > MOST_INPUT_PIXELS {
            return Err(unusable(format!("its input of {width} x {height} pixels is too large")));
        }
        let mut outputs = Vec::new();
        for stride in STRIDES {
            for name in ["cls", "obj", "bbox", "kps"] {
                let name = format!("{name}_{stride}");
                outputs.push(model.find_node(&name).ok_or_else(|| unusable(format!("it has no output {name}")))?);
            }
        }
        Ok(Self { model: ModelBox(model), input, outputs, width, height, running: Mutex::new(()) })
    }

    /// Boxes of at least the given confidence, the surest first.
    pub(super) fn find(&self, picture: &DynamicImage, minimum: f32) -> Result<Vec<Face>, FaceError> {
        let (pixels, scale) = self.input(picture);
        let input = Value::from_shape(&[1, 3, self.height, self.width], pixels)
            .map_err(|error| FaceError::Failed(error.to_string()))?;
        let values = self.run(input)?;
        let mut tensors = Vec::with_capacity(values.len());
        for value in values {
            let (_, data) = value
                .into_shape_vec::<f32, 3>()
                .map_err(|error| FaceError::Failed(format!("an output is no list of numbers: {error}")))?;
            tensors.push(data);
        }
        let mut candidates = Vec::new();
        for (grid, stride) in tensors.chunks_exact(4).zip(STRIDES) {
            self.decode(grid, stride, minimum, &mut candidates)?;
        }
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

    /// Runs the network, on a thread of its own: a thread of rayon's that waits for the runtime's would take up other
    /// work in the meantime, such as another picture, until its stack is full.
    fn run(&self, input: Value) -> Result<Vec<Value>, FaceError> {
        let failed = |reason: String| FaceError::Failed(reason);
        let run = || {
            let _one = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            self.model.0.run(vec![(self.input, input.into())], &self.outputs, None)
        };
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().spawn_scoped(scope, run).map_err(|error| failed(error.to_string()))?;
            let values = thread.join().map_err(|_| failed("the model made the runtime panic".to_owned()))?;
            values.map_err(|error| failed(error.to_string()))
        })
    }

    /// The picture at the upper left of the input, black beside it, and by how much it was scaled.
    fn input(&self, picture: &DynamicImage) -> (Vec<f32>, f32) {
        let fit = (self.width as f32 / picture.width() as f32).min(self.height as f32 / picture.height() as f32);
        let scale = fit.min(MOST_ENLARGEMENT);
        let side = |length: u32, limit: usize| ((length as f32 * scale).round() as u32).clamp(1, limit as u32);
        let (width, height) = (side(picture.width(), self.width), side(picture.height(), self.height));
        let colours = picture.to_rgb8();
        let small: RgbImage = if (width, height) == colours.dimensions() {
            colours
        } else {
            imageops::resize(&colours, width, height, imageops::FilterType::Triangle)
        };
        let plane = self.width * self.height;
        let mut values = vec![0.0; 3 * plane];
        for (x, y, pixel) in small.enumerate_pixels() {
            let place = y as usize * self.width + x as usize;
            let [red, green, blue] = pixel.0;
            values[place] = f32::from(blue);
            values[plane + place] = f32::from(green);
            values[2 * plane + place] = f32::from(red);
        }
        (values, scale)
    }

    /// Reads one grid's outputs: `[cells, 1]`, `[cells, 1]`, `[cells, 4]` and `[cells, 10]`.
    fn decode(
        &self,
        grid: &[Vec<f32>],
        stride: usize,
        minimum: f32,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), FaceError> {
        let columns = self.width / stride;
        let cells = columns * (self.height / stride);
        let [class, object, bounds, points] = grid else { return Ok(()) };
        if [class, object].iter().any(|scores| scores.len() != cells)
            || bounds.len() != 4 * cells
            || points.len() != 10 * cells
        {
            return Err(FaceError::Failed(format!(
                "the model's outputs for cells of {stride} pixels have another size"
            )));
        }
        let stride = stride as f32;
        for cell in 0..cells {
            let confidence = (class[cell].clamp(0.0, 1.0) * object[cell].clamp(0.0, 1.0)).sqrt();
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
        Ok(())
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
        let region = Region::aligned(&landmarks).unwrap_or_else(|| Region::around(bounds, 1.0, -0.02));
        Some(Face { area, confidence: self.confidence, landmarks: Some(landmarks), region })
    }
}

/// Common area of two boxes as a part of the area of both.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let along = |axis: usize| ((a[axis] + a[axis + 2]).min(b[axis] + b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let common = along(0) * along(1);
    common / (a[2] * a[3] + b[2] * b[3] - common).max(f32::MIN_POSITIVE)
}
