//! `describe`: the columns of a table, and what each may be asked for.

use crate::app::App;
use catalog::Project;
use model::backtrace::{Columns, Declared, Seen, TableName, Type};
use serde_json::{Value as Json, json};

/// The columns of a table as they are known now.
pub(super) fn columns(app: &App, project: &Project, table: TableName) -> Columns {
    match table {
        TableName::Issues => Columns::of_issues(),
        TableName::Objects => {
            let seen = app.reports.attributes(project.id);
            let seen = seen.iter().map(|one| Seen { name: &one.name, texts: one.texts, numbers: one.numbers });
            let snapshot = app.catalog.published();
            let of_project = snapshot.attribute_settings.iter().filter(|setting| setting.project == project.id);
            let declared = of_project.map(|setting| Declared {
                name: &setting.attribute,
                kind: setting.declared.kind.and_then(|kind| Type::read(kind.name())),
                format: setting.declared.kind.map(|_| setting.declared.format.name()),
                description: Some(setting.declared.description.as_str()).filter(|text| !text.is_empty()),
            });
            Columns::of_reports(seen, declared)
        }
    }
}

/// The reply. `used` is false of columns that no report has had; clients hide these unless asked.
pub(super) fn answer(columns: &Columns) -> Json {
    let column = columns.iter().map(|(name, column)| {
        json!({
            "name": name, "type": column.kind.name(), "format": column.format, "description": column.description,
            "custom": column.custom, "state": "enabled", "group": true, "filter": column.kind.filters(),
            "aggregate": column.kind.aggregates(), "statistics": {"used": column.used},
        })
    });
    json!({"describe": column.collect::<Json>()})
}
