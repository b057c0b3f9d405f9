use std::path::Path;

use image::{GrayImage, Luma, imageops};

use super::*;
use crate::decode::{DecodeLimits, decode};

/// A file for development, from the folder that `VULTUS_SHARED` names, where it must be, or beside the workspace; tests
/// without it say so and pass.
fn shared(name: &str) -> Option<(PathBuf, Vec<u8>)> {
    let named = std::env::var_os("VULTUS_SHARED").map(PathBuf::from);
    let is_named = named.is_some();
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared"));
    let path = named.unwrap_or_else(beside).join(name);
    let bytes = std::fs::read(&path).ok();
    assert!(bytes.is_some() || !is_named, "VULTUS_SHARED is set, and there is no {}", path.display());
    if bytes.is_none() {
        eprintln!("SKIPPED: there is no {}", path.display());
    }
    Some((path, bytes?))
}

fn photograph(name: &str) -> Option<DynamicImage> {
    Some(decode(&shared(name)?.1, &DecodeLimits::default()).unwrap())
}

fn yunet() -> Option<FaceFinder> {
    let (model, _) = shared("models/yunet_n_640_640.onnx")?;
    Some(FaceFinder::new(&FaceMethod::Yunet { model }, FaceOptions::default()).unwrap())
}

fn rustface() -> FaceFinder {
    FaceFinder::new(&FaceMethod::Rustface, FaceOptions::default()).unwrap()
}

fn is_inside(face: &Face, picture: &DynamicImage) -> bool {
    let Area { x, y, width, height } = face.area;
    width > 0 && height > 0 && x + width <= picture.width() && y + height <= picture.height()
}

#[test]
fn boxes_are_clipped_to_the_picture() {
    let inside = |bounds| Area::inside(100, 50, bounds).map(|area| [area.x, area.y, area.width, area.height]);
    assert_eq!(inside([10.4, 5.6, 20.0, 10.0]), Some([10, 6, 20, 10]));
    assert_eq!(inside([-5.0, -5.0, 200.0, 200.0]), Some([0, 0, 100, 50]));
    assert_eq!(inside([90.0, 40.0, 30.0, 30.0]), Some([90, 40, 10, 10]));
    for outside in [[100.0, 0.0, 9.0, 9.0], [-9.0, 0.0, 9.0, 9.0], [0.0, 60.0, 9.0, 9.0], [f32::NAN; 4]] {
        assert_eq!(inside(outside), None, "{outside:?}");
    }
}

#[test]
fn overlap_is_common_over_all_area() {
    let area = |x, y, width, height| Area { x, y, width, height };
    assert_eq!(area(0, 0, 10, 10).overlap(&area(0, 0, 10, 10)), 1.0);
    assert_eq!(area(0, 0, 10, 10).overlap(&area(10, 0, 10, 10)), 0.0);
    assert_eq!(area(0, 0, 10, 10).overlap(&area(5, 0, 10, 10)), 50.0 / 150.0);
}

#[test]
fn the_whole_picture_is_one_face() {
    let finder = FaceFinder::new(&FaceMethod::Whole, FaceOptions::default()).unwrap();
    let faces = finder.find(&DynamicImage::new_rgb8(7, 3)).unwrap();
    assert_eq!(faces.len(), 1);
    assert_eq!((faces[0].area, faces[0].region), (Area { x: 0, y: 0, width: 7, height: 3 }, Region::Whole));
    assert!(finder.find(&DynamicImage::new_rgb8(0, 3)).unwrap().is_empty());
}

#[test]
fn an_empty_wall_has_no_face_whatever_its_size() {
    for finder in [Some(rustface()), yunet()].into_iter().flatten() {
        for (width, height) in [(1, 1), (3, 500), (500, 3), (39, 41), (47, 48), (640, 640), (1100, 90), (97, 3000)] {
            let faces = finder.find(&DynamicImage::new_rgb8(width, height)).unwrap();
            assert!(faces.is_empty(), "{width} x {height}: {faces:?}");
        }
    }
}

