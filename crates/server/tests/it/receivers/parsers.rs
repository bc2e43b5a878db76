//! Independent judges of pages to be scraped: promtool's linter, and the strict OpenMetrics parser of the official Python client.

use crate::process::{program, repository, spawn_for_life};
use std::io::Write;
use std::process::{Command, Stdio};

/// `promtool check metrics` on a page in the text format 0.0.4; the error is what it found, lint findings included.
pub(crate) fn promtool(page: &str) -> Result<(), String> {
    let mut command = program("/usr/bin/promtool");
    command.args(["check", "metrics"]);
    judge(command, page).map(drop)
}

/// `promtool check config` on a whole configuration.
pub(crate) fn promtool_config(text: &str) -> Result<(), String> {
    promtool_file(&["check", "config"], text)
}

/// `promtool check rules` on a file of rules.
pub(crate) fn promtool_rules(text: &str) -> Result<(), String> {
    promtool_file(&["check", "rules"], text)
}

fn promtool_file(arguments: &[&str], text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("given.yml");
    std::fs::write(&file, text).expect("a written file");
    let mut command = program("/usr/bin/promtool");
    command.args(arguments).arg(&file);
    judge(command, "").map(drop)
}

/// The OpenMetrics 1.0 parser; the error is its reason.
pub(crate) fn open_metrics(page: &str) -> Result<(), String> {
    let mut command = program(repository("tests/sdk/.venv/bin/python"));
    command.arg(repository("tests/receivers/openmetrics_check.py"));
    judge(command, page).map(drop)
}

/// Gives a program something to read; what it printed, or why it failed.
pub(super) fn judge(mut command: Command, page: &str) -> Result<String, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_for_life(command).expect("setpriv runs");
    // Written from a thread of its own, so that neither side waits for the other with a full pipe.
    let (mut input, page) = (child.stdin.take().expect("piped"), page.to_owned());
    let writer = std::thread::spawn(move || input.write_all(page.as_bytes()));
    let output = child.wait_with_output().expect("our own child can be waited for");
    // A judge may stop reading at the first fault; its verdict says more than the broken pipe.
    let written = writer.join().expect("writing does not panic");
    if output.status.success() {
        written.map_err(|error| error.to_string())?;
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn both_judges_take_a_good_page_and_refuse_a_bad_one() {
    let page = "# HELP rig_value A value.\n# TYPE rig_value gauge\nrig_value{app=\"a\"} 1\n";
    promtool(page).expect("a good page");
    assert!(promtool("rig_value 1\n").expect_err("no help text").contains("rig_value"));
    assert!(promtool("rig_value{app=\"a\"").is_err());
    promtool_config("scrape_configs:\n  - job_name: a\n").expect("a good configuration");
    assert!(promtool_config("scrape_configs:\n  - job: a\n").is_err());
    promtool_rules("groups:\n  - name: a\n    rules:\n      - alert: B\n        expr: up == 0\n").expect("good rules");
    assert!(promtool_rules("groups:\n  - name: a\n    rules:\n      - alert: B\n        expr: up =\n").is_err());
    open_metrics(&format!("{page}# EOF\n")).expect("a good page");
    assert!(open_metrics(page).expect_err("no end mark").contains("EOF"));
    assert!(open_metrics("# TYPE rig counter\nrig_total -1\n# EOF\n").is_err(), "a counter is never negative");
}
