//! The JSON report of the SDKs: which of its fields count. Everything else in it is kept raw and never read.
//!
//! Lenient by design: a crash report is sent once, by a program that cannot mend it. Only what cannot be kept (not JSON,
//! beyond a limit, a number without a value) is refused; fields of odd types are passed over.

use crate::cursor::Cursor;
use crate::json::{each_member, scalar, string, text};
use crate::sent::{Sent, check_size};
use crate::stack::{Frame, Stack, main_frames};
use crate::{Limits, Rejection};
use model::Value;

/// What a JSON report says beside its attributes.
#[derive(Debug, Default)]
pub(crate) struct Body<'a> {
    pub(crate) uuid: Option<Value>,
    pub(crate) timestamp: Option<Value>,
    pub(crate) lang: Option<Value>,
    pub(crate) lang_version: Option<Value>,
    pub(crate) agent: Option<Value>,
    pub(crate) agent_version: Option<Value>,
    /// The classifiers, joined with single spaces.
    pub(crate) classifiers: Option<Value>,
    /// The report's own fingerprint, as it was sent.
    pub(crate) fingerprint: Option<Value>,
    pub(crate) stack: Stack<'a>,
}

/// The raw text of each field that counts; of a key that comes twice, the last.
#[derive(Debug, Default, PartialEq)]
struct Sections<'a> {
    uuid: Option<&'a str>,
    timestamp: Option<&'a str>,
    lang: Option<&'a str>,
    lang_version: Option<&'a str>,
    agent: Option<&'a str>,
    agent_version: Option<&'a str>,
    main_thread: Option<&'a str>,
    threads: Option<&'a str>,
    classifiers: Option<&'a str>,
    attributes: Option<&'a str>,
    source_code: Option<&'a str>,
    fingerprint: Option<&'a str>,
    body: Option<&'a str>,
    /// The frames that were read while the threads were passed, and which thread was then the main one.
    frames: Option<(&'a str, Vec<Frame<'a>>)>,
}

impl<'a> Body<'a> {
    /// Reads a report and hands its attributes to `sent`.
    pub(crate) fn read(bytes: &'a [u8], limits: &Limits, sent: &mut Sent<'a>) -> Result<Body<'a>, Rejection> {
        let mut sections = Sections::read(text(bytes, "report")?, "report", limits)?;
        if let Some(wrapped) = sections.wrapped() {
            sections = Sections::read(wrapped, "body", limits)?;
        }
        take_attributes(sections.attributes, limits, sent)?;
        let value = |raw: Option<&str>, field: &str| -> Result<Option<Value>, Rejection> {
            let value = scalar(raw.unwrap_or("null")).map_err(|fault| fault.of(field))?;
            if let Some(Value::Text(text)) = &value {
                check_size(text, || field.to_owned(), limits)?;
            }
            Ok(value)
        };
        Ok(Body {
            uuid: value(sections.uuid, "uuid")?,
            timestamp: value(sections.timestamp, "timestamp")?,
            lang: value(sections.lang, "lang")?,
            lang_version: value(sections.lang_version, "langVersion")?,
            agent: value(sections.agent, "agent")?,
            agent_version: value(sections.agent_version, "agentVersion")?,
            classifiers: classifiers(sections.classifiers, limits)?,
            fingerprint: value(sections.fingerprint, "fingerprint")?,
            stack: Stack::of(sections.frames(limits), sections.source_code, limits),
        })
    }
}

