//! Reads JSON by slices: the grammar is checked once while the outermost object is cut into its members, each as its own raw text;
//! within those a cursor walks to what counts. No tree is built.
//!
//! So the memory for a hostile body is the body itself, the depth is bounded before anything is read, and the fault of a
//! value can be told with its name. Duplicate keys reach the caller in order; every caller lets the last one win.

use crate::{Limits, Reason, Rejection};
use model::Value;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The body as text that is shallow enough to read: UTF-8, and escapes that are characters.
pub(crate) fn text<'a>(bytes: &'a [u8], field: &str, limits: &Limits) -> Result<&'a str, Rejection> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| malformed(field, format!("must be UTF-8, and byte {} is not", error.valid_up_to())))?;
    check(text.as_bytes(), field, limits)?;
    Ok(text)
}

/// Bounds the depth and finds half surrogate pairs, which stand for no character and cannot be kept as text. Everything
/// else about the grammar is left to the parser.
fn check(bytes: &[u8], field: &str, limits: &Limits) -> Result<(), Rejection> {
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = past_string(bytes, at, field)?,
            _ => {}
        }
        if depth > limits.depth {
            let detail = format!("arrays and objects may nest {} deep, and byte {} opens one more", limits.depth, at - 1);
            return Err(Rejection::new(Reason::TooDeep, field, detail));
        }
    }
    Ok(())
}

/// The place after the string whose content starts at `at`.
fn past_string(bytes: &[u8], mut at: usize, field: &str) -> Result<usize, Rejection> {
    loop {
        match bytes.get(at) {
            None => return Ok(at),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match (escaped_unit(bytes, at), escaped_unit(bytes, at + 6)) {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
                (Some(0xD800..=0xDFFF), _) => {
                    return Err(malformed(field, format!("half a surrogate pair at byte {at} is no character")));
                }
                _ => at += 2,
            },
            Some(_) => at += 1,
        }
    }
}

/// The UTF-16 unit of a `\u` escape that starts at `at`.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Checks an object and walks its members in order. `field` names the object in a fault of its own grammar.
pub(crate) fn each_member<'a>(
    object: &'a str,
    field: &str,
    take: impl FnMut(Cow<'a, str>, &'a str) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut walk = Walk { take, refused: None };
    let mut parser = serde_json::Deserializer::from_str(object);
    let walked = parser.deserialize_map(&mut walk).and_then(|()| parser.end());
    walk.refused.map_or_else(|| walked.map_err(|error| malformed_at(field, &error)), Err)
}

/// A place in text whose grammar was checked, so that no fault is looked for again: of other text it makes what it can, and never fails.
///
/// What stands there is read or entered; what a caller leaves alone is passed over. So the parts that count are read in one pass,
/// however deep they are.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { text, at: 0 }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(rest.len());
        self.at += blank;
        rest.get(blank).copied()
    }

    /// Enters an object and hands over its members in order; of another value nothing.
    pub(crate) fn object(&mut self, mut take: impl FnMut(Cow<'a, str>, &mut Cursor<'a>)) {
        if self.peek() != Some(b'{') {
            return self.skip();
        }
        self.at += 1;
        while let Some(byte) = self.peek() {
            if byte == b'"' {
                let name = string(self.raw()).unwrap_or_default();
                if self.peek() == Some(b':') {
                    self.at += 1;
                }
                self.peek();
                let value = self.at;
                take(name, self);
                if self.at == value {
                    self.skip();
                }
                continue;
            }
            self.at += 1;
            if byte == b'}' {
                return;
            }
        }
    }

    /// Enters an array and hands over its elements in order until `take` has enough; of another value nothing.
    pub(crate) fn array(&mut self, mut take: impl FnMut(&mut Cursor<'a>) -> bool) {
        if self.peek() != Some(b'[') {
            return self.skip();
        }
        self.at += 1;
        let mut goes_on = true;
        while let Some(byte) = self.peek() {
            if byte == b',' || byte == b']' {
                self.at += 1;
                if byte == b']' {
                    return;
                }
                continue;
            }
            let element = self.at;
            goes_on = goes_on && take(self);
            if self.at == element {
                self.skip();
            }
        }
    }

    /// The value as it is written.
    pub(crate) fn raw(&mut self) -> &'a str {
        self.peek();
        let start = self.at;
        self.skip();
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// A string; `None` for every other value.
    pub(crate) fn string(&mut self) -> Option<Cow<'a, str>> {
        string(self.raw())
    }

    /// Passes over a value, at least one byte while there is any.
    fn skip(&mut self) {
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => self.at = past_checked_string(bytes, self.at),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                b',' | b':' => {}
                _ => {
                    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
                    let rest = &bytes[self.at..];
                    self.at += rest.iter().position(ends).unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return;
            }
        }
    }
}

/// The place after the string whose content starts at `at`.
fn past_checked_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        if bytes[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    bytes.len()
}

