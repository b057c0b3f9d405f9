//! `/openapi.json` against the routes, and the figures.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::Method;
use serde_json::{Value, json};
use vultus::analyze::AnalyzeOptions;
use vultus::faces::FaceMethod;
use vultus_serve::token::Token;

use crate::client::{Running, png, start, start_with};

/// Everything a program may ask.
const ROUTES: [&str; 16] = [
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /v1/model",
    "GET /v1/stream",
    "GET /v2",
    "GET /v2/health/live",
    "GET /v2/health/ready",
    "GET /v2/models/{model}",
    "GET /v2/models/{model}/ready",
    "GET /v2/models/{model}/versions/{version}",
    "GET /v2/models/{model}/versions/{version}/ready",
    "POST /analyze",
    "POST /v1/analyze",
    "POST /v2/models/{model}/infer",
    "POST /v2/models/{model}/versions/{version}/infer",
];

async fn description(server: &Running) -> Value {
    server.get("/openapi.json").await.succeeds()
}

fn operations(description: &Value) -> Vec<(String, String, Value)> {
    let paths = description["paths"].as_object().unwrap();
    let each = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(|(method, operation)| (method.to_uppercase(), path.clone(), operation.clone())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(each).collect()
}

#[tokio::test]
async fn the_description_lists_the_routes_and_each_of_them_answers() {
    let server = start(|_| {}).await;
    let operations = operations(&description(&server).await);
    let listed: BTreeSet<String> = operations.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(listed, ROUTES.map(str::to_owned).into());
    for (method, path, operation) in operations {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_path = parameters.filter(|parameter| parameter["in"] == "path" && parameter["required"] == true);
        assert_eq!(in_path.count(), path.matches('{').count(), "{path}");
        let path = path.replace("{model}", "expressions").replace("{version}", "1");
        let request = server.request(method.parse().unwrap(), &path).body(Full::default()).unwrap();
        let status = server.send(request).await.status.as_u16();
        assert!(![404, 405, 500].contains(&status), "{method} {path} answers {status}");
        let documented: Vec<&String> = operation["responses"].as_object().unwrap().keys().collect();
        assert!(documented.iter().any(|key| *key == "200" || *key == "101"), "{method} {path}: {documented:?}");
        assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 10), "{method} {path}");
        // Another method is refused, in the documented form.
        let other = server.request(Method::DELETE, &path).body(Full::default()).unwrap();
        let reply = server.send(other).await;
        assert_eq!((reply.status.as_u16(), reply.json()["error"] != Value::Null), (405, true), "{path}");
    }
}

#[tokio::test]
async fn every_reference_in_the_description_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    found.insert(target);
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let description = description(&start(|_| {}).await).await;
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    assert!(found.contains("#/components/schemas/AnalyzeAnswer"), "{found:?}");
    for target in found {
        assert!(description.pointer(&target[1..]).is_some(), "{target}");
    }
    assert_eq!(description["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

/// What programs that read descriptions ask of them beyond references that lead somewhere.
#[tokio::test]
async fn the_description_can_be_read_by_programs() {
    let description = description(&start(|_| {}).await).await;
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&description) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{method} {path} is not the only {id}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            let text = response["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{method} {path}: {status} has no description");
        }
        // A failure of the server's own is in the form that errors have there.
        let failure = &operation["responses"]["500"]["content"]["application/json"]["schema"]["$ref"];
        let form = if path.starts_with("/v2") { "InferenceErrorBody" } else { "ErrorBody" };
        assert_eq!(*failure, format!("#/components/schemas/{form}"), "{method} {path}");
    }
    // What is neither text nor JSON has no schema.
    let bodies = &description["paths"]["/v1/analyze"]["post"]["requestBody"]["content"];
    for raw in ["image/*", "application/octet-stream"] {
        assert_eq!(bodies[raw], json!({}), "{raw}");
    }
}

