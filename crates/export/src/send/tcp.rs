//! Lines over TCP, as Graphite takes them: a fresh connection per payload, written, half-closed, and watched to its end.
//!
//! The peer never says that it took anything, so all there is to find out is whether the connection held.

use super::connect::{self, Peer, Security, Wire, reason};
use super::{Failure, Inner, refuse};
use crate::egress;
use adapters::{Reply, TcpLines};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// What a peer may say before it is no longer listened to. A Graphite server says nothing.
const HEARD_BYTES_MAX: usize = 64 * 1024;

/// Writes the lines once. `Reply::Tcp` says that all of them were handed over and no reset came back.
pub(super) async fn write(door: &Inner, lines: &TcpLines) -> Result<Reply, Failure> {
    refuse(door.policy.check_host(&lines.host, lines.port))?;
    let host = egress::read_host(&lines.host).map_err(|fault| Failure::Refused(format!("host: {fault}")))?;
    let security = if lines.tls { Security::Tls { ca_pem: None } } else { Security::Plain };
    let peer = Peer { host, port: lines.port, security };
    let mut wire = connect::connect(door, &peer).await?;
    let broken = |error: io::Error| Failure::Broken(format!("{peer}: the connection broke: {}", reason(&error)));

    // A balancer without servers, or a Carbon at its connection limit, accepts and closes. Writing to a closed peer succeeds
    // and the lines are lost, and after the lines its end looks like that of a healthy peer; only before them it tells.
    let mut heard = 0;
    match timeout(door.times.quiet, listen(&mut wire, &mut heard)).await {
        Err(_) => {}
        Ok(Ok(Ended::Silent)) => return Err(Failure::Broken(format!("{peer}: it closed the connection before any line was sent"))),
        Ok(Ok(Ended::Talked)) => {}
        Ok(Err(error)) => return Err(broken(error)),
    }
    wire.write_all(&lines.body).await.map_err(broken)?;
    wire.flush().await.map_err(broken)?;
    wire.shutdown().await.map_err(broken)?;
    match timeout(door.times.drain, listen(&mut wire, &mut heard)).await {
        // A peer may keep the connection open, and a TLS peer may leave without a word: neither speaks against the lines.
        Err(_) | Ok(Ok(_)) => Ok(Reply::Tcp),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Reply::Tcp),
        Ok(Err(error)) => Err(broken(error)),
    }
}

enum Ended {
    /// The peer has closed its side.
    Silent,
    /// The peer has said more than is listened to.
    Talked,
}

/// Reads and forgets until the peer ends or has said too much over the whole connection.
async fn listen(wire: &mut Box<dyn Wire>, heard: &mut usize) -> io::Result<Ended> {
    let mut buffer = [0; 4096];
    while *heard < HEARD_BYTES_MAX {
        match wire.read(&mut buffer).await? {
            0 => return Ok(Ended::Silent),
            read => *heard += read,
        }
    }
    Ok(Ended::Talked)
}
