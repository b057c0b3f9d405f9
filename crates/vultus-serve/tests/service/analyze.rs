//! `/v1/analyze` and its twin in DeepFace's form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vultus::analyze::AnalyzeOptions;
use vultus::faces::FaceMethod;

use crate::client::{FORM, form, png, start, start_with};

fn label(image: &Value) -> &Value {
    &image["faces"][0]["label"]
}

#[tokio::test]
async fn a_picture_as_the_body_is_analyzed() {
    let server = start(|_| {}).await;
    for content_type in ["image/png", "application/octet-stream", "image/jpeg", "application/x-www-form-urlencoded"] {
        let answer = server.post("/v1/analyze", content_type, png(30, 20, 250)).await.succeeds();
        assert_eq!(answer["model"], "expressions");
        let image = &answer["images"][0];
        assert_eq!((&image["width"], &image["height"]), (&json!(30), &json!(20)));
        let face = &image["faces"][0];
        assert_eq!((&face["box"], &face["label"]), (&json!([0, 0, 30, 20]), &json!("bright")));
        let names: Vec<&String> = face["probabilities"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["bright", "dark"], "the model's order");
        let sum: f64 = face["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-6 && face["score"].as_f64().unwrap() > 0.99, "{face}");
        assert!(face["entropy"].as_f64().unwrap() < 0.01, "{face}");
    }
}

#[tokio::test]
async fn several_pictures_keep_their_order_and_their_errors() {
    let server = start(|_| {}).await;
    let parts: [(&str, &[u8]); 4] =
        [("image", &png(9, 9, 250)), ("note", b"hello"), ("image", b"no picture"), ("image", &png(5, 5, 3))];
    let images = server.post("/v1/analyze", FORM, form(&parts)).await.succeeds()["images"].clone();
    assert_eq!(images.as_array().unwrap().len(), 3);
    assert_eq!((label(&images[0]), label(&images[2])), (&json!("bright"), &json!("dark")));
    assert_eq!(images[1]["error"]["code"], "not_an_image");
}

#[tokio::test]
async fn base64_is_analyzed() {
    let server = start(|_| {}).await;
    let (dark, bright) = (STANDARD.encode(png(9, 9, 2)), STANDARD.encode(png(9, 9, 240)));
    let answer = server.post_json("/v1/analyze", json!({ "image": dark })).await.succeeds();
    assert_eq!(label(&answer["images"][0]), "dark");
    let images = json!({ "images": [format!("data:image/png;base64,{bright}"), dark] });
    let answer = server.post_json("/v1/analyze", images).await.succeeds();
    assert_eq!(label(&answer["images"][0]), "bright");
    assert_eq!(label(&answer["images"][1]), "dark");
    // Of several each has its own result.
    let mixed = json!({ "images": ["not base64!", dark, "http://localhost/a.png"] });
    let answer = server.post_json("/v1/analyze", mixed).await.succeeds();
    let codes = ["not_base64", "", "url_refused"].map(|code| if code.is_empty() { Value::Null } else { json!(code) });
    for (image, code) in answer["images"].as_array().unwrap().iter().zip(codes) {
        assert_eq!(image["error"]["code"], code, "{answer}");
        assert_eq!(image["faces"].is_array(), code.is_null(), "{answer}");
    }
}

#[tokio::test]
async fn the_error_of_an_only_picture_is_the_answers() {
    let server = start(|_| {}).await;
    server.post("/v1/analyze", "image/png", "dear diary").await.fails(415, "not_an_image");
    let encoded = server.post("/v1/analyze", "application/x-www-form-urlencoded", "image=iVBORw0KGgo").await;
    encoded.fails(400, "malformed");
    let whole = png(30, 30, 9);
    server.post("/v1/analyze", "image/png", whole[..whole.len() - 20].to_vec()).await.fails(422, "damaged");
    server.post("/v1/analyze", "image/png", "").await.fails(400, "no_image");
    server.post("/v1/analyze", FORM, form(&[("picture", b"x")])).await.fails(400, "no_image");
    server.post("/v1/analyze", FORM, form(&[("image", b"")])).await.fails(422, "empty");
    server.post("/v1/analyze", "text/html", "<p>").await.fails(415, "content_type");
    server.post_json("/v1/analyze", json!({ "image": "" })).await.fails(422, "empty");
    server.post_json("/v1/analyze", json!({ "image": "not base64!" })).await.fails(400, "not_base64");
    server.post_json("/v1/analyze", json!({ "image": "https://example.com/a.png" })).await.fails(400, "url_refused");
    server.post_json("/v1/analyze", json!({ "img": "aGVsbG8=" })).await.fails(400, "malformed");
    server.post("/v1/analyze?faces=some", "image/png", png(9, 9, 1)).await.fails(400, "malformed");
}

#[tokio::test]
async fn json_that_is_no_picture_is_refused_with_the_name_of_its_key() {
    let server = start(|_| {}).await;
    for (path, asked, keys) in [
        ("/v1/analyze", json!({ "image": null }), "`image` or `images`"),
        ("/v1/analyze", json!({ "images": ["aGk", 7] }), "`image` or `images`"),
        ("/analyze", json!({ "img": 7 }), "`img`"),
        ("/analyze", json!({ "img": "aGk", "img_path": {} }), "`img_path`"),
    ] {
        let reply = server.post_json(path, asked.clone()).await;
        reply.fails(400, "malformed");
        let message = format!("{keys} must be a picture in base64, or a list of such");
        assert_eq!(reply.json()["error"]["message"], message, "{asked}");
    }
}

#[tokio::test]
async fn faces_are_looked_for_unless_the_picture_is_one() {
    let server = start_with(&FaceMethod::Rustface, AnalyzeOptions::default(), |_| {}).await;
    let wall = png(90, 60, 200);
    let answer = server.post("/v1/analyze", "image/png", wall.clone()).await.succeeds();
    assert_eq!(answer["images"][0]["faces"], json!([]));
    let answer = server.post("/v1/analyze?faces=whole", "image/png", wall).await.succeeds();
    assert_eq!(answer["images"][0]["faces"][0]["box"], json!([0, 0, 90, 60]));
    // Of the size of the network's input: cut out already.
    let answer = server.post("/v1/analyze", "image/png", png(8, 8, 200)).await.succeeds();
    assert_eq!(label(&answer["images"][0]), "bright");
}

#[tokio::test]
async fn an_unsure_face_has_no_label() {
    let options = AnalyzeOptions { abstain_below: 0.9, ..AnalyzeOptions::default() };
    let server = start_with(&FaceMethod::Whole, options, |_| {}).await;
    let answer = server.post("/v1/analyze", "image/png", png(8, 8, 129)).await.succeeds();
    let face = &answer["images"][0]["faces"][0];
    assert_eq!(face["label"], Value::Null);
    assert!(face["entropy"].as_f64().unwrap() > 0.9 && face["probabilities"]["bright"].is_number(), "{face}");
}

#[tokio::test]
async fn no_client_gets_a_label_that_the_model_is_too_unsure_of() {
    let options = AnalyzeOptions { abstain_below: 0.9, ..AnalyzeOptions::default() };
    let server = start_with(&FaceMethod::Whole, options, |_| {}).await;
    let [unsure, sure] = [128, 250].map(|level| STANDARD.encode(png(8, 8, level)));
    let answer = server.post_json("/v1/analyze", json!({ "images": [unsure, sure] })).await.succeeds();
    assert_eq!([0, 1].map(|index| label(&answer["images"][index]).as_str()), [None, Some("bright")]);

    let answer = server.post_json("/analyze", json!({ "img": [unsure, sure] })).await.succeeds();
    let [unsure, sure] = [0, 1].map(|index| &answer["results"][index][0]);
    assert_eq!((&unsure["dominant_emotion"], &sure["dominant_emotion"]), (&json!(null), &json!("bright")));
    assert!((unsure["emotion"]["dark"].as_f64().unwrap() - 50.0).abs() < 1.0, "{unsure}");

    let data = [[128; 64], [250; 64]].concat();
    let input = json!({ "name": "input", "datatype": "UINT8", "shape": [2, 8, 8, 1], "data": data });
    let answer = server.post_json("/v2/models/expressions/infer", json!({ "inputs": [input] })).await.succeeds();
    assert_eq!(answer["outputs"][1]["data"], json!(["", "bright"]));
}

#[tokio::test]
async fn a_request_may_hold_so_many_pictures() {
    let server = start(|config| config.limits.pictures = 2).await;
    let picture = png(8, 8, 1);
    let many = [("image", picture.as_slice()); 3];
    server.post("/v1/analyze", FORM, form(&many[..2])).await.succeeds();
    server.post("/v1/analyze", FORM, form(&many)).await.fails(413, "too_many_images");
    let text = STANDARD.encode(&picture);
    server.post_json("/v1/analyze", json!({ "images": [text, text, text] })).await.fails(413, "too_many_images");
    let mixed = [("image", picture.as_slice()), ("images", &picture), ("image", &picture)];
    server.post("/v1/analyze", FORM, form(&mixed)).await.fails(413, "too_many_images");
}

#[tokio::test]
async fn pictures_under_both_names_are_answered_in_their_order() {
    let server = start(|_| {}).await;
    let [bright, dark] = [250, 3].map(|level| png(8, 8, level));
    let fields = [("images", dark.as_slice()), ("image", &bright), ("images", &dark)];
    let answer = server.post("/v1/analyze", FORM, form(&fields)).await.succeeds();
    let labels: Vec<&Value> = answer["images"].as_array().unwrap().iter().map(label).collect();
    assert_eq!(labels, ["dark", "bright", "dark"]);
}

#[tokio::test]
async fn a_deepface_client_gets_deepfaces_answer() {
    let server = start(|_| {}).await;
    let img = format!("data:image/png;base64,{}", STANDARD.encode(png(30, 20, 250)));
    let asked = json!({ "img": img, "actions": ["age", "emotion"], "detector_backend": "opencv", "align": true });
    let results = server.post_json("/analyze", asked).await.succeeds()["results"].clone();
    let face = &results[0];
    assert_eq!(face["dominant_emotion"], "bright");
    let region = json!({ "x": 0, "y": 0, "w": 30, "h": 20, "left_eye": null, "right_eye": null });
    assert_eq!(face["region"], region);
    assert_eq!(face["face_confidence"], 1.0);
    let sum: f64 = face["emotion"].as_object().unwrap().values().map(|percent| percent.as_f64().unwrap()).sum();
    assert!((sum - 100.0).abs() < 1e-4, "{face}");

    let by_form = server.post("/analyze", FORM, form(&[("img", &png(30, 20, 250)), ("actions", b"emotion")])).await;
    assert_eq!(by_form.succeeds()["results"], results);
    let text_in_form = server.post("/analyze", FORM, form(&[("img", img.as_bytes())])).await;
    assert_eq!(text_in_form.succeeds()["results"], results);
    let several = server.post_json("/analyze", json!({ "img": [img, img] })).await.succeeds();
    assert_eq!(several["results"], json!([results, results]));
    let list_of_one = server.post_json("/analyze", json!({ "img": [img] })).await.succeeds();
    assert_eq!(list_of_one["results"], json!([results]));
}

#[tokio::test]
async fn a_deepface_client_names_its_picture_one_way_or_the_other() {
    let server = start(|_| {}).await;
    let [bright, dark] = [250, 3].map(|level| format!("data:image/png;base64,{}", STANDARD.encode(png(30, 20, level))));
    let (bright, dark) = (bright.as_str(), dark.as_str());
    for (img, img_path, seen) in
        [(bright, "", "bright"), (bright, dark, "bright"), (bright, "/etc/passwd", "bright"), ("", dark, "dark")]
    {
        let by_json = server.post_json("/analyze", json!({ "img": img, "img_path": img_path })).await;
        let fields = form(&[("img_path", img_path.as_bytes()), ("img", img.as_bytes())]);
        let by_form = server.post("/analyze", FORM, fields).await;
        for answer in [by_json.succeeds(), by_form.succeeds()] {
            assert_eq!(answer["results"][0]["dominant_emotion"], seen, "{img} {img_path}");
        }
    }
    let listed = json!({ "img": [], "img_path": [dark] });
    let answer = server.post_json("/analyze", listed).await.succeeds();
    assert_eq!(answer["results"][0][0]["dominant_emotion"], "dark");
    for asked in [json!({ "img_path": dark }), json!({ "img": null, "img_path": dark })] {
        let answer = server.post_json("/analyze", asked.clone()).await.succeeds();
        assert_eq!(answer["results"][0]["dominant_emotion"], "dark", "{asked}");
    }
    let plain = dark.split_once(',').unwrap().1;
    let in_form = server.post("/analyze", FORM, form(&[("img_path", plain.as_bytes())])).await.succeeds();
    assert_eq!(in_form["results"][0]["dominant_emotion"], "dark", "{in_form}");
    server.post("/analyze", FORM, form(&[("img_path", b"/etc/passwd")])).await.fails(400, "not_base64");
    let broken = json!({ "img": "not base64!", "img_path": dark });
    server.post_json("/analyze", broken).await.fails(400, "not_base64");
    server.post_json("/analyze", json!({})).await.fails(400, "no_image");
    server.post_json("/analyze", json!({ "img": "", "img_path": "" })).await.fails(422, "empty");
    server.post("/analyze", FORM, form(&[("actions", b"emotion")])).await.fails(400, "no_image");
}

#[tokio::test]
async fn a_deepface_client_is_refused_what_is_not_done_here() {
    let server = start_with(&FaceMethod::Rustface, AnalyzeOptions::default(), |_| {}).await;
    let img = STANDARD.encode(png(90, 60, 200));
    server.post_json("/analyze", json!({ "img": img })).await.fails(422, "no_face");
    let lenient = server.post_json("/analyze", json!({ "img": img, "enforce_detection": false })).await.succeeds();
    assert_eq!(lenient["results"][0]["face_confidence"], 0.0);
    assert_eq!(lenient["results"][0]["region"]["w"], 90);
    let in_words = server.post_json("/analyze", json!({ "img": img, "enforce_detection": "False" })).await;
    assert_eq!(in_words.succeeds(), lenient);
    for unclear in [json!("maybe"), json!(0), json!([])] {
        let reply = server.post_json("/analyze", json!({ "img": img, "enforce_detection": unclear })).await;
        reply.fails(400, "malformed");
        assert!(
            reply.json()["error"]["message"].as_str().unwrap().contains("`enforce_detection` must be"),
            "{reply:?}"
        );
    }
    let skipped = server.post_json("/analyze", json!({ "img": img, "detector_backend": "skip" })).await.succeeds();
    assert_eq!(skipped["results"][0]["face_confidence"], 0.0);
    server.post_json("/analyze", json!({ "img": img, "actions": ["age"] })).await.fails(400, "malformed");
    server.post_json("/analyze", json!({ "img": "http://127.0.0.1:1/a.png" })).await.fails(400, "url_refused");
    server.post_json("/analyze", json!({ "img_path": "/etc/passwd" })).await.fails(400, "not_base64");
}

#[tokio::test]
async fn a_deepface_client_is_heard_in_a_form_however_few_pictures_it_may_hold() {
    let server = start_with(&FaceMethod::Rustface, AnalyzeOptions::default(), |config| {
        config.limits.pictures = 1;
    })
    .await;
    let wall = png(90, 60, 200);
    let asked: [(&str, &[u8]); 3] = [("img", &wall), ("actions", b"emotion"), ("enforce_detection", b"false")];
    let lenient = server.post("/analyze", FORM, form(&asked)).await.succeeds();
    assert_eq!(lenient["results"][0]["face_confidence"], 0.0);
    let skipped = [&asked[..], &[("align", b"true"), ("detector_backend", b"skip")]].concat();
    let skipped = server.post("/analyze", FORM, form(&skipped)).await.succeeds();
    assert_eq!(skipped["results"][0]["face_confidence"], 0.0);
    let unclear = [("img", wall.as_slice()), ("enforce_detection", b"maybe")];
    server.post("/analyze", FORM, form(&unclear)).await.fails(400, "malformed");
    let long = [("img", wall.as_slice()), ("actions", &[b"emotion".as_slice(), &[b' '; 2000]].concat())];
    server.post("/analyze", FORM, form(&long)).await.fails(400, "malformed");
}

#[tokio::test]
async fn a_deepface_client_hears_which_of_its_pictures_cannot_be_used() {
    let server = start_with(&FaceMethod::Rustface, AnalyzeOptions::default(), |_| {}).await;
    // The second is a face, by its size.
    let [wall, face] = [(90, 60), (8, 8)].map(|(width, height)| STANDARD.encode(png(width, height, 200)));
    let broken = STANDARD.encode("no picture");
    for (img, enforce, status, code, message) in [
        (json!([face, wall, wall]), true, 422, "no_face", "picture 2 of 3: no face"),
        (json!([face, wall, broken]), false, 415, "not_an_image", "picture 3 of 3: the content"),
        (json!(["not base64!", face]), true, 400, "not_base64", "picture 1 of 2: the picture"),
        (json!([wall]), true, 422, "no_face", "no face"),
    ] {
        let reply = server.post_json("/analyze", json!({ "img": img, "enforce_detection": enforce })).await;
        reply.fails(status, code);
        let body = reply.json();
        assert!(body["error"]["message"].as_str().unwrap().starts_with(message), "{body}");
    }
    let fields = [("img", face.as_bytes()), ("img", b"not base64!")];
    let reply = server.post("/analyze", FORM, form(&fields)).await;
    reply.fails(400, "not_base64");
    assert!(reply.json()["error"]["message"].as_str().unwrap().starts_with("picture 2 of 2: "), "{reply:?}");
}
