//! Groups of names: which are the same, and where in the state directory a certificate of theirs is
//! kept.

use std::path::Path;

use aws_lc_rs::digest;

use crate::tls::acme::state::file_name;

/// The same names, in whatever order.
pub(in crate::tls::acme) fn same_names(one: &[String], other: &[String]) -> bool {
    sorted(one) == sorted(other)
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names
}

/// Where a certificate of these names is kept, in whatever order they stand.
pub(in crate::tls::acme) fn folder(names: &[String]) -> String {
    let names = &*sorted(names);
    let first = names.first().map_or("", String::as_str);
    let own = match names {
        [_] => file_name(first),
        names => {
            let hash = digest::digest(&digest::SHA256, names.join(" ").as_bytes());
            let short: String = hash
                .as_ref()
                .iter()
                .take(4)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{}-and-{}-more-{short}", file_name(first), names.len() - 1)
        }
    };
    Path::new("certificates").join(own).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_readable_and_no_two_alike() {
        let of =
            |names: &[&str]| folder(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["*.a.example"]), "certificates/_.a.example");
        assert!(of(&["a.example", "b.example"]).starts_with("certificates/a.example-and-1-more-"));
        assert_eq!(
            of(&["b.example", "a.example"]),
            of(&["a.example", "b.example"])
        );
        assert_ne!(
            of(&["a.example", "b.example"]),
            of(&["a.example", "c.example"])
        );
    }
}
