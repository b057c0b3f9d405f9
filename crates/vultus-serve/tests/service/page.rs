//! The page's files and what surrounds them.

use crate::client::start;

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let server = start(|_| {}).await;
    let html = server.get("/").await;
    let policy = html.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let scripts = ["/page.js", "/person.js", "/server.js", "/timeline.js", "/view.js"];
    let scripts = scripts.map(|path| (path, "text/javascript"));
    let others = [("/", "text/html"), ("/page.css", "text/css"), ("/icon.svg", "image/svg+xml")];
    for (path, content_type) in others.into_iter().chain(scripts) {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-type").starts_with(content_type), "{path}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        let text = String::from_utf8(reply.body.to_vec()).unwrap().replace("http://www.w3.org/2000/svg", "");
        for outside in ["http://", "https://", "//cdn", "@import", "style=\"", "onclick", "<script>"] {
            assert!(!text.contains(outside), "{path} contains {outside}");
        }
    }
}

#[tokio::test]
async fn the_page_says_what_the_law_says() {
    let html = String::from_utf8(start(|_| {}).await.get("/").await.body.to_vec()).unwrap();
    for words in ["2024/1689", "work", "education", "feelings"] {
        assert!(html.contains(words), "{words}");
    }
}
