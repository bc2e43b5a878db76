//! A report and its attributes: first as it comes from a client (`NewReport`), then as accepted (`Report`).

use crate::time::Stamp;
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A project's number; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectId(pub u32);

/// A report's number in its project: 1, 2, 3, ... It increases with the stamp but need not be dense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tx(pub u64);

impl Tx {
    /// Hexadecimal without leading zeros: how query clients write an object number.
    pub fn hex(self) -> String {
        format!("{:x}", self.0)
    }

    /// The receipt id of a report, a dashed 128-bit number: the report's number, then the project's, both little-endian.
    pub fn receipt(self, project: ProjectId) -> ReportId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[12..].copy_from_slice(&project.0.to_be_bytes());
        ReportId(bytes)
    }

    /// Reads what a client gives as `object=`: a hexadecimal number or a receipt id of this project.
    pub fn read(text: &str, project: ProjectId) -> Option<Tx> {
        if let Some(id) = ReportId::read(text) {
            let tx = Tx(u64::from_le_bytes(id.0[..8].try_into().expect("eight bytes")));
            return (tx.receipt(project) == id).then_some(tx);
        }
        u64::from_str_radix(text, 16).ok().map(Tx)
    }
}

/// A 128-bit id: a report's own `uuid`, or a receipt id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportId(pub [u8; 16]);

impl ReportId {
    /// Reads 32 hex digits with or without dashes, of any version or none (old SDKs set no version bits).
    pub fn read(text: &str) -> Option<ReportId> {
        if text.len() != 32 && text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte == b'-' && text.len() == 36 && matches!(at, 8 | 13 | 18 | 23) {
                continue;
            }
            let digit = char::from(byte).to_digit(16)? as u8;
            if digits == 32 {
                return None;
            }
            bytes[digits / 2] = bytes[digits / 2] << 4 | digit;
            digits += 1;
        }
        (digits == 32).then_some(ReportId(bytes))
    }
}

impl fmt::Display for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let (mut text, mut at) = ([b'-'; 36], 0);
        for (number, byte) in self.0.into_iter().enumerate() {
            if matches!(number, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 15)];
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).expect("digits and dashes"))
    }
}

impl fmt::Debug for ReportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Attributes by name, sorted, each name once.
#[derive(Clone, Default)]
pub struct Attributes {
    /// The names one after the other, in no order: one piece of memory, as reports go from thread to thread with all they have.
    names: String,
    /// In the order of the names.
    values: Vec<(Place, Value)>,
}

/// Where a name stands among the names.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    bytes: u32,
    /// Its beginning as a number, which decides most comparisons.
    head: u64,
}

impl Place {
    fn of(self, names: &str) -> &str {
        &names[self.at as usize..][..self.bytes as usize]
    }

    fn compare(self, names: &str, head: u64, name: &str) -> Ordering {
        self.head.cmp(&head).then_with(|| self.of(names).cmp(name))
    }
}

/// The first eight bytes as a number that orders names as they are ordered, where they differ so early.
fn head(name: &str) -> u64 {
    let mut head = [0; 8];
    let bytes = name.len().min(8);
    head[..bytes].copy_from_slice(&name.as_bytes()[..bytes]);
    u64::from_be_bytes(head)
}

impl Attributes {
    /// Keeps the last value of a name that comes twice.
    pub fn from_pairs<N: AsRef<str>>(pairs: impl IntoIterator<Item = (N, Value)>) -> Attributes {
        let pairs = pairs.into_iter();
        let mut attributes = Attributes::default();
        attributes.reserve(pairs.size_hint().0);
        for (name, value) in pairs {
            let place = attributes.name(name.as_ref());
            attributes.values.push((place, value));
        }
        let Attributes { names, values } = &mut attributes;
        let compare = |a: Place, b: Place| a.compare(names, b.head, b.of(names));
        if !values.is_sorted_by(|a, b| compare(a.0, b.0).is_lt()) {
            values.sort_by(|a, b| compare(a.0, b.0));
            values.dedup_by(|later, kept| {
                let repeated = compare(later.0, kept.0).is_eq();
                if repeated {
                    std::mem::swap(later, kept);
                }
                repeated
            });
        }
        attributes
    }

    /// Makes room for some more.
    pub fn reserve(&mut self, more: usize) {
        self.names.reserve(more * USUAL_NAME);
        self.values.reserve(more);
    }

