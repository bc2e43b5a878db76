//! What InfluxDB's answers mean (metric-stores 6.3 and 6.4): a 400 may well have written most of the body.

use crate::payload::Payload;
use crate::reply::{Verdict, judge_http, reason, shown};
use serde_json::Value;
use std::collections::BTreeMap;

/// Judges an answer to a write.
pub(super) fn judge(payload: &Payload, status: u16, retry_after: Option<u64>, body: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(body);
    let says = |words: &str| text.contains(words);
    let reason = reason(status, body);
    match status {
        400 if says("partial write") => partial(payload, &text, reason),
        429 | 502 | 503 | 504 => Verdict::Throttle { after_secs: retry_after, reason },
        500 if says("retention policy not found") => Verdict::Config { reason },
        500 if says("field type conflict") || says("unable to parse") || says("points beyond retention policy") => Verdict::Drop { reason },
        // The lines are queued at another node of the cluster; the answer does not say that they arrived.
        500 if says("hinted handoff queue not empty") => Verdict::Accepted { confirmed: false },
        _ => judge_http(status, retry_after, body),
    }
}

/// Which points a partial write refused. A store that only counts lines is taken to mean those with the most points, so that
/// nothing is called confirmed that may be lost.
fn partial(payload: &Payload, text: &str, reason: String) -> Verdict {
    let mut refused: BTreeMap<usize, String> = BTreeMap::new();
    let whole = match serde_json::from_str::<Value>(text) {
        Ok(answer) => {
            named_by_number(payload, &answer, &mut refused);
            if let Some(message) = answer.get("error").and_then(Value::as_str) {
                named_by_text(payload, message, &mut refused);
            }
            true
        }
        Err(_) => {
            named_by_text(payload, text, &mut refused);
            // An answer in plain words is complete as it is; a JSON one that cannot be read was cut off.
            !text.trim_start().starts_with('{')
        }
    };
    let dropped = counted(text);
    let unnamed_lines = if whole { dropped.unwrap_or(0).max(usize::from(refused.is_empty())) } else { payload.len() };
    let mut left: Vec<usize> = (0..payload.len()).filter(|at| !refused.contains_key(at)).map(|at| points_of(payload, at).len()).collect();
    left.sort_unstable_by(|a, b| b.cmp(a));
    let unnamed = left.iter().take(unnamed_lines).sum::<usize>() as u64;
    let named = refused.into_iter().flat_map(|(at, why)| points_of(payload, at).iter().map(move |&point| (point, why.clone())));
    Verdict::Partial { refused: named.collect(), unnamed, reason }
}

fn points_of(payload: &Payload, at: usize) -> &[u32] {
    payload.piece(at).map_or(&[], |piece| piece.points)
}

/// Version 3 lists the refused lines: `{"data": [{"line_number": 2, "error_message": "..."}]}`, counted from 1.
fn named_by_number(payload: &Payload, answer: &Value, refused: &mut BTreeMap<usize, String>) {
    for line in answer.get("data").and_then(Value::as_array).into_iter().flatten() {
        let at = line.get("line_number").and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
        if let Some(at) = at.filter(|at| *at < payload.len()) {
            let why = line.get("error_message").and_then(Value::as_str).unwrap_or("refused");
            refused.insert(at, shown(why.as_bytes()));
        }
    }
}

/// Version 1 repeats each line that it could not read: `unable to parse 'LINE': why`.
fn named_by_text(payload: &Payload, text: &str, refused: &mut BTreeMap<usize, String>) {
    for fault in text.split("unable to parse '").skip(1) {
        let line_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let at =
            payload.pieces().position(|piece| fault.strip_prefix(line_of(piece.bytes).as_str()).is_some_and(|rest| rest.starts_with("':")));
        if let Some(at) = at {
            refused.insert(at, shown(fault.rsplit("':").next().unwrap_or(fault).as_bytes()));
        }
    }
}

