//! Columns: which attributes a query may name, of what type they are, how clients print them, what they may be asked for.

use crate::derived::{Derived, Function};
use crate::report::aliases;
use std::collections::BTreeMap;

/// What a column's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Bitmap,
    /// Whole numbers that fit so many bits; fractions and negative numbers are kept all the same.
    Uint(u8),
    /// Whole numbers with a sign.
    Int64,
    /// Any number.
    Float64,
    /// A UUID, or other text that identifies.
    Uuid,
    /// Text.
    Dictionary,
}

impl Type {
    /// Every type, smaller ones first.
    pub const ALL: [Type; 10] = {
        use Type::*;
        [Bitmap, Uint(8), Uint(16), Uint(32), Uint(64), Uint(128), Int64, Float64, Uuid, Dictionary]
    };

    /// The word for it in replies.
    pub const fn name(self) -> &'static str {
        match self {
            Type::Bitmap => "bitmap",
            Type::Uint(8) => "uint8",
            Type::Uint(16) => "uint16",
            Type::Uint(32) => "uint32",
            Type::Uint(64) => "uint64",
            Type::Uint(_) => "uint128",
            Type::Int64 => "int64",
            Type::Float64 => "float64",
            Type::Uuid => "uuid",
            Type::Dictionary => "dictionary",
        }
    }

    /// Reads the word; `string` is the older one for `dictionary`.
    pub fn read(word: &str) -> Option<Type> {
        if word == "string" { Some(Type::Dictionary) } else { Type::ALL.into_iter().find(|kind| kind.name() == word) }
    }

    /// Whether its values are compared, folded and shown as numbers.
    pub const fn is_number(self) -> bool {
        matches!(self, Type::Bitmap | Type::Uint(_) | Type::Int64 | Type::Float64)
    }

    /// Whether a missing value is shown as 0, because the type has no null.
    pub const fn zero_for_missing(self) -> bool {
        matches!(self, Type::Bitmap | Type::Uint(_))
    }

    /// Filter operators that pages offer for it.
    pub const fn filters(self) -> &'static [&'static str] {
        match self {
            Type::Dictionary => &[
                "equal",
                "not-equal",
                "contains",
                "not-contains",
                "regular-expression",
                "inverse-regular-expression",
                "at-least",
                "at-most",
                "greater-than",
                "less-than",
                "is-set",
                "is-not-set",
            ],
            Type::Bitmap => &["equal", "not-equal", "is-set", "is-not-set"],
            _ => &["equal", "not-equal", "at-least", "at-most", "greater-than", "less-than", "is-set", "is-not-set"],
        }
    }

    /// Folds that pages offer for it.
    pub const fn aggregates(self) -> &'static [&'static str] {
        match self {
            Type::Dictionary => {
                &["head", "tail", "first", "last", "min", "max", "range", "unique", "count", "histogram", "distribution", "object"]
            }
            _ => &[
                "head",
                "tail",
                "first",
                "last",
                "min",
                "max",
                "range",
                "unique",
                "count",
                "histogram",
                "distribution",
                "object",
                "mean",
                "sum",
                "bin",
            ],
        }
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its storage type.
    pub kind: Type,
    /// How clients print it: one of Backtrace's format words.
    pub format: String,
    /// For people.
    pub description: String,
    /// Whether it is the project's own rather than one that every project has.
    pub custom: bool,
    /// Whether some report has it.
    pub used: bool,
}

/// An attribute as reports had it.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// Reports in which it was text.
    pub texts: u64,
    /// Reports in which it was a number.
    pub numbers: u64,
}

/// What people have said about an attribute; it counts for more than what reports had.
#[derive(Clone, Debug)]
pub struct Declared<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub kind: Option<Type>,
    /// Its format.
    pub format: Option<&'a str>,
    /// For people.
    pub description: Option<&'a str>,
}

/// The columns of a table, by name.
#[derive(Clone, Debug, Default)]
pub struct Columns(BTreeMap<String, Column>);

/// What the names of the issues' columns begin with when they are asked for beside those of reports.
pub const ISSUE_PREFIX: &str = "fingerprint;issues;";

/// Columns whose value is the same on every report that can be seen. Both are 0, which is where the one step begins that is longer
/// than any object number.
const CONSTANTS: [&str; 2] = ["_deleted", "_compressed"];

