//! Splits a `multipart/form-data` body (RFC 7578) into its parts; their contents are borrowed from the body.
//!
//! Written here rather than driven through an asynchronous parser: the body is already whole in memory, no part needs a
//! copy, and SDKs need tolerance in known places: nameless parts, disposition `file`, bare parameters, no Content-Type,
//! no line end after the last boundary. What a part means is decided by its label, in `form`.

use crate::{Limits, Reason, Rejection};
use percent_encoding::percent_decode_str;

/// One part, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) name: Option<String>,
    pub(crate) file_name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: &'a [u8],
}

/// Longest header block of one part, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// RFC 2046, 5.1.1: the longest boundary, in bytes.
const BOUNDARY_BYTES_MAX: usize = 70;

/// The boundary that a Content-Type names; `None` when the body is not `multipart/form-data`.
pub(crate) fn boundary(content_type: &str) -> Option<Result<String, Rejection>> {
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary").filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()));
    Some(boundary.ok_or_else(|| malformed("Content-Type", "multipart/form-data needs a boundary of 1 to 70 characters")))
}

/// Every part of the body, in order. What comes before the first boundary and after the last is skipped.
pub(crate) fn split<'a>(body: &'a [u8], boundary: &str, limits: &Limits) -> Result<Vec<Part<'a>>, Rejection> {
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let mut next = match past(body, &delimiter[2..]) {
        Some(next) => next,
        None => cut(body, &delimiter).ok_or_else(|| malformed("body", "the boundary of the Content-Type is nowhere in the body"))?.1,
    };
    let mut parts = Vec::new();
    while let Some(rest) = next {
        let field = format!("body.part[{}]", parts.len());
        if parts.len() == limits.parts {
            return Err(Rejection::new(Reason::TooManyParts, &field, format!("at most {} parts are taken", limits.parts)));
        }
        let (part, after) = cut(rest, &delimiter).ok_or_else(|| malformed(&field, "no boundary ends this part: the body was cut short"))?;
        parts.push(read_part(part).map_err(|detail| malformed(&field, detail))?);
        next = after;
    }
    Ok(parts)
}

/// What is before the next delimiter, and what is after it: `None` after the closing one.
fn cut<'a>(bytes: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|&byte| byte == b'\r')?;
        if let Some(next) = past(&bytes[from..], delimiter) {
            return Some((&bytes[..from], next));
        }
        from += 1;
    }
}

/// What is after the delimiter that `bytes` start with; a longer word that starts in the same way is not a delimiter.
fn past<'a>(bytes: &'a [u8], delimiter: &[u8]) -> Option<Option<&'a [u8]>> {
    let rest = bytes.strip_prefix(delimiter)?;
    if rest.starts_with(b"--") {
        return Some(None);
    }
    // RFC 2046, 5.1.1 lets blanks pad the line of a boundary.
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest[blanks..].strip_prefix(b"\r\n").map(Some)
}

fn read_part(part: &[u8]) -> Result<Part<'_>, &'static str> {
    let searched = &part[..part.len().min(HEADER_BYTES_MAX)];
    let end = searched.windows(4).position(|four| four == b"\r\n\r\n").ok_or("an empty line must follow at most 16 KiB of headers")?;
    // Names in other charsets are damaged, not refused: they are labels, and the content is untouched.
    let headers = String::from_utf8_lossy(&part[..end]);
    let (mut disposition, mut content_type) = (None, None);
    for line in headers.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or("every header is a name, a colon and a value")?;
        match name.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => disposition = Some(value),
            "content-type" => content_type = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    // The disposition's type does not matter: engines of some years ago wrote `file` for `form-data`.
    let (_, parameters) =
        disposition.and_then(|value| value.split_once(';')).ok_or("it needs a Content-Disposition with a name or filename")?;
    Ok(Part {
        name: parameter(parameters, "name"),
        file_name: parameter(parameters, "filename").or_else(|| extended_file_name(parameters)),
        content_type,
        bytes: &part[end + 4..],
    })
}

/// RFC 5987: `filename*=UTF-8''na%C3%AFve.txt`, which .NET sends beside or in place of `filename`.
fn extended_file_name(parameters: &str) -> Option<String> {
    let value = parameter(parameters, "filename*")?;
    let (_, encoded) = value.split_once('\'').and_then(|(_, rest)| rest.split_once('\''))?;
    Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned())
}

