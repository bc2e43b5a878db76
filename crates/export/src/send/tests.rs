//! The door against loopback peers that answer, stall, lie, flood and break off. Nothing here leaves the machine.

mod http;
mod names;
mod tcp;
mod tls;

use super::{Door, Failure, Resolve, Resolving, TIMES, Times};
use crate::egress::EgressPolicy;
use adapters::{HeaderText, HttpRequest, Outgoing, Reply, TcpLines};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Far beyond what anything here takes, for tests that expect an answer.
const AMPLE: Duration = Duration::from_secs(20);
/// Soon over, for tests that expect the deadline to pass.
const SHORT: Duration = Duration::from_millis(200);

/// Answers with the next row at each call and stays at the last one; counts the calls.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<VecDeque<Vec<IpAddr>>>>,
    calls: Arc<AtomicUsize>,
}

impl Table {
    fn new(rows: &[&[&str]]) -> Table {
        let rows = rows.iter().map(|row| row.iter().map(|ip| ip.parse().expect("an address")).collect()).collect();
        Table { rows: Arc::new(Mutex::new(rows)), calls: Arc::default() }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Resolve for Table {
    fn resolve<'a>(&'a self, _name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let mut rows = self.rows.lock().expect("the table");
            let row = if rows.len() > 1 { rows.pop_front() } else { rows.front().cloned() };
            row.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        })
    }
}

fn policy(allowed: &[&str]) -> EgressPolicy {
    EgressPolicy { allowed: allowed.iter().map(|net| net.parse().expect("a network")).collect(), own: Vec::new() }
}

/// A door that may go to IPv4 loopback, where every name leads.
fn door() -> Door {
    door_with(Times { drain: AMPLE, ..TIMES })
}

fn door_with(times: Times) -> Door {
    Door::with_times(policy(&["127.0.0.0/8"]), Table::new(&[&["127.0.0.1"]]), times)
}

/// A peer that treats every connection the same way.
struct Peer {
    port: u16,
    accepted: Arc<AtomicUsize>,
}

impl Peer {
    async fn start<F: Future<Output = ()> + Send + 'static>(treat: impl Fn(TcpStream) -> F + Send + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback listener");
        let peer = Peer { port: listener.local_addr().expect("an address").port(), accepted: Arc::default() };
        let accepted = peer.accepted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(treat(stream));
            }
        });
        peer
    }

    /// Reads a request whole, then answers every one with these bytes and leaves the connection open.
    async fn answering(answer: impl AsRef<[u8]> + Clone + Send + Sync + 'static) -> Peer {
        Peer::start(move |mut stream| {
            let answer = answer.clone();
            async move {
                while request(&mut stream).await.is_some() {
                    if stream.write_all(answer.as_ref()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/write", self.port)
    }
}

/// Head and body of one HTTP request with a Content-Length, or `None` at the connection's end.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let head = head(stream).await?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("a head in ASCII"))
}

/// Writes the same bytes until the other side has gone; how many it took.
async fn flood(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Ok(n) = stream.write(bytes).await {
        written += n;
    }
    written
}

/// Ends a connection with a reset instead of an orderly close.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket option");
}

fn post(url: &str) -> HttpRequest {
    HttpRequest {
        method: "POST",
        url: url.parse().expect("a URL"),
        secret_path: false,
        headers: vec![("content-type", HeaderText::Plain("text/plain".to_owned()))],
        body: b"a 1\n".to_vec(),
        ca_pem: None,
    }
}

async fn send(door: &Door, request: HttpRequest) -> Result<Reply, Failure> {
    door.send(&Outgoing::Http(request), AMPLE).await
}

fn status(reply: &Result<Reply, Failure>) -> Option<u16> {
    match reply {
        Ok(Reply::Http { status, .. }) => Some(*status),
        _ => None,
    }
}

fn lines(host: &str, port: u16, body: impl Into<Vec<u8>>) -> TcpLines {
    TcpLines { host: host.to_owned(), port, tls: false, body: body.into() }
}
