//! Reads JSON by slices: a cursor checks the grammar as it walks to what counts. No tree is built. What it finds a fault in, the parser
//! reads too, and tells the fault.
//!
//! So the memory for a hostile body is the body itself, the depth is bounded before anything is read, and the fault of a
//! value can be told with its name. Duplicate keys reach the caller in order; every caller lets the last one win.

use crate::{Limits, Reason, Rejection};
use model::Value;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The body as text.
pub(crate) fn text<'a>(bytes: &'a [u8], field: &str) -> Result<&'a str, Rejection> {
    std::str::from_utf8(bytes).map_err(|error| malformed(field, format!("must be UTF-8, and byte {} is not", error.valid_up_to())))
}

/// Bounds the depth and finds half surrogate pairs, which stand for no character and cannot be kept as text. Everything
/// else about the grammar is left to the parser.
fn check(text: &str, field: &str, limits: &Limits) -> Result<(), Rejection> {
    let (bytes, mut at, mut depth) = (text.as_bytes(), 0, 0usize);
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
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)? as u16))
}

/// Checks an object by the parser, which tells a fault with its place, and walks its members in order. `field` names the object in a
/// fault. Much slower than a [`Cursor`], which finds the same objects sound.
pub(crate) fn each_member<'a>(
    object: &'a str,
    field: &str,
    limits: &Limits,
    take: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), Rejection> {
    check(object, field, limits)?;
    let mut parser = serde_json::Deserializer::from_str(object);
    parser.deserialize_map(Walk(take)).and_then(|()| parser.end()).map_err(|error| malformed_at(field, &error))
}

/// A place in a text of JSON, whose grammar is checked where the cursor goes: exactly that of the parser, with the depth bounded and no
/// half surrogate pairs. A fault is remembered and ends the walk; what it is, is for [`text`] and [`each_member`] to say.
///
/// What stands there is read or entered; what a caller leaves alone is passed over. So the parts that count are read in one pass,
/// however deep they are.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// Levels that may still be entered.
    levels: usize,
    sound: bool,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a text in which arrays and objects may nest `levels` deep.
    pub(crate) fn new(text: &'a str, levels: usize) -> Cursor<'a> {
        Cursor { text, at: 0, levels, sound: true }
    }

    /// The next byte that is not white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Whether all of the text was one value without a fault, now that it has been walked.
    pub(crate) fn ended(mut self) -> bool {
        self.peek().is_none() && self.sound
    }

    /// Enters an object and hands over its members in order; of another value nothing.
    pub(crate) fn object(&mut self, mut take: impl FnMut(Cow<'a, str>, &mut Cursor<'a>)) {
        if self.peek() != Some(b'{') {
            return self.skip();
        }
        self.members(|name, value| take(name.text(), value));
    }

    /// Enters an array and hands over its elements in order until `take` has enough; of another value nothing.
    pub(crate) fn array(&mut self, mut take: impl FnMut(&mut Cursor<'a>) -> bool) {
        if self.peek() != Some(b'[') {
            return self.skip();
        }
        let mut goes_on = true;
        self.elements(|value| goes_on = goes_on && take(value));
    }

    /// The value as it is written.
    pub(crate) fn raw(&mut self) -> &'a str {
        self.beside_raw(Cursor::skip).1
    }

    /// A string; `None` for every other value.
    pub(crate) fn string(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() == Some(b'"') {
            return Some(self.quoted().text());
        }
        self.skip();
        None
    }

    /// A value that an attribute can hold; `None` for null, arrays and objects.
    pub(crate) fn scalar(&mut self) -> Result<Option<Value>, NotFinite> {
        if self.peek() == Some(b'"') {
            return Ok(Some(Value::Text(self.quoted().text().into_owned())));
        }
        scalar(self.raw())
    }

    /// What a walk makes of a value, and the value as it is written.
    pub(crate) fn beside_raw<T>(&mut self, walk: impl FnOnce(&mut Cursor<'a>) -> T) -> (T, &'a str) {
        self.peek();
        let start = self.at;
        let made = walk(self);
        (made, self.text.get(start..self.at).unwrap_or_default())
    }

    /// Passes over a value.
    fn skip(&mut self) {
        match self.peek() {
            Some(b'"') => {
                self.pass_string();
            }
            Some(b'{') => self.members(|_, _| {}),
            Some(b'[') => self.elements(|_| {}),
            Some(b'-' | b'0'..=b'9') => self.pass(past_number(self.text.as_bytes(), self.at)),
            Some(b't') => self.pass(self.past_word("true")),
            Some(b'f') => self.pass(self.past_word("false")),
            Some(b'n') => self.pass(self.past_word("null")),
            _ => self.fault(),
        }
    }

    /// The members of the object that begins here.
    #[inline]
    fn members(&mut self, mut take: impl FnMut(Quoted<'a>, &mut Cursor<'a>)) {
        if self.enters(b'}') {
            return;
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.fault();
            }
            let name = self.quoted();
            if self.peek() != Some(b':') {
                return self.fault();
            }
            self.at += 1;
            self.one(|value| take(name, value));
            if self.leaves(b'}') {
                return;
            }
        }
    }

    /// The elements of the array that begins here.
    #[inline]
    fn elements(&mut self, mut take: impl FnMut(&mut Cursor<'a>)) {
        if self.enters(b']') {
            return;
        }
        loop {
            self.one(&mut take);
            if self.leaves(b']') {
                return;
            }
        }
    }

    /// Hands over the value that comes next, and passes over it when it is left alone.
    #[inline]
    fn one(&mut self, take: impl FnOnce(&mut Cursor<'a>)) {
        self.peek();
        let value = self.at;
        take(self);
        if self.at == value {
            self.skip();
        }
    }

    /// Goes a level down; answers whether there is nothing to see.
    fn enters(&mut self, close: u8) -> bool {
        let Some(levels) = self.levels.checked_sub(1) else {
            self.fault();
            return true;
        };
        self.at += 1;
        let empty = self.peek() == Some(close);
        if empty {
            self.at += 1;
        } else {
            self.levels = levels;
        }
        empty
    }

    /// Passes over a comma, or over the end and a level up; answers whether that was the end, as a fault is too.
    fn leaves(&mut self, close: u8) -> bool {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                return false;
            }
            Some(byte) if byte == close => {
                self.at += 1;
                self.levels += 1;
            }
            _ => self.fault(),
        }
        true
    }

    /// The string that begins here.
    #[inline]
    fn quoted(&mut self) -> Quoted<'a> {
        let (text, start) = (self.text, self.at);
        let escaped = self.pass_string();
        Quoted { text, start, end: self.at, escaped }
    }

    /// Passes over the string that begins here; answers whether it has an escape.
    fn pass_string(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let (mut at, mut escaped) = (self.at + 1, false);
        loop {
            at = next_special(bytes, at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return escaped;
                }
                Some(b'\\') if let Some(past) = past_escape(bytes, at) => (at, escaped) = (past, true),
                _ => {
                    self.fault();
                    return false;
                }
            }
        }
    }

    fn past_word(&self, word: &str) -> Option<usize> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then_some(self.at + word.len())
    }

    fn pass(&mut self, past: Option<usize>) {
        match past {
            Some(past) => self.at = past,
            None => self.fault(),
        }
    }

    /// Nothing is seen any more.
    #[cold]
    fn fault(&mut self) {
        self.sound = false;
        self.at = self.text.len();
    }
}