    fn name(&mut self, name: &str) -> Place {
        let place = |bytes: usize| u32::try_from(bytes).expect("names of one report take less than 4 GiB");
        let at = place(self.names.len());
        self.names.push_str(name);
        Place { at, bytes: place(name.len()), head: head(name) }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        let head = head(name);
        self.values.binary_search_by(|(have, _)| have.compare(&self.names, head, name))
    }

    /// The value of exactly this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.find(name).ok().map(|at| &self.values[at].1)
    }

    /// Sets or replaces one value.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.find(name) {
            Ok(at) => self.values[at].1 = value,
            Err(at) => {
                let place = self.name(name);
                self.values.insert(at, (place, value));
            }
        }
    }

    /// Takes one value away.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.values.remove(at);
        }
    }

    /// All pairs in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(place, value)| (place.of(&self.names), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Bytes of a name, for most of them.
const USUAL_NAME: usize = 16;

impl PartialEq for Attributes {
    fn eq(&self, other: &Attributes) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A file that came with a report, not yet stored.
#[derive(Clone, PartialEq)]
pub struct NewAttachment {
    /// The client's name for it; shown, never used as a path.
    pub name: String,
    /// What the client called its type, else `application/octet-stream`.
    pub content_type: String,
    /// The content.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for NewAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewAttachment({:?}, {:?}, {} bytes)", self.name, self.content_type, self.bytes.len())
    }
}

/// A stored file of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Number within the report, from 1.
    pub id: u32,
    /// The client's name for it.
    pub name: String,
    /// What the client called its type.
    pub content_type: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the content, which is also the file's name on disk.
    pub sha256: [u8; 32],
}

/// A report as `ingest` reads it from a submission: complete but for number and stamp.
#[derive(Clone, Debug, PartialEq)]
pub struct NewReport {
    /// The client's `uuid`; a repeat is the same report. `None`: never a repeat.
    pub id: Option<ReportId>,
    /// Every attribute that can be queried, those the server derives from the body included.
    pub attributes: Attributes,
    /// The report body as it was sent (after decoding); empty when only a dump came.
    pub raw: Vec<u8>,
    /// Dumps and attachments.
    pub attachments: Vec<NewAttachment>,
}

/// An accepted report: what is evaluated. Its number and stamp are attributes too (`_tx`, `timestamp.received`).
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Whose it is.
    pub project: ProjectId,
    /// Its number there.
    pub tx: Tx,
    /// When it was committed: this alone decides its windows.
    pub stamp: Stamp,
    /// What it says.
    pub attributes: Attributes,
}

/// The longest believable time between a crash and its arrival (100 days); beyond it, or before, the client's clock is wrong.
const PLAUSIBLE_DELAY_SECS: i128 = 100 * 86_400;

impl Report {
    /// The value of an attribute under any of its names; what the server adds at commit is computed here.
    pub fn get(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "_tx" => return Some(Cow::Owned(Value::from(self.tx.0))),
            "_rxid" => return Some(Cow::Owned(Value::Text(self.tx.receipt(self.project).to_string()))),
            "timestamp.received" => return Some(Cow::Owned(Value::from(self.stamp.secs()))),
            "report.delay" => return delay(self.stamp.secs(), self.attributes.get("timestamp")?).map(Cow::Owned),
            _ => {}
        }
        if let Some(value) = self.attributes.get(name) {
            return Some(Cow::Borrowed(value));
        }
        aliases(name).iter().find_map(|alias| self.attributes.get(alias)).map(Cow::Borrowed)
    }
}

/// Seconds from a client's `timestamp` to the stamp's second; missing when the client's clock cannot be believed.
pub fn delay(stamp_secs: u64, sent: &Value) -> Option<Value> {
    let sent = match sent.number()? {
        crate::value::Number::Whole(n) => n,
        crate::value::Number::Real(n) => n as i128,
    };
    let delay = i128::from(stamp_secs).checked_sub(sent)?;
    // A client a little ahead of us is level with us; further ahead it is wrong.
    (-60..=PLAUSIBLE_DELAY_SECS).contains(&delay).then(|| Value::Int(delay.max(0) as i64))
}

/// Names that mean one attribute: SDKs spell the version in these ways.
const VERSION_NAMES: [&str; 4] = ["application.version", "app.version", "release", "version"];

