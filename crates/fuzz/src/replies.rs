//! Targets of what comes back: stores' answers to payloads, and payloads that were kept.

use crate::push::adapter;
use crate::source::{first_line, text};
use adapters::{Adapter, Payload, Reply, Verdict, descriptions, dump};
use model::{Batch, Label, Period, Point, Series, Shape, Window};
use std::cell::OnceCell;
use std::collections::BTreeSet;

/// Longest reason that is shown, in characters: 300 of a store's and some of ours.
const REASON_CHARS_MAX: usize = 600;

thread_local! {
    /// Every store that we send to, with a payload; parsed once.
    static STORES: OnceCell<Vec<(Adapter, Payload)>> = const { OnceCell::new() };
}

/// The first line has a status and perhaps the seconds of a `Retry-After`; the answer's body follows.
pub(crate) fn judge(input: &[u8]) -> String {
    let (line, body) = first_line(input);
    let line = text(line);
    let mut words = line.split(' ');
    let status = words.next().and_then(|word| word.parse().ok()).unwrap_or(200);
    let retry_after = words.next().and_then(|word| word.parse().ok());
    let reply = Reply::Http { status, retry_after, body: body.to_vec() };
    STORES.with(|stores| {
        let mut outcome = String::new();
        for (adapter, payload) in stores.get_or_init(stores_and_payloads) {
            let push = adapter.as_push().expect("a store that we send to");
            let verdict = push.judge(payload, &reply);
            assert_eq!(verdict, push.judge(payload, &reply), "judged twice");
            outcome.push(letter(&verdict));
            check(&verdict, payload, status);
            check(&push.judge(payload, &Reply::Tcp), payload, 0);
            if let Some(probe) = push.probe() {
                check(&(probe.judge)(&reply), &Payload::default(), status);
            }
        }
        outcome
    })
}

fn letter(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Accepted { confirmed: true } => 'A',
        Verdict::Accepted { confirmed: false } => 'a',
        Verdict::Partial { refused, .. } if refused.is_empty() => 'p',
        Verdict::Partial { .. } => 'P',
        Verdict::Drop { .. } => 'D',
        Verdict::Split => 'S',
        Verdict::Throttle { .. } => 'T',
        Verdict::Retry { .. } => 'R',
        Verdict::Config { .. } => 'C',
    }
}

fn check(verdict: &Verdict, payload: &Payload, status: u16) {
    let reasons = match verdict {
        Verdict::Accepted { .. } | Verdict::Split => Vec::new(),
        Verdict::Drop { reason } | Verdict::Retry { reason } | Verdict::Config { reason } | Verdict::Throttle { reason, .. } => {
            vec![reason]
        }
        Verdict::Partial { refused, unnamed, reason } => {
            let points: BTreeSet<u32> = payload.points().collect();
            let named: BTreeSet<u32> = refused.iter().map(|(point, _)| *point).collect();
            assert!(named.len() == refused.len() && named.is_subset(&points), "refused points {named:?} of {points:?}");
            assert!(refused.len() as u64 + unnamed <= points.len() as u64, "more refused than sent: {verdict:?}");
            refused.iter().map(|(_, why)| why).chain([reason]).collect()
        }
    };
    for reason in reasons {
        assert!(!reason.is_empty() || matches!(verdict, Verdict::Partial { .. }), "{verdict:?} without a reason");
        assert!(reason.chars().count() <= REASON_CHARS_MAX && !reason.chars().any(char::is_control), "the reason {reason:?}");
    }
    let taken = matches!(verdict, Verdict::Accepted { .. });
    assert!(!taken || status == 0 || !matches!(status, 300..=499), "{status} is no success");
}

fn stores_and_payloads() -> Vec<(Adapter, Payload)> {
    let stores = [
        adapter("graphite", r#"{"host": "h"}"#),
        adapter("influxdb", r#"{"url": "http://h:8086/write?db=x"}"#),
        adapter("influxdb", r#"{"url": "https://h/api/v3/write_lp", "db": "x", "token": "t"}"#),
        adapter("datadog", r#"{"api_key": "0123456789abcdef0123456789abcdef"}"#),
        adapter("grafana", r#"{"url": "https://h.grafana.net/metrics", "instance_id": "1", "api_key": "k"}"#),
        adapter("circonus_push", r#"{"url": "https://h/module/httptrap/0a1b/s3cr3t"}"#),
        adapter("remote_write", r#"{"url": "https://h/api/v1/write"}"#),
    ];
    let missing: Vec<&str> = descriptions().iter().map(|description| description.name).filter(|name| adapters::is_push(name)).collect();
    assert!(missing.iter().all(|name| stores.iter().any(|store| store.name() == *name)), "stores to judge for: {missing:?}");
    let series = |aggregate: &str, os: &str| Series {
        path: ["c", "p", "s", "m"].map(str::to_owned).to_vec(),
        aggregate: aggregate.to_owned(),
        labels: vec![("os".to_owned(), Label::Text(os.to_owned()))],
    };
    let point = |series, value| Point { series, value, shape: Shape::Gauge };
    let points = vec![point(series("max", "a"), 1.0), point(series("min", "a"), 2.0), point(series("max", "b"), 3.0)];
    let window = Window::new(1_700_000_040, Period::new(60).expect("legal")).expect("on the grid");
    let batch = Batch { window, points };
    let with_payload = |store: Adapter| {
        let payload = store.as_push().expect("a store that we send to").encode(&batch).payloads.swap_remove(0);
        (store, payload)
    };
    stores.into_iter().map(with_payload).collect()
}

/// The whole input is a kept payload, and bytes to make one of.
pub(crate) fn payload(input: &[u8]) -> String {
    let lines = dump(input).lines().count();
    assert_eq!(lines, input.len().div_ceil(16), "lines of a dump");
    let mut made = Payload::new(b"[", b",", b"]");
    for (at, piece) in input.split(|&byte| byte == b'\n').take(9).enumerate() {
        made.push(piece, &(0..(piece.len() % 3) as u32).map(|point| point + 10 * at as u32).collect::<Vec<_>>());
    }
    check_kept(&made, &made.to_bytes());
    match Payload::from_bytes(input) {
        None => format!("not kept, {} pieces", made.len().min(4)),
        Some(kept) => {
            check_kept(&kept, input);
            format!("kept {} pieces", kept.len().min(4))
        }
    }
}

/// A payload is read from its one kept form, and falls apart into its pieces without a loss.
fn check_kept(payload: &Payload, bytes: &[u8]) {
    assert_eq!(payload.to_bytes(), bytes, "the kept form");
    assert_eq!(Payload::from_bytes(bytes).as_ref(), Some(payload), "kept and read again");
    assert_eq!(payload.body().len(), payload.body_bytes());
    assert_eq!(payload.pieces().map(|piece| piece.points.len()).sum::<usize>(), payload.points().count());
    assert!(payload.piece(payload.len()).is_none());
    let mut open = vec![payload.clone()];
    let mut single = Vec::new();
    while let Some(payload) = open.pop() {
        match payload.halves() {
            Some((left, right)) => open.extend([right, left]),
            None => single.extend(payload.pieces().map(|piece| (piece.bytes.to_vec(), piece.points.to_vec()))),
        }
    }
    let pieces = payload.pieces().map(|piece| (piece.bytes.to_vec(), piece.points.to_vec()));
    assert!(pieces.eq(single), "halved until each piece stands alone");
}
