//! Reads a user's fields against an adapter's description: every fault is found, each named by its field and with the mend.

use crate::description::{Description, Field, Preset};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Problem, Secret};
use serde_json::{Map, Value};
use url::Url;

/// Longest text in a field, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Longest secret and URL, in bytes; keys of known vendors are below 1 KiB.
const LONG_BYTES_MAX: usize = 4_096;
/// Longest list of certificates, in bytes: some tens of them.
const PEM_BYTES_MAX: usize = 64 << 10;
/// Longest host name (RFC 1035 2.3.4), in bytes.
const HOST_BYTES_MAX: usize = 253;

/// The fields of one store while they are read.
pub(crate) struct Fields<'a> {
    description: &'static Description,
    given: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// Starts reading: refuses what the adapter does not know, and misses what it cannot do without.
    pub(crate) fn new(description: &'static Description, given: &'a Map<String, Value>) -> Fields<'a> {
        let mut fields = Fields { description, given, problems: Vec::new() };
        for name in given.keys() {
            match description.field(name) {
                None => fields.fault(name, format!("is not a field of {}; it has {}", description.name, field_names(description))),
                Some(field) if field.generated && !field.required => fields.fault(name, "is made by the server; leave it out"),
                Some(_) => {}
            }
        }
        for field in description.fields {
            if field.required && fields.value(field.name).is_none() {
                fields.fault(field.name, format!("is missing: {}", field.help));
            }
        }
        fields
    }

    /// Notes a fault in a field.
    pub(crate) fn fault(&mut self, field: &str, detail: impl Into<String>) {
        self.problems.push(Problem::new(field, detail));
    }

    /// The store, or every fault found. `store` is asked for only when there is none.
    pub(crate) fn finish<T>(self, store: Option<T>) -> Result<T, Vec<Problem>> {
        match store {
            Some(store) if self.problems.is_empty() => Ok(store),
            _ => Err(self.problems),
        }
    }

    /// A text, or `None` when the field is empty or faulty.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.read(name, |value| {
            let text = value.as_str().ok_or("must be text")?;
            let wrong = text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control);
            if wrong { Err(format!("must be one line of at most {TEXT_BYTES_MAX} bytes")) } else { Ok(text.to_owned()) }
        })
    }

    /// A secret. It goes into a header, so it must be printable ASCII; the fault does not repeat it.
    pub(crate) fn secret(&mut self, name: &'static str) -> Option<Secret> {
        self.read(name, |value| {
            let text = value.as_str().ok_or("must be text")?;
            let wrong = text.len() > LONG_BYTES_MAX || !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if wrong {
                Err(format!("must be printable ASCII of at most {LONG_BYTES_MAX} bytes, without line ends"))
            } else {
                Ok(Secret::new(text))
            }
        })
    }

    /// A host name or address.
    pub(crate) fn host(&mut self, name: &'static str) -> Option<String> {
        self.read(name, |value| {
            let text = value.as_str().ok_or("must be text")?.trim();
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            if text.contains("://") || text.contains(['/', '@', '?', '#', '\\']) {
                return Err("must be a host name or address only, without scheme and path".to_owned());
            }
            if bare.matches(':').count() == 1 {
                return Err("must not hold a port; put it into its own field".to_owned());
            }
            let wrong = bare.is_empty() || bare.len() > HOST_BYTES_MAX || bare.chars().any(|c| c.is_whitespace() || c.is_control());
            if wrong { Err(format!("must be a host name or address of at most {HOST_BYTES_MAX} bytes")) } else { Ok(text.to_owned()) }
        })
    }

    /// A URL that is safe to send to. Credentials in it are refused, because URLs are shown and logged.
    pub(crate) fn url(&mut self, name: &'static str) -> Option<Url> {
        self.read(name, |value| {
            let text = value.as_str().ok_or("must be text")?.trim();
            if text.len() > LONG_BYTES_MAX || text.chars().any(|c| c.is_control() || c == ' ') {
                return Err(format!("must be at most {LONG_BYTES_MAX} bytes without spaces and line ends"));
            }
            let url = Url::parse(text).map_err(|error| format!("cannot be read as a URL: {error}"))?;
            if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
                return Err("must begin with https:// or http:// and name a host".to_owned());
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err("must not hold a user name or password; put them into their own fields".to_owned());
            }
            if url.fragment().is_some() {
                return Err("must not hold a fragment; leave out # and what follows".to_owned());
            }
            Ok(url)
        })
    }

    /// Certificates in PEM form. A private key among them is refused: this field is not kept secret.
    pub(crate) fn certificates(&mut self, name: &'static str) -> Option<String> {
        self.read(name, |value| {
            let text = value.as_str().ok_or("must be text")?.trim();
            if text.len() > PEM_BYTES_MAX {
                return Err(format!("must be at most {PEM_BYTES_MAX} bytes"));
            }
            if text.contains("PRIVATE KEY") {
                return Err("holds a private key; give certificates only".to_owned());
            }
            let blocks: Vec<&str> = text.split("-----BEGIN CERTIFICATE-----").collect();
            let sound = |block: &&str| {
                let base64: Option<String> =
                    block.split_once("-----END CERTIFICATE-----").map(|(inside, _)| inside.split_whitespace().collect());
                // DER begins with a SEQUENCE (X.690 8.9).
                base64.is_some_and(|base64| STANDARD.decode(base64).is_ok_and(|der| der.first() == Some(&0x30)))
            };
            if blocks.len() > 1 && blocks[1..].iter().all(sound) {
                Ok(text.to_owned())
            } else {
                Err("must hold certificates in PEM form: -----BEGIN CERTIFICATE----- and so on".to_owned())
            }
        })
    }

    /// A port; the description has the default.
    pub(crate) fn port(&mut self, name: &'static str) -> Option<u16> {
        self.number(name, 1..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    /// A whole number from 1 to 2^31 - 1.
    pub(crate) fn integer(&mut self, name: &'static str) -> Option<u64> {
        self.number(name, 1..=i32::MAX as u64)
    }

    /// True or false; the description has the default.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        let preset = matches!(self.field(name).default, Some(Preset::Flag(true)));
        self.read(name, |value| value.as_bool().ok_or("must be true or false".to_owned())).unwrap_or(preset)
    }

    /// One of the field's choices; the first one, where nothing or something wrong is given.
    pub(crate) fn choice(&mut self, name: &'static str) -> &'static str {
        let choices = self.field(name).choices;
        let chosen = self.read(name, |value| {
            let found = choices.iter().find(|choice| Some(**choice) == value.as_str());
            found.copied().ok_or_else(|| format!("must be one of {}", choices.join(", ")))
        });
        chosen.unwrap_or(choices[0])
    }

    fn number(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let preset = match self.field(name).default {
            Some(Preset::Integer(number)) => Some(number),
            _ => None,
        };
        let read = self.read(name, |value| {
            // Forms send numbers as text.
            let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
            number
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
        });
        read.or(preset)
    }

    fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&'a Value) -> Result<T, String>) -> Option<T> {
        let read = read(self.value(name)?);
        read.map_err(|detail| self.fault(name, detail)).ok()
    }

    /// The value, where the field is neither left out nor null nor empty: forms send empty texts for empty fields.
    fn value(&self, name: &str) -> Option<&'a Value> {
        self.given.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn field(&self, name: &'static str) -> &'static Field {
        self.description.field(name).expect("an adapter reads the fields of its own description")
    }
}

fn field_names(description: &Description) -> String {
    let own = description.fields.iter().filter(|field| !field.generated);
    own.map(|field| field.name).collect::<Vec<_>>().join(", ")
}
