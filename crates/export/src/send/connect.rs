//! Resolve, judge, connect: the one place of the program that opens a connection to a metric store.

use super::mask::printable;
use super::{Failure, Inner, tls};
use crate::egress::EgressPolicy;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Host;

/// Addresses that are tried before giving up. All are judged, also those beyond.
const TRIED_MAX: usize = 4;

/// An open connection, with TLS or without.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Who is to be reached, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) security: Security,
}

/// Whether and with what trust a connection is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Security {
    Plain,
    /// TLS with the usual roots, and the certificates of a PEM text beside them.
    Tls {
        ca_pem: Option<String>,
    },
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Connects to the first address that answers; one address the policy refuses refuses them all. The name goes into TLS as
/// the user wrote it, the address does not come from it a second time.
pub(super) async fn connect(door: &Inner, peer: &Peer) -> Result<Box<dyn Wire>, Failure> {
    let addresses = judged(door, peer).await?;
    let stream = first_open(door, peer, &addresses).await?;
    match &peer.security {
        Security::Plain => Ok(Box::new(stream)),
        Security::Tls { ca_pem } => {
            let handshake = tls::handshake(&door.roots, peer, ca_pem.as_deref(), stream);
            Ok(Box::new(timeout(door.times.connect, handshake).await.map_err(|_| Failure::TimedOut)??))
        }
    }
}

async fn judged(door: &Inner, peer: &Peer) -> Result<Vec<IpAddr>, Failure> {
    let (addresses, through) = match &peer.host {
        Host::Ipv4(ip) => (vec![IpAddr::V4(*ip)], String::new()),
        Host::Ipv6(ip) => (vec![IpAddr::V6(*ip)], String::new()),
        Host::Domain(name) => {
            let found = timeout(door.times.connect, door.resolver.resolve(name)).await;
            let found = found.map_err(|_| Failure::Dns(format!("cannot resolve {name}: no answer in time")))?;
            (found.map_err(|error| Failure::Dns(format!("cannot resolve {name}: {}", reason(&error))))?, format!("{name} leads to "))
        }
    };
    if addresses.is_empty() {
        return Err(Failure::Dns(format!("cannot resolve {}: it has no address", peer.host)));
    }
    for address in &addresses {
        door.policy.judge(*address, peer.port).map_err(|refusal| Failure::Refused(format!("{through}{refusal}")))?;
    }
    Ok(addresses)
}

/// Tries the addresses in turn. Each gets an equal share of the time that is left, so that one which swallows everything
/// does not use up the others' time.
async fn first_open(door: &Inner, peer: &Peer, addresses: &[IpAddr]) -> Result<TcpStream, Failure> {
    let until = Instant::now() + door.times.connect;
    let tried = &addresses[..addresses.len().min(TRIED_MAX)];
    let mut last = String::new();
    for (at, address) in tried.iter().enumerate() {
        let share = until.saturating_duration_since(Instant::now()) / (tried.len() - at) as u32;
        match timeout(share, TcpStream::connect(SocketAddr::new(*address, peer.port))).await {
            Ok(Ok(stream)) => return checked(&door.policy, peer, stream),
            Ok(Err(error)) => last = reason(&error),
            Err(_) => last = "no answer in time".to_owned(),
        }
    }
    Err(Failure::Connect(format!("cannot connect to {peer}: {last}")))
}

fn checked(policy: &EgressPolicy, peer: &Peer, stream: TcpStream) -> Result<TcpStream, Failure> {
    let broken = |error: io::Error| Failure::Connect(format!("cannot connect to {peer}: {}", reason(&error)));
    let (local, remote) = (stream.local_addr().map_err(broken)?, stream.peer_addr().map_err(broken)?);
    if policy.is_own(local.ip(), remote) {
        return Err(Failure::Refused(format!("{peer} is this server itself")));
    }
    // Requests are written whole; waiting for more to fill a packet would only delay them.
    stream.set_nodelay(true).map_err(broken)?;
    Ok(stream)
}

/// What happened, in the operating system's words.
pub(super) fn reason(error: &io::Error) -> String {
    printable(error.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_that_comes_out_at_our_own_listener_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let at = listener.local_addr().expect("an address");
        let peer = Peer { host: Host::Domain("our.own.name".to_owned()), port: at.port(), security: Security::Plain };
        for (own, refused) in [(SocketAddr::from(([0; 4], at.port())), true), (SocketAddr::from(([0; 4], at.port() ^ 1)), false)] {
            let policy = EgressPolicy { allowed: Vec::new(), own: vec![own] };
            let stream = TcpStream::connect(at).await.expect("a connection");
            assert_eq!(checked(&policy, &peer, stream).is_err(), refused, "{own}");
        }
    }
}
