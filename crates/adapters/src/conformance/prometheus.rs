//! Reads a page as strictly as promtool and the OpenMetrics parser: one malformed line fails the whole page.

use super::{Accept, Adapter, EXAMPLES, Sample, StoredSeries, batch, golden, object, page, series, text, window};
use crate::{Prometheus, Pull};
use model::{Counter, Label, Page, PageSeries, Shape, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// The samples of gauges on a page in the text format.
pub(super) fn read_text(body: &[u8]) -> Result<Vec<Sample>, String> {
    Ok(gauges(read(body, false)?))
}

/// The same on a page in OpenMetrics.
pub(super) fn read_open_metrics(body: &[u8]) -> Result<Vec<Sample>, String> {
    Ok(gauges(read(body, true)?))
}

/// Type of the family, name of the sample, sample.
type Typed = (String, Sample);

fn gauges(samples: Vec<Typed>) -> Vec<Sample> {
    samples.into_iter().filter(|(kind, _)| kind == "gauge").map(|(_, sample)| sample).collect()
}

fn read(body: &[u8], open_metrics: bool) -> Result<Vec<Typed>, String> {
    let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let body = if open_metrics { body.strip_suffix("# EOF\n").ok_or("no # EOF at the end")? } else { body };
    if body.contains('\r') || (!body.is_empty() && !body.ends_with('\n')) {
        return Err("a carriage return, or a last line that does not end".to_owned());
    }
    let (mut samples, mut families, mut seen, mut names) = (Vec::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut helped, mut typed) = (None, None::<(String, String)>);
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(format!("no help: {line:?}"))?;
            check_help(help, open_metrics)?;
            (helped, typed) = (Some(name.to_owned()), None);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line:?}"))?;
            if helped.as_deref() != Some(name) || !families.insert(name.to_owned()) || !is_name(name) {
                return Err(format!("a family twice, or its help elsewhere: {line:?}"));
            }
            typed = Some((name.to_owned(), kind.to_owned()));
        } else if line.starts_with('#') || line.is_empty() {
            return Err(format!("a stray comment or blank line: {line:?}"));
        } else {
            let (family, kind) = typed.clone().ok_or(format!("a sample without a type: {line:?}"))?;
            let sample = read_sample(line)?;
            let name = &sample.series.name;
            let own = match (kind.as_str(), open_metrics) {
                ("gauge", _) => *name == family,
                ("counter", false) => *name == family && name.ends_with("_total"),
                ("counter", true) => [format!("{family}_total"), format!("{family}_created")].contains(name),
                _ => false,
            };
            if !own || !seen.insert(sample.series.clone()) || (kind == "counter" && sample.value < 0.0) {
                return Err(format!("not of its family, twice, or negative: {line:?}"));
            }
            names.insert((name.clone(), family));
            samples.push((kind, sample));
        }
    }
    let distinct: BTreeSet<&String> = names.iter().map(|(name, _)| name).collect();
    let shared = names.iter().any(|(name, family)| name != family && families.contains(name));
    if distinct.len() != names.len() || shared { Err("a sample's name stands in two families".to_owned()) } else { Ok(samples) }
}

fn check_help(help: &str, open_metrics: bool) -> Result<(), String> {
    let mut chars = help.chars();
    while let Some(c) = chars.next() {
        let sound = match c {
            '\\' => chars.next().is_some_and(|next| matches!(next, '\\' | 'n') || (open_metrics && next == '"')),
            '"' => !open_metrics,
            c => !c.is_control() || c == '\t',
        };
        if !sound {
            return Err(format!("a help text with an open escape: {help:?}"));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

fn read_sample(line: &str) -> Result<Sample, String> {
    let fault = |what: &str| format!("{what}: {line:?}");
    let end = line.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).ok_or(fault("no value"))?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, after) = rest.split_once("=\"").ok_or(fault("no label"))?;
            if !is_name(key) || key.starts_with("__") || matches!(key, "le" | "quantile") {
                return Err(fault("a label that is refused"));
            }
            let (value, after) = quoted(after).ok_or(fault("a value that does not end"))?;
            if value.is_empty() || value.chars().count() > 200 || labels.insert(key.to_owned(), value).is_some() {
                return Err(fault("a label twice, empty or too long"));
            }
            match (after.strip_prefix(','), after.strip_prefix('}')) {
                (Some(next), _) => rest = next,
                (_, Some(after)) => {
                    rest = after;
                    break;
                }
                _ => return Err(fault("labels that do not end")),
            }
        }
    }
    let value = rest.strip_prefix(' ').filter(|value| value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-')));
    let value = value.and_then(|value| value.parse().ok()).ok_or(fault("no value, or a timestamp behind it"))?;
    if !is_name(name) {
        return Err(fault("no name"));
    }
    Ok(Sample { series: StoredSeries { name: name.to_owned(), labels }, value, time: None })
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c if c.is_control() && c != '\t' => return None,
            c => value.push(c),
        }
    }
    None
}