impl<'a> Sections<'a> {
    fn read(report: &'a str, field: &str, limits: &Limits) -> Result<Sections<'a>, Rejection> {
        Sections::walked(report, limits).map_or_else(|| Sections::parsed(report, field, limits), Ok)
    }

    /// One walk, if there is no fault.
    fn walked(report: &'a str, limits: &Limits) -> Option<Sections<'a>> {
        let mut sections = Sections::default();
        let mut cursor = Cursor::new(report, limits.depth);
        if cursor.peek() != Some(b'{') {
            return None;
        }
        cursor.object(|name, value| match (&*name, sections.main_thread) {
            // SDKs name the main thread first, so that its frames can be read in passing. Should threads come
            // again and again, their frames wait for the last ones: each reading looks at the name of the main thread, which may be long.
            ("threads", Some(main)) if sections.threads.is_none() => {
                let (frames, raw) = value.beside_raw(|threads| main_frames(threads, Some(main), limits));
                (sections.threads, sections.frames) = (Some(raw), Some((main, frames)));
            }
            (name, _) => {
                if let Some(section) = sections.section(name) {
                    *section = Some(value.raw());
                }
            }
        });
        cursor.ended().then_some(sections)
    }

    /// The same by the parser, which can tell a fault.
    fn parsed(report: &'a str, field: &str, limits: &Limits) -> Result<Sections<'a>, Rejection> {
        let mut sections = Sections::default();
        each_member(report, field, limits, |name, raw| {
            if let Some(section) = sections.section(&name) {
                *section = Some(raw);
            }
        })?;
        Ok(sections)
    }

    /// The place of a field that counts.
    fn section(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            "uuid" => &mut self.uuid,
            "timestamp" => &mut self.timestamp,
            "lang" => &mut self.lang,
            "langVersion" => &mut self.lang_version,
            "agent" => &mut self.agent,
            "agentVersion" => &mut self.agent_version,
            "mainThread" => &mut self.main_thread,
            "threads" => {
                self.frames = None;
                &mut self.threads
            }
            "classifiers" => &mut self.classifiers,
            "attributes" => &mut self.attributes,
            "sourceCode" => &mut self.source_code,
            "fingerprint" => &mut self.fingerprint,
            "body" => &mut self.body,
            _ => return None,
        })
    }

    /// The frames of the main thread.
    fn frames(&mut self, limits: &Limits) -> Vec<Frame<'a>> {
        match self.frames.take() {
            Some((main, frames)) if self.main_thread == Some(main) => frames,
            _ => main_frames(&mut Cursor::new(self.threads.unwrap_or("{}"), limits.depth), self.main_thread, limits),
        }
    }

    /// The report inside a `body` key: one documented example wraps it so. A report of its own with a stray `body` is not.
    fn wrapped(&self) -> Option<&'a str> {
        let bare = self.uuid.or(self.timestamp).or(self.attributes).or(self.threads).is_none();
        self.body.filter(|raw| bare && raw.starts_with('{'))
    }
}

/// Nested arrays and objects, which go leaves inside `attributes`, stay with the raw report and are not indexed: like
/// `null`, they are a missing attribute.
fn take_attributes<'a>(attributes: Option<&'a str>, limits: &Limits, sent: &mut Sent<'a>) -> Result<(), Rejection> {
    let mut taken = Ok(());
    Cursor::new(attributes.unwrap_or("{}"), limits.depth).object(|name, value| {
        if taken.is_ok() {
            let value = value.scalar().map_err(|fault| fault.of(&format!("attributes.{name}")));
            taken = value.and_then(|value| sent.take("attributes.", name, value));
        }
    });
    taken
}

