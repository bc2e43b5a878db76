//! Counts of the door: submissions accepted, repeated, refused, in all and by second, so that windows can show refusals.
//!
//! Refusals are not in the log: those of windows open at a restart are lost, accepted reports never are.

use model::{ProjectId, Stamp, Window};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Seconds of refusals kept for windows still to be sealed: the longest window and an hour.
const KEPT_SECS: u64 = 86_400 + 3_600;

/// Why the server itself refused, beside the reasons of `ingest`.
pub(crate) const SERVER_REASONS: [&str; 9] =
    ["no_token", "unknown_token", "over_rate", "over_share", "too_large", "timed_out", "busy", "disk_full", "log"];

/// Refusals of a project that are told in words.
const TOLD: usize = 20;
/// Longest words of one, in bytes.
const WORDS: usize = 500;

/// A submission that was refused, as its sender was told.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Refusal {
    /// Unix seconds.
    pub(crate) at: u64,
    /// The HTTP status.
    pub(crate) status: u16,
    /// As it is counted.
    pub(crate) reason: &'static str,
    /// What is wrong and what would mend it.
    pub(crate) detail: String,
}

/// What came in at the door for one project, since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ProjectTotals {
    /// accepted + duplicate + refused.
    pub(crate) submissions: u64,
    pub(crate) accepted: u64,
    pub(crate) duplicate: u64,
    /// By reason.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

/// Counters of the door.
#[derive(Default)]
pub(crate) struct Intake(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    accepted: u64,
    duplicate: u64,
    refused: BTreeMap<&'static str, u64>,
    projects: HashMap<ProjectId, ProjectTotals>,
    /// The last few of each project, oldest first.
    newest: HashMap<ProjectId, VecDeque<Refusal>>,
    /// By project and second, then reason.
    recent: HashMap<ProjectId, BTreeMap<u64, BTreeMap<&'static str, u64>>>,
}

/// Totals since the process started.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    pub(crate) accepted: u64,
    pub(crate) duplicate: u64,
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

impl Intake {
    pub(crate) fn accept(&self, project: ProjectId, duplicate: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if duplicate {
            counts.duplicate += 1
        } else {
            counts.accepted += 1
        }
        let of_project = counts.projects.entry(project).or_default();
        of_project.submissions += 1;
        if duplicate { of_project.duplicate += 1 } else { of_project.accepted += 1 }
    }

    /// Counts a refusal; those of unknown senders belong to no project.
    pub(crate) fn refuse(&self, project: Option<ProjectId>, status: u16, reason: &'static str, detail: &str, now: Stamp) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.refused.entry(reason).or_default() += 1;
        if let Some(project) = project {
            let of_project = counts.projects.entry(project).or_default();
            of_project.submissions += 1;
            *of_project.refused.entry(reason).or_default() += 1;
            let newest = counts.newest.entry(project).or_default();
            if newest.len() == TOLD {
                newest.pop_front();
            }
            let detail = detail[..detail.floor_char_boundary(WORDS)].to_owned();
            newest.push_back(Refusal { at: now.secs(), status, reason, detail });
            let seconds = counts.recent.entry(project).or_default();
            *seconds.entry(now.secs()).or_default().entry(reason).or_default() += 1;
            while seconds.first_key_value().is_some_and(|(second, _)| *second + KEPT_SECS < now.secs()) {
                seconds.pop_first();
            }
        }
    }

    /// Refusals of a project in a window, by reason.
    pub(crate) fn refused(&self, project: ProjectId, window: Window) -> Vec<(String, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum: BTreeMap<&'static str, u64> = BTreeMap::new();
        let seconds = counts.recent.get(&project).into_iter().flat_map(|seconds| seconds.range(window.start_secs()..window.end_secs()));
        for (reason, count) in seconds.flat_map(|(_, reasons)| reasons) {
            *sum.entry(reason).or_default() += count;
        }
        sum.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
    }

    /// The newest refusals of a project since the start, newest first.
    pub(crate) fn newest(&self, project: ProjectId) -> Vec<Refusal> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.newest.get(&project).into_iter().flat_map(|newest| newest.iter().rev()).cloned().collect()
    }

    /// Submissions of a project accepted and refused since the start.
    pub(crate) fn seen(&self, project: ProjectId) -> (u64, u64) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.projects.get(&project).map_or((0, 0), |totals| (totals.accepted, totals.submissions - totals.accepted - totals.duplicate))
    }

    /// One project's totals since the start.
    pub(crate) fn project(&self, project: ProjectId) -> ProjectTotals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).projects.get(&project).cloned().unwrap_or_default()
    }

    /// Totals since the start, every reason there.
    pub(crate) fn totals(&self) -> Totals {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused: BTreeMap<&'static str, u64> = SERVER_REASONS.into_iter().map(|reason| (reason, 0)).collect();
        refused.extend(ingest::Reason::ALL.iter().map(|reason| (reason.label(), 0)));
        refused.extend(&counts.refused);
        Totals { accepted: counts.accepted, duplicate: counts.duplicate, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Period;

    #[test]
    fn refusals_fall_in_the_window_of_their_second_and_project() {
        let intake = Intake::default();
        let at = |seconds| Stamp::from_secs(seconds);
        intake.refuse(Some(ProjectId(1)), 503, "busy", "try again soon", at(59));
        intake.refuse(Some(ProjectId(1)), 503, "busy", "try again soon", at(60));
        intake.refuse(Some(ProjectId(1)), 503, "too_large", "try again soon", at(119));
        intake.refuse(Some(ProjectId(2)), 503, "busy", "try again soon", at(60));
        intake.refuse(None, 503, "no_token", "try again soon", at(60));
        let window = Window::new(60, Period::new(60).expect("legal")).expect("on the grid");
        assert_eq!(intake.refused(ProjectId(1), window), [("busy".to_owned(), 1), ("too_large".to_owned(), 1)]);
        intake.accept(ProjectId(1), false);
        intake.accept(ProjectId(1), true);
        let of_project = intake.project(ProjectId(1));
        assert_eq!((of_project.submissions, of_project.accepted, of_project.duplicate, of_project.refused["busy"]), (5, 1, 1, 2));
        assert_eq!(intake.project(ProjectId(3)), ProjectTotals::default());
        assert_eq!(intake.totals().refused["busy"], 3);
        assert_eq!(intake.totals().refused["malformed_json"], 0);
        intake.refuse(Some(ProjectId(1)), 503, "busy", "try again soon", at(60 + KEPT_SECS + 60));
        let newest = intake.newest(ProjectId(1));
        assert_eq!(newest.iter().map(|refusal| refusal.reason).collect::<Vec<_>>(), ["busy", "too_large", "busy", "busy"]);
        assert_eq!((intake.newest(ProjectId(2)).len(), intake.seen(ProjectId(1)), intake.seen(ProjectId(3))), (1, (1, 4), (0, 0)));
        for _ in 0..2 * TOLD {
            intake.refuse(Some(ProjectId(2)), 400, "malformed_json", &"ä".repeat(WORDS), at(60));
        }
        let newest = intake.newest(ProjectId(2));
        assert!(newest.len() == TOLD && newest.iter().all(|refusal| refusal.detail.len() <= WORDS && refusal.reason == "malformed_json"));
        assert_eq!(intake.refused(ProjectId(1), window), [], "what no window can need any more is forgotten");
    }
}
