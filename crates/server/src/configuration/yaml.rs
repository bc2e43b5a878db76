//! YAML text -> JSON with the place of every value, within bounds; and JSON -> YAML text.
//!
//! A careful part of YAML 1.2 (core schema): one document, keys that are text, each once, no tags. Aliases are put in where they
//! stand, and what they come to is counted, so that a small file cannot become a large one.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Number, Value as Json};
use std::collections::HashMap;
use std::fmt;

/// Longest file, in bytes: what the server takes as one request.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most values in a file, those of aliases included.
const VALUES_MAX: usize = 100_000;
/// Deepest nesting; the format needs eleven.
const DEPTH_MAX: usize = 32;

/// A document and where its parts stand.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) json: Json,
    /// By path: keys joined by dots, list places in brackets.
    places: HashMap<String, Place>,
}

/// A place in a text, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) detail: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Document {
    /// Where a field stands: itself, or the innermost part around it that is in the text.
    pub(crate) fn place(&self, field: &str) -> Place {
        let mut path = field;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            let Some(cut) = path.rfind(['.', '[']) else { return Place { line: 1, column: 1 } };
            path = &path[..cut];
        }
    }
}

/// The path of a key in a map, or of an item in a list.
pub(crate) fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads a text, or says what is wrong with it first.
pub(crate) fn read(text: &str) -> Result<Document, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        let detail = format!("the file is {} bytes long; {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(Fault { place: Place { line: 1, column: 1 }, detail });
    }
    let mut reader = Reader { open: Vec::new(), root: None, anchors: HashMap::new(), places: HashMap::new(), values: 0 };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| fault(error.marker(), error.info()))?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(fault(&span.start, "a second document begins here; a file holds one"));
            }
        }
        reader.take(event, &span.start)?;
    }
    Ok(Document { json: reader.root.unwrap_or(Json::Null), places: reader.places })
}

/// A list or map whose end has not come yet.
struct Open {
    path: String,
    anchor: usize,
    /// How many values there were before it.
    values_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Json>),
    Map { map: Map<String, Json>, lines: HashMap<String, usize>, key: Option<String> },
}

struct Reader {
    open: Vec<Open>,
    root: Option<Json>,
    /// What each anchor stands for, with how many values it is.
    anchors: HashMap<usize, (Json, usize)>,
    places: HashMap<String, Place>,
    values: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, mark: &Marker) -> Result<(), Fault> {
        match event {
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                return Err(fault(mark, "tags (! and !!) are not taken; quote what is to be text"));
            }
            Event::Scalar(text, style, anchor, None) => {
                if let Some(Open { path, content: Content::Map { map: _, lines, key: key @ None }, .. }) = self.open.last_mut() {
                    if style == ScalarStyle::Plain && text == "<<" {
                        return Err(fault(
                            mark,
                            "merge keys (<<) are not part of YAML 1.2; write the fields out, or use an alias for a whole value",
                        ));
                    }
                    let name = text.into_owned();
                    if let Some(line) = lines.insert(name.clone(), mark.line()) {
                        return Err(fault(mark, format!("the key {name} is here twice; the first is in line {line}")));
                    }
                    self.places.insert(child(path, &name), place(mark));
                    *key = Some(name);
                    return Ok(());
                }
                self.count(1, mark)?;
                let value = scalar(&text, style).map_err(|detail| fault(mark, detail))?;
                self.anchor(anchor, &value, 1);
                self.add(value, mark);
            }
            Event::Alias(anchor) => {
                if matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. })) {
                    return Err(fault(mark, "an alias cannot be a key"));
                }
                let Some((value, values)) = self.anchors.get(&anchor).cloned() else {
                    return Err(fault(mark, "an alias cannot stand inside what it names"));
                };
                self.count(values, mark)?;
                self.add(value, mark);
            }
            Event::SequenceStart(anchor, None) => self.begin(anchor, Content::List(Vec::new()), mark)?,
            Event::MappingStart(anchor, None) => {
                self.begin(anchor, Content::Map { map: Map::new(), lines: HashMap::new(), key: None }, mark)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser ends what it began");
                let value = match open.content {
                    Content::List(list) => Json::Array(list),
                    Content::Map { map, .. } => Json::Object(map),
                };
                self.anchor(open.anchor, &value, self.values - open.values_before);
                self.add(value, mark);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, anchor: usize, content: Content, mark: &Marker) -> Result<(), Fault> {
        if matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. })) {
            return Err(fault(mark, "a key must be text"));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(fault(mark, format!("is nested deeper than {DEPTH_MAX} levels")));
        }
        let values_before = self.values;
        self.count(1, mark)?;
        let path = self.path();
        self.places.entry(path.clone()).or_insert(place(mark));
        self.open.push(Open { path, anchor, values_before, content });
        Ok(())
    }

    /// The path of the value that comes next.
    fn path(&self) -> String {
        match self.open.last() {
            None => String::new(),
            Some(Open { path, content: Content::List(list), .. }) => format!("{path}[{}]", list.len()),
            Some(Open { path, content: Content::Map { key, .. }, .. }) => child(path, key.as_deref().unwrap_or_default()),
        }
    }

    fn add(&mut self, value: Json, mark: &Marker) {
        let path = self.path();
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(value),
            Some(Content::List(list)) => {
                self.places.entry(path).or_insert(place(mark));
                list.push(value);
            }
            Some(Content::Map { map, key, .. }) => drop(map.insert(key.take().unwrap_or_default(), value)),
        }
    }

    fn anchor(&mut self, anchor: usize, value: &Json, values: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), values));
        }
    }

    fn count(&mut self, values: usize, mark: &Marker) -> Result<(), Fault> {
        self.values += values;
        if self.values > VALUES_MAX {
            return Err(fault(mark, format!("the file comes to more than {VALUES_MAX} values, aliases included")));
        }
        Ok(())
    }
}