fn prometheus() -> Prometheus {
    let Ok(Adapter::Prometheus(prometheus)) = Adapter::parse("prometheus", &object("{}")) else { panic!("not prometheus") };
    prometheus
}

fn text_of(page: &Page, accept: Option<&str>) -> String {
    String::from_utf8(prometheus().render(page, &Accept::read(accept)).body).expect("text")
}

const OPEN_METRICS: Option<&str> = Some("application/openmetrics-text;version=1.0.0");

#[test]
fn values_are_read_back_as_they_were() {
    for value in ["a b", "back\\slash", "trailing\\", "\"", "two\nlines", "\\n", "} 1", "\u{418}\u{43c}\u{44f}", " ", "a\tb"] {
        let one = batch([series(&["p", "q", "r", "s"], "count", &[("app.version", text(value))])]);
        let samples = read_text(text_of(&page(&one), None).as_bytes()).expect("a sound page");
        assert_eq!(samples[0].series.name, "p_q_r_s_count_window");
        assert_eq!(samples[0].series.labels, BTreeMap::from([("app_version".to_owned(), value.to_owned())]));
    }
}

#[test]
fn labels_that_are_taken_are_renamed() {
    for (raw, written) in
        [("__name__", "label_name_"), ("le", "label_le"), ("quantile", "label_quantile"), ("0abc", "_0abc"), ("job", "job"), ("_tx", "_tx")]
    {
        let one = batch([series(&["p", "q", "r", "s"], "count", &[(raw, text("v"))])]);
        let samples = read_text(text_of(&page(&one), None).as_bytes()).expect("a sound page");
        assert_eq!(samples[0].series.labels.keys().collect::<Vec<_>>(), [written]);
    }
}

#[test]
fn openmetrics_is_for_those_who_ask_for_it() {
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let plain = "text/plain; version=0.0.4; charset=utf-8";
    for (accept, expected) in [
        (None, plain),
        (Some(""), plain),
        (Some("*/*"), plain),
        (Some("text/html,application/xhtml+xml,*/*;q=0.8"), plain),
        (Some("text/plain;version=0.0.4;q=1,*/*;q=0.1"), plain),
        (
            Some(
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            open,
        ),
        (
            Some(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5",
            ),
            open,
        ),
        (
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ),
            open,
        ),
        (Some("application/openmetrics-text;version=0.0.1"), plain),
        (Some("application/openmetrics-text;version=2.0.0"), plain),
        (Some("application/openmetrics-text;q=0"), plain),
        (Some("application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.9"), plain),
        (Some("application/openmetrics-text"), open),
        (Some("image/png"), plain),
    ] {
        let rendered = prometheus().render(&golden::page(), &Accept::read(accept));
        assert_eq!(rendered.content_type, expected, "{accept:?}");
        assert_eq!(rendered.body.ends_with(b"# EOF\n"), expected == open, "{accept:?}");
    }
}

#[test]
fn an_additive_series_is_a_gauge_and_a_counter() {
    for (accept, open_metrics) in [(None, false), (OPEN_METRICS, true)] {
        let page = golden::page();
        let rendered = prometheus().render(&page, &Accept::read(accept));
        let samples = read(&rendered.body, open_metrics).expect("a sound page");
        assert_eq!(samples.len() as u64, rendered.samples);
        let of =
            |kind: &str, end: &str| samples.iter().filter(|(known, sample)| known == kind && sample.series.name.ends_with(end)).count();
        assert_eq!((of("gauge", "_window"), of("counter", "_total"), of("counter", "_created")), (5, 4, if open_metrics { 4 } else { 0 }));
        let created = samples.iter().find(|(_, sample)| sample.series.name.ends_with("_created")).map(|(_, sample)| sample.value);
        assert_eq!(created, open_metrics.then_some(1_699_990_000.25));
        assert!(samples.iter().any(|(_, sample)| sample.series.name == "crashmeter_ProjectX_health_window_end_timestamp_seconds"));
    }
}

