//! The program `crashmeter`: hands the command line to the library and turns failures into an exit code and one readable line.

use std::process::ExitCode;

/// Tables of millions of small texts come and go at every window: the C library's allocator takes a third of the time for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    server::cli::main()
}
