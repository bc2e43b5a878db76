//! The part of a reply beside the answer: who asked, of what, and how long each phase really took.

use serde_json::{Value as Json, json};
use std::time::Instant;

/// Marks the end of each phase of a query.
pub(super) struct Stopwatch {
    last: Instant,
}

/// Phases of a query in microseconds. Rows are filtered, grouped and aggregated in one scan, so these three have one time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phases {
    /// Reading the request.
    pub(super) parse: u64,
    /// The scan.
    pub(super) scan: u64,
    /// Finishing the folds and `having`.
    pub(super) folds: u64,
    /// Sorting groups.
    pub(super) sort: u64,
    /// Changing rows.
    pub(super) set: u64,
    /// Writing the answer.
    pub(super) render: u64,
}

/// How much each phase had before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Conditions of the filter.
    pub(super) filters: usize,
    /// Rows that passed it.
    pub(super) rows: u64,
    /// Groups of these.
    pub(super) groups: u64,
    /// Folds.
    pub(super) folds: usize,
    /// Rows and groups that `having` kept.
    pub(super) kept: (u64, u64),
}

impl Stopwatch {
    pub(super) fn start() -> Stopwatch {
        Stopwatch { last: Instant::now() }
    }

    /// Microseconds since the start or the last lap.
    pub(super) fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let lap = now.duration_since(self.last).as_micros() as u64;
        self.last = now;
        lap
    }
}

/// Whom an answer is for.
pub(super) struct About<'a> {
    pub(super) user: &'a str,
    pub(super) universe: &'a str,
    pub(super) project: &'a str,
    /// Highest object number there was.
    pub(super) tx: u64,
}

/// The object `_` of a reply.
pub(super) fn meta(about: &About<'_>, phases: &Phases, counts: &Counts) -> Json {
    let executed = phases.parse + phases.scan + phases.folds + phases.sort + phases.set;
    let total = executed + phases.render;
    let (kept_rows, kept_groups) = counts.kept;
    json!({
        "user": about.user, "universe": about.universe, "project": about.project, "latency": latency(total), "tx": about.tx, "navigation": [],
        "runtime": {
            "filter": {"time": phases.scan, "rows": counts.rows, "n_filters": counts.filters, "breakdown": []},
            "group_by": {"time": 0, "groups": counts.groups, "rows": counts.rows},
            "aggregate": {"pre_sort": phases.folds, "post_sort": 0, "pre_having": 0, "n_aggregates": counts.folds, "breakdown": []},
            "having": {"time": 0, "groups": kept_groups, "rows": kept_rows, "ungroup": 0},
            "sort": {"time": phases.sort, "groups": kept_groups, "rows": kept_rows},
            "set": {"time": phases.set},
            "merge": {"time": 0},
            "render": {"time": phases.render},
            "ungrouped": {"time": 0, "having": 0, "subqueries": []},
            "toplevel": {
                "parse_end": phases.parse, "execute_begin": phases.parse, "execute_end": executed, "print_begin": executed, "print_end": total,
            },
            "total_time": total,
        },
    })
}

fn latency(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} us"),
        10_000..10_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{} s", micros / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_add_up_to_the_whole() {
        let phases = Phases { parse: 1, scan: 20, folds: 3, sort: 4, set: 5, render: 6 };
        let counts = Counts { filters: 2, rows: 9, groups: 3, folds: 1, kept: (5, 2) };
        let meta = meta(&About { user: "u", universe: "main", project: "p", tx: 7 }, &phases, &counts);
        let runtime = &meta["runtime"];
        assert_eq!((&runtime["total_time"], &meta["latency"], &meta["tx"]), (&json!(39), &json!("39 us"), &json!(7)));
        assert_eq!((&runtime["filter"]["rows"], &runtime["sort"]["groups"]), (&json!(9), &json!(2)));
        assert_eq!(runtime["toplevel"]["print_end"], runtime["total_time"]);
        assert_eq!([9_999, 10_000, 12_345_678].map(latency), ["9999 us", "10 ms", "12 s"]);
    }
}
