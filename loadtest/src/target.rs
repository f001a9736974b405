//! What is measured: a URL with a name and, where known, the processes behind it.

use std::str::FromStr;

use crate::url::{Url, UrlError};

/// One proxy (or the backend itself).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// For the tables.
    pub name: String,
    /// Where to connect.
    pub url: Url,
    /// Its processes; their children belong to it.
    pub pids: Vec<u32>,
}

/// Why `name=URL[,PID…]` could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// No `=`.
    #[error("{0:?}: write NAME=URL[,PID…]")]
    Shape(String),
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A PID.
    #[error("{0:?} is not a process id")]
    Pid(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let shape = || TargetError::Shape(text.to_owned());
        let (name, rest) = text.split_once('=').ok_or_else(shape)?;
        let mut parts = rest.split(',');
        let url = parts.next().unwrap_or_default().parse()?;
        let pid = |p: &str| p.trim().parse().map_err(|_| TargetError::Pid(p.to_owned()));
        let pids = parts.map(pid).collect::<Result<_, _>>()?;
        if name.is_empty() {
            Err(shape())
        } else {
            Ok(Self {
                name: name.to_owned(),
                url,
                pids,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_name_a_url_and_pids() {
        let target: Target = "nginx=wss://127.0.0.1:9001/,12,34".parse().unwrap();
        assert_eq!(
            (target.name.as_str(), target.pids.as_slice()),
            ("nginx", &[12, 34][..])
        );
        assert_eq!(target.url.port, 9001);
        assert_eq!(
            "a=ws://h".parse::<Target>().unwrap().pids,
            Vec::<u32>::new()
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(
            "wss://h".parse::<Target>(),
            Err(TargetError::Shape(_))
        ));
        assert!(matches!(
            "a=h:1".parse::<Target>(),
            Err(TargetError::Url(_))
        ));
        assert!(matches!(
            "a=ws://h,x".parse::<Target>(),
            Err(TargetError::Pid(_))
        ));
    }
}
