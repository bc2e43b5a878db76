//! What people declare of a project's attributes: type, format, description, whether an attribute is personal or never negative.
//!
//! A declaration changes no report and no value: an attribute keeps what was sent. It is a plain row, not a revision, and counts at
//! once. `app.version`, `application.version` and `release` are one attribute (`model::aliases`) and have one declaration.

use crate::config::Snapshot;
use crate::edit::{Now, expect_revision};
use crate::{Catalog, CatalogError};
use model::{Problem, ProjectId, Query, aliases};
use rusqlite::{OptionalExtension, Row, params};
use std::fmt;
use std::str::FromStr;

/// Most bytes of an attribute's name, as for submissions.
const NAME_BYTES: usize = 256;
/// Most bytes of a description.
const DESCRIPTION_BYTES: usize = 1_000;

/// Makes an enum whose variants have one word each, for people, the API and the database.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal: $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every one, in the order of the documentation.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<$name, String> {
                $name::ALL.iter().copied().find(|one| one.name() == word).ok_or_else(|| {
                    let words: Vec<&str> = $name::ALL.iter().map(|one| one.name()).collect();
                    format!("{word:?} is not {}; there are {}", $kind, words.join(", "))
                })
            }
        }
    };
}

words!(
    /// What an attribute's values are meant to be. The names are Backtrace's (backtrace-api 4) but for the last two.
    AttributeType, "a type":
    /// Text.
    Dictionary = "dictionary",
    /// 0 to 2^8 - 1.
    Uint8 = "uint8",
    /// 0 to 2^16 - 1.
    Uint16 = "uint16",
    /// 0 to 2^32 - 1.
    Uint32 = "uint32",
    /// 0 to 2^64 - 1.
    Uint64 = "uint64",
    /// 0 to 2^128 - 1.
    Uint128 = "uint128",
    /// True or false.
    Bitmap = "bitmap",
    /// A UUID.
    Uuid = "uuid",
    /// A whole number with a sign.
    Int64 = "int64",
    /// A number with a fraction.
    Float64 = "float64",
);

words!(
    /// How a value is shown to people (backtrace-api 4); no value is changed by it.
    Format, "a format":
    /// As it is.
    None = "none",
    /// A size in bytes.
    Bytes = "bytes",
    /// A size in units of 1,000 bytes.
    Kilobytes = "kilobytes",
    /// A size in millions of bytes.
    Megabytes = "megabytes",
    /// A size in thousand millions of bytes.
    Gigabytes = "gigabytes",
    /// A span of time.
    Nanoseconds = "nanoseconds",
    /// A span of time.
    Milliseconds = "milliseconds",
    /// A span of time.
    Seconds = "seconds",
    /// Seconds since 1970.
    UnixTimestamp = "unix_timestamp",
    /// Milliseconds since 1970.
    JsTimestamp = "js_timestamp",
    /// Seconds since 1980-01-06.
    GpsTimestamp = "gps_timestamp",
    /// Hexadecimal.
    MemoryAddress = "memory_address",
    /// `{"frame": [...]}`.
    Callstack = "callstack",
    /// Words set apart by blanks.
    Labels = "labels",
    /// A hash in hexadecimal.
    Sha256 = "sha256",
    /// A UUID with dashes.
    Uuid = "uuid",
    /// A machine's name.
    Hostname = "hostname",
    /// A dotted quad.
    Ipv4 = "ipv4",
    /// An IPv6 address.
    Ipv6 = "ipv6",
    /// A commit of a version control system.
    Commit = "commit",
    /// A semantic version.
    Semver = "semver",
);

impl AttributeType {
    const fn is_unsigned(self) -> bool {
        matches!(
            self,
            AttributeType::Uint8 | AttributeType::Uint16 | AttributeType::Uint32 | AttributeType::Uint64 | AttributeType::Uint128
        )
    }

    /// Whether its values can be added up.
    pub const fn is_number(self) -> bool {
        self.is_unsigned() || matches!(self, AttributeType::Int64 | AttributeType::Float64)
    }
}

