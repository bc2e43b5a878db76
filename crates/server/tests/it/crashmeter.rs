//! The built program under test: started on a free port and a folder of its own, killed, started again, asked over its own API.

use crate::http::{self, Reply};
use crate::process::{Process, free_port, loopback, program};
use crate::wait;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long the last windows may take to be sealed and delivered on a loaded machine.
pub(crate) const SETTLED: Duration = Duration::from_secs(60);

/// A server.
pub(crate) struct Crashmeter {
    process: Option<Process>,
    port: u16,
    folder: TempDir,
    /// More arguments of `serve`.
    options: Vec<String>,
    /// What a shell does before it becomes the program.
    before: Option<String>,
}

impl Crashmeter {
    /// Starts one on an empty data folder; it may send to loopback.
    pub(crate) fn start() -> Crashmeter {
        // How full the disk of the machine is that runs the tests says nothing about them.
        Crashmeter::start_with(&["--disk-reserve", "0"])
    }

    /// Starts one with more arguments.
    pub(crate) fn start_with(options: &[&str]) -> Crashmeter {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Crashmeter { process: None, port: free_port(), folder, options, before: None };
        server.resume();
        server
    }

    /// Starts one from a shell that does something first: sets limits, or its environment.
    pub(crate) fn start_after(before: &str) -> Crashmeter {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = vec!["--disk-reserve".to_owned(), "0".to_owned()];
        let mut server = Crashmeter { process: None, port: free_port(), folder, options, before: Some(before.to_owned()) };
        server.resume();
        server
    }

    /// Starts one on a data folder made from a backup by `crashmeter restore`.
    pub(crate) fn restored(backup: &Path, key: &Path) -> Crashmeter {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = program(env!("CARGO_BIN_EXE_crashmeter"));
        command.arg("restore").arg("--from").arg(backup).arg("--data").arg(folder.path().join("data")).arg("--key").arg(key);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let options = vec!["--disk-reserve".to_owned(), "0".to_owned()];
        let mut server = Crashmeter { process: None, port: free_port(), folder, options, before: None };
        server.resume();
        server
    }

    /// Starts it again on the same port and data folder, and waits until it takes reports.
    pub(crate) fn resume(&mut self) {
        let mut command = match &self.before {
            None => program(env!("CARGO_BIN_EXE_crashmeter")),
            Some(before) => {
                let mut shell = program("/bin/sh");
                shell.args(["-c", &format!("{before}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_crashmeter")]);
                shell
            }
        };
        command.arg("serve").arg("--data").arg(self.folder.path().join("data"));
        command.args(["--listen", &format!("127.0.0.1:{}", self.port), "--allow-egress", "127.0.0.0/8"]);
        command.args(&self.options);
        let mut process = Process::start("crashmeter", command, self.folder.path());
        process.wait_until_ready(|| http::get(&format!("{}/readyz", self.url())).is_ok_and(|reply| reply.status == 200));
        self.process = Some(process);
    }