#[test]
fn noise_of_any_size_can_be_searched() {
    let options = FaceOptions { minimum_px: 1, minimum_confidence: 0.0 };
    let finder = FaceFinder::new(&FaceMethod::Rustface, options).unwrap();
    for number in 0_u32..60 {
        let (width, height) = (30 + number * 53 % 170, 30 + number * 31 % 170);
        // Noise on blobs that grow coarser: now and then the cascade takes one for a face.
        let scale = 1.0 + (number % 9) as f32 * 3.0;
        let picture = GrayImage::from_fn(width, height, |x, y| {
            let noise =
                x.wrapping_mul(2_654_435_761).wrapping_add(y.wrapping_mul(40_503)).wrapping_mul(number | 1) >> 26;
            let blob = 90.0 + 80.0 * (x as f32 / scale).sin() * (y as f32 / scale + number as f32).cos();
            Luma([(blob as u32 + noise).min(255) as u8])
        });
        let picture = DynamicImage::from(picture);
        for face in finder.find(&picture).unwrap() {
            assert!(is_inside(&face, &picture), "{width} x {height}: {face:?}");
        }
    }
}

#[test]
fn a_portrait_is_found_by_both_finders_at_the_same_place() {
    let Some(portrait) = photograph("images/astronaut.png") else { return };
    // Her face is around (225, 115), some 95 pixels wide.
    for finder in [Some(rustface()), yunet()].into_iter().flatten() {
        let faces = finder.find(&portrait).unwrap();
        assert_eq!(faces.len(), 1, "{faces:?}");
        let Area { x, y, width, height } = faces[0].area;
        let (middle_x, middle_y) = (x + width / 2, y + height / 2);
        assert!(middle_x.abs_diff(225) < 15 && middle_y.abs_diff(115) < 25, "{faces:?}");
        assert!((60..160).contains(&width) && (60..160).contains(&height), "{faces:?}");
        assert!((0.6..=1.0).contains(&faces[0].confidence));
    }
}

#[test]
fn all_of_a_group_are_found_by_yunet_with_their_landmarks() {
    let (Some(group), Some(finder)) = (photograph("images/group.png"), yunet()) else { return };
    let faces = finder.find(&group).unwrap();
    assert_eq!(faces.len(), 29);
    for face in &faces {
        assert!(is_inside(face, &group), "{face:?}");
        let Some([right_eye, left_eye, nose, right_mouth, left_mouth]) = face.landmarks else {
            panic!("no landmarks: {face:?}")
        };
        assert!(right_eye.0 < left_eye.0 && right_mouth.0 < left_mouth.0, "{face:?}");
        assert!(right_eye.1 < nose.1 && nose.1 < left_mouth.1, "{face:?}");
    }
    assert!(faces.is_sorted_by(|a, b| a.confidence >= b.confidence));
    let strict = FaceOptions {
        minimum_px: 1 + faces.iter().map(|face| face.area.width.min(face.area.height)).max().unwrap(),
        ..FaceOptions::default()
    };
    let finder = FaceFinder { options: strict, ..finder };
    assert!(finder.find(&group).unwrap().is_empty(), "the minimum size is not kept");
}

#[test]
fn faces_at_the_edge_and_in_small_and_large_pictures_stay_inside() {
    let Some(portrait) = photograph("images/astronaut.png") else { return };
    for finder in [Some(rustface()), yunet()].into_iter().flatten() {
        let mut found = 0;
        for (x, y, width, height) in [(180, 60, 90, 110), (190, 60, 300, 200), (0, 0, 260, 160), (225, 60, 200, 200)] {
            let part = portrait.crop_imm(x, y, width, height);
            for scale in [1, 4] {
                let part = part.resize_exact(width * scale, height * scale, imageops::FilterType::Triangle);
                let faces = finder.find(&part).unwrap();
                found += faces.len();
                assert!(faces.iter().all(|face| is_inside(face, &part)), "{faces:?}");
            }
        }
        assert!(found > 0, "no part shows a face to {finder:?}");
    }
}

#[test]
fn many_threads_find_what_one_finds() {
    let Some(portrait) = photograph("images/astronaut.png") else { return };
    for finder in [Some(rustface()), yunet()].into_iter().flatten() {
        let alone = finder.find(&portrait).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| finder.find(&portrait).unwrap())).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), alone);
            }
        });
    }
}

