//! What is still to be sent of a delivery, and what a verdict does to it. Pure: the table of design.md section 4.

use adapters::{Payload, Verdict};
use catalog::Settled;
use std::collections::VecDeque;

/// zstd level of kept bytes.
const KEPT_LEVEL: i32 = 1;

/// The payloads of a delivery that have no final verdict yet, in order. Their bytes never change; a split only divides them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pending(VecDeque<Payload>);

/// What to do after a verdict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// Go on with what is left, at once.
    GoOn,
    /// Try the same again later; with the wait the store asked for.
    Wait {
        /// Seconds the store asked for.
        asked_secs: Option<u64>,
    },
    /// Nothing will help until a person mends the configuration: probe once a minute.
    Attention,
}

impl Pending {
    pub(crate) fn new(payloads: Vec<Payload>) -> Pending {
        Pending(payloads.into())
    }

    pub(crate) fn first(&self) -> Option<&Payload> {
        self.0.front()
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in &self.0 {
            let packed = payload.to_bytes();
            bytes.extend((packed.len() as u32).to_le_bytes());
            bytes.extend(packed);
        }
        zstd::bulk::compress(&bytes, KEPT_LEVEL).expect("compressing into memory cannot fail")
    }

    pub(crate) fn unpack(packed: &[u8]) -> Option<Pending> {
        let bytes = zstd::stream::decode_all(packed).ok()?;
        let mut rest = bytes.as_slice();
        let mut payloads = VecDeque::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (payload, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            payloads.push_back(Payload::from_bytes(payload)?);
            rest = after;
        }
        Some(Pending(payloads))
    }

    /// Applies the verdict on the first payload. `isolates`: the store refuses whole bodies and a resend overwrites, so a
    /// refused body is halved until the poison point stands alone.
    pub(crate) fn apply(&mut self, verdict: &Verdict, isolates: bool) -> (Settled, Next) {
        let mut settled = Settled::default();
        let Some(first) = self.0.pop_front() else { return (settled, Next::GoOn) };
        let points = first.points().count() as u64;
        let next = match verdict {
            Verdict::Accepted { confirmed: true } => {
                settled.confirmed = points;
                Next::GoOn
            }
            Verdict::Accepted { confirmed: false } => {
                settled.sent = points;
                Next::GoOn
            }
            Verdict::Partial { refused, unnamed, reason } => {
                settled.refused = (refused.len() as u64 + unnamed).min(points);
                settled.confirmed = points - settled.refused;
                settled.note = Some(reason.clone());
                Next::GoOn
            }
            Verdict::Drop { reason } => {
                match first.halves().filter(|_| isolates) {
                    Some((left, right)) => self.put_back(left, right),
                    None => {
                        settled.refused = points;
                        settled.note = Some(reason.clone());
                    }
                }
                Next::GoOn
            }
            Verdict::Split => {
                match first.halves() {
                    Some((left, right)) => self.put_back(left, right),
                    None => {
                        settled.refused = points;
                        settled.note = Some("the store says that a single point is too large".to_owned());
                    }
                }
                Next::GoOn
            }
            Verdict::Throttle { after_secs, .. } => {
                self.0.push_front(first);
                Next::Wait { asked_secs: *after_secs }
            }
            Verdict::Retry { .. } => {
                self.0.push_front(first);
                Next::Wait { asked_secs: None }
            }
            Verdict::Config { .. } => {
                self.0.push_front(first);
                Next::Attention
            }
        };
        settled.payload = self.first().map(|_| self.pack());
        (settled, next)
    }

    fn put_back(&mut self, left: Payload, right: Payload) {
        self.0.push_front(right);
        self.0.push_front(left);
    }
}
