//! The reports of a row group while they come in, taken apart into columns. What all this takes in memory is bounded.

use super::schema::{Kind, Part};
use ::parquet::data_type::{ByteArray, FixedLenByteArray};
use bytes::Bytes;
use hashbrown::DefaultHashBuilder;
use model::{Attachment, Report, ReportId, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

/// How large a row group becomes, and how wide a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most reports of a row group.
    pub(super) rows: usize,
    /// Most memory that a row group takes, about, before it is written though it has fewer reports.
    pub(super) bytes: usize,
    /// Most columns of attributes; hostile clients send many names. What is rarer is in `_more`.
    pub(super) columns: usize,
}

impl Default for Limits {
    /// As many rows as readers like to take at once (DuckDB: 122,880), and what they take when each is another.
    fn default() -> Limits {
        Limits { rows: 131_072, bytes: 128 << 20, columns: 1_000 }
    }
}

/// About what a value takes: its row and a code or number.
const VALUE_BYTES: usize = 12;
/// About what is new takes, a text or a column, beside its letters.
const NEW_BYTES: usize = 150;

/// Reports of a row group, without the outlines of their bodies.
#[derive(Default)]
pub(super) struct Rows {
    txs: Vec<i64>,
    stamps: Vec<i64>,
    ids: Sparse<FixedLenByteArray>,
    attachments: Sparse<ByteArray>,
    bodies: Sparse<ByteArray>,
    attributes: HashMap<String, BTreeMap<Kind, Values>, DefaultHashBuilder>,
    /// About what all this takes.
    bytes: usize,
}

/// The columns of a row group.
pub(super) struct Divided {
    pub(super) count: usize,
    pub(super) txs: Vec<i64>,
    pub(super) stamps: Vec<i64>,
    pub(super) ids: Sparse<FixedLenByteArray>,
    pub(super) attachments: Sparse<ByteArray>,
    /// Those that have no outline.
    pub(super) bodies: Sparse<ByteArray>,
    /// What has a column.
    pub(super) parts: BTreeMap<Part, Values>,
    /// What has none, as JSON.
    pub(super) more: Sparse<ByteArray>,
    /// How often each attribute is in `more`.
    pub(super) more_counts: BTreeMap<String, u64>,
}

impl Rows {
    pub(super) fn are_full(&self, limits: Limits) -> bool {
        self.txs.len() == limits.rows || self.bytes >= limits.bytes
    }

    pub(super) fn add(&mut self, report: &Report, id: Option<ReportId>, attachments: &[Attachment]) -> io::Result<()> {
        let row = self.txs.len() as u32;
        self.txs.push(report.tx.0 as i64);
        self.stamps.push(report.stamp.micros() as i64);
        self.bytes += 4 * VALUE_BYTES;
        if let Some(id) = id {
            self.ids.put(row, id.0.to_vec().into());
            self.bytes += NEW_BYTES;
        }
        if !attachments.is_empty() {
            let json = serde_json::to_vec(&attachments.iter().map(ListedFile::from).collect::<Vec<_>>())?;
            self.bytes += json.len() + NEW_BYTES;
            self.attachments.put(row, json.into());
        }
        for (name, value) in report.attributes.iter() {
            let kinds = match self.attributes.get_mut(name) {
                Some(kinds) => kinds,
                None => {
                    self.bytes += name.len() + NEW_BYTES;
                    self.attributes.entry(name.to_owned()).or_default()
                }
            };
            self.bytes += kinds.entry(Kind::of(value)).or_insert_with(|| Values::new(Kind::of(value))).put(row, value);
        }
        Ok(())
    }

    /// Adds the body of the last report.
    pub(super) fn add_body(&mut self, body: Vec<u8>) {
        self.bytes += body.len() + NEW_BYTES;
        self.bodies.put(self.txs.len() as u32 - 1, body.into());
    }

    /// Gives columns to what has them in other row groups and then, until there are `most`, to what is most frequent here.
    pub(super) fn divide(self, columns: &BTreeMap<Part, u64>, most: usize) -> io::Result<Divided> {
        let Rows { txs, stamps, ids, attachments, bodies, attributes, .. } = self;
        let (mut parts, mut new) = (BTreeMap::new(), Vec::new());
        for (attribute, kinds) in attributes {
            for (kind, values) in kinds {
                let part = Part { attribute: attribute.clone(), kind };
                if columns.contains_key(&part) {
                    parts.insert(part, values);
                } else {
                    new.push((part, values));
                }
            }
        }
        new.sort_by(|(a, of_a), (b, of_b)| (Reverse(of_a.count()), a).cmp(&(Reverse(of_b.count()), b)));
        let rare = new.split_off(new.len().min(most - columns.len()));
        parts.extend(new);
        let mut objects: BTreeMap<u32, Map<String, Json>> = BTreeMap::new();
        let mut more_counts = BTreeMap::new();
        for (part, values) in rare {
            *more_counts.entry(part.attribute.clone()).or_default() += values.count() as u64;
            for (row, value) in values.into_rows() {
                objects.entry(row).or_default().insert(part.attribute.clone(), serde_json::to_value(value)?);
            }
        }
        let mut more = Sparse::default();
        for (row, object) in objects {
            more.put(row, serde_json::to_vec(&object)?.into());
        }
        Ok(Divided { count: txs.len(), txs, stamps, ids, attachments, bodies, parts, more, more_counts })
    }
}