#[test]
fn files_that_are_no_yunet_model_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let load = |path: &Path| FaceFinder::new(&FaceMethod::Yunet { model: path.to_owned() }, FaceOptions::default());
    let path = directory.path().join("faces.onnx");
    assert!(load(&path).unwrap_err().to_string().contains("faces.onnx"));
    for content in [&b""[..], b"a text, no network", &[0xFF; 300]] {
        std::fs::write(&path, content).unwrap();
        let message = load(&path).unwrap_err().to_string();
        assert!(message.contains("faces.onnx") && message.contains("YuNet"), "{message}");
    }
    let Some((_, bytes)) = shared("models/yunet_n_640_640.onnx") else { return };
    for length in (0..bytes.len()).step_by(bytes.len() / 40).take(40) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(load(&path).is_err(), "the first {length} bytes");
    }
}

/// A picture whose brightness grows to the right and downwards.
fn slope(width: u32, height: u32) -> DynamicImage {
    DynamicImage::from(GrayImage::from_fn(width, height, |x, y| Luma([(x + y) as u8])))
}

fn cut(region: Region, picture: &DynamicImage) -> GrayImage {
    region.cut(picture, &crate::preprocess::Preprocessing::default())
}

#[test]
fn an_upright_square_is_cut_out_as_it_is() {
    let picture = slope(100, 100);
    let region = Region::Square { centre: (44.0, 34.0), side: 48.0, angle: 0.0 };
    assert_eq!(cut(region, &picture), imageops::crop_imm(&picture.to_luma8(), 20, 10, 48, 48).to_image());
}

#[test]
fn a_quarter_turn_turns_the_pixels() {
    let picture = slope(100, 100);
    let region = Region::Square { centre: (44.0, 34.0), side: 48.0, angle: -std::f32::consts::FRAC_PI_2 };
    let upright = imageops::crop_imm(&picture.to_luma8(), 20, 10, 48, 48).to_image();
    let expected = imageops::rotate90(&upright);
    let turned = cut(region, &picture);
    for (turned, expected) in turned.iter().zip(expected.iter()) {
        assert!(turned.abs_diff(*expected) <= 1);
    }
}

#[test]
fn shrinking_averages_instead_of_skipping() {
    // Stripes of one pixel.
    let stripes = GrayImage::from_fn(480, 480, |x, _| Luma([if x % 2 == 0 { 0 } else { 200 }]));
    let region = Region::Square { centre: (240.0, 240.0), side: 400.0, angle: 0.1 };
    for pixel in cut(region, &DynamicImage::from(stripes)).iter() {
        assert!(pixel.abs_diff(100) <= 20, "{pixel}");
    }
}

#[test]
fn beyond_the_picture_its_edge_goes_on() {
    let picture = DynamicImage::from(GrayImage::from_pixel(10, 10, Luma([90])));
    for centre in [(0.0, 0.0), (-500.0, 20.0), (5.0, 1e9), (f32::MAX, -1.0)] {
        let crop = cut(Region::Square { centre, side: 30.0, angle: 1.0 }, &picture);
        assert!(crop.iter().all(|&pixel| pixel == 90), "{centre:?}");
    }
}

#[test]
fn a_box_decides_place_and_size_and_landmarks_the_turn() {
    let upright = [(-14.0, -10.0), (14.0, -10.0), (0.0, 6.0), (-12.0, 20.0), (12.0, 20.0)];
    // Back to a tilt of 15 degrees, which is left.
    for (tilt, expected) in [(35.0, 20.0), (-90.0, -75.0), (14.0, 0.0), (-14.0, 0.0), (180.0, 165.0)] {
        let (sine, cosine) = f32::to_radians(tilt).sin_cos();
        let turned = upright.map(|(u, v): (f32, f32)| (200.0 + u * cosine - v * sine, 150.0 + u * sine + v * cosine));
        let angle = region::turn(&turned);
        assert!((angle.to_degrees() - expected).abs() < 0.01, "{tilt}: {angle}");
    }
    assert_eq!(region::turn(&[(3.0, 3.0); 5]), 0.0);
    assert_eq!(region::turn(&[(f32::NAN, 0.0); 5]), 0.0);

    let bounds = [100.0, 50.0, 80.0, 125.0];
    for (angle, centre) in [(0.0, (140.0, 122.5)), (std::f32::consts::FRAC_PI_2, (130.0, 112.5))] {
        let Region::Square { centre: found, side, angle: kept } = Region::around(bounds, 1.2, 0.1, angle) else {
            panic!("no square")
        };
        assert!((found.0 - centre.0).abs() < 1e-3 && (found.1 - centre.1).abs() < 1e-3, "{found:?}");
        assert!((side - 120.0 * region::FRAME).abs() < 1e-3 && kept == angle, "{side}");
    }
}
