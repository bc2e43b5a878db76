//! What Datadog's answers mean (metric-stores 2.8): a 202 may still name errors, and never says that the points were kept.

use crate::payload::Payload;
use crate::reply::{Reply, Verdict, judge_http, reason};
use serde_json::Value;

/// Judges an answer to a body of series.
pub(super) fn judge(payload: &Payload, reply: &Reply) -> Verdict {
    let Reply::Http { status, retry_after, body } = reply else { return Verdict::Retry { reason: "the answer is not HTTP".to_owned() } };
    match *status {
        200..=299 => accepted(payload, *status, body),
        401 | 403 => refused_key(*status, body),
        status => judge_http(status, *retry_after, body),
    }
}

/// Judges an answer to the check of a key: `{"valid": true}`.
pub(super) fn judge_check(reply: &Reply) -> Verdict {
    let Reply::Http { status, retry_after, body } = reply else { return Verdict::Retry { reason: "the answer is not HTTP".to_owned() } };
    let valid = serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer.get("valid") == Some(&Value::Bool(true)));
    match *status {
        200..=299 if valid => Verdict::Accepted { confirmed: true },
        200..=299 => Verdict::Config { reason: format!("{}; this does not say that the key is valid", reason(*status, body)) },
        401 | 403 => refused_key(*status, body),
        status => judge_http(status, *retry_after, body),
    }
}

fn refused_key(status: u16, body: &[u8]) -> Verdict {
    Verdict::Config { reason: format!("{}; the key is wrong, or belongs to another site", reason(status, body)) }
}

/// The store counts neither series nor points, so each error is taken for one point.
fn accepted(payload: &Payload, status: u16, body: &[u8]) -> Verdict {
    let points = payload.points().count() as u64;
    let reason = reason(status, body);
    match serde_json::from_slice::<Value>(body) {
        Ok(answer) => match answer.get("errors").map_or(0, count) {
            0 => Verdict::Accepted { confirmed: false },
            errors => Verdict::Partial { refused: Vec::new(), unnamed: errors.min(points), reason },
        },
        // It was cut off, so what it says of errors is not known.
        Err(_) if body.trim_ascii_start().starts_with(b"{") => Verdict::Partial { refused: Vec::new(), unnamed: points, reason },
        Err(_) => Verdict::Accepted { confirmed: false },
    }
}

fn count(errors: &Value) -> u64 {
    match errors {
        Value::Null => 0,
        Value::Array(errors) => errors.len() as u64,
        Value::String(error) => u64::from(!error.is_empty()),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three series of one point each.
    fn payload() -> Payload {
        let mut payload = Payload::new(b"{\"series\":[", b",", b"]}");
        (0..3).for_each(|point| payload.push(b"{}", &[point]));
        payload
    }

    fn http(status: u16, body: &str) -> Reply {
        Reply::Http { status, retry_after: Some(7), body: body.as_bytes().to_vec() }
    }

    fn word(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Accepted { confirmed: true } => "confirmed".to_owned(),
            Verdict::Accepted { confirmed: false } => "sent".to_owned(),
            Verdict::Partial { refused, unnamed, .. } => format!("partial {} {unnamed}", refused.len()),
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
            (202, r#"{"errors":[]}"#, "sent"),
            (202, r#"{"status":"ok"}"#, "sent"),
            (202, r#"{"errors":null}"#, "sent"),
            (200, r#"{"status":"ok"}"#, "sent"),
            (202, "", "sent"),
            (202, "ok", "sent"),
            (202, r#"{"errors":["Payload contains an invalid metric"]}"#, "partial 0 1"),
            (202, r#"{"errors":["a","b"]}"#, "partial 0 2"),
            (202, r#"{"errors":["a","b","c","d"]}"#, "partial 0 3"),
            (202, r#"{"errors":"a"}"#, "partial 0 1"),
            (202, r#"{"errors":["a","#, "partial 0 3"),
            (400, r#"{"errors":["Payload is not in the expected format"]}"#, "drop"),
            (401, r#"{"errors":["Unauthorized"]}"#, "config"),
            (403, r#"{"errors":["Forbidden"]}"#, "config"),
            (404, "", "config"),
            (408, r#"{"errors":["Request timeout"]}"#, "retry"),
            (413, r#"{"errors":["Payload too large"]}"#, "split"),
            (422, "", "drop"),
            (429, r#"{"errors":["Too many requests"]}"#, "throttle Some(7)"),
            (500, "", "retry"),
            (502, "", "retry"),
            (503, "", "throttle Some(7)"),
            (504, "", "retry"),
            (302, "", "config"),
        ] {
            assert_eq!(word(&judge(&payload(), &http(status, body))), expected, "{status} {body}");
        }
        assert_eq!(word(&judge(&payload(), &Reply::Tcp)), "retry");
    }

    #[test]
    fn a_key_is_checked_by_what_the_vendor_says_of_it() {
        for (status, body, expected) in [
            (200, r#"{"valid":true}"#, "confirmed"),
            (200, r#"{"valid":false}"#, "config"),
            (200, r#"{"valid":"true"}"#, "config"),
            (200, "<html>", "config"),
            (403, r#"{"errors":["Forbidden"]}"#, "config"),
            (404, "", "config"),
            (429, "", "throttle Some(7)"),
            (500, "", "retry"),
        ] {
            assert_eq!(word(&judge_check(&http(status, body))), expected, "{status} {body}");
        }
        let Verdict::Config { reason } = judge_check(&http(403, r#"{"errors":["Forbidden"]}"#)) else { panic!("not refused") };
        assert!(reason.contains("Forbidden") && reason.contains("another site"), "{reason}");
    }
}
