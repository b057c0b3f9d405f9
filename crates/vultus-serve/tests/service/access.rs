//! Who may ask: the token, and pages of other origins.

use axum::body::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Version};
use vultus::analyze::AnalyzeOptions;
use vultus::faces::FaceMethod;
use vultus_serve::config::ServeConfig;
use vultus_serve::host::HostName;
use vultus_serve::token::Token;

use crate::client::{Reply, Running, png, start, try_bound};

async fn analyze(server: &Running, headers: &[(&str, &str)]) -> Reply {
    let mut request = server.request(Method::POST, "/v1/analyze");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(Full::new(Bytes::from(png(8, 8, 1)))).unwrap()).await
}

#[tokio::test]
async fn without_the_token_only_what_everyone_may_know_is_answered() {
    let server = start(|config| config.token = Some(Token::new("open-sesame").unwrap())).await;
    for path in ["/", "/page.js", "/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready", "/openapi.json"]
    {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    for path in ["/v1/model", "/metrics", "/v1/stream"] {
        let reply = server.get(path).await;
        reply.fails(401, "unauthorized");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    let models =
        ["expressions", "expressions/ready", "expressions/versions/1", "expressions/versions/1/ready", "other"];
    for path in models.map(|model| format!("/v2/models/{model}")) {
        assert_eq!(server.get(&path).await.status, 401, "{path}");
    }
    server.post("/analyze", "application/json", "{}").await.fails(401, "unauthorized");
    analyze(&server, &[]).await.fails(401, "unauthorized");
    analyze(&server, &[("authorization", "Bearer open-sesam")]).await.fails(401, "unauthorized");
    analyze(&server, &[("authorization", "Bearer open-sesame")]).await.succeeds();
}

#[tokio::test]
async fn a_local_server_is_called_by_its_own_names() {
    let server = start(|config| config.hosts = vec![HostName::new("faces.test").unwrap()]).await;
    let ask = async |path: &str, host: Option<&str>, version: Version| {
        let request = Request::builder().uri(path).version(version);
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        server.send(request.body(Full::default()).unwrap()).await
    };
    for path in ["/", "/page.js", "/openapi.json", "/v1/model", "/metrics", "/v1/stream"] {
        ask(path, Some("evil.test:80"), Version::HTTP_11).await.fails(421, "host_refused");
    }
    let refused = ask("/v2/models/expressions", Some("evil.test"), Version::HTTP_11).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (421, &"host_refused".into()));
    for path in ["/healthz", "/readyz", "/v2/health/live"] {
        assert_eq!(ask(path, Some("evil.test"), Version::HTTP_11).await.status, 200, "{path}");
    }
    ask("/v1/model", Some("Faces.test:8080"), Version::HTTP_11).await.succeeds();
    // No browser leaves the name out.
    ask("/v1/model", None, Version::HTTP_10).await.succeeds();
}

#[tokio::test]
async fn an_origin_is_named_and_no_pattern() {
    let any = |config: &mut ServeConfig| config.cors_origins = vec!["*".parse().unwrap()];
    let refused = try_bound(&FaceMethod::Whole, AnalyzeOptions::default(), any).await.err().unwrap();
    assert!(refused.to_string().contains("name each origin"), "{refused}");
}

#[tokio::test]
async fn other_origins_are_told_nothing_by_default() {
    let server = start(|_| {}).await;
    let reply = analyze(&server, &[("origin", "https://example.com")]).await;
    assert_eq!(reply.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn an_allowed_origin_is_told_so_and_no_other() {
    let server = start(|config| {
        config.cors_origins = vec!["https://example.com".parse().unwrap()];
        config.token = Some(Token::new("open-sesame").unwrap());
    })
    .await;
    let preflight = |origin: &str| {
        let request = server.request(Method::OPTIONS, "/v1/analyze").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        server.send(request.header("access-control-request-headers", "authorization").body(Full::default()).unwrap())
    };
    let allowed = preflight("https://example.com").await;
    assert_eq!((allowed.status.as_u16(), allowed.header("access-control-allow-origin")), (200, "https://example.com"));
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    // It is answered before it becomes a request like others.
    assert_eq!((allowed.header("x-request-id"), allowed.body.len()), ("", 0));
    assert_eq!(allowed.header("access-control-max-age"), "3600");
    assert_eq!(preflight("https://example.org").await.header("access-control-allow-origin"), "");
    // An error can be read as well.
    let refused = analyze(&server, &[("origin", "https://example.com")]).await;
    refused.fails(401, "unauthorized");
    assert_eq!(refused.header("access-control-allow-origin"), "https://example.com");
}

#[tokio::test]
async fn a_plain_request_id_comes_back_and_no_other() {
    let server = start(|_| {}).await;
    let reply = analyze(&server, &[("x-request-id", "trace-1.2_3")]).await;
    assert_eq!(reply.header("x-request-id"), "trace-1.2_3");
    for bad in ["", "<script>", &"x".repeat(65)] {
        let reply = analyze(&server, &[("x-request-id", bad)]).await;
        assert_eq!(reply.header("x-request-id").len(), 32, "{bad:?}");
    }
}
