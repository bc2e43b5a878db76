//! Columns of reports and the evaluator over them: many queries in one scan, each value of a dictionary looked at once.
//!
//! Pure: blocks come in, tables go out; where blocks are kept and how they are loaded is the caller's affair. What an answer means is
//! decided by `model::oracle`, which every answer must equal.

mod bits;
mod block;
mod builder;
mod dictionary;
mod distinct;
mod filter;
mod gather;
mod plan;
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
pub use scan::{Failure, Source, evaluate, evaluate_most, rests};
pub use select::select;
pub use sieve::Sieve;
