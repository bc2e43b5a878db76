//! The body of a report without what its columns have anyway: most of a body is its attributes, and random identifiers do not
//! compress; marks, the same in every body, nearly vanish. An outline is the body with a mark in place of each value that is the
//! attribute called by the key before it, and of each text that is the client's own id. Marks are JSON texts, so an outline is
//! JSON when the body is.
//!
//! Bodies come back byte for byte; one that might not is kept as it is.

use model::{Attributes, ReportId, Value};

/// Stands for the attribute that is called by the key before it.
const ATTRIBUTE: &[u8] = br#""\u0001""#;
/// Stands for the client's own id.
const ID: &[u8] = br#""\u0002""#;

/// Adds the outline of a body to `outline`; `false`, and nothing is added, where there is nothing to mark, or where the body could not
/// be told from it.
///
/// The outline falls into the same stretches as the body: where a stretch ends depends on its own bytes and on whether a text or a
/// word follows, and a mark is a whole text in place of one of these. So it is filled to the body, if no text of the body looks like a
/// mark itself and no text that is marked lacks its end.
pub(super) fn outline_into(outline: &mut Vec<u8>, body: &[u8], attributes: &Attributes, id: Option<ReportId>) -> bool {
    let id = id.map(|id| format!("\"{id}\""));
    let names = Names::of(attributes);
    let before = outline.len();
    // The attribute that is called by the key before, if there is one.
    let mut called: Option<&Value> = None;
    // How much of the body the outline has, and how much was looked at.
    let (mut told, mut seen) = (0, 0);
    while let Some(first) = body.get(seen) {
        let start = seen;
        let is_text = match KINDS[usize::from(*first)] {
            Kind::Other => {
                seen += 1;
                continue;
            }
            Kind::Value => {
                seen += value_length(&body[start..]);
                false
            }
            Kind::Text => {
                seen += text_length(&body[start..]).unwrap_or(body.len() - start);
                true
            }
        };
        let token = &body[start..seen];
        if is_text && is_mark(token) {
            outline.truncate(before);
            return false;
        }
        let mark = if called.is_some_and(|value| is_written(value, token)) {
            ATTRIBUTE
        } else if is_text && id.as_ref().is_some_and(|id| id.as_bytes() == token) {
            ID
        } else {
            if is_text {
                called = names.get(unquoted(token));
            }
            continue;
        };
        outline.extend_from_slice(&body[told..start]);
        outline.extend_from_slice(mark);
        told = seen;
    }
    if told == 0 {
        return false;
    }
    outline.extend_from_slice(&body[told..]);
    debug_assert!(fill(&outline[before..], attributes, id.as_deref()).as_deref() == Some(body), "an outline that is not of its body");
    true
}

/// Attributes by name, for a body of which most words are no attribute's name: those are told by a glance.
struct Names<'a> {
    /// The last attribute of each of 256 kinds of name, counted from 1; 0: there is none.
    kinds: [u32; 256],
    /// Attributes by name, each with the one before it of the same kind, counted likewise.
    attributes: Vec<(&'a [u8], &'a Value, u32)>,
}

/// Attributes of a kind that are looked at one by one. Clients choose names and can have all of one kind.
const OF_KIND: usize = 4;

impl<'a> Names<'a> {
    fn of(attributes: &'a Attributes) -> Names<'a> {
        let mut names = Names { kinds: [0; 256], attributes: Vec::with_capacity(attributes.len()) };
        for ((name, value), number) in attributes.iter().zip(1..) {
            let before = std::mem::replace(&mut names.kinds[Names::kind(name.as_bytes())], number);
            names.attributes.push((name.as_bytes(), value, before));
        }
        names
    }

    /// By length, first and last byte.
    fn kind(name: &[u8]) -> usize {
        let (first, last) = (name.first().copied().unwrap_or(0), name.last().copied().unwrap_or(0));
        usize::from((name.len() as u8).wrapping_mul(29) ^ first.wrapping_mul(7) ^ last.wrapping_mul(53))
    }

    fn get(&self, name: &[u8]) -> Option<&'a Value> {
        let mut number = self.kinds[Names::kind(name)];
        for _ in 0..OF_KIND {
            let (have, value, before) = *self.attributes.get((number as usize).wrapping_sub(1))?;
            if have == name {
                return Some(value);
            }
            number = before;
        }
        // All that is left of the kind is before this one.
        search(&self.attributes[..number as usize], name)
    }
}

#[cold]
fn search<'a>(attributes: &[(&[u8], &'a Value, u32)], name: &[u8]) -> Option<&'a Value> {
    attributes.binary_search_by_key(&name, |(have, ..)| have).ok().map(|at| attributes[at].1)
}

