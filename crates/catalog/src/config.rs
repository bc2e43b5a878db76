//! The configuration as values: what exists now and what was in force at the start of any window still to be sealed.

use crate::attribute::AttributeSetting;
use crate::token::{Access, token_hash};
use crate::user::User;
use model::{PathTemplate, Period, ProjectId, Query, Secret, Stamp, Window};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);
    };
}

id!(
    /// A metric, across its revisions; never reused.
    MetricId
);
id!(
    /// One revision of one metric.
    RevisionId
);
id!(
    /// A metric store, across its revisions; never reused.
    StoreId
);
id!(
    /// A user; never reused, also where a deleted user's name is.
    UserId
);

/// All configuration at one moment. Cheap to share; a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts changes, also over restarts.
    pub version: u64,
    /// Live projects by name.
    pub projects: Vec<Project>,
    /// Metrics, deleted ones included while a window they govern may be unsealed.
    pub metrics: Vec<Metric>,
    /// Stores, deleted ones included likewise.
    pub stores: Vec<Store>,
    /// What each live token may do, by the SHA-256 of its text.
    pub tokens: HashMap<[u8; 32], Access>,
    /// Pull URLs, by the SHA-256 of the URL's secret.
    pub pulls: HashMap<[u8; 32], PullUrl>,
    /// Users by name, disabled ones included.
    pub users: Vec<User>,
    /// What is declared of attributes, by project and attribute.
    pub attribute_settings: Vec<AttributeSetting>,
}

/// A URL at which a pull store is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullUrl {
    /// Whose page it is.
    pub store: StoreId,
    /// When it ends, for one that was rotated away.
    pub until: Option<Stamp>,
}

/// A project.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its number.
    pub id: ProjectId,
    /// Its name, a node of every series path.
    pub name: String,
    /// When it was made.
    pub created: Stamp,
    /// Names of its metric sets, empty ones included.
    pub sets: Vec<String>,
}

/// A metric and its revisions, oldest first.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its number.
    pub id: MetricId,
    /// Whose it is.
    pub project: ProjectId,
    /// The metric set it is in.
    pub set: String,
    /// Its name in the set.
    pub name: String,
    /// When it was deleted.
    pub deleted: Option<Stamp>,
    /// Never empty.
    pub revisions: Vec<MetricRevision>,
}

/// A metric's query at one version.
#[derive(Clone, Debug)]
pub struct MetricRevision {
    /// Its number over all metrics.
    pub id: RevisionId,
    /// 1, 2, ... within the metric.
    pub number: u32,
    /// Windows that start at or after this stamp are its.
    pub begins: Stamp,
    /// What is evaluated.
    pub query: Query,
    /// Seconds for which a group without reports is still exported as 0; `None`: max(1 h, 3 periods).
    pub zero_for: Option<u64>,
    /// Most series of this metric, zero-filled ones included.
    pub series_budget: u32,
}

/// A metric store and its revisions, oldest first.
#[derive(Clone, Debug)]
pub struct Store {
    /// Its number.
    pub id: StoreId,
    /// Whose it is.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// When it was deleted.
    pub deleted: Option<Stamp>,
    /// Paused by a person: points become due but are not sent.
    pub paused: bool,
    /// Secret fields, decrypted; they apply at once, to the backlog too.
    pub secrets: BTreeMap<String, Secret>,
    /// Never empty.
    pub revisions: Vec<StoreRevision>,
}

/// A store's settings at one version.
#[derive(Clone, Debug)]
pub struct StoreRevision {
    /// 1, 2, ... within the store.
    pub number: u32,
    /// Windows that start at or after this stamp are its.
    pub begins: Stamp,
    /// What was set.
    pub settings: StoreSettings,
}

/// What a user sets on a store, secrets apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreSettings {
    /// The adapter's name.
    pub adapter: String,
    /// Seconds between points.
    pub period: Period,
    /// Attached metric sets by name.
    pub sets: Vec<String>,
    /// First node of every series path, where the template has it.
    pub prefix: String,
    /// Which nodes the path of a metric's series has.
    #[serde(default)]
    pub template: PathTemplate,
    /// Names of labels by the attribute that they come from, where they are others.
    #[serde(default)]
    pub label_names: BTreeMap<String, String>,
    /// Labels added to every series.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Longest time in seconds that points wait for a store that is down.
    pub horizon_secs: u64,
    /// Whether windows become due at all.
    pub enabled: bool,
    /// The adapter's own fields, secrets apart.
    pub fields: Map<String, Json>,
}

