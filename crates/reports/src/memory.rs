//! Recent reports in memory, for evaluation without reading the log. Bounded in bytes.

use crate::names::Names;
use model::{Attributes, ProjectId, Report, Stamp, Value};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// What a report and one of its attributes cost beside their texts: their own size and what the allocator adds, roughly.
const ROW_BYTES: usize = 128;
const ATTRIBUTE_BYTES: usize = 88;

pub(crate) struct Memory {
    /// By project, in the order of stamp and number.
    projects: HashMap<ProjectId, VecDeque<Arc<Report>>>,
    /// Of all reports in the log, not only those here.
    pub(crate) names: Names,
    /// Reports stamped at or after this are all here.
    complete_from: Stamp,
    bytes: usize,
    limit_bytes: usize,
    /// Oldest first over all projects, to know what to let go.
    order: VecDeque<(ProjectId, Stamp, usize)>,
}

impl Memory {
    pub(crate) fn new(limit_bytes: usize) -> Memory {
        let (projects, order) = (HashMap::new(), VecDeque::new());
        Memory { projects, names: Names::default(), complete_from: Stamp::ZERO, bytes: 0, limit_bytes, order }
    }

    /// Takes a report that is later than all that are here.
    pub(crate) fn add(&mut self, report: Arc<Report>) {
        let bytes = row_bytes(&report);
        self.order.push_back((report.project, report.stamp, bytes));
        self.bytes += bytes;
        self.projects.entry(report.project).or_default().push_back(report);
        while self.bytes > self.limit_bytes && self.order.len() > 1 {
            let (project, stamp, bytes) = self.order.pop_front().expect("not empty");
            self.projects.get_mut(&project).expect("it has rows").pop_front();
            self.bytes -= bytes;
            // Of the reports with this very stamp some may have gone: only what is later is complete.
            self.leave_out(stamp);
        }
    }

    /// Says that reports up to this stamp may be missing here.
    pub(crate) fn leave_out(&mut self, stamp: Stamp) {
        self.complete_from = self.complete_from.max(stamp.plus_micros(1));
    }

    pub(crate) fn complete_from(&self) -> Stamp {
        self.complete_from
    }

    /// The project's reports in the span, of those that are here.
    pub(crate) fn rows(&self, project: ProjectId, span: &Range<Stamp>) -> impl ExactSizeIterator<Item = &Arc<Report>> {
        static NONE: VecDeque<Arc<Report>> = VecDeque::new();
        let rows = self.projects.get(&project).unwrap_or(&NONE);
        let from = rows.partition_point(|report| report.stamp < span.start.max(self.complete_from));
        let to = rows.partition_point(|report| report.stamp < span.end);
        rows.range(from..to.max(from))
    }
}

/// What a report takes in memory, roughly.
pub(crate) fn row_bytes(report: &Report) -> usize {
    ROW_BYTES + attribute_bytes(&report.attributes)
}

/// What attributes take in memory, roughly.
pub(crate) fn attribute_bytes(attributes: &Attributes) -> usize {
    let text = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
    attributes.iter().map(|(name, value)| ATTRIBUTE_BYTES + name.len() + text(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Tx;

    #[test]
    fn what_is_let_go_is_never_taken_for_complete() {
        let report = |tx: u64, stamp: u64| {
            let attributes = Attributes::from_pairs([("text".to_owned(), Value::from("x".repeat(500)))]);
            Arc::new(Report { project: ProjectId(tx as u32 % 2), tx: Tx(tx), stamp: Stamp::from_secs(stamp), attributes })
        };
        let mut memory = Memory::new(5_000);
        // Pairs of reports share a stamp.
        (0..20).for_each(|tx| memory.add(report(tx, tx / 2)));
        let all = Stamp::ZERO..Stamp::from_secs(100);
        let held: Vec<u64> = (0..2).flat_map(|project| memory.rows(ProjectId(project), &all).map(|report| report.tx.0)).collect();
        let complete_from = memory.complete_from();
        assert!(memory.bytes <= 5_000 && complete_from > Stamp::ZERO);
        assert_eq!(held.len() as u64, (0..20).filter(|tx| Stamp::from_secs(tx / 2) >= complete_from).count() as u64);
        assert!(held.len() >= 4, "most of the memory is used");
    }
}