/// A string as text; `None` for every other value.
pub(crate) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// A number that no finite float can stand for. It is refused, because any other reading of it would be another number.
#[derive(Debug, PartialEq)]
pub(crate) struct NotFinite;

impl NotFinite {
    pub(crate) fn of(self, field: &str) -> Rejection {
        Rejection::new(Reason::WrongValue, field, "this number is beyond the range of 64-bit floats; send it as text")
    }
}

/// A value that an attribute can hold; `None` for null, arrays and objects.
pub(crate) fn scalar(raw: &str) -> Result<Option<Value>, NotFinite> {
    Ok(match raw.as_bytes().first() {
        Some(b'"') => string(raw).map(|text| Value::Text(text.into_owned())),
        Some(b't') => Some(Value::Bool(true)),
        Some(b'f') => Some(Value::Bool(false)),
        Some(b'-' | b'0'..=b'9') => Some(number(raw).ok_or(NotFinite)?),
        _ => None,
    })
}

/// The parser has already checked the grammar. Rust's own reading of floats is the nearest one, to the last bit.
fn number(raw: &str) -> Option<Value> {
    if let Ok(whole) = raw.parse() {
        return Some(Value::Int(whole));
    }
    if let Ok(whole) = raw.parse() {
        return Some(Value::UInt(whole));
    }
    raw.parse().ok().filter(|real: &f64| real.is_finite()).map(Value::Float)
}

struct Walk<F> {
    take: F,
    refused: Option<Rejection>,
}

impl<'a, F: FnMut(Cow<'a, str>, &'a str) -> Result<(), Rejection>> Visitor<'a> for &mut Walk<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some((Name(name), raw)) = members.next_entry::<Name<'a>, &'a RawValue>()? {
            (self.take)(name, raw.get()).map_err(|rejection| {
                self.refused = Some(rejection);
                A::Error::custom("refused")
            })?;
        }
        Ok(())
    }
}

/// A key, borrowed unless it holds an escape.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn malformed_at(field: &str, error: &serde_json::Error) -> Rejection {
    // The texts of grammar faults hold a place and what was expected there, never what was sent.
    malformed(field, if error.is_data() { "must be a JSON object".to_owned() } else { format!("is not JSON: {error}") })
}

