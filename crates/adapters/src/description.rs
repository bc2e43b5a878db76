//! What an adapter says about itself, as data: forms, validation, `GET /api/v1/adapters` and the docs come from it.

use model::Window;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Stores that refuse old points get the points of long windows with a time this close to the window's end (design.md 2).
const AGED_BEFORE_END_SECS: u64 = 1_800;

/// One adapter: what it is for and what a user fills in.
#[derive(Debug, Serialize)]
pub struct Description {
    /// The word for it in `"adapter": ...`.
    pub name: &'static str,
    /// The name people know the store by.
    pub title: &'static str,
    /// Who opens the connection.
    pub direction: Direction,
    /// One sentence: what arrives in the store.
    pub summary: &'static str,
    /// The adapter's own fields, in the order in which a form shows them.
    pub fields: &'static [Field],
    /// Whether the store takes a point of any age. Where not, the points of a long window carry a time near its end.
    pub takes_old_points: bool,
    /// Seconds after which the store refuses a point; `None` where no such limit is known.
    pub max_age_secs: Option<u64>,
}

impl Description {
    /// Whether the store reads from us.
    pub fn is_pull(&self) -> bool {
        self.direction == Direction::Pull
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The time that a window's points carry in the store, in Unix seconds: the start of the window. Where the store refuses old
    /// points it is never long before the end, or those of a window of an hour would be too old before they exist.
    pub fn time_secs(&self, window: Window) -> u64 {
        if self.takes_old_points {
            return window.start_secs();
        }
        window.start_secs().max(window.end_secs().saturating_sub(AGED_BEFORE_END_SECS))
    }

    /// The settings with every field under its own name, where they have one under another name that users know it by.
    pub fn canonical<'a>(&self, given: &'a Map<String, Value>) -> Cow<'a, Map<String, Value>> {
        let mut fields = Cow::Borrowed(given);
        for field in self.fields.iter().filter(|field| !given.contains_key(field.name)) {
            if let Some((alias, value)) = field.aliases.iter().find_map(|alias| given.get_key_value(*alias)) {
                let fields = fields.to_mut();
                fields.remove(alias);
                fields.insert(field.name.to_owned(), value.clone());
            }
        }
        fields
    }
}

/// Who opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// We send each window.
    Push,
    /// The store reads a page of the newest window.
    Pull,
}

/// One field a user fills in.
#[derive(Debug, Serialize)]
pub struct Field {
    /// Its key in the settings.
    pub name: &'static str,
    /// What may be in it.
    pub kind: Kind,
    /// Whether a store cannot do without.
    pub required: bool,
    /// What an empty field means.
    pub default: Option<Preset>,
    /// The words to choose from, for `Kind::Choice`.
    pub choices: &'static [&'static str],
    /// Whether the server makes it up, so that nobody may send it. A required one is kept with the store's settings and read from
    /// them; any other is only shown.
    pub generated: bool,
    /// What to fill in, in a sentence.
    pub help: &'static str,
    /// A value as it may be filled in; empty where there is nothing to show.
    pub example: &'static str,
    /// Other names under which the vendor's users know it; taken in its place.
    pub aliases: &'static [&'static str],
}

impl Field {
    /// An optional field without default, choices or example; the base that adapters spell the others from.
    pub const fn optional(name: &'static str, kind: Kind, help: &'static str) -> Field {
        Field { name, kind, required: false, default: None, choices: &[], generated: false, help, example: "", aliases: &[] }
    }

    /// Whether its value is kept encrypted and never shown.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret | Kind::SecretUrl)
    }
}

/// What may be in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text on one line.
    Text,
    /// Text that is kept encrypted and never shown.
    Secret,
    /// An `http` or `https` URL without user name, password and fragment.
    Url,
    /// A URL that is itself a key: kept encrypted and never shown.
    #[serde(rename = "secret_url")]
    SecretUrl,
    /// Certificates as PEM text, over several lines.
    Certificates,
    /// A host name or address, without scheme and port.
    Host,
    /// A TCP port.
    Port,
    /// True or false.
    Bool,
    /// One of the field's choices.
    Choice,
    /// A positive whole number.
    Integer,
}

/// What an empty field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// A text or choice.
    Text(&'static str),
    /// A whole number or port.
    Integer(u64),
    /// True or false.
    Flag(bool),
}

impl Serialize for Preset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Preset::Text(text) => serializer.serialize_str(text),
            Preset::Integer(number) => serializer.serialize_u64(*number),
            Preset::Flag(flag) => serializer.serialize_bool(*flag),
        }
    }
}
