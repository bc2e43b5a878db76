//! One HTTP/1.1 exchange. Status and answer go back as they came: a redirect is an answer like any other.

use super::connect::{self, Peer, Security, reason};
use super::idle::Connection;
use super::mask::{masked, secrets};
use super::tls::tls_fault;
use super::{Failure, Inner, refuse, retry_after};
use adapters::{HeaderText, HttpRequest, Reply};
use bytes::Bytes;
use http::header::{DATE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::error::Error;
use std::io;

/// How much of an answer's body is read; the connection is closed when more comes (design.md 4).
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest head of an answer (`reliability.md` 5.3).
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Buffer for one read, which also has to hold a head.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Who we are, to the people who read the store's logs.
const PRODUCT: &str = concat!("crashmeter/", env!("CARGO_PKG_VERSION"));

/// Sends the request once, over a kept connection if there is one.
pub(super) async fn exchange(door: &Inner, request: &HttpRequest) -> Result<Reply, Failure> {
    refuse(door.policy.check_url(&request.url))?;
    let peer = peer_of(request)?;
    let mut message = message(request)?;
    if let Some(connection) = door.idle.take(&peer) {
        match over(connection, message, &peer).await {
            Ok((connection, response)) => return answer(door, peer, connection, response, request).await,
            Err(Unsent { message: Some(returned), .. }) => message = returned,
            Err(Unsent { failure, .. }) => return Err(failure),
        }
    }
    let connection = open(door, &peer).await?;
    let (connection, response) = over(connection, message, &peer).await.map_err(|unsent| unsent.failure)?;
    answer(door, peer, connection, response, request).await
}

/// A request without an answer.
struct Unsent {
    failure: Failure,
    /// The request itself when not a byte of it was written, so that sending it elsewhere cannot send it twice.
    message: Option<Request<Full<Bytes>>>,
}

async fn over(mut connection: Connection, message: Request<Full<Bytes>>, peer: &Peer) -> Result<(Connection, Response<Incoming>), Unsent> {
    if let Err(error) = connection.sender.ready().await {
        return Err(Unsent { failure: broken(&error, peer), message: Some(message) });
    }
    match connection.sender.try_send_request(message).await {
        Ok(response) => Ok((connection, response)),
        Err(mut error) => Err(Unsent { message: error.take_message(), failure: broken(error.error(), peer) }),
    }
}

async fn open(door: &Inner, peer: &Peer) -> Result<Connection, Failure> {
    let wire = connect::connect(door, peer).await?;
    let mut builder = http1::Builder::new();
    builder.max_header_size(HEAD_BYTES_MAX).max_buf_size(READ_BYTES_MAX);
    let (sender, driver) = builder.handshake(TokioIo::new(wire)).await.map_err(|error| broken(&error, peer))?;
    // The driver's own result says nothing that the request's does not.
    let driver = tokio::spawn(async move { drop(driver.await) });
    Ok(Connection::new(sender, driver.abort_handle()))
}

async fn answer(
    door: &Inner,
    peer: Peer,
    connection: Connection,
    response: Response<Incoming>,
    request: &HttpRequest,
) -> Result<Reply, Failure> {
    let status = response.status().as_u16();
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let now = TimeZone::UTC.to_datetime(Timestamp::now());
    let retry_after = text(RETRY_AFTER).and_then(|value| retry_after::seconds(value, text(DATE), now));
    let (body, whole) = read(response.into_body()).await.map_err(|error| broken(&error, &peer))?;
    if whole {
        door.idle.keep(peer, connection);
    }
    Ok(Reply::Http { status, retry_after, body: masked(body, &secrets(request)) })
}

/// The body as far as it is read, and whether that is all of it.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = BODY_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}

fn peer_of(request: &HttpRequest) -> Result<Peer, Failure> {
    let url = &request.url;
    let security = if url.scheme() == "https" { Security::Tls { ca_pem: request.ca_pem.clone() } } else { Security::Plain };
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) => Ok(Peer { host: host.to_owned(), port, security }),
        _ => Err(Failure::Refused("url: must name a host".to_owned())),
    }
}

/// The request as it goes onto the wire: origin form, so the host stands in its header. What cannot be sent is named
/// without being shown.
fn message(request: &HttpRequest) -> Result<Request<Full<Bytes>>, Failure> {
    let url = &request.url;
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut headers = HeaderMap::new();
    headers.insert(HOST, header(HOST.as_str(), host)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
    for (name, text) in &request.headers {
        let unnamed = || Failure::Refused(format!("{name:?} is not a header"));
        let value = match text {
            HeaderText::Plain(text) => header(name, text)?,
            HeaderText::Secret(secret) => {
                let mut value = header(name, secret.reveal())?;
                value.set_sensitive(true);
                value
            }
        };
        headers.append(http::HeaderName::try_from(*name).map_err(|_| unnamed())?, value);
    }
    let built = Request::builder().method(request.method).uri(target).body(Full::new(Bytes::copy_from_slice(&request.body)));
    let mut built = built.map_err(|_| Failure::Refused("url: its path or query cannot be sent".to_owned()))?;
    *built.headers_mut() = headers;
    Ok(built)
}

fn header(name: &str, text: &str) -> Result<HeaderValue, Failure> {
    // `from_str` also lets UTF-8 through, which every server reads differently.
    let value = HeaderValue::from_str(text).ok().filter(|_| text.is_ascii());
    value.ok_or_else(|| Failure::Refused(format!("the header {name} holds a character that cannot be sent; use printable ASCII")))
}

fn broken(error: &hyper::Error, peer: &Peer) -> Failure {
    if let Some(fault) = tls_fault(error) {
        return Failure::Tls(format!("no TLS with {peer}: {fault}"));
    }
    let what = if error.is_parse_too_large() {
        "the head of its answer has more than 16 KiB or 100 fields".to_owned()
    } else if error.is_parse() {
        "what came back is not HTTP".to_owned()
    } else if let Some(error) = error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        format!("the connection broke: {}", reason(error))
    } else {
        "the connection ended before the answer did".to_owned()
    };
    Failure::Broken(format!("{peer}: {what}"))
}
