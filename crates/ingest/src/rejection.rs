//! Why a submission was not taken: a status for the client, a closed word for the counters, a sentence for a person.

use model::Problem;
use std::fmt;

/// A refusal. The sentence names the field and the mend, and never repeats an attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status to answer with.
    pub status: u16,
    /// What to count it under.
    pub reason: Reason,
    /// What to tell the sender.
    pub problem: Problem,
}

impl Rejection {
    /// A refusal of `field`, which may hold a client's own name of any length and is made fit to be shown here.
    pub(crate) fn new(reason: Reason, field: &str, detail: impl Into<String>) -> Rejection {
        Rejection { status: reason.status(), reason, problem: Problem::new(shown(field), detail) }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused as {}: {}", self.reason.label(), self.problem)
    }
}

impl std::error::Error for Rejection {}

/// Longest field name in an answer, in bytes.
const FIELD_BYTES_MAX: usize = 300;

fn shown(field: &str) -> String {
    let field = &field[..field.floor_char_boundary(FIELD_BYTES_MAX)];
    field.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The causes of refusal; each is a value of the label `reason` in the server's own metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The report is not UTF-8 or not JSON.
    MalformedJson,
    /// The multipart body breaks its grammar.
    MalformedMultipart,
    /// The compressed body is damaged, cut short or followed by something else.
    MalformedEncoding,
    /// What was sent as a dump is none.
    MalformedDump,
    /// A field of the report has a type or value that cannot be kept.
    WrongValue,
    /// An attribute or attachment has no usable name.
    WrongName,
    /// There is neither a report nor a dump in the submission, or more than one.
    NotOneReport,
    /// Nested deeper than the limit.
    TooDeep,
    /// More attributes than the limit.
    TooManyAttributes,
    /// More parts than the limit.
    TooManyParts,
    /// Report and form, or the whole submission, are larger than the limit.
    TooLarge,
    /// One attribute's value is larger than the limit.
    ValueTooLarge,
    /// A dump or attachment is larger than the limit.
    AttachmentTooLarge,
    /// Inflates further than any honest report.
    InflatesTooFar,
    /// A Content-Encoding that is not taken.
    UnsupportedEncoding,
    /// A `format` that is not taken.
    UnsupportedFormat,
}

impl Reason {
    /// Every reason, so that counters can start at 0.
    pub const ALL: [Reason; 16] = {
        use Reason::*;
        [
            MalformedJson,
            MalformedMultipart,
            MalformedEncoding,
            MalformedDump,
            WrongValue,
            WrongName,
            NotOneReport,
            TooDeep,
            TooManyAttributes,
            TooManyParts,
            TooLarge,
            ValueTooLarge,
            AttachmentTooLarge,
            InflatesTooFar,
            UnsupportedEncoding,
            UnsupportedFormat,
        ]
    };

    /// The word for it in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Reason::MalformedJson => "malformed_json",
            Reason::MalformedMultipart => "malformed_multipart",
            Reason::MalformedEncoding => "malformed_encoding",
            Reason::MalformedDump => "malformed_dump",
            Reason::WrongValue => "wrong_value",
            Reason::WrongName => "wrong_name",
            Reason::NotOneReport => "not_one_report",
            Reason::TooDeep => "too_deep",
            Reason::TooManyAttributes => "too_many_attributes",
            Reason::TooManyParts => "too_many_parts",
            Reason::TooLarge => "too_large",
            Reason::ValueTooLarge => "value_too_large",
            Reason::AttachmentTooLarge => "attachment_too_large",
            Reason::InflatesTooFar => "inflates_too_far",
            Reason::UnsupportedEncoding => "unsupported_encoding",
            Reason::UnsupportedFormat => "unsupported_format",
        }
    }

    /// The HTTP status for it: 413 for sizes, 415 for what is not spoken here, else 400.
    pub const fn status(self) -> u16 {
        match self {
            Reason::TooLarge | Reason::ValueTooLarge | Reason::AttachmentTooLarge | Reason::InflatesTooFar => 413,
            Reason::UnsupportedEncoding | Reason::UnsupportedFormat => 415,
            _ => 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_label_of_its_own_and_a_refusing_status() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| matches!(reason.status(), 400 | 413 | 415)));
    }

    #[test]
    fn a_clients_name_is_shown_short_and_without_control_characters() {
        let rejection = Rejection::new(Reason::WrongName, &format!("a\r\nb{}", "é".repeat(1_000)), "the name is long");
        assert!(rejection.problem.field.starts_with("a\u{fffd}\u{fffd}b") && rejection.problem.field.len() <= 304);
        assert_eq!(Rejection::new(Reason::TooDeep, "report", "x").to_string(), "refused as too_deep: report: x");
    }
}
