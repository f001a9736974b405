//! What is said when a value from outside cannot be used: from the environment, or from a file.

use crate::config::env::{Expanded, Refused, Why};
use crate::config::secret::{blanked, is_secret};
use crate::config::units::Wrong;

/// Why there is no value, and what to do.
pub(super) fn wrong(why: &Why) -> Wrong {
    let (path, refused) = match why {
        Why::Absent(name) => {
            return Wrong::new(
                format!("the environment has no variable {name}"),
                format!("set {name} before starting holdline, or write the value here"),
            );
        }
        Why::Misnamed => {
            return Wrong::new(
                "neither the name of a variable nor a file",
                "write ${NAME} with letters, digits and _, ${file:PATH}, or $${ for a literal ${",
            );
        }
        Why::Unclosed => {
            return Wrong::new(
                "a ${ without its }",
                "write ${NAME} or ${file:PATH}, or $${ for a literal ${",
            );
        }
        Why::NoPath => return Wrong::new("no file is named", "write ${file:/run/secrets/NAME}"),
        Why::File(path, refused) => (path.display(), refused),
    };
    match refused {
        Refused::Missing => Wrong::new(
            format!("there is no file {path}"),
            "write the path of a file that exists; a relative one starts at the config file's folder",
        ),
        Refused::Forbidden => Wrong::new(
            format!("{path} may not be read by the user that holdline runs as"),
            "give that user the right to read the file and to enter its folders",
        ),
        Refused::NoFile => Wrong::new(
            format!("{path} is not a file"),
            "write the path of a file that holds the value and nothing else",
        ),
        Refused::TooLarge => Wrong::new(
            format!("{path} is larger than 64 KiB, so it is no value"),
            "write the path of a file that holds the value and nothing else",
        ),
        Refused::NotText => Wrong::new(
            format!("{path} is not UTF-8 text"),
            "save the value in it as text; what is binary has to be written in base64 or hex",
        ),
        Refused::Empty => Wrong::new(
            format!("{path} is empty"),
            "write the value into it, or find out who should have",
        ),
        Refused::Unreadable(why) => Wrong::new(
            format!("{path} cannot be read: {why}"),
            "write the path of a readable file",
        ),
    }
}

/// What is wrong with a value that came from outside, as far as it may be told.
pub(super) fn blamed(key: &str, mut wrong: Wrong, taken: &Expanded<'_>) -> Wrong {
    let now = &taken.text;
    if let Some(path) = taken.files.first() {
        // What is in a file is a secret, perhaps meant for another key; a remedy may repeat it.
        let path = path.display();
        if !wrong.fixed && echoes(&wrong.what, now) {
            wrong.what = "not usable here".to_owned();
        }
        if !wrong.fixed && echoes(&wrong.remedy, now) {
            wrong.remedy = format!("write into {path} what this key takes");
        }
        wrong.what = format!("{} (with the content of {path})", wrong.what);
    } else if !taken.variables.is_empty() && !now.contains('@') && !is_secret(key) {
        // A hash must not get into a log, nor a URL with a password.
        let now = blanked(now);
        wrong.what = format!("{} (with the environment: \"{now}\")", wrong.what);
    }
    wrong
}

/// Whether a message repeats a part of a text that is worth guessing.
fn echoes(message: &str, text: &str) -> bool {
    const PART: usize = 4;
    let (message, text) = (message.to_lowercase(), text.to_lowercase());
    let bytes = text.as_bytes();
    match bytes.len() {
        0 => false,
        1..PART => message.contains(text.as_str()),
        _ => bytes
            .windows(PART)
            .any(|part| message.as_bytes().windows(PART).any(|seen| seen == part)),
    }
}
