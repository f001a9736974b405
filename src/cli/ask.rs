//! Asking for a new password: twice without echo at a terminal, else one line of standard input.
//!
//! Never an argument: other users of the machine can read those.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::say;

/// Below this a password is guessed however slowly one may try. There is no way around it: whoever
/// only wants to see a sign-in page can type eight letters.
const SHORTEST: usize = 8;
/// Longer ones are a mistake, such as a file in place of a line.
const LONGEST: usize = 1024;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPassword {
    #[error("it is shorter than {SHORTEST} characters")]
    Short,
    #[error("it is longer than {LONGEST} bytes")]
    Long,
    #[error("the two are not the same")]
    Differ,
    #[error("it is not UTF-8, and browsers send nothing else")]
    NotText,
    #[error("none was given: type it, or pipe one line to standard input")]
    None,
    #[error("standard input cannot be read")]
    Input(#[from] io::Error),
}

/// A new password that is long enough.
pub(crate) fn new_password(name: &str) -> Result<Zeroizing<String>, NoPassword> {
    let password = if io::stdin().is_terminal() {
        let first = hidden(&format!("New password for {name}: "))?;
        judge(&first)?;
        let second = hidden("The same again: ")?;
        if *first != *second {
            return Err(NoPassword::Differ);
        }
        first
    } else {
        line()?
    };
    judge(&password)?;
    Ok(password)
}

fn judge(password: &str) -> Result<(), NoPassword> {
    match password.chars().count() {
        0 => Err(NoPassword::None),
        count if count < SHORTEST => Err(NoPassword::Short),
        _ if password.len() > LONGEST => Err(NoPassword::Long),
        _ => Ok(()),
    }
}

/// One line from the terminal, which does not show it.
fn hidden(prompt: &str) -> Result<Zeroizing<String>, NoPassword> {
    say(prompt);
    let _silence = Silence::start()?;
    line()
}

fn line() -> Result<Zeroizing<String>, NoPassword> {
    // Of its final size from the start: growing would leave copies behind.
    let room = LONGEST + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let limit = u64::try_from(room).unwrap_or(u64::MAX);
    io::stdin()
        .lock()
        .take(limit)
        .read_until(b'\n', &mut bytes)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| NoPassword::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The terminal shows nothing that is typed until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        // What was typed before the question is no answer to it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
