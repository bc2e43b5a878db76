//! Points -> wire bytes, reply -> verdict; one file per kind of store. Pure: no I/O, no clock, no retry, no bookkeeping.
//!
//! A new adapter is a file of its own and, here, a module, a variant, a row in `KINDS`, an arm in `Adapter::side` and a row in
//! the tests' `EXAMPLES`.

mod base_url;
mod circonus;
mod circonus_pull;
mod circonus_push;
mod datadog;
mod description;
mod fields;
mod frame;
mod grafana;
mod graphite;
mod gzip;
mod influxdb;
mod names;
mod number;
mod outgoing;
mod payload;
mod prometheus;
mod pull;
mod push;
mod remote_write;
mod reply;
mod room;
mod snippet;
mod spelt;
mod walk;

pub use circonus_pull::CirconusPull;
pub use circonus_push::CirconusPush;
pub use datadog::Datadog;
pub use description::{Description, Direction, Field, Kind, Preset};
pub use grafana::Grafana;
pub use graphite::Graphite;
pub use influxdb::InfluxDb;
pub use names::{may_be_name, may_be_value};
pub use outgoing::{HeaderText, HttpRequest, Outgoing, TcpLines};
pub use payload::{Payload, Piece, dump};
pub use prometheus::Prometheus;
pub use pull::{Accept, Credentials, Pull, Rendered};
pub use push::{Encoded, Excluded, Note, Probe, Push};
pub use remote_write::RemoteWrite;
pub use reply::{Reply, Verdict, reason};
pub use snippet::{About, Snippet};

use model::{Period, Problem};
use serde_json::{Map, Value};

/// Version of the rules by which names, labels and values are written. A window keeps the version it was encoded with; a change of
/// a rule is a new version beside the old one.
pub const ENCODER_VERSION: u32 = 1;

/// Most notes that one encoding returns; further ones say nothing new to a person.
pub const NOTES_MAX: usize = 100;

/// A kind of store with a user's checked settings.
#[derive(Clone, Debug)]
pub enum Adapter {
    /// Datadog, and intakes that take the same requests.
    Datadog(Datadog),
    /// Grafana's hosted Graphite.
    Grafana(Grafana),
    /// Graphite (Carbon plaintext).
    Graphite(Graphite),
    /// InfluxDB 1, 2 and 3.
    InfluxDb(InfluxDb),
    /// Prometheus, which reads from us.
    Prometheus(Prometheus),
    /// Circonus, to which we send.
    CirconusPush(CirconusPush),
    /// Circonus, which reads from us.
    CirconusPull(CirconusPull),
    /// Receivers of Prometheus remote write.
    RemoteWrite(RemoteWrite),
}

/// Who opens the connection, and what the adapter can do then.
enum Side<'a> {
    Push(&'a dyn Push),
    Pull(&'a dyn Pull),
}

/// Checks a user's fields, or names every fault.
type Read = fn(&Map<String, Value>) -> Result<Adapter, Vec<Problem>>;

/// One kind of store, before a user has filled anything in.
struct StoreKind {
    description: &'static Description,
    read: Read,
}

/// Every adapter, in the order in which people choose from them.
const KINDS: &[StoreKind] = &[
    StoreKind { description: &datadog::DESCRIPTION, read: |fields| Datadog::read(fields).map(Adapter::Datadog) },
    StoreKind { description: &grafana::DESCRIPTION, read: |fields| Grafana::read(fields).map(Adapter::Grafana) },
    StoreKind { description: &graphite::DESCRIPTION, read: |fields| Graphite::read(fields).map(Adapter::Graphite) },
    StoreKind { description: &influxdb::DESCRIPTION, read: |fields| InfluxDb::read(fields).map(Adapter::InfluxDb) },
    StoreKind { description: &prometheus::DESCRIPTION, read: |fields| Prometheus::read(fields).map(Adapter::Prometheus) },
    StoreKind { description: &circonus_push::DESCRIPTION, read: |fields| CirconusPush::read(fields).map(Adapter::CirconusPush) },
    StoreKind { description: &circonus_pull::DESCRIPTION, read: |fields| CirconusPull::read(fields).map(Adapter::CirconusPull) },
    StoreKind { description: &remote_write::DESCRIPTION, read: |fields| RemoteWrite::read(fields).map(Adapter::RemoteWrite) },
];

/// The same, as others see them.
const DESCRIPTIONS: [&Description; KINDS.len()] = {
    let mut all = [KINDS[0].description; KINDS.len()];
    let mut at = 0;
    while at < KINDS.len() {
        all[at] = KINDS[at].description;
        at += 1;
    }
    all
};

/// Every adapter's description.
pub fn descriptions() -> &'static [&'static Description] {
    &DESCRIPTIONS
}

