//! What a hostile, broken or merely odd client could send: each has one defined outcome, and none may panic.

use crate::{fixture, form, parse, parse_typed};
use ingest::{Format, Limits, Reason, inflate};
use model::{Attributes, ReportId, Value};
use proptest::prelude::*;
use std::sync::OnceLock;

fn attributes(json: &str) -> Attributes {
    parse(Format::Json, &[], json.as_bytes()).expect(json).report.attributes
}

fn refused(json: &str) -> (u16, Reason, String) {
    let rejection = parse(Format::Json, &[], json.as_bytes()).expect_err("hostile");
    (rejection.status, rejection.reason, rejection.problem.field)
}

#[test]
fn a_body_is_what_its_format_says_but_a_minidump_is_known_by_its_first_bytes() {
    let json: &[u8] = b"{\"uuid\":\"7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a01\"}";
    for (format, content_type, body, expected) in [
        (Format::Json, "application/octet-stream", json, Ok(None)),
        (Format::Json, "application/x-www-form-urlencoded", json, Ok(None)),
        (Format::Json, "application/json", b"MDMP\x93\xa7\0\0", Ok(Some("minidump"))),
        (Format::Minidump, "application/json", b"MDMP", Ok(Some("minidump"))),
        (Format::PlCrash, "application/octet-stream", b"plcrash\x01", Ok(Some("plcrash"))),
        (Format::Btt, "application/octet-stream", b"\0\0\0\0", Ok(Some("btt"))),
        (Format::Minidump, "application/octet-stream", json, Err(Reason::MalformedDump)),
        (Format::Minidump, "application/octet-stream", b"PMDM", Err(Reason::MalformedDump)),
        (Format::Minidump, "application/octet-stream", b"", Err(Reason::MalformedDump)),
        (Format::Json, "application/json", b"", Err(Reason::MalformedJson)),
        (Format::Json, "application/json", b"\x1f\x8b\x08\0", Err(Reason::MalformedJson)),
    ] {
        let classifiers = parse_typed(format, &[], Some(content_type), body)
            .map(|parsed| parsed.report.attributes.get("classifiers").map(|value| value.written().into_owned()))
            .map_err(|rejection| rejection.reason);
        assert_eq!(classifiers.as_ref().map(Option::as_deref).map_err(|reason| *reason), expected, "{format:?} {content_type} {body:?}");
    }
}

#[test]
fn formats_that_are_no_reports_are_refused_with_415() {
    for word in ["symbols", "sourcemap", "proguard", "", "JSON", "exe"] {
        assert_eq!(Format::read(word).expect_err(word).status, 415);
    }
    assert_eq!(Format::read("dump").ok(), Some(Format::Minidump));
}

#[test]
fn a_form_needs_a_report_or_a_dump() {
    let (content_type, body) = form(&[("name=guid", "g"), ("name=attachment_a", "x")]);
    let rejection = parse_typed(Format::Minidump, &[], Some(content_type), &body).expect_err("no report");
    assert_eq!((rejection.reason, rejection.problem.field.as_str()), (Reason::NotOneReport, "upload_file"));
    // The uuid of a dump may come in the form.
    let (content_type, body) = form(&[("name=uuid", "7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a01"), ("name=upload_file_minidump", "MDMP")]);
    let parsed = parse_typed(Format::Minidump, &[], Some(content_type), &body).expect("a dump");
    assert_eq!(parsed.report.id, ReportId::read("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01"));
    assert!(parsed.report.raw.is_empty());
}