/// A string, from its first quote to behind its last.
struct Quoted<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// What it says; of one that has a fault, nothing that anybody looks at.
    #[inline(always)]
    fn text(&self) -> Cow<'a, str> {
        if self.escaped {
            return self.unescaped();
        }
        Cow::Borrowed(self.text.get(self.start + 1..self.end - 1).unwrap_or_default())
    }

    #[cold]
    fn unescaped(&self) -> Cow<'a, str> {
        let raw = self.text.get(self.start..self.end).unwrap_or_default();
        serde_json::from_str(raw).map(Cow::Owned).unwrap_or_default()
    }
}

/// The place of the first byte from `at` on that is a quote, a backslash or a control character: the end, when there is none.
#[inline]
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let marks = special_of(u64::from_le_bytes(eight));
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

/// Marks the lowest of eight bytes that is special, by its highest bit. Bytes above it may be marked without being so, as each test
/// borrows from the next byte.
fn special_of(eight: u64) -> u64 {
    const EVERY: u64 = u64::MAX / 255;
    let below = |word: u64, bound: u8| word.wrapping_sub(EVERY * u64::from(bound)) & !word;
    let quotes = below(eight ^ (EVERY * u64::from(b'"')), 1);
    let backslashes = below(eight ^ (EVERY * u64::from(b'\\')), 1);
    (quotes | backslashes | below(eight, 0x20)) & (EVERY * 0x80)
}

/// The place after the escape at `at`, if it stands for a character or begins one that the next completes.
fn past_escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => match escaped_unit(bytes, at)? {
            0xD800..=0xDBFF => matches!(escaped_unit(bytes, at + 6), Some(0xDC00..=0xDFFF)).then_some(at + 12),
            0xDC00..=0xDFFF => None,
            _ => Some(at + 6),
        },
        _ => None,
    }
}