fn place(mark: &Marker) -> Place {
    Place { line: mark.line(), column: mark.col() + 1 }
}

fn fault(mark: &Marker, detail: impl Into<String>) -> Fault {
    Fault { place: place(mark), detail: detail.into() }
}

/// A scalar by the core schema (YAML 1.2.2, 10.3.2). `no`, `on` and dates are text.
fn scalar(text: &str, style: ScalarStyle) -> Result<Json, String> {
    if style != ScalarStyle::Plain {
        return Ok(Json::from(text));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number =
        |number: Option<Number>| number.map(Json::Number).ok_or_else(|| format!("the number {text} is too large; quote it if it is text"));
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Json::Null,
        "true" | "True" | "TRUE" => Json::Bool(true),
        "false" | "False" | "FALSE" => Json::Bool(false),
        _ if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") => {
            return Err(format!("{text} is not a finite number; quote it if it is text"));
        }
        _ if is_digits(digits, |byte| byte.is_ascii_digit()) => {
            let negative = text.starts_with('-');
            let whole: Option<Number> =
                if negative { text.parse::<i64>().ok().map(Number::from) } else { digits.parse::<u64>().ok().map(Number::from) };
            number(whole)?
        }
        _ if let Some(octal) = text.strip_prefix("0o").filter(|rest| is_digits(rest, |byte| matches!(byte, b'0'..=b'7'))) => {
            number(u64::from_str_radix(octal, 8).ok().map(Number::from))?
        }
        _ if let Some(hex) = text.strip_prefix("0x").filter(|rest| is_digits(rest, |byte| byte.is_ascii_hexdigit())) => {
            number(u64::from_str_radix(hex, 16).ok().map(Number::from))?
        }
        _ if is_float(digits) => number(text.parse::<f64>().ok().and_then(Number::from_f64))?,
        _ => Json::from(text),
    })
}

fn is_digits(text: &str, legal: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(legal)
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|digits| is_digits(digits, |byte| byte.is_ascii_digit()))
}

/// Writes a value as YAML that reads back as the same value: maps in blocks, lists on one line where they hold no maps.
pub(crate) fn write(value: &Json) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text.push('\n');
    text
}

fn block(value: &Json, depth: usize, text: &mut String) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (at, (key, value)) in map.iter().enumerate() {
                if at > 0 {
                    *text += &format!("\n{}", "  ".repeat(depth));
                }
                *text += &word(key);
                text.push(':');
                below(value, depth + 1, text);
            }
        }
        Json::Array(list) if list.iter().any(holds_map) => {
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    *text += &format!("\n{}", "  ".repeat(depth));
                }
                *text += "- ";
                // A block inside stands two columns in, as the dash and the blank make it.
                block(value, depth + 1, text);
            }
        }
        other => *text += &flow(other),
    }
}

/// A value after its key: on the same line, or as a block on the next ones.
fn below(value: &Json, depth: usize, text: &mut String) {
    let as_block = match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => list.iter().any(holds_map),
        _ => false,
    };
    *text += &if as_block { format!("\n{}", "  ".repeat(depth)) } else { " ".to_owned() };
    block(value, depth, text);
}

fn holds_map(value: &Json) -> bool {
    match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => list.iter().any(holds_map),
        _ => false,
    }
}