    /// Stops it where it is, for as long as something else is done.
    pub(crate) fn frozen<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let process = self.process.as_ref().expect("the server runs");
        process.signal_all(Signal::STOP);
        let done = meanwhile();
        process.signal_all(Signal::CONT);
        done
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("the server runs").kill();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        self.process.take().expect("the server runs").terminate();
    }

    /// Other arguments from the next start on.
    pub(crate) fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// The base address.
    pub(crate) fn url(&self) -> String {
        loopback(self.port)
    }

    /// Asks its own API as its administrator.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Value) -> Reply {
        call(&self.url(), &self.authorization(), method, path, body)
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its administrator's `Authorization` header.
    pub(crate) fn authorization(&self) -> String {
        let token = fs::read_to_string(self.folder.path().join("data/admin.token")).expect("the first start wrote a token");
        format!("Bearer {}", token.trim())
    }

    /// What it has printed and logged, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("crashmeter.log")).expect("a log")
    }

    /// Whether a file of its data folder holds these bytes.
    pub(crate) fn keeps(&self, text: &str) -> bool {
        let files = fs::read_dir(self.folder.path().join("data")).expect("a data folder").map(|entry| entry.expect("an entry").path());
        files.filter(|path| path.is_file()).any(|path| {
            let bytes = fs::read(path).expect("readable");
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }

    /// Makes a project.
    pub(crate) fn project(&self, name: &str) -> Project {
        let authorization = self.authorization();
        let mut project =
            Project { base: self.url(), authorization, name: name.to_owned(), submission_url: String::new(), token: String::new() };
        let made = project.call("POST", "/api/v1/projects", json!({ "name": name })).expect(201).json();
        project.submission_url = made["submission_url"].as_str().expect("a URL").to_owned();
        project.token = made["token"].as_str().expect("a token").to_owned();
        project
    }
}

/// A project on a server. It holds addresses only, so that it stays valid when the server is killed and started again.
pub(crate) struct Project {
    base: String,
    authorization: String,
    name: String,
    /// What a user configures in an SDK.
    pub(crate) submission_url: String,
    /// The token in it.
    pub(crate) token: String,
}

impl Project {
    /// Saves a metric, a query in the Backtrace grammar.
    pub(crate) fn metric(&self, set: &str, name: &str, body: Value) {
        self.call("PUT", &self.path(&format!("metric-sets/{set}/metrics/{name}")), body).expect(200);
    }

    /// Saves a metric store and gives the answer, which names its first window.
    pub(crate) fn store(&self, name: &str, body: Value) -> Value {
        self.call("PUT", &self.path(&format!("metric-stores/{name}")), body).expect(200).json()
    }

    /// How a store is doing.
    pub(crate) fn status(&self, store: &str) -> Value {
        self.get(&format!("metric-stores/{store}/status"))
    }

    /// A store's account, all of it and window by window.
    pub(crate) fn ledger(&self, store: &str) -> Value {
        self.get(&format!("metric-stores/{store}/ledger"))
    }

    /// A report by the receipt id that its sender was given.
    pub(crate) fn report(&self, rxid: &str) -> Value {
        self.get(&format!("reports/{}", number_in(rxid)))
    }

    /// Waits until every window that starts at or before `last_s` is sealed and none of their points is open for this store.
    pub(crate) fn settle(&self, store: &str, last_s: u64) {
        wait::until(&format!("{store} has everything up to {last_s}"), SETTLED, || {
            let status = self.status(store);
            let sealed = status["newest_sealed_window"].as_u64().is_some_and(|window| window >= last_s);
            let delivered = status["oldest_open_window"].as_u64().is_none_or(|window| window > last_s);
            if sealed && delivered { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// The store's ledger balances, and every point of the windows that start at or before `last_s` was taken at last.
    pub(crate) fn assert_all_delivered(&self, store: &str, last_s: u64) {
        let ledger = self.ledger(store);
        assert_eq!(ledger["imbalance"], "0", "{store}: {ledger}");
        let windows = ledger["windows"].as_array().expect("a list of windows");
        let due = windows.iter().filter(|window| window["window_start"].as_u64().is_some_and(|start| start <= last_s));
        let mut points = 0;
        for window in due {
            let count = |fate: &str| window[fate].as_u64().unwrap_or_else(|| panic!("{store} has no count of {fate}: {window}"));
            assert_eq!(count("due"), count("confirmed") + count("sent"), "{store}: {window}");
            points += count("due");
        }
        assert!(points > 0, "{store} was owed nothing: {ledger}");
    }

    /// Submits a report by hand and gives whatever came back; `Err` when no whole reply did.
    pub(crate) fn submit(&self, report: &Value) -> Result<Reply, ureq::Error> {
        http::call("POST", &self.submission_url, &[("Content-Type", "application/json")], report.to_string())
    }

    /// Asks the API for something below the project.
    pub(crate) fn ask(&self, method: &str, rest: &str, body: Value) -> Reply {
        self.call(method, &self.path(rest), body)
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/projects/{}/{rest}", self.name)
    }

    fn get(&self, rest: &str) -> Value {
        self.call("GET", &self.path(rest), Value::Null).expect(200).json()
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        call(&self.base, &self.authorization, method, path, body)
    }
}

fn call(base: &str, authorization: &str, method: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("Authorization", authorization), ("Content-Type", "application/json")];
    http::call(method, &format!("{base}{path}"), &headers, body).expect("the server answers")
}

/// The report's number: the first eight bytes of a receipt id, the least first.
pub(crate) fn number_in(rxid: &str) -> u64 {
    let digits = rxid.replace('-', "");
    let bytes =
        (0..16).step_by(2).map(|at| u64::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|_| panic!("no receipt id: {rxid}")));
    bytes.rev().fold(0, |number, byte| number << 8 | byte)
}

#[test]
fn receipt_ids_are_read_from_the_least_byte() {
    assert_eq!(number_in("07000000-0000-0000-0000-000000000001"), 7);
    assert_eq!(number_in("2a010000-0000-0000-0000-000000000001"), 298);
}
