//! Log lines on their way out: a bounded queue, and the one thread that writes it.
//!
//! A caller never waits. When the queue is full, because nobody reads the log or the disk is full, lines are dropped and
//! counted; once a line can be written again the log says how many. Never formats a line of its own.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

/// What waits to be written may take so much memory, bytes.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// What a waiting line takes besides its text, bytes: short lines must not take more than long ones.
const LINE_OVERHEAD_BYTES: usize = 64;

/// The queue. One thread writes it, see [`LogQueue::start`].
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
    /// Everything there was has been written or given up.
    emptied: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct QueueState {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// A line did not fit. Nothing is taken until all that waits is written, so that a log has one gap instead of many.
    is_full: bool,
    /// Dropped lines that the log has not reported yet.
    unreported: u64,
    /// The thread is writing a line.
    is_writing: bool,
}

enum NextLine {
    Write(Box<[u8]>),
    /// So many lines are missing at this place.
    ReportDropped(u64),
}

impl LogQueue {
    /// Starts the thread that writes to `out`. `format_dropped` gives the line that says how many are missing.
    pub fn start<W>(
        out: W,
        dropped: Arc<AtomicU64>,
        format_dropped: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Arc<LogQueue>>
    where
        W: Write + AsFd + Send + 'static,
    {
        let queue =
            Arc::new(LogQueue { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), dropped });
        let writer = queue.clone();
        // Never joined: it may be waiting for a reader that will not come.
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(out, format_dropped))?;
        Ok(queue)
    }

    /// Takes a line, or counts it as dropped. Waits for nobody.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let bytes = line.len() + LINE_OVERHEAD_BYTES;
        if state.is_full || state.bytes + bytes > WAITING_BYTES_MAX {
            state.is_full = true;
            state.unreported += 1;
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        state.bytes += bytes;
        state.lines.push_back(line.into());
        self.filled.notify_one();
    }

    /// Waits until everything is written, but no longer than this. True if it is.
    #[expect(clippy::disallowed_methods, reason = "a condition variable waits by this clock")]
    pub fn flush(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut state = self.state.lock();
        while !state.lines.is_empty() || state.is_writing {
            if self.emptied.wait_until(&mut state, until).timed_out() {
                return false;
            }
        }
        true
    }

    fn run(&self, mut out: impl Write + AsFd, format_dropped: impl Fn(u64) -> Vec<u8>) {
        let mut out_works = true;
        let mut has_half_line = false;
        loop {
            let next = self.next(out_works);
            let text = match &next {
                NextLine::Write(line) => Cow::Borrowed(&**line),
                NextLine::ReportDropped(lines) => Cow::Owned(format_dropped(*lines)),
            };
            // Half a line may stand there from the last attempt.
            let text = if has_half_line { Cow::Owned([b"\n", &*text].concat()) } else { text };
            match write_line(&mut out, &text) {
                Ok(()) => (out_works, has_half_line) = (true, false),
                Err(written_bytes) => {
                    out_works = false;
                    has_half_line |= written_bytes > 0;
                    self.record_failed_write(&next);
                }
            }
        }
    }

    /// Waits for the next line to write. After a failed write, missing lines are not reported: that would fail too.
    fn next(&self, out_works: bool) -> NextLine {
        let mut state = self.state.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len() + LINE_OVERHEAD_BYTES;
                state.is_writing = true;
                return NextLine::Write(line);
            }
            state.is_full = false;
            if state.unreported > 0 && out_works {
                state.is_writing = true;
                return NextLine::ReportDropped(std::mem::take(&mut state.unreported));
            }
            state.is_writing = false;
            self.emptied.notify_all();
            self.filled.wait(&mut state);
        }
    }

    /// Counts a line that could not be written.
    fn record_failed_write(&self, next: &NextLine) {
        let mut state = self.state.lock();
        match next {
            NextLine::Write(_) => {
                state.unreported += 1;
                self.dropped.fetch_add(1, Relaxed);
            }
            NextLine::ReportDropped(lines) => state.unreported += lines,
        }
    }
}

