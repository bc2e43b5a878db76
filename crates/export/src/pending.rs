//! What is still to be sent of a delivery, and what a verdict does to it. Pure: the table of design.md section 4.

use adapters::{Payload, Push, Verdict};
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

    /// Applies the verdict on the first payload. `unknown`: an attempt before may have brought the points without our hearing of
    /// it, so a refusal of what the store has already is a confirmation.
    pub(crate) fn apply(&mut self, verdict: &Verdict, push: &dyn Push, unknown: bool) -> (Settled, Next) {
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
                let there = refused.iter().filter(|(_, why)| unknown && push.has_already(why)).count() as u64;
                settled.refused = (refused.len() as u64 - there + unnamed).min(points);
                let named = refused.iter().filter(|(_, why)| !(unknown && push.has_already(why)));
                settled.refused_for = named.map(|(_, why)| (why.clone(), 1)).collect();
                let rest = points - settled.refused;
                if push.confirms() {
                    settled.confirmed = rest
                } else {
                    settled.sent = rest
                }
                settled.note = Some(reason.clone());
                Next::GoOn
            }
            Verdict::Drop { reason } => {
                match first.halves().filter(|_| push.isolates()) {
                    Some((left, right)) => self.put_back(left, right),
                    None if unknown && push.has_already(reason) => settled.confirmed = points,
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

#[cfg(test)]
mod tests {
    use super::*;
    use adapters::Adapter;
    use serde_json::{Value, json};

    fn adapter(name: &str, fields: Value) -> Adapter {
        Adapter::parse(name, fields.as_object().expect("an object")).expect("sound settings")
    }

    /// One body of three pieces of one point each.
    fn pending() -> Pending {
        let mut payload = Payload::new(b"[", b",", b"]");
        (0..3).for_each(|point| payload.push(b"{}", &[point]));
        Pending::new(vec![payload])
    }

    /// Points confirmed, sent and refused, and bodies left.
    fn apply(adapter: &Adapter, mut pending: Pending, verdict: &Verdict, unknown: bool) -> (u64, u64, u64, usize) {
        let (settled, _) = pending.apply(verdict, adapter.as_push().expect("a push adapter"), unknown);
        (settled.confirmed, settled.sent, settled.refused, pending.0.len())
    }

    #[test]
    fn what_a_partial_answer_leaves_is_confirmed_only_by_a_store_that_vouches() {
        let grafana = adapter("grafana", json!({"url": "http://h/metrics", "api_key": "k"}));
        let datadog = adapter("datadog", json!({"api_key": "k"}));
        let partial = Verdict::Partial { refused: vec![(0, "invalid input".into())], unnamed: 1, reason: "HTTP 200".into() };
        assert_eq!(apply(&grafana, pending(), &partial, false), (1, 0, 2, 0));
        assert_eq!(apply(&datadog, pending(), &partial, false), (0, 1, 2, 0));
    }

    #[test]
    fn a_repeat_is_good_news_only_after_an_attempt_of_unknown_outcome() {
        let grafana = adapter("grafana", json!({"url": "http://h/metrics", "api_key": "k"}));
        let influxdb = adapter("influxdb", json!({"url": "http://h/write?db=d"}));
        let why = "duplicate sample for timestamp";
        let partial =
            Verdict::Partial { refused: vec![(0, why.into()), (1, "invalid input".into())], unnamed: 0, reason: "HTTP 200".into() };
        assert_eq!(apply(&grafana, pending(), &partial, true), (2, 0, 1, 0));
        assert_eq!(apply(&grafana, pending(), &partial, false), (1, 0, 2, 0));
        assert_eq!(apply(&influxdb, pending(), &partial, true), (1, 0, 2, 0));

        let drop = Verdict::Drop { reason: format!("HTTP 400: {why}") };
        assert_eq!(apply(&grafana, pending(), &drop, true), (0, 0, 0, 2));
        let mut single = pending();
        let (left, _) = single.0.pop_front().and_then(|payload| payload.halves()).expect("halves");
        single.0.push_front(left);
        assert_eq!(apply(&grafana, single.clone(), &drop, true), (1, 0, 0, 0));
        assert_eq!(apply(&grafana, single.clone(), &drop, false), (0, 0, 1, 0));
        assert_eq!(apply(&grafana, single, &Verdict::Drop { reason: "HTTP 400: invalid mtype".into() }, true), (0, 0, 1, 0));
    }
}
