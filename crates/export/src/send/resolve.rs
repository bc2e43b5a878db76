//! From a host name to addresses: the seam at which tests put a table. Says nothing about whether an address may be used.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Lookups that may be under way at once. The system's lookup cannot be cancelled, so a server that never answers holds a thread
/// until the system gives up; this bounds those threads.
const LOOKUPS_MAX: usize = 64;

/// An answer on its way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Finds the addresses of a name. Called once per connection; the caller judges all of them and bounds the time.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `name`, in the order in which to try them.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// The machine's resolver, except that `localhost` is 127.0.0.1 without asking (RFC 6761 section 6.3). With `::1` beside it,
/// as most machines have it, `--allow-egress 127.0.0.0/8` alone would not open `localhost`.
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> SystemResolver {
        SystemResolver { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            if crate::egress::is_localhost(name) {
                return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            }
            let permit = self.lookups.clone().acquire_owned().await.map_err(io::Error::other)?;
            let name = name.to_owned();
            let looked_up = tokio::task::spawn_blocking(move || {
                // Held by the thread, not by the caller, who may be gone before the system answers.
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
            });
            looked_up.await.map_err(io::Error::other)?
        })
    }
}
