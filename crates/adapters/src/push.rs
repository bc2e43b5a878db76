//! What an adapter for a store that we send to can do.

use crate::description::Description;
use crate::outgoing::Outgoing;
use crate::payload::Payload;
use crate::reply::{Reply, Verdict};
use crate::snippet::{About, Snippet};
use model::{Batch, Period, Problem};
use serde::Serialize;

/// A store that we send each window to. Nothing here does I/O, retries or records.
pub trait Push: Send + Sync {
    /// What the adapter says about itself.
    fn description(&self) -> &'static Description;

    /// The fixed bytes of a window, in bodies below the vendor's limits. The same batch gives the same bytes, and every point is
    /// in exactly one payload or excluded.
    fn encode(&self, batch: &Batch) -> Encoded;

    /// Adds address and credentials as they are now, so that edits of them apply to kept payloads too.
    fn request(&self, payload: &Payload) -> Outgoing;

    /// What a reply means for the payload.
    fn judge(&self, payload: &Payload, reply: &Reply) -> Verdict;

    /// Where it connects, for status texts: scheme, host and port, no secret.
    fn target(&self) -> String;

    /// The field that names the host, the host and the port, for the egress policy.
    fn address(&self) -> (&'static str, String, u16);

    /// Whether a refused body should be halved until the poison point stands alone: the vendor refuses bodies as a whole, and
    /// sending a point twice overwrites it.
    fn isolates(&self) -> bool {
        false
    }

    /// Whether an answer that refuses some points vouches for the others, or only says that they arrived.
    fn confirms(&self) -> bool {
        true
    }

    /// Whether the store takes windows only in the order of their times, so that none may be set aside for a later one.
    fn in_order(&self) -> bool {
        false
    }

    /// Whether such a reason for a refusal means that the store has the point already. After an attempt of unknown outcome that is
    /// good news.
    fn has_already(&self, _reason: &str) -> bool {
        false
    }

    /// The vendor's own check of address and credentials, which writes nothing; `None` where there is none.
    fn probe(&self) -> Option<Probe> {
        None
    }

    /// Requests that tell the store what the batch's metrics are: kind, unit, description. They may be sent again at any time, and
    /// nothing depends on their success.
    fn metadata(&self, _batch: &Batch) -> Vec<Outgoing> {
        Vec::new()
    }

    /// Texts to paste on the store's side, about these very series.
    fn snippets(&self, about: &About<'_>) -> Vec<Snippet>;

    /// Whether a store with these settings may have the period.
    ///
    /// # Errors
    /// A [`Problem`] that names the field to change.
    fn check_period(&self, _period: Period) -> Result<(), Problem> {
        Ok(())
    }
}

/// A test of a store's settings.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What to send.
    pub outgoing: Outgoing,
    /// What a reply to it means: `Accepted` when the settings are sound.
    pub judge: fn(&Reply) -> Verdict,
}

/// A window in a store's own bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// What to send, in order.
    pub payloads: Vec<Payload>,
    /// What was left out.
    pub excluded: Vec<Excluded>,
    /// Series that are not spelt as a reader would expect; at most [`crate::NOTES_MAX`].
    pub notes: Vec<Note>,
}

/// A point that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// Its number in the batch, or of its series on the page.
    pub point: u32,
    /// Why.
    pub reason: &'static str,
}

/// A name or value that a store shows differently because it would have fallen together with another, was spelt like a reserved
/// word, could not be written in the store's alphabet, or was too long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Note {
    /// How it is called in Crashmeter.
    pub raw: String,
    /// How the store shows it.
    pub written: String,
}
