//! What a hook finds in its environment, and what of it is never repeated.
//!
//! Hooks take the credentials of a DNS provider from there, so it is ours as a whole but for what is
//! meant for this process alone: a hook that used that would speak to the service manager in our name.

use std::ffi::OsStr;

/// Of the service manager (systemd.exec(5), sd_notify(3), sd_listen_fds(3)).
const MANAGER: [&str; 16] = [
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
/// Of the manager as well.
const MANAGERS: &str = "SYSTEMD_";
const OURS: &str = "HOLDLINE_";
/// In the names of variables whose values are nobody's business.
const SECRETS: [&str; 6] = ["AUTH", "CRED", "KEY", "PASS", "SECRET", "TOKEN"];
/// A shorter one would be found in any text.
const SHORTEST: usize = 6;

/// Whether a variable is kept from the hook.
pub(super) fn is_withheld(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    MANAGER.contains(&&*name) || name.starts_with(MANAGERS) || name.starts_with(OURS)
}

/// The text without the values of `variables` that look like credentials.
pub(super) fn without_secrets(
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> String {
    let mut secrets: Vec<(String, String)> = variables
        .filter(|(name, _)| {
            let name = name.to_ascii_uppercase();
            SECRETS.iter().any(|word| name.contains(word))
        })
        .flat_map(|(name, value)| {
            let lines: Vec<String> = value.lines().map(|line| line.trim().to_owned()).collect();
            lines.into_iter().map(move |line| (name.clone(), line))
        })
        // A path is where one is kept.
        .filter(|(_, value)| value.len() >= SHORTEST && !value.starts_with('/'))
        .collect();
    // One may be the beginning of another.
    secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    let mut text = text.to_owned();
    for (name, value) in secrets {
        if text.contains(&value) {
            text = text.replace(&value, &format!("[${name}]"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_managers_and_ours_are_withheld_and_the_users_are_not() {
        for name in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "WATCHDOG_USEC",
            "MAINPID",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "SYSTEMD_EXEC_PID",
            "HOLDLINE_HANDOVER",
        ] {
            assert!(is_withheld(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "CF_DNS_API_TOKEN",
            "CREDENTIALS_DIRECTORY",
            "AWS_PROFILE",
            "SSL_CERT_FILE",
        ] {
            assert!(!is_withheld(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn credentials_are_not_repeated() {
        let variables = [
            ("CF_API_TOKEN", "abcdef123456"),
            ("ns_secret", "abcdef123456-and-more"),
            ("TSIG_KEY", "-----BEGIN\nMIIEowIBAAKC\n"),
            ("KEY_FILE", "/etc/holdline/tsig.key"),
            ("DB_PASSWORD", "no"),
            ("REGION", "europe-west"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = "no: abcdef123456 abcdef123456-and-more MIIEowIBAAKC /etc/holdline/tsig.key \
                    europe-west";
        let expected = "no: [$CF_API_TOKEN] [$ns_secret] [$TSIG_KEY] /etc/holdline/tsig.key \
                        europe-west";
        assert_eq!(without_secrets(text, variables.into_iter()), expected);
    }
}
