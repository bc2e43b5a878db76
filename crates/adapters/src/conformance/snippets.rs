//! What people paste on a store's side: kept as files, read by the formats' own parsers, free of secrets, and in the words of the wire.

use super::{EXAMPLES, Example, golden, series, text};
use crate::{About, Snippet};
use model::{Page, PageSeries, Shape};
use std::path::PathBuf;

/// The window of the golden bytes, with the series that says that all is well.
fn page() -> Page {
    let mut page = golden::page();
    // The first metric then has labels.
    page.series.remove(0);
    let up = series(&["crashmeter", "ProjectX", "health"], "up", &[("store", text("main"))]);
    page.series.push(PageSeries { series: up, shape: Shape::Health, value: Some(1.0), counter: None });
    page
}

fn snippets(example: &Example, reveal: bool) -> Vec<Snippet> {
    let (adapter, page) = (example.adapter(), page());
    let url = adapter.as_pull().map(|pull| format!("https://crashes.example.com/pull/0123456789abcdef/{}", pull.page_name()));
    adapter.snippets(&About { store: "main", page: &page, url: url.as_deref().filter(|_| reveal), reveal })
}

fn file(example: &Example) -> PathBuf {
    golden::file(example).with_extension("snippets.txt")
}

#[test]
fn the_texts_are_those_on_file() {
    for example in EXAMPLES {
        let shown: String =
            snippets(example, false).iter().map(|one| format!("== {} [{}]\n{}\n", one.title, one.language, one.text)).collect();
        if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
            std::fs::write(file(example), &shown).expect("a written file");
        }
        let kept = std::fs::read_to_string(file(example)).unwrap_or_else(|error| panic!("{}: {error}", file(example).display()));
        assert_eq!(shown, kept, "{}", example.label());
    }
}

#[test]
fn every_store_gets_a_check_a_query_and_an_alert() {
    for example in EXAMPLES {
        let all = snippets(example, false);
        let has = |test: &dyn Fn(&Snippet) -> bool| all.iter().any(test);
        assert!(has(&|one| one.title.contains("silent")), "{}", example.label());
        assert!(has(&|one| one.title.to_lowercase().contains("query")), "{}", example.label());
        // Whoever receives remote write takes only what is compressed: no command line makes that by hand.
        assert!(has(&|one| one.language == "sh") || example.adapter == "remote_write", "{}", example.label());
        for one in &all {
            assert!(one.text.ends_with('\n') && !one.text.ends_with("\n\n"), "{}: {}", example.label(), one.title);
            if one.language == "json" {
                serde_json::from_str::<serde_json::Value>(&one.text).unwrap_or_else(|error| panic!("{}: {error}", one.title));
            }
        }
    }
}

#[test]
fn secrets_are_shown_only_to_those_who_may_see_them() {
    for example in EXAMPLES {
        let hidden = format!("{:?}", snippets(example, false));
        let revealed = format!("{:?}", snippets(example, true));
        for secret in example.secrets {
            assert!(!hidden.contains(secret), "{}: {hidden}", example.label());
        }
        let pull = example.adapter().as_pull().is_some();
        assert!(!hidden.contains("0123456789abcdef/"), "{}: {hidden}", example.label());
        assert_eq!(revealed.contains("0123456789abcdef/"), pull, "{}", example.label());
        if !pull {
            assert_eq!(hidden, revealed, "{}", example.label());
        }
    }
}

/// A name in a query that is not the one on the wire finds nothing, and nobody learns why.
#[test]
fn queries_use_the_names_on_the_wire() {
    for example in EXAMPLES {
        let adapter = example.adapter();
        let page = page();
        let Some(push) = adapter.as_push() else { continue };
        let about = About { store: "main", page: &page, url: None, reveal: false };
        let payloads = push.encode(&about.batch()).payloads;
        let wire: Vec<u8> = payloads.iter().flat_map(|payload| payload.body()).collect();
        let wire = String::from_utf8_lossy(&wire).replace("\\ ", " ");
        let name = match example.adapter {
            "remote_write" => "crashmeter_ProjectX_Errors_and_users_ByType_count_window",
            "circonus_push" => "crashmeter`ProjectX`Errors and users`ByType`count",
            "influxdb" => "crashmeter.ProjectX.Errors and users.ByType",
            _ => "crashmeter.ProjectX.Errors_and_users.ByType",
        };
        assert!(wire.contains(name), "{}: {wire}", example.label());
        let query = snippets(example, false).into_iter().find(|one| one.title.to_lowercase().contains("query")).expect("a query");
        assert!(query.text.contains(name), "{}: {}", example.label(), query.text);
    }
}
