//! The way of a line to standard error: by a thread of its own. Whoever reads there may be slow, or
//! hang; that costs lines, which are counted, and holds up nobody.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Lines that wait to be written at a time; a line is some 200 bytes.
const WAITING: usize = 4096;
/// Bytes of them; what a bad config says may be long.
const WAITING_BYTES: usize = 4 << 20;

/// Of the process, as standard error is.
static OUT: OnceLock<Out> = OnceLock::new();

/// Lines on their way.
struct Out {
    queue: SyncSender<Next>,
    /// Bytes that wait.
    bytes: Arc<AtomicUsize>,
    /// Lines for which there was no room.
    lost: Arc<AtomicU64>,
}

enum Next {
    Line(Vec<u8>),
    /// All before it has been written.
    Told(SyncSender<()>),
}

/// Takes one line at a time, whole.
pub(super) struct Line(());

/// A line of the log. Before [`start`] it is written at once.
pub(super) fn line() -> Line {
    Line(())
}

/// From now on lines are written by a thread, if there can be one.
pub(super) fn start() {
    if let Ok(out) = Out::to(io::stderr()) {
        // A process has one log.
        let _ = OUT.set(out);
    }
}

/// Waits until what was logged before is written, for at most `limit`.
pub(super) fn flush(limit: Duration) {
    if let Some(out) = OUT.get() {
        out.flush(limit);
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match OUT.get() {
            Some(out) => out.say(bytes),
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn to(to: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(WAITING);
        let (bytes, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let counts = (Arc::clone(&bytes), Arc::clone(&lost));
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write_all(&waiting, to, &counts.0, &counts.1))?;
        Ok(Self { queue, bytes, lost })
    }

    fn say(&self, line: &[u8]) {
        // Counted before it is there, so that the thread never takes away what was not.
        let waiting = self.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let has_room = waiting + line.len() <= WAITING_BYTES;
        if !has_room || self.queue.try_send(Next::Line(line.to_vec())).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether all is written.
    fn flush(&self, limit: Duration) -> bool {
        let (tell, told) = sync_channel(1);
        let queue = self.queue.clone();
        let ask = move || {
            let _ = queue.send(Next::Told(tell));
        };
        let asked = thread::Builder::new().spawn(ask);
        asked.is_ok() && told.recv_timeout(limit).is_ok()
    }
}

/// Until nobody can say anything any more.
fn write_all(waiting: &Receiver<Next>, mut to: impl Write, bytes: &AtomicUsize, lost: &AtomicU64) {
    let mut told = 0;
    loop {
        let next = waiting.try_recv().or_else(|_| {
            // Now there is room to say it.
            let lost = lost.load(Ordering::Relaxed);
            tell_lost(lost - std::mem::replace(&mut told, lost));
            waiting.recv()
        });
        match next {
            // Nobody may be reading any more.
            Ok(Next::Line(line)) => {
                let _ = to.write_all(&line);
                bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Ok(Next::Told(tell)) => {
                let _ = tell.send(());
            }
            Err(_) => return,
        }
    }
}

fn tell_lost(lost: u64) {
    if lost > 0 {
        tracing::warn!(
            lost,
            "lines of the log are lost: whoever reads standard error did not for a while"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn lines_that_are_long_are_no_way_to_all_the_memory() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let out = Out::to(ours).unwrap();
        let long = vec![b'x'; WAITING_BYTES / 4];
        for _ in 0..10 {
            out.say(&long);
        }
        assert!(out.bytes.load(Ordering::Relaxed) <= WAITING_BYTES);
        assert!(out.lost.load(Ordering::Relaxed) >= 6);
    }

    #[test]
    fn a_reader_that_hangs_costs_lines_and_holds_nobody_up() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let out = Out::to(ours).unwrap();
        let filler = "x".repeat(200);
        let said = 4 * WAITING;
        for number in 0..said {
            out.say(format!("{number} {filler}\n").as_bytes());
        }
        assert!(!out.flush(Duration::from_millis(50)), "nobody has read it");
        let lost = out.lost.load(Ordering::Relaxed);
        assert!(lost > 0, "there is no end to it");
        // It reads again: what it gets is whole, and in order.
        let reading = thread::spawn(move || {
            let lines = BufReader::new(theirs).lines();
            let number = |line: io::Result<String>| -> usize {
                let line = line.unwrap();
                let (number, rest) = line.split_once(' ').unwrap();
                assert_eq!(rest.len(), 200);
                number.parse().unwrap()
            };
            lines.map(number).collect::<Vec<_>>()
        });
        assert!(out.flush(Duration::from_secs(20)));
        drop(out);
        let read = reading.join().unwrap();
        assert!(read.is_sorted() && read[0] == 0);
        assert_eq!(read.len() as u64 + lost, said as u64);
    }
}
