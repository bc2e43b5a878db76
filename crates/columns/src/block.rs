//! Columns, and blocks of them: some rows of one project, one row a report.

use crate::bits::Bits;
use crate::dictionary::{Dictionary, MISSING};
use model::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One attribute of the rows of a block.
#[derive(Clone)]
pub enum Column {
    /// Codes of a dictionary, `MISSING` where there is no value.
    Codes(Vec<u32>, Arc<Dictionary>),
    /// Whole numbers, where all values were sent as such.
    Ints(Vec<i64>, Present),
    /// Other numbers, where all values were sent as such.
    Floats(Vec<f64>, Present),
}

/// Rows that have a value; `None`: all of them.
pub type Present = Option<Bits>;

/// Rows of one project in the order of stamp and number.
#[derive(Clone, Default)]
pub struct Block {
    rows: usize,
    /// Numbers of the reports; empty where nobody asked for them.
    pub tx: Arc<Vec<u64>>,
    /// Their stamps, in microseconds since 1970; empty where nobody asked for them: all are within the span asked for then.
    pub stamp: Arc<Vec<u64>>,
    /// By attribute; one that is not here is missing in every row.
    pub columns: BTreeMap<String, Arc<Column>>,
    /// Rows that readers do not see.
    pub hidden: Option<Arc<Bits>>,
}

impl Column {
    /// Rows it has.
    pub fn rows(&self) -> usize {
        match self {
            Column::Codes(codes, _) => codes.len(),
            Column::Ints(values, _) => values.len(),
            Column::Floats(values, _) => values.len(),
        }
    }

    /// Whether a row has a value.
    pub fn has(&self, row: usize) -> bool {
        match self {
            Column::Codes(codes, _) => codes[row] != MISSING,
            Column::Ints(_, present) | Column::Floats(_, present) => present.as_ref().is_none_or(|present| present.has(row)),
        }
    }

    /// A row's value.
    pub fn value(&self, row: usize) -> Option<Cow<'_, Value>> {
        if !self.has(row) {
            return None;
        }
        Some(match self {
            Column::Codes(codes, dictionary) => Cow::Borrowed(dictionary.value(codes[row])),
            Column::Ints(values, _) => Cow::Owned(Value::Int(values[row])),
            Column::Floats(values, _) => Cow::Owned(Value::Float(values[row])),
        })
    }

    /// Bytes it takes, those of its dictionary left out.
    pub fn bytes(&self) -> usize {
        let present = |present: &Present| present.as_ref().map_or(0, Bits::bytes);
        match self {
            Column::Codes(codes, _) => codes.len() * 4,
            Column::Ints(values, bits) => values.len() * 8 + present(bits),
            Column::Floats(values, bits) => values.len() * 8 + present(bits),
        }
    }

    /// The same column with other values in some rows, ascending; its values get codes of this dictionary.
    pub fn with(&self, dictionary: &Arc<Dictionary>, changes: &[(usize, Option<&Value>)]) -> Column {
        let mut changes = changes.iter().peekable();
        let code = |row: usize| {
            let changed = changes.next_if(|(at, _)| *at == row).map(|(_, value)| value.map(Cow::Borrowed));
            changed.unwrap_or_else(|| self.value(row)).map_or(MISSING, |value| dictionary.intern(&value))
        };
        Column::Codes((0..self.rows()).map(code).collect(), dictionary.clone())
    }
}

impl Block {
    /// Rows with their places, ascending, and no columns yet.
    ///
    /// # Panics
    /// When there are not as many stamps as numbers.
    pub fn new(tx: Vec<u64>, stamp: Vec<u64>) -> Block {
        assert_eq!(tx.len(), stamp.len(), "each report has a number and a stamp");
        debug_assert!(stamp.iter().zip(&tx).is_sorted(), "what was first and last is found by the order of rows");
        Block { rows: tx.len(), tx: Arc::new(tx), stamp: Arc::new(stamp), ..Block::default() }
    }

    /// Rows of which nobody asks where they stand, and no columns yet.
    pub fn without_places(rows: usize) -> Block {
        Block { rows, ..Block::default() }
    }

    /// Takes from another block of the same rows what of numbers and stamps this one does not have.
    pub fn take_places(&mut self, of: &Block) {
        for (have, theirs) in [(&mut self.tx, &of.tx), (&mut self.stamp, &of.stamp)] {
            if have.is_empty() {
                *have = theirs.clone();
            }
        }
    }

    /// The same rows with these columns.
    pub fn with_columns(mut self, columns: BTreeMap<String, Arc<Column>>) -> Block {
        self.columns = columns;
        self
    }

    /// The same rows with neither columns nor hidden ones.
    pub fn bare(&self) -> Block {
        Block { rows: self.rows, tx: self.tx.clone(), stamp: self.stamp.clone(), ..Block::default() }
    }

    /// Rows it has, hidden ones included.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// First and last stamp in microseconds, where there are stamps.
    pub fn stamps(&self) -> Option<(u64, u64)> {
        Some((*self.stamp.first()?, *self.stamp.last()?))
    }

    /// Bytes it takes, dictionaries left out.
    pub fn bytes(&self) -> usize {
        (self.tx.len() + self.stamp.len()) * 8 + self.columns.values().map(|column| column.bytes()).sum::<usize>()
    }

    /// Hides more rows.
    pub fn hide(&mut self, rows: Bits) {
        let mut hidden = rows;
        if let Some(before) = &self.hidden {
            hidden.or(before);
        }
        self.hidden = Some(Arc::new(hidden));
    }
}
