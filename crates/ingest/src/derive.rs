//! What the server adds to the attributes before a report is numbered and stamped: fingerprint, callstack, and the report's
//! own fields under the names of Backtrace's stock columns.

use crate::report::Body;
use crate::stack::{Stack, frame_text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::{Attributes, ReportId, Value};
use sha2::{Digest, Sha256};

/// The fingerprint of a report that has nothing to group it by.
const NO_FINGERPRINT: [u8; 32] = [0; 32];

/// Adds the derived attributes. They replace what a client sent under the same name, where the report has them at all:
/// a dump's form may well say `timestamp` or `classifiers` itself.
pub(crate) fn complete(attributes: &mut Attributes, body: Body<'_>, grouping: Grouping<'_>, size_bytes: usize) {
    let fingerprint = grouping.fingerprint(&body, attributes);
    attributes.reserve(DERIVED);
    attributes.set("fingerprint", Value::Text(hex(&fingerprint)));
    attributes.set("object.size", Value::from(size_bytes as u64));
    for (name, value) in
        [("timestamp", body.timestamp), ("classifiers", body.classifiers), ("lang.name", body.lang), ("lang.version", body.lang_version)]
    {
        if let Some(value) = value {
            attributes.set(name, value);
        }
    }
    // Most SDKs repeat these two as attributes; for the others this gives one name that finds every SDK.
    for (name, value) in [("backtrace.agent", body.agent), ("backtrace.version", body.agent_version)] {
        if let Some(value) = value.filter(|_| attributes.get(name).is_none()) {
            attributes.set(name, value);
        }
    }
    for (name, frames) in [
        ("callstack", &body.stack.frames),
        ("callstack.functions", &body.stack.functions),
        ("callstack.files", &body.stack.files),
        ("callstack.modules", &body.stack.modules),
    ] {
        if !frames.is_empty() {
            attributes.set(name, Value::Text(frame_text(frames)));
        }
    }
    // `guid` comes as 32 digits or with dashes, and must count as one user either way.
    if let Some(id) = attributes.get("guid").filter(|guid| guid.is_text()).and_then(|guid| ReportId::read(&guid.written())) {
        attributes.set("guid", Value::Text(id.to_string()));
    }
}

/// About how many attributes that adds.
const DERIVED: usize = 12;

fn hex(fingerprint: &[u8; 32]) -> String {
    let mut digits = [0; 64];
    hex::encode_to_slice(fingerprint, &mut digits).expect("two digits a byte");
    std::str::from_utf8(&digits).expect("digits").to_owned()
}

/// The client's say in the grouping of its report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grouping<'a> {
    /// `_mod_fingerprint`.
    pub(crate) fingerprint: Option<&'a str>,
    /// `_mod_factor`.
    pub(crate) factor: Option<&'a str>,
}

impl Grouping<'_> {
    /// The client's own fingerprint (`_mod_fingerprint`, then the report's `fingerprint`), else the SHA-256 of
    /// - the written frames joined by newlines,
    /// - without frames, and where one of them is there: NUL, then classifiers, `error.type` and `error.message` joined by NUL,
    /// - and in either case NUL and `_mod_factor`, where it is given,
    ///
    /// or zeros where there is none of all that.
    fn fingerprint(self, body: &Body<'_>, attributes: &Attributes) -> [u8; 32] {
        let own = self.fingerprint.filter(|text| !text.is_empty()).map(override_of);
        if let Some(fingerprint) = own.or_else(|| own_of(body.fingerprint.as_ref())) {
            return fingerprint;
        }
        let mut hashed = hashed_text(&body.stack, body.classifiers.as_ref(), attributes);
        if let Some(factor) = self.factor.filter(|factor| !factor.is_empty()) {
            hashed.push('\0');
            hashed.push_str(factor);
        }
        if hashed.is_empty() { NO_FINGERPRINT } else { Sha256::digest(hashed).into() }
    }
}

fn hashed_text(stack: &Stack<'_>, classifiers: Option<&Value>, attributes: &Attributes) -> String {
    if !stack.frames.is_empty() {
        return stack.frames.join("\n");
    }
    let told = [classifiers.or_else(|| attributes.get("classifiers")), attributes.get("error.type"), attributes.get("error.message")];
    if told.iter().all(Option::is_none) {
        return String::new();
    }
    told.iter().fold(String::new(), |hashed, value| hashed + "\0" + value.map(|value| value.written()).as_deref().unwrap_or_default())
}

/// `_mod_fingerprint` should be 64 hex digits; other text still names a group and is hashed to one.
fn override_of(text: &str) -> [u8; 32] {
    digits(text).unwrap_or_else(|| Sha256::digest(text).into())
}

