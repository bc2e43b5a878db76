//! The listener: HTTP/1.1 connections under bounds that no client can stretch.

use crate::routes::Door;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Most connections at one time; a further one waits in the kernel's queue until one ends.
const CONNECTIONS: usize = 4_096;
/// Open files that connections leave to the log, the catalog and the stores.
const RESERVED_FILES: u64 = 256;
/// Bytes of request line and headers together (reliability 5.3).
const HEADER_BYTES: usize = 16 << 10;
/// How long a client may take to send its headers, also on an idle kept-alive connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may still take when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until `stop` turns true, then lets open requests end.
pub(crate) async fn serve(listener: TcpListener, door: Door, mut stop: watch::Receiver<bool>) {
    let connections = connections();
    let slots = Arc::new(Semaphore::new(connections));
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            () = told(&mut stop) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: waiting lets connections end.
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = &error as &dyn std::error::Error, "the connection is gone already");
        }
        let (door, mut stop) = (door.clone(), stop.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = door.clone().answer(request.map(Body::new), peer);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut connection = std::pin::pin!(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(HEADER_BYTES)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = told(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error = &error as &dyn std::error::Error, "connection ended early");
            }
        });
    }
    let all_free = slots.acquire_many_owned(connections as u32);
    if tokio::time::timeout(DRAIN, all_free).await.is_err() {
        tracing::warn!("stopped with requests still open; what was not acknowledged may be sent again");
    }
}

/// How many connections fit: strangers must never use up the files that the log needs. Raises the soft limit first.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    // No limit at all is none for us either.
    let free = files.unwrap_or(u64::MAX).saturating_sub(RESERVED_FILES).max(16);
    usize::try_from(free).unwrap_or(usize::MAX).min(CONNECTIONS)
}

/// Waits for the word to stop; its sender being gone is one.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
