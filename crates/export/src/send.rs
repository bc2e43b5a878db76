//! The only door out: resolves a host once, has every address judged, connects to what was judged and to nothing else, and
//! reads bounded answers. It follows no redirect, takes no proxy from the environment and never sends bytes a second time.
//!
//! It knows no store and no verdict: an answer goes to the adapter, a failure to the retry rules.

mod connect;
mod http;
mod idle;
mod mask;
mod resolve;
mod retry_after;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

pub use resolve::{Resolve, Resolving, SystemResolver};

use crate::egress::EgressPolicy;
use adapters::{Outgoing, Reply};
use idle::Idle;
use model::Problem;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tls::Roots;

/// Sends requests under one egress policy. A clone is the same door.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

/// How requests get to stores in place of the network: for a test in which time and faults are made up.
pub trait Network: Send + Sync + 'static {
    /// Sends once; the answer, or why there is none. The door's caller has a deadline for it.
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> Sending<'a>;
}

/// A request under way.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send + 'a>>;

struct Inner {
    policy: EgressPolicy,
    /// In place of all that follows.
    made_up: Option<Box<dyn Network>>,
    resolver: Box<dyn Resolve>,
    roots: Roots,
    idle: Idle,
    times: Times,
}

/// Bounds on the parts of one send; the caller's deadline bounds the whole.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// For the lookup, for the connect, and for the TLS handshake, each.
    connect: Duration,
    /// How long a fresh TCP connection is watched for an end before lines are written.
    quiet: Duration,
    /// How long the peer's end of a TCP connection is awaited after the lines.
    drain: Duration,
}

/// `metric-stores.md` 1.5 and 3.5.
const TIMES: Times = Times { connect: Duration::from_secs(5), quiet: Duration::from_millis(10), drain: Duration::from_secs(1) };

/// Why there is no answer. The texts name the host, never a path, a query or a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent and nothing will be until the store's settings or the egress policy change.
    #[error("{0}")]
    Refused(String),
    /// The peer's certificate or TLS itself was not accepted, by either side.
    #[error("{0}")]
    Tls(String),
    /// The name could not be resolved.
    #[error("{0}")]
    Dns(String),
    /// No connection came about.
    #[error("{0}")]
    Connect(String),
    /// The deadline passed. Bytes may have arrived.
    #[error("no complete answer before the deadline")]
    TimedOut,
    /// The connection broke off, or what came back was no answer. Bytes may have arrived.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    /// Whether somebody has to mend the configuration, so that trying again soon is of no use.
    pub fn needs_attention(&self) -> bool {
        matches!(self, Failure::Refused(_) | Failure::Tls(_))
    }
}

impl Door {
    /// A door to the machine's own resolver.
    pub fn new(policy: EgressPolicy) -> Door {
        Door::with_resolver(policy, SystemResolver::default())
    }

    /// A door that asks `resolver` for addresses. What it answers is judged like any other answer.
    pub fn with_resolver(policy: EgressPolicy, resolver: impl Resolve) -> Door {
        Door::with_times(policy, resolver, TIMES)
    }

    fn with_times(policy: EgressPolicy, resolver: impl Resolve, times: Times) -> Door {
        Door(Arc::new(Inner { policy, made_up: None, resolver: Box::new(resolver), roots: Roots::default(), idle: Idle::default(), times }))
    }

    /// A door behind which there is no network.
    pub fn to(network: impl Network) -> Door {
        Door(Arc::new(Inner {
            policy: EgressPolicy::default(),
            made_up: Some(Box::new(network)),
            resolver: Box::new(SystemResolver::default()),
            roots: Roots::default(),
            idle: Idle::default(),
            times: TIMES,
        }))
    }

    /// The policy, to check a store's settings before they are saved.
    pub fn policy(&self) -> &EgressPolicy {
        &self.0.policy
    }

    /// Sends once and waits for the answer, at most for `deadline`. Dropping the future closes the connection.
    ///
    /// # Errors
    /// A [`Failure`]; after `TimedOut` and `Broken` the outcome is unknown.
    pub async fn send(&self, outgoing: &Outgoing, deadline: Duration) -> Result<Reply, Failure> {
        let sent = async {
            match (&self.0.made_up, outgoing) {
                (Some(network), outgoing) => network.send(outgoing).await,
                (None, Outgoing::Http(request)) => http::exchange(&self.0, request).await,
                (None, Outgoing::Tcp(lines)) => tcp::write(&self.0, lines).await,
            }
        };
        tokio::time::timeout(deadline, sent).await.unwrap_or(Err(Failure::TimedOut))
    }
}

/// The settings are checked again at every send: a store may be older than the policy.
fn refuse(problems: Vec<Problem>) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::Refused(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}
