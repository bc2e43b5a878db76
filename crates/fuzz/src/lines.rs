//! Targets of the line formats: Graphite and InfluxDB, read by readers of their own that take nothing on trust.

use crate::push::{Sample, Store, check};

/// The laws of `push` for both layouts of Graphite.
pub(crate) fn graphite(input: &[u8]) -> String {
    let store = |fields, read| Store { adapter: "graphite", fields, frame_lines: 0, bytes_max: 1 << 20, read };
    check(
        input,
        &[
            store(r#"{"host": "graphite.example.com"}"#, |_, body| read_graphite(body, true)),
            store(r#"{"host": "graphite.example.com", "layout": "path", "tls": true}"#, |_, body| read_graphite(body, false)),
        ],
    )
}

/// `path[;key=value...] value time`, with nothing in any of them that could be taken for a delimiter.
fn read_graphite(body: &[u8], tagged: bool) -> Vec<Sample> {
    let text = std::str::from_utf8(body).expect("UTF-8");
    assert!(text.ends_with('\n'), "the last line ends");
    let sample = |line: &str| {
        assert!(!line.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')), "{line:?}");
        let tokens: Vec<&str> = line.split(' ').collect();
        let [series, value, secs] = tokens[..] else { panic!("not three tokens: {line:?}") };
        let (path, tags) = series.split_once(';').map_or((series, None), |(path, tags)| (path, Some(tags)));
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        assert!(path.split('.').all(|node| !node.is_empty() && node.chars().all(sound)), "the path {path:?}");
        assert!(tagged || (tags.is_none() && path.len() <= 230), "the path {path:?}");
        let mut keys = Vec::new();
        for tag in tags.into_iter().flat_map(|tags| tags.split(';')) {
            let (key, value) = tag.split_once('=').expect("a tag has a value");
            assert!(!key.is_empty() && key != "name" && key.chars().all(|c| sound(c) || c == '.'), "the tag {tag:?}");
            assert!(!value.is_empty() && !value.starts_with('~'), "the tag {tag:?}");
            assert!(!keys.contains(&key), "the tag {key:?} twice");
            keys.push(key);
        }
        Sample { series: series.to_owned(), value: number(value), secs: secs.parse().expect("a time") }
    };
    text.trim_end_matches('\n').split('\n').map(sample).collect()
}

/// The laws of `push` for the three versions of InfluxDB.
pub(crate) fn influxdb(input: &[u8]) -> String {
    let store = |fields| Store { adapter: "influxdb", fields, frame_lines: 0, bytes_max: 1 << 20, read: |_, body| read_influxdb(body) };
    check(
        input,
        &[
            store(r#"{"url": "http://influx.example.com:8086/write?db=crashes", "username": "writer", "password": "pa55word"}"#),
            store(r#"{"url": "https://influx.example.com/api/v3/write_lp", "db": "crashes", "token": "t0ken"}"#),
        ],
    )
}

/// `measurement[,tag=value...] field=value[,...] time`: a backslash before a comma, an equals sign or a blank makes it text, any other
/// backslash is one.
fn read_influxdb(body: &[u8]) -> Vec<Sample> {
    let text = std::str::from_utf8(body).expect("UTF-8");
    assert!(text.ends_with('\n'), "the last line ends");
    let mut samples = Vec::new();
    for line in text.trim_end_matches('\n').split('\n') {
        assert!(!line.starts_with('#') && !line.chars().any(char::is_control), "{line:?}");
        let sections = cut(line, ' ');
        let [key, fields, secs] = &sections[..] else { panic!("not three sections: {line:?}") };
        let parts = cut(key, ',');
        assert!(!parts[0].is_empty() && !parts[0].starts_with('_'), "the measurement of {line:?}");
        let mut tags = Vec::new();
        for tag in &parts[1..] {
            let sides = cut(tag, '=');
            let [name, value] = &sides[..] else { panic!("the tag {tag:?}") };
            assert!(is_name(name) && !value.is_empty(), "the tag {tag:?}");
            assert!(!value.ends_with('\\'), "a backslash that swallows what follows: {tag:?}");
            tags.push(*name);
        }
        let mut sorted = tags.clone();
        sorted.sort_by_key(|name| plain(name));
        sorted.dedup();
        assert_eq!(sorted, tags, "tags are sorted, each once: {line:?}");
        let mut names = Vec::new();
        for field in cut(fields, ',') {
            let sides = cut(field, '=');
            let [name, value] = &sides[..] else { panic!("the field {field:?}") };
            assert!(is_name(name) && !tags.contains(name) && !names.contains(name), "the field {field:?} of {line:?}");
            names.push(*name);
            samples.push(Sample { series: format!("{key} {name}"), value: number(value), secs: secs.parse().expect("a time") });
        }
    }
    samples
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('_') && name != "time"
}

fn plain(name: &str) -> String {
    name.replace('\\', "")
}

/// The pieces between separators that no backslash stands before.
fn cut(text: &str, separator: char) -> Vec<&str> {
    let (mut pieces, mut from, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == separator && !escaped {
            pieces.push(&text[from..at]);
            from = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    pieces.push(&text[from..]);
    pieces
}

/// A finite number in plain decimal digits.
fn number(text: &str) -> f64 {
    assert!(text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.')), "the number {text:?}");
    text.parse().ok().filter(|number: &f64| number.is_finite()).expect("a number")
}