/// Columns that every project has: name, type, format, description. SDKs send `vm.*` and `system.memory.*` in bytes.
const STOCK: [(&str, Type, &str, &str); 40] = {
    use Type::{Bitmap, Dictionary, Uint, Uuid};
    [
        ("_tx", Uint(64), "none", "number of the report in its project"),
        ("_rxid", Uuid, "uuid", "receipt id that the sender was given"),
        ("_deleted", Bitmap, "none", "whether the report was deleted"),
        ("_compressed", Bitmap, "none", "whether the report is compressed"),
        ("timestamp", Uint(64), "unix_timestamp", "when the error happened, by the client's clock"),
        ("timestamp.received", Uint(64), "unix_timestamp", "when the report was accepted"),
        ("report.delay", Uint(64), "seconds", "time from the error to its arrival; missing when the client's clock is wrong"),
        ("fingerprint", Dictionary, "sha256", "group that the report belongs to, by its callstack"),
        ("callstack", Dictionary, "callstack", "functions of the faulting thread, innermost first"),
        ("callstack.functions", Dictionary, "callstack", "functions of the faulting thread"),
        ("callstack.files", Dictionary, "callstack", "source files of the faulting thread"),
        ("callstack.modules", Dictionary, "callstack", "modules of the faulting thread"),
        ("classifiers", Dictionary, "labels", "kinds of error"),
        ("object.size", Uint(64), "bytes", "size of the report as it was sent"),
        ("lang.name", Dictionary, "none", "programming language"),
        ("lang.version", Dictionary, "none", "version of the programming language"),
        ("backtrace.agent", Dictionary, "none", "what sent the report"),
        ("backtrace.version", Dictionary, "semver", "version of what sent the report"),
        ("hostname", Dictionary, "hostname", "host"),
        ("guid", Uuid, "uuid", "user or device"),
        ("application", Dictionary, "none", "application"),
        ("application.version", Dictionary, "semver", "version of the application"),
        ("application.session", Uuid, "uuid", "run of the application"),
        ("error.type", Dictionary, "none", "how the error came about"),
        ("error.message", Dictionary, "none", "message of the error"),
        ("process.age", Uint(64), "seconds", "time since the process started"),
        ("uname.sysname", Dictionary, "none", "operating system"),
        ("uname.version", Dictionary, "none", "version of the operating system"),
        ("uname.machine", Dictionary, "none", "processor architecture"),
        ("cpu.count", Uint(64), "none", "processors"),
        ("fault.address", Uint(64), "memory_address", "address of the fault"),
        ("vm.rss.size", Uint(64), "bytes", "resident memory of the process"),
        ("vm.rss.peak", Uint(64), "bytes", "most resident memory of the process"),
        ("vm.vma.size", Uint(64), "bytes", "virtual memory of the process"),
        ("vm.vma.peak", Uint(64), "bytes", "most virtual memory of the process"),
        ("system.memory.total", Uint(64), "bytes", "memory of the machine"),
        ("system.memory.free", Uint(64), "bytes", "free memory of the machine"),
        ("system.memory.used", Uint(64), "bytes", "used memory of the machine"),
        ("descriptor.count", Uint(64), "none", "open files of the process"),
        ("breadcrumbs.lastId", Uint(64), "none", "number of the last breadcrumb"),
    ]
};

/// Columns of the issues: name, type, format, description.
const ISSUES: [(&str, Type, &str, &str); 7] = {
    use Type::{Dictionary, Uint};
    [
        ("fingerprint", Dictionary, "sha256", "group of reports"),
        ("id", Uint(64), "none", "number of the group's first report"),
        ("state", Dictionary, "none", "open, in-progress, resolved or muted"),
        ("tags", Dictionary, "labels", "words, separated by spaces"),
        ("ticket", Dictionary, "none", "where it is being worked on"),
        ("assignee", Dictionary, "none", "who works on it"),
        ("last_modified", Uint(64), "unix_timestamp", "when any of these was changed"),
    ]
};

