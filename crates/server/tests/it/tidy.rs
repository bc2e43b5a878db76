//! Rules of the house that the compiler does not know: which crate may lean on which, who may do I/O, how files begin.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// Every Rust file below a folder, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("readable text");
            found.push((path, text));
        }
    }
    found
}

/// The crates of ours that one depends on outside its tests.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).expect("a manifest");
    let ours = ["adapters", "catalog", "columns", "export", "ingest", "model", "reports", "server"];
    let section = manifest.split("[dependencies]").nth(1).expect("a section").split("\n[").next().expect("its text");
    let named = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    named.filter(|name| ours.contains(name)).map(str::to_owned).collect()
}

#[test]
fn crates_lean_only_where_the_arrows_point() {
    for (name, allowed) in [
        ("model", &[][..]),
        ("ingest", &["model"]),
        ("columns", &["model"]),
        ("reports", &["columns", "model"]),
        ("adapters", &["model"]),
        ("catalog", &["model"]),
        ("export", &["adapters", "catalog", "model"]),
        ("server", &["adapters", "catalog", "export", "ingest", "model", "reports"]),
    ] {
        for dependency in dependencies(name) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

/// The part of a file that ships: what is before its tests.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().expect("a first part")
}

#[test]
fn pure_crates_do_no_io_and_read_no_clock() {
    let banned =
        ["std::fs", "std::net::Tcp", "std::net::Udp", "std::process", "std::thread", "SystemTime", "Instant::now", "tokio", "std::env"];
    for name in ["model", "ingest", "adapters", "columns"] {
        for (path, text) in sources(&root().join("crates").join(name).join("src")) {
            // The adapters' own suite reads golden files; it is compiled for tests alone.
            if path.components().any(|part| part.as_os_str() == "conformance") {
                continue;
            }
            // A scan may run on two threads; they end before it returns.
            let shipped = shipped(&text).replace("std::thread::scope", "");
            for word in banned {
                assert!(!shipped.contains(word), "{} names {word}; {name} is pure", path.display());
            }
        }
    }
}

#[test]
fn heavy_libraries_and_sockets_have_one_home() {
    for (path, text) in sources(&root().join("crates")) {
        let place = path.strip_prefix(root()).expect("below the root").display().to_string();
        // A bench stands where a client stands.
        if place.contains("/tests/") || place.contains("/tests.rs") || place.contains("/benches/") {
            continue;
        }
        for (word, home) in [
            ("rusqlite", "crates/catalog/"),
            ("axum", "crates/server/"),
            ("TcpStream::connect", "crates/export/src/send/"),
            ("Client::builder()", "crates/server/src/cli.rs"),
        ] {
            assert!(!shipped(&text).contains(word) || place.starts_with(home), "{place} names {word}, whose place is {home}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_leaves_nothing_open() {
    // Spelt in two parts so that this file does not find itself.
    let open = [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["FIX", "ME"].concat(), ["#[ign", "ore"].concat()];
    for (path, text) in sources(&root().join("crates")) {
        assert!(text.starts_with("//!"), "{} does not begin by saying what it is", path.display());
        for word in &open {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn every_hostile_input_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/hostile-inputs.md")).expect("the page");
    let mut tests: String = sources(&root().join("crates")).into_iter().map(|(_, text)| text).collect();
    for entry in fs::read_dir(root().join("web/e2e"))
        .expect("the browser's tests")
        .chain(fs::read_dir(root().join("web/src/model")).expect("its model"))
    {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().ends_with(".ts") {
            tests += &fs::read_to_string(path).expect("readable text");
        }
    }
    let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with("| ")).skip(1).map(|line| line.split(" | ").collect()).collect();
    let numbers: Vec<usize> = rows.iter().map(|row| row[0].trim_start_matches("| ").parse().expect("a number")).collect();
    assert_eq!(numbers, (1..=110).collect::<Vec<_>>());
    for row in rows {
        let named: Vec<&str> = row[2].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || row[2].starts_with("*not done*"), "{row:?}");
        for name in named {
            let there = [format!("fn {name}("), format!("test('{name}'")].iter().any(|form| tests.contains(form.as_str()));
            assert!(there, "{}: there is no test {name}", row[0]);
        }
    }
}
