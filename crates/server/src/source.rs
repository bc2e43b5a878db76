//! Joins `reports` and the door's counts to what `export` asks for.

use crate::intake::Intake;
use export::{ReportSource, SourceStopped, Unreadable};
use model::{ProjectId, Query, Stamp, Table, Window};
use reports::Reports;
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) struct Source {
    pub(crate) reports: Arc<Reports>,
    pub(crate) intake: Arc<Intake>,
}

impl ReportSource for Source {
    fn now(&self) -> Stamp {
        self.reports.now()
    }

    fn durable_stamp(&self) -> watch::Receiver<Stamp> {
        self.reports.durable_stamp()
    }

    async fn tick(&self) -> Result<(), SourceStopped> {
        self.reports.tick().await.map(|_| ()).map_err(|_| SourceStopped)
    }

    fn evaluate(&self, project: ProjectId, window: Window, queries: &[&Query]) -> Result<Vec<Result<Table, String>>, Unreadable> {
        let tables = self.reports.evaluate(project, window.start()..window.end(), queries).map_err(|error| Unreadable(error.into()))?;
        Ok(tables.into_iter().map(|table| table.map_err(|error| error.to_string())).collect())
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
