//! What the server hands over, and what it gets back. The path, the token and the project stay with the server.

use crate::{Reason, Rejection};
use model::NewReport;

/// One submission: a body without Content-Encoding, and what was said around it.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// What a body that is not multipart is: the last path piece of the URL, or the parameter `format`.
    pub format: Format,
    /// The Content-Type header. It only tells multipart from the rest; clients label JSON as anything.
    pub content_type: Option<&'a str>,
    /// The decoded query parameters in order, those reserved by the protocol included.
    pub query: &'a [(String, String)],
    /// The inflated body, no longer than [`crate::Limits::total_bytes`].
    pub body: &'a [u8],
}

impl<'a> Submission<'a> {
    /// The report that this submission adds a file to (the text of `object`), when it is such a submission. Only both
    /// parameters together make it one: crash handlers append parameters of their own to any submission URL.
    pub fn late_object(&self) -> Option<&'a str> {
        parameter(self.query, "attachment_name")?;
        parameter(self.query, "object")
    }
}

/// What a body is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A report as JSON.
    Json,
    /// A minidump.
    Minidump,
    /// A report of PLCrashReporter, kept as a dump.
    PlCrash,
    /// A snapshot of Backtrace's own tracer, kept as a dump.
    Btt,
}

impl Format {
    /// Reads the word in the path or in `format=`. Debug symbols and source maps are refused: nothing here could use them.
    pub fn read(word: &str) -> Result<Format, Rejection> {
        match word {
            "json" => Ok(Format::Json),
            // One documentation example writes `dump`.
            "minidump" | "dump" => Ok(Format::Minidump),
            "plcrash" => Ok(Format::PlCrash),
            "btt" => Ok(Format::Btt),
            "symbols" | "sourcemap" | "proguard" => Err(Rejection::new(
                Reason::UnsupportedFormat,
                "format",
                "debug symbols and source maps are not taken here; reports are (json, minidump, plcrash, btt)",
            )),
            _ => Err(Rejection::new(Reason::UnsupportedFormat, "format", "must be one of json, minidump, plcrash, btt")),
        }
    }

    /// The word for it, which is also the classifier of a dump that brings none.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Minidump => "minidump",
            Format::PlCrash => "plcrash",
            Format::Btt => "btt",
        }
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The report, complete but for number and stamp.
    pub report: NewReport,
    /// What the client asked for beside storing it.
    pub options: Options,
}

/// Wishes of the client that are not part of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `_mod_sync` was given, with whatever value: answer with object number and fingerprint.
    pub sync: bool,
}

impl Options {
    /// Reads the wishes from the query parameters; they come with any kind of submission.
    pub fn from_query(query: &[(String, String)]) -> Options {
        Options { sync: parameter(query, "_mod_sync").is_some() }
    }
}

/// The value of a query parameter; the last one when it is repeated.
pub(crate) fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().rev().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
}