/// The other names under which an attribute may have been sent, most specific first.
pub fn aliases(name: &str) -> &'static [&'static str] {
    // "version" alone (java) stands in for the application's version but a query for it means just itself.
    if matches!(name, "application.version" | "app.version" | "release") { &VERSION_NAMES } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pairs: &[(&str, Value)]) -> Report {
        Report {
            project: ProjectId(3),
            tx: Tx(0xce),
            stamp: Stamp::from_secs(1_800_000_000),
            attributes: Attributes::from_pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone()))),
        }
    }

    #[test]
    fn a_name_sent_twice_keeps_its_last_value() {
        let attributes = Attributes::from_pairs([("b", Value::Int(1)), ("a", Value::Int(2)), ("b", Value::Int(3))]);
        assert_eq!(attributes.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(attributes.get("b"), Some(&Value::Int(3)));
    }

    #[test]
    fn attributes_are_a_sorted_map_whatever_came_before() {
        let names = ["b", "a", "", "ab", "é", "b", "b.c", "a", "zz", "application", "application.version", "applicat", "applicat\0"];
        let mut attributes = Attributes::default();
        let mut naive = std::collections::BTreeMap::new();
        for (n, name) in names.iter().cycle().take(60).enumerate() {
            let value = Value::Int(n as i64);
            if n % 3 == 2 {
                attributes.remove(name);
                naive.remove(name);
            } else {
                attributes.set(name, value.clone());
                naive.insert(name, value);
            }
            assert!(attributes.iter().eq(naive.iter().map(|(name, value)| (**name, value))), "{attributes:?}");
            assert!(names.iter().all(|name| attributes.get(name) == naive.get(name)) && attributes.len() == naive.len());
            let again = Attributes::from_pairs(naive.iter().rev().map(|(name, value)| (**name, value.clone())));
            assert_eq!(attributes, again, "one is what it holds, however it came to that");
        }
        attributes.set("a", Value::from("other"));
        assert_ne!(attributes, Attributes::from_pairs(naive));
    }

    #[test]
    fn ids_are_written_as_they_are_read() {
        for text in ["7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01", "00000000-0000-0000-0000-000000000000", "ffffffff-0123-4567-89ab-cdef00ff1080"]
        {
            assert_eq!(ReportId::read(text).map(|id| id.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn receipts_lead_back_to_their_report_in_their_own_project_only() {
        let receipt = Tx(0xce).receipt(ProjectId(3)).to_string();
        assert_eq!(receipt, "ce000000-0000-0000-0000-000000000003");
        assert_eq!(Tx::read(&receipt, ProjectId(3)), Some(Tx(0xce)));
        assert_eq!(Tx::read(&receipt, ProjectId(4)), None);
        assert_eq!(Tx::read("ce", ProjectId(3)), Some(Tx(0xce)));
        assert_eq!(Tx::read("xyz", ProjectId(3)), None);
    }

    #[test]
    fn report_ids_need_no_version_bits() {
        for (text, legal) in [
            ("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a01", true),
            ("7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a01", true),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", true),
            ("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a0", false),
            ("7d7c1f5e-5a0b-4e0c-9f0e-2f6b1c1d0a0g", false),
            ("-d7c1f5e5a0b4e0c9f0e2f6b1c1d0a01", false),
            ("", false),
            ("é7d7c1f5e5a0b4e0c9f0e2f6b1c1d0a", false),
        ] {
            assert_eq!(ReportId::read(text).is_some(), legal, "{text}");
        }
    }

    #[test]
    fn version_is_found_under_any_sdks_name() {
        let java = report(&[("version", Value::from("1.2"))]);
        assert_eq!(java.get("app.version").as_deref(), Some(&Value::from("1.2")));
        let node = report(&[("application.version", Value::from("3")), ("version", Value::from("other"))]);
        assert_eq!(node.get("release").as_deref(), Some(&Value::from("3")));
        assert_eq!(node.get("version").as_deref(), Some(&Value::from("other")));
    }

    #[test]
    fn delay_is_missing_when_the_clients_clock_is_wrong() {
        for (sent, delay) in [
            (Value::Int(1_800_000_000 - 5), Some(Value::Int(5))),
            (Value::Int(1_800_000_030), Some(Value::Int(0))),
            (Value::Int(1_800_000_090), None),
            (Value::Int(0), None),
            (Value::Int(i64::MIN), None),
            (Value::Float(1e300), None),
            (Value::from("soon"), None),
        ] {
            assert_eq!(report(&[("timestamp", sent.clone())]).get("report.delay").map(Cow::into_owned), delay, "{sent:?}");
        }
    }
}
