//! Attribute settings over a real database: revisions, aliases, and personal attributes that never become labels.

use catalog::{AttributeType, Catalog, CatalogError, Declared, Format, MetricDraft};
use model::{Aggregate, AggregateOp, ProjectId, Query, Stamp};

fn at(seconds: u64) -> impl Fn() -> Stamp {
    move || Stamp::from_secs(seconds)
}

fn fixture() -> (tempfile::TempDir, Catalog, ProjectId) {
    let folder = tempfile::tempdir().expect("a folder");
    let catalog = Catalog::open(folder.path()).expect("a new catalog");
    let (project, _) = catalog.create_project("shooter", "test", &at(100)).expect("made");
    (folder, catalog, project)
}

fn declared(description: &str) -> Declared {
    let kind = Some(AttributeType::Uint32);
    Declared { kind, format: Format::Bytes, description: description.into(), personal: false, non_negative: true }
}

fn personal() -> Declared {
    Declared { kind: None, format: Format::None, description: String::new(), personal: true, non_negative: false }
}

/// Counts the users of each value of `group`.
fn grouped(group: &[&str]) -> MetricDraft {
    let aggregates = vec![Aggregate { op: AggregateOp::Unique, attribute: "user.email".into() }];
    let group = group.iter().map(|&name| name.to_owned()).collect();
    MetricDraft { query: Query { group, aggregates, ..Query::default() }, zero_for: None, series_budget: 10 }
}

#[test]
fn a_declaration_is_seen_at_once_and_after_a_restart() {
    let (folder, catalog, project) = fixture();
    let put = |what: &Declared, expected, second| catalog.put_attribute_setting(project, "memory", what, expected, "test", &at(second));
    assert_eq!(put(&declared("a"), Some(0), 110).expect("saved"), 1);
    assert_eq!(put(&declared("a"), Some(1), 120).expect("saved"), 1, "saving the same changes nothing");
    assert_eq!(put(&declared("b"), None, 130).expect("saved"), 2);
    assert!(matches!(put(&declared("c"), Some(1), 140), Err(CatalogError::Changed { expected: 1, found: 2 })));
    assert!(matches!(put(&declared("c"), Some(0), 140), Err(CatalogError::Changed { expected: 0, found: 2 })));
    let second = catalog.create_project("racer", "test", &at(150)).expect("made").0;
    for catalog in [&catalog, &Catalog::open(folder.path()).expect("opens again")] {
        let snapshot = catalog.snapshot();
        let setting = snapshot.attribute_setting(project, "memory").expect("declared");
        assert_eq!((setting.revision, &setting.declared), (2, &declared("b")));
        assert!(snapshot.attribute_setting(second, "memory").is_none() && snapshot.attribute_setting(project, "other").is_none());
    }
    let delete = |expected| catalog.delete_attribute_setting(project, "memory", expected, "test", &at(160));
    assert!(matches!(delete(Some(1)), Err(CatalogError::Changed { expected: 1, found: 2 })));
    delete(Some(2)).expect("deleted");
    assert!(matches!(delete(None), Err(CatalogError::Missing(_))));
    assert!(catalog.snapshot().attribute_settings.is_empty());
    let connection = rusqlite::Connection::open(folder.path().join("catalog.sqlite")).expect("opens");
    let sql = "SELECT count(*) FILTER (WHERE action = 'put attribute setting'), count(*) FILTER (WHERE action = 'delete attribute setting')
               FROM audit WHERE actor = 'test' AND subject = 'memory'";
    let audited: (u32, u32) = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
    assert_eq!(audited, (3, 1));
}

#[test]
fn the_names_of_one_attribute_have_one_declaration() {
    let (_folder, catalog, project) = fixture();
    let put = |name: &str, what: &Declared| catalog.put_attribute_setting(project, name, what, None, "test", &at(110)).expect("saved");
    assert_eq!([put("release", &declared("a")), put("app.version", &declared("b"))], [1, 2]);
    let snapshot = catalog.snapshot();
    assert_eq!(snapshot.attribute_settings.len(), 1);
    for name in ["release", "app.version", "application.version"] {
        let setting = snapshot.attribute_setting(project, name).expect("declared");
        assert_eq!((setting.attribute.as_str(), setting.declared.description.as_str()), ("application.version", "b"), "{name}");
    }
    assert!(snapshot.attribute_setting(project, "version").is_none(), "a version of its own");
    catalog.delete_attribute_setting(project, "release", Some(2), "test", &at(120)).expect("deleted");
    assert!(catalog.snapshot().attribute_settings.is_empty());
}

#[test]
fn what_is_personal_never_becomes_a_label() {
    let (_folder, catalog, project) = fixture();
    let other = catalog.create_project("racer", "test", &at(105)).expect("made").0;
    let metric = |project, name: &str, group: &[&str]| catalog.put_metric(project, "s", name, &grouped(group), None, "test", &at(110));
    let declare = |name: &str, what: &Declared| catalog.put_attribute_setting(project, name, what, None, "test", &at(120));
    metric(project, "by-email", &["error.type", "user.email"]).expect("nothing says that it is personal");
    let Err(CatalogError::Grouped { attribute, metric: named }) = declare("user.email", &personal()) else {
        panic!("a label is declared personal");
    };
    assert_eq!((attribute.as_str(), named.as_str()), ("user.email", "s/by-email"));
    assert!(catalog.snapshot().attribute_settings.is_empty());
    declare("user.email", &Declared { personal: false, ..personal() }).expect("not personal");
    // A newer revision without the label, or none at all, is no hindrance.
    metric(project, "by-email", &["error.type"]).expect("saved");
    metric(project, "gone", &["user.email"]).expect("saved");
    catalog.delete_metric(project, "s", "gone", "test", &at(115)).expect("deleted");
    metric(other, "by-email", &["user.email"]).expect("another project's");
    declare("user.email", &personal()).expect("no metric groups by it");
    let refused = metric(project, "again", &["error.type", "user.email"]).expect_err("it is personal");
    assert!(matches!(&refused, CatalogError::Personal(name) if name == "user.email"), "{refused}");
    assert!(catalog.snapshot().metric(project, "s", "again").is_none());
    metric(project, "counted", &["error.type"]).expect("it may be counted");
    metric(other, "also", &["user.email"]).expect("another project's");
    declare("release", &personal()).expect("no metric groups by it");
    for name in ["app.version", "application.version", "release"] {
        assert!(matches!(metric(project, "v", &[name]), Err(CatalogError::Personal(_))), "{name}");
    }
    catalog.delete_attribute_setting(project, "user.email", None, "test", &at(130)).expect("deleted");
    metric(project, "again", &["user.email"]).expect("no longer personal");
}
