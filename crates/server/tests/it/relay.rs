//! A recording relay for lines in front of a real store: it shows in which order they came, which the store itself cannot tell.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A running relay. Dropping it closes its port; its lines go with it.
pub(crate) struct Relay {
    port: u16,
    stop: Arc<AtomicBool>,
    lines: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens on one loopback port and passes everything on to another, one connection after the other.
    pub(crate) fn start(port: u16, to: u16) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let (stop, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopping, record) = (stop.clone(), lines.clone());
        let thread = std::thread::spawn(move || {
            for sender in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let sender = sender.expect("a connection can be taken");
                // A sender or store that breaks off is no fault of the relay: the sender will come again.
                let _ = pass_on(&sender, to, &record);
            }
        });
        Relay { port, stop, lines, thread: Some(thread) }
    }

    /// The whole lines that have come so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("the relay does not panic with the lock").clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread, which waits for a connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the relay ends well");
        }
    }
}

fn pass_on(sender: &TcpStream, to: u16, record: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut store = TcpStream::connect(("127.0.0.1", to))?;
    let mut reader = BufReader::new(sender);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        store.write_all(line.as_bytes())?;
        record.lock().expect("nobody panics with the lock").push(std::mem::take(&mut line).trim_end().to_owned());
    }
    // The sender takes the store's closing for its word that nothing was cut off, so it is passed back.
    store.shutdown(Shutdown::Write)?;
    std::io::copy(&mut store, &mut &*sender)?;
    Ok(())
}

#[test]
fn lines_are_passed_on_and_kept_in_order() {
    let store = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let relay = Relay::start(crate::process::free_port(), store.local_addr().expect("bound").port());
    let mut sender = TcpStream::connect(("127.0.0.1", relay.port)).expect("the relay listens");
    sender.write_all(b"a 1 1\nb 2 2\n").and_then(|()| sender.shutdown(Shutdown::Write)).expect("the relay reads");
    let (stored, _) = store.accept().expect("the relay connects");
    let arrived: Vec<String> = BufReader::new(&stored).lines().collect::<Result<_, _>>().expect("lines");
    assert_eq!(arrived, ["a 1 1", "b 2 2"]);
    assert_eq!(relay.lines(), arrived);
    let port = relay.port;
    drop((stored, sender));
    drop(relay);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a dropped relay refuses");
}
