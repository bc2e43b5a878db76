//! Target of the stores that read a page: Prometheus' two text formats, line by line, and Circonus' JSON.

use crate::batch::{is_short, page as read_page};
use crate::json_stores::circonus_sample;
use crate::push::{adapter, check_texts};
use adapters::{Accept, Excluded};
use model::{Page, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Every number of the page is on it once or left out with a reason, and strict readers take it.
pub(crate) fn page(input: &[u8]) -> String {
    let (page, accept) = read_page(input);
    let mut outcome = String::new();
    for (name, fields, accept) in [
        ("prometheus", "{}", "text/plain"),
        ("prometheus", r#"{"bearer": "t0ken"}"#, "application/openmetrics-text;version=1.0.0"),
        ("prometheus", r#"{"username": "u", "password": "p"}"#, accept.as_str()),
        ("circonus_pull", r#"{"username": "u", "password": "p"}"#, accept.as_str()),
    ] {
        let adapter = adapter(name, fields);
        let pull = adapter.as_pull().expect("a store that reads from us");
        let _allowed = pull.authorises(Some(accept));
        let accept = Accept::read(Some(accept));
        let rendered = pull.render(&page, &accept);
        assert_eq!(rendered, pull.render(&page, &accept), "rendered twice");
        let text = std::str::from_utf8(&rendered.body).expect("UTF-8");
        let mut values = match rendered.content_type {
            "application/json" => read_circonus(text),
            kind => read_prometheus(text, kind.starts_with("application/openmetrics-text")),
        };
        assert_eq!(values.len() as u64, rendered.samples, "samples that the page tells of");
        let mut expected = shown(&page, &rendered.excluded, rendered.content_type);
        values.sort_by(f64::total_cmp);
        expected.sort_by(f64::total_cmp);
        assert_eq!(values, expected, "the numbers of the page");
        check_texts(&adapter, &page);
        let reasons: BTreeSet<&str> = rendered.excluded.iter().map(|excluded| excluded.reason).collect();
        outcome.push_str(&format!("{} {} {reasons:?} ", rendered.samples.min(3), rendered.notes.len().min(2)));
    }
    outcome
}

/// The numbers that a page of that type must show.
fn shown(page: &Page, excluded: &[Excluded], content_type: &str) -> Vec<f64> {
    let left: BTreeSet<u32> = excluded.iter().map(|excluded| excluded.point).collect();
    assert_eq!(left.len(), excluded.len(), "left out twice");
    let (json, open) = (content_type == "application/json", content_type.starts_with("application/openmetrics-text"));
    let mut numbers = Vec::new();
    for (at, one) in page.series.iter().enumerate() {
        let counter = one.counter.filter(|_| !json);
        if left.contains(&(at as u32)) {
            let sound =
                one.value.is_none_or(f64::is_finite) && counter.is_none_or(|counter| counter.total >= 0.0 && counter.total.is_finite());
            let twin = page.series.iter().filter(|other| other.series == one.series).count() > 1;
            assert!(!sound || twin || !is_short(&one.series), "{one:?} is left out");
            continue;
        }
        numbers.extend(one.value);
        if let Some(counter) = counter {
            assert!(counter.total >= 0.0, "a counter below zero");
            numbers.push(counter.total);
            if open {
                let created = format!("{}.{:06}", counter.created.secs(), counter.created.micros() % 1_000_000);
                numbers.push(created.parse().expect("a number"));
            }
        }
        assert!(counter.is_none() || one.shape == Shape::Additive);
    }
    // Zero has one spelling.
    numbers.into_iter().map(|number| number + 0.0).collect()
}

fn read_circonus(text: &str) -> Vec<f64> {
    let metrics: Map<String, Value> = serde_json::from_str(text).expect("a JSON object");
    metrics.into_iter().map(|(name, metric)| circonus_sample(name, &metric, true).value).collect()
}

/// The text formats 0.0.4 and OpenMetrics 1.0: families one behind the other, each with help and type, then its samples.
fn read_prometheus(text: &str, open: bool) -> Vec<f64> {
    let text = if open { text.strip_suffix("# EOF\n").expect("the end mark") } else { text };
    let (mut values, mut families, mut samples) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
    let mut family = "";
    assert!(text.is_empty() || text.ends_with('\n'), "the last line ends");
    for line in text.split_terminator('\n') {
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap_or_default();
            assert!(is_name(family) && families.insert(family, None).is_none(), "the family {family:?} twice");
            check_escapes(&rest[family.len()..], open);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(name == family && matches!(kind, "gauge" | "counter"), "{line:?} after the help of {family:?}");
            assert_eq!(families.insert(name, Some(kind)), Some(None), "the type of {name:?} twice");
        } else {
            let end = line.find(['{', ' ']).expect("a sample has a value");
            let (name, rest) = line.split_at(end);
            let belongs = match families.get(family).copied().flatten().expect("a type before its samples") {
                "counter" if open => name.strip_prefix(family).is_some_and(|end| matches!(end, "_total" | "_created")),
                _ => name == family,
            };
            assert!(is_name(name) && belongs, "the sample {name:?} of the family {family:?}");
            let (labels, value) = read_labels(rest);
            assert!(samples.insert((name, labels)), "a sample twice: {line:?}");
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite(), "{line:?}");
            values.push(value);
        }
    }
    values
}

fn is_name(name: &str) -> bool {
    let start = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    start && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}

/// Backslashes in a help text escape a backslash, an `n` or, in OpenMetrics, a quote, which must be escaped there.
fn check_escapes(text: &str, open: bool) {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        assert!(c != '"' || !open, "a bare quote in {text:?}");
        if c == '\\' {
            let next = chars.next();
            assert!(matches!(next, Some('\\' | 'n')) || (open && next == Some('"')), "an escape in {text:?}");
        }
    }
}

/// The labels with the escapes of their values undone, and the value behind them.
fn read_labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (labels, text.strip_prefix(' ').expect("a blank")) };
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        let sound = is_name(name) && !name.contains(':') && !name.starts_with("__") && !matches!(name, "le" | "quantile");
        assert!(sound, "the label {name:?}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("the end of a value") {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next().expect("what is escaped").1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    c => panic!("the escape of {c:?}"),
                },
                (_, c) => value.push(c),
            }
        };
        // An empty value is no label at all.
        assert!(!value.is_empty() && labels.insert(name.to_owned(), value).is_none(), "the label {name:?}");
        rest = &after[end..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, rest.strip_prefix("} ").expect("the end of the labels")),
        }
    }
}
