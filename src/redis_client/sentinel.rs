//! Asks sentinels for the address of the master.
//!
//! The client library (redis 1.8) could do this, but not as is needed here. It logs in at whatever server a sentinel names
//! before anybody can ask `password_hosts`: so whoever answers in a sentinel's place gets the password. It takes the first
//! sentinel's word, also that of one that is cut off and names an old master. Its deadlines are its own, and its errors
//! do not tell a sentinel's fault from the master's.

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::client::{self, Login, ServerAddress, within};
use super::fault::RedisFault;
use super::options::RedisOptions;

/// The masters that the sentinels name, most votes first. Asks all sentinels at once and waits until a majority agrees: a
/// sentinel that is cut off may still name an old master.
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
            Ok(address) => {
                match named.iter_mut().find(|(_, known)| *known == address) {
                    Some((votes, _)) => *votes += 1,
                    None => named.push((1, address)),
                }
                if named.iter().any(|(votes, _)| 2 * votes > sentinels.len()) {
                    break;
                }
            }
            // The sentinels that could not be asked might have named another: a minority must not decide.
            Err(RedisFault::NoDescriptor) => return Err(RedisFault::NoDescriptor),
            // A fault that the operator can fix is worth more than one sentinel that is down.
            Err(other) if fault == RedisFault::Unreachable => fault = other,
            Err(_) => {}
        }
    }
    named.sort_by_key(|(votes, _)| std::cmp::Reverse(*votes));
    if named.is_empty() { Err(fault) } else { Ok(named.into_iter().map(|(_, address)| address).collect()) }
}

/// Sentinels rarely have a password. One that wants a password gets the servers'.
async fn ask(server: &RedisOptions, at: ServerAddress, name: &str) -> Result<ServerAddress, RedisFault> {
    match ask_as(server, &at, name, Login::Anonymous).await {
        Err(RedisFault::NoPassword) if server.password.is_some() => {
            ask_as(server, &at, name, Login::PasswordOnly).await
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
    let mut connection = client::connect(server, at, login).await?;
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let asking = command.query_async::<Option<(String, u16)>>(&mut connection);
    let answer = within(2 * server.timeout(), asking).await?.map_err(|error| client::fault_of(&error))?;
    answer.map(|(host, port)| ServerAddress::Tcp(host, port)).ok_or(RedisFault::NoMaster)
}
