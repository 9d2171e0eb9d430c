//! Pull sources that are programs: what they print is published.

mod group;
mod program;
mod run;

use std::path::{Path, PathBuf};

use super::fields::COMMON_FIELDS;
use super::fields::PullFields;
use super::secret::PullSecret;
use crate::extend::definition::BadField;

pub(super) use run::run;

/// PullFields of this kind alone.
const EXEC_FIELDS: &[&str] = &["command", "env", "every", "max_silence"];
/// Most arguments of a program, its name included.
const ARGUMENTS_MAX: usize = 64;
/// Longest argument, in bytes.
const ARGUMENT_BYTES_MAX: usize = 4_096;
/// Most variables of a definition.
const VARIABLES_MAX: usize = 64;
/// Least and most of the intervals of a definition, in microseconds.
const INTERVAL_US: (u64, u64) = (100_000, 7 * 86_400_000_000);

/// The program that is run.
#[derive(Clone, Debug)]
pub(super) struct ExecPull {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, PullSecret)>,
    /// Time from one begin to the next of a program that ends when it is done, in microseconds. 0 means that it is run
    /// again whenever it ends.
    every_us: u64,
    /// Time without output after which the program counts as hung, in microseconds; 0 is for ever.
    silence_us_max: u64,
}

impl ExecPull {
    /// Reads the fields of this kind.
    pub fn read(fields: &PullFields<'_>) -> Result<ExecPull, BadField> {
        fields.only(&[COMMON_FIELDS, EXEC_FIELDS])?;
        let allowed = "a list of texts: a program in the folder of --allow-exec, and its arguments";
        let mut command = fields.texts("command", ARGUMENTS_MAX)?.into_iter();
        let program = command.next().ok_or_else(|| fields.bad("command", allowed))?;
        let arguments: Vec<String> = command.collect();
        let is_usable = |text: &str| text.len() <= ARGUMENT_BYTES_MAX && !text.contains('\0');
        if !is_usable(&program) || !arguments.iter().all(|argument| is_usable(argument)) {
            return Err(
                fields.bad("command", format!("texts of at most {ARGUMENT_BYTES_MAX} bytes without NUL"))
            );
        }
        let (least, most) = INTERVAL_US;
        Ok(ExecPull {
            program: program.into(),
            arguments,
            variables: variables(fields)?,
            every_us: fields.duration_us("every", least..=most, 0)?,
            silence_us_max: fields.duration_us("max_silence", least..=most, 0)?,
        })
    }

    /// Returns the program's file, or the reason why this node cannot run it. Links are resolved, so that none leads out
    /// of the folder.
    pub fn resolve(&self, folder: Option<&Path>) -> Result<PathBuf, String> {
        let folder = folder.ok_or("the node was started without --allow-exec DIR")?;
        let told = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let folder = folder.canonicalize().map_err(|error| told(folder, error))?;
        let path = folder.join(&self.program);
        let resolved = path.canonicalize().map_err(|error| told(&path, error))?;
        if !resolved.starts_with(&folder) {
            return Err(format!(
                "{} does not lie in the folder of --allow-exec, {}",
                resolved.display(),
                folder.display()
            ));
        }
        let metadata = resolved.metadata().map_err(|error| told(&resolved, error))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        match metadata.is_file() && mode & 0o111 != 0 {
            true => Ok(resolved),
            false => Err(format!("{} is no program: no file that may be executed", resolved.display())),
        }
    }

    /// Returns the reason why this node cannot run the program, if there is one.
    pub fn cannot(&self, folder: Option<&Path>) -> Option<String> {
        let missing = self.variables.iter().find_map(|(_, secret)| secret.value().err());
        self.resolve(folder).err().or(missing)
    }
}

fn variables(fields: &PullFields<'_>) -> Result<Vec<(String, PullSecret)>, BadField> {
    let read = |(name, value): (&str, &str)| {
        let field = format!("{}.{name}", fields.name("env"));
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || value.contains('\0') || value.len() > ARGUMENT_BYTES_MAX {
            let allowed = "a name of A-Z a-z 0-9 _, and a text of at most 4096 bytes";
            return Err(BadField::new(field, name, allowed));
        }
        Ok((name.to_owned(), PullSecret::parse(&field, value)?))
    };
    fields.pairs("env", VARIABLES_MAX)?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use serde_json::json;

    use super::*;

    fn program(name: &str) -> ExecPull {
        let definition = json!({"kind": "exec", "command": [name]});
        ExecPull::read(&PullFields::new("", &definition).expect("a table")).expect("a program")
    }

    #[test]
    fn programs_lie_in_the_folder_after_links_are_resolved() {
        let dir = tempfile::tempdir().expect("a folder");
        let (inside, outside) = (dir.path().join("in"), dir.path().join("in-other"));
        std::fs::create_dir(&inside).and_then(|()| std::fs::create_dir(&outside)).expect("folders");
        let write = |path: PathBuf, mode: u32| {
            std::fs::write(&path, "#!/bin/sh\n").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
            path
        };
        let (tool, evil) = (write(inside.join("tool"), 0o755), write(outside.join("evil"), 0o755));
        write(inside.join("text"), 0o644);
        symlink(&evil, inside.join("link")).expect("a link");
        symlink(&tool, inside.join("good")).expect("a link");
        let resolve = |name: &str| program(name).resolve(Some(&inside));
        let tool = tool.canonicalize().expect("a path");
        assert_eq!(resolve("tool"), Ok(tool.clone()));
        assert_eq!(resolve("good"), Ok(tool.clone()));
        assert_eq!(resolve(&tool.display().to_string()), Ok(tool));
        for bad in ["link", "../in-other/evil", "/bin/sh", "text", "missing", "."] {
            assert!(resolve(bad).is_err(), "{bad}: {:?}", resolve(bad));
        }
        assert!(program("tool").resolve(None).expect_err("not allowed").contains("--allow-exec"));
    }
}
