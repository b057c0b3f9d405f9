//! `vultus models get`, and addresses as inputs, against a server in this process.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::picture::png;
use crate::program::{Place, development_file};

/// Answers every request for `/name` with the bytes of that name, and all others with 404; gives the address.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = request.next().unwrap().unwrap();
            // Up to the empty line.
            while request.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let name = first.split(' ').nth(1).unwrap().trim_start_matches('/');
            let found = files.iter().find(|(known, _)| *known == name);
            let (status, body) = found.map_or(("404 Not Found", &[][..]), |(_, bytes)| ("200 OK", bytes));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

#[test]
fn a_download_that_is_not_the_known_file_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let address = serve(vec![("yunet.onnx", b"\x08\x06 something else".to_vec())]);
    fs_err::create_dir(place.path("models")).unwrap();
    let get = |url: &str| place.run(&["models", "get", "yunet", "--from", url, "--out", "models/yunet.onnx"]);
    get(&format!("{address}/yunet.onnx")).ends_with(1).says(&["SHA-256", "damaged"]);
    get(&format!("{address}/gone.onnx")).ends_with(1).says(&["404"]);
    get("http://127.0.0.1:1/yunet.onnx").ends_with(1).says(&["127.0.0.1:1"]);
    get("file:///yunet.onnx").ends_with(2).says(&["file:///yunet.onnx", "https://"]);
    assert!(fs_err::read_dir(place.path("models")).unwrap().next().is_none());
    place.run(&["models", "get", "yunet", "--out", "absent/yunet.onnx"]).ends_with(2).says(&["no folder absent"]);
    place.run(&["models", "get", "resnet"]).ends_with(2).says(&["yunet"]);
}

#[test]
fn the_known_file_is_installed_and_used() {
    let shared = |name| development_file("VULTUS_SHARED", "shared", name);
    let Some(file) = shared("models/yunet_n_640_640.onnx") else { return };
    let Some(portrait) = shared("images/astronaut.png") else { return };
    let place = Place::with_config();
    place.train("run", &[]);
    let address = serve(vec![("yunet.onnx", fs_err::read(&file).unwrap())]);
    let models = place.path("models").display().to_string();
    let environment = [("VULTUS_MODELS", models.as_str())];
    let outcome = place.run_with(&["models", "get", "yunet", "--from", &format!("{address}/yunet.onnx")], &environment);
    outcome.ends_with(0).prints(&["yunet.onnx"]);
    let again = ["models", "get", "yunet", "--from", "http://127.0.0.1:1/yunet.onnx"];
    place.run_with(&again, &environment).ends_with(0).prints(&["yunet.onnx"]).says(&["is installed already"]);
    place.write("mine.txt", "mine");
    let get = ["models", "get", "yunet", "--from", &format!("{address}/yunet.onnx"), "--out", "mine.txt"];
    place.run(&get).ends_with(2).says(&["mine.txt exists"]);
    let arguments = ["predict", portrait.to_str().unwrap(), "--model", "run", "--faces", "yunet"];
    let row = place.run_with(&arguments, &environment).ends_with(0).json();
    assert_eq!(row["faces"].as_array().unwrap().len(), 1);
    assert_eq!(row["faces"][0]["landmarks"].as_array().unwrap().len(), 5);
}

#[test]
fn addresses_are_inputs_and_their_failures_rows() {
    let place = Place::with_config();
    place.train("run", &[]);
    let address = serve(vec![("face.png", png(1, 48))]);
    let (good, bad) = (format!("{address}/face.png"), format!("{address}/absent.png"));
    let outcome = place.run(&["predict", &good, &bad, "--model", "run"]).ends_with(1);
    let rows: Vec<serde_json::Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[0]["path"], good.as_str());
    assert_eq!(rows[0]["faces"].as_array().unwrap().len(), 1);
    assert_eq!(rows[1]["error"]["code"], "unreachable");
    assert!(rows[1]["error"]["message"].as_str().unwrap().contains("404"), "{}", rows[1]);
}