/// The body of an outline; `None` where an attribute is missing that was there.
pub(super) fn body(outline: &[u8], attributes: &Attributes, id: Option<ReportId>) -> Option<Vec<u8>> {
    fill(outline, attributes, id.map(|id| format!("\"{id}\"")).as_deref())
}

fn fill(outline: &[u8], attributes: &Attributes, id: Option<&str>) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(outline.len() * 2);
    let mut key: &[u8] = b"";
    for token in Tokens(outline) {
        match token {
            Token::Text(ATTRIBUTE) => {
                let value = attributes.get(str::from_utf8(key).ok()?)?;
                let quote: &[u8] = if value.is_text() { b"\"" } else { b"" };
                [quote, value.written().as_bytes(), quote].iter().for_each(|piece| body.extend_from_slice(piece));
            }
            Token::Text(ID) => body.extend_from_slice(id?.as_bytes()),
            Token::Text(token) => {
                key = unquoted(token);
                body.extend_from_slice(token);
            }
            Token::Value(token) | Token::Other(token) => body.extend_from_slice(token),
        }
    }
    Some(body)
}

/// Whether a value is written like this token; a text with escapes is not.
fn is_written(value: &Value, token: &[u8]) -> bool {
    match value {
        Value::Text(text) => unquoted(token) == text.as_bytes() && is_whole_text(token),
        Value::Bool(answer) => token == if *answer { &b"true"[..] } else { &b"false"[..] },
        Value::Int(number) if *number < 0 => {
            token.split_first().is_some_and(|(sign, digits)| *sign == b'-' && is_decimal(digits, number.unsigned_abs()))
        }
        Value::Int(number) => is_decimal(token, number.unsigned_abs()),
        Value::UInt(number) => is_decimal(token, *number),
        Value::Float(_) => value.written().as_bytes() == token,
    }
}

/// Whether these are the digits of a number.
fn is_decimal(mut digits: &[u8], mut number: u64) -> bool {
    while let Some((last, before)) = digits.split_last() {
        if *last != b'0' + (number % 10) as u8 {
            return false;
        }
        (digits, number) = (before, number / 10);
        if number == 0 {
            return digits.is_empty();
        }
    }
    false
}

/// Whether a stretch is a text that has its end; that of a body which is cut off has none.
fn is_whole_text(token: &[u8]) -> bool {
    token.first() == Some(&b'"') && text_length(token) == Some(token.len())
}

fn unquoted(token: &[u8]) -> &[u8] {
    token.get(1..token.len().saturating_sub(1)).unwrap_or_default()
}

/// A stretch of a body. Of a body that is no JSON, stretches mean nothing and are still all of it.
enum Token<'b> {
    /// With its quotation marks.
    Text(&'b [u8]),
    /// A number or a word.
    Value(&'b [u8]),
    /// Anything between.
    Other(&'b [u8]),
}

struct Tokens<'b>(&'b [u8]);

impl<'b> Iterator for Tokens<'b> {
    type Item = Token<'b>;

    fn next(&mut self) -> Option<Token<'b>> {
        let bytes = self.0;
        let kind = KINDS[usize::from(*bytes.first()?)];
        let length = match kind {
            Kind::Text => text_length(bytes).unwrap_or(bytes.len()),
            Kind::Value => value_length(bytes),
            Kind::Other => length(bytes, Kind::Other),
        };
        let (token, rest) = bytes.split_at(length);
        self.0 = rest;
        Some(match kind {
            Kind::Text => Token::Text(token),
            Kind::Value => Token::Value(token),
            Kind::Other => Token::Other(token),
        })
    }
}

/// What a stretch is, told by its first byte.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Value,
    Other,
}

/// By byte.
const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'+' | b'.') {
            kinds[byte] = Kind::Value;
        }
        byte += 1;
    }
    kinds[b'"' as usize] = Kind::Text;
    kinds
};

/// The length of the number or word at the front.
fn value_length(bytes: &[u8]) -> usize {
    length(bytes, Kind::Value)
}

/// How many bytes of a kind there are at the front; the first is one.
fn length(bytes: &[u8], kind: Kind) -> usize {
    bytes[1..].iter().position(|byte| KINDS[usize::from(*byte)] != kind).map_or(bytes.len(), |at| 1 + at)
}

/// Whether a text looks like one of our marks.
fn is_mark(token: &[u8]) -> bool {
    token.len() == ATTRIBUTE.len() && (token == ATTRIBUTE || token == ID)
}

/// The length of the text at the front, with its quotation marks; `None` where the last one is missing.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let mut end = 1;
    loop {
        end += mark(bytes.get(end..)?)?;
        if bytes[end] == b'"' {
            return Some(end + 1);
        }
        end += 2;
    }
}

