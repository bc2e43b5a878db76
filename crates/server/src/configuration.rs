//! Configuration as code: projects with their metric sets, metrics and stores as one document, in YAML for people and in JSON on
//! the wire.
//!
//! The command line reads the file (`yaml`), fills its secrets in (`secret`) and prints plans (`command`). The server checks the
//! document (`document`), compares it with what is configured (`difference`) and applies it in one transaction. `schema`
//! describes the format, from the adapters' own descriptions.

pub(crate) mod command;
pub(crate) mod difference;
pub(crate) mod document;
pub(crate) mod schema;
mod secret;
mod suggestion;
mod yaml;

/// The version of the format, as the document's key `crashmeter` gives it.
pub(crate) const FORMAT: u64 = 1;