fn flow(value: &Json) -> String {
    match value {
        Json::Array(list) => format!("[{}]", list.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Json::String(text) => word(text),
        other => other.to_string(),
    }
}

/// A text, quoted unless every reader takes it for the same text without quotes.
fn word(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'))
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        // Words that some reader takes for a truth value, a number or nothing (YAML 1.1).
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"].contains(&text.to_ascii_lowercase().as_str());
    if plain {
        return text.to_owned();
    }
    // JSON's quoting is YAML's, but for a few characters that YAML does not take as they are.
    let quoted = serde_json::to_string(text).expect("text is plain data");
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out += &format!("\\u{:04x}", u32::from(c))
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn json_of(text: &str) -> Json {
        read(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}")).json
    }

    #[test]
    fn scalars_are_read_by_the_core_schema() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("no", json!("no")),
            ("on", json!("on")),
            ("60", json!(60)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("007", json!(7)),
            ("0o17", json!(15)),
            ("0xff", json!(255)),
            ("18446744073709551615", json!(u64::MAX)),
            ("1.50", json!(1.5)),
            (".5", json!(0.5)),
            ("5.", json!(5.0)),
            ("1e3", json!(1000.0)),
            ("1.2.3", json!("1.2.3")),
            ("1m", json!("1m")),
            ("0o8", json!("0o8")),
            ("-", json!([null])),
            ("2026-11-23", json!("2026-11-23")),
            ("'60'", json!("60")),
            ("\"a\\tb\"", json!("a\tb")),
            ("${A}", json!("${A}")),
            ("|\n  a\n  b\n", json!("a\nb\n")),
            (".", json!(".")),
            ("e5", json!("e5")),
        ] {
            assert_eq!(json_of(text), value, "{text}");
        }
    }

    #[test]
    fn every_part_has_a_place() {
        let document = read("a:\n  b: 1\n  c.d:\n    - x\n    - y: 2\nf: [1, {g: 2}]\n").expect("legal");
        assert_eq!(document.json, json!({"a": {"b": 1, "c.d": ["x", {"y": 2}]}, "f": [1, {"g": 2}]}));
        for (field, line, column) in [
            ("a", 1, 1),
            ("a.b", 2, 3),
            ("a.c.d", 3, 3),
            ("a.c.d[0]", 4, 7),
            ("a.c.d[1].y", 5, 7),
            ("f[1].g", 6, 9),
            ("a.b.nothing[3]", 2, 3),
            ("a.missing", 1, 1),
            ("elsewhere", 1, 1),
        ] {
            assert_eq!(document.place(field), Place { line, column }, "{field}");
        }
    }

    #[test]
    fn what_is_not_taken_is_refused_at_its_place() {
        for (text, line, words) in [
            ("a: 1\nb: 2\na: 3\n", 3, "twice; the first is in line 1"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("a: !!str 1\n", 1, "tags"),
            ("a: !x {}\n", 1, "tags"),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys"),
            ("? [a]\n: 1\n", 1, "a key must be text"),
            ("a: &x 1\n*x : 2\n", 2, "cannot be a key"),
            ("a: &x [*x]\n", 1, "inside what it names"),
            ("a: *nobody\n", 1, "anchor"),
            ("a: [1, 2\n", 2, "flow"),
            ("a: 'x\n", 1, "end of stream"),
            ("a:\n\t- b\n", 2, ""),
            ("a: .inf\n", 1, "finite"),
            ("a: 1e999\n", 1, "too large"),
            ("a: 99999999999999999999\n", 1, "too large"),
        ] {
            let fault = read(text).expect_err(text);
            assert_eq!(fault.place.line, line, "{text}: {fault:?}");
            assert!(fault.detail.contains(words), "{text}: {fault:?}");
        }
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(read(&deep).expect_err("too deep").detail.contains("nested deeper"));
        assert!(read(&"#".repeat(TEXT_BYTES_MAX + 1)).expect_err("too long").detail.contains("bytes long"));
    }

    #[test]
    fn aliases_are_put_in_and_what_they_come_to_is_bounded() {
        assert_eq!(
            json_of("a: &x [1, {b: 2}]\nc: *x\nd: &y t\ne: *y\n"),
            json!({"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": "t", "e": "t"})
        );
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
        }
        let fault = read(&bomb).expect_err("a bomb");
        assert!(fault.detail.contains("aliases included"), "{fault:?}");
    }

    #[test]
    fn what_is_written_is_pleasant_to_read() {
        let value = json!({"crashmeter": 1, "projects": {"p": {"query": {"filter": [{"a b": [["equal", "no"], ["is-set"]]}], "group": ["error.type"]}, "empty": {}, "none": []}}});
        let text = "crashmeter: 1\nprojects:\n  p:\n    query:\n      filter:\n        - \"a b\": [[equal, \"no\"], [is-set]]\n      group: [error.type]\n    empty: {}\n    none: []\n";
        assert_eq!(write(&value), text);
        assert_eq!(json_of(text), value);
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            (-1e12f64..1e12).prop_map(Json::from),
            any::<String>().prop_map(Json::from),
            "[a-z0-9:#,.~!&*%@'\"|>{}? \\[\\]\n\t-]{0,8}".prop_map(Json::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::btree_map("[a-zA-Z0-9:#<, .~-]{0,6}", inner, 0..5)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_json()) {
            let text = write(&value);
            let read = read(&text);
            prop_assert!(read.is_ok(), "{text}\n{read:?}");
            prop_assert_eq!(read.expect("just looked").json, value, "{}", text);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z0-9:#,.~!&*%@'\"|>{}? \\[\\]\n\t-]{0,60}") {
            let _ = read(&text);
        }
    }
}
