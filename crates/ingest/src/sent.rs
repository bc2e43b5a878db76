//! The attributes as they were sent, from query, form and report, and the names that are not theirs to set.

use crate::{Limits, Reason, Rejection};
use model::{Attributes, Value};
use std::borrow::Cow;

/// Parameters of the submission protocol itself: never attributes when they come in the query (among them the token).
const RESERVED_PARAMETERS: [&str; 13] = [
    "format",
    "token",
    "universe",
    "project",
    "object",
    "attachment_name",
    "attachment_id",
    "attachment_inline",
    "resource",
    "sync",
    "tag",
    "symbolication_id",
    "kvs",
];

/// What only the server says about a report. A client's value of such a name is left out of the attributes; it stays in
/// the raw report. (`fingerprint` needs no place here: the derived one always replaces it.)
const SERVER_NAMES: [&str; 8] =
    ["_tx", "_rxid", "_deleted", "_compressed", "timestamp.received", "report.delay", "fingerprint;original", "object.size"];

/// Attributes and modifiers collected from the least to the most telling source: query, then form, then report. The later
/// one wins where two give the same name.
pub(crate) struct Sent<'a> {
    limits: &'a Limits,
    pairs: Vec<(Cow<'a, str>, Option<Value>)>,
    /// `_mod_fingerprint`: the client's own grouping.
    pub(crate) fingerprint: Option<String>,
    /// `_mod_factor`: text mixed into the computed grouping.
    pub(crate) factor: Option<String>,
}

impl<'a> Sent<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Sent<'a> {
        Sent { limits, pairs: Vec::new(), fingerprint: None, factor: None }
    }

    /// Takes the query parameters that are not the protocol's own; crash handlers append attributes to the URL.
    pub(crate) fn take_query(&mut self, query: &'a [(String, String)]) -> Result<(), Rejection> {
        for (name, value) in query {
            // `?&=` is noise of URL builders, not an attribute without a name.
            if !name.is_empty() && !RESERVED_PARAMETERS.contains(&name.as_str()) {
                self.take("", name.as_str(), Some(Value::Text(value.clone())))?;
            }
        }
        Ok(())
    }

    /// Takes one attribute; `origin` stands before its name in a rejection. No value is the last word too: the attribute is
    /// then missing.
    pub(crate) fn take(&mut self, origin: &str, name: impl Into<Cow<'a, str>>, value: Option<Value>) -> Result<(), Rejection> {
        let name = name.into();
        let field = || format!("{origin}{name}");
        check_name(&name, field, self.limits)?;
        if let Some(Value::Text(text)) = &value {
            check_size(text, field, self.limits)?;
        }
        match &*name {
            "_mod_fingerprint" => self.fingerprint = value.map(|value| value.written().into_owned()),
            "_mod_factor" => self.factor = value.map(|value| value.written().into_owned()),
            // Modifiers are wishes, not attributes, also the ones that are not known here.
            _ if name.starts_with("_mod_") || SERVER_NAMES.contains(&&*name) => {}
            // Repeats count, so that a million of one key cannot pile up before the last one wins.
            _ if self.pairs.len() == self.limits.attributes => {
                let detail = format!("a report may have at most {} attributes, and this is one more", self.limits.attributes);
                return Err(Rejection::new(Reason::TooManyAttributes, &field(), detail));
            }
            _ => self.pairs.push((name, value)),
        }
        Ok(())
    }

    /// Each name once, with its last value.
    pub(crate) fn into_attributes(mut self) -> Attributes {
        if self.pairs.iter().all(|(_, value)| value.is_some()) {
            return Attributes::from_pairs(self.pairs.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        self.pairs.sort_by(|a, b| a.0.cmp(&b.0));
        self.pairs.dedup_by(|later, kept| {
            let repeated = later.0 == kept.0;
            if repeated {
                std::mem::swap(later, kept);
            }
            repeated
        });
        Attributes::from_pairs(self.pairs.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }
}

/// Refuses a name that is empty, too long or holds control characters (which no query could spell).
pub(crate) fn check_name(name: &str, field: impl Fn() -> String, limits: &Limits) -> Result<(), Rejection> {
    let fault = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > limits.name_bytes {
        format!("the name has {} bytes and may have {}", name.len(), limits.name_bytes)
    } else if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && name.chars().any(char::is_control) {
        "the name holds control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Rejection::new(Reason::WrongName, &field(), fault))
}

/// Refuses a text that is longer than a value may be: it is never cut.
pub(crate) fn check_size(text: &str, field: impl Fn() -> String, limits: &Limits) -> Result<(), Rejection> {
    if text.len() <= limits.value_bytes {
        return Ok(());
    }
    let detail = format!("the value has {} bytes and may have {}; send long texts as attachments", text.len(), limits.value_bytes);
    Err(Rejection::new(Reason::ValueTooLarge, &field(), detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &[(&str, &str)]) -> Vec<String> {
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut sent = Sent::new(&Limits::DEFAULT);
        sent.take_query(&query).expect("within the limits");
        sent.into_attributes().iter().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn the_protocols_own_parameters_are_no_attributes() {
        let mut query: Vec<_> = RESERVED_PARAMETERS.iter().map(|name| (*name, "x")).collect();
        query.extend([("", ""), ("kvs", "a:b"), ("_mod_sync", "1"), ("_mod_log", "1"), ("guid", "g"), ("version", "1")]);
        assert_eq!(names(&query), ["guid", "version"]);
    }

    #[test]
    fn names_of_the_server_are_left_out() {
        let query: Vec<_> = SERVER_NAMES.iter().map(|name| (*name, "9")).chain([("_txt", "1")]).collect();
        assert_eq!(names(&query), ["_txt"]);
    }

    #[test]
    fn strange_names_are_kept_and_unusable_ones_refused() {
        let long = "n".repeat(256);
        let longer = "n".repeat(257);
        for (name, taken) in [
            ("__proto__", true),
            ("constructor", true),
            ("$where", true),
            ("a.b", true),
            ("a b", true),
            ("a,b=c;d", true),
            ("🦀", true),
            ("\u{202e}rtl", true),
            ("zero\u{200b}width", true),
            (&long, true),
            (&longer, false),
            ("", false),
            ("nul\0", false),
            ("a\nb", false),
            ("\u{85}", false),
        ] {
            let answer = Sent::new(&Limits::DEFAULT).take("attributes.", name, Some(Value::Int(1)));
            assert_eq!(answer.as_ref().err().map(|rejection| rejection.reason), (!taken).then_some(Reason::WrongName), "{name:?}");
        }
    }

    #[test]
    fn a_value_of_the_limit_is_kept_and_a_longer_one_refused_with_its_name() {
        let mut sent = Sent::new(&Limits::DEFAULT);
        sent.take("attributes.", "a", Some(Value::Text("x".repeat(32 << 10)))).expect("32 KiB");
        let refused = sent.take("attributes.", "a", Some(Value::Text("x".repeat((32 << 10) + 1)))).expect_err("one more");
        assert_eq!((refused.status, refused.reason, refused.problem.field.as_str()), (413, Reason::ValueTooLarge, "attributes.a"));
    }

    #[test]
    fn repeats_of_one_name_count_towards_the_limit() {
        let mut sent = Sent::new(&Limits::DEFAULT);
        for n in 0..1_000 {
            sent.take("attributes.", "a", Some(Value::Int(n))).expect("the limit");
        }
        assert_eq!(sent.take("attributes.", "a", Some(Value::Int(0))).expect_err("one more").reason, Reason::TooManyAttributes);
        assert_eq!(sent.into_attributes().get("a"), Some(&Value::Int(999)));
    }
}
