//! A program that a test runs: with a log of its own, waited for until it answers, ended by its own pid and never left behind.

use crate::wait;
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::Duration;

/// Slow enough for a loaded machine of two cores; reached only when something is broken.
const READY: Duration = Duration::from_secs(60);

/// A running program. Dropping it ends it and whatever it has started.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command that [`program`] began; its output goes to `{name}.log` in `folder`, behind that of earlier starts.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Process {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("the test's folder takes a log file");
        command.process_group(0).stdin(Stdio::null()).stderr(output.try_clone().expect("a file handle can be doubled")).stdout(output);
        let child = spawn_for_life(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { name: name.to_owned(), child, log }
    }

    /// Waits until `ready` says yes; panics with the log when the program ends before that or takes too long.
    pub(crate) fn wait_until_ready(&mut self, mut ready: impl FnMut() -> bool) {
        let name = self.name.clone();
        wait::until(&format!("{name} is ready"), READY, || {
            if let Some(status) = self.child.try_wait().expect("our own child can be asked") {
                panic!("{name} ended with {status}; its log:\n{}", self.log());
            }
            if ready() { Ok(()) } else { Err(self.log()) }
        });
    }

    /// Asks the program to stop and waits until it has; for a store that flushes first.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let name = self.name.clone();
        wait::until(&format!("{name} stops"), READY, || match self.child.try_wait().expect("our own child can be asked") {
            Some(_) => Ok(()),
            None => Err(self.log()),
        });
    }

    /// Ends the program as a power cut would, without a chance to do anything more.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("our own child can be waited for");
    }

    /// What the program has written so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Signals the program's own process group; a program that has ended is left alone.
    fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().expect("our own child can be asked").is_none() {
            let group = Pid::from_child(&self.child);
            rustix::process::kill_process_group(group, signal).expect("a child that runs can be signalled");
        }
    }
}

impl Process {
    /// Signals a program that runs, and all that it has started.
    pub(crate) fn signal_all(&self, signal: Signal) {
        rustix::process::kill_process_group(Pid::from_child(&self.child), signal).expect("a child that runs can be signalled");
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failing test shows what its programs said")]
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("--- {} said last:\n{}", self.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Begins a command that the kernel ends when the test binary ends, however that comes about.
pub(crate) fn program(path: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(path.as_ref());
    command
}

/// Starts a command of [`program`]. The kernel's signal comes when the *thread* that started the child ends, and a test's thread
/// may end before a child that it shares with other tests, so one thread that never ends starts them all.
pub(crate) fn spawn_for_life(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static ORDERS: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, taken) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in taken {
                if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                    orphan.kill().expect("our own child can be ended");
                }
            }
        });
        Mutex::new(orders)
    });
    let (reply, started) = mpsc::channel();
    ORDERS.lock().expect("the lock is held for a send only").send((command, reply)).expect("the thread never ends");
    started.recv().expect("every order is answered")
}

/// A port that nobody listens on. It lies below the range from which the kernel serves outgoing connections, so that it is still
/// free when a store that was down comes up again.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(7_919)));
    (0..COUNT)
        .map(|_| (FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of 20,000 ports is free")
}

/// The address of a loopback HTTP server, without a trailing slash.
pub(crate) fn loopback(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// A path inside the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn a_program_ends_with_its_owner_and_takes_its_children_along() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut shell = program("sh");
    shell.args(["-c", "sleep 600 & echo $!; wait"]);
    let mut process = Process::start("shell", shell, folder.path());
    let log = folder.path().join("shell.log");
    process.wait_until_ready(|| std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')));
    let grandchild = Path::new("/proc").join(process.log().trim());
    assert!(grandchild.exists(), "{} runs", grandchild.display());
    drop(process);
    wait::until("the grandchild ends", READY, || match std::fs::read_to_string(grandchild.join("stat")) {
        // Without a parent that collects it, it may stay as a zombie for as long as the machine's first process likes.
        Ok(stat) if !stat.contains(") Z ") => Err(stat),
        _ => Ok(()),
    });
}
