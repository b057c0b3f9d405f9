//! `vultus serve` from its first line to its last; the requests have tests of their own.

use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use image::{DynamicImage, ImageFormat};
use serde_json::Value;

use crate::picture::png;
use crate::program::{Place, Running, VULTUS};

/// Starts a server in `place` with `options`, and gives its address.
fn start(place: &Place, options: &[&str]) -> (Running, String) {
    let mut server = place.start("serve", &[&["serve", "--port", "0"], options].concat());
    let out = place.path("serve.out");
    server.wait_for_lines(&out, 1);
    let line = fs_err::read_to_string(out).unwrap();
    (server, line.strip_prefix("listening on ").unwrap().trim().to_owned())
}

/// The status and the JSON that it answers with.
fn post(address: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.post(format!("{address}{path}")).content_type(content_type).send(body).unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap())
}

#[test]
fn it_says_where_it_listens_answers_and_ends_well() {
    let place = Place::new();
    place.write("token", "open-sesame\n");
    let (server, address) = start(&place, &["--name", "mine", "--token-file", "token", "--log"]);

    let refused = ureq::get(format!("{address}/v1/model")).call();
    assert!(matches!(refused, Err(ureq::Error::StatusCode(401))), "{refused:?}");
    let asked = ureq::post(format!("{address}/v1/analyze?faces=whole"));
    let mut answer = asked.header("authorization", "Bearer open-sesame").send(&png(3, 60)[..]).unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!((&answer["model"], &answer["images"][0]["width"]), (&"mine".into(), &60.into()), "{answer}");
    assert_eq!(server.interrupt(), Some(0));
    let log = fs_err::read_to_string(place.path("serve.log")).unwrap();
    assert!(log.contains("GET /v1/model 401 ") && log.contains("POST /v1/analyze 200 "), "{log}");
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
fn its_limits_are_those_that_were_asked_for() {
    let place = Place::new();
    // Linux answers at all addresses that begin so.
    let options = ["--address", "127.0.0.7", "--max-body", "9000", "--max-pixels", "5000", "--max-decoded", "30000"];
    let more = ["--max-images", "4", "--batch", "1", "--timeout", "3"];
    let (server, address) = start(&place, &[&options[..], &more].concat());
    assert!(address.starts_with("http://127.0.0.7:"), "{address}");
    let fails = |body: &[u8], status: u16, code: &str, limit: &str| {
        let (got, answer) = post(&address, "/v1/analyze?faces=whole", "image/png", body);
        assert_eq!((got, &answer["error"]["code"]), (status, &code.into()), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(limit), "{answer}");
    };
    fails(&[0; 9001], 413, "body_too_large", "9000 bytes");
    fails(&png(3, 71), 413, "too_large", "5000 pixels");
    // 4,900 pixels of a byte: 34,300 bytes while it is worked on.
    fails(&png(3, 70), 413, "too_large", "30000");

    let ask = |count: usize| {
        let part = [b"--b\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\n", &png(3, 9)[..], b"\r\n"].concat();
        let form = [part.repeat(count), b"--b--\r\n".to_vec()].concat();
        post(&address, "/v1/analyze?faces=whole", "multipart/form-data; boundary=b", &form)
    };
    let (status, answer) = ask(5);
    assert_eq!((status, &answer["error"]["code"]), (413, &"too_many_images".into()), "{answer}");
    assert_eq!(ask(4).0, 200);
    let figures = ureq::get(format!("{address}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(figures.contains("vultus_batch_faces_count 4\n"), "classified together:\n{figures}");

    let mut slow = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    slow.write_all(b"POST /v1/analyze HTTP/1.1\r\nhost: 127.0.0.7\r\ncontent-length: 100\r\n\r\nslow").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("within 3 seconds"), "{answer}");
    assert_eq!(server.interrupt(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn pictures_that_grow_when_they_are_decoded_share_the_memory_that_there_is_for_them() {
    const BUDGET: usize = 192_000_000;
    let mut command = Command::new(VULTUS);
    command.args(["serve", "--port", "0", "--max-decoded", &BUDGET.to_string()]).stdin(Stdio::null());
    let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.strip_prefix("listening on ").unwrap_or_default().trim();
    let status = format!("/proc/{}/status", server.id());
    let most_resident_bytes = || {
        let status = fs_err::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        line.map_or(0, |kilobytes| kilobytes.trim().parse::<usize>().unwrap() << 10)
    };
    // 9 million pixels of 8 bytes: 191 MB are put by for it, and 117 MB used, so that two at a time would be too much.
    let mut bomb = Cursor::new(Vec::new());
    DynamicImage::new_rgba16(3000, 3000).write_to(&mut bomb, ImageFormat::Png).unwrap();
    let bomb = bomb.into_inner();
    let ask = |picture: &[u8]| post(address, "/v1/analyze?faces=whole", "image/png", picture);
    ask(&png(3, 60));
    let before = most_resident_bytes();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| ask(&bomb))).collect();
        clients.into_iter().map(|client| client.join()).collect()
    });
    let grown = most_resident_bytes().saturating_sub(before);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|(status, _)| *status == 200)), "{answers:?}");
    // The allocator keeps some of what is free again.
    assert!(bomb.len() < 1 << 20 && (1..BUDGET / 5 * 6).contains(&grown), "{} bytes became {grown}", bomb.len());
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let place = Place::new();
    place.write("short", "abc");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port().to_string();
    place.run(&["serve", "--port", &taken]).ends_with(1).says(&["cannot listen", &taken]);
    let note = "note: a request may hold 1 picture, not more than --queue";
    place.run(&["serve", "--port", &taken, "--queue", "1"]).ends_with(1).says(&[note]);
    place.run(&["serve", "--token-file", "short"]).ends_with(2).says(&["short", "8"]);
    place.run(&["serve", "--token-file", "gone"]).ends_with(2).says(&["gone"]);
    for limit in ["--queue", "--max-connections"] {
        for number in ["0", "1000001", "18446744073709551615"] {
            place.run(&["serve", limit, number]).ends_with(2).says(&[limit, number, "1..=1000000"]);
        }
    }
    for limit in ["--max-body", "--max-pixels", "--max-decoded", "--max-images", "--batch"] {
        for number in ["0", "-1", "many"] {
            let option = format!("{limit}={number}");
            place.run(&["serve", &option]).ends_with(2).says(&[limit, number, "use a whole number, 1 or more"]);
        }
    }
    place.run(&["serve", "--name", ""]).ends_with(2).says(&["--name"]);
    place.run(&["serve", "--host", "faces.test:80"]).ends_with(2).says(&["faces.test:80", "without port"]);
    place.run_with(&["serve"], &[("VULTUS_TOKEN", "a b")]).ends_with(2).says(&["VULTUS_TOKEN"]);
    #[cfg(unix)]
    {
        let secret: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"confidential\xff");
        let output = Command::new(VULTUS).arg("serve").env("VULTUS_TOKEN", secret).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && !message.contains("confidential"), "{message}");
    }
}
