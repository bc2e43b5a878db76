//! What a broker's answers mean (metric-stores 7.4): a 200 says how many metrics it read, and may still have kept none.

use crate::reply::{Verdict, judge_http, reason};
use serde::Deserialize;

/// The answer to a submission.
#[derive(Deserialize)]
struct Answer {
    /// Values read, those filtered out included.
    stats: u64,
    /// Values that the check's allow and deny rules keep out. The broker counts some of them more than once.
    #[serde(default)]
    filtered: u64,
    /// Why something was cut or left out.
    #[serde(default)]
    error: Option<String>,
}

/// Judges an answer to a body of so many points.
pub(super) fn judge(points: u64, status: u16, retry_after: Option<u64>, body: &[u8]) -> Verdict {
    if !(200..=299).contains(&status) {
        return judge_http(status, retry_after, body);
    }
    // An agent in between answers 204: it has taken the body, which says nothing about the broker.
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Verdict::Accepted { confirmed: false } };
    let lost = points.saturating_sub(answer.stats).saturating_add(answer.filtered).max(u64::from(answer.error.is_some())).min(points);
    if lost == 0 {
        return Verdict::Accepted { confirmed: true };
    }
    let advice = if answer.filtered > 0 { "; the check's metric filters keep some out: allow them in Circonus" } else { "" };
    Verdict::Partial { refused: Vec::new(), unnamed: lost, reason: format!("{}{advice}", reason(status, body)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendors_table() {
        let word = |verdict: Verdict| match verdict {
            Verdict::Accepted { confirmed: true } => "confirmed".to_owned(),
            Verdict::Accepted { confirmed: false } => "sent".to_owned(),
            Verdict::Partial { unnamed, refused, .. } => format!("{} lost", unnamed + refused.len() as u64),
            Verdict::Drop { .. } => "drop".to_owned(),
            Verdict::Split => "split".to_owned(),
            Verdict::Throttle { .. } => "throttle".to_owned(),
            Verdict::Retry { .. } => "retry".to_owned(),
            Verdict::Config { .. } => "config".to_owned(),
        };
        for (status, body, expected) in [
            (200, r#"{ "stats": 5, "filtered": 0 }"#, "confirmed"),
            (200, r#"{"stats":5}"#, "confirmed"),
            (200, r#"{"stats":9,"filtered":0}"#, "confirmed"),
            (200, r#"{"stats":3,"filtered":0}"#, "2 lost"),
            (200, r#"{"stats":0,"filtered":0}"#, "5 lost"),
            (200, r#"{"stats":5,"filtered":2}"#, "2 lost"),
            (200, r#"{"stats":5,"filtered":10}"#, "5 lost"),
            (200, r#"{"stats":4,"filtered":1}"#, "2 lost"),
            (200, r#"{"stats":5,"filtered":0,"error":"at least one metric exceeded max name length"}"#, "1 lost"),
            (200, r#"{"stats":2,"filtered":0,"error":"at least one metric exceeded max name length"}"#, "3 lost"),
            (200, r#"{"stats":5,"filtered":18446744073709551615}"#, "5 lost"),
            (200, "", "sent"),
            (200, "<html>", "sent"),
            (200, r#"{"stats":-1}"#, "sent"),
            (204, "", "sent"),
            (302, "", "config"),
            (403, r#"{ "error": "secret mismatch" }"#, "config"),
            (404, r#"{ "error": "no such check" }"#, "config"),
            (404, r#"{ "error": "uuid parse error" }"#, "config"),
            (406, r#"{ "error": "lexical error: invalid char in json text." }"#, "drop"),
            (413, "", "split"),
            (429, "", "throttle"),
            (500, r#"{ "error": "internal error" }"#, "retry"),
            (502, "", "retry"),
            (503, "", "throttle"),
        ] {
            assert_eq!(word(judge(5, status, Some(3), body.as_bytes())), expected, "{status} {body}");
        }
    }

    #[test]
    fn what_is_filtered_out_is_told_with_the_mend() {
        let Verdict::Partial { reason, .. } = judge(5, 200, None, br#"{"stats":5,"filtered":5}"#) else { panic!("not partial") };
        assert!(reason.contains("filtered") && reason.contains("allow them in Circonus"), "{reason}");
        let Verdict::Config { reason } = judge(5, 403, None, br#"{ "error": "secret mismatch" }"#) else { panic!("not config") };
        assert_eq!(reason, r#"HTTP 403: { "error": "secret mismatch" }"#);
    }
}