impl Snapshot {
    /// A live project by name.
    pub fn project(&self, name: &str) -> Option<&Project> {
        self.projects.iter().find(|project| project.name == name)
    }

    /// A live store by name.
    pub fn store(&self, project: ProjectId, name: &str) -> Option<&Store> {
        self.stores.iter().find(|store| store.project == project && store.name == name && store.deleted.is_none())
    }

    /// A store by number, deleted or not.
    pub fn store_by_id(&self, id: StoreId) -> Option<&Store> {
        self.stores.iter().find(|store| store.id == id)
    }

    /// The store behind a pull URL with this secret. Found by hash: how long it takes says nothing about how much of a guess was right.
    pub fn store_at(&self, secret: &str, now: Stamp) -> Option<&Store> {
        let url = self.pulls.get(&token_hash(secret)).filter(|url| url.until.is_none_or(|until| now < until))?;
        self.store_by_id(url.store)
    }

    /// A live metric by name.
    pub fn metric(&self, project: ProjectId, set: &str, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.project == project && metric.set == set && metric.name == name && metric.deleted.is_none())
    }

    /// The stores whose settings in force at the window's start make it due, with those settings.
    pub fn stores_due(&self, project: ProjectId, window: Window) -> impl Iterator<Item = (&Store, &StoreRevision)> {
        self.stores.iter().filter(move |store| store.project == project).filter_map(move |store| {
            let revision = store.in_force(window.start())?;
            (revision.settings.enabled && revision.settings.period == window.period()).then_some((store, revision))
        })
    }

    /// The metrics of the named sets in force at the window's start, with their revisions.
    pub fn metrics_due<'a>(
        &'a self,
        project: ProjectId,
        window: Window,
        sets: &'a [String],
    ) -> impl Iterator<Item = (&'a Metric, &'a MetricRevision)> {
        self.metrics
            .iter()
            .filter(move |metric| metric.project == project && sets.contains(&metric.set))
            .filter_map(move |metric| metric.in_force(window.start()).map(|revision| (metric, revision)))
    }

    /// When a store of the project began or ceased to govern windows, oldest first.
    pub fn attachment_changes(&self, project: ProjectId) -> Vec<Stamp> {
        let mut stamps: Vec<Stamp> = Vec::new();
        for store in self.stores.iter().filter(|store| store.project == project) {
            stamps.extend((0..store.revisions.len()).map(|at| store.takes_over(at)).flat_map(|(end, begin)| [end, begin]));
            stamps.extend(store.deleted);
        }
        stamps.sort_unstable();
        stamps.dedup();
        stamps
    }

    /// Every grid (project and period) that some revision ever used, with the stamps at which its configuration changed.
    pub fn grids(&self) -> BTreeMap<(ProjectId, Period), Vec<Stamp>> {
        let mut grids: BTreeMap<_, Vec<Stamp>> = BTreeMap::new();
        for store in &self.stores {
            for (at, revision) in store.revisions.iter().enumerate() {
                grids.entry((store.project, revision.settings.period)).or_default().push(store.takes_over(at).1);
            }
        }
        grids.values_mut().for_each(|stamps| stamps.sort_unstable());
        grids
    }
}

impl Metric {
    /// The revision that governs a window starting at `start`.
    pub fn in_force(&self, start: Stamp) -> Option<&MetricRevision> {
        if self.deleted.is_some_and(|deleted| deleted <= start) {
            return None;
        }
        self.revisions.iter().rev().find(|revision| revision.begins <= start)
    }

    /// The newest revision.
    pub fn newest(&self) -> &MetricRevision {
        self.revisions.last().expect("a metric is made with its first revision")
    }
}

impl Store {
    /// The revision that governs a window starting at `start`.
    pub fn in_force(&self, start: Stamp) -> Option<&StoreRevision> {
        if self.deleted.is_some_and(|deleted| deleted <= start) {
            return None;
        }
        let at = (0..self.revisions.len()).rev().find(|&at| self.takes_over(at).1 <= start)?;
        let ended = at + 1 < self.revisions.len() && self.takes_over(at + 1).0 <= start;
        (!ended).then(|| &self.revisions[at])
    }

