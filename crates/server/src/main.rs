//! The program `crashmeter`: hands the command line to the library and turns failures into an exit code and one readable line.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::cli::main()
}
