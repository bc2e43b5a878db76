//! What Circonus' two ways in have in common: names with stream tags, and numbers, as the broker's own parsers read them.
//!
//! Wire facts: metric-stores 7.2 and 7.3, and reconnoiter's source (`httptrap.c`, `noit_metric.c`, `noit_check.c`).

use crate::names::{self, Clean, Name, Names, Speller};
use crate::snippet::{self, About, Snippet};
use crate::spelt::{self, Spelt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Label, Series, Shape};
use serde_json::json;
use std::io::Write;

/// Between the nodes of a name.
const NODE_SEPARATOR: char = '`';
/// Longest name with its tags; the broker's buffer holds 4,096 bytes with the end (metric-stores 7.3).
const NAME_BYTES_MAX: usize = 4_095;
/// Most tags on a name (metric-stores 7.3).
const TAGS_MAX: usize = 256;
/// Longest tag as it is written; the broker's buffer holds 256 bytes with the end (metric-stores 7.3).
const TAG_BYTES_MAX: usize = 255;
/// Longest category as it is written. The vendor's 254 would leave no room for a value.
const CATEGORY_BYTES_MAX: usize = 120;

/// How labels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// ``prefix`project`set`metric`aggregate|ST[key:value,...]``.
    StreamTags,
    /// ``prefix`project`set`metric`aggregate`value`...``, for accounts without stream tags (metric-stores 7.3).
    Path,
}

/// Writes the name of every series, no two alike.
pub(crate) fn spell<'a>(series: impl Iterator<Item = &'a Series> + Clone, layout: Layout, speller: &mut Speller) -> Spelt {
    // Circonus knows no types beside the number's own.
    let names = Names::new(series.clone().map(|one| Name::of(one, Shape::Gauge)), |name, mark| vec![write_name(name, mark)], speller);
    let series: Vec<&Series> = series.collect();
    Spelt::new(
        series.len(),
        |at| spelt::raw(series[at]),
        |at, labels, out| {
            let start = out.len();
            out.extend_from_slice(names.of(at).as_bytes());
            match layout {
                Layout::StreamTags => write_tags(labels, speller, out)?,
                Layout::Path => write_values(labels, speller, out),
            }
            if out.len() - start <= NAME_BYTES_MAX { Ok(()) } else { Err("its name is longer than 4,095 bytes") }
        },
    )
}

/// Appends a name as JSON.
pub(crate) fn write_json_name(name: &[u8], out: &mut Vec<u8>) {
    serde_json::to_writer(out, text(name)).expect("writing into memory cannot fail");
}

/// Appends a finite number, always with a fraction and with a sign in its exponent: whoever guesses the type from such a text takes
/// it for a double. It is far shorter than the 255 characters that the broker reads of a number. -0 is written as 0.
pub(crate) fn write_number(value: f64, out: &mut Vec<u8>) {
    let text = format!("{:?}", value + 0.0);
    let (digits, exponent) = text.split_once('e').map_or((text.as_str(), None), |(digits, exponent)| (digits, Some(exponent)));
    // Writing into memory cannot fail.
    let _written = write!(out, "{digits}{}", if digits.contains('.') { "" } else { ".0" });
    if let Some(exponent) = exponent {
        let _written = write!(out, "e{}{exponent}", if exponent.starts_with('-') { "" } else { "+" });
    }
}

/// A written name as text.
pub(crate) fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect("made of text")
}

/// A query of the metric in all its series, and a rule for the series that is always there.
pub(crate) fn queries(about: &About<'_>, metric: &str, up: &str) -> Vec<Snippet> {
    let name = |text: &str| text.split("|ST[").next().unwrap_or(text).to_owned();
    let rule = json!({
        "check": "/check/YOUR-CHECK-ID",
        "metric_name": up,
        "metric_type": "numeric",
        "notes": format!("{} ({})", snippet::SILENT, about.store),
        "rules": [
            {"criteria": "on absence", "severity": 1, "value": about.silent_secs().to_string(), "wait": 0},
            {"criteria": "min value", "severity": 1, "value": "1", "wait": 0},
        ],
        "contact_groups": {"1": ["/contact_group/YOUR-GROUP-ID"], "2": [], "3": [], "4": [], "5": []},
    });
    vec![
        Snippet::new("CAQL query", "caql", format!("find({})\n", json!(name(metric)))),
        Snippet::new("Alert: Crashmeter is silent (POST /rule_set)", "json", snippet::pretty(&rule)),
    ]
}

/// All nodes and the aggregate.
fn write_name(name: &Name<'_>, mark: &str) -> String {
    // The broker takes blanks off both ends of a name.
    let nodes = name.path.iter().map(String::as_str).chain([name.aggregate]).map(|node| names::node(node.trim(), is_name_char));
    let mut text = nodes.collect::<Vec<_>>().join(&NODE_SEPARATOR.to_string());
    text.push_str(mark);
    text
}

