//! A server without a parser: one read, one answer for each newline in it, one write. What it costs, any server on these
//! sockets costs at least.
//!
//! Runs in a process of its own, which is this bench started with [`FLAG`]. Takes the answer from its standard input
//! and says its port on its standard output.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

pub const FLAG: &str = "--floor";

/// More requests than the generator ever has on one connection.
const REQUESTS_MAX: usize = 1024;

pub fn run() {
    let mut answer = Vec::new();
    std::io::stdin().read_to_end(&mut answer).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    serve(&listener, answer.len(), &answer.repeat(REQUESTS_MAX));
}

fn serve(listener: &TcpListener, answer_bytes: usize, answers: &[u8]) -> ! {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let add = |socket: &dyn std::os::fd::AsFd, index: usize| {
        epoll::add(&epoll, socket.as_fd(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN).unwrap();
    };
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let (mut events, mut buffer) = (Vec::with_capacity(256), vec![0; 256 * 1024]);
    add(listener, usize::MAX);
    loop {
        epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
        for event in events.drain(..) {
            let Some(place) = connections.get_mut(event.data.u64() as usize) else {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                add(&stream, connections.len());
                connections.push(Some(stream));
                continue;
            };
            let Some(stream) = place else { continue };
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => *place = None,
                Ok(read) => {
                    let requests = memchr::memchr_iter(b'\n', &buffer[..read]).count();
                    if stream.write_all(&answers[..requests * answer_bytes]).is_err() {
                        *place = None;
                    }
                }
            }
        }
    }
}
