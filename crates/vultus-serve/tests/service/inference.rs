//! The Open Inference Protocol.

use serde_json::{Value, json};

use crate::client::{Running, start};

const MODEL: &str = "/v2/models/expressions";

async fn infer(server: &Running, input: Value) -> crate::client::Reply {
    server.post_json("/v2/models/expressions/infer", json!({ "id": "42", "inputs": [input] })).await
}

fn refused(reply: &crate::client::Reply, word: &str) {
    assert_eq!(reply.status, 400, "{reply:?}");
    let body = reply.json();
    // The protocol wants a text here.
    assert!(body["error"].as_str().unwrap().contains(word), "{body}");
    assert_eq!((&body["code"], &body["request_id"]), (&json!("malformed"), &json!(reply.header("x-request-id"))));
}

#[tokio::test]
async fn server_and_model_describe_themselves() {
    let server = start(|_| {}).await;
    assert_eq!(server.get("/v2").await.succeeds()["name"], "vultus");
    assert_eq!(server.get("/v2/health/live").await.succeeds(), json!({ "live": true }));
    assert_eq!(server.get("/v2/health/ready").await.succeeds(), json!({ "ready": true }));
    assert_eq!(server.get("/v2/").await.succeeds(), server.get("/v2").await.succeeds());
    let ready = json!({ "name": "expressions", "ready": true });
    assert_eq!(server.get(&format!("{MODEL}/ready")).await.succeeds(), ready);
    let model = server.get(MODEL).await.succeeds();
    assert_eq!((&model["name"], &model["versions"]), (&json!("expressions"), &json!(["1"])));
    assert_eq!(model["inputs"], json!([{ "name": "input", "datatype": "UINT8", "shape": [-1, 8, 8, 1] }]));
    assert_eq!(model["outputs"][0], json!({ "name": "probabilities", "datatype": "FP32", "shape": [-1, 2] }));
    let reply = server.get("/v2/models/other").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (404, &json!("unknown_model")));
}

#[tokio::test]
async fn rows_are_classified_flat_and_nested_in_both_types() {
    let server = start(|_| {}).await;
    let flat: Vec<u8> = [[250; 64], [3; 64]].concat();
    let nested = json!([vec![vec![[250.0]; 8]; 8], vec![vec![[3.0]; 8]; 8]]);
    for (datatype, data) in [("UINT8", json!(flat)), ("FP32", nested)] {
        let input = json!({ "name": "input", "datatype": datatype, "shape": [2, 8, 8, 1], "data": data });
        let answer = infer(&server, input).await.succeeds();
        assert_eq!((&answer["model_name"], &answer["id"]), (&json!("expressions"), &json!("42")));
        let [probabilities, label] = answer["outputs"].as_array().unwrap().as_slice() else { panic!("{answer}") };
        assert_eq!((&probabilities["name"], &probabilities["shape"]), (&json!("probabilities"), &json!([2, 2])));
        let values: Vec<f64> = probabilities["data"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        assert!(values[0] > 0.99 && values[3] > 0.99, "{values:?}");
        assert_eq!(label["data"], json!(["bright", "dark"]));
    }
}

#[tokio::test]
async fn the_only_version_is_the_model() {
    let server = start(|_| {}).await;
    let version = format!("{MODEL}/versions/1");
    assert_eq!(server.get(&version).await.succeeds(), server.get(MODEL).await.succeeds());
    let ready = json!({ "name": "expressions", "ready": true });
    assert_eq!(server.get(&format!("{version}/ready")).await.succeeds(), ready);
    let asked =
        json!({ "inputs": [{ "name": "input", "datatype": "UINT8", "shape": [1, 8, 8], "data": vec![0; 64] }] });
    let answer = server.post_json(&format!("{version}/infer"), asked.clone()).await.succeeds();
    assert_eq!(answer, server.post_json(&format!("{MODEL}/infer"), asked.clone()).await.succeeds());
    assert_eq!((&answer["model_version"], &answer["outputs"][1]["data"]), (&json!("1"), &json!(["dark"])));

    for other in ["expressions/versions/2", "other/versions/1"].map(|path| format!("/v2/models/{path}")) {
        let replies = [
            server.get(&other).await,
            server.get(&format!("{other}/ready")).await,
            server.post_json(&format!("{other}/infer"), asked.clone()).await,
        ];
        for reply in replies {
            assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (404, &json!("unknown_model")), "{other}");
        }
    }
}