impl Format {
    /// Whether values of a type can be shown so: the table of backtrace-api 4. It has no signed and no fractional numbers, which
    /// are shown like others but for addresses, and names no type for what is text by its nature.
    pub fn suits(self, kind: AttributeType) -> bool {
        match self {
            Format::None => true,
            Format::Bytes
            | Format::Kilobytes
            | Format::Megabytes
            | Format::Gigabytes
            | Format::Nanoseconds
            | Format::Milliseconds
            | Format::Seconds
            | Format::UnixTimestamp
            | Format::JsTimestamp
            | Format::GpsTimestamp => kind.is_number(),
            Format::MemoryAddress => kind.is_unsigned(),
            Format::Ipv4 => kind == AttributeType::Uint32,
            Format::Ipv6 | Format::Uuid => matches!(kind, AttributeType::Dictionary | AttributeType::Uint128 | AttributeType::Uuid),
            Format::Callstack | Format::Labels | Format::Sha256 | Format::Hostname | Format::Commit | Format::Semver => {
                kind == AttributeType::Dictionary
            }
        }
    }
}

/// What is said of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// What its values are meant to be; `None` when nobody has said.
    pub kind: Option<AttributeType>,
    /// How its values are shown.
    pub format: Format,
    /// For people.
    pub description: String,
    /// It may be counted with `unique` but never becomes a label.
    pub personal: bool,
    /// Its values are never negative, so a `sum` of it is additive (design.md 2).
    pub non_negative: bool,
}

/// A project's declaration of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeSetting {
    /// Whose it is.
    pub project: ProjectId,
    /// The attribute, by the first of its names.
    pub attribute: String,
    /// Counts the edits, from 1.
    pub revision: u32,
    /// What is said.
    pub declared: Declared,
}

impl Declared {
    /// Every fault of a declaration for `attribute`, by field.
    pub fn problems(&self, attribute: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if attribute.is_empty() || attribute.len() > NAME_BYTES || attribute.chars().any(char::is_control) {
            problems.push(Problem::new("attribute", format!("an attribute's name has 1 to {NAME_BYTES} bytes and no control characters")));
        }
        match self.kind {
            Some(kind) if !self.format.suits(kind) => {
                let suited: Vec<&str> =
                    AttributeType::ALL.iter().filter(|kind| self.format.suits(**kind)).map(|kind| kind.name()).collect();
                problems.push(Problem::new("format", format!("{} does not suit {kind}; it suits {}", self.format, suited.join(", "))));
            }
            None if self.format != Format::None => {
                problems.push(Problem::new("format", format!("{} needs a type that it suits", self.format)));
            }
            _ => {}
        }
        if self.description.len() > DESCRIPTION_BYTES {
            problems.push(Problem::new("description", format!("has at most {DESCRIPTION_BYTES} bytes")));
        }
        if let Some(kind) = self.kind.filter(|kind| self.non_negative && !kind.is_number()) {
            problems.push(Problem::new("non_negative", format!("is for numbers, and {kind} is none")));
        }
        problems
    }
}

/// The name under which an attribute is declared.
fn first_name(attribute: &str) -> &str {
    aliases(attribute).first().copied().unwrap_or(attribute)
}

/// Whether a value sent under one name may be read under the other.
fn share_values(a: &str, b: &str) -> bool {
    let is_of_b = |name: &str| name == b || aliases(b).contains(&name);
    is_of_b(a) || aliases(a).iter().any(|name| is_of_b(name))
}

/// The attributes that become labels of a query's series: what it groups by, and what that is computed from.
fn labels(query: &Query) -> impl Iterator<Item = &str> {
    query.group.iter().map(|name| query.derived.iter().find(|one| one.name == *name).map_or(name.as_str(), |one| one.source.as_str()))
}

impl Snapshot {
    /// What is declared of an attribute, under any of its names.
    pub fn attribute_setting(&self, project: ProjectId, attribute: &str) -> Option<&AttributeSetting> {
        let name = first_name(attribute);
        self.attribute_settings.iter().find(|setting| setting.project == project && setting.attribute == name)
    }

    /// The first attribute that a query would make a label of although it is personal.
    pub fn personal_label<'a>(&'a self, project: ProjectId, query: &Query) -> Option<&'a str> {
        let mut personal = self.attribute_settings.iter().filter(|setting| setting.project == project && setting.declared.personal);
        let found = personal.find(|setting| labels(query).any(|label| share_values(label, &setting.attribute)));
        found.map(|setting| setting.attribute.as_str())
    }

    /// A live metric, as set/name, that makes labels of an attribute.
    fn labelled_by(&self, project: ProjectId, attribute: &str) -> Option<String> {
        let mut live = self.metrics.iter().filter(|metric| metric.project == project && metric.deleted.is_none());
        let found = live.find(|metric| labels(&metric.newest().query).any(|label| share_values(label, attribute)));
        found.map(|metric| format!("{}/{}", metric.set, metric.name))
    }
}

