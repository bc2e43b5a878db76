//! The bytes of what a commit holds: reports, late attachments, checkpoints. Versioned by the frame around them.
//!
//! Numbers are LEB128 varints, signed ones in zigzag form; texts are length and UTF-8 bytes; floats their bits, little-endian.

use crate::overlay::{Change, Run};
use model::{Attachment, Attributes, ProjectId, Report, ReportId, Stamp, Tx, Value};

/// One thing in a commit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Entry {
    Report(Box<StoredReport>),
    Attachment { project: ProjectId, tx: Tx, attachment: Attachment },
    Change { project: ProjectId, runs: Vec<Run>, change: Change },
    Checkpoint(Checkpoint),
}

/// A report as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredReport {
    /// What is evaluated.
    pub report: Report,
    /// The client's id.
    pub id: Option<ReportId>,
    /// The body as it was sent.
    pub raw: Vec<u8>,
    /// Its files, late ones included.
    pub attachments: Vec<Attachment>,
}

/// The first entry of a segment: what later segments must not forget when this one's predecessors are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Last number given in each project.
    pub(crate) last_tx: Vec<(ProjectId, Tx)>,
}

/// The body of a commit's frame.
pub(crate) fn encode(entries: &[Entry]) -> Vec<u8> {
    let size = |entry: &Entry| match entry {
        Entry::Report(stored) => stored.raw.len() + crate::memory::attribute_bytes(&stored.report.attributes),
        _ => 64,
    };
    let mut body = Vec::with_capacity(entries.iter().map(size).sum());
    encode_into(&mut body, entries);
    body
}

/// The same in memory that is used again and again; what was there before goes.
pub(crate) fn encode_into(body: &mut Vec<u8>, entries: &[Entry]) {
    body.clear();
    put(body, entries.len() as u64);
    entries.iter().for_each(|entry| encode_entry(body, entry));
}

/// The entries of a body; `None` when it was not written by this code.
pub(crate) fn decode(body: &[u8]) -> Option<Vec<Entry>> {
    let mut reader = Reader(body);
    let entries = reader.many(Reader::entry)?;
    reader.is_at_end().then_some(entries)
}

const REPORT: u8 = 1;
const ATTACHMENT: u8 = 2;
const CHECKPOINT: u8 = 3;
const DELETE: u8 = 4;
const SET: u8 = 5;

fn encode_entry(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Report(stored) => {
            out.push(REPORT);
            let report = &stored.report;
            put(out, u64::from(report.project.0));
            put(out, report.tx.0);
            put(out, report.stamp.micros());
            out.push(u8::from(stored.id.is_some()));
            out.extend(stored.id.iter().flat_map(|id| id.0));
            put(out, report.attributes.len() as u64);
            for (name, value) in report.attributes.iter() {
                put_bytes(out, name.as_bytes());
                put_value(out, value);
            }
            put_bytes(out, &stored.raw);
            put(out, stored.attachments.len() as u64);
            stored.attachments.iter().for_each(|attachment| put_attachment(out, attachment));
        }
        Entry::Attachment { project, tx, attachment } => {
            out.push(ATTACHMENT);
            put(out, u64::from(project.0));
            put(out, tx.0);
            put_attachment(out, attachment);
        }
        Entry::Change { project, runs, change } => {
            out.push(match change {
                Change::Delete => DELETE,
                Change::Set { .. } => SET,
            });
            put(out, u64::from(project.0));
            put(out, runs.len() as u64);
            // Runs ascend, so the distances between them are small numbers.
            let mut before = 0;
            for (first, last) in runs {
                put(out, first.0 - before);
                put(out, last.0 - first.0);
                before = last.0;
            }
            if let Change::Set { attribute, value } = change {
                put_bytes(out, attribute.as_bytes());
                out.push(u8::from(value.is_some()));
                value.iter().for_each(|value| put_value(out, value));
            }
        }
        Entry::Checkpoint(checkpoint) => {
            out.push(CHECKPOINT);
            put(out, checkpoint.last_tx.len() as u64);
            for (project, tx) in &checkpoint.last_tx {
                put(out, u64::from(project.0));
                put(out, tx.0);
            }
        }
    }
}

pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(false) => out.push(0),
        Value::Bool(true) => out.push(1),
        Value::Int(n) => {
            out.push(2);
            put(out, (n << 1 ^ n >> 63) as u64);
        }
        Value::UInt(n) => {
            out.push(3);
            put(out, *n);
        }
        Value::Float(n) => {
            out.push(4);
            out.extend(n.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            out.push(5);
            put_bytes(out, text.as_bytes());
        }
    }
}

fn put_attachment(out: &mut Vec<u8>, attachment: &Attachment) {
    put(out, u64::from(attachment.id));
    put_bytes(out, attachment.name.as_bytes());
    put_bytes(out, attachment.content_type.as_bytes());
    put(out, attachment.size);
    out.extend(attachment.sha256);
}