/// Appends `|ST[category:value,...]`, sorted by category as the broker sorts.
fn write_tags(labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if labels.is_empty() {
        return Ok(());
    }
    if labels.len() > TAGS_MAX {
        return Err("it has more than 256 tags");
    }
    let keys = speller.keys(labels, category);
    let mut tags: Vec<(&String, &Label)> = keys.iter().zip(labels).map(|(key, (_, label))| (key, label)).collect();
    tags.sort_by_key(|(key, _)| *key);
    for (at, (key, label)) in tags.into_iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"|ST[" } else { b"," });
        write_part(key, out);
        out.push(b':');
        let room = TAG_BYTES_MAX - 1 - part_bytes(key, 0);
        write_part(&speller.value(label, names::VALUE_CHARS_MAX, |raw| tag_value(raw, room)), out);
    }
    out.push(b']');
    Ok(())
}

/// Appends the values as nodes.
fn write_values(labels: &[(String, Label)], speller: &mut Speller, out: &mut Vec<u8>) {
    for (_, label) in labels {
        out.push(NODE_SEPARATOR as u8);
        out.extend_from_slice(speller.value(label, names::NAME_CHARS_MAX, path_value).as_bytes());
    }
}

/// Appends one side of a tag; what is not plain goes as base64 (metric-stores 7.3).
fn write_part(text: &str, out: &mut Vec<u8>) {
    if text.chars().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
    } else {
        [b"b\"", STANDARD.encode(text).as_bytes(), b"\""].iter().for_each(|part| out.extend_from_slice(part));
    }
}

/// Length of one side of a tag as it is written, once so many plain bytes are added.
fn part_bytes(text: &str, added: usize) -> usize {
    let bytes = text.len() + added;
    if text.chars().all(is_plain) { bytes } else { "b\"\"".len() + bytes.div_ceil(3) * 4 }
}

/// A tag's category: as it is, or in plain characters where it would be too long.
fn category(raw: &str) -> String {
    let category = names::node(raw, is_text_char);
    if part_bytes(&category, 0) <= CATEGORY_BYTES_MAX { category } else { names::node(raw, is_plain) }
}

/// A tag's value in the room that its category leaves. A mark must always fit behind it.
fn tag_value(raw: &str, room: usize) -> Clean<'_> {
    let fits = |text: &str| part_bytes(text, names::MARK_CHARS) <= room;
    let clean = Clean::replacing(raw, is_text_char);
    let mut text = match clean {
        Clean::Faithful(text) if fits(&text) => return Clean::Faithful(text),
        Clean::Faithful(text) => text.into_owned(),
        Clean::Lossy(text) => text,
    };
    while !fits(&text) {
        text.pop();
    }
    Clean::Lossy(text)
}

/// A value as a node. The broker takes blanks off the end of a name, so such a value would fall together with another.
fn path_value(raw: &str) -> Clean<'_> {
    match Clean::replacing(raw, is_name_char) {
        Clean::Faithful(text) if text.trim() != text => Clean::Lossy(text.into_owned()),
        clean => clean,
    }
}

/// What the broker keeps of a name: anything but printable ASCII becomes a blank (`noit_metric_clean_name`). Left out are also the
/// characters that begin or end tags, and those that JSON escapes.
fn is_name_char(c: char) -> bool {
    (c == ' ' || c.is_ascii_graphic()) && !matches!(c, '|' | '[' | ']' | '{' | '}' | NODE_SEPARATOR | ',' | '"' | '\\')
}

/// What may stand in a tag as it is, on either side (metric-stores 7.3).
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-')
}

/// What may stand in a tag's base64.
fn is_text_char(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(value: f64) -> String {
        let mut out = Vec::new();
        write_number(value, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn numbers_always_look_like_doubles() {
        for (value, written) in [
            (0.0, "0.0"),
            (-0.0, "0.0"),
            (17.0, "17.0"),
            (-3.5, "-3.5"),
            (1_700_000_100.0, "1700000100.0"),
            (1e308, "1.0e+308"),
            (-1.25e300, "-1.25e+300"),
            (5e-324, "5.0e-324"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
        ] {
            assert_eq!(number(value), written);
        }
    }

    #[test]
    fn parts_of_a_tag_are_plain_or_base64() {
        for (text, written) in [
            ("linux", "linux"),
            ("v1.2/3_a-b", "v1.2/3_a-b"),
            ("project", "project"),
            ("a b", "b\"YSBi\""),
            ("a,b", "b\"YSxi\""),
            ("a:b", "b\"YTpi\""),
            ("b\"YSBi\"", "b\"YiJZU0JpIg==\""),
            ("\u{418}", "b\"0Jg=\""),
        ] {
            let mut out = Vec::new();
            write_part(text, &mut out);
            assert_eq!(out, written.as_bytes(), "{text:?}");
            assert_eq!(part_bytes(text, 0), written.len(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were(value in prop::num::f64::ANY.prop_filter("finite", |value| value.is_finite())) {
            let written = number(value);
            prop_assert_eq!(written.parse::<f64>(), Ok(value));
            prop_assert!(written.len() < 32 && written.contains('.'));
        }

        #[test]
        fn a_tag_fits_whatever_it_holds(key in "\\PC{0,120}|[a-z.]{0,120}", value in "\\PC{0,220}|[a-z. ]{0,220}") {
            let mut out = Vec::new();
            write_tags(&[(key, Label::Text(value))], &mut Speller::default(), &mut out).expect("written");
            prop_assert!(out.len() <= "|ST[]".len() + TAG_BYTES_MAX);
        }
    }
}
