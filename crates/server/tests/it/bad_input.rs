//! Bad input at every door: a clear refusal that names field and mend, nothing lost, the server as healthy as before.

use crate::crashmeter::{Crashmeter, Project};
use crate::http::{self, Reply};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

fn submit(project: &Project, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    http::call("POST", &project.submission_url, headers, body).expect("the server answers")
}

fn good_report(number: u64) -> Value {
    json!({"uuid": format!("{number:032x}"), "timestamp": 1_764_000_000, "attributes": {"kind": "good"}})
}

/// Everything accepted so far, asked of the server.
fn accepted(project: &Project) -> u64 {
    let query = json!({"query": {"fold": {"_tx": [["count"]]}}, "from": 0, "to": 4_000_000_000u64});
    project.ask("POST", "query", query).expect(200).json()["matched"].as_u64().expect("a count")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

#[test]
fn refused_submissions_say_why_and_harm_nothing() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let deep = [br#"{"attributes":{},"annotations":"#.to_vec(), deep, b"}".to_vec()].concat();
    let many: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("a{n}"), json!(n))).collect();
    let bomb = gzip(&vec![b' '; 80 << 20]);
    let json = [("Content-Type", "application/json")];
    let gzipped = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let multipart = [("Content-Type", "multipart/form-data; boundary=x")];
    let mut good = 0;
    for (what, headers, body, status, says) in [
        ("no JSON", &json[..], b"{".to_vec(), 400, "JSON"),
        ("no object", &json, b"[1]".to_vec(), 400, ""),
        ("nothing", &json, Vec::new(), 400, ""),
        ("not UTF-8", &json, b"{\"attributes\":{\"a\":\"\xff\"}}".to_vec(), 400, ""),
        ("deep", &json, deep, 400, "deep"),
        ("many attributes", &json, json!({"attributes": many}).to_string().into_bytes(), 400, "1000"),
        ("a long value", &json, json!({"attributes": {"a": "x".repeat(40_000)}}).to_string().into_bytes(), 413, "a"),
        ("a huge number", &json, b"{\"attributes\":{\"n\":1e999}}".to_vec(), 400, "n"),
        ("a bomb", &gzipped, bomb, 413, ""),
        ("half a gzip", &gzipped, gzip(b"{}")[..10].to_vec(), 400, ""),
        ("gzip of nothing of the kind", &gzipped, b"{}".to_vec(), 400, ""),
        ("brotli", &[("Content-Encoding", "br")], b"{}".to_vec(), 415, "gzip"),
        ("an endless part", &multipart, b"--x\r\nContent-Disposition: form-data; name=\"upload_file\"\r\n\r\n{}".to_vec(), 400, ""),
        ("no report", &multipart, b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n".to_vec(), 400, ""),
    ] {
        let reply = submit(&project, headers, body);
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        let error = reply.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("{what}: {}", reply.body)).to_owned();
        assert!(error.len() > 10 && error.contains(says), "{what}: {error}");
        good += 1;
        submit(&project, &json, good_report(good).to_string()).expect(200);
    }
    assert_eq!(accepted(&project), good);
    let metrics = http::get(&format!("{}/metrics", server.url())).expect("an answer").body;
    assert!(metrics.contains("crashmeter_submissions_refused_total{reason=\"too_deep\"} 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("crashmeter_submissions_total{{outcome=\"accepted\"}} {good}\n")), "{metrics}");
}