impl Columns {
    /// The columns of a project's reports: those that every project has, those that reports had, those that people have declared.
    /// A column is text as soon as one report had text there, a number when all had numbers, else true or false.
    pub fn of_reports<'a>(seen: impl IntoIterator<Item = Seen<'a>>, declared: impl IntoIterator<Item = Declared<'a>>) -> Columns {
        let mut columns = Columns(stock(&STOCK).collect());
        let joined = stock(&ISSUES).filter(|(name, _)| name != "fingerprint");
        columns.0.extend(joined.map(|(name, column)| (format!("{ISSUE_PREFIX}{name}"), column)));
        for name in ["_tx", "_rxid", "_deleted", "_compressed", "timestamp.received"] {
            columns.0.get_mut(name).expect("in the table").used = true;
        }
        for Seen { name, texts, numbers } in seen {
            let is_plain = texts == 0 && numbers == 0;
            let kind = match (texts, numbers) {
                (0, 0) => Type::Bitmap,
                (0, _) => Type::Uint(64),
                _ => Type::Dictionary,
            };
            let new = || Column { kind, format: "none".to_owned(), description: String::new(), custom: true, used: true };
            let column = columns.0.entry(name.to_owned()).or_insert_with(new);
            column.used = true;
            if column.kind == Type::Bitmap && !is_plain {
                column.kind = kind;
            }
        }
        for one in declared {
            let new =
                || Column { kind: Type::Dictionary, format: "none".to_owned(), description: String::new(), custom: true, used: false };
            let column = columns.0.entry(one.name.to_owned()).or_insert_with(new);
            // Numbers and texts in a column of bits would make two groups with one name.
            if let Some(kind) = one.kind.filter(|kind| *kind != Type::Bitmap || column.kind == Type::Bitmap || !column.used) {
                column.kind = kind;
            }
            if let Some(format) = one.format {
                column.format = format.to_owned();
            }
            if let Some(description) = one.description {
                column.description = description.to_owned();
            }
        }
        columns
    }

    /// The columns of the issues.
    pub fn of_issues() -> Columns {
        Columns(stock(&ISSUES).map(|(name, column)| (name, Column { used: true, ..column })).collect())
    }

    /// The column of a name; the names of the application's version are one.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.0.get(name).or_else(|| aliases(name).iter().find_map(|alias| self.0.get(*alias)))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.0.iter().map(|(name, column)| (name.as_str(), column))
    }
}

fn stock(table: &'static [(&str, Type, &str, &str)]) -> impl Iterator<Item = (String, Column)> {
    table.iter().map(|&(name, kind, format, description)| {
        let column = Column { kind, format: format.to_owned(), description: description.to_owned(), custom: false, used: false };
        (name.to_owned(), column)
    })
}

/// What computes a column that no report has and every report means.
pub(super) fn constant(name: &str) -> Option<Derived> {
    let function = Function::Quantize { size: u64::MAX, offset: 0 };
    CONSTANTS.contains(&name).then(|| Derived { name: name.to_owned(), source: "_tx".to_owned(), function })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn seen(name: &str, texts: u64, numbers: u64) -> Seen<'_> {
        Seen { name, texts, numbers }
    }

    #[test]
    fn what_reports_had_decides_the_type_unless_the_column_is_known() {
        let columns = Columns::of_reports(
            [seen("text", 3, 0), seen("mixed", 1, 5), seen("number", 0, 2), seen("flag", 0, 0), seen("process.age", 4, 0)],
            [
                Declared { name: "number", kind: Some(Type::Int64), format: Some("milliseconds"), description: Some("how long") },
                Declared { name: "mixed", kind: Some(Type::Bitmap), format: None, description: None },
                Declared { name: "planned", kind: None, format: None, description: None },
            ],
        );
        for (name, kind, format, custom, used) in [
            ("text", Type::Dictionary, "none", true, true),
            ("mixed", Type::Dictionary, "none", true, true),
            ("number", Type::Int64, "milliseconds", true, true),
            ("flag", Type::Bitmap, "none", true, true),
            ("process.age", Type::Uint(64), "seconds", false, true),
            ("planned", Type::Dictionary, "none", true, false),
            ("hostname", Type::Dictionary, "hostname", false, false),
            ("release", Type::Dictionary, "semver", false, false),
            ("_deleted", Type::Bitmap, "none", false, true),
            ("fingerprint;issues;state", Type::Dictionary, "none", false, false),
        ] {
            let column = columns.get(name).expect(name);
            assert_eq!((column.kind, column.format.as_str(), column.custom, column.used), (kind, format, custom, used), "{name}");
        }
        assert!(columns.get("nosuch").is_none() && columns.get("state").is_none());
        assert_eq!(columns.get("number").map(|column| column.description.as_str()), Some("how long"));
    }

    #[test]
    fn types_are_written_as_they_are_read() {
        for kind in Type::ALL {
            assert_eq!(Type::read(kind.name()), Some(kind));
        }
        assert_eq!((Type::read("string"), Type::read("uint7")), (Some(Type::Dictionary), None));
    }

    #[test]
    fn a_constant_is_zero_for_every_object_number() {
        let constant = constant("_deleted").expect("a constant");
        for number in [1, 77, u64::MAX - 1] {
            assert_eq!(constant.function.apply(&Value::from(number)), Some(Value::Int(0)));
        }
    }
}
