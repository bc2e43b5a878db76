//! A store on loopback that answers as it is told and remembers every body it was sent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What it does with a request.
#[derive(Clone)]
pub(crate) enum Answer {
    /// A status, and further header lines.
    Status(u16, &'static str),
    /// The same with a body.
    Body(u16, &'static str, String),
    /// These bytes, whatever they are; then it breaks off.
    Raw(&'static [u8]),
    /// Takes everything and breaks off.
    Reset,
}

/// A body as it came (inflated), with the time its lines carry.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    /// 0 where it does not end in a time.
    pub(crate) time: u64,
    pub(crate) accepted: bool,
}

pub(crate) struct FakeStore {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl FakeStore {
    /// `answer` is given how many requests came before, and the body. The thread ends with the test's process.
    pub(crate) fn start(answer: impl Fn(usize, &[u8]) -> Answer + Send + 'static) -> FakeStore {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let received = Arc::new(Mutex::new(Vec::new()));
        let remember = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Some(body) = read_request(&mut stream) else { continue };
                let mut received = remember.lock().expect("no panic while held");
                let answer = answer(received.len(), &body);
                let text = String::from_utf8_lossy(&body).into_owned();
                let time = text.trim_end().rsplit(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0);
                let accepted = matches!(answer, Answer::Status(200..=299, _) | Answer::Body(200..=299, ..));
                received.push(Received { bytes: body, time, accepted });
                drop(received);
                let (status, headers, body) = match answer {
                    Answer::Status(status, headers) => (status, headers, String::new()),
                    Answer::Body(status, headers, body) => (status, headers, body),
                    Answer::Raw(bytes) => {
                        let _ = stream.write_all(bytes);
                        continue;
                    }
                    Answer::Reset => continue,
                };
                let length = body.len();
                let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
            }
        });
        FakeStore { url, received }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic while held").clone()
    }

    pub(crate) fn accepted(&self) -> Vec<Received> {
        self.received().into_iter().filter(|body| body.accepted).collect()
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    if head.contains("content-encoding: gzip") {
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut inflated).ok()?;
        body = inflated;
    }
    Some(body)
}
