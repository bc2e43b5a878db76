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
        let at = payload.pieces().position(|piece| fault.strip_prefix(line_of(piece.bytes).as_str()).is_some_and(|rest| rest.starts_with("':")));
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
