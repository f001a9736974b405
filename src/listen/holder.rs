//! Who holds a port: from `/proc` on Linux, as far as this user may look.

use std::fmt;
use std::fs;
use std::path::Path;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its command's name, as the kernel keeps it (15 bytes).
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// The first process found that listens on `port`; `None` when there is none or it is not ours
/// to see.
pub(crate) fn of(port: u16) -> Option<Holder> {
    find(Path::new("/proc"), port)
}

fn find(proc: &Path, port: u16) -> Option<Holder> {
    let sockets = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(proc.join(table)).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect::<Vec<_>>();
    if sockets.is_empty() {
        return None;
    }
    fs::read_dir(proc).ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let open = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = open.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|link| link.to_str().is_some_and(|link| is_one_of(&sockets, link)))
        });
        let name = || fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| Holder {
            name: name().trim().to_owned(),
            pid,
        })
    })
}

fn is_one_of(sockets: &[String], link: &str) -> bool {
    sockets.iter().any(|socket| socket == link)
}

/// Inodes of the sockets that listen on `port`, from the text of `/proc/net/tcp`: columns `sl`,
/// `local_address` (hex), `rem_address`, `st` (`0A`: LISTEN), five more, `inode`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let (_, local_port) = columns.nth(1)?.rsplit_once(':')?;
            let listens = columns.nth(1)? == "0A";
            let same = u16::from_str_radix(local_port, 16).ok()? == port;
            let inode = columns.nth(5)?.parse().ok()?;
            (listens && same).then_some(inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:20FB 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
";

    #[test]
    fn reads_the_table() {
        assert_eq!(listening(TABLE, 8443), [4711]);
        assert_eq!(listening(TABLE, 80), [4713]);
        assert_eq!(listening(TABLE, 443), [] as [u64; 0]);
        assert_eq!(listening("nonsense\n: : :\n", 443), [] as [u64; 0]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn finds_ourselves() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
    }
}