fn malformed(field: &str, detail: String) -> Rejection {
    Rejection::new(Reason::MalformedJson, field, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(bytes: &[u8]) -> Result<(), Reason> {
        let text = text(bytes, "report", &Limits::DEFAULT).map_err(|rejection| rejection.reason)?;
        each_member(text, "report", |_, _| Ok(())).map_err(|rejection| rejection.reason)
    }

    #[test]
    fn numbers_keep_their_kind_and_refuse_infinity() {
        for (raw, expected) in [
            ("0", Ok(Some(Value::Int(0)))),
            ("-0", Ok(Some(Value::Int(0)))),
            ("9007199254740993", Ok(Some(Value::Int((1 << 53) + 1)))),
            ("9223372036854775808", Ok(Some(Value::UInt(1 << 63)))),
            ("18446744073709551616", Ok(Some(Value::Float(18_446_744_073_709_551_616.0)))),
            ("-9223372036854775809", Ok(Some(Value::Float(-9_223_372_036_854_775_808.0)))),
            ("0.1", Ok(Some(Value::Float(0.1)))),
            ("1.0", Ok(Some(Value::Float(1.0)))),
            ("1e308", Ok(Some(Value::Float(1e308)))),
            ("1E-400", Ok(Some(Value::Float(0.0)))),
            // Off by one bit in parsers that take the short way.
            ("122.416294033786585", Ok(Some(Value::Float(122.416_294_033_786_58)))),
            ("1e400", Err(NotFinite)),
            ("-1e400", Err(NotFinite)),
        ] {
            assert_eq!(scalar(raw), expected, "{raw}");
        }
        let long = format!("0.1{}", "0".repeat(300));
        assert_eq!(scalar(&long), Ok(Some(Value::Float(0.1))));
    }

    #[test]
    fn only_scalars_become_values() {
        for (raw, expected) in [
            ("null", None),
            ("{\"a\":1}", None),
            ("[1]", None),
            ("true", Some(Value::Bool(true))),
            ("false", Some(Value::Bool(false))),
            ("\"\"", Some(Value::from(""))),
            (r#""a\"b\u00e9\ud83d\ude00""#, Some(Value::from("a\"bé😀"))),
        ] {
            assert_eq!(scalar(raw), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for (bytes, expected) in [
            (&b"{}"[..], Ok(())),
            (br#"{"a":"\ud83d\ude00"}"#, Ok(())),
            (br#"{"a":"\\ud800"}"#, Ok(())),
            (br#"{"a":"\ud800"}"#, Err(Reason::MalformedJson)),
            (br#"{"a":{"b":["\udc00"]}}"#, Err(Reason::MalformedJson)),
            (br#"{"a":"\ud800\u0041"}"#, Err(Reason::MalformedJson)),
            (b"{\"a\":\"\xff\"}", Err(Reason::MalformedJson)),
            (b"{\"a\":\"\xc0\xaf\"}", Err(Reason::MalformedJson)),
            (b"\xff\xfe{\0}\0", Err(Reason::MalformedJson)),
            (b"", Err(Reason::MalformedJson)),
            (b"[]", Err(Reason::MalformedJson)),
            (b"7", Err(Reason::MalformedJson)),
            (b"{\"a\":1", Err(Reason::MalformedJson)),
            (b"{} {}", Err(Reason::MalformedJson)),
            (b"{\"a\":1,}", Err(Reason::MalformedJson)),
            (b"{\"a\":NaN}", Err(Reason::MalformedJson)),
            (b"{\"a\":0x10}", Err(Reason::MalformedJson)),
            (b"{\"a\":1_000}", Err(Reason::MalformedJson)),
            (b"{\"a\":01}", Err(Reason::MalformedJson)),
            (b"{\"a\":{\"b\":tru}}", Err(Reason::MalformedJson)),
            (b"{\"a\":\"line\nbreak\"}", Err(Reason::MalformedJson)),
        ] {
            assert_eq!(reason(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
        let refused = text(b"{\"a\":\"\xff\"}", "report", &Limits::DEFAULT).expect_err("not UTF-8");
        assert_eq!(refused.problem.to_string(), "report: must be UTF-8, and byte 6 is not");
    }

    #[test]
    fn depth_is_bounded_before_anything_is_read() {
        for open in ["[", "{\"a\":", "[{\"a\":"] {
            let nested = |times: usize| format!("{{\"a\":{}", open.repeat(times));
            assert_eq!(reason(nested(100_000).as_bytes()), Err(Reason::TooDeep), "{open}");
        }
        let exactly = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(reason(exactly(64).as_bytes()), Ok(()));
        assert_eq!(reason(exactly(65).as_bytes()), Err(Reason::TooDeep));
        // Brackets in strings are text.
        assert_eq!(reason(format!("{{\"a\":\"{}\"}}", "[".repeat(100)).as_bytes()), Ok(()));
        assert_eq!(reason(format!("{{\"a\":[{}0]}}", "[],".repeat(100)).as_bytes()), Ok(()));
    }

    #[test]
    fn a_key_that_comes_twice_comes_in_order() {
        let mut seen = Vec::new();
        each_member(r#"{"a":1,"b\u0062":2,"a":[3]}"#, "x", |name, raw| {
            seen.push((name.into_owned(), raw));
            Ok(())
        })
        .expect("an object");
        assert_eq!(seen, [("a".to_owned(), "1"), ("bb".to_owned(), "2"), ("a".to_owned(), "[3]")]);
    }

    /// What a cursor sees of checked text, as the parser's own tree. Members that are not looked at are passed over.
    fn tree(text: &str) -> serde_json::Value {
        use serde_json::Value;
        match text.as_bytes().first() {
            Some(b'{') => {
                let mut members = serde_json::Map::new();
                Cursor::new(text).object(|name, value| {
                    if !name.starts_with('-') {
                        members.insert(name.into_owned(), tree(value.raw()));
                    }
                });
                Value::Object(members)
            }
            Some(b'[') => {
                let mut elements = Vec::new();
                Cursor::new(text).array(|value| {
                    elements.push(tree(value.raw()));
                    true
                });
                Value::Array(elements)
            }
            Some(b'"') => Value::String(string(text).expect("a string").into_owned()),
            _ => serde_json::from_str(text).expect("a scalar"),
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let text = prop::sample::select(vec!["", "a", "é", "\"", "\\", "\\\"", "{", "]}", ",", ":", " x ", "\n\u{1}", "😀"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..6)
                    .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_cursor_sees_what_the_parser_sees(json in any_json(), passed_over in any_json()) {
            let both = serde_json::json!({"-1": passed_over.clone(), "seen": json.clone(), "-2": passed_over});
            for text in [serde_json::to_string(&both).expect("JSON"), serde_json::to_string_pretty(&both).expect("JSON")] {
                prop_assert_eq!(tree(&text), serde_json::json!({"seen": json.clone()}));
            }
        }

        #[test]
        fn a_cursor_comes_to_the_end_of_anything(
            pieces in prop::collection::vec(prop::sample::select(vec!["{", "}", "[", "]", "\"", ":", ",", "\\", "a", "é", " ", "\\é"]), 0..20),
            enough in 0usize..4,
        ) {
            let text = pieces.concat();
            let mut seen = 0;
            Cursor::new(&text).object(|_, value| value.array(|value| { value.object(|_, _| seen += 1); true }));
            Cursor::new(&text).array(|value| { value.object(|_, value| { value.string(); }); seen += 1; seen < enough });
        }
    }
}
