//! Reads Circonus bodies as the broker's two parsers do (metric-stores 7.2, 7.3 and 7.5), and refuses where they drop, cut or repair.

use super::{Accept, Adapter, EXAMPLES, Sample, StoredSeries, batch, golden, object, page, place_of, push_of, series, text, window};
use crate::{HttpRequest, Outgoing, Reply, Verdict};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Batch, Label, Page, PageSeries, Point, Shape};
use std::collections::BTreeMap;

/// A JSON value as it stands in the text: numbers keep their spelling, keys may repeat.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// All values of a text, one behind the other, as the broker's tokenizer takes them.
fn parse(body: &[u8]) -> Result<Vec<Json>, String> {
    let mut rest = std::str::from_utf8(body).map_err(|error| error.to_string())?.trim_start();
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (value, after) = parse_value(rest)?;
        values.push(value);
        rest = after.trim_start();
    }
    Ok(values)
}

fn parse_value(text: &str) -> Result<(Json, &str), String> {
    let fault = || format!("no JSON: {:?}", text.chars().take(40).collect::<String>());
    for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
        if let Some(rest) = text.strip_prefix(word) {
            return Ok((value, rest));
        }
    }
    match text.chars().next().ok_or_else(fault)? {
        '"' => parse_text(text).map(|(text, rest)| (Json::Text(text), rest)),
        '{' => parse_list(&text[1..], '}', parse_entry).map(|(entries, rest)| (Json::Object(entries), rest)),
        '[' => parse_list(&text[1..], ']', parse_value).map(|(values, rest)| (Json::List(values), rest)),
        _ => {
            let end = text.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(text.len());
            let (number, rest) = text.split_at(end);
            if is_json_number(number) { Ok((Json::Number(number.to_owned()), rest)) } else { Err(fault()) }
        }
    }
}

fn parse_entry(text: &str) -> Result<((String, Json), &str), String> {
    let (key, rest) = parse_text(text)?;
    let (value, rest) = parse_value(rest.trim_start().strip_prefix(':').ok_or("a key without a value")?.trim_start())?;
    Ok(((key, value), rest))
}

fn parse_list<T>(text: &str, end: char, item: impl Fn(&str) -> Result<(T, &str), String>) -> Result<(Vec<T>, &str), String> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    if let Some(rest) = rest.strip_prefix(end) {
        return Ok((items, rest));
    }
    loop {
        let (one, after) = item(rest)?;
        items.push(one);
        rest = after.trim_start();
        match (rest.strip_prefix(end), rest.strip_prefix(',')) {
            (Some(rest), _) => return Ok((items, rest)),
            (_, Some(after)) => rest = after.trim_start(),
            _ => return Err("a list that does not go on".to_owned()),
        }
    }
}

fn parse_text(text: &str) -> Result<(String, &str), String> {
    let inside = text.strip_prefix('"').ok_or("no text")?;
    let mut value = String::new();
    let mut chars = inside.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &inside[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some(c @ ('"' | '\\' | '/')) => value.push(c),
                other => return Err(format!("an escape that we never need: {other:?}")),
            },
            c if c.is_control() => return Err("a control character".to_owned()),
            c => value.push(c),
        }
    }
    Err("a text that does not end".to_owned())
}

fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, fraction)| (whole, Some(fraction)));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// What the broker takes from a body.
#[derive(Clone, Debug, PartialEq)]
struct Metric {
    name: String,
    /// The type's letter, or `0` where the broker guesses it from the text.
    kind: char,
    /// The value's text, `None` when it is absent.
    text: Option<String>,
    millis: Option<u64>,
}

fn metric(name: &str, kind: char, text: Option<&str>, millis: Option<u64>) -> Metric {
    Metric { name: name.to_owned(), kind, text: text.map(str::to_owned), millis }
}

/// The submission parser (`httptrap.c`): what it takes and the `stats` of its answer, or the fault of a 406.
fn submit(body: &[u8]) -> Result<(Vec<Metric>, u64), String> {
    let (mut metrics, mut stats) = (Vec::new(), 0);
    for value in parse(body)? {
        flatten(&value, None, 0, &mut metrics, &mut stats)?;
    }
    Ok((metrics, stats))
}