    /// When a revision's predecessor governs its last window, and from when on the revision itself governs. They differ only
    /// where a change of period finds no boundary of both grids within twice the larger period: between them is a gap.
    pub(crate) fn takes_over(&self, at: usize) -> (Stamp, Stamp) {
        let begins = self.revisions[at].begins;
        let Some(before) = at.checked_sub(1) else { return (begins, begins) };
        // An edit while a change of period still waits for its boundary waits with it.
        let begins = begins.max(self.takes_over(before).1);
        let (old, new) = (self.revisions[before].settings.period, self.revisions[at].settings.period);
        if old == new {
            return (begins, begins);
        }
        let (old_secs, new_secs) = (u64::from(old.secs()), u64::from(new.secs()));
        let common_secs = old_secs / greatest_common_divisor(old_secs, new_secs) * new_secs;
        let common = Stamp::from_secs(begins.micros().div_ceil(common_secs * 1_000_000) * common_secs);
        if common.since(begins) <= 2 * old_secs.max(new_secs) * 1_000_000 {
            return (common, common);
        }
        let end = old.first_window_from(begins).start();
        (end, new.first_window_from(end).start())
    }

    /// When the newest revision begins to govern, and the seconds of the gap before it, if its period makes one.
    pub fn newest_governs_from(&self) -> (Stamp, u64) {
        let (end, begin) = self.takes_over(self.revisions.len() - 1);
        (begin, begin.since(end) / 1_000_000)
    }

    /// The newest revision: its address and secrets serve the backlog too.
    pub fn newest(&self) -> &StoreRevision {
        self.revisions.last().expect("a store is made with its first revision")
    }

    /// The adapter's fields of a revision together with the secrets of now.
    pub fn fields(&self, revision: &StoreRevision) -> Map<String, Json> {
        let mut fields = revision.settings.fields.clone();
        fields.extend(self.adapter_secrets().map(|(name, secret)| (name.clone(), Json::from(secret.reveal()))));
        fields
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store whose revisions begin at (second, period).
    fn store(revisions: &[(u64, u32)]) -> Store {
        let revision = |(number, &(begins, period)): (usize, &(u64, u32))| StoreRevision {
            number: number as u32 + 1,
            begins: Stamp::from_secs(begins),
            settings: StoreSettings {
                adapter: "graphite".into(),
                period: Period::new(period).expect("legal"),
                sets: Vec::new(),
                prefix: "p".into(),
                template: PathTemplate::default(),
                label_names: BTreeMap::new(),
                labels: BTreeMap::new(),
                horizon_secs: 1,
                enabled: true,
                fields: Map::new(),
            },
        };
        Store {
            id: StoreId(1),
            project: ProjectId(1),
            name: "s".into(),
            deleted: None,
            paused: false,
            secrets: BTreeMap::new(),
            revisions: revisions.iter().enumerate().map(revision).collect(),
        }
    }

    /// The windows in which some revision is due, as (start, period), up to second 300.
    fn due(store: &Store) -> Vec<(u64, u32)> {
        let starts = (0..300).filter_map(|start| {
            let revision = store.in_force(Stamp::from_secs(start))?;
            let period = revision.settings.period;
            (start % u64::from(period.secs()) == 0).then_some((start, period.secs()))
        });
        starts.collect()
    }

    #[test]
    fn a_change_of_period_waits_for_a_common_boundary() {
        let windows = due(&store(&[(0, 10), (41, 60)]));
        assert!(windows.windows(2).all(|pair| pair[0].0 + u64::from(pair[0].1) == pair[1].0), "the windows tile: {windows:?}");
        assert_eq!(windows[4..8], [(40, 10), (50, 10), (60, 60), (120, 60)]);
    }

    #[test]
    fn an_edit_while_a_change_of_period_waits_makes_no_hole() {
        for revisions in [&[(0, 10), (41, 60), (43, 60)][..], &[(0, 60), (61, 10), (65, 10)]] {
            let windows = due(&store(revisions));
            assert!(windows.windows(2).all(|pair| pair[0].0 + u64::from(pair[0].1) == pair[1].0), "{revisions:?}: {windows:?}");
        }
    }

    #[test]
    fn where_there_is_no_near_boundary_a_gap_lies_between_the_grids() {
        let store = store(&[(0, 7), (50, 11)]);
        let windows = due(&store);
        assert_eq!(windows[6..10], [(42, 7), (49, 7), (66, 11), (77, 11)], "{windows:?}");
        assert_eq!(store.newest_governs_from(), (Stamp::from_secs(66), 10));
    }
}
