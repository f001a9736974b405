//! What `[acme]` names on this machine, as far as it is there: what could not work whatever comes is
//! an error, what may be put there later a warning.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Draft;
use crate::config::checker::Checker;
use crate::config::env::Outside as _;
use crate::config::units::Wrong;

impl Draft {
    pub(super) fn check_files(&self, checker: &mut Checker<'_>) {
        if self.rest.state_dir.is_file() {
            let what = format!("{} is a file", self.rest.state_dir.display());
            let wrong = Wrong::new(what, "name a directory; it is made if it is not there");
            checker.error(&self.place(&self.state_dir), wrong);
        }
        self.check_hook(checker);
    }

    /// As the system will look for the program.
    fn check_hook(&self, checker: &mut Checker<'_>) {
        let Some(item) = self.dns_hook.value.first() else {
            return;
        };
        let program = item.value.as_str();
        let path = checker.outside().variable("PATH");
        let found = find(program, path.as_deref());
        let first = program.split_whitespace().next().unwrap_or_default();
        if first != program && matches!(found, Found::Nowhere) {
            let texts: Vec<String> = program
                .split_whitespace()
                .map(|text| format!("\"{text}\""))
                .collect();
            let wrong = Wrong::new(
                "no program has this name, and no shell takes it apart",
                format!(
                    "write each argument as a text of its own: [{}]",
                    texts.join(", ")
                ),
            );
            return match find(first, path.as_deref()) {
                Found::Nowhere => checker.warn(item, wrong),
                _ => checker.error(item, wrong),
            };
        }
        let wrong = match found {
            Found::Program | Found::Unknown => return,
            Found::Nowhere => Wrong::new(
                "there is no such program here",
                "write the path of the command, such as \"/etc/holdline/dns-hook\", or put it there",
            ),
            Found::Other(path) => Wrong::new(
                format!("{} cannot be run", path.display()),
                format!("make it a program: chmod +x {}", path.display()),
            ),
        };
        checker.warn(item, wrong);
    }
}

enum Found {
    Program,
    /// Something that cannot be run.
    Other(PathBuf),
    Nowhere,
    /// There is no list of places to look in.
    Unknown,
}

fn find(program: &str, path: Option<&str>) -> Found {
    if program.contains('/') {
        return look(Path::new(program));
    }
    let Some(path) = path else {
        return Found::Unknown;
    };
    let there = std::env::split_paths(path).map(|folder| look(&folder.join(program)));
    there
        .filter(|found| !matches!(found, Found::Nowhere))
        .min_by_key(|found| !matches!(found, Found::Program))
        .unwrap_or(Found::Nowhere)
}

fn look(path: &Path) -> Found {
    match path.metadata() {
        Ok(at) if at.is_file() && at.permissions().mode() & 0o111 != 0 => Found::Program,
        Ok(_) => Found::Other(path.to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Found::Nowhere,
        // Whoever runs it may see more.
        Err(_) => Found::Unknown,
    }
}
