//! Recent reports in memory, for evaluation without reading the log, and what is known of attributes. Bounded in bytes.

use model::{ProjectId, Report, Stamp, Value};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Attribute names remembered of one project; further ones are only counted (reliability 5.4 no. 18).
const MAX_NAMES: usize = 10_000;
/// What a report costs beside its texts, roughly.
const ROW_BYTES: usize = 96;
const ATTRIBUTE_BYTES: usize = 56;

/// How often an attribute was seen, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributeSummary {
    /// Its name.
    pub name: String,
    /// Reports in which it was text.
    pub texts: u64,
    /// Reports in which it was a number.
    pub numbers: u64,
    /// Reports in which it was true or false.
    pub booleans: u64,
}

pub(crate) struct Memory {
    projects: HashMap<ProjectId, Rows>,
    /// Reports stamped at or after this are all here.
    complete_from: Stamp,
    bytes: usize,
    limit_bytes: usize,
    /// Oldest first over all projects, to know what to let go.
    order: VecDeque<(ProjectId, Stamp, usize)>,
}

#[derive(Default)]
struct Rows {
    /// In the order of stamp and number.
    reports: VecDeque<Arc<Report>>,
    attributes: HashMap<String, [u64; 3]>,
}

impl Memory {
    pub(crate) fn new(limit_bytes: usize) -> Memory {
        Memory { projects: HashMap::new(), complete_from: Stamp::ZERO, bytes: 0, limit_bytes, order: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, report: Arc<Report>) {
        let bytes = size(&report);
        let rows = self.projects.entry(report.project).or_default();
        for (name, value) in report.attributes.iter() {
            let full = rows.attributes.len() >= MAX_NAMES;
            let counts = match rows.attributes.get_mut(name) {
                Some(counts) => counts,
                None if full => continue,
                None => rows.attributes.entry(name.to_owned()).or_default(),
            };
            counts[match value {
                Value::Text(_) => 0,
                Value::Int(_) | Value::UInt(_) | Value::Float(_) => 1,
                Value::Bool(_) => 2,
            }] += 1;
        }
        self.order.push_back((report.project, report.stamp, bytes));
        self.bytes += bytes;
        rows.reports.push_back(report);
        while self.bytes > self.limit_bytes && self.order.len() > 1 {
            let (project, stamp, bytes) = self.order.pop_front().expect("not empty");
            self.projects.get_mut(&project).expect("it has rows").reports.pop_front();
            self.bytes -= bytes;
            // Of the reports with this very stamp some may have gone: only what is later is complete.
            self.complete_from = stamp.plus_micros(1);
        }
    }

    pub(crate) fn complete_from(&self) -> Stamp {
        self.complete_from
    }

    /// The project's reports in the span that are here.
    pub(crate) fn rows(&self, project: ProjectId, span: &Range<Stamp>) -> Vec<Arc<Report>> {
        let Some(rows) = self.projects.get(&project) else { return Vec::new() };
        let from = rows.reports.partition_point(|report| report.stamp < span.start.max(self.complete_from));
        let to = rows.reports.partition_point(|report| report.stamp < span.end);
        rows.reports.range(from..to.max(from)).cloned().collect()
    }

    /// How many there are in the span, of those that are here.
    pub(crate) fn count(&self, project: ProjectId, span: &Range<Stamp>) -> u64 {
        let Some(rows) = self.projects.get(&project) else { return 0 };
        let from = rows.reports.partition_point(|report| report.stamp < span.start.max(self.complete_from));
        let to = rows.reports.partition_point(|report| report.stamp < span.end);
        to.saturating_sub(from) as u64
    }

    pub(crate) fn attributes(&self, project: ProjectId) -> Vec<AttributeSummary> {
        let Some(rows) = self.projects.get(&project) else { return Vec::new() };
        let mut attributes: Vec<AttributeSummary> = rows
            .attributes
            .iter()
            .map(|(name, [texts, numbers, booleans])| AttributeSummary {
                name: name.clone(),
                texts: *texts,
                numbers: *numbers,
                booleans: *booleans,
            })
            .collect();
        attributes.sort_by(|a, b| a.name.cmp(&b.name));
        attributes
    }
}

fn size(report: &Report) -> usize {
    let texts: usize =
        report.attributes.iter().map(|(name, value)| name.len() + if let Value::Text(text) = value { text.len() } else { 0 }).sum();
    ROW_BYTES + report.attributes.len() * ATTRIBUTE_BYTES + texts
}
