//! `anode completions` and `anode man`: what shells and `man` know of the command line. Both are made from the same
//! definitions as the command line itself, so they cannot differ from it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::CliError;

/// The arguments of `anode completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode completions bash >/etc/bash_completion.d/anode\n\
    \x20 anode completions zsh >/usr/share/zsh/site-functions/_anode\n\
    \x20 anode completions fish >~/.config/fish/completions/anode.fish")]
pub struct CompletionsArguments {
    /// The shell: bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The arguments of `anode man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n\
    \x20 anode man | man -l -\n\
    \x20 anode man serve | man -l -\n\
    \x20 anode man --dir /usr/share/man/man1")]
pub struct ManArguments {
    /// Print the page of this command [default: the page of anode itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints what a shell needs to complete the arguments of `command`.
pub fn run_completions(arguments: &CompletionsArguments, mut command: Command) -> Result<(), CliError> {
    let name = command.get_name().to_owned();
    let mut out = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut out);
    Ok(io::stdout().write_all(&out)?)
}

/// Prints a manual page, or writes all of them.
pub fn run_man(arguments: &ManArguments, command: Command) -> Result<(), CliError> {
    let command = named(command);
    if let Some(dir) = &arguments.dir {
        return write_all(dir, &command);
    }
    let page = match &arguments.command {
        None => command,
        Some(name) => {
            let found = command.find_subcommand(name).cloned();
            found.ok_or_else(|| {
                let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
                CliError::Usage(format!("COMMAND: {name:?} cannot be used; allowed: {}", names.join(", ")))
            })?
        }
    };
    let mut out = Vec::new();
    Man::new(page).render(&mut out)?;
    Ok(io::stdout().write_all(&out)?)
}

fn write_all(dir: &Path, command: &Command) -> Result<(), CliError> {
    let failed = |error: io::Error| {
        CliError::Failed(format!("--dir: \"{}\" cannot be written: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    for page in std::iter::once(command).chain(command.get_subcommands()) {
        let name = page.get_display_name().unwrap_or_else(|| page.get_name()).to_owned();
        let mut out = Vec::new();
        Man::new(page.clone()).render(&mut out)?;
        std::fs::write(dir.join(format!("{name}.1")), out).map_err(failed)?;
    }
    Ok(())
}

/// Gives subcommands the names of their pages: `anode-serve`.
fn named(mut command: Command) -> Command {
    command.build();
    let names: Vec<String> = command.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        let page = format!("anode-{name}");
        command.mut_subcommand(name, |it| it.display_name(page))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own_name() {
        let command = Command::new("anode").subcommand(Command::new("serve").about("Run a node"));
        let dir = tempfile::tempdir().expect("a folder");
        write_all(dir.path(), &named(command)).expect("written");
        let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect(name);
        assert!(page("anode.1").contains(r"anode\-serve(1)"), "{}", page("anode.1"));
        assert!(page("anode-serve.1").contains("Run a node"), "{}", page("anode-serve.1"));
    }
}
