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

/// The outline of a body; `None` where there is nothing to mark, or where the body could not be told from it.
///
/// The outline falls into the same stretches as the body: where a stretch ends depends on its own bytes and on whether a text or a
/// word follows, and a mark is a whole text in place of one of these. So it is filled to the body, if no text of the body looks like a
/// mark itself and no text that is marked lacks its end.
pub(super) fn outline(body: &[u8], attributes: &Attributes, id: Option<ReportId>) -> Option<Vec<u8>> {
    let id = id.map(|id| format!("\"{id}\""));
    let names = Names::of(attributes);
    let mut outline = Vec::with_capacity(body.len());
    let mut key: &[u8] = b"";
    // How much of the body the outline has, and how much was looked at.
    let (mut told, mut seen) = (0, 0);
    for token in Tokens(body) {
        let start = seen;
        let (Token::Text(bytes) | Token::Value(bytes) | Token::Other(bytes)) = token;
        seen += bytes.len();
        let mark = match token {
            Token::Other(_) => continue,
            Token::Text(ATTRIBUTE | ID) => return None,
            Token::Value(token) | Token::Text(token) if names.get(key).is_some_and(|value| is_written(value, token)) => ATTRIBUTE,
            Token::Text(token) if id.as_ref().is_some_and(|id| id.as_bytes() == token) => ID,
            Token::Text(token) => {
                key = unquoted(token);
                continue;
            }
            Token::Value(_) => continue,
        };
        outline.extend_from_slice(&body[told..start]);
        outline.extend_from_slice(mark);
        told = seen;
    }
    outline.extend_from_slice(&body[told..]);
    debug_assert!(fill(&outline, attributes, id.as_deref()).as_deref() == Some(body), "an outline that is not of its body");
    (told > 0).then_some(outline)
}

/// Attributes by name, for a body of which most words are no attribute's name: those are told by a glance.
struct Names<'a> {
    attributes: &'a Attributes,
    /// Which of 256 kinds of name there are.
    kinds: [u64; 4],
}

impl<'a> Names<'a> {
    fn of(attributes: &'a Attributes) -> Names<'a> {
        let mut kinds = [0; 4];
        for (name, _) in attributes.iter() {
            let (word, bit) = Names::kind(name.as_bytes());
            kinds[word] |= bit;
        }
        Names { attributes, kinds }
    }

    /// By length, first and last byte.
    fn kind(name: &[u8]) -> (usize, u64) {
        let (first, last) = (name.first().copied().unwrap_or(0), name.last().copied().unwrap_or(0));
        let kind = (name.len() as u8).wrapping_mul(29) ^ first.wrapping_mul(7) ^ last.wrapping_mul(53);
        (usize::from(kind >> 6), 1 << (kind & 63))
    }

    fn get(&self, name: &[u8]) -> Option<&'a Value> {
        let (word, bit) = Names::kind(name);
        if self.kinds[word] & bit == 0 {
            return None;
        }
        self.attributes.get(str::from_utf8(name).ok()?)
    }
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
        Value::Text(text) => is_whole_text(token) && unquoted(token) == text.as_bytes(),
        value => value.written().as_bytes() == token,
    }
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
        let (length, make): (usize, fn(&'b [u8]) -> Token<'b>) = match bytes.first()? {
            b'"' => (text_length(bytes).unwrap_or(bytes.len()), Token::Text),
            first if in_value(first) => (length(bytes, |byte| !in_value(byte)), Token::Value),
            _ => (length(bytes, |byte| *byte == b'"' || in_value(byte)), Token::Other),
        };
        let (token, rest) = bytes.split_at(length);
        self.0 = rest;
        Some(make(token))
    }
}

fn in_value(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// How many bytes there are from the first on until one ends the stretch.
fn length(bytes: &[u8], ends: impl Fn(&u8) -> bool) -> usize {
    bytes[1..].iter().position(ends).map_or(bytes.len(), |at| 1 + at)
}

/// The length of the text at the front, with its quotation marks; `None` where the last one is missing.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let mut end = 1;
    loop {
        end += memchr::memchr2(b'"', b'\\', bytes.get(end..)?)?;
        if bytes[end] == b'"' {
            return Some(end + 1);
        }
        end += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert_eq!(outline.as_deref().map(|outline| str::from_utf8(outline).expect("text")), outlined, "{sent}");
            if let Some(outline) = outline {
                assert_eq!(body(&outline, &of, Some(NUMBER)).as_deref(), Some(sent.as_bytes()));
                assert!(!of.is_empty() && body(&outline, &Attributes::default(), None).is_none(), "not without them");
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
            let of = attributes(&[("name", "a long text".into()), ("n", Value::Int(123_456_789))]);
            let (sent, id) = (pieces.concat(), id.then_some(NUMBER));
            prop_assert_eq!(Tokens(&sent).map(|token| match token { Token::Text(t) | Token::Value(t) | Token::Other(t) => t }).collect::<Vec<_>>().concat(), sent.clone());
            if let Some(outline) = outline(&sent, &of, id) {
                prop_assert_eq!(body(&outline, &of, id), Some(sent));
            }
        }
    }
}
