//! Is it alive, is it ready, how is it doing: `/healthz`, `/readyz`, `/metrics`.
//!
//! `/metrics` needs no token and so names no project; what stores of which project do is in the API.

use crate::app::App;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::Total;
use std::fmt::Write;
use std::sync::Arc;

/// The process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The process takes reports: the log is open and its writer lives.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.reports.is_open() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the report log has stopped\n").into_response()
    }
}

/// Our own figures in Prometheus text 0.0.4; every counter is there from the start.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, crate::reply::Refusal> {
    let totals = app.catalog(|app, _| app.catalog.totals()).await?;
    let mut page = Page::default();
    let intake = app.intake.totals();
    page.family("crashmeter_submissions_total", "counter", "Submissions by outcome.");
    page.sample("crashmeter_submissions_total", &[("outcome", "accepted")], intake.accepted as f64);
    page.sample("crashmeter_submissions_total", &[("outcome", "duplicate")], intake.duplicate as f64);
    page.sample("crashmeter_submissions_total", &[("outcome", "refused")], intake.refused.values().sum::<u64>() as f64);
    page.family("crashmeter_submissions_refused_total", "counter", "Refused submissions by reason.");
    for (reason, count) in &intake.refused {
        page.sample("crashmeter_submissions_refused_total", &[("reason", reason)], *count as f64);
    }
    let log = app.reports.figures();
    page.one("crashmeter_log_reports_total", "counter", "Reports committed to the log.", log.appended as f64);
    page.one("crashmeter_log_commits_total", "counter", "Groups committed to the log, each one fdatasync.", log.commits as f64);
    page.one("crashmeter_log_bytes_total", "counter", "Bytes written to the log.", log.bytes as f64);
    page.one("crashmeter_log_sync_seconds_total", "counter", "Time spent in fdatasync.", log.sync_micros as f64 / 1e6);
    page.one("crashmeter_log_queue_depth", "gauge", "Reports waiting for their commit.", log.queue_depth as f64);
    let seals = app.export.seal_figures();
    page.one("crashmeter_windows_sealed_total", "counter", "Windows sealed.", seals.windows as f64);
    page.one("crashmeter_metrics_failed_total", "counter", "Metrics sealed as failed.", seals.metrics_failed as f64);
    page.one("crashmeter_gaps_total", "counter", "Gaps recorded after downtime.", seals.gaps as f64);
    page.one(
        "crashmeter_seal_lag_seconds",
        "gauge",
        "From the end of the last window to the end of its seal.",
        seals.last_lag_micros as f64 / 1e6,
    );
    let clock = app.reports.clock_status();
    page.one("crashmeter_clock_offset_seconds", "gauge", "Service clock less wall clock.", clock.offset_seconds());
    page.one(
        "crashmeter_clock_suspect",
        "gauge",
        "1 while the wall clock is not believed: it has stepped ahead, or was far ahead of all reports at the start.",
        f64::from(u8::from(clock.is_suspect())),
    );
    // One row a store: what a scrape costs does not grow with the history.
    let mut sum = Total::default();
    let (mut attempts, mut failures, mut imbalance) = (0, 0, 0i128);
    for (store, total) in &totals {
        sum.points.add(&total.points);
        sum.windows += total.windows;
        imbalance += total.points.imbalance().abs();
        let figures = app.export.delivery_figures(*store);
        attempts += figures.attempts;
        failures += figures.failures;
    }
    page.one("crashmeter_ledger_windows", "gauge", "Windows owed to push stores, deleted ones included.", sum.windows as f64);
    let sum = sum.points;
    page.family(
        "crashmeter_ledger_points",
        "gauge",
        "Points owed to push stores, deleted ones included, by fate: due is the sum of the others.",
    );
    for (fate, points) in [
        ("due", sum.due),
        ("confirmed", sum.confirmed),
        ("sent", sum.sent),
        ("refused", sum.refused),
        ("excluded", sum.excluded),
        ("open", sum.open),
        ("expired", sum.expired),
        ("cancelled", sum.cancelled),
    ] {
        page.sample("crashmeter_ledger_points", &[("fate", fate)], points as f64);
    }
    page.one(
        "crashmeter_ledger_imbalance",
        "gauge",
        "Points by which the ledger does not add up: 0 unless there is a defect.",
        imbalance as f64,
    );
    page.one("crashmeter_delivery_attempts_total", "counter", "Attempts to push stores.", attempts as f64);
    page.one("crashmeter_delivery_failures_total", "counter", "Attempts that have to be repeated.", failures as f64);
    page.one("crashmeter_disk_free_bytes", "gauge", "Free on the disk of the data folder.", app.disk.free() as f64);
    page.one("crashmeter_disk_reserve_bytes", "gauge", "Below this, reports are refused.", app.disk.reserve() as f64);
    page.one("crashmeter_event_streams", "gauge", "Event streams that are open.", app.streams.open() as f64);
    page.one("crashmeter_uptime_seconds", "gauge", "Since the process started.", app.started.elapsed().as_secs_f64());
    page.family("crashmeter_build_info", "gauge", "The running version.");
    page.sample("crashmeter_build_info", &[("version", crate::VERSION)], 1.0);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.0).into_response())
}

/// Writes the text format for names and label values of our own choosing, which need no escapes.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let _ = match labels.is_empty() {
            true => writeln!(self.0, "{name} {value}"),
            false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}