#[test]
fn a_body_of_100_mb_is_refused_before_it_is_read() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let authority = server.url().trim_start_matches("http://").to_owned();
    let path = project.submission_url.split_once(&authority).expect("its own address").1.to_owned();
    for framing in ["Content-Length: 104857600", "Transfer-Encoding: chunked"] {
        let mut stream = TcpStream::connect(&authority).expect("connects");
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n").expect("sent");
        let megabyte = vec![b' '; 1 << 20];
        let chunked = framing.contains("chunked");
        // The server answers and closes in the middle: writing fails then, and what it said is there to be read.
        for _ in 0..100 {
            let head = if chunked { "100000\r\n" } else { "" };
            let tail = if chunked { "\r\n" } else { "" };
            let part = [head.as_bytes(), &megabyte, tail.as_bytes()].concat();
            if stream.write_all(&part).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // A reset may overtake the answer on its way; then there is none, but never a 200.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    let announced = http::call("POST", &project.submission_url, &[("Expect", "100-continue")], vec![b' '; 70 << 20]);
    assert!(announced.is_err() || announced.is_ok_and(|reply| reply.status == 413));
    submit(&project, &[], good_report(1).to_string()).expect(200);
    assert_eq!(accepted(&project), 1);
}

#[test]
fn tokens_open_only_their_own_door() {
    let server = Crashmeter::start();
    let (project, other) = (server.project("p"), server.project("q"));
    let base = server.url();
    let unknown = project.submission_url.replace(&project.token, &"0".repeat(64));
    for url in [unknown, format!("{base}/post?format=json&token=nonsense"), format!("{base}/api/post?format=json")] {
        let reply = http::call("POST", &url, &[], good_report(1).to_string()).expect("an answer");
        assert_eq!(reply.status, 403, "{}", reply.body);
        assert!(reply.json()["error"]["message"].as_str().is_some_and(|message| message.contains("token")), "{}", reply.body);
    }
    let bearer = |token: &str| format!("Bearer {token}");
    let ask = |token: &str, path: &str| {
        http::call("GET", &format!("{base}{path}"), &[("Authorization", &bearer(token))], "").expect("an answer").status
    };
    assert_eq!(ask(&project.token, "/api/v1/projects"), 403, "a submission token reads nothing");
    assert_eq!(ask("nonsense", "/api/v1/projects"), 401);
    assert_eq!(http::get(&format!("{base}/api/v1/projects")).expect("an answer").status, 401);
    let reader = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "p"})).expect(201).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert_eq!(ask(&reader, "/api/v1/projects/p"), 200);
    assert_eq!(ask(&reader, "/api/v1/projects/q"), 404, "another project is not there");
    assert_eq!(ask(&reader, "/api/v1/projects/nowhere"), 404);
    assert_eq!(ask(&reader, "/api/v1/tokens"), 403);
    let put = http::call("PUT", &format!("{base}/api/v1/projects/p/metric-sets/s"), &[("Authorization", &bearer(&reader))], "")
        .expect("an answer");
    assert_eq!(put.status, 403, "a reader changes nothing");
    let as_submission =
        http::call("POST", &format!("{base}/post?format=json&token={reader}"), &[], good_report(1).to_string()).expect("an answer");
    assert_eq!(as_submission.status, 403);
    assert_eq!((accepted(&project), accepted(&other)), (0, 0));
}

