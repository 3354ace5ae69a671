//! The command line of the C++ CAPIO server.

fn main() -> std::process::ExitCode {
    coordinator::cli::server::capio_server(&coordinator::ENGINE)
}