/// The value of a header's parameter, bare or quoted; the first when it is repeated.
fn parameter(mut text: &str, wanted: &str) -> Option<String> {
    loop {
        text = text.trim_start_matches([';', ' ', '\t']);
        let (name, rest) = text.split_once('=')?;
        let (value, rest) = value(rest.trim_start());
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        text = rest;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (bare, rest) = text.split_once(';').unwrap_or((text, ""));
        return (bare.trim().to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            // A backslash escapes a quote or itself; before anything else it belongs to a Windows path.
            '\\' => value.push(chars.next_if(|(_, next)| matches!(next, '"' | '\\')).map_or('\\', |(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn malformed(field: &str, detail: &str) -> Rejection {
    Rejection::new(Reason::MalformedMultipart, field, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Seen = (Option<String>, Option<String>, String);

    /// Name, file name and content of every part.
    fn seen(body: &str) -> Result<Vec<Seen>, Reason> {
        let parts = split(body.as_bytes(), "b", &Limits::DEFAULT).map_err(|rejection| rejection.reason)?;
        Ok(parts.into_iter().map(|part| (part.name, part.file_name, String::from_utf8_lossy(part.bytes).into_owned())).collect())
    }

    #[test]
    fn a_boundary_is_taken_from_the_content_type() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some(Some("abc"))),
            ("multipart/form-data;boundary=\"a b\"", Some(Some("a b"))),
            ("Multipart/Form-Data; charset=utf-8; Boundary=abc; x=y", Some(Some("abc"))),
            ("multipart/form-data", Some(None)),
            ("multipart/form-data; boundary=", Some(None)),
            ("multipart/form-data; boundary=\"\"", Some(None)),
            ("multipart/mixed; boundary=abc", None),
            ("application/json", None),
            ("", None),
        ] {
            let found = boundary(content_type).map(|boundary| boundary.ok());
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{content_type}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(1 << 20));
        assert_eq!(boundary(&long).expect("multipart").expect_err("too long").reason, Reason::MalformedMultipart);
    }

    #[test]
    fn dispositions_of_real_senders_are_read() {
        for (disposition, name, file_name) in [
            ("form-data; name=\"a\"", Some("a"), None),
            ("form-data; name=a; filename=b.json; filename*=utf-8''c.json", Some("a"), Some("b.json")),
            ("form-data; filename*=utf-8''na%C3%AFve.txt", None, Some("naïve.txt")),
            ("file; name=\"a\"; filename=\"b\"", Some("a"), Some("b")),
            ("form-data; filename=\"attachment_x\"", None, Some("attachment_x")),
            ("form-data;name=\"a;b=c\";FILENAME=\"d\"", Some("a;b=c"), Some("d")),
            (r#"form-data; name="say \"hi\" \\ C:\temp""#, Some(r#"say "hi" \ C:\temp"#), None),
            ("form-data; name=\"unclosed", Some("unclosed"), None),
        ] {
            let body = format!("--b\r\nContent-Disposition: {disposition}\r\n\r\n\r\n--b--");
            let parts = seen(&body).expect(disposition);
            assert_eq!(parts, [(name.map(str::to_owned), file_name.map(str::to_owned), String::new())], "{disposition}");
        }
    }

    #[test]
    fn framing_is_tolerant_where_senders_differ_and_strict_where_bytes_would_be_lost() {
        let a = (Some("a".to_owned()), None, "1".to_owned());
        const PART: &str = "Content-Disposition: form-data; name=a\r\n\r\n1";
        for (body, expected) in [
            (format!("--b\r\n{PART}\r\n--b--\r\n"), Ok(vec![a.clone()])),
            (format!("--b\r\n{PART}\r\n--b--"), Ok(vec![a.clone()])),
            (format!("preamble\r\n--b\r\n{PART}\r\n--b--\r\nepilogue --b"), Ok(vec![a.clone()])),
            (format!("\r\n--b \t\r\n{PART}\r\n--b--"), Ok(vec![a.clone()])),
            (format!("--b\r\n{PART}\r\n--b\r\n{PART}\r\n--b--"), Ok(vec![a.clone(), a.clone()])),
            (format!("--b\r\n{PART}\r\n--bc\r\n--b--"), Ok(vec![(a.0.clone(), None, "1\r\n--bc".to_owned())])),
            ("--b--".to_owned(), Ok(vec![])),
            (format!("--b\r\n{PART}\r\n--b"), Err(Reason::MalformedMultipart)),
            (format!("--b\r\n{PART}\r\n--b-"), Err(Reason::MalformedMultipart)),
            (format!("--b\r\n{PART}"), Err(Reason::MalformedMultipart)),
            (format!("--c\r\n{PART}\r\n--c--"), Err(Reason::MalformedMultipart)),
            ("--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--".to_owned(), Err(Reason::MalformedMultipart)),
            ("--b\r\nno colon\r\n\r\n1\r\n--b--".to_owned(), Err(Reason::MalformedMultipart)),
            (format!("--b\r\nX: {}\r\n{PART}\r\n--b--", "x".repeat(HEADER_BYTES_MAX)), Err(Reason::MalformedMultipart)),
            (String::new(), Err(Reason::MalformedMultipart)),
        ] {
            assert_eq!(seen(&body), expected, "{body:.80}");
        }
    }

    #[test]
    fn parts_are_counted_before_they_are_kept() {
        let many = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(100_000) + "--b--";
        assert_eq!(seen(&many), Err(Reason::TooManyParts));
    }

    proptest! {
        #[test]
        fn what_is_framed_is_split_the_same(contents in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'b'), any::<u8>()], 0..60), 0..6)) {
            // Content that holds the delimiter itself cannot be framed with it; senders choose another boundary.
            prop_assume!(contents.iter().all(|content| !content.starts_with(b"--b") && !content.windows(5).any(|five| five == b"\r\n--b")));
            let mut body = Vec::new();
            for (at, content) in contents.iter().enumerate() {
                body.extend(format!("--b\r\nContent-Disposition: form-data; name=\"{at}\"\r\n\r\n").bytes());
                body.extend(content);
                body.extend(b"\r\n");
            }
            body.extend(b"--b--\r\n");
            let parts = split(&body, "b", &Limits::DEFAULT).expect("well framed");
            prop_assert_eq!(parts.iter().map(|part| part.bytes).collect::<Vec<_>>(), contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert!(parts.iter().enumerate().all(|(at, part)| part.name.as_deref() == Some(at.to_string().as_str())));
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in "(\r\n|--b|--|[a-z;=\" \\\\]|Content-Disposition: |\\PC){0,60}") {
            let _ = split(body.as_bytes(), "b", &Limits::DEFAULT);
            let _ = boundary(&body);
        }
    }
}
