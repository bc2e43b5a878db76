//! Walks over a text of JSON and checks its grammar on the way, once: the reader of every body that has no fault. It builds nothing and
//! tells no fault, only that there is one; `json` reads the text again then and says which.

use crate::json::{NotFinite, escaped_unit, scalar};
use model::Value;
use std::borrow::Cow;

/// A place in a text of JSON, whose grammar is checked where the cursor goes: exactly that of the parser, with the depth bounded and no
/// half surrogate pairs. A fault is remembered and ends the walk; what it is, is for [`crate::json::text`] and [`crate::json::each_member`] to say.
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

/// Whether a cursor finds a text to be an object without a fault.
#[cfg(test)]
pub(crate) fn is_sound(text: &str) -> bool {
    let mut cursor = Cursor::new(text, crate::Limits::DEFAULT.depth);
    let is_object = cursor.peek() == Some(b'{');
    cursor.raw();
    is_object && cursor.ended()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::json::{each_member, string};
    use proptest::prelude::*;

    fn cursor(text: &str) -> Cursor<'_> {
        Cursor::new(text, Limits::DEFAULT.depth)
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
