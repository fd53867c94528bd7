//! The `weft` binary with one more kind of registry.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_agent::cli::main_with(&[weft_examples::json_registry::KIND])
}