/// The description of the adapter of that name.
pub fn description(name: &str) -> Option<&'static Description> {
    descriptions().iter().copied().find(|description| description.name == name)
}

/// Whether there is an adapter of that name and we send to its stores.
pub fn is_push(name: &str) -> bool {
    description(name).is_some_and(|description| !description.is_pull())
}

impl Adapter {
    /// Checks the user's fields, secret ones included.
    ///
    /// # Errors
    /// Every fault found, each named by its field.
    pub fn parse(name: &str, fields: &Map<String, Value>) -> Result<Adapter, Vec<Problem>> {
        match KINDS.iter().find(|kind| kind.description.name == name) {
            Some(kind) => (kind.read)(&kind.description.canonical(fields)),
            None => {
                let names: Vec<&str> = descriptions().iter().map(|description| description.name).collect();
                Err(vec![Problem::new("adapter", format!("must be one of {}", names.join(", ")))])
            }
        }
    }

    /// What the adapter says about itself.
    pub fn description(&self) -> &'static Description {
        match self.side() {
            Side::Push(push) => push.description(),
            Side::Pull(pull) => pull.description(),
        }
    }

    /// The word for it in `"adapter": ...`.
    pub fn name(&self) -> &'static str {
        self.description().name
    }

    /// The adapter as one that we send with.
    pub fn as_push(&self) -> Option<&dyn Push> {
        match self.side() {
            Side::Push(push) => Some(push),
            Side::Pull(_) => None,
        }
    }

    /// The adapter as one that is read from.
    pub fn as_pull(&self) -> Option<&dyn Pull> {
        match self.side() {
            Side::Push(_) => None,
            Side::Pull(pull) => Some(pull),
        }
    }

    /// Texts to paste on the store's side: configuration, queries, a panel, checks, an alert.
    pub fn snippets(&self, about: &About<'_>) -> Vec<Snippet> {
        match self.side() {
            Side::Push(push) => push.snippets(about),
            Side::Pull(pull) => pull.snippets(about),
        }
    }

    /// Whether a store with these settings may have the period.
    ///
    /// # Errors
    /// A [`Problem`] that names the field to change.
    pub fn check_period(&self, period: Period) -> Result<(), Problem> {
        self.as_push().map_or(Ok(()), |push| push.check_period(period))
    }

    /// The one place where adapters are told apart.
    fn side(&self) -> Side<'_> {
        match self {
            Adapter::Datadog(datadog) => Side::Push(datadog),
            Adapter::Grafana(grafana) => Side::Push(grafana),
            Adapter::Graphite(graphite) => Side::Push(graphite),
            Adapter::InfluxDb(influxdb) => Side::Push(influxdb),
            Adapter::Prometheus(prometheus) => Side::Pull(prometheus),
            Adapter::CirconusPush(circonus) => Side::Push(circonus),
            Adapter::CirconusPull(circonus) => Side::Pull(circonus),
            Adapter::RemoteWrite(remote_write) => Side::Push(remote_write),
        }
    }
}

#[cfg(test)]
mod conformance;
