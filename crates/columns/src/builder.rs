//! Builds blocks as reports come.

use crate::bits::Bits;
use crate::block::{Block, Column, Present};
use crate::dictionary::{Dictionaries, Dictionary, MISSING};
use hashbrown::{HashMap, HashSet};
use model::{Report, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A finished column of numbers gets codes when there are at most this many distinct ones: codes are smaller, and need no looking up.
const FEW_NUMBERS: usize = 256;

/// Takes one project's reports in the order of stamp and number.
pub struct Builder {
    dictionaries: Arc<Dictionaries>,
    tx: Vec<u64>,
    stamp: Vec<u64>,
    /// In the order in which their attributes came.
    columns: Vec<Growing>,
    /// Places in `columns`.
    places: HashMap<String, usize>,
    bytes: usize,
}

/// A column as far as it goes: rows at its end that have no value are not in it yet.
struct Growing {
    name: String,
    /// The column of the attribute that came next in the last report: most reports of a project have the same attributes.
    next: usize,
    /// The last code: values often come again at once, and then nothing is looked up.
    last: u32,
    values: Values,
    /// Where `values` are numbers.
    present: Bits,
    count: usize,
    dictionary: Arc<Dictionary>,
}

/// Numbers stay numbers until something else comes.
enum Values {
    Codes(Vec<u32>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
}

impl Builder {
    /// Codes will be those of these dictionaries.
    pub fn new(dictionaries: Arc<Dictionaries>) -> Builder {
        Builder { dictionaries, tx: Vec::new(), stamp: Vec::new(), columns: Vec::new(), places: HashMap::new(), bytes: 0 }
    }

    /// Takes a report that comes after all others.
    pub fn add(&mut self, report: &Report) {
        let row = self.tx.len();
        self.tx.push(report.tx.0);
        self.stamp.push(report.stamp.micros());
        self.bytes += 16;
        let (mut guess, mut before) = (0, None);
        for (name, value) in report.attributes.iter() {
            let place = match self.columns.get(guess) {
                Some(column) if column.name == name => guess,
                _ => self.place(name, value),
            };
            if let Some(before) = before.replace(place) {
                self.columns[before].next = place;
            }
            let column = &mut self.columns[place];
            let dictionary_bytes = column.dictionary.bytes();
            column.push(row, value);
            self.bytes += 8 + column.dictionary.bytes().saturating_sub(dictionary_bytes);
            guess = column.next;
        }
    }

    /// The place of an attribute's column, which is begun when it is new.
    fn place(&mut self, name: &str, first: &Value) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.columns.len();
        self.columns.push(Growing::new(name, place + 1, first, self.dictionaries.of(name)));
        self.places.insert(name.to_owned(), place);
        place
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.tx.len()
    }

    /// Bytes so far, roughly, with those by which dictionaries have grown.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// First and last stamp in microseconds.
    pub fn stamps(&self) -> Option<(u64, u64)> {
        Some((*self.stamp.first()?, *self.stamp.last()?))
    }

    /// The block of all rows so far; the builder begins anew.
    pub fn freeze(&mut self) -> Block {
        let rows = self.rows();
        let mut columns = std::mem::take(&mut self.columns);
        self.places.clear();
        columns.iter_mut().filter(|column| column.has_few_numbers()).for_each(|column| column.values = Values::Codes(column.coded()));
        let columns = columns.into_iter().map(|mut column| (std::mem::take(&mut column.name), Arc::new(column.finish(rows)))).collect();
        self.bytes = 0;
        Block::new(std::mem::take(&mut self.tx), std::mem::take(&mut self.stamp)).with_columns(columns)
    }

    /// A copy of all rows so far with the named columns.
    pub fn snapshot(&self, names: &BTreeSet<String>) -> Block {
        let rows = self.rows();
        let named = names.iter().filter_map(|name| Some((name, &self.columns[*self.places.get(name)?])));
        let columns = named.map(|(name, column)| (name.clone(), Arc::new(column.copy().finish(rows)))).collect();
        Block::new(self.tx.clone(), self.stamp.clone()).with_columns(columns)
    }
}

impl Growing {
    fn new(name: &str, next: usize, first: &Value, dictionary: Arc<Dictionary>) -> Growing {
        let values = match first {
            Value::Int(_) => Values::Ints(Vec::new()),
            Value::Float(_) => Values::Floats(Vec::new()),
            _ => Values::Codes(Vec::new()),
        };
        Growing { name: name.to_owned(), next, last: MISSING, values, present: Bits::default(), count: 0, dictionary }
    }

    fn push(&mut self, row: usize, value: &Value) {
        match (&mut self.values, value) {
            (Values::Ints(values), Value::Int(n)) => {
                values.resize(row, 0);
                values.push(*n);
                self.present.put(row);
            }
            (Values::Floats(values), Value::Float(n)) => {
                values.resize(row, 0.0);
                values.push(*n);
                self.present.put(row);
            }
            (Values::Codes(codes), value) => {
                codes.resize(row, MISSING);
                if !self.dictionary.is(self.last, value) {
                    self.last = self.dictionary.intern(value);
                }
                codes.push(self.last);
            }
            _ => {
                self.values = Values::Codes(self.coded());
                return self.push(row, value);
            }
        }
        self.count += 1;
    }

    fn has_few_numbers(&self) -> bool {
        let mut seen = HashSet::new();
        let mut are_many = |bits: u64| seen.insert(bits) && seen.len() > FEW_NUMBERS.min(self.count / 4);
        match &self.values {
            Values::Codes(_) => false,
            Values::Ints(values) => !self.present.iter().any(|row| are_many(values[row] as u64)),
            Values::Floats(values) => !self.present.iter().any(|row| are_many(values[row].to_bits())),
        }
    }

    /// Numbers as codes.
    fn coded(&self) -> Vec<u32> {
        let code = |row: usize, value: Value| if self.present.has(row) { self.dictionary.intern(&value) } else { MISSING };
        match &self.values {
            Values::Codes(codes) => codes.clone(),
            Values::Ints(values) => values.iter().enumerate().map(|(row, n)| code(row, Value::Int(*n))).collect(),
            Values::Floats(values) => values.iter().enumerate().map(|(row, n)| code(row, Value::Float(*n))).collect(),
        }
    }

    fn copy(&self) -> Growing {
        let values = match &self.values {
            Values::Codes(codes) => Values::Codes(codes.clone()),
            Values::Ints(values) => Values::Ints(values.clone()),
            Values::Floats(values) => Values::Floats(values.clone()),
        };
        let (name, present, dictionary) = (self.name.clone(), self.present.clone(), self.dictionary.clone());
        Growing { name, next: self.next, last: self.last, values, present, count: self.count, dictionary }
    }

    fn finish(self, rows: usize) -> Column {
        let present: Present = (self.count < rows).then_some(self.present);
        match self.values {
            Values::Codes(mut codes) => {
                codes.resize(rows, MISSING);
                Column::Codes(codes, self.dictionary)
            }
            Values::Ints(mut values) => {
                values.resize(rows, 0);
                Column::Ints(values, present)
            }
            Values::Floats(mut values) => {
                values.resize(rows, 0.0);
                Column::Floats(values, present)
            }
        }
    }
}
