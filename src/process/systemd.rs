//! Messages to systemd: ready, stopping, alive. Without systemd they do nothing.
//!
//! Never waits: systemd may be too busy to take a message, and the server must not stand still for that.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// When to try again if systemd has no room for a message that must arrive.
const RETRY: Duration = Duration::from_millis(100);

/// Says that the server is ready. systemd waits for it, so this tries until it has room.
pub async fn notify_ready() {
    loop {
        match notify(&NotifyState::Ready) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(RETRY).await,
            Err(error) => return tracing::warn!(%error, "systemd cannot be told that the server is ready"),
        }
    }
}

/// Says that the server is about to end, if systemd has room for it.
pub fn notify_stopping() {
    let _ = notify(&NotifyState::Stopping);
}

/// How often systemd wants to hear from the server (`WatchdogSec`).
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|period| !period.is_zero())
}

/// Says that the server is alive, if systemd has room for it; the next message says the same.
pub fn notify_watchdog() {
    let _ = notify(&NotifyState::Watchdog);
}

/// sd-notify's own way to send waits for room.
fn notify(state: &NotifyState<'_>) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(format!("{state}\n").as_bytes(), &address)?;
    Ok(())
}
