//! A source of reports that keeps them in a list and evaluates them in the plainest way: the twin that the real one must equal.

use export::{ReportSource, SourceStopped, Unreadable};
use model::{AggregateOp, Attributes, Keep, Most, Parted, ProjectId, Query, Report, Stamp, Tx, Value, Window, oracle};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// How much faster than real time it runs, so that many windows pass in a test.
const SPEED: u64 = 20;
/// When its time begins.
const EPOCH_SECS: u64 = 1_800_000_000;

pub(crate) struct Twin {
    began: Instant,
    speed: u64,
    reports: Mutex<Vec<Report>>,
    durable: watch::Sender<Stamp>,
    given_up: Mutex<Stamp>,
}

impl Twin {
    pub(crate) fn new() -> Twin {
        Twin::of_speed(SPEED)
    }

    /// One whose time is that of the runtime, however fast that goes.
    pub(crate) fn simulated() -> Twin {
        Twin::of_speed(1)
    }

    fn of_speed(speed: u64) -> Twin {
        Twin {
            speed,
            began: Instant::now(),
            reports: Mutex::default(),
            durable: watch::Sender::new(Stamp::ZERO),
            given_up: Mutex::new(Stamp::ZERO),
        }
    }

    pub(crate) fn time(&self) -> Stamp {
        Stamp::from_secs(EPOCH_SECS).plus_micros(self.began.elapsed().as_micros() as u64 * self.speed)
    }

    /// Accepts reports, each with a stamp of its own.
    pub(crate) fn submit(&self, count: u64) {
        for _ in 0..count {
            let n = self.reports.lock().expect("no panic while held").len();
            self.submit_one(["a", "b", "none"][n % 3]);
        }
    }

    /// Accepts a report of each kind.
    pub(crate) fn submit_kinds(&self, kinds: &[String]) {
        kinds.iter().for_each(|kind| self.submit_one(kind));
    }

    fn submit_one(&self, kind: &str) {
        let mut reports = self.reports.lock().expect("no panic while held");
        let stamp =
            self.time().max(reports.last().map_or(Stamp::ZERO, |last| last.stamp.plus_micros(1))).max(self.durable.borrow().plus_micros(1));
        let n = reports.len() as u64;
        let attributes = Attributes::from_pairs([
            ("n".to_owned(), Value::Float(n as f64 * 0.25)),
            ("user".to_owned(), Value::from(n % 7)),
            ("kind".to_owned(), Value::Text(kind.to_owned())),
        ]);
        reports.push(Report { project: ProjectId(1), tx: Tx(n + 1), stamp, attributes });
        self.durable.send_replace(stamp);
    }

    /// Loses reports up to a stamp, as retention does.
    pub(crate) fn give_up(&self, until: Stamp) {
        self.reports.lock().expect("no panic while held").retain(|report| report.stamp > until);
        *self.given_up.lock().expect("no panic while held") = until;
    }

    fn within(&self, from: Stamp, to: Stamp) -> Vec<Report> {
        self.reports
            .lock()
            .expect("no panic while held")
            .iter()
            .filter(|report| from <= report.stamp && report.stamp < to)
            .cloned()
            .collect()
    }

    pub(crate) fn count(&self, window: Window) -> u64 {
        self.count_between(window.start(), window.end())
    }

    pub(crate) fn count_between(&self, from: Stamp, to: Stamp) -> u64 {
        self.within(from, to).len() as u64
    }

    /// Group values to aggregate values, computed without `model`'s own aggregates.
    pub(crate) fn evaluate_naively(&self, window: Window, query: &Query) -> BTreeMap<Vec<Option<String>>, Vec<Option<f64>>> {
        let mut groups: BTreeMap<Vec<Option<String>>, Vec<Report>> = BTreeMap::new();
        for report in self.within(window.start(), window.end()) {
            let key = query.group.iter().map(|name| report.get(name).map(|value| value.written().into_owned())).collect();
            groups.entry(key).or_default().push(report);
        }
        let value = |reports: &[Report], op, attribute: &str| {
            let numbers: Vec<f64> = reports.iter().filter_map(|report| report.get(attribute)?.number()).map(model::Number::float).collect();
            let distinct: BTreeSet<String> =
                reports.iter().filter_map(|report| report.get(attribute)).map(|value| value.written().into_owned()).collect();
            match op {
                AggregateOp::Count => Some(reports.len() as f64),
                AggregateOp::Unique => Some(distinct.len() as f64),
                AggregateOp::Max => numbers.into_iter().max_by(f64::total_cmp),
                // Quarters add up exactly, whatever the order.
                AggregateOp::Sum => Some(numbers.iter().sum()),
                AggregateOp::Mean => Some(numbers.iter().sum::<f64>() / numbers.len() as f64),
                other => unreachable!("no test asks for {other:?}"),
            }
        };
        groups
            .into_iter()
            .map(|(key, reports)| {
                (key, query.aggregates.iter().map(|aggregate| value(&reports, aggregate.op, &aggregate.attribute)).collect())
            })
            .collect()
    }
}

impl ReportSource for Twin {
    fn now(&self) -> Stamp {
        self.time()
    }

    fn given_up_until(&self) -> Stamp {
        *self.given_up.lock().expect("no panic while held")
    }

    fn durable_stamp(&self) -> watch::Receiver<Stamp> {
        self.durable.subscribe()
    }

    async fn tick(&self) -> Result<(), SourceStopped> {
        let reports = self.reports.lock().expect("no panic while held");
        let now = self.time();
        self.durable.send_if_modified(|durable| {
            let later = now > *durable;
            *durable = now.max(*durable);
            later
        });
        drop(reports);
        Ok(())
    }

    fn evaluate(
        &self,
        _project: ProjectId,
        window: Window,
        queries: &[(&Query, Most<'_>)],
        keep: &Keep<'_>,
    ) -> Result<Vec<Result<Parted, String>>, Unreadable> {
        let reports = self.within(window.start(), window.end());
        let parted =
            |(at, (query, most)): (usize, &(&Query, Most<'_>))| oracle::evaluate_parted(&reports, query, *most, |top| keep(at, top));
        Ok(queries.iter().enumerate().map(|each| Ok(parted(each))).collect())
    }

    fn accepted(&self, _project: ProjectId, window: Window) -> Result<u64, Unreadable> {
        Ok(self.count(window))
    }

    fn refused(&self, _project: ProjectId, _window: Window) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn pin(&self, _stamp: Stamp) {}

    fn holds_push(&self) -> Option<String> {
        None
    }
}
