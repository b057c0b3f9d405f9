//! A finder from a small file that sees red squares, and files that are damaged.

use image::{DynamicImage, Rgb, RgbImage};
use proptest::prelude::*;

use super::*;
use crate::onnx::{Graph, Model, Node, Tensor, Value};

const SIDE: usize = 64;

/// The largest red value of a cell decides whether there is a face: only in the grid of 8 pixels, and then it is twice as
/// large as a cell.
fn file() -> Vec<u8> {
    let mut tensors = vec![
        // Red is the last of three channels, and the middle of 3 x 3 is the pixel itself.
        Tensor::of_floats(
            "stem.w",
            &[1, 3, 3, 3],
            &std::array::from_fn::<f32, 27, _>(|place| f32::from(u8::from(place == 22))),
        ),
        Tensor::of_floats("stem.b", &[1], &[0.0]),
        Tensor::of_sizes("sizes", &[1, -1, 1]),
    ];
    let mut nodes = vec![
        Node::new("Conv", &["picture", "stem.w", "stem.b"], "red")
            .with_ints("pads", &[1; 4])
            .with_ints("strides", &[1, 1])
            .with_ints("kernel_shape", &[3, 3]),
    ];
    let names = ["red", "2", "4", "8", "16", "32"];
    for pair in names.windows(2) {
        let pool = Node::new("MaxPool", &[pair[0]], pair[1]);
        nodes.push(pool.with_ints("kernel_shape", &[2, 2]).with_ints("strides", &[2, 2]));
    }
    for stride in STRIDES {
        let grid = stride.to_string();
        for (name, values, probability) in RESULTS {
            let output = format!("{name}_{stride}");
            let [weight, bias, head, moved, row] = ["w", "b", "h", "m", "r"].map(|part| format!("{output}.{part}"));
            let factor = if probability && stride == 8 { 20.0 / 255.0 } else { 0.0 };
            let constant: Vec<f32> = match name {
                "bbox" => vec![0.5, 0.5, 2.0_f32.ln(), 2.0_f32.ln()],
                "kps" => (0..10).map(|place| place as f32 / 10.0).collect(),
                _ => vec![-10.0],
            };
            tensors.push(Tensor::of_floats(&weight, &[values, 1, 1, 1], &vec![factor; values]));
            tensors.push(Tensor::of_floats(&bias, &[values], &constant));
            nodes.push(Node::new("Conv", &[&grid, &weight, &bias], &head));
            nodes.push(Node::new("Transpose", &[&head], &moved).with_ints("perm", &[0, 2, 3, 1]));
            let last = if probability { &row } else { &output };
            nodes.push(Node::new("Reshape", &[&moved, "sizes"], last));
            if probability {
                nodes.push(Node::new("Sigmoid", &[&row], &output));
            }
        }
    }
    let inputs = vec![Value::of_floats("picture", &[1, 3, SIDE, SIDE])];
    Model::new(Graph { nodes, tensors, inputs, ..Graph::default() }).to_bytes()
}

fn load(bytes: &[u8]) -> Result<Yunet, FaceError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("finder.onnx");
    std::fs::write(&path, bytes).unwrap();
    Yunet::load(&path)
}

#[test]
fn a_red_square_is_found_where_it_is() {
    let finder = load(&file()).unwrap();
    // Twice the input's width: scaled by a half, the square is the cell in column 6 and row 1.
    let square = |colour: [u8; 3]| {
        DynamicImage::from(RgbImage::from_fn(128, 64, |x, y| {
            if (96..112).contains(&x) && (16..32).contains(&y) { Rgb(colour) } else { Rgb([0, 40, 40]) }
        }))
    };
    let faces = finder.find(&square([255, 0, 0]), 0.6).unwrap();
    let [face] = &faces[..] else { panic!("{faces:?}") };
    assert_eq!(face.area, Area { x: 88, y: 8, width: 32, height: 32 });
    assert!(face.confidence > 0.999, "{face:?}");
    // The cell begins at (48, 8) of the input; points are at whole numbers of it.
    let landmarks = face.landmarks.unwrap();
    for (point, (x, y)) in landmarks.into_iter().enumerate() {
        let along = |cell: f32, place: usize| 2.0 * 8.0 * (cell + place as f32 / 10.0);
        let (expected_x, expected_y) = (along(6.0, 2 * point), along(1.0, 2 * point + 1));
        assert!((x - expected_x).abs() < 1e-3 && (y - expected_y).abs() < 1e-3, "{landmarks:?}");
    }
    assert!(finder.find(&square([0, 255, 255]), 0.6).unwrap().is_empty(), "it is red that counts");
    let mut unseen = square([255, 0, 0]).to_rgba8();
    unseen.pixels_mut().for_each(|pixel| pixel.0[3] = 0);
    assert!(finder.find(&unseen.into(), 0.6).unwrap().is_empty(), "what is transparent is black");
    // Nothing of the picture before is left beside a narrow one.
    assert!(finder.find(&DynamicImage::new_rgb8(8, 64), 0.6).unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_files_are_refused_or_read(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let mut bytes = file();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(finder) = load(&bytes) {
            finder.find(&DynamicImage::new_rgb8(40, 30), 0.6).unwrap();
        }
    }
}
