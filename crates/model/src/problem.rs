//! What is wrong with something a person or program sent: the field, what is the matter, how to mend it.

use serde::Serialize;
use std::fmt;

/// One fault in a request: names the field and the mend. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Dotted path of the field, as the sender spelt it: `query.fold.process.age[0]`, `period`.
    pub field: String,
    /// What is wrong and what would be right, in one sentence.
    pub detail: String,
}

impl Problem {
    /// A fault in `field`.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem { field: field.into(), detail: detail.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.detail) } else { write!(f, "{}: {}", self.field, self.detail) }
    }
}

impl std::error::Error for Problem {}
