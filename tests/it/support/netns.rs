//! Network namespaces of a test's own. They need root; without it a test that asks for one fails and says so.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::{program, run_checked};

/// A network that nobody else has. It is gone with the last process and socket in it.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Namespace {
        let file = std::thread::spawn(|| {
            #[expect(deprecated, reason = "unsafe is another flag, not this one")]
            rustix::thread::unshare(UnshareFlags::NEWNET)
                .unwrap_or_else(|error| panic!("a network namespace: {error}; this test has to run as root"));
            run_checked(program("ip").args(["link", "set", "lo", "up"]));
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Namespace { file: file.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) }
    }

    /// Does it inside: sockets and processes that it makes belong there, wherever they are used.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// From now on for this thread.
    pub fn enter(&self) {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    pub fn share(&self) -> Namespace {
        Namespace { file: self.file.try_clone().unwrap() }
    }

    /// Lays a cable of that name to the other one, and gives both ends an address.
    pub fn connect(&self, other: &Namespace, cable: &str, here: &str, there: &str) {
        // As `ip` finds it: that one has no files of ours.
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.file.as_raw_fd());
        self.ip(&["link", "add", cable, "type", "veth", "peer", "name", cable, "netns", &path]);
        for (side, address) in [(self, here), (other, there)] {
            side.ip(&["address", "add", &format!("{address}/24"), "dev", cable]);
            side.ip(&["link", "set", cable, "up"]);
        }
    }

    /// Pulls the cable out, or puts it back.
    pub fn plug(&self, cable: &str, is_in: bool) {
        self.ip(&["link", "set", cable, if is_in { "up" } else { "down" }]);
    }

    fn ip(&self, words: &[&str]) {
        self.inside(|| run_checked(program("ip").args(words)));
    }
}