#[tokio::test]
async fn only_the_outputs_that_are_wanted_come_in_the_order_in_which_they_are_asked_for() {
    let server = start(|_| {}).await;
    let input = json!({ "name": "input", "datatype": "UINT8", "shape": [1, 8, 8], "data": vec![0; 64] });
    let asked = json!({ "inputs": [input], "outputs": [{ "name": "label" }] });
    let answer = server.post_json("/v2/models/expressions/infer", asked).await.succeeds();
    assert_eq!(answer["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(answer["outputs"][0]["data"], json!(["dark"]));
    for (asked, names) in [
        (json!([{ "name": "label" }, { "name": "probabilities" }]), json!(["label", "probabilities"])),
        (json!([{ "name": "probabilities" }, { "name": "label" }]), json!(["probabilities", "label"])),
        (json!([{ "name": "label" }, { "name": "label" }]), json!(["label"])),
        (json!([]), json!(["probabilities", "label"])),
    ] {
        let asked = json!({ "inputs": [input], "outputs": asked });
        let answer = server.post_json("/v2/models/expressions/infer", asked.clone()).await.succeeds();
        let came: Vec<&Value> = answer["outputs"].as_array().unwrap().iter().map(|output| &output["name"]).collect();
        assert_eq!(json!(came), names, "{asked}");
    }
    let asked = json!({ "inputs": [input], "outputs": [{ "name": "logits" }] });
    refused(&server.post_json("/v2/models/expressions/infer", asked).await, "outputs");
}

#[tokio::test]
async fn tensors_that_do_not_fit_are_refused() {
    let server = start(|config| config.limits.pictures = 3).await;
    let row = vec![1; 64];
    let good = json!({ "name": "input", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": row });
    infer(&server, good.clone()).await.succeeds();
    let scaled = json!({ "name": "input", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": vec![0.7; 64] });
    refused(&infer(&server, scaled).await, "multiply them by 255");
    let black = json!({ "name": "input", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": vec![1.0; 64] });
    infer(&server, black).await.succeeds();
    let cases = [
        ("name", json!("x"), "named"),
        ("datatype", json!("INT64"), "datatype"),
        ("shape", json!([1, 8, 9, 1]), "shape"),
        ("shape", json!([64]), "shape"),
        ("shape", json!([2, 8, 8, 1]), "2 rows must have 128 values, not 64"),
        ("data", json!([1]), "1 row must have 64 values, not 1"),
        ("shape", json!([0, 8, 8, 1]), "no rows"),
        ("shape", json!([-1, 8, 8, 1]), "JSON"),
        ("data", json!(vec![256; 64]), "grey levels"),
        ("data", json!(vec![-1; 64]), "grey levels"),
        ("data", json!(vec![0.5; 64]), "whole"),
        ("data", json!("AAAA"), "numbers"),
        ("data", json!(null), "numbers"),
        ("data", json!(vec![1; 192]), "1 row must have 64 values, not 192"),
        ("shape", json!([1, 8, 8, 1, 1]), "at most 4"),
    ];
    for (key, value, word) in cases {
        let mut bad = good.clone();
        bad[key] = value;
        refused(&infer(&server, bad).await, word);
    }
    // Too many by their shape, or, whatever that says, by their numbers.
    for (shape, data) in [
        (json!([4, 8, 8, 1]), vec![1; 256]),
        (json!([u64::MAX, 8, 8, 1]), vec![]),
        (json!([1, 8, 8, 1]), vec![0; 193]),
        (json!([3, 8, 8, 1]), vec![0; 100_000]),
    ] {
        let many = json!({ "name": "input", "datatype": "UINT8", "shape": shape, "data": data });
        let reply = infer(&server, many).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (413, &json!("too_many_images")), "{shape}");
    }
    let ask = async |question: Value| server.post_json("/v2/models/expressions/infer", question).await;
    refused(&ask(json!({ "inputs": [] })).await, "one tensor");
    refused(&ask(json!({ "inputs": [good, good] })).await, "at most 1");
    let outputs = vec![json!({ "name": "label" }); 17];
    ask(json!({ "inputs": [good], "outputs": outputs[1..] })).await.succeeds();
    refused(&ask(json!({ "inputs": [good], "outputs": outputs })).await, "at most 16");
}
