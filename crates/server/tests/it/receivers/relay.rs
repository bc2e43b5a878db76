//! carbon-c-relay, as many put it in front of Carbon.

use crate::process::{Process, free_port, program};
use std::fs;
use std::net::TcpStream;
use tempfile::TempDir;

/// A running relay that passes everything on to one Carbon.
pub(crate) struct CarbonRelay {
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl CarbonRelay {
    pub(crate) fn start(to: u16) -> CarbonRelay {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        let config = format!(
            "cluster carbon forward 127.0.0.1:{to} ;\nmatch * send to carbon stop ;\nlisten type linemode 127.0.0.1:{port} proto tcp ;\n"
        );
        let file = folder.path().join("relay.conf");
        fs::write(&file, config).expect("a new file");
        let mut command = program("/usr/bin/carbon-c-relay");
        command.arg("-f").arg(&file);
        let mut process = Process::start("carbon-c-relay", command, folder.path());
        process.wait_until_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        CarbonRelay { _process: process, port, _folder: folder }
    }

    /// The port for lines of plain text.
    pub(crate) fn line_port(&self) -> u16 {
        self.port
    }
}
