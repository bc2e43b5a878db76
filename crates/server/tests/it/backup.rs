//! A backup of a server that is at work, and the server made from it.

use crate::crashmeter::Crashmeter;
use crate::http;
use crate::process::program;
use crate::receivers::now_s;
use crate::wait;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn crashmeter(arguments: &[&str], folders: &[(&str, &Path)]) -> Output {
    let mut command = program(env!("CARGO_BIN_EXE_crashmeter"));
    command.args(arguments);
    for (name, folder) in folders {
        command.arg(name).arg(folder);
    }
    command.output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The total of the one series on a pull page.
fn total(page: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with("crashmeter_game_errors_all_tx_unique_total"))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[test]
fn what_was_acknowledged_before_a_backup_is_in_the_server_restored_from_it() {
    let server = Crashmeter::start();
    let project = server.project("game");
    project.metric("errors", "all", json!({"query": {"fold": {"_tx": [["unique"]]}}}));
    let store = project.store("prometheus", json!({"adapter": "prometheus", "period": 1, "sets": ["errors"]}));
    let page = |url: &str| http::get(url).expect("an answer").body;
    let url = store["url"].as_str().expect("shown to editors").to_owned();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backup = folder.path().join("backup");
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let n = sent.load(Ordering::Relaxed) + 1;
                let report = json!({"uuid": format!("{n:032x}"), "timestamp": now_s(), "attributes": {"n": n}});
                project.submit(&report).expect("the server answers").expect(200);
                sent.store(n, Ordering::Relaxed);
            }
        });
        // The counter has risen, so that a restored one would be seen.
        wait::until("the counter rises", crate::receivers::VISIBLE, || match total(&page(&url)) {
            Some(total) if total > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let before = sent.load(Ordering::Relaxed);
        let made = crashmeter(&["backup"], &[("--data", &server.data()), ("--to", &backup)]);
        stop.store(true, Ordering::Relaxed);
        assert!(made.status.success(), "{}", said(&made));
        assert!(said(&made).contains("catalog.key is not in it"), "{}", said(&made));
        before
    });
    assert!(before > 0 && !backup.join("catalog.key").exists());

    // Neither another backup over it, nor a server on it, nor a restore without the key.
    let again = crashmeter(&["backup"], &[("--data", &server.data()), ("--to", &backup)]);
    assert!(!again.status.success() && said(&again).contains("is not empty"), "{}", said(&again));
    let served = crashmeter(&["serve", "--listen", "127.0.0.1:0"], &[("--data", &backup)]);
    assert!(!served.status.success() && said(&served).contains("crashmeter restore"), "{}", said(&served));
    let keyless = crashmeter(&["restore"], &[("--from", &backup), ("--data", &folder.path().join("data"))]);
    assert!(!keyless.status.success() && said(&keyless).contains("--key"), "{}", said(&keyless));
    assert!(!folder.path().join("data").exists(), "nothing half-made is left");

    let restored = Crashmeter::restored(&backup, &server.data().join("catalog.key"));
    let ask = |method: &str, path: &str, body: Value| restored.ask(method, path, body).expect(200).json();
    let query = json!({"query": {"fold": {"n": [["unique"]]}}, "from": 0, "to": now_s() + 1});
    let found = ask("POST", "/api/v1/projects/game/query", query);
    let reports = found["matched"].as_u64().unwrap_or_else(|| panic!("{found}"));
    assert!(reports >= before, "{reports} of {before} are there");
    // Addresses and secrets go on; counters begin anew, for a scraper takes a fall for a fresh start from 0.
    let there = url.replace(&server.url(), &restored.url());
    let read = page(&there);
    assert!(read.contains("crashmeter_game"), "{read}");
    assert!(total(&read).is_none_or(|total| total == 0.0), "{read}");
    let audit = ask("GET", "/api/v1/audit", Value::Null);
    assert_eq!(audit["balances"], json!(true), "{audit}");
}