/// The report's `fingerprint`: base64 of 32 bytes, or 64 hex digits. Anything else is passed over.
fn own_of(value: Option<&Value>) -> Option<[u8; 32]> {
    let text = value?.written();
    digits(&text).or_else(|| BASE64.decode(text.as_bytes()).ok()?.try_into().ok())
}

fn digits(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

/// The id by which a repeat is known: a UUID of whatever version; any other text identifies as well, through its SHA-256.
/// The nil UUID and no text at all identify nothing.
pub(crate) fn report_id(text: &str) -> Option<ReportId> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let id = ReportId::read(text).unwrap_or_else(|| {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(text)[..16]);
        ReportId(id)
    });
    (id.0 != [0; 16]).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body<'a>(frames: &[&'a str]) -> Body<'a> {
        let frames = frames.iter().map(|&frame| frame.into()).collect();
        Body { stack: Stack { frames, ..Stack::default() }, ..Body::default() }
    }

    fn fingerprint(grouping: Grouping<'_>, body: &Body, attributes: &[(&str, &str)]) -> String {
        let attributes = Attributes::from_pairs(attributes.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))));
        hex::encode(grouping.fingerprint(body, &attributes))
    }

    fn sha256(text: &str) -> String {
        hex::encode(Sha256::digest(text))
    }

    #[test]
    fn frames_are_hashed_else_what_the_error_says_else_nothing() {
        let none = Grouping::default();
        let error = [("error.type", "Exception"), ("error.message", "no such level")];
        assert_eq!(fingerprint(none, &body(&["loadLevel", "start"]), &error), sha256("loadLevel\nstart"));
        assert_eq!(fingerprint(none, &body(&[]), &error), sha256("\0\0Exception\0no such level"));
        let classified = Body { classifiers: Some(Value::from("TypeError")), ..Body::default() };
        assert_eq!(fingerprint(none, &classified, &error), sha256("\0TypeError\0Exception\0no such level"));
        assert_eq!(fingerprint(none, &body(&[]), &[("guid", "g")]), "0".repeat(64));
    }

    #[test]
    fn the_clients_grouping_wins() {
        let (digits, other) = ("AB".repeat(32), "cd".repeat(32));
        let base64 = Body { fingerprint: Some(Value::from(BASE64.encode([0xcd; 32]))), ..body(&["main"]) };
        let factored = |factor| Grouping { factor: Some(factor), ..Grouping::default() };
        let modified = |text| Grouping { fingerprint: Some(text), ..Grouping::default() };
        for (grouping, body, expected) in [
            (modified(digits.as_str()), &base64, digits.to_lowercase()),
            (modified("my group"), &base64, sha256("my group")),
            (modified(""), &base64, other.clone()),
            (Grouping::default(), &base64, other.clone()),
            (factored("x"), &base64, other.clone()),
            (Grouping::default(), &Body { fingerprint: Some(Value::from("short")), ..body(&["main"]) }, sha256("main")),
            (factored("x"), &body(&["main"]), sha256("main\0x")),
            (factored(""), &body(&["main"]), sha256("main")),
            (factored("x"), &body(&[]), sha256("\0x")),
        ] {
            assert_eq!(fingerprint(grouping, body, &[]), expected, "{grouping:?}");
        }
    }

    #[test]
    fn ids_of_any_form_identify_and_empty_ones_do_not() {
        let dashed = report_id("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01");
        assert_eq!(dashed, ReportId::read("7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a01"));
        assert_eq!(report_id("7D7C1F5E5A0B4E0C9F0E2F6B1C1D0A01"), dashed);
        for nothing in ["", " ", "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000"] {
            assert_eq!(report_id(nothing), None, "{nothing:?}");
        }
        let other = report_id("crash-17");
        assert!(other.is_some() && other == report_id("crash-17") && other != report_id("crash-18"));
    }

    #[test]
    fn one_user_has_one_guid() {
        for (sent, kept) in [
            ("5eed5eed5eed5eed5eed5eed5eed5eed", "5eed5eed-5eed-5eed-5eed-5eed5eed5eed"),
            ("5EED5EED-5EED-5EED-5EED-5EED5EED5EED", "5eed5eed-5eed-5eed-5eed-5eed5eed5eed"),
            ("demo-host", "demo-host"),
        ] {
            let mut attributes = Attributes::from_pairs([("guid".to_owned(), Value::from(sent))]);
            complete(&mut attributes, Body::default(), Grouping::default(), 1);
            assert_eq!(attributes.get("guid"), Some(&Value::from(kept)));
        }
    }
}