/// The texts of the array joined with single spaces; a lone text stands for an array of one.
fn classifiers(raw: Option<&str>, limits: &Limits) -> Result<Option<Value>, Rejection> {
    let Some(raw) = raw else { return Ok(None) };
    let mut joined = String::new();
    Cursor::new(raw, limits.depth).array(|value| {
        if let Some(text) = value.string().filter(|text| !text.is_empty()) {
            joined.push_str(if joined.is_empty() { "" } else { " " });
            joined.push_str(&text);
        }
        true
    });
    if let Some(text) = string(raw) {
        joined.push_str(&text);
    }
    check_size(&joined, || "classifiers".to_owned(), limits)?;
    Ok((!joined.is_empty()).then_some(Value::Text(joined)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;
    use model::Attributes;
    use std::time::{Duration, Instant};

    fn read(json: &str) -> Result<(Body<'_>, Attributes), Rejection> {
        let mut sent = Sent::new(&Limits::DEFAULT);
        let body = Body::read(json.as_bytes(), &Limits::DEFAULT, &mut sent)?;
        Ok((body, sent.into_attributes()))
    }

    #[test]
    fn attributes_keep_their_types_and_nested_ones_stay_raw() {
        let (_, attributes) = read(
            r#"{"attributes":{"text":"x","int":7,"big":9223372036854775808,"real":0.25,"yes":true,"empty":"",
                "nothing":null,"nested":{"a":1},"list":[1],"twice":1,"twice":"two","_tx":99}}"#,
        )
        .expect("a report");
        let pairs: Vec<_> = attributes.iter().map(|(name, value)| (name, value.clone())).collect();
        assert_eq!(
            pairs,
            [
                ("big", Value::UInt(1 << 63)),
                ("empty", Value::from("")),
                ("int", Value::Int(7)),
                ("real", Value::Float(0.25)),
                ("text", Value::from("x")),
                ("twice", Value::from("two")),
                ("yes", Value::Bool(true)),
            ]
        );
    }

    #[test]
    fn odd_types_of_fields_never_cost_the_report() {
        for json in [
            "{}",
            r#"{"attributes":null,"threads":null,"classifiers":null,"uuid":null,"timestamp":null}"#,
            r#"{"attributes":[],"threads":[],"classifiers":{},"uuid":{},"timestamp":[],"mainThread":{},"lang":[]}"#,
            r#"{"attributes":"x","threads":7,"classifiers":[1,null,["a"]],"sourceCode":true,"annotations":{}}"#,
        ] {
            let (body, attributes) = read(json).expect(json);
            assert!(attributes.is_empty() && body.uuid.is_none() && body.classifiers.is_none(), "{json}");
        }
        assert_eq!(read(r#"{"classifiers":["segv","null","stop"]}"#).expect("one").0.classifiers, Some(Value::from("segv null stop")));
        assert_eq!(read(r#"{"classifiers":"segv"}"#).expect("one").0.classifiers, Some(Value::from("segv")));
    }

    #[test]
    fn a_wrapped_report_is_unwrapped_once() {
        let (body, attributes) = read(r#"{"body":{"uuid":"u","attributes":{"a":1}}}"#).expect("wrapped");
        assert_eq!((body.uuid, attributes.get("a")), (Some(Value::from("u")), Some(&Value::Int(1))));
        let (body, attributes) = read(r#"{"uuid":"outer","body":{"uuid":"u","attributes":{"a":1}}}"#).expect("a stray body");
        assert_eq!((body.uuid, attributes.get("a")), (Some(Value::from("outer")), None));
    }

    #[test]
    fn one_walk_reads_what_the_parser_reads() {
        let limits = &Limits::DEFAULT;
        let threads = [r#"{"a":{"stack":[{"funcName":"a"}]},"b":{"fault":true,"stack":[{"funcName":"b"}]}}"#, r#"{"a":{}}"#, "7"];
        let fields = |n: usize| match n % 6 {
            0 => r#""mainThread":"a""#.to_owned(),
            1 => r#""mainThread":"b""#.to_owned(),
            2 => r#""main\u0054hread":null"#.to_owned(),
            n => format!(r#""threads":{}"#, threads[n - 3]),
        };
        for n in 0..6usize.pow(3) {
            let report = format!("{{{},\"x\":1,{} , {}}}", fields(n), fields(n / 6), fields(n / 36));
            let mut walked = Sections::walked(&report, limits).expect("sound");
            let mut parsed = Sections::parsed(&report, "report", limits).expect("sound");
            assert_eq!(walked.frames(limits), parsed.frames(limits), "{report}");
            assert_eq!(walked, parsed, "{report}");
        }
    }

    #[test]
    fn threads_that_come_again_and_again_cost_no_more_than_their_bytes() {
        let report = format!(r#"{{"mainThread":"\u0061{}","threads":{{}}{}}}"#, "a".repeat(4 << 20), r#","threads":{}"#.repeat(300_000));
        let began = Instant::now();
        assert!(Sections::walked(&report, &Limits::DEFAULT).expect("sound").frames(&Limits::DEFAULT).is_empty());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn faults_name_their_field() {
        for (json, reason, field) in [
            (r#"{"attributes":{"level":1e400}}"#.to_owned(), Reason::WrongValue, "attributes.level"),
            (r#"{"timestamp":1e999}"#.to_owned(), Reason::WrongValue, "timestamp"),
            (format!(r#"{{"uuid":"{}"}}"#, "u".repeat(1 << 20)), Reason::ValueTooLarge, "uuid"),
            (format!(r#"{{"attributes":{{"log":"{}"}}}}"#, "x".repeat(40_000)), Reason::ValueTooLarge, "attributes.log"),
            (format!(r#"{{"classifiers":["{}"]}}"#, "x ".repeat(40_000)), Reason::ValueTooLarge, "classifiers"),
            (r#"{"attributes":{"":1}}"#.to_owned(), Reason::WrongName, "attributes."),
            (r#"{"attributes":"#.to_owned(), Reason::MalformedJson, "report"),
        ] {
            let refused = read(&json).expect_err(field);
            assert_eq!((refused.reason, refused.problem.field.as_str()), (reason, field), "{json:.60}");
        }
        let many: String = (0..1_001).map(|n| format!(r#""a{n}":1,"#)).collect();
        let refused = read(&format!(r#"{{"attributes":{{{many}"z":1}}}}"#)).expect_err("too many");
        assert_eq!((refused.reason, refused.problem.field.as_str()), (Reason::TooManyAttributes, "attributes.a1000"));
        // What is not indexed is not judged.
        read(r#"{"annotations":{"huge":1e400},"attributes":{}}"#).expect("kept raw");
    }
}
