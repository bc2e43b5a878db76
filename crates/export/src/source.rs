//! The one small trait through which export sees reports. `reports` satisfies it (joined in `server`), a naive twin in tests,
//! and a distributed engine could.

use model::{Keep, Most, Parted, ProjectId, Query, Stamp, Window};
use std::future::Future;
use tokio::sync::watch;

/// Reports as far as export needs them.
pub trait ReportSource: Send + Sync + 'static {
    /// The service clock.
    fn now(&self) -> Stamp;

    /// Reports up to this stamp may be gone: retention has given them up. Zero when none have; it never goes back. Blocks.
    fn given_up_until(&self) -> Stamp;

    /// Everything stamped below this is durable and visible to `evaluate`; it never goes back.
    fn durable_stamp(&self) -> watch::Receiver<Stamp>;

    /// Makes the durable stamp catch up with the clock although nothing arrives.
    fn tick(&self) -> impl Future<Output = Result<(), SourceStopped>> + Send;

    /// Evaluates many queries over one closed window together, each for those groups that may get a seat, of which `keep` says which
    /// do; all others are evaluated as one: what is folded beyond a metric's series budget, exact for every aggregate. What was found,
    /// or the reason why there is nothing, for each.
    /// Blocks; the same arguments always give the same answer. When the reports themselves cannot be read, nothing is sealed and
    /// the caller tries again.
    fn evaluate(
        &self,
        project: ProjectId,
        window: Window,
        queries: &[(&Query, Most<'_>)],
        keep: &Keep<'_>,
    ) -> Result<Vec<Result<Parted, String>>, Unreadable>;

    /// Reports accepted in a closed window.
    fn accepted(&self, project: ProjectId, window: Window) -> Result<u64, Unreadable>;

    /// Submissions refused in a closed window, by reason; reasons without any are left out.
    fn refused(&self, project: ProjectId, window: Window) -> Vec<(String, u64)>;

    /// Windows before this stamp are sealed: retention may pass them.
    fn pin(&self, stamp: Stamp);

    /// Why nothing may be pushed just now: the service clock is too far from the wall's.
    fn holds_push(&self) -> Option<String>;
}

/// The report log takes nothing any more; the process has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the report log has stopped")]
pub struct SourceStopped;

/// Stored reports cannot be read just now.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the reports of a window")]
pub struct Unreadable(#[source] pub Box<dyn std::error::Error + Send + Sync>);