#[test]
fn refused_configuration_names_the_field() {
    let server = Crashmeter::start();
    let project = server.project("p");
    let query = |fold: Value| json!({"query": {"fold": fold}});
    let store = |fields: Value| {
        let mut body = json!({"adapter": "influxdb", "period": 60, "sets": ["s"], "url": "http://127.0.0.1:1/write?db=a"});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        body
    };
    for (path, body, field) in [
        ("metric-sets/s/metrics/m", query(json!({"error.type": [["first"]]})), "query.fold.error.type"),
        ("metric-sets/s/metrics/m", query(json!({"a": [["distribution", 3]]})), "query.fold.a[0]"),
        ("metric-sets/s/metrics/m", query(json!({})), "query.fold"),
        (
            "metric-sets/s/metrics/m",
            json!({"query": {"fold": {"_tx": [["count"]]}, "filter": [{"a": [["regular-expression", "("]]}]}}),
            "query.filter[0].a[0]",
        ),
        ("metric-sets/s/metrics/m", json!({"query": {"fold": {"_tx": [["count"]]}}, "series_budget": 0}), "series_budget"),
        ("metric-sets/s/metrics/%0a", query(json!({"_tx": [["count"]]})), "metric"),
        ("metric-stores/x", store(json!({"period": 0})), "period"),
        ("metric-stores/x", store(json!({"period": "1.5s"})), "period"),
        ("metric-stores/x", store(json!({"url": "http://169.254.169.254/write?db=a"})), "url"),
        ("metric-stores/x", store(json!({"url": "http://[::ffff:169.254.169.254]/write?db=a"})), "url"),
        ("metric-stores/x", store(json!({"url": "http://10.0.0.1/write?db=a"})), "url"),
        ("metric-stores/x", store(json!({"url": "gopher://127.0.0.1/write?db=a"})), "url"),
        ("metric-stores/x", store(json!({"token": "a\r\nb: c"})), "token"),
        ("metric-stores/x", store(json!({"unknown": 1})), "unknown"),
        ("metric-stores/x", store(json!({"adapter": "carrier-pigeon"})), "adapter"),
        ("metric-stores/x", json!({"adapter": "graphite", "period": 10, "host": "127.0.0.1", "step": 60}), "step"),
        ("metric-stores/x", json!({"adapter": "graphite", "period": 10, "host": "metadata.google.internal:80"}), "host"),
    ] {
        let reply = project.ask("PUT", path, body.clone());
        assert_eq!(reply.status, 422, "{path} {body}: {}", reply.body);
        let problem = reply.json();
        let fields: Vec<&str> =
            problem["problems"].as_array().into_iter().flatten().chain([&problem]).filter_map(|one| one["field"].as_str()).collect();
        assert!(fields.contains(&field), "{path} {body}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 8), "{problem}");
    }
    assert_eq!(project.ask("GET", "metric-stores", Value::Null).expect(200).json(), json!([]), "nothing is half-applied");
    project.ask("POST", "query", json!("no object")).expect(422);
    assert_eq!(server.ask("POST", "/api/v1/projects", json!({"name": "p"})).status, 409);
    assert_eq!(server.ask("POST", "/api/v1/projects", json!({"name": ""})).status, 422);
    assert_eq!(server.ask("POST", "/api/v1/projects", json!({"nom": "p"})).status, 422);
}

#[test]
fn a_newline_in_every_value_makes_a_harmless_series() {
    let server = Crashmeter::start();
    let project = server.project("p");
    project.metric("s", "m", json!({"query": {"group": ["kind"], "fold": {"_tx": [["count"]]}}}));
    let store = project.store("prometheus", json!({"adapter": "prometheus", "period": 1, "sets": ["s"]}));
    let from = store["first_window_start"].as_u64().expect("a time");
    crate::wait::until_second(from);
    let hostile = ["a\nforged 1\n", "\"} 1\nup{job=\"x\"} 0\n#", "\\", "\r\n", "\u{2028}", "none", "__other__", "", " "];
    for (number, value) in (1..).zip(hostile) {
        let report = json!({"uuid": format!("{number:032x}"), "attributes": {"kind": value, "a\u{0}b": 1}});
        // A control character in a name is refused, in a value it is not.
        assert_eq!(submit(&project, &[], report.to_string()).status, 400);
        let report = json!({"uuid": format!("{number:032x}"), "attributes": {"kind": value, "other": value}});
        submit(&project, &[], report.to_string()).expect(200);
    }
    let url = store["url"].as_str().expect("a URL");
    let page = crate::wait::until("all series on the page", crate::crashmeter::SETTLED, || {
        let page = http::get(url).map_err(|error| error.to_string())?.body;
        let series = page.lines().filter(|line| line.starts_with("crashmeter_p_s_m_count_window{")).count();
        if series == hostile.len() { Ok(page) } else { Err(page) }
    });
    for line in page.lines() {
        let known =
            line.starts_with("# HELP crashmeter_p_") || line.starts_with("# TYPE crashmeter_p_") || line.starts_with("crashmeter_p_");
        assert!(known, "a forged line: {line:?}");
    }
}