#[test]
fn what_a_client_says_of_itself_is_not_replaced_by_what_can_be_guessed() {
    let (content_type, body) = form(&[("name=classifiers", "oom"), ("name=upload_file_minidump", "MDMP")]);
    let parsed = parse_typed(Format::Minidump, &[], Some(content_type), &body).expect("a dump");
    assert_eq!(parsed.report.attributes.get("classifiers"), Some(&Value::from("oom")));
    let attributes = attributes(r#"{"agent":"go","agentVersion":"1","attributes":{"backtrace.agent":"own"}}"#);
    assert_eq!(attributes.get("backtrace.agent"), Some(&Value::from("own")));
    assert_eq!(attributes.get("backtrace.version"), Some(&Value::from("1")));
}

#[test]
fn the_report_wins_over_the_form_and_the_form_over_the_query() {
    let json = r#"{"attributes":{"a":"report","null":null},"timestamp":7}"#;
    let (content_type, body) =
        form(&[("name=upload_file", json), ("name=a", "form"), ("name=b", "form"), ("name=null", "form"), ("name=timestamp", "8")]);
    let query = [("a", "query"), ("b", "query"), ("c", "query"), ("token", "secret"), ("format", "json"), ("_mod_sync", "")];
    let parsed = parse_typed(Format::Json, &query, Some(content_type), &body).expect("a report");
    let attributes = parsed.report.attributes;
    for (name, value) in [("a", "report"), ("b", "form"), ("c", "query"), ("timestamp", "7")] {
        assert_eq!(attributes.get(name).map(|value| value.written().into_owned()).as_deref(), Some(value), "{name}");
    }
    assert_eq!(attributes.get("null"), None, "the report says that there is no value");
    assert!(parsed.options.sync && attributes.get("token").is_none() && attributes.get("_mod_sync").is_none());
}

#[test]
fn nobody_sets_what_only_the_server_says() {
    let owned = ["_tx", "_rxid", "_deleted", "_compressed", "timestamp.received", "report.delay", "fingerprint;original"];
    let json: String = owned.iter().map(|name| format!("\"{name}\":99,\"{name}\":98,")).collect();
    let json = format!(r#"{{"attributes":{{{json}"object.size":1,"fingerprint":"mine","a":1}}}}"#);
    let mut parts: Vec<_> = owned.iter().map(|name| (format!("name=\"{name}\""), "97")).collect();
    parts.push(("name=upload_file".to_owned(), &json));
    let parts: Vec<_> = parts.iter().map(|(parameters, content)| (parameters.as_str(), *content)).collect();
    let (content_type, body) = form(&parts);
    let query: Vec<_> = owned.iter().map(|name| (*name, "96")).collect();
    let attributes = parse_typed(Format::Json, &query, Some(content_type), &body).expect("a report").report.attributes;
    assert_eq!(attributes.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "fingerprint", "object.size"]);
    assert_eq!(attributes.get("fingerprint"), Some(&Value::from("0".repeat(64))));
    assert_eq!(attributes.get("object.size"), Some(&Value::from(json.len() as u64)));
}

#[test]
fn modifiers_work_from_query_form_and_report_and_are_never_attributes() {
    let own = "ab".repeat(32);
    let stack = r#""threads":{"m":{"fault":true,"stack":[{"funcName":"f"}]}}"#;
    let plain = attributes(&format!("{{{stack}}}"));
    for (query, json) in [
        (vec![("_mod_fingerprint", own.as_str()), ("_mod_factor", "x")], format!("{{{stack}}}")),
        (vec![], format!(r#"{{{stack},"attributes":{{"_mod_fingerprint":"{own}","_mod_duplicate":3}}}}"#)),
        (vec![("_mod_fingerprint", "other")], format!(r#"{{{stack},"attributes":{{"_mod_fingerprint":"{own}"}}}}"#)),
    ] {
        let parsed = parse(Format::Json, &query, json.as_bytes()).expect("a report");
        assert_eq!(parsed.report.attributes.get("fingerprint"), Some(&Value::from(own.as_str())));
        assert!(parsed.report.attributes.iter().all(|(name, _)| !name.starts_with("_mod_")));
    }
    let (content_type, body) = form(&[("name=_mod_factor", "x"), ("name=upload_file", &format!("{{{stack}}}"))]);
    let factored = parse_typed(Format::Json, &[], Some(content_type), &body).expect("a report").report.attributes;
    assert_ne!(factored.get("fingerprint"), plain.get("fingerprint"));
    assert_eq!(factored.get("callstack"), plain.get("callstack"));
}

#[test]
fn limits_hold_and_name_their_field() {
    let keys: String = (0..1_000_000).map(|n| format!("\"k{n}\":1,")).collect();
    let deep = "{\"annotations\":".to_owned() + &"[".repeat(100_000);
    for (json, expected) in [
        (format!("{{\"attributes\":{{{keys}\"z\":1}}}}"), (400, Reason::TooManyAttributes, "attributes.k1000")),
        (format!("{{\"attributes\":{{\"{}\":1}}}}", "k".repeat(10 << 20)), (400, Reason::WrongName, "attributes.k")),
        (format!("{{\"attributes\":{{\"{}\":1e400}}}}", "k".repeat(10 << 20)), (400, Reason::WrongValue, "attributes.k")),
        (format!("{{\"attributes\":{{\"a\":\"{}\"}}}}", "x".repeat(32_769)), (413, Reason::ValueTooLarge, "attributes.a")),
        (format!("{{\"annotations\":\"{}\"}}", "x".repeat(16 << 20)), (413, Reason::TooLarge, "body")),
        (deep, (400, Reason::TooDeep, "report")),
    ] {
        let (status, reason, field) = refused(&json);
        assert_eq!((status, reason), (expected.0, expected.1), "{field}");
        assert!(field.starts_with(expected.2) && field.len() <= 310, "{field}");
    }
    let whole = vec![b' '; Limits::DEFAULT.total_bytes + 1];
    assert_eq!(parse(Format::Minidump, &[], &whole).expect_err("too long").reason, Reason::TooLarge);
    let dump = ["MDMP", &"x".repeat(Limits::DEFAULT.attachment_bytes)].concat();
    assert_eq!(parse(Format::Minidump, &[], dump.as_bytes()).expect_err("too long").reason, Reason::AttachmentTooLarge);
    assert_eq!(attributes(&format!("{{\"attributes\":{{\"a\":\"{}\"}}}}", "x".repeat(32_768))).len(), 3);
}

#[test]
fn names_that_differ_at_all_are_different_attributes() {
    let json = r#"{"attributes":{"a":1,"A":2,"\u00e9":3,"e\u0301":4,"__proto__":5,"constructor":6,"a b":7,"a;b=c,d":8}}"#;
    assert_eq!(attributes(json).iter().filter(|(_, value)| matches!(value, Value::Int(1..=8))).count(), 8);
}

#[test]
fn of_a_key_that_comes_twice_the_last_one_wins() {
    let json = r#"{"uuid":"7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a01","attributes":{"lost":1},"lang":"a",
        "uuid":"7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a02","attributes":{"a":1,"a":"two"},"lang":"b"}"#;
    let report = parse(Format::Json, &[], json.as_bytes()).expect("a report").report;
    assert_eq!(report.id, ReportId::read("7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a02"));
    assert_eq!(report.attributes.get("a"), Some(&Value::from("two")));
    assert_eq!(report.attributes.get("lang.name"), Some(&Value::from("b")));
    assert_eq!(report.attributes.get("lost"), None);
}

#[test]
fn the_last_word_may_be_that_there_is_no_value() {
    let json = r#"{"attributes":{"a":1,"a":null,"b":1,"b":{}}}"#;
    let attributes = attributes(json);
    assert_eq!((attributes.get("a"), attributes.get("b")), (None, None));
}

#[test]
fn a_byte_order_mark_is_not_kept() {
    let report = parse(Format::Json, &[], b"\xef\xbb\xbf{\"lang\":\"c\"}").expect("a report").report;
    assert_eq!(report.raw, b"{\"lang\":\"c\"}");
    assert_eq!(parse(Format::Json, &[], b"\xff\xfe{\0}\0").expect_err("UTF-16").reason, Reason::MalformedJson);
}

#[test]
fn timestamps_are_kept_as_they_were_sent() {
    for (sent, kept) in [
        ("0", Value::Int(0)),
        ("-1", Value::Int(-1)),
        ("1764000000.5", Value::Float(1_764_000_000.5)),
        ("1e18", Value::Float(1e18)),
        ("9223372036854775808", Value::UInt(1 << 63)),
        ("\"2016-12-31T23:59:60Z\"", Value::from("2016-12-31T23:59:60Z")),
        ("\"1764000000\"", Value::from("1764000000")),
    ] {
        assert_eq!(attributes(&format!("{{\"timestamp\":{sent}}}")).get("timestamp"), Some(&kept), "{sent}");
    }
    assert_eq!(attributes("{\"timestamp\":null}").get("timestamp"), None);
}

#[test]
fn a_uuid_of_any_form_identifies_its_report() {
    let id = |uuid: &str| parse(Format::Json, &[], format!("{{\"uuid\":{uuid}}}").as_bytes()).expect(uuid).report.id;
    let dashed = ReportId::read("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01");
    for (uuid, expected) in [
        ("\"7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01\"", dashed),
        ("\"7D7C1F5E5A0B4E0C9F0E2F6B1C1D0A01\"", dashed),
        ("\"\"", None),
        ("\"00000000-0000-0000-0000-000000000000\"", None),
        ("null", None),
        ("[1]", None),
    ] {
        assert_eq!(id(uuid), expected, "{uuid}");
    }
    assert!(id("\"not hex\"").is_some() && id("\"not hex\"") != id("\"not hex either\""));
    assert_eq!(id("17"), id("\"17\""));
}

#[test]
fn multipart_faults_are_told() {
    let (content_type, whole) = form(&[("name=upload_file", "{}"), ("name=a", "1")]);
    for cut in [0, 10, whole.len() / 2, whole.len() - 5] {
        let rejection = parse_typed(Format::Json, &[], Some(content_type), &whole[..cut]).expect_err("cut");
        assert_eq!((rejection.status, rejection.reason), (400, Reason::MalformedMultipart), "{cut}");
    }
    let many: Vec<_> = std::iter::repeat_n(("name=a", "1"), 1_001).collect();
    let (_, body) = form(&many);
    let rejection = parse_typed(Format::Json, &[], Some(content_type), &body).expect_err("too many");
    assert_eq!((rejection.reason, rejection.problem.field.as_str()), (Reason::TooManyParts, "body.part[1000]"));
    let nested = form(&[("name=upload_file", "{}"), ("name=inner", "--c\r\nContent-Disposition: form-data; name=_tx\r\n\r\n9\r\n--c--")]);
    let report = parse_typed(Format::Json, &[], Some(nested.0), &nested.1).expect("a form inside a form is just text").report;
    assert!(report.attributes.get("_tx").is_none() && report.attributes.get("inner").is_some());
}

/// What holds for every report that is taken, whoever sent it.
fn check(report: &model::NewReport) {
    let limits = Limits::DEFAULT;
    for (name, value) in report.attributes.iter() {
        assert!(!name.is_empty() && name.len() <= limits.name_bytes && !name.chars().any(char::is_control), "{name:?}");
        assert!(!name.starts_with("_mod_") && !["_tx", "_rxid", "timestamp.received", "report.delay"].contains(&name), "{name:?}");
        assert!(value.written().len() <= limits.value_bytes, "{name:?}");
        assert!(!matches!(value, Value::Float(n) if !n.is_finite()), "{name:?}");
    }
    let fingerprint = report.attributes.get("fingerprint").expect("always there").written();
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{fingerprint}");
    assert!(!report.raw.is_empty() || !report.attachments.is_empty());
}

fn recordings() -> &'static [(fixture::Recorded, Vec<u8>)] {
    static RECORDINGS: OnceLock<Vec<(fixture::Recorded, Vec<u8>)>> = OnceLock::new();
    RECORDINGS.get_or_init(|| {
        let plain = |recorded: fixture::Recorded| {
            let body = inflate(&recorded.content_encoding, &recorded.body, &Limits::DEFAULT).expect("a whole body").into_owned();
            (recorded, body)
        };
        fixture::all().into_iter().map(plain).collect()
    })
}

fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(vec![Format::Json, Format::Minidump, Format::PlCrash, Format::Btt])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(format in any_format(), multipart: bool, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let content_type = multipart.then_some("multipart/form-data; boundary=b");
        if let Ok(parsed) = parse_typed(format, &[], content_type, &body) {
            check(&parsed.report);
        }
    }

    #[test]
    fn json_like_text_never_panics(body in r#"(\{"(attributes|threads|uuid|body|classifiers|sourceCode)":|\{"[a-z]":|[\[\]{},:]|"|\\|\\ud83d|\\u00e9|[0-9.eE+-]{1,5}|null|true|"a"|"m"|\PC){0,30}"#) {
        if let Ok(parsed) = parse(Format::Json, &[], body.as_bytes()) {
            check(&parsed.report);
        }
    }

    #[test]
    fn damaged_requests_of_real_clients_never_panic(which in any::<prop::sample::Index>(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6)) {
        let (recorded, body) = which.get(recordings());
        let mut body = body.clone();
        for (place, byte, edit) in edits {
            if body.is_empty() {
                break;
            }
            let at = place.index(body.len());
            match edit {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                2 => drop(body.remove(at)),
                _ => body.truncate(at),
            }
        }
        if let Ok(parsed) = ingest::parse(&recorded.submission(&body), &Limits::DEFAULT) {
            check(&parsed.report);
        }
    }

    #[test]
    fn attributes_come_out_as_they_went_in(sent in prop::collection::btree_map("[a-z\u{e9}\"\\\\]{1,8}", value(), 0..20)) {
        let json = serde_json::json!({ "attributes": sent }).to_string();
        let attributes = attributes(&json);
        for (name, value) in &sent {
            prop_assert_eq!(attributes.get(name), Some(value), "{}", name);
        }
        prop_assert_eq!(attributes.len(), sent.len() + 2);
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (i64::MAX as u64 + 1..=u64::MAX).prop_map(Value::UInt),
        (prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL).prop_map(Value::Float),
        "\\PC{0,20}|[\0-\u{1f}\u{10000}-\u{10ffff}]{0,5}".prop_map(Value::Text),
    ]
}