impl Catalog {
    /// Declares an attribute, with a checked declaration. Saving what is there changes nothing. `expected` is the revision the
    /// editor had seen, 0 for none. Returns the newest revision.
    pub fn put_attribute_setting(
        &self,
        project: ProjectId,
        attribute: &str,
        declared: &Declared,
        expected: Option<u32>,
        actor: &str,
        now: Now<'_>,
    ) -> Result<u32, CatalogError> {
        let attribute = first_name(attribute);
        self.change(actor, now, |change| {
            change.audit(Some(project), "put attribute setting", attribute);
            // The lock is held, so this is the configuration that the change is made to.
            let before = self.snapshot.borrow().clone();
            let found = before.attribute_setting(project, attribute);
            let revision = found.map_or(0, |setting| setting.revision);
            expect_revision(expected, revision)?;
            if found.is_some_and(|setting| setting.declared == *declared) {
                return Ok(revision);
            }
            if declared.personal
                && let Some(metric) = before.labelled_by(project, attribute)
            {
                return Err(CatalogError::Grouped { attribute: attribute.to_owned(), metric });
            }
            change.transaction.execute(
                "INSERT INTO attribute_setting (project, attribute, revision, type, format, description, personal, non_negative)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT (project, attribute) DO UPDATE SET revision = excluded.revision, type = excluded.type,
                   format = excluded.format, description = excluded.description, personal = excluded.personal,
                   non_negative = excluded.non_negative",
                params![
                    project.0,
                    attribute,
                    revision + 1,
                    declared.kind.map(AttributeType::name),
                    declared.format.name(),
                    declared.description,
                    declared.personal,
                    declared.non_negative
                ],
            )?;
            Ok(revision + 1)
        })
    }

    /// Takes a declaration back.
    pub fn delete_attribute_setting(
        &self,
        project: ProjectId,
        attribute: &str,
        expected: Option<u32>,
        actor: &str,
        now: Now<'_>,
    ) -> Result<(), CatalogError> {
        let attribute = first_name(attribute);
        self.change(actor, now, |change| {
            change.audit(Some(project), "delete attribute setting", attribute);
            let sql = "SELECT revision FROM attribute_setting WHERE project = ?1 AND attribute = ?2";
            let revision: Option<u32> = change.transaction.query_row(sql, params![project.0, attribute], |row| row.get(0)).optional()?;
            let revision = revision.ok_or_else(|| CatalogError::Missing(format!("setting of the attribute {attribute:?}")))?;
            expect_revision(expected, revision)?;
            let sql = "DELETE FROM attribute_setting WHERE project = ?1 AND attribute = ?2";
            change.transaction.execute(sql, params![project.0, attribute])?;
            Ok(())
        })
    }
}