fn flatten(value: &Json, name: Option<&str>, depth: usize, metrics: &mut Vec<Metric>, stats: &mut u64) -> Result<(), String> {
    let below = |key: &str| name.map_or(key.to_owned(), |name| format!("{name}`{key}"));
    if depth >= 32 {
        return Err("nested too deeply".to_owned());
    }
    let (kind, text) = match value {
        Json::Object(entries) => return flatten_object(entries, name, depth, metrics, stats),
        Json::List(values) => {
            for (at, value) in values.iter().enumerate() {
                flatten(value, Some(&below(&at.to_string())), depth + 1, metrics, stats)?;
            }
            return Ok(());
        }
        Json::Null => ('i', None),
        Json::Bool(flag) => ('i', Some(if *flag { "1" } else { "0" })),
        Json::Number(text) | Json::Text(text) => ('0', Some(text.as_str())),
    };
    metrics.push(metric(name.ok_or("a value without a name")?, kind, text, None));
    *stats += 1;
    Ok(())
}

fn flatten_object(
    entries: &[(String, Json)],
    name: Option<&str>,
    depth: usize,
    metrics: &mut Vec<Metric>,
    stats: &mut u64,
) -> Result<(), String> {
    let (mut kind, mut values, mut millis) = (None, Vec::new(), None);
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("_type", Json::Text(letter)) if letter.len() == 1 && "iIlLnshH".contains(letter.as_str()) => kind = letter.chars().next(),
            ("_type", _) => return Err("an unknown type".to_owned()),
            ("_value", Json::List(list)) => values.extend(list.iter().map(text_of)),
            ("_value", one) => values.push(text_of(one)),
            ("_ts", Json::Number(text)) => millis = text.parse::<u64>().ok(),
            ("_ts" | "_fl" | "_tags", _) => {}
            _ => flatten(value, Some(&name.map_or(key.clone(), |name| format!("{name}`{key}"))), depth + 1, metrics, stats)?,
        }
    }
    if let Some(name) = name.filter(|_| kind.is_some() || millis.is_some()) {
        *stats += values.len() as u64;
        metrics.extend(values.into_iter().map(|text| metric(name, kind.unwrap_or('0'), text.as_deref(), millis)));
    }
    Ok(())
}

fn text_of(value: &Json) -> Option<String> {
    match value {
        Json::Number(text) | Json::Text(text) => Some(text.clone()),
        Json::Bool(flag) => Some(if *flag { "1" } else { "0" }.to_owned()),
        _ => None,
    }
}