/// Why `value` is not as `schema` says, if it is not. Fields that are not described are wrong, too.
fn fault(schemas: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return fault(schemas, &schemas[name.rsplit('/').next().unwrap()], value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let faults: Vec<String> = choices.iter().filter_map(|choice| fault(schemas, choice, value)).collect();
        return (faults.len() + 1 != choices.len()).then(|| format!("not one of: {faults:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    if !types.iter().any(|wanted| wanted == kind || (wanted == "number" && kind == "integer")) {
        return Some(format!("{value} should be {types:?}"));
    }
    if let Some(values) = value.as_array() {
        return values.iter().find_map(|value| fault(schemas, &schema["items"], value));
    }
    let fields = value.as_object()?;
    let named = schema["properties"].as_object();
    let rest = Some(&schema["additionalProperties"]).filter(|rest| rest.is_object());
    if named.is_none() && rest.is_none() {
        // Any object.
        return None;
    }
    let missing = schema["required"].as_array().into_iter().flatten();
    let missing = missing.filter_map(Value::as_str).find(|name| !fields.contains_key(*name));
    missing.map(|name| format!("{name} is missing")).or_else(|| {
        fields.iter().find_map(|(name, value)| match named.and_then(|named| named.get(name)).or(rest) {
            Some(schema) => fault(schemas, schema, value).map(|fault| format!("{name}: {fault}")),
            None => Some(format!("{name} is not described")),
        })
    })
}

#[tokio::test]
async fn answers_are_as_described() {
    let server = start(|_| {}).await;
    let description = description(&server).await;
    let holds = |operation: &str, status: &str, value: &Value| {
        let schema =
            &description.pointer(operation).unwrap()["responses"][status]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{operation} {status}");
        assert_eq!(fault(&description["components"]["schemas"], schema, value), None, "{operation}: {value}");
    };
    let picture = STANDARD.encode(png(9, 9, 1));
    let one = json!({ "image": picture });
    let mixed = json!({ "images": [picture, "no base64!"] });
    for asked in [one, mixed] {
        holds("/paths/~1v1~1analyze/post", "200", &server.post_json("/v1/analyze", asked).await.succeeds());
    }
    for img in [json!(picture), json!([picture, picture])] {
        let answer = server.post_json("/analyze", json!({ "img": img })).await.succeeds();
        holds("/paths/~1analyze/post", "200", &answer);
    }
    holds("/paths/~1v1~1model/get", "200", &server.get("/v1/model").await.succeeds());
    let input =
        json!({ "name": "input", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [vec![9; 32], vec![8; 32]] });
    let answer = server.post_json("/v2/models/expressions/infer", json!({ "id": "7", "inputs": [input] })).await;
    holds("/paths/~1v2~1models~1{model}~1infer/post", "200", &answer.succeeds());
    for (path, operation) in [
        ("/v2", "/paths/~1v2/get"),
        ("/v2/health/ready", "/paths/~1v2~1health~1ready/get"),
        ("/v2/models/expressions", "/paths/~1v2~1models~1{model}/get"),
    ] {
        holds(operation, "200", &server.get(path).await.succeeds());
    }
    let unsure = AnalyzeOptions { abstain_below: 0.9, ..AnalyzeOptions::default() };
    let unsure = start_with(&FaceMethod::Whole, unsure, |_| {}).await;
    let picture = STANDARD.encode(png(8, 8, 128));
    for (path, field, operation) in
        [("/v1/analyze", "image", "/paths/~1v1~1analyze/post"), ("/analyze", "img", "/paths/~1analyze/post")]
    {
        holds(operation, "200", &unsure.post_json(path, json!({ field: picture })).await.succeeds());
    }
    let locked = start(|config| config.token = Some(Token::new("open-sesame").unwrap())).await;
    for (path, operation) in [
        ("/v1/model", "/paths/~1v1~1model/get"),
        ("/metrics", "/paths/~1metrics/get"),
        ("/v2/models/expressions", "/paths/~1v2~1models~1{model}/get"),
    ] {
        let refused = locked.get(path).await;
        assert_eq!(refused.status, 401);
        holds(operation, "4XX", &refused.json());
    }
}

#[tokio::test]
async fn what_may_be_asked_is_described() {
    let server = start(|_| {}).await;
    let description = description(&server).await;
    let picture = STANDARD.encode(png(8, 8, 1));
    let numbers = vec![9; 64];
    let input = |data: Value| json!({ "inputs": [{ "name": "input", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": data }] });
    let questions = [
        ("/v1/analyze", json!({ "image": picture }), true),
        ("/v1/analyze", json!({ "image": [picture, picture] }), true),
        ("/v1/analyze", json!({ "images": picture }), true),
        ("/v1/analyze", json!({ "images": [picture] }), true),
        ("/v1/analyze", json!({ "images": [[picture]] }), false),
        ("/v1/analyze", json!({ "image": picture, "more": 1 }), false),
        ("/v1/analyze", json!({}), false),
        ("/analyze", json!({ "img": picture, "actions": "emotion" }), true),
        ("/analyze", json!({ "img": [picture], "actions": ["emotion", "age"] }), true),
        ("/analyze", json!({ "img": [picture], "actions": 7 }), false),
        ("/analyze", json!({ "img_path": picture }), true),
        ("/analyze", json!({ "img": picture, "img_path": "" }), true),
        ("/analyze", json!({ "img": null, "img_path": [picture, picture] }), true),
        ("/analyze", json!({ "img": picture, "img_path": 7 }), false),
        ("/v2/models/expressions/infer", input(json!(numbers)), true),
        ("/v2/models/expressions/infer", input(json!([numbers.chunks(8).collect::<Vec<_>>()])), true),
        ("/v2/models/expressions/infer", input(json!(["9"])), false),
    ];
    for (path, question, good) in questions {
        let operation = &description["paths"][path.replace("expressions", "{model}")]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let fault = fault(&description["components"]["schemas"], schema, &question);
        assert_eq!(fault.is_none(), good, "{path} {question}: {fault:?}");
        assert_eq!(server.post_json(path, question.clone()).await.status == 200, good, "{path} {question}");
    }
}

#[tokio::test]
async fn figures_tell_what_happened() {
    let server = start(|_| {}).await;
    server.post("/v1/analyze", "image/png", png(9, 9, 1)).await.succeeds();
    server.post("/v1/analyze", "image/png", "dear diary").await.fails(415, "not_an_image");
    server.get("/nowhere/at/all").await.fails(404, "not_found");
    let input = json!({ "name": "input", "datatype": "UINT8", "shape": [2, 8, 8, 1], "data": vec![1; 128] });
    server.post_json("/v2/models/expressions/infer", json!({ "inputs": [input] })).await.succeeds();
    let reply = server.get("/metrics").await;
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    for line in [
        r#"vultus_requests_total{route="/v1/analyze",method="POST",status="200"} 1"#,
        r#"vultus_requests_total{route="/v1/analyze",method="POST",status="415"} 1"#,
        r#"vultus_requests_total{route="other",method="GET",status="404"} 1"#,
        r#"vultus_pictures_total{outcome="ok"} 3"#,
        r#"vultus_pictures_total{outcome="not_an_image"} 1"#,
        "vultus_faces_total 3",
        "vultus_batch_faces_count 2",
        "vultus_pictures_in_work 0",
        r#"vultus_request_duration_seconds_count{route="/v1/analyze"} 2"#,
        "# EOF",
    ] {
        assert!(text.lines().any(|present| present == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_card_has_the_bundles_facts_and_the_servers_limits() {
    let server = start(|config| config.limits.body_bytes = 12_345).await;
    let card = server.get("/v1/model").await.succeeds();
    assert_eq!((&card["training"]["seed"], &card["body_bytes"]), (&7.into(), &12_345.into()));
    assert_eq!((&card["parameters"], &card["multiply_adds"], &card["views"]), (&130.into(), &128.into(), &2.into()));
    assert_eq!(card["labels"], serde_json::json!(["bright", "dark"]));
}
