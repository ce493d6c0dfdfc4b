//! Where the master is, by the word of its sentinels.
//!
//! Not the client library's own way: it waits for the sentinels in the order they are listed, with deadlines of its
//! own, and does not tell a sentinel's failure from the master's.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::client::{self, Login, ServerAddress};
use super::fault::RedisFault;
use super::options::RedisOptions;

/// The masters they name, the one that most of them name first. All are asked at once, and no more are waited for than
/// are needed to be sure: one that was cut off from the others may still name an old master.
pub(super) async fn masters(
    server: &RedisOptions,
    sentinels: &[(String, u16)],
    name: &str,
) -> Result<Vec<ServerAddress>, RedisFault> {
    let asks = sentinels.iter().map(|(host, port)| ask(server, ServerAddress::Tcp(host.clone(), *port), name));
    let mut asks: FuturesUnordered<_> = asks.collect();
    let mut named: Vec<(usize, ServerAddress)> = Vec::new();
    let mut fault = RedisFault::Unreachable;
    while let Some(answer) = asks.next().await {
        match answer {
            Ok(place) => {
                match named.iter_mut().find(|(_, known)| *known == place) {
                    Some((votes, _)) => *votes += 1,
                    None => named.push((1, place)),
                }
                if named.iter().any(|(votes, _)| 2 * votes > sentinels.len()) {
                    break;
                }
            }
            // Whom we could not ask might have named another: a few of them must not decide.
            Err(RedisFault::NoDescriptor) => return Err(RedisFault::NoDescriptor),
            // What can be mended is worth more than that one of them is down.
            Err(other) if fault == RedisFault::Unreachable => fault = other,
            Err(_) => {}
        }
    }
    named.sort_by_key(|(votes, _)| std::cmp::Reverse(*votes));
    if named.is_empty() { Err(fault) } else { Ok(named.into_iter().map(|(_, place)| place).collect()) }
}

/// Sentinels have no password unless they were given one; then it is tried with the servers'.
async fn ask(server: &RedisOptions, at: ServerAddress, name: &str) -> Result<ServerAddress, RedisFault> {
    match ask_as(server, &at, name, Login::Nameless).await {
        Err(RedisFault::NoPassword) if server.password.is_some() => {
            ask_as(server, &at, name, Login::OnlyPassword).await
        }
        answer => answer,
    }
}

async fn ask_as(
    server: &RedisOptions,
    at: &ServerAddress,
    name: &str,
    login: Login,
) -> Result<ServerAddress, RedisFault> {
    let mut connection = client::connect_as(server, at, login).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let asking = command.query_async::<Option<(String, u16)>>(&mut connection);
    let answer =
        timeout(2 * Duration::from_millis(server.timeout_ms), asking).await.map_err(|_| RedisFault::Timeout)?;
    match answer.map_err(|error| client::fault_of(&error))? {
        Some((host, port)) => Ok(ServerAddress::Tcp(host, port)),
        None => Err(RedisFault::NoMaster),
    }
}
