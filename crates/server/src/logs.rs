//! Structured logs to standard error. What goes in is named field by field at each call, so that no secret comes along.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// JSON lines, or plain text for a person at a terminal. `filter` is in the syntax of `tracing` (such as `info,export=debug`).
pub(crate) fn start(json: bool, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_span_events(FmtSpan::NONE).with_writer(std::io::stderr);
    if json {
        builder.json().flatten_event(true).with_current_span(false).init();
    } else {
        builder.compact().with_target(false).init();
    }
}
