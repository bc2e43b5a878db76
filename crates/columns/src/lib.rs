//! Columns of reports and the evaluator over them: many queries in one scan, each value of a dictionary looked at once.
//!
//! Pure: blocks come in, tables go out; where blocks are kept and how they are loaded is the caller's affair. What an answer means is
//! decided by `model::oracle`, which every answer must equal.

mod batch;
mod bits;
mod block;
mod builder;
mod by_value;
mod dictionary;
mod distinct;
mod filter;
mod gather;
mod most;
mod outcome;
mod pairs;
mod plan;
mod prepared;
mod resolve;
mod scan;
mod select;
mod sieve;
mod space;
#[cfg(test)]
mod tests;

pub use bits::Bits;
pub use block::{Block, Column, Present};
pub use builder::Builder;
pub use dictionary::{Dictionaries, Dictionary, MISSING};
pub use resolve::Needed;
pub use scan::{Failure, Source, evaluate, evaluate_most, evaluate_parted, rests};
pub use select::select;
pub use sieve::Sieve;