/// Each row of the table that the broker's own parser produced (metric-stores 7.2).
#[test]
fn the_emulated_broker_reads_what_the_real_one_read() {
    let histogram = r#"{"m":{"_type":"h","_value":["H[1.0]=3"]}}"#;
    let (guess, n) = (|name: &str, text: &str| metric(name, '0', Some(text), None), |text: &str| metric("m", 'n', Some(text), None));
    for (body, metrics, stats) in [
        (r#"{"errors":3,"rate":1.5}"#, vec![guess("errors", "3"), guess("rate", "1.5")], 2),
        (
            r#"{"game":{"errors":{"count":3}},"arr":[1,{"x":2}]}"#,
            vec![guess("game`errors`count", "3"), guess("arr`0", "1"), guess("arr`1`x", "2")],
            3,
        ),
        (r#"{"s":"hello","n":"42"}"#, vec![guess("s", "hello"), guess("n", "42")], 2),
        (r#"{"b":true,"z":null}"#, vec![metric("b", 'i', Some("1"), None), metric("z", 'i', None, None)], 2),
        (r#"{"m":{"_type":"n","_value":3}}"#, vec![n("3")], 1),
        (r#"{"m":{"_type":"L","_value":"18446744073709551615"}}"#, vec![metric("m", 'L', Some("18446744073709551615"), None)], 1),
        (r#"{"m":{"_value":3,"_ts":1700000000123}}"#, vec![metric("m", '0', Some("3"), Some(1_700_000_000_123))], 1),
        (r#"{"m":{"_value":3}}"#, vec![], 0),
        (r#"{"m":{"_type":"n","_value":[1,2,3]}}"#, vec![n("1"), n("2"), n("3")], 3),
        (r#"{"m":{"_type":"n","_value":3,"_tags":["a:b"]}}"#, vec![n("3")], 1),
        (histogram, vec![metric("m", 'h', Some("H[1.0]=3"), None)], 1),
        (r#"{"a":1,"a":2}"#, vec![guess("a", "1"), guess("a", "2")], 2),
        ("", vec![], 0),
        ("[1,2]", vec![guess("0", "1"), guess("1", "2")], 2),
        (r#"{"a":1}{"b":2}"#, vec![guess("a", "1"), guess("b", "2")], 2),
        (r#"{"_ts":1700000000123,"a":1}"#, vec![guess("a", "1")], 1),
    ] {
        assert_eq!(submit(body.as_bytes()), Ok((metrics, stats)), "{body}");
    }
    for body in [r#"{"m":{"_type":"x","_value":3}}"#, r#"{"a":1,}"#, r#"{"a":NaN}"#] {
        assert!(submit(body.as_bytes()).is_err(), "{body}");
    }
    assert!(submit("{\"a\":".repeat(40).as_bytes()).is_err());
}

pub(super) fn read_push(body: &[u8]) -> Result<Vec<Sample>, String> {
    let (metrics, stats) = submit(body)?;
    if stats != metrics.len() as u64 {
        return Err("the answer would not count every metric".to_owned());
    }
    let mut samples = metrics.into_iter().map(|one| {
        let millis = one.millis.filter(|millis| millis % 1_000 == 0).ok_or(format!("no time: {one:?}"))?;
        let value = logged(&one)?;
        Ok(Sample { series: read_name(&one.name)?, value, time: i64::try_from(millis / 1_000).ok() })
    });
    samples.by_ref().collect()
}

/// What the broker passes on: it prints a typed number anew with six digits, and takes the text of any other as it is, at most 255
/// characters of it (`noit_metric_coerce_ex_with_timestamp`).
fn logged(one: &Metric) -> Result<f64, String> {
    let text = one.text.as_deref().filter(|text| text.len() <= 255).ok_or(format!("no value, or a long one: {one:?}"))?;
    let value: f64 = text.parse().map_err(|_| format!("no number: {one:?}"))?;
    match one.kind {
        'n' => format!("{value:.5e}").parse().map_err(|_| format!("no number: {one:?}")),
        '0' if is_guessed_as_double(text) => Ok(value),
        _ => Err(format!("a type that changes with the value: {one:?}")),
    }
}

/// The grammar by which the broker takes a text for a double (`noit_metric_guess_type`).
fn is_guessed_as_double(text: &str) -> bool {
    let Some((whole, rest)) = text.strip_prefix('-').unwrap_or(text).split_once('.') else { return false };
    let (fraction, exponent) = rest.split_once('e').map_or((rest, "+0"), |(fraction, exponent)| (fraction, exponent));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole_sound = digits(whole) && (whole == "0" || !whole.starts_with('0'));
    whole_sound && digits(fraction) && exponent.strip_prefix(['+', '-']).is_some_and(digits)
}

/// The puller (`noit_check_tools.c`): every key but `_type` and `_value` would be a metric, and any number of them is one page.
pub(super) fn read_pull(body: &[u8]) -> Result<Vec<Sample>, String> {
    let values = parse(body)?;
    let [Json::Object(entries)] = &values[..] else { return Err("not one object".to_owned()) };
    let sample = |(name, value): &(String, Json)| match value {
        Json::Object(typed) => match &typed[..] {
            [(first, Json::Text(kind)), (second, Json::Number(text))]
                if (first.as_str(), second.as_str(), kind.as_str()) == ("_type", "_value", "n") =>
            {
                let value = text.parse().ok().filter(|_| text.len() <= 255 && text.contains('.'));
                Ok(Sample { series: read_name(name)?, value: value.ok_or(format!("no number: {text}"))?, time: None })
            }
            _ => Err(format!("more or less than a typed number: {value:?}")),
        },
        _ => Err(format!("a type that changes with the value: {value:?}")),
    };
    entries.iter().map(sample).collect()
}

/// A name as the broker stores it; refused where it would be altered on the way (`noit_metric_canonicalize`).
fn read_name(text: &str) -> Result<StoredSeries, String> {
    let fault = |what: &str| Err(format!("{what}: {text:?}"));
    let (name, tags) = match text.split_once("|ST[") {
        None => (text, ""),
        Some((name, tags)) => (name, tags.strip_suffix(']').ok_or(format!("tags that do not end: {text:?}"))?),
    };
    if text.len() > 4_095 || name.is_empty() || name.trim() != name || !name.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return fault("a name that is cut or cleaned");
    }
    if name.contains(['|', '[', ']', '{', '}', '"', '\\']) || name.split('`').any(str::is_empty) {
        return fault("a name that ends early or skips a node");
    }
    let mut labels = BTreeMap::new();
    for tag in tags.split(',').filter(|_| text.contains("|ST[")) {
        let Some((category, value)) = tag.split_once(':') else { return fault("a tag without a colon") };
        let category = read_part(category, |c| c.is_ascii_alphanumeric() || "`+!#$%&\"'/?@^._-".contains(c))?;
        let value = read_part(value, |c| c.is_ascii_alphanumeric() || "`!#$%&\"'/?@^._-:=".contains(c))?;
        let last = labels.last_key_value().map(|(last, _): (&String, &String)| last.clone());
        if category.is_empty() || tag.len() > 255 || labels.len() == 256 || last.is_some_and(|last| last >= category) {
            return fault("a tag without category, too long, too many, twice or out of order");
        }
        labels.insert(category, value);
    }
    Ok(StoredSeries { name: name.to_owned(), labels })
}

fn read_part(part: &str, legal: impl Fn(char) -> bool) -> Result<String, String> {
    let fault = || format!("a part that is refused: {part:?}");
    let Some(base64) = part.strip_prefix("b\"") else {
        return if part.chars().all(legal) && !part.contains('"') { Ok(part.to_owned()) } else { Err(fault()) };
    };
    let decoded = STANDARD.decode(base64.strip_suffix('"').ok_or_else(fault)?).map_err(|_| fault())?;
    String::from_utf8(decoded).ok().filter(|text| !text.chars().any(char::is_control)).ok_or_else(fault)
}

const URL: &str = "https://trap.noit.circonus.net/module/httptrap/0a1b2c3d-0000-4000-8000-0123456789ab/s3cr3t-of-trap";

fn circonus(layout: &str) -> Adapter {
    let fields = format!(r#"{{"url": "{URL}", "layout": "{layout}"}}"#);
    Adapter::parse("circonus_push", &object(&fields)).expect("sound settings")
}

fn sent(layout: &str, batch: &Batch) -> String {
    let payloads = push_of(&circonus(layout)).encode(batch).payloads;
    String::from_utf8(payloads[0].body()).expect("text")
}

#[test]
fn names_say_what_was_meant() {
    let long = "\u{418}".repeat(200);
    let cut_tag = format!("{}_xdda4edb0", "\u{418}".repeat(85));
    for (value, tag, node) in [
        ("SIGSEGV", "SIGSEGV".to_owned(), "SIGSEGV".to_owned()),
        ("1.2.3", "1.2.3".to_owned(), "1.2.3".to_owned()),
        ("Access violation", format!("b\\\"{}\\\"", STANDARD.encode("Access violation")), "Access violation".to_owned()),
        ("std::bad_alloc", format!("b\\\"{}\\\"", STANDARD.encode("std::bad_alloc")), "std::bad_alloc".to_owned()),
        ("a|b", "b\\\"YXxi\\\"".to_owned(), "a_b_x0eab8a0a".to_owned()),
        (" a", "b\\\"IGE=\\\"".to_owned(), " a_x7de598b3".to_owned()),
        (&long, format!("b\\\"{}\\\"", STANDARD.encode(cut_tag)), String::new()),
    ] {
        let one =
            batch([series(&["crashmeter", "Project X", "Set", "Metric"], "count", &[("error.type", text(value)), ("b a", text("v"))])]);
        let name = "crashmeter`Project X`Set`Metric`count";
        let rest = ":{\"_type\":\"n\",\"_value\":0.25,\"_ts\":1700000040000}\n}\n";
        assert_eq!(sent("stream_tags", &one), format!("{{\n\"{name}|ST[b\\\"YiBh\\\":v,error.type:{tag}]\"{rest}"));
        if !node.is_empty() {
            assert_eq!(sent("path", &one), format!("{{\n\"{name}`{node}`v\"{rest}"));
        }
    }
}

#[test]
fn a_value_keeps_all_its_digits() {
    for (value, written) in [
        (999_999.0, "{\"_type\":\"n\",\"_value\":999999.0,"),
        (1_000_001.0, "{\"_value\":1000001.0,"),
        (1_000_000.0, "{\"_type\":\"n\",\"_value\":1000000.0,"),
        (0.1, "{\"_type\":\"n\",\"_value\":0.1,"),
        (1.0 / 3.0, "{\"_value\":0.3333333333333333,"),
        (1_700_000_100.0, "{\"_value\":1700000100.0,"),
        (1e308, "{\"_type\":\"n\",\"_value\":1.0e+308,"),
    ] {
        let point = Point { series: series(&["p", "q"], "a_sum", &[]), value, shape: Shape::Additive };
        let one = Batch { window: window(), points: vec![point] };
        let body = sent("stream_tags", &one);
        assert!(body.contains(written), "{body}");
        assert_eq!(read_push(body.as_bytes()).expect("a sound body")[0].value, value);
    }
}

#[test]
fn a_name_too_long_for_the_broker_is_left_out_with_the_reason() {
    let labels = |count: usize| (0..count).map(|at| (format!("key{at}"), text(&"v".repeat(190)))).collect::<Vec<(String, Label)>>();
    for (layout, count, reason) in [("stream_tags", 30, "4,095 bytes"), ("path", 60, "4,095 bytes"), ("stream_tags", 257, "256 tags")] {
        let long = model::Series { labels: labels(count), ..series(&["p", "q", "r", "s"], "count", &[]) };
        let encoded = push_of(&circonus(layout)).encode(&batch([long]));
        assert!(encoded.payloads.is_empty() && encoded.excluded[0].reason.contains(reason), "{layout} {count}: {encoded:?}");
    }
}

#[test]
fn blanks_around_a_name_do_not_make_two_series_one() {
    let all = batch(["s", " s", "s ", "\u{418}", "\u{429}"].map(|metric| series(&["p", "q", "r", metric], "count", &[])));
    for layout in ["stream_tags", "path"] {
        let samples = read_push(sent(layout, &all).as_bytes()).expect("a sound body");
        let mut names: Vec<(usize, &str)> = samples.iter().map(|sample| (place_of(sample.value), sample.series.name.as_str())).collect();
        names.sort_unstable();
        assert_eq!(names[0].1, "p`q`r`s`count");
        let distinct: std::collections::BTreeSet<&str> = names.iter().map(|(_, name)| *name).collect();
        assert_eq!(distinct.len(), 5, "{names:?}");
    }
}

#[test]
fn the_request_is_the_one_that_brokers_take() {
    let adapter = Adapter::parse(
        "circonus_push",
        &object(EXAMPLES.iter().find(|known| known.name == "path" && known.adapter == "circonus_push").expect("an example").fields),
    )
    .expect("sound");
    let push = push_of(&adapter);
    let payload = push.encode(&golden::batch()).payloads.swap_remove(0);
    let Outgoing::Http(request) = push.request(&payload) else { panic!("not HTTP") };
    let HttpRequest { method, url, headers, body, ca_pem, .. } = &request;
    assert_eq!(
        (*method, url.as_str()),
        ("PUT", "https://broker.example.com:43191/module/httptrap/0a1b2c3d-0000-4000-8000-0123456789ab/s3cr3t-of-trap")
    );
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.masked())).collect();
    assert_eq!(headers, [("content-type", "application/json"), ("accept", "application/json")]);
    assert_eq!((body, ca_pem.as_deref()), (&payload.body(), Some("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----")));
    assert_eq!(push.target(), "https://broker.example.com:43191");
    assert_eq!(push.address(), ("url", "broker.example.com".to_owned(), 43_191));
    assert!(push.isolates());
    assert_eq!(Outgoing::Http(request), push.request(&payload));
    // The answer's count is of the points of this body, whatever else the window holds.
    let answer = |body: &str| push.judge(&payload, &Reply::Http { status: 200, retry_after: None, body: body.into() });
    assert_eq!(answer(r#"{"stats":6,"filtered":0}"#), Verdict::Accepted { confirmed: true });
    assert!(matches!(answer(r#"{"stats":5,"filtered":0}"#), Verdict::Partial { unnamed: 1, .. }));
}

#[test]
fn settings_of_a_check() {
    let pem =
        |inside: &str| format!(r#"{{"url": "{URL}", "ca_pem": "-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n"}}"#);
    let url = |url: &str| format!(r#"{{"url": "{url}"}}"#);
    for (fields, faulty) in [
        ("{}".to_owned(), &["url"][..]),
        (url(URL), &[]),
        (url("http://agent.example.com:2609/write/crashes"), &[]),
        (url("https://trap.noit.circonus.net"), &["url"]),
        (url("ftp://trap.noit.circonus.net/module/httptrap/x/y"), &["url"]),
        (url("https://u:p@trap.noit.circonus.net/module/httptrap/x/y"), &["url"]),
        (url("https://trap.noit.circonus.net/module/httptrap/x/y#z"), &["url"]),
        (pem("MAA="), &[]),
        (pem("MA\\nA="), &[]),
        (pem("not base64!"), &["ca_pem"]),
        (pem("AAAA"), &["ca_pem"]),
        (pem("MAA=\\n-----END CERTIFICATE-----\\n-----BEGIN PRIVATE KEY-----\\nMAA="), &["ca_pem"]),
        (pem("MAA=\\n-----END CERTIFICATE-----\\n-----BEGIN CERTIFICATE-----\\nMAA="), &[]),
        (pem("MAA=\\n-----END CERTIFICATE-----\\n-----BEGIN CERTIFICATE-----\\n"), &["ca_pem"]),
        (format!(r#"{{"url": "{URL}", "ca_pem": "hello"}}"#), &["ca_pem"]),
        (format!(r#"{{"url": "{URL}", "ca_pem": "{}"}}"#, "x".repeat(70_000)), &["ca_pem"]),
        (format!(r#"{{"url": "{URL}", "ca_pem": 1, "layout": "flat"}}"#), &["ca_pem", "layout"]),
    ] {
        let problems = Adapter::parse("circonus_push", &object(&fields)).err().unwrap_or_default();
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}");
    }
}

fn pull() -> Adapter {
    Adapter::parse("circonus_pull", &object(r#"{"username": "reader", "password": "pa55word"}"#)).expect("sound settings")
}

#[test]
fn a_page_shows_values_without_times_and_leaves_out_what_has_none() {
    let mut shown = golden::page();
    shown.series.push(PageSeries { series: series(&["p", "q"], "a_max", &[]), shape: Shape::Gauge, value: None, counter: None });
    shown.series.push(PageSeries { series: series(&["p", "q"], "a_min", &[]), shape: Shape::Gauge, value: Some(f64::NAN), counter: None });
    let adapter = pull();
    let page_of = |page: &Page| adapter.as_pull().expect("a pull adapter").render(page, &Accept::read(Some("text/html")));
    let rendered = page_of(&shown);
    assert_eq!(rendered.content_type, "application/json");
    assert_eq!(rendered.excluded.iter().map(|excluded| excluded.point).collect::<Vec<_>>(), [8]);
    let samples = read_pull(&rendered.body).expect("a sound page");
    assert_eq!((samples.len() as u64, samples.len()), (rendered.samples, 7));
    assert_eq!(samples[6].value, 1_700_000_100.0);
    let whole = &batch([series(&["p", "q"], "count", &[("a", text("x\"y"))])]);
    assert_eq!(page_of(&page(whole)).body, b"{\n\"p`q`count|ST[a:b\\\"eCJ5\\\"]\":{\"_type\":\"n\",\"_value\":0.25}\n}\n");
}

#[test]
fn only_the_made_user_and_password_may_read() {
    let adapter = pull();
    let pull = adapter.as_pull().expect("a pull adapter");
    for (header, let_in) in [
        (Some("Basic cmVhZGVyOnBhNTV3b3Jk"), true),
        (Some("Basic cmVhZGVyOnBhNTV3b3JkIQ=="), false),
        (Some("Basic Og=="), false),
        (Some("Bearer pa55word"), false),
        (Some(""), false),
        (None, false),
    ] {
        assert_eq!(pull.authorises(header), let_in, "{header:?}");
    }
    assert!(pull.challenge().starts_with("Basic realm="));
    assert_eq!(pull.page_name(), "circonus.json");
    for (fields, faulty) in
        [("{}", &["username", "password"][..]), (r#"{"username": "u"}"#, &["password"]), (r#"{"password": "p"}"#, &["username"])]
    {
        let problems = Adapter::parse("circonus_pull", &object(fields)).expect_err("never open to all");
        assert_eq!(problems.iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), faulty, "{fields}");
    }
}
