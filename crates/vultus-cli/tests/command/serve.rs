//! `vultus serve` from its first line to its last; the requests have tests of their own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::picture::png;
use crate::program::{Place, VULTUS};

#[test]
fn it_says_where_it_listens_answers_and_ends_well() {
    let place = Place::new();
    place.write("token", "open-sesame\n");
    let mut server = place.start("serve", &["serve", "--port", "0", "--name", "mine", "--token-file", "token"]);
    let out = place.path("serve.out");
    server.wait_for_lines(&out, 1);
    let line = fs_err::read_to_string(out).unwrap();
    let address = line.strip_prefix("listening on ").unwrap().trim();

    let refused = ureq::get(format!("{address}/v1/model")).call();
    assert!(matches!(refused, Err(ureq::Error::StatusCode(401))), "{refused:?}");
    let asked = ureq::post(format!("{address}/v1/analyze?faces=whole"));
    let mut answer = asked.header("authorization", "Bearer open-sesame").send(&png(3, 60)[..]).unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!((&answer["model"], &answer["images"][0]["width"]), (&"mine".into(), &60.into()), "{answer}");
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn it_serves_although_nobody_reads_its_first_line() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(VULTUS);
    command.args(["serve", "--port", "0"]).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut messages = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    messages.read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on ").unwrap_or_default().trim();
    let answer = ureq::get(format!("{address}/healthz")).call();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(answer.unwrap().status(), 200, "{line}");
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let place = Place::new();
    place.write("short", "abc");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port().to_string();
    place.run(&["serve", "--port", &taken]).ends_with(1).says(&["cannot listen", &taken]);
    place.run(&["serve", "--token-file", "short"]).ends_with(2).says(&["short", "8"]);
    place.run(&["serve", "--token-file", "gone"]).ends_with(2).says(&["gone"]);
    for limit in ["--queue", "--max-connections"] {
        for number in ["0", "1000001", "18446744073709551615"] {
            place.run(&["serve", limit, number]).ends_with(2).says(&[limit, number, "1..=1000000"]);
        }
    }
    place.run(&["serve", "--host", "faces.test:80"]).ends_with(2).says(&["faces.test:80", "without port"]);
    place.run_with(&["serve"], &[("VULTUS_TOKEN", "a b")]).ends_with(2).says(&["VULTUS_TOKEN"]);
}