/// Writes the whole line. The error says how many bytes were written before it.
fn write_line(out: &mut (impl Write + AsFd), line: &[u8]) -> Result<(), usize> {
    let mut written_bytes = 0;
    while written_bytes < line.len() {
        match out.write(&line[written_bytes..]) {
            Ok(0) => return Err(written_bytes),
            Ok(written) => written_bytes += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever shares the terminal or pipe with us has set it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // An error here is one of the next write, too.
                let _ = poll(&mut [PollFd::new(out, PollFlags::OUT)], None);
            }
            Err(_) => return Err(written_bytes),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::os::fd::OwnedFd;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn format_dropped(lines: u64) -> Vec<u8> {
        format!("{lines} dropped\n").into_bytes()
    }

    fn start(out: impl Into<OwnedFd>) -> (Arc<LogQueue>, Arc<AtomicU64>) {
        let dropped = Arc::new(AtomicU64::new(0));
        let out = std::fs::File::from(out.into());
        (LogQueue::start(out, dropped.clone(), format_dropped).unwrap(), dropped)
    }

    /// A queue whose reader reads nothing yet, full.
    fn full() -> (Arc<LogQueue>, Arc<AtomicU64>, std::io::PipeReader, u64) {
        let (reader, out) = std::io::pipe().unwrap();
        let (queue, dropped) = start(out);
        let mut pushed = 0;
        while dropped.load(Relaxed) < 3 {
            queue.push(format!("line {pushed}\n").as_bytes());
            pushed += 1;
        }
        (queue, dropped, reader, pushed)
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (mut reader, out) = std::io::pipe().unwrap();
        let (queue, dropped) = start(out);
        (0..100).for_each(|n| queue.push(format!("{n}\n").as_bytes()));
        assert!(queue.flush(LONG));
        let mut text = [0; 290];
        reader.read_exact(&mut text).unwrap();
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(text.as_slice(), expected.as_bytes());
        assert_eq!(dropped.load(Relaxed), 0);
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_memory_stays_bounded() {
        let (queue, _, _reader, _) = full();
        let state = queue.state.lock();
        assert!(state.bytes <= WAITING_BYTES_MAX);
        assert!(state.lines.len() <= WAITING_BYTES_MAX / LINE_OVERHEAD_BYTES);
        drop(state);
        assert!(!queue.flush(Duration::ZERO), "the end gives up on a reader that does not read");
    }

    #[test]
    fn a_reader_that_is_back_reads_what_waited_how_much_is_missing_and_what_comes_then() {
        let (queue, dropped, reader, pushed) = full();
        let missing = dropped.load(Relaxed);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        for n in 0..pushed - missing {
            assert_eq!(lines.next().unwrap(), format!("line {n}"));
        }
        assert_eq!(lines.next().unwrap(), format!("{missing} dropped"));
        assert!(queue.flush(LONG));
        queue.push(b"after\n");
        assert_eq!(lines.next().unwrap(), "after");
        assert_eq!(dropped.load(Relaxed), missing);
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_nothing_else() {
        let (reader, out) = std::io::pipe().unwrap();
        drop(reader);
        let (queue, dropped) = start(out);
        for _ in 0..3 {
            queue.push(b"x\n");
            assert!(queue.flush(LONG));
        }
        assert_eq!(dropped.load(Relaxed), 3);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let (queue, dropped) = start(std::fs::File::options().write(true).open("/dev/full").unwrap());
        queue.push(b"x\n");
        assert!(queue.flush(LONG));
        assert_eq!(dropped.load(Relaxed), 1);
    }

    #[test]
    fn a_pipe_that_does_not_wait_loses_nothing() {
        let (reader, out) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&out, true).unwrap();
        let (queue, dropped) = start(out);
        // More than the pipe takes at once.
        (0..8).for_each(|n| queue.push(format!("{n}{}\n", "x".repeat(20_000)).as_bytes()));
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        (0..8).for_each(|n| assert!(lines.next().unwrap().starts_with(&n.to_string())));
        assert_eq!(dropped.load(Relaxed), 0);
    }
}
