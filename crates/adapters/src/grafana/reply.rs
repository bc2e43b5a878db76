//! What the gateway's answers mean (metric-stores 4.3): a 200 may have refused some elements, and says which.

use crate::payload::Payload;
use crate::reply::{Reply, Verdict, judge_http, reason, shown};
use serde_json::Value;
use std::collections::BTreeMap;

/// Judges an answer to an array of metrics.
pub(super) fn judge(payload: &Payload, reply: &Reply) -> Verdict {
    let Reply::Http { status, retry_after, body } = reply else { return Verdict::Retry { reason: "the answer is not HTTP".to_owned() } };
    match *status {
        200..=299 => counted(payload, *status, body),
        404 => Verdict::Config { reason: format!("{}; does the url end in /metrics?", reason(404, body)) },
        // The gateway's word for a client that went away: a proxy between gave up waiting.
        499 => Verdict::Retry { reason: reason(499, body) },
        status => judge_http(status, *retry_after, body),
    }
}

/// Whether a refusal says that the store has the point, or a newer one of its series.
pub(super) fn means_known(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["duplicate", "out of order", "out-of-order"].iter().any(|words| reason.contains(words))
}

/// `{"Invalid": 1, "Published": 2, "ValidationErrors": {"why": {"Count": 1, "ExampleIds": [0]}}}`, in older gateways with small letters.
/// The ids are places in our array; not every refused element has to be among them.
fn counted(payload: &Payload, status: u16, body: &[u8]) -> Verdict {
    let points = payload.points().count() as u64;
    let reason = reason(status, body);
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        // One that was cut off does not say what was refused. Any other is a proxy's.
        let cut_off = body.trim_ascii_start().starts_with(b"{");
        return if cut_off {
            Verdict::Partial { refused: Vec::new(), unnamed: points, reason }
        } else {
            Verdict::Accepted { confirmed: false }
        };
    };
    let mut refused: BTreeMap<u32, String> = BTreeMap::new();
    for (why, detail) in field(&answer, "ValidationErrors").and_then(Value::as_object).into_iter().flatten() {
        let ids = field(detail, "ExampleIds").and_then(Value::as_array).into_iter().flatten();
        let places = ids.filter_map(|id| usize::try_from(id.as_u64()?).ok());
        for point in places.filter_map(|at| payload.piece(at)).flat_map(|piece| piece.points) {
            refused.entry(*point).or_insert_with(|| shown(why.as_bytes()));
        }
    }
    let count = |name| field(&answer, name).and_then(Value::as_u64);
    let published = count("Published");
    let missing = published.map_or(0, |published| points.saturating_sub(published));
    let lost = missing.max(count("Invalid").unwrap_or(0)).clamp(refused.len() as u64, points);
    if lost == 0 {
        return Verdict::Accepted { confirmed: published.is_some() };
    }
    let unnamed = lost - refused.len() as u64;
    Verdict::Partial { refused: refused.into_iter().collect(), unnamed, reason }
}

fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three metrics, of points 4, 5 and 6.
    fn payload() -> Payload {
        let mut payload = Payload::new(b"[", b",", b"]");
        (4..7).for_each(|point| payload.push(b"{}", &[point]));
        payload
    }

    fn verdict(status: u16, body: &str) -> String {
        match judge(&payload(), &Reply::Http { status, retry_after: Some(7), body: body.as_bytes().to_vec() }) {
            Verdict::Accepted { confirmed: true } => "confirmed".to_owned(),
            Verdict::Accepted { confirmed: false } => "sent".to_owned(),
            Verdict::Partial { refused, unnamed, .. } => {
                format!("{:?} + {unnamed}", refused.iter().map(|(point, _)| *point).collect::<Vec<_>>())
            }
            Verdict::Drop { .. } => "drop".to_owned(),
            Verdict::Split => "split".to_owned(),
            Verdict::Throttle { after_secs, .. } => format!("throttle {after_secs:?}"),
            Verdict::Retry { .. } => "retry".to_owned(),
            Verdict::Config { .. } => "config".to_owned(),
        }
    }

    #[test]
    fn the_vendors_table() {
        for (status, body, expected) in [
            (200, r#"{"Invalid":0,"Published":3,"ValidationErrors":{}}"#, "confirmed"),
            (202, r#"{"Invalid":0,"Published":3,"ValidationErrors":null}"#, "confirmed"),
            (200, r#"{"invalid":0,"published":3}"#, "confirmed"),
            (400, "unknown content-type: application/json; charset=utf-8", "drop"),
            (400, "json: cannot unmarshal string into Go struct field MetricData.value of type float64", "drop"),
            (401, "Unauthorized", "config"),
            (403, "", "config"),
            (404, "404 page not found", "config"),
            (408, "", "retry"),
            (413, "", "split"),
            (422, "", "drop"),
            (429, "active series limit", "throttle Some(7)"),
            (499, "", "retry"),
            (500, "", "retry"),
            (502, "", "retry"),
            (503, "", "throttle Some(7)"),
            (301, "", "config"),
        ] {
            assert_eq!(verdict(status, body), expected, "{status} {body}");
        }
        assert!(matches!(judge(&payload(), &Reply::Tcp), Verdict::Retry { .. }));
        let Verdict::Config { reason } = judge(&payload(), &Reply::Http { status: 404, retry_after: None, body: Vec::new() }) else {
            panic!("not found")
        };
        assert!(reason.contains("/metrics"), "{reason}");
    }

    #[test]
    fn an_answer_of_200_may_have_refused_some() {
        for (body, expected) in [
            (r#"{"Invalid":1,"Published":2,"ValidationErrors":{"interval cannot be 0":{"Count":1,"ExampleIds":[1]}}}"#, "[5] + 0"),
            (r#"{"Invalid":1,"Published":2,"ValidationErrors":{"org-id cannot be 0":{"Count":1,"ExampleIds":[0]}}}"#, "[4] + 0"),
            (r#"{"invalid":1,"published":2,"validationErrors":{"name cannot be empty":{"count":1,"exampleIds":[2]}}}"#, "[6] + 0"),
            (
                r#"{"Invalid":3,"Published":0,"ValidationErrors":{"invalid mtype":{"Count":1,"ExampleIds":[2]},"invalid input":{"Count":2,"ExampleIds":[0]}}}"#,
                "[4, 6] + 1",
            ),
            (r#"{"Invalid":2,"Published":1,"ValidationErrors":{"invalid input":{"Count":2,"ExampleIds":[1,1]}}}"#, "[5] + 1"),
            (
                r#"{"Invalid":1,"Published":2,"ValidationErrors":{"invalid input":{"Count":1,"ExampleIds":[3,-1,1.5,"0",99999999999]}}}"#,
                "[] + 1",
            ),
            (r#"{"Invalid":2,"Published":1}"#, "[] + 2"),
            (r#"{"Invalid":99,"Published":0}"#, "[] + 3"),
            (r#"{"Invalid":0,"Published":2}"#, "[] + 1"),
            (r#"{"Invalid":1,"Published":3}"#, "[] + 1"),
            (r#"{"Invalid":0,"Published":3,"ValidationErrors":{"invalid input":{"Count":1,"ExampleIds":[0]}}}"#, "[4] + 0"),
            (r#"{"Invalid":1,"Published":2,"ValidationErrors":{"inv"#, "[] + 3"),
            (r#"{"Invalid":0}"#, "sent"),
            (r#"{}"#, "sent"),
            (r#"[]"#, "sent"),
            ("", "sent"),
            ("OK", "sent"),
        ] {
            assert_eq!(verdict(200, body), expected, "{body}");
        }
    }
}