/// The place after the number that begins at `at`.
fn past_number(bytes: &[u8], at: usize) -> Option<usize> {
    let first = at + usize::from(bytes.get(at) == Some(&b'-'));
    let mut at = match bytes.get(first)? {
        b'0' => first + 1,
        _ => past_digits(bytes, first)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at = past_digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at = past_digits(bytes, at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-'))))?;
    }
    Some(at)
}

/// The place after one digit or more.
fn past_digits(bytes: &[u8], at: usize) -> Option<usize> {
    let digits = bytes.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then_some(at + digits)
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

struct Walk<F>(F);

impl<'a, F: FnMut(Cow<'a, str>, &'a str)> Visitor<'a> for Walk<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some((Name(name), raw)) = members.next_entry::<Name<'a>, &'a RawValue>()? {
            (self.0)(name, raw.get());
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
        let text = text(bytes, "report").map_err(|rejection| rejection.reason)?;
        let told = each_member(text, "report", &Limits::DEFAULT, |_, _| {}).map_err(|rejection| rejection.reason);
        assert_eq!(is_sound(text), told.is_ok(), "{text}");
        told
    }

    /// Whether a cursor finds a text to be an object without a fault.
    fn is_sound(text: &str) -> bool {
        let mut cursor = cursor(text);
        let is_object = cursor.peek() == Some(b'{');
        cursor.raw();
        is_object && cursor.ended()
    }

    fn cursor(text: &str) -> Cursor<'_> {
        Cursor::new(text, Limits::DEFAULT.depth)
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
        let refused = text(b"{\"a\":\"\xff\"}", "report").expect_err("not UTF-8");
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
        each_member(r#"{"a":1,"b\u0062":2,"a":[3]}"#, "x", &Limits::DEFAULT, |name, raw| seen.push((name.into_owned(), raw)))
            .expect("an object");
        assert_eq!(seen, [("a".to_owned(), "1"), ("bb".to_owned(), "2"), ("a".to_owned(), "[3]")]);
    }

    /// What a cursor sees of checked text, as the parser's own tree. Members that are not looked at are passed over.
    fn tree(text: &str) -> serde_json::Value {
        use serde_json::Value;
        match text.as_bytes().first() {
            Some(b'{') => {
                let mut members = serde_json::Map::new();
                cursor(text).object(|name, value| {
                    if !name.starts_with('-') {
                        members.insert(name.into_owned(), tree(value.raw()));
                    }
                });
                Value::Object(members)
            }
            Some(b'[') => {
                let mut elements = Vec::new();
                cursor(text).array(|value| {
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
            cursor(&text).object(|_, value| value.array(|value| { value.object(|_, _| seen += 1); true }));
            cursor(&text).array(|value| { value.object(|_, value| { value.string(); }); seen += 1; seen < enough });
        }

        #[test]
        fn a_cursor_finds_sound_what_the_parser_does(
            json in any_json(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3, prop::sample::select(PIECES.to_vec())), 0..3),
        ) {
            let mut text = serde_json::to_string(&serde_json::json!({"a": json})).expect("JSON");
            for (at, taken, piece) in edits {
                let from = text.floor_char_boundary(at.index(text.len() + 1));
                let to = text.ceil_char_boundary((from + taken).min(text.len()));
                text.replace_range(from..to, piece);
            }
            let mut told = Vec::new();
            let parsed = each_member(&text, "x", &Limits::DEFAULT, |name, raw| told.push((name.into_owned(), raw)));
            prop_assert_eq!(is_sound(&text), parsed.is_ok(), "{}", text);
            if parsed.is_ok() {
                let mut seen = Vec::new();
                cursor(&text).object(|name, value| seen.push((name.into_owned(), value.raw())));
                prop_assert_eq!(seen, told);
            }
        }

        #[test]
        fn special_bytes_are_found_where_they_are(text in "[ -~é\\x00-\\x1f\"\\\\]{0,40}", at in 0usize..50) {
            let bytes = text.as_bytes();
            let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
            let expected = (at..bytes.len()).find(|&at| !plain(&bytes[at])).unwrap_or(bytes.len().max(at));
            prop_assert_eq!(next_special(bytes, at), expected);
        }
    }

    /// What breaks a text of JSON, or changes it into another.
    const PIECES: [&str; 34] = [
        "",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "\\",
        "\\\"",
        "\\u00e9",
        "\\ud83d",
        "\\ude00",
        "\\ud83d\\ude00",
        "\\u+123",
        "\\x",
        "\n",
        "\u{1}",
        " ",
        "\t",
        "0",
        "-",
        "01",
        ".",
        "1.",
        "e",
        "e+",
        "1E5",
        "-0.0e-0",
        "true",
        "nul",
        "NaN",
        "é",
        "\u{a0}",
    ];
}
