//! `/openapi.json` against the routes, and the figures.

use std::collections::BTreeSet;

use http_body_util::Full;
use hyper::Method;
use serde_json::Value;

use crate::client::{Running, png, start};

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

#[tokio::test]
async fn an_answer_has_exactly_the_described_fields() {
    let server = start(|_| {}).await;
    let schemas = description(&server).await["components"]["schemas"].clone();
    let answer = server.post("/v1/analyze", "image/png", png(9, 9, 1)).await.succeeds();
    let described = |schema: &str| -> BTreeSet<String> {
        schemas[schema]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let fields = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(fields(&answer), described("AnalyzeAnswer"));
    assert_eq!(fields(&answer["images"][0]), described("AnalyzedImage"));
    let mut face = fields(&answer["images"][0]["faces"][0]);
    face.insert("landmarks".to_owned());
    assert_eq!(face, described("FaceAnswer"));
    assert_eq!(fields(&server.get("/v1/model").await.succeeds()), described("ModelCard"));
}

#[tokio::test]
async fn figures_tell_what_happened() {
    let server = start(|_| {}).await;
    server.post("/v1/analyze", "image/png", png(9, 9, 1)).await.succeeds();
    server.post("/v1/analyze", "image/png", "dear diary").await.fails(415, "not_an_image");
    server.get("/nowhere/at/all").await.fails(404, "not_found");
    let reply = server.get("/metrics").await;
    assert!(reply.header("content-type").starts_with("application/openmetrics-text"));
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    for line in [
        r#"vultus_requests_total{route="/v1/analyze",method="POST",status="200"} 1"#,
        r#"vultus_requests_total{route="/v1/analyze",method="POST",status="415"} 1"#,
        r#"vultus_requests_total{route="other",method="GET",status="404"} 1"#,
        r#"vultus_pictures_total{outcome="ok"} 1"#,
        r#"vultus_pictures_total{outcome="not_an_image"} 1"#,
        "vultus_faces_total 1",
        "vultus_batch_faces_count 1",
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
    assert_eq!(card["parameters"], 130);
    assert_eq!(card["labels"], serde_json::json!(["bright", "dark"]));
}