/// Where the first quotation mark or backslash is. Most texts are short: a few words of eight bytes are quicker than a search that is made
/// for long ones.
fn mark(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().take(SHORT_WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest byte that is marked is one that is sought; only those above it may be marked wrongly.
        let found = zeros(word ^ (EACH * u64::from(b'"'))) | zeros(word ^ (EACH * u64::from(b'\\')));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let short = words.len().min(SHORT_WORDS) * 8;
    memchr::memchr2(b'"', b'\\', &bytes[short..]).map(|at| short + at)
}

const SHORT_WORDS: usize = 4;
/// One in each byte.
const EACH: u64 = u64::MAX / 255;

/// Marks bytes that are zero by their highest bit; one above such a byte may be marked though it is 1.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    const NUMBER: ReportId = ReportId([0xab; 16]);

    fn attributes(pairs: &[(&str, Value)]) -> Attributes {
        Attributes::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())))
    }

    #[test]
    fn what_columns_have_is_marked_and_comes_back() {
        let of = attributes(&[
            ("guid", "0123456789".into()),
            ("age", Value::Int(123_456_789)),
            ("big", Value::UInt(u64::MAX)),
            ("ratio", Value::Float(0.123_456_75)),
            ("short", "ab".into()),
            ("quoted", "say \"hello\" to all".into()),
        ]);
        let id = NUMBER.to_string();
        for (sent, outlined) in [
            (r#"{"guid":"0123456789"}"#, Some(r#"{"guid":"\u0001"}"#)),
            (r#"{ "guid" : "0123456789" , "x" : 1 }"#, Some(r#"{ "guid" : "\u0001" , "x" : 1 }"#)),
            (r#"{"age":123456789,"big":18446744073709551615}"#, Some(r#"{"age":"\u0001","big":"\u0001"}"#)),
            (r#"{"ratio":0.12345675}"#, Some(r#"{"ratio":"\u0001"}"#)),
            (&format!(r#"{{"uuid":"{id}","a":"{id}"}}"#), Some(r#"{"uuid":"\u0002","a":"\u0002"}"#)),
            (r#"{"short":"ab"}"#, Some(r#"{"short":"\u0001"}"#)),
            // Written otherwise, of another type, or called otherwise.
            (r#"{"ratio":1.2345675e-1}"#, None),
            (r#"{"age":"123456789"}"#, None),
            (r#"{"age":123456789.0}"#, None),
            (r#"{"gu\u0069d":"0123456789"}"#, None),
            (r#"{"other":"0123456789"}"#, None),
            (r#"{"quoted":"say \"hello\" to all"}"#, None),
            // What looks like a mark already.
            (r#"{"guid":"0123456789","x":"\u0001"}"#, None),
            (r#"{"guid":"0123456789","x":"\u0002"}"#, None),
            (r#"{"guid":"0123456789","guid":"\u0001"}"#, None),
            ("", None),
            (r#"{"guid":"012345678"#, None),
            (r#""guid"0123456789"0123456789"#, None),
        ] {
            let outline = outline(sent.as_bytes(), &of, Some(NUMBER));
            assert_eq!(outline, naive(sent.as_bytes(), &of, Some(NUMBER)), "{sent}");
            assert_eq!(outline.as_deref().map(|outline| str::from_utf8(outline).expect("text")), outlined, "{sent}");
            if let Some(outline) = outline {
                assert_eq!(body(&outline, &of, Some(NUMBER)).as_deref(), Some(sent.as_bytes()));
                assert!(!of.is_empty() && body(&outline, &Attributes::default(), None).is_none(), "not without them");
            }
        }
    }

    /// So many names take a fraction of a second, and would take minutes if each were compared with all others of its kind.
    #[test]
    fn a_name_is_found_among_many_of_its_kind_without_looking_at_them_all() {
        let name = |number: u32| format!("a{number:06}a");
        let of = Attributes::from_pairs((0..100_000).map(|number| (name(2 * number), Value::from(u64::from(number)))));
        let names = Names::of(&of);
        let began = Instant::now();
        for number in 0..100_000 {
            assert_eq!(names.get(name(2 * number).as_bytes()), Some(&Value::from(u64::from(number))));
            assert_eq!(names.get(name(2 * number + 1).as_bytes()), None);
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[test]
    fn names_of_all_kinds_are_found() {
        for count in 0..40 {
            let pairs =
                |mark: &'static str| (0..count).map(move |n| (format!("{mark}{}{n:03}{mark}", "x".repeat(n % 3)), Value::from(n as u64)));
            let of = Attributes::from_pairs(pairs("a"));
            let names = Names::of(&of);
            pairs("a").chain(pairs("b")).for_each(|(name, _)| assert_eq!(names.get(name.as_bytes()), of.get(&name), "{name} of {count}"));
        }
    }

    fn outline(body: &[u8], attributes: &Attributes, id: Option<ReportId>) -> Option<Vec<u8>> {
        let mut outline = b"before".to_vec();
        let made = outline_into(&mut outline, body, attributes, id);
        assert!(outline.starts_with(b"before") && (made || outline.len() == 6));
        made.then(|| outline.split_off(6))
    }

    /// The same, byte by byte.
    fn naive(body: &[u8], attributes: &Attributes, id: Option<ReportId>) -> Option<Vec<u8>> {
        let id = id.map(|id| format!("\"{id}\"").into_bytes());
        let kind = |byte: u8| match byte {
            b'"' => 't',
            byte if byte.is_ascii_alphanumeric() || b"-+.".contains(&byte) => 'v',
            _ => 'o',
        };
        let (mut outline, mut key, mut at, mut marked) = (Vec::new(), Vec::new(), 0, false);
        while at < body.len() {
            let start = at;
            at += 1;
            let mut is_whole = false;
            if body[start] == b'"' {
                while at < body.len() && !is_whole {
                    is_whole = body[at] == b'"';
                    at += if body[at] == b'\\' { 2 } else { 1 };
                }
                at = at.min(body.len());
            } else {
                while at < body.len() && kind(body[at]) == kind(body[start]) {
                    at += 1;
                }
            }
            let token = &body[start..at];
            let value = str::from_utf8(&key).ok().and_then(|key| attributes.get(key));
            let is_value = value.is_some_and(|value| match value {
                Value::Text(text) => is_whole && token == format!("\"{text}\"").as_bytes(),
                value => token == value.written().as_bytes(),
            });
            let is_text = body[start] == b'"';
            if is_text && (token == ATTRIBUTE || token == ID) {
                return None;
            }
            let mark = match (is_value && kind(body[start]) != 'o', is_text && id.as_deref() == Some(token)) {
                (true, _) => ATTRIBUTE,
                (false, true) => ID,
                (false, false) => {
                    outline.extend(token);
                    if is_text {
                        key = unquoted(token).to_vec();
                    }
                    continue;
                }
            };
            outline.extend(mark);
            marked = true;
        }
        marked.then_some(outline)
    }

    #[test]
    fn marks_are_found_wherever_they_are() {
        for length in 0..60 {
            for at in 0..length {
                for mark_byte in [b'"', b'\\'] {
                    // What is like a mark but for one bit stands before it and behind it.
                    let mut bytes: Vec<u8> = (0..length).map(|n| [b'#', 0x5d, 0x23, 0xa2, 0xdc, 0x21, 0, 255][n % 8]).collect();
                    assert_eq!(mark(&bytes), None);
                    bytes[at] = mark_byte;
                    assert_eq!(mark(&bytes), Some(at));
                    bytes[length - 1] = b'"';
                    assert_eq!(mark(&bytes), Some(at));
                }
            }
        }
    }

    #[test]
    fn numbers_are_told_by_their_digits() {
        let numbers = [0, 1, 9, 10, 99, 100, 1_764_000_000, i64::MAX, -1, -9, -10, i64::MIN];
        for value in
            numbers.into_iter().map(Value::Int).chain([Value::UInt(u64::MAX), Value::UInt(1 << 63), Value::Bool(true), Value::Bool(false)])
        {
            for token in numbers.iter().map(i64::to_string).chain(
                ["", "-", "00", "01", "-0", "+1", "1.0", "true", "false", "18446744073709551615", "9223372036854775808"].map(str::to_owned),
            ) {
                assert_eq!(is_written(&value, token.as_bytes()), value.written() == token, "{value:?} {token}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_body_comes_back(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec![
                        "{", "}", ":", ",", " ", "\"", "\\", "\"name\"", "\"a long text\"", "\"\\u0001\"", "\"\\u0002\"", "123456789", "-",
                        "\"abababab-abab-abab-abab-abababababab\"", "\"name\":\"a long text\"", "\"n\":123456789", "true", "\u{1}", "é",
                    ]).prop_map(|piece| piece.as_bytes().to_vec()),
                    prop::collection::vec(any::<u8>(), 0..3),
                ],
                0..12,
            ),
            id in any::<bool>(),
        ) {
            let of = attributes(&[("name", "a long text".into()), ("n", Value::Int(123_456_789)), ("m", Value::Bool(true)), ("\\", "x".into())]);
            let (sent, id) = (pieces.concat(), id.then_some(NUMBER));
            prop_assert_eq!(Tokens(&sent).map(|token| match token { Token::Text(t) | Token::Value(t) | Token::Other(t) => t }).collect::<Vec<_>>().concat(), sent.clone());
            prop_assert_eq!(outline(&sent, &of, id), naive(&sent, &of, id));
            if let Some(outline) = outline(&sent, &of, id) {
                prop_assert_eq!(body(&outline, &of, id), Some(sent));
            }
        }
    }
}