/// Reads type, format, description, personal and non_negative from five columns.
pub(crate) fn read(row: &Row<'_>, at: usize) -> Result<Declared, CatalogError> {
    let kind: Option<String> = row.get(at)?;
    let kind = kind.map(|word| word.parse()).transpose().map_err(|_| CatalogError::Damaged("attribute type"))?;
    let format = row.get::<_, String>(at + 1)?.parse().map_err(|_| CatalogError::Damaged("attribute format"))?;
    Ok(Declared { kind, format, description: row.get(at + 2)?, personal: row.get(at + 3)?, non_negative: row.get(at + 4)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Derived, Function};

    const UINTS: [&str; 5] = ["uint8", "uint16", "uint32", "uint64", "uint128"];
    const NUMBERS: [&str; 7] = ["uint8", "uint16", "uint32", "uint64", "uint128", "int64", "float64"];

    #[test]
    fn a_format_suits_the_types_of_the_table() {
        let all: Vec<&str> = AttributeType::ALL.iter().map(|kind| kind.name()).collect();
        let table: [(&str, &[&str]); 21] = [
            ("none", &all),
            ("bytes", &NUMBERS),
            ("kilobytes", &NUMBERS),
            ("megabytes", &NUMBERS),
            ("gigabytes", &NUMBERS),
            ("nanoseconds", &NUMBERS),
            ("milliseconds", &NUMBERS),
            ("seconds", &NUMBERS),
            ("unix_timestamp", &NUMBERS),
            ("js_timestamp", &NUMBERS),
            ("gps_timestamp", &NUMBERS),
            ("memory_address", &UINTS),
            ("callstack", &["dictionary"]),
            ("labels", &["dictionary"]),
            ("sha256", &["dictionary"]),
            ("uuid", &["dictionary", "uint128", "uuid"]),
            ("hostname", &["dictionary"]),
            ("ipv4", &["uint32"]),
            ("ipv6", &["dictionary", "uint128", "uuid"]),
            ("commit", &["dictionary"]),
            ("semver", &["dictionary"]),
        ];
        assert_eq!(table.map(|(format, _)| format), *Format::ALL.iter().map(|format| format.name()).collect::<Vec<_>>());
        for (format, suited) in table {
            let format: Format = format.parse().expect("a format");
            for kind in AttributeType::ALL {
                assert_eq!(format.suits(*kind), suited.contains(&kind.name()), "{format} {kind}");
            }
        }
    }

    #[test]
    fn words_are_read_back_and_others_are_refused_with_a_list() {
        for kind in AttributeType::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(*format));
        }
        let refused = "String".parse::<AttributeType>().expect_err("no type");
        assert!(refused.contains("\"String\" is not a type") && refused.contains("dictionary, uint8"), "{refused}");
    }

    fn declared(kind: Option<AttributeType>, format: Format) -> Declared {
        Declared { kind, format, description: String::new(), personal: false, non_negative: false }
    }

    #[test]
    fn every_fault_is_named_by_its_field() {
        let fields = |declared: &Declared, attribute: &str| {
            declared.problems(attribute).into_iter().map(|problem| problem.field).collect::<Vec<_>>()
        };
        assert!(fields(&declared(None, Format::None), "a").is_empty());
        assert_eq!(fields(&declared(None, Format::Bytes), "a"), ["format"]);
        assert_eq!(fields(&declared(Some(AttributeType::Uint64), Format::Ipv4), "a"), ["format"]);
        let long = Declared { description: "x".repeat(1_001), non_negative: true, ..declared(Some(AttributeType::Uuid), Format::Bytes) };
        assert_eq!(fields(&long, ""), ["attribute", "format", "description", "non_negative"]);
        for (kind, legal) in [(None, true), (Some(AttributeType::Float64), true), (Some(AttributeType::Dictionary), false)] {
            let declared = Declared { non_negative: true, ..declared(kind, Format::None) };
            assert_eq!(fields(&declared, "a").is_empty(), legal, "{kind:?}");
        }
        assert_eq!([&"x".repeat(256), &"x".repeat(257), "a\n"].map(|name| fields(&declared(None, Format::None), name).len()), [0, 1, 1]);
    }

    #[test]
    fn labels_that_could_show_a_personal_value_are_found() {
        let setting = |attribute: &str| AttributeSetting {
            project: ProjectId(1),
            attribute: attribute.into(),
            revision: 1,
            declared: Declared { personal: true, ..declared(None, Format::None) },
        };
        let mut other = setting("plain");
        other.declared.personal = false;
        let settings = vec![setting("user.email"), setting("application.version"), other];
        let snapshot = Snapshot { attribute_settings: settings, ..Snapshot::default() };
        let function = Function::Quantize { size: 10, offset: 0 };
        let derived = vec![
            Derived { name: "d".into(), source: "user.email".into(), function },
            // Within its query it hides the attribute of its name.
            Derived { name: "user.email".into(), source: "plain".into(), function },
        ];
        let found = |project: u32, group: &str, derived: &[Derived]| {
            let query = Query { group: vec!["x".into(), group.into()], derived: derived.to_vec(), ..Query::default() };
            snapshot.personal_label(ProjectId(project), &query).map(str::to_owned)
        };
        for (group, expected) in [
            ("user.email", Some("user.email")),
            ("release", Some("application.version")),
            ("app.version", Some("application.version")),
            // A report's `version` is read where it has no other.
            ("version", Some("application.version")),
            ("plain", None),
            ("d", None),
        ] {
            assert_eq!(found(1, group, &[]).as_deref(), expected, "{group}");
        }
        assert_eq!(found(1, "d", &derived).as_deref(), Some("user.email"));
        assert_eq!(found(1, "user.email", &derived), None);
        assert_eq!(found(2, "user.email", &[]), None, "another project");
    }
}