/// Reads what `put` and its like wrote; `None` where the bytes do not say that.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(crate) fn project(&mut self) -> Option<ProjectId> {
        u32::try_from(self.number()?).ok().map(ProjectId)
    }

    fn entry(&mut self) -> Option<Entry> {
        match self.byte()? {
            REPORT => {
                let (project, tx, stamp) = (self.project()?, Tx(self.number()?), Stamp::from_micros(self.number()?));
                let id = match self.byte()? {
                    0 => None,
                    1 => Some(ReportId(self.array()?)),
                    _ => return None,
                };
                let attributes = self.many(|reader| Some((reader.text()?, reader.value()?)))?;
                let raw = self.bytes()?.to_vec();
                let attachments = self.many(Reader::attachment)?;
                let report = Report { project, tx, stamp, attributes: Attributes::from_pairs(attributes) };
                Some(Entry::Report(Box::new(StoredReport { report, id, raw, attachments })))
            }
            ATTACHMENT => Some(Entry::Attachment { project: self.project()?, tx: Tx(self.number()?), attachment: self.attachment()? }),
            kind @ (DELETE | SET) => {
                let project = self.project()?;
                let mut before = 0u64;
                let runs = self.many(|reader| {
                    let first = before.checked_add(reader.number()?)?;
                    before = first.checked_add(reader.number()?)?;
                    Some((Tx(first), Tx(before)))
                })?;
                let change = if kind == DELETE {
                    Change::Delete
                } else {
                    let attribute = self.text()?;
                    let value = match self.byte()? {
                        0 => None,
                        1 => Some(self.value()?),
                        _ => return None,
                    };
                    Change::Set { attribute, value }
                };
                Some(Entry::Change { project, runs, change })
            }
            CHECKPOINT => {
                let last_tx = self.many(|reader| Some((reader.project()?, Tx(reader.number()?))))?;
                Some(Entry::Checkpoint(Checkpoint { last_tx }))
            }
            _ => None,
        }
    }

    pub(crate) fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        // Each takes at least a byte, so a damaged count cannot ask for more memory than the body has bytes.
        if count > self.0.len() as u64 {
            return None;
        }
        (0..count).map(|_| one(self)).collect()
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            2 => {
                let zigzag = self.number()?;
                Value::Int((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
            }
            3 => Value::UInt(self.number()?),
            4 => Value::Float(f64::from_bits(u64::from_le_bytes(self.array()?))),
            5 => Value::Text(self.text()?),
            _ => return None,
        })
    }

    fn attachment(&mut self) -> Option<Attachment> {
        Some(Attachment {
            id: u32::try_from(self.number()?).ok()?,
            name: self.text()?,
            content_type: self.text()?,
            size: self.number()?,
            sha256: self.array()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<u64>().prop_map(Value::UInt),
            prop::num::f64::NORMAL.prop_map(Value::Float),
            ".{0,300}".prop_map(Value::Text),
        ]
    }

    fn attachment() -> impl Strategy<Value = Attachment> {
        (any::<u32>(), ".{0,9}", ".{0,9}", any::<u64>(), any::<[u8; 32]>()).prop_map(|(id, name, content_type, size, sha256)| Attachment {
            id,
            name,
            content_type,
            size,
            sha256,
        })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let report = (
            (any::<u32>(), any::<u64>(), any::<u64>(), prop::option::of(any::<[u8; 16]>())),
            prop::collection::vec((".{0,20}", value()), 0..6),
            prop::collection::vec(any::<u8>(), 0..900),
            prop::collection::vec(attachment(), 0..3),
        );
        prop_oneof![
            report.prop_map(|((project, tx, stamp, id), attributes, raw, attachments)| {
                let report = Report {
                    project: ProjectId(project),
                    tx: Tx(tx),
                    stamp: Stamp::from_micros(stamp),
                    attributes: Attributes::from_pairs(attributes),
                };
                Entry::Report(Box::new(StoredReport { report, id: id.map(ReportId), raw, attachments }))
            }),
            (any::<u32>(), any::<u64>(), attachment()).prop_map(|(project, tx, attachment)| Entry::Attachment {
                project: ProjectId(project),
                tx: Tx(tx),
                attachment
            }),
            (any::<u32>(), prop::collection::btree_set(0..1_000_000u64, 0..9), prop::option::of((".{0,9}", prop::option::of(value()))))
                .prop_map(|(project, txs, set)| Entry::Change {
                    project: ProjectId(project),
                    runs: crate::overlay::runs(txs.into_iter().map(Tx)),
                    change: set.map_or(Change::Delete, |(attribute, value)| Change::Set { attribute, value }),
                }),
            prop::collection::vec((any::<u32>(), any::<u64>()), 0..4).prop_map(|last_tx| {
                Entry::Checkpoint(Checkpoint { last_tx: last_tx.into_iter().map(|(project, tx)| (ProjectId(project), Tx(tx))).collect() })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(entry(), 0..5)) {
            prop_assert_eq!(decode(&encode(&entries)), Some(entries));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_cut_body_is_never_a_body(entries in prop::collection::vec(entry(), 1..3), at: prop::sample::Index) {
            let body = encode(&entries);
            prop_assert_eq!(decode(&body[..at.index(body.len())]), None);
        }
    }
}