/// The values that there are, each with its row, rows ascending.
pub(super) struct Sparse<T> {
    rows: Vec<u32>,
    values: Vec<T>,
}

impl<T> Default for Sparse<T> {
    fn default() -> Sparse<T> {
        Sparse { rows: Vec::new(), values: Vec::new() }
    }
}

impl<T> Sparse<T> {
    fn put(&mut self, row: u32, value: T) {
        self.rows.push(row);
        self.values.push(value);
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (u32, T)> {
        self.rows.into_iter().zip(self.values)
    }
}

/// The values of one type of an attribute.
pub(super) enum Values {
    Text(Texts),
    Int(Sparse<i64>),
    /// By their bits.
    UInt(Sparse<i64>),
    Float(Sparse<f64>),
    Bool(Sparse<bool>),
}

impl Values {
    pub(super) fn new(kind: Kind) -> Values {
        match kind {
            Kind::Text => Values::Text(Texts::default()),
            Kind::Int => Values::Int(Sparse::default()),
            Kind::UInt => Values::UInt(Sparse::default()),
            Kind::Float => Values::Float(Sparse::default()),
            Kind::Bool => Values::Bool(Sparse::default()),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Values::Text(_) => Kind::Text,
            Values::Int(_) => Kind::Int,
            Values::UInt(_) => Kind::UInt,
            Values::Float(_) => Kind::Float,
            Values::Bool(_) => Kind::Bool,
        }
    }

    /// Adds a value of this kind; returns about how many bytes it takes.
    fn put(&mut self, row: u32, value: &Value) -> usize {
        match (self, value) {
            (Values::Text(texts), Value::Text(text)) => return texts.put(row, text),
            (Values::Int(numbers), Value::Int(number)) => numbers.put(row, *number),
            (Values::UInt(numbers), Value::UInt(number)) => numbers.put(row, *number as i64),
            (Values::Float(numbers), Value::Float(number)) => numbers.put(row, *number),
            (Values::Bool(answers), Value::Bool(answer)) => answers.put(row, *answer),
            (_, other) => unreachable!("{other:?} is of another kind"),
        }
        VALUE_BYTES
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Values::Text(texts) => texts.codes.rows.len(),
            Values::Int(numbers) | Values::UInt(numbers) => numbers.rows.len(),
            Values::Float(numbers) => numbers.rows.len(),
            Values::Bool(answers) => answers.rows.len(),
        }
    }

    /// How many different ones there are.
    pub(super) fn distinct(&self) -> usize {
        match self {
            Values::Text(texts) => texts.words.len(),
            Values::Int(numbers) | Values::UInt(numbers) => numbers.values.iter().collect::<HashSet<_>>().len(),
            Values::Float(numbers) => numbers.values.iter().map(|number| number.to_bits()).collect::<HashSet<_>>().len(),
            Values::Bool(answers) => answers.values.iter().collect::<HashSet<_>>().len(),
        }
    }

    fn into_rows(self) -> Vec<(u32, Value)> {
        match self {
            Values::Text(Texts { codes, words, .. }) => {
                let text = |code: u32| String::from_utf8_lossy(words[code as usize].data()).into_owned();
                codes.into_iter().map(|(row, code)| (row, Value::Text(text(code)))).collect()
            }
            Values::Int(numbers) => numbers.into_iter().map(|(row, number)| (row, Value::Int(number))).collect(),
            Values::UInt(numbers) => numbers.into_iter().map(|(row, number)| (row, Value::UInt(number as u64))).collect(),
            Values::Float(numbers) => numbers.into_iter().map(|(row, number)| (row, Value::Float(number))).collect(),
            Values::Bool(answers) => answers.into_iter().map(|(row, answer)| (row, Value::Bool(answer))).collect(),
        }
    }
}

/// Texts, each kept once.
#[derive(Default)]
pub(super) struct Texts {
    /// Places in `words`.
    codes: Sparse<u32>,
    words: Vec<ByteArray>,
    places: HashMap<Bytes, u32, DefaultHashBuilder>,
}

impl Texts {
    fn put(&mut self, row: u32, text: &str) -> usize {
        if let Some(&code) = self.places.get(text.as_bytes()) {
            self.codes.put(row, code);
            return VALUE_BYTES;
        }
        let (code, word) = (self.words.len() as u32, Bytes::copy_from_slice(text.as_bytes()));
        self.words.push(word.clone().into());
        self.places.insert(word, code);
        self.codes.put(row, code);
        text.len() + NEW_BYTES
    }

    pub(super) fn into_parts(self) -> (Sparse<u32>, Vec<ByteArray>) {
        (self.codes, self.words)
    }
}

/// A file of a report as `_attachments` lists it.
#[derive(Serialize, Deserialize)]
pub(super) struct ListedFile {
    id: u32,
    name: String,
    content_type: String,
    size: u64,
    /// Hexadecimal.
    sha256: String,
}

impl From<&Attachment> for ListedFile {
    fn from(file: &Attachment) -> ListedFile {
        let Attachment { id, name, content_type, size, sha256 } = file.clone();
        ListedFile { id, name, content_type, size, sha256: hex::encode(sha256) }
    }
}

impl ListedFile {
    /// The file; `None` where its hash is none.
    pub(super) fn read(self) -> Option<Attachment> {
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&self.sha256, &mut sha256).ok()?;
        Some(Attachment { id: self.id, name: self.name, content_type: self.content_type, size: self.size, sha256 })
    }
}
