//! The event stream of a project: what is told, to whom, and when it ends.

use crate::crashmeter::{Crashmeter, Project};
use crate::http;
use crate::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an event may take on a loaded machine.
const TOLD: Duration = Duration::from_secs(20);

/// An open stream.
struct Stream {
    status: String,
    lines: BufReader<TcpStream>,
}

impl Stream {
    fn open(server: &Crashmeter, project: &str, authorization: &str) -> Stream {
        let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).expect("connects");
        stream.set_read_timeout(Some(TOLD)).expect("set");
        let request = format!(
            "GET /api/v1/projects/{project}/events HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut lines = BufReader::new(stream);
        let mut status = String::new();
        lines.read_line(&mut status).expect("a status line");
        Stream { status, lines }
    }

    /// The next event's name and data; `None` when the stream has ended.
    fn next(&mut self) -> Option<(String, Value)> {
        let (mut name, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if self.lines.read_line(&mut line).expect("an event in time") == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    fn opened(server: &Crashmeter, project: &str, authorization: &str) -> Stream {
        let mut stream = Stream::open(server, project, authorization);
        assert!(stream.status.starts_with("HTTP/1.1 200"), "{}", stream.status);
        let (name, data) = stream.next().expect("a first event");
        assert_eq!(name, "opened");
        assert!(data["version"].is_string() && data["page"].is_string(), "{data}");
        stream
    }

    /// Reads until each of these topics was told, and gives all that were.
    fn until_told(&mut self, topics: &[&str]) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        while !topics.iter().all(|topic| told.contains(*topic)) {
            let (name, data) = self.next().expect("the stream goes on");
            assert_eq!(name, "changed");
            told.extend(data["topics"].as_array().expect("topics").iter().map(|topic| topic.as_str().expect("a word").to_owned()));
        }
        told
    }

    /// Reads what is left; it must end.
    fn ends(mut self) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("it ends in time");
    }
}

fn open_streams(server: &Crashmeter) -> u64 {
    let page = http::get(&format!("{}/metrics", server.url())).expect("an answer").body;
    let line = page.lines().find_map(|line| line.strip_prefix("crashmeter_event_streams ")).expect("a gauge");
    line.parse().expect("a number")
}

fn report(project: &Project, number: u32) {
    project.submit(&json!({"uuid": format!("{number:032x}"), "attributes": {}})).expect("an answer").expect(200);
}

fn names(topics: &[&str]) -> BTreeSet<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}

#[test]
fn each_change_is_told_to_those_who_see_the_project_and_to_nobody_else() {
    let server = Crashmeter::start();
    let (ours, theirs) = (server.project("ours"), server.project("theirs"));
    let all = server.authorization();
    let token = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "theirs"})).expect(201).json();
    let bound = format!("Bearer {}", token["token"].as_str().expect("a token"));
    let mut stream = Stream::opened(&server, "ours", &all);
    let mut other = Stream::opened(&server, "theirs", &bound);
    let refused = Stream::open(&server, "ours", &bound);
    assert!(refused.status.starts_with("HTTP/1.1 404"), "{}", refused.status);

    report(&ours, 1);
    assert_eq!(stream.until_told(&["reports"]), names(&["reports"]));
    let refused = http::call("POST", &ours.submission_url, &[("Content-Type", "application/json")], "{").expect("an answer");
    assert!(refused.status >= 400);
    assert_eq!(stream.until_told(&["refusals"]), names(&["refusals"]));
    let told = ours.ask("GET", "refusals", Value::Null).expect(200).json();
    let said = refused.json()["error"]["message"].clone();
    assert_eq!((told[0]["reason"].as_str(), &told[0]["detail"], told.as_array().map(Vec::len)), (Some("malformed_json"), &said, Some(1)));
    ours.metric("errors", "all", json!({"query": {"fold": {"_tx": [["count"]]}}}));
    assert_eq!(stream.until_told(&["configuration"]), names(&["configuration"]));
    // Nothing is sent and nothing listens there: the attempt fails, and that is told too.
    let settings = json!({"adapter": "influxdb", "period": 1, "sets": ["errors"], "url": "http://127.0.0.1:9/write?db=x"});
    ours.store("influx", settings);
    stream.until_told(&["configuration", "stores"]);
    wait::until("an attempt is told", TOLD, || {
        let status = ours.status("influx");
        if status["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty()) { Ok(()) } else { Err(status.to_string()) }
    });
    // The neighbour's first news are its own.
    report(&theirs, 2);
    assert_eq!(other.until_told(&["reports"]), names(&["reports"]));
    assert_eq!(theirs.ask("GET", "refusals", Value::Null).expect(200).json(), json!([]));
}

