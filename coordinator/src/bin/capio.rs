//! The `capio` command.

fn main() -> std::process::ExitCode {
    coordinator::cli::capio(&coordinator::ENGINE)
}
