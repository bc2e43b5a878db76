//! Joins `reports` and the door's counts to what `export` asks for.

use crate::intake::Intake;
use export::{ReportSource, SourceStopped, Unreadable};
use model::{Keep, Most, Parted, ProjectId, Query, Stamp, Window};
use reports::{AppendError, Cancel, Reports, View};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between tries to advance the durable stamp while the log takes nothing.
const TICK_RETRY: Duration = Duration::from_millis(500);

pub(crate) struct Source {
    pub(crate) reports: Arc<Reports>,
    pub(crate) intake: Arc<Intake>,
}

impl ReportSource for Source {
    fn now(&self) -> Stamp {
        self.reports.now()
    }

    fn given_up_until(&self) -> Stamp {
        self.reports.given_up_until()
    }

    fn durable_stamp(&self) -> watch::Receiver<Stamp> {
        self.reports.durable_stamp()
    }

    async fn tick(&self) -> Result<(), SourceStopped> {
        match self.reports.tick().await {
            Ok(_) => Ok(()),
            Err(AppendError::Stopped) => Err(SourceStopped),
            // The log is busy or the disk full: the stamp catches up once that has passed.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the durable stamp cannot advance");
                tokio::time::sleep(TICK_RETRY).await;
                Ok(())
            }
        }
    }

    fn evaluate(
        &self,
        project: ProjectId,
        window: Window,
        queries: &[(&Query, Most<'_>)],
        keep: &Keep<'_>,
    ) -> Result<Vec<Result<Parted, String>>, Unreadable> {
        let span = window.start()..window.end();
        let answers = self.reports.evaluate_parted(project, span, View::Accepted, queries, keep, &Cancel::default());
        let answers = answers.map_err(|error| Unreadable(error.into()))?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| error.to_string())).collect())
    }

    fn accepted(&self, project: ProjectId, window: Window) -> Result<u64, Unreadable> {
        self.reports.accepted(project, window.start()..window.end()).map_err(|error| Unreadable(error.into()))
    }

    fn refused(&self, project: ProjectId, window: Window) -> Vec<(String, u64)> {
        self.intake.refused(project, window)
    }

    fn pin(&self, stamp: Stamp) {
        self.reports.pin(stamp);
    }

    fn holds_push(&self) -> Option<String> {
        self.reports.clock_status().holds_push()
    }
}
