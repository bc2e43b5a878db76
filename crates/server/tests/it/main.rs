//! The one integration test binary: the built `crashmeter` program, real SDKs in front of it, real metric stores behind it.
//!
//! `make test` installs the SDKs and stores first (`scripts/install-test-tools`). `process`, `http`, `receivers` and `sdk` are the
//! rigs; each has tests of its own, so that a broken rig is told from a broken product. Everything listens on free loopback ports.

mod api;
mod attributes;
mod backtrace;
mod backup;
mod bad_input;
mod configuration;
mod crashmeter;
mod end_to_end;
mod events;
mod expected;
mod explore;
mod hostile;
mod http;
mod kill;
mod ledger;
mod model;
mod outage;
mod page;
mod process;
mod receivers;
mod relay;
mod scrape;
mod sdk;
mod share;
mod tidy;
mod users;
mod wait;
mod wire;