/// A page on which the names of gauges and counters would meet.
#[test]
fn names_of_gauges_and_counters_never_meet() {
    let counter = Some(Counter { total: 1.0, created: Stamp::from_secs(1) });
    let one = |path: &[&str], aggregate: &str, shape: Shape| PageSeries {
        series: series(path, aggregate, &[]),
        shape,
        value: Some(1.0),
        counter: counter.filter(|_| shape == Shape::Additive),
    };
    let page = Page {
        window: window(),
        series: vec![
            one(&["p", "x"], "count", Shape::Additive),
            one(&["p", "x_count"], "window", Shape::Health),
            one(&["p", "x"], "count_total", Shape::Health),
            one(&["p", "x"], "count_created", Shape::Health),
            one(&["p", "x"], "count", Shape::Health),
            one(&["p_x"], "count", Shape::Gauge),
            one(&["p-x"], "count", Shape::Additive),
            one(&["p", "y"], "max", Shape::Gauge),
            one(&["p", "y_max"], "window", Shape::Health),
        ],
    };
    for (accept, open_metrics) in [(None, false), (OPEN_METRICS, true)] {
        let samples = read(text_of(&page, accept).as_bytes(), open_metrics).expect("a sound page");
        assert_eq!(samples.iter().filter(|(kind, _)| kind == "gauge").count(), 9);
    }
}

#[test]
fn a_family_without_samples_keeps_its_head() {
    let none = PageSeries {
        series: series(&["p", "q", "r", "s"], "a_max", &[("a", Label::Missing)]),
        shape: Shape::Gauge,
        value: None,
        counter: None,
    };
    let shown = text_of(&Page { window: window(), series: vec![none] }, None);
    assert_eq!(shown, "# HELP p_q_r_s_a_max_window p / q / r / s / a_max, over one window of 60 s\n# TYPE p_q_r_s_a_max_window gauge\n");
}

#[test]
fn a_counter_that_cannot_be_one_is_left_out() {
    for (total, reason) in [(-1.0, "negative"), (f64::NAN, "finite")] {
        let one = PageSeries {
            series: series(&["p", "q", "r", "s"], "count", &[]),
            shape: Shape::Additive,
            value: Some(1.0),
            counter: Some(Counter { total, created: Stamp::ZERO }),
        };
        let rendered = prometheus().render(&Page { window: window(), series: vec![one] }, &Accept::default());
        assert_eq!(rendered.samples, 0);
        assert!(rendered.excluded[0].reason.contains(reason), "{:?}", rendered.excluded);
    }
}

#[test]
fn health_keeps_its_name_unless_other_tools_misread_it() {
    for (aggregate, name) in [
        ("up", "p_health_up"),
        ("window_end_timestamp_seconds", "p_health_window_end_timestamp_seconds"),
        ("reports_total", "p_health_reports_total_value"),
    ] {
        let mut one = batch([series(&["p", "health"], aggregate, &[])]);
        one.points[0].shape = Shape::Health;
        let samples = read_text(text_of(&page(&one), None).as_bytes()).expect("a sound page");
        assert_eq!(samples[0].series.name, name);
    }
}

#[test]
fn settings_and_who_may_read() {
    for (fields, faulty) in [
        (r#"{}"#, &[][..]),
        (r#"{"username": "u"}"#, &["password"]),
        (r#"{"password": "p"}"#, &["username"]),
        (r#"{"username": "a:b", "password": "p"}"#, &["username"]),
        (r#"{"username": "u", "password": "p", "bearer": "t"}"#, &["bearer"]),
        (r#"{"url": "https://x.example"}"#, &["url"]),
        (r#"{"username": "", "password": "", "bearer": null}"#, &[]),
    ] {
        let problems = Adapter::parse("prometheus", &object(fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}");
    }
    for (example, right, challenge) in
        [("text", "Basic c2NyYXBlcjpwYTU1d29yZA==", "Basic"), ("openmetrics", "Bearer t0ken-of-scraper", "Bearer")]
    {
        let adapter = EXAMPLES.iter().find(|known| known.name == example).expect("an example").adapter();
        let pull = adapter.as_pull().expect("a pull adapter");
        assert!(pull.authorises(Some(right)) && !pull.authorises(None) && !pull.authorises(Some("Basic x")));
        assert!(pull.challenge().starts_with(challenge));
    }
}
