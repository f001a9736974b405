//! Commands that a person is told to type: with the flags that lead to the same config and to the
//! same running holdline as those that this process was called with.
//!
//! Of the process, as its arguments are. A program that has holdline in it says nothing here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::config::Started;

/// The flags of this process.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--admin`.
    pub admin: Option<String>,
    /// The others, each with its value.
    pub others: Vec<(&'static str, String)>,
}

static FLAGS: OnceLock<Flags> = OnceLock::new();

/// Says how this process was called; the first word counts.
pub fn called_with(flags: Flags) {
    let _ = FLAGS.set(flags);
}

/// One that asks the running holdline: `holdline reload --config X --admin Y`.
#[must_use]
pub fn command(words: &str) -> String {
    flags().command(words)
}

/// The same where the file that is there now leads to another admin listener than `admin`.
#[must_use]
pub fn command_at(words: &str, admin: SocketAddr) -> String {
    let admin = Some(admin.to_string());
    let flags = flags().clone();
    Flags { admin, ..flags }.command(words)
}

/// One that asks whoever answers at `admin`, whatever config that has: `holdline reload --admin Y`.
#[must_use]
pub fn command_to(words: &str, admin: SocketAddr) -> String {
    let admin = Some(admin.to_string());
    let flags = Flags::default();
    Flags { admin, ..flags }.command(words)
}

/// One that needs the config file of a process that says which it is, or ours if it does not.
#[must_use]
pub fn config_command_of(words: &str, started: Option<&Started>) -> String {
    let Some(started) = started else {
        return config_command(words);
    };
    let config = started.file().map(Path::to_owned);
    let flags = Flags::default();
    Flags { config, ..flags }.config_command(words)
}

/// One that needs the config file only: `holdline check --config X`.
#[must_use]
pub fn config_command(words: &str) -> String {
    flags().config_command(words)
}

/// One that goes by all that this process was called with.
#[must_use]
pub fn same_command(words: &str) -> String {
    flags().same_command(words)
}

/// The same with some more.
#[must_use]
pub fn same_command_with(
    words: &str,
    more: impl IntoIterator<Item = (&'static str, String)>,
) -> String {
    let mut flags = flags().clone();
    flags.others.extend(more);
    flags.same_command(words)
}

fn flags() -> &'static Flags {
    FLAGS.get_or_init(Flags::default)
}

impl Flags {
    fn config_command(&self, words: &str) -> String {
        let config = self.config.as_deref();
        let config = config.map(|path| format!(" --config {}", quoted(path)));
        format!("holdline {words}{}", config.unwrap_or_default())
    }

    fn command(&self, words: &str) -> String {
        let mut text = self.config_command(words);
        if let Some(admin) = &self.admin {
            text.push_str(&format!(" --admin {}", quoted(Path::new(admin))));
        }
        text
    }

    fn same_command(&self, words: &str) -> String {
        let mut text = self.command(words);
        for (flag, value) in &self.others {
            text.push_str(&format!(" {flag} {}", quoted(Path::new(value))));
        }
        text
    }
}

/// As a shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "_./:@%+=,-".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_leads_to_the_same_holdline() {
        assert_eq!(Flags::default().command("reload"), "holdline reload");
        let flags = Flags {
            config: Some("/etc/my holdline's.toml".into()),
            admin: Some("127.0.0.1:9181".to_owned()),
            others: vec![("--gateway", "http://[::1]:3001".to_owned())],
        };
        let command =
            r"holdline reload --config '/etc/my holdline'\''s.toml' --admin 127.0.0.1:9181";
        assert_eq!(flags.command("reload"), command);
        assert_eq!(
            flags.config_command("check"),
            r"holdline check --config '/etc/my holdline'\''s.toml'"
        );
        assert_eq!(
            flags.same_command("reload"),
            format!("{command} --gateway 'http://[::1]:3001'")
        );
        let flags = Flags {
            config: Some("./h.toml".into()),
            ..Flags::default()
        };
        assert_eq!(
            flags.same_command("check"),
            "holdline check --config ./h.toml"
        );
    }
}