#[test]
fn a_stream_ends_with_the_token_the_session_and_the_server() {
    let mut server = Crashmeter::start();
    server.project("p");
    let token = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "p"})).expect(201).json();
    let stream = Stream::opened(&server, "p", &format!("Bearer {}", token["token"].as_str().expect("a token")));
    let listed = server.ask("GET", "/api/v1/tokens", Value::Null).expect(200).json();
    let id = listed.as_array().expect("a list").iter().find(|one| one["scope"] == "query").expect("it is there")["id"].clone();
    server.ask("DELETE", &format!("/api/v1/tokens/{id}"), Value::Null).expect(204);
    stream.ends();

    server.ask("POST", "/api/v1/users", json!({"name": "ann", "role": "viewer", "password": "ann's password"})).expect(201);
    let log_in = || {
        let session = server.ask("POST", "/api/v1/login", json!({"user": "ann", "password": "ann's password"})).expect(200).json();
        format!("Bearer {}", session["token"].as_str().expect("a token"))
    };
    let (leaving, disabled) = (log_in(), log_in());
    let (first, second) = (Stream::opened(&server, "p", &leaving), Stream::opened(&server, "p", &disabled));
    http::call("POST", &format!("{}/api/v1/logout", server.url()), &[("Authorization", &leaving)], "").expect("an answer").expect(204);
    first.ends();
    server.ask("PUT", "/api/v1/users/ann", json!({"disabled": true})).expect(200);
    second.ends();
    wait::until("their seats are free", TOLD, || match open_streams(&server) {
        0 => Ok(()),
        open => Err(format!("{open} are open")),
    });

    let last = Stream::opened(&server, "p", &server.authorization());
    server.terminate();
    last.ends();
}

/// No. 56 of the hostile inputs: more streams than there are seats, and readers that never read.
#[test]
fn n056_streams_have_bounds_and_a_reader_that_does_not_read_costs_nothing() {
    let server = Crashmeter::start();
    let (full, other) = (server.project("full"), server.project("other"));
    let all = server.authorization();
    let mut streams: Vec<Stream> = (0..64).map(|_| Stream::opened(&server, "full", &all)).collect();
    let refused = Stream::open(&server, "full", &all);
    assert!(refused.status.starts_with("HTTP/1.1 503"), "{}", refused.status);
    let mut spared = Stream::opened(&server, "other", &all);
    // None of the 64 reads. They hear of many reports what they would hear of one.
    for number in 1..=200 {
        report(&full, number);
    }
    report(&other, 1);
    assert_eq!(spared.until_told(&["reports"]), names(&["reports"]));
    let mut last = streams.pop().expect("64 are open");
    assert_eq!(last.until_told(&["reports"]), names(&["reports"]));
    assert_eq!(open_streams(&server), 65);
    drop((streams, spared));
    // A reader that is gone is noticed when it is next told something.
    wait::until("the seats of those who are gone are free", TOLD, || {
        report(&other, 1_000 + open_streams(&server) as u32);
        full.submit(&json!({"attributes": {}})).expect("an answer").expect(200);
        match open_streams(&server) {
            1 => Ok(()),
            open => Err(format!("{open} are open")),
        }
    });
    Stream::opened(&server, "full", &all);
}

#[test]
fn views_are_saved_replaced_and_deleted_by_editors_and_seen_by_all() {
    let server = Crashmeter::start();
    let (ours, theirs) = (server.project("ours"), server.project("theirs"));
    let save = |name: &str, search: &str| ours.ask("PUT", &format!("views/{name}"), json!({ "search": search }));
    save("crashes%20by%20version", "?g=application.version").expect(204);
    save("all", "").expect(204);
    save("all", "?t=-7d..now").expect(204);
    let listed = ours.ask("GET", "views", Value::Null).expect(200).json();
    let shown = |at: usize| (listed[at]["name"].as_str(), listed[at]["search"].as_str());
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(shown(0), (Some("all"), Some("?t=-7d..now")));
    assert_eq!(shown(1), (Some("crashes by version"), Some("?g=application.version")));
    assert!(listed[0]["saved_by"].as_str().is_some_and(|by| by.starts_with("token ")), "{listed}");
    assert_eq!(theirs.ask("GET", "views", Value::Null).expect(200).json(), json!([]));
    for (name, search, field) in [
        ("%20all", "", "name"),
        ("a%0Ab", "", "name"),
        (&"n".repeat(101), "", "name"),
        ("x", "g=y", "search"),
        ("x", "?g=a b", "search"),
        ("x", "?\u{202e}", "search"),
        ("x", &format!("?{}", "y".repeat(8 << 10)), "search"),
    ] {
        assert_eq!(save(name, search).expect(422).json()["field"], field, "{name} {search:.20}");
    }
    let viewer = server.ask("POST", "/api/v1/tokens", json!({"scope": "query", "project": "ours"})).expect(201).json();
    let headers = format!("Bearer {}", viewer["token"].as_str().expect("a token"));
    let ask = |method: &str, path: &str| {
        let url = format!("{}/api/v1/projects/ours/{path}", server.url());
        http::call(method, &url, &[("Authorization", &headers), ("Content-Type", "application/json")], r#"{"search":""}"#)
            .expect("an answer")
    };
    assert_eq!((ask("GET", "views").status, ask("PUT", "views/mine").status, ask("DELETE", "views/all").status), (200, 403, 403));
    ours.ask("DELETE", "views/all", Value::Null).expect(204);
    ours.ask("DELETE", "views/all", Value::Null).expect(404);
    assert_eq!(ours.ask("GET", "views", Value::Null).expect(200).json().as_array().map(Vec::len), Some(1));
}
