//! The server: routes, auth, command line. It joins `ingest`, `reports` and `export`; nothing knows it.

mod app;
mod ask;
mod auth;
pub mod cli;
mod configuration;
mod demo;
mod disk;
mod forecast;
mod http;
mod intake;
mod logs;
mod memory;
mod reply;
mod routes;
mod serve;
mod share;
mod source;

/// The program's version, as `--version` and the user agent show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