/// Version 1 counts the lines that it read but could not keep: `dropped=N`.
fn counted(text: &str) -> Option<usize> {
    let after = text.rsplit_once("dropped=")?.1;
    let digits = &after[..after.bytes().take_while(u8::is_ascii_digit).count()];
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three lines: of one, three and two points.
    fn payload() -> Payload {
        let mut payload = Payload::new(b"", b"", b"");
        payload.push(b"m,a=x v=1 1\n", &[0]);
        payload.push(b"m,a=y v=1,w=2,z=3 1\n", &[1, 2, 3]);
        payload.push(b"m,a= v=1,w=2 1\n", &[4, 5]);
        payload
    }

    fn points(verdict: &Verdict) -> (Vec<u32>, u64) {
        let Verdict::Partial { refused, unnamed, .. } = verdict else { panic!("not partial: {verdict:?}") };
        (refused.iter().map(|(point, _)| *point).collect(), *unnamed)
    }

    #[test]
    fn partial_writes_name_or_count_what_was_refused() {
        for (body, refused, unnamed) in [
            (r#"{"error":"partial write: unable to parse 'm,a= v=1,w=2 1': missing tag value dropped=0"}"#, vec![4, 5], 0),
            (
                r#"{"error":"partial write: field type conflict: input field \"v\" on measurement \"m\" is type float, already exists as type integer dropped=1"}"#,
                vec![],
                3,
            ),
            (r#"{"error":"partial write: points beyond retention policy dropped=2"}"#, vec![], 5),
            (r#"{"error":"partial write: points beyond retention policy dropped=99"}"#, vec![], 6),
            (r#"{"error":"partial write: something else"}"#, vec![], 3),
            (
                "partial write: unable to parse 'm,a= v=1,w=2 1': missing tag value\nunable to parse 'm,a=x v=1 1': why dropped=0",
                vec![0, 4, 5],
                0,
            ),
            (
                r#"{"error":"partial write of line protocol occurred","data":[{"original_line":"m,a=y v=1","line_number":2,"error_message":"bad"}]}"#,
                vec![1, 2, 3],
                0,
            ),
            (r#"{"error":"partial write of line protocol occurred","data":[{"line_number":0},{"line_number":9}]}"#, vec![], 3),
            (r#"{"error":"partial write of line protocol occurred","data":[{"original_line":"m,a=y"#, vec![], 6),
        ] {
            assert_eq!(points(&judge(&payload(), 400, None, body.as_bytes())), (refused, unnamed), "{body}");
        }
    }

    #[test]
    fn the_vendors_table() {
        let word = |verdict: Verdict| match verdict {
            Verdict::Accepted { confirmed: true } => "confirmed",
            Verdict::Accepted { confirmed: false } => "sent",
            Verdict::Partial { .. } => "partial",
            Verdict::Drop { .. } => "drop",
            Verdict::Split => "split",
            Verdict::Throttle { .. } => "throttle",
            Verdict::Retry { .. } => "retry",
            Verdict::Config { .. } => "config",
        };
        for (status, body, expected) in [
            (204, "", "confirmed"),
            (200, "{}", "confirmed"),
            (400, r#"{"code":"invalid","message":"unable to parse 'm v=': missing field value"}"#, "drop"),
            (401, r#"{"error":"authorization failed"}"#, "config"),
            (403, "", "config"),
            (404, r#"{"error":"database not found: \"x\""}"#, "config"),
            (406, "", "drop"),
            (413, r#"{"error":"Request Entity Too Large"}"#, "split"),
            (422, r#"{"code":"unprocessable entity"}"#, "drop"),
            (429, "", "throttle"),
            (500, r#"{"error":"retention policy not found: y"}"#, "config"),
            (500, r#"{"error":"field type conflict"}"#, "drop"),
            (500, r#"{"error":"unable to parse"}"#, "drop"),
            (500, r#"{"error":"points beyond retention policy"}"#, "drop"),
            (500, r#"{"error":"write failed: hinted handoff queue not empty"}"#, "sent"),
            (500, r#"{"error":"timeout"}"#, "retry"),
            (502, "", "throttle"),
            (503, "", "throttle"),
            (504, "", "throttle"),
            (308, "", "config"),
        ] {
            assert_eq!(word(judge(&payload(), status, Some(3), body.as_bytes())), expected, "{status} {body}");
        }
    }
}
