use super::*;
use crate::bundle::tests::brightness;
use crate::faces::{FaceMethod, FaceOptions};
use crate::weights::WeightTensor;
use image::{GrayImage, Luma};

fn analyzer(method: &FaceMethod, abstain_below: f32) -> Analyzer {
    let finder = FaceFinder::new(method, FaceOptions::default()).unwrap();
    let options = AnalyzeOptions { abstain_below, ..AnalyzeOptions::default() };
    Analyzer::new(Classifier::from_bundle(brightness()).unwrap(), finder, options)
}

fn grey(width: u32, height: u32, value: u8) -> DynamicImage {
    DynamicImage::from(GrayImage::from_pixel(width, height, Luma([value])))
}

#[test]
fn a_record_is_the_json_line_that_is_documented() {
    let analysis = analyzer(&FaceMethod::Whole, 0.0).analyze(&grey(30, 20, 200)).unwrap();
    let record = Record { path: "a.png".to_owned(), outcome: Ok(analysis.clone()), undrawn: None };
    let face = &analysis.faces[0];
    let (happy, sad) = (face.probabilities[0].1, face.probabilities[1].1);
    assert_eq!(
        serde_json::to_string(&record).unwrap(),
        format!(
            "{{\"path\":\"a.png\",\"width\":30,\"height\":20,\"faces\":[{{\"box\":[0,0,30,20],\"confidence\":1.0,\
             \"label\":\"happy\",\"score\":{happy:?},\"probabilities\":{{\"happy\":{happy:?},\"sad\":{sad:?}}}}}]}}"
        )
    );
    let record = Record { path: "b".to_owned(), outcome: Err(RecordError::no_face()), undrawn: None };
    assert_eq!(
        serde_json::to_string(&record).unwrap(),
        r#"{"path":"b","error":{"code":"no_face","message":"no face was found that is large and certain enough"}}"#
    );
}

#[test]
fn many_pictures_equal_one_by_one_whatever_their_number_of_faces() {
    let analyzer = analyzer(&FaceMethod::Rustface, 0.0);
    // Of the network's size (a face itself), and empty walls in between.
    let pictures: Vec<DynamicImage> =
        [(4, 4, 10), (60, 60, 90), (4, 4, 250), (4, 4, 130), (90, 50, 0)].map(|(w, h, value)| grey(w, h, value)).into();
    let prepared = pictures.iter().map(|picture| analyzer.prepare(picture)).collect();
    let together: Vec<Analysis> = analyzer.finish(prepared).into_iter().map(Result::unwrap).collect();
    let single: Vec<Analysis> = pictures.iter().map(|picture| analyzer.analyze(picture).unwrap()).collect();
    assert_eq!(together, single);
    assert_eq!(together.iter().map(|analysis| analysis.faces.len()).collect::<Vec<_>>(), [1, 0, 1, 1, 0]);
}

#[test]
fn pictures_of_the_networks_size_are_searched_where_that_is_wished() {
    let mut analyzer = analyzer(&FaceMethod::Rustface, 0.0);
    assert_eq!(analyzer.analyze(&grey(4, 4, 10)).unwrap().faces.len(), 1);
    analyzer.options.always_search = true;
    assert_eq!(analyzer.analyze(&grey(4, 4, 10)).unwrap().faces, []);
}

#[test]
fn whole_pictures_are_blurred_and_cut_faces_are_not() {
    // A network that sees the left column of a picture only.
    let mut bundle = brightness();
    let left = WeightTensor { shape: vec![4, 4, 1, 1], data: [[0.25, 0.0, 0.0, 0.0]; 4].concat() };
    bundle.weights.insert("layers.0.weight".to_owned(), left);
    bundle.inference.views.blur = 0.25;
    let blurred = Classifier::from_bundle(bundle.clone()).unwrap();
    bundle.inference.views.blur = 0.0;
    let sharp = Classifier::from_bundle(bundle).unwrap();
    let finder = FaceFinder::new(&FaceMethod::Whole, FaceOptions::default()).unwrap();
    let analyzer = Analyzer::new(blurred.clone(), finder, AnalyzeOptions::default());
    let crop = |left| GrayImage::from_fn(4, 4, |x, _| Luma([if x == 0 { left } else { 124 }]));
    let whole = Face::whole(4, 4);
    let cut = Face { region: Region::Square { centre: (2.0, 2.0), side: 4.0, angle: 0.0 }, ..whole.clone() };
    let prepared = |faces: &[&Face], crops: Vec<GrayImage>| {
        let faces = faces.iter().map(|&face| face.clone()).collect();
        Prepared { width: 4, height: 4, faces, crops }
    };
    let pictures = vec![
        prepared(&[&cut, &whole], vec![crop(120), crop(122)]),
        prepared(&[&whole, &cut, &cut], vec![crop(116), crop(118), crop(126)]),
    ];
    let analyses = analyzer.classify(pictures);
    let scores: Vec<f32> = analyses.iter().flat_map(|one| &one.faces).map(|face| face.probabilities[0].1).collect();
    let expected = [(&sharp, 120), (&blurred, 122), (&blurred, 116), (&sharp, 118), (&sharp, 126)];
    let expected =
        expected.map(|(classifier, left)| classifier.predict(&DynamicImage::from(crop(left))).probabilities[0].1);
    assert_eq!(scores, expected);
    assert_ne!(sharp.predict(&DynamicImage::from(crop(116))), blurred.predict(&DynamicImage::from(crop(116))));
}

#[test]
fn failures_keep_their_place() {
    let analyzer = analyzer(&FaceMethod::Whole, 0.0);
    let good = |value| Ok(analyzer.prepare(&grey(5, 5, value)).unwrap());
    let results = analyzer.finish(vec![good(250), Err("first"), good(0), Err("second")]);
    let labels: Vec<Result<&str, &str>> = results
        .iter()
        .map(|result| {
            result.as_ref().map(|analysis| analysis.faces[0].label.as_deref().unwrap()).map_err(|error| *error)
        })
        .collect();
    assert_eq!(labels, [Ok("happy"), Err("first"), Ok("sad"), Err("second")]);
}

#[test]
fn an_unsure_face_gets_no_label_but_its_probabilities() {
    // Logits of 0.1 * 121 - 12 and its negative: .55 happy.
    let picture = grey(5, 5, 121);
    let label = |below| analyzer(&FaceMethod::Whole, below).analyze(&picture).unwrap().faces.remove(0);
    assert_eq!(label(0.5).label.as_deref(), Some("happy"));
    let unsure = label(0.6);
    assert_eq!(unsure.label, None);
    assert!((unsure.score - 0.55).abs() < 0.01 && unsure.probabilities.len() == 2, "{unsure:?}");
}

#[test]
fn bytes_that_are_no_picture_have_the_decoders_code() {
    let error = analyzer(&FaceMethod::Whole, 0.0).analyze_bytes(b"no picture at all").unwrap_err();
    assert_eq!(error.code(), "not_an_image");
}
