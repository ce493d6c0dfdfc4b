//! The servers as processes: on which cores they run, and what CPU time each of their threads has used.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::cores::spawn;
use crate::generator::Wire;
use crate::shapes;

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    port: u16,
    /// The bytes of its answers are what the load expects.
    pub is_floor: bool,
}

impl Server {
    /// Starts this program again, as a server of that shape; with two threads it has both cores.
    pub fn start(shape: &str, threads: usize, answer: &[u8]) -> Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([shapes::FLAG, shape, &threads.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command, threads);
        child.stdin.take().unwrap().write_all(answer).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Server { child, port: line.trim().parse().unwrap(), is_floor: false }
    }

    pub fn connect(&self) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire::Plain(stream)
    }

    /// User and system time of all threads so far.
    pub fn cpu_ns(&self) -> u64 {
        self.cpu_ns_by_thread().values().sum()
    }

    /// The same by thread. From the scheduler, which counts nanoseconds and not ticks.
    pub fn cpu_ns_by_thread(&self) -> HashMap<String, u64> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let used = |task: std::io::Result<std::fs::DirEntry>| -> Option<(String, u64)> {
            let task = task.ok()?;
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((task.file_name().into_string().ok()?, text.split(' ').next()?.parse().ok()?))
        };
        tasks.filter_map(used).collect()
    }

    /// The busiest thread's share since then.
    pub fn busiest_since(&self, before: &HashMap<String, u64>) -> f64 {
        let now = self.cpu_ns_by_thread();
        let used = now.iter().map(|(thread, ns)| ns - before.get(thread).copied().unwrap_or(0));
        used.clone().max().unwrap_or(0) as f64 / used.sum::<u64>().max(1) as f64
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
