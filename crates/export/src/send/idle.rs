//! HTTP connections kept open between requests, so that a backlog does not pay for a TLS handshake per window.
//!
//! What is kept was judged when it was opened and stays with the address it was opened to. Requests of two stores may share
//! a connection to one peer: credentials belong to requests.

use super::connect::Peer;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Connections kept at most, over all stores; the one unused for longest goes first.
const KEPT_MAX: usize = 64;
/// Shorter than the idle limit of common servers and balancers (60 s and more), so that they rarely close first.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// An open HTTP/1.1 connection. Dropping it closes the socket, whatever is still on its way.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Connection {
    pub(super) fn new(sender: SendRequest<Full<Bytes>>, driver: AbortHandle) -> Connection {
        Connection { sender, driver }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connections that wait for another request, oldest first.
#[derive(Default)]
pub(super) struct Idle(Mutex<VecDeque<Kept>>);

struct Kept {
    peer: Peer,
    connection: Connection,
    since: Instant,
}

impl Idle {
    /// A connection to exactly this peer under exactly this trust, if one is still open.
    pub(super) fn take(&self, peer: &Peer) -> Option<Connection> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop_stale(&mut kept);
        let at = kept.iter().rposition(|kept| kept.peer == *peer)?;
        kept.remove(at).map(|kept| kept.connection)
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn keep(&self, peer: Peer, connection: Connection) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop_stale(&mut kept);
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Kept { peer, connection, since: Instant::now() });
    }

    /// How many could still be used.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop_stale(&mut kept);
        kept.len()
    }
}

fn drop_stale(kept: &mut VecDeque<Kept>) {
    kept.retain(|kept| !kept.connection.sender.is_closed() && kept.since.elapsed() < KEPT_FOR);
}
