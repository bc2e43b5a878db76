//! Fuzz targets for every parser and encoder that is public, and what runs them: a seeded mutator over a corpus of small files. It is
//! not part of the product and not guided by coverage; `docs/fuzzing.md` says how to use it.

#![forbid(unsafe_code)]

mod batch;
mod ingest;
mod json_stores;
mod lines;
mod mutate;
mod page;
mod push;
mod queries;
mod remote_write;
mod replies;
mod run;
mod settings;
mod source;
mod values;

pub use run::{Failure, Session, corpus_folder, keep, shrink};

/// Takes any bytes, panics when an oracle is broken, and answers which of few ways the input went: a way that was not seen before is
/// worth keeping the input for.
pub type Target = fn(&[u8]) -> String;

/// Every target by the name of its folder below `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("backtrace", queries::backtrace),
    ("circonus", json_stores::circonus),
    ("columns", queries::columns),
    ("datadog", json_stores::datadog),
    ("form", ingest::form),
    ("grafana", json_stores::grafana),
    ("grammar", queries::grammar),
    ("graphite", lines::graphite),
    ("inflate", ingest::inflate),
    ("influxdb", lines::influxdb),
    ("judge", replies::judge),
    ("names", values::names),
    ("page", page::page),
    ("payload", replies::payload),
    ("remote_write", remote_write::remote_write),
    ("settings", settings::settings),
    ("submission", ingest::submission),
    ("values", values::values),
];
