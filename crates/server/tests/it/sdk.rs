//! Real Backtrace SDKs: started by their drivers in `tests/sdk`, one report at a time, with what the SDK itself made of the reply.

use crate::process::{program, repository, spawn_for_life};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// A published SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// `@backtrace/node`.
    Node,
    /// `backtrace-node`.
    NodeLegacy,
    /// `backtracepython`.
    Python,
}

impl Client {
    /// Every SDK there is a driver for.
    pub(crate) const ALL: [Client; 3] = [Client::Node, Client::NodeLegacy, Client::Python];
}

/// How a report comes about in the application.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// An exception that was caught.
    Error,
    /// A text without an exception.
    Message,
}

/// What an application asks its SDK to send.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Error or message.
    pub(crate) kind: Kind,
    /// The text of either.
    pub(crate) text: String,
    /// The name of the exception's class.
    pub(crate) classifier: String,
    /// Attributes beside those that the SDK adds.
    pub(crate) attributes: Map<String, Value>,
    /// Files to attach.
    pub(crate) attachments: Vec<PathBuf>,
}

/// An SDK set up for one submission URL, in a process of its own.
pub(crate) struct Sdk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Sdk {
    /// Starts an SDK with what a user would configure: the submission URL alone, or a host's URL and a token.
    pub(crate) fn start(client: Client, url: &str, token: Option<&str>) -> Sdk {
        let mut command = match client {
            Client::Node => driver("node", "node.cjs"),
            Client::NodeLegacy => driver("node", "node-legacy.cjs"),
            Client::Python => driver(repository("tests/sdk/.venv/bin/python"), "python.py"),
        };
        // The Node SDKs send their whole environment along as an annotation.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg(url).args(token).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_for_life(command).expect("setpriv runs");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Sdk { child, input, output }
    }

    /// Sends a report and waits for the SDK's own word: the receipt id, or why it counts as failed.
    pub(crate) fn send(&mut self, report: &Report) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Outcome {
            ok: bool,
            rxid: Option<String>,
            detail: Option<String>,
        }
        let line = serde_json::to_string(report).expect("a report is plain JSON");
        writeln!(self.input, "{line}").expect("the driver reads; if not, see its message above and run make test-tools");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the driver answers");
        let outcome: Outcome = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("the driver said {answer:?}: {error}"));
        match outcome {
            Outcome { ok: true, rxid: Some(rxid), .. } => Ok(rxid),
            Outcome { detail, .. } => Err(detail.unwrap_or_default()),
        }
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        self.child.kill().expect("our own child can be ended");
        self.child.wait().expect("our own child can be waited for");
    }
}

fn driver(interpreter: impl Into<PathBuf>, script: &str) -> std::process::Command {
    let mut command = program(interpreter.into());
    command.arg(repository("tests/sdk").join(script));
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::loopback;
    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::StatusCode;
    use serde_json::json;
    use std::sync::mpsc;

    /// A server that tells a test what it was sent, and answers with a receipt unless the token is a bad one.
    struct Capture {
        requests: mpsc::Receiver<(String, String)>,
        port: u16,
        _runtime: tokio::runtime::Runtime,
    }

    impl Capture {
        fn start() -> Capture {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
            let port = listener.local_addr().expect("a bound listener").port();
            let (seen, requests) = mpsc::channel();
            let router = Router::new().fallback(answer).with_state(seen);
            runtime.spawn(async move { axum::serve(listener, router).await });
            Capture { requests, port, _runtime: runtime }
        }
    }

    async fn answer(State(seen): State<mpsc::Sender<(String, String)>>, request: Request) -> (StatusCode, axum::Json<Value>) {
        let target = request.uri().to_string();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a whole body");
        let refused = target.contains("bad");
        seen.send((target, String::from_utf8_lossy(&body).into_owned())).expect("the test listens");
        let (status, reply) = match refused {
            true => (StatusCode::FORBIDDEN, json!({"error": {"code": 403, "message": "invalid token"}})),
            false => (StatusCode::OK, json!({"response": "ok", "_rxid": "01000000-0000-0000-0000-000000000000"})),
        };
        (status, axum::Json(reply))
    }

    #[test]
    fn every_sdk_sends_what_it_is_told_and_reports_the_outcome() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("notes.txt");
        std::fs::write(&file, "attached text").expect("a new file");
        let capture = Capture::start();
        let host = loopback(capture.port);
        for client in Client::ALL {
            let mut report = Report {
                kind: Kind::Error,
                text: "no such level".into(),
                classifier: "LevelError".into(),
                attributes: json!({"rig.text": "mark", "rig.number": 7}).as_object().expect("an object").clone(),
                attachments: vec![file.clone()],
            };
            let whole = format!("{host}/submit.backtrace.io/main/0f0f/json");
            let mut sdk = Sdk::start(client, &whole, None);
            assert_eq!(sdk.send(&report).as_deref(), Ok("01000000-0000-0000-0000-000000000000"), "{client:?}");
            let (target, body) = capture.requests.recv().expect("one request");
            assert_eq!(target, "/submit.backtrace.io/main/0f0f/json");
            for part in ["no such level", "LevelError", "rig.text", "mark", "attached text"] {
                assert!(body.contains(part), "{client:?} leaves out {part:?}: {body}");
            }

            report = Report { kind: Kind::Message, text: "just to say".into(), attachments: vec![], ..report };
            assert!(sdk.send(&report).is_ok());
            let (_, body) = capture.requests.recv().expect("one request");
            assert!(body.contains("just to say") && !body.contains("attached text"), "{client:?}: {body}");

            let mut sdk = Sdk::start(client, &host, Some("bad"));
            sdk.send(&report).expect_err("403 is a failure to every SDK");
            let (target, _) = capture.requests.recv().expect("one request");
            assert!(target.starts_with("/post?") && target.contains("token=bad") && target.contains("format=json"), "{target}");
        }
    }
}
