//! Datadog, as far as it can be had without an account: Prism judging requests by Datadog's OpenAPI documents, and the models of
//! Datadog's own client judging bodies. Neither stores a point; limits, clock and names are not judged.

use super::Shared;
use super::capture::{Capture, Request};
use super::parsers::judge;
use crate::http::{self, Reply};
use crate::process::{Process, free_port, loopback, program, repository};
use std::sync::Arc;
use tempfile::TempDir;

/// A running Prism, with something in front that unpacks bodies, which it does not do itself.
pub(crate) struct Datadog {
    _process: Process,
    _folder: TempDir,
    front: Capture,
}

impl Datadog {
    /// The one that tests share; it takes seconds to start.
    pub(crate) fn shared() -> Arc<Datadog> {
        static SHARED: Shared<Datadog> = Shared::new();
        SHARED.get(Datadog::start)
    }

    fn start() -> Datadog {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut command = program("node");
        command.arg(repository("tests/datadog/node_modules/.bin/prism")).args([
            "mock",
            "--errors",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
        ]);
        command.arg(repository("tests/datadog/.venv/spec.json"));
        let mut process = Process::start("prism", command, folder.path());
        process.wait_until_ready(|| http::get(&loopback(port)).is_ok());
        let front = Capture::answering(move |request| {
            let reply = pass_on(&loopback(port), request);
            (reply.status, reply.body)
        });
        Datadog { _process: process, _folder: folder, front }
    }

    /// The base address, to be given in place of a site's.
    pub(crate) fn url(&self) -> String {
        self.front.url("")
    }

    /// Every request so far whose key is this one, so that tests do not see each other's.
    pub(crate) fn got(&self, key: &str) -> Vec<Request> {
        self.front.got().into_iter().filter(|request| header(request, "dd-api-key") == Some(key)).collect()
    }
}

fn pass_on(base: &str, request: &Request) -> Reply {
    let mut start = request.head.split(' ');
    let (method, path) = start.next().zip(start.next()).expect("a request line");
    let kept = ["content-type", "dd-api-key", "dd-application-key"];
    let headers: Vec<(&str, &str)> = kept.iter().filter_map(|name| Some((*name, header(request, name)?))).collect();
    http::call(method, &format!("{base}{path}"), &headers, request.body.as_slice()).expect("Prism answers")
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let lines = request.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// Judges a body for `/api/v1/series` or `/api/v2/series`: the number of its series, or why the client's models refuse it.
pub(crate) fn models(version: &str, body: &str) -> Result<u64, String> {
    let mut command = program(repository("tests/datadog/.venv/bin/python"));
    command.arg(repository("tests/datadog/models.py")).arg(version);
    judge(command, body).map(|said| said.trim().parse().expect("a number of series"))
}

#[test]
fn both_judges_know_good_bodies_from_bad() {
    let datadog = Datadog::shared();
    let ask = |method: &str, path: &str, key: &str, body: &str| {
        let headers = [("dd-api-key", key), ("content-type", "application/json")];
        let headers = if key.is_empty() { &headers[1..] } else { &headers };
        http::call(method, &format!("{}{path}", datadog.url()), headers, body).expect("an answer").status
    };
    assert_eq!(ask("GET", "/api/v1/validate", "rig", ""), 200);
    assert_eq!(ask("GET", "/api/v1/validate", "", ""), 401, "without a key");
    let v2 = |series: &str| format!(r#"{{"series":[{{"metric":"rig",{series}}}]}}"#);
    let good = v2(r#""type":1,"interval":60,"points":[{"timestamp":1,"value":1.5}],"tags":["a:b"]"#);
    assert_eq!((ask("POST", "/api/v2/series", "rig", &good), models("v2", &good)), (202, Ok(1)));
    for bad in [r#""type":"count","points":[{"timestamp":1,"value":1}]"#, r#""type":9,"points":[{"timestamp":1,"value":1}]"#] {
        assert_eq!(ask("POST", "/api/v2/series", "rig", &v2(bad)), 400, "{bad}");
        assert!(models("v2", &v2(bad)).is_err(), "{bad}");
    }
    assert_eq!(ask("POST", "/api/v2/series", "rig", &v2(r#""points":[[1,1]]"#)), 400, "points of version 1");
    assert!(models("v2", &v2(r#""colour":1,"points":[{"timestamp":1,"value":1}]"#)).expect_err("an invented field").contains("colour"));
    let good = v2(r#""type":"count","interval":60,"points":[[1,1.5]],"tags":["a:b"]"#);
    assert_eq!((ask("POST", "/api/v1/series", "rig", &good), models("v1", &good)), (202, Ok(1)));
    assert!(models("v1", &v2(r#""points":[["a",1]]"#)).is_err());
    assert!(models("v1", &v2(r#""points":[[1,NaN]]"#)).expect_err("not JSON").contains("NaN"));
}
