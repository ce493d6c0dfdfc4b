//! The client of a Redis, with real servers: plain, with passwords, over TLS, behind sentinels and in a cluster, and when
//! they die, hang or change roles.

use std::future::Future;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, cmd};
use tokencached::redis_client::options::{RedisAt, RedisOptions, TlsFiles, TrustedHost};
use tokencached::redis_client::{RedisClient, RedisFault};
use tokencached::secret_source::SecretSource;

use crate::support::redis::{Authority, Redis, Sentinel, free_port, server};
use crate::support::{APPID, Node, TIMEOUT, Wechat, run, tokencached, wait_for, write};

pub const KEY: &str = "{tokencached}";

fn on_port(port: u16) -> RedisOptions {
    server(RedisAt::Tcp { host: "127.0.0.1".into(), port })
}

fn by_socket(redis: &Redis) -> RedisOptions {
    server(RedisAt::Unix(redis.socket()))
}

fn by_sentinels(sentinels: &[&Sentinel]) -> RedisOptions {
    let sentinels = sentinels.iter().map(|sentinel| ("127.0.0.1".to_owned(), sentinel.port)).collect();
    server(RedisAt::Sentinel { sentinels, master: "mymaster".into() })
}

fn with_password(server: RedisOptions, file: &Path) -> RedisOptions {
    RedisOptions { password: Some(SecretSource::file(file)), ..server }
}

/// The master that has our keys.
fn master(server: RedisOptions) -> RedisClient {
    RedisClient::of_key(server, KEY)
}

async fn ask<T: FromRedisValue>(connection: &mut MultiplexedConnection, words: &[&str]) -> Result<T, RedisError> {
    let mut command = cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command.query_async(connection).await
}

async fn refused(client: &RedisClient) -> RedisFault {
    client.connect().await.expect_err("it lets us in")
}

/// Tries again until it works, as users of the client do.
async fn until<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let trying = async {
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(TIMEOUT, trying).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Connects and writes there, until both work.
async fn write_until(client: &RedisClient, value: &str) {
    until("a master that takes writes", || async {
        let mut connection = client.connect().await?;
        ask::<()>(&mut connection, &["SET", KEY, value]).await.map_err(|error| client.record_error(&error))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn by_tcp_and_by_a_unix_socket_in_the_database_that_is_asked_for() {
    let (redis, port) = Redis::on_tcp(&[]);
    for server in [on_port(port), by_socket(&redis)] {
        let mut connection = master(RedisOptions { db: 3, ..server }).connect().await.unwrap();
        ask::<()>(&mut connection, &["SET", KEY, "3"]).await.unwrap();
        ask::<()>(&mut connection, &["SELECT", "0"]).await.unwrap();
        assert_eq!(ask::<Option<String>>(&mut connection, &["GET", KEY]).await.unwrap(), None);
    }
    assert_eq!(refused(&master(RedisOptions { db: 16, ..on_port(port) })).await, RedisFault::Database);
    assert_eq!(refused(&master(on_port(free_port()))).await, RedisFault::Unreachable);
    assert_eq!(refused(&master(server(RedisAt::Unix("/nowhere/redis.sock".into())))).await, RedisFault::Unreachable);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_password_is_read_at_each_connection_and_a_user_may_have_a_narrow_acl() {
    let redis = Redis::start(&["--requirepass", "hunter22"]).with_password("hunter22");
    let file = redis.folder().join("password");
    let client = master(with_password(by_socket(&redis), &file));
    assert_eq!(refused(&master(by_socket(&redis))).await, RedisFault::NoPassword);
    assert_eq!(refused(&client).await, RedisFault::PasswordUnreadable);
    write(redis.folder(), "password", "another\n");
    assert_eq!(refused(&client).await, RedisFault::Password);
    write(redis.folder(), "password", "hunter22\n");
    client.connect().await.unwrap();
    // The user may not ask for the role, nor for that key: what is forbidden shows when it is tried.
    redis.ask::<()>(&["ACL", "SETUSER", "tc", "on", ">hunter22", "~ours*", "+ping", "+get"]);
    let user = |name: &str| RedisOptions { user: Some(name.into()), ..with_password(by_socket(&redis), &file) };
    let mut connection = master(user("tc")).connect().await.unwrap();
    let error = ask::<()>(&mut connection, &["GET", "theirs"]).await.unwrap_err();
    assert_eq!(client.record_error(&error), RedisFault::Permission);
    assert_eq!(refused(&master(user("nobody"))).await, RedisFault::Password);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn by_tls_with_certificates_of_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let authority = Authority::new(&path);
    ["server", "client"].iter().for_each(|name| authority.sign(&path, name));
    let port = free_port();
    let files = ["--tls-cert-file", "{folder}/server.pem", "--tls-key-file", "{folder}/server.key"];
    let tls = ["--tls-port", &port.to_string(), "--tls-ca-cert-file", "{folder}/ca.pem"].map(str::to_owned);
    let arguments: Vec<&str> = files.iter().copied().chain(tls.iter().map(String::as_str)).collect();
    let _redis = Redis::start_in(folder, &arguments);
    let with = |host: &str, ca: bool, identity: bool| {
        let identity = identity.then(|| (path.join("client.pem"), path.join("client.key")));
        let files = TlsFiles { ca_file: ca.then(|| path.join("ca.pem")), identity };
        master(RedisOptions { tls: Some(files), ..server(RedisAt::Tcp { host: host.into(), port }) })
    };
    let client = with("localhost", true, true);
    ask::<()>(&mut client.connect().await.unwrap(), &["SET", KEY, "1"]).await.unwrap();
    let mut subscriber = client.subscribe(&["news"]).await.unwrap();
    ask::<()>(&mut client.connect().await.unwrap(), &["PUBLISH", "news", "1"]).await.unwrap();
    assert_eq!(subscriber.next().await.unwrap().unwrap().get_payload_bytes(), b"1");
    assert_eq!(
        refused(&with("localhost", false, true)).await,
        RedisFault::Tls,
        "the public authorities do not know it"
    );
    assert_eq!(refused(&with("127.0.0.1", true, true)).await, RedisFault::Tls, "the certificate names another host");
    assert_eq!(refused(&with("localhost", true, false)).await, RedisFault::Tls, "it wants to know us");
    std::fs::remove_file(path.join("ca.pem")).unwrap();
    assert_eq!(refused(&client).await, RedisFault::Files);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_replica_is_refused_until_it_is_the_master() {
    let (_master, port) = Redis::on_tcp(&[]);
    let (replica, port) = Redis::replica_of(port, &[]);
    let client = master(on_port(port));
    assert_eq!(refused(&client).await, RedisFault::ReadOnly);
    RedisClient::new(on_port(port)).connect().await.expect("who does not ask for a master is let in");
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    let mut connection = client.connect().await.unwrap();
    // It becomes a replica again while a connection is open.
    replica.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = ask::<()>(&mut connection, &["SET", KEY, "1"]).await.unwrap_err();
    assert_eq!(client.record_error(&error), RedisFault::ReadOnly);
    assert!(RedisFault::ReadOnly.is_about_the_connection());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_failover_is_followed_by_the_word_of_the_sentinel() {
    let (mut first, port) = Redis::on_tcp(&[]);
    let (second, second_port) = Redis::replica_of(port, &[]);
    let sentinel = Sentinel::start(port, "");
    sentinel.knows_a_replica();
    let client = master(by_sentinels(&[&sentinel]));
    write_until(&client, "1").await;
    assert_eq!(first.get(KEY).as_deref(), Some("1"));
    let mut subscriber = client.subscribe(&["news"]).await.unwrap();
    first.kill();
    let gone = tokio::time::timeout(TIMEOUT, subscriber.next()).await.unwrap().unwrap();
    assert_eq!(gone.err(), Some(RedisFault::Dropped));
    write_until(&client, "2").await;
    assert_eq!(second.get(KEY).as_deref(), Some("2"));
    // The old one comes back as a replica, and becomes the master again while all live.
    first.start_again();
    first.ask::<()>(&["REPLICAOF", "127.0.0.1", &second_port.to_string()]);
    wait_for("it to be up to date", || first.get(KEY).filter(|value| value == "2"));
    let connection = client.connect().await.unwrap();
    until("the failover to begin", || async { sentinel.ask::<()>(&["SENTINEL", "FAILOVER", "mymaster"]) }).await;
    let fault = until("the old master to be none", || async {
        match ask::<()>(&mut connection.clone(), &["SET", KEY, "3"]).await {
            Ok(()) => Err(()),
            Err(error) => Ok(client.record_error(&error)),
        }
    })
    .await;
    assert!(matches!(fault, RedisFault::ReadOnly | RedisFault::Dropped), "{fault:?}");
    write_until(&client, "4").await;
    assert_eq!(first.get(KEY).as_deref(), Some("4"));
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn most_sentinels_are_believed_and_one_that_hangs_is_not_waited_for() {
    let ((_right, right), (_wrong, wrong)) = (Redis::on_tcp(&[]), Redis::on_tcp(&[]));
    let behind = Sentinel::start(wrong, "");
    let (one, two) = (Sentinel::start(right, ""), Sentinel::start(right, ""));
    let client = master(by_sentinels(&[&behind, &one, &two]));
    for _ in 0..5 {
        write_until(&client, "1").await;
    }
    assert_eq!((_right.get(KEY).as_deref(), _wrong.get(KEY)), (Some("1"), None));
    behind.signal("STOP");
    // Its deadline is far longer than the test waits.
    let patient = RedisOptions { timeout_ms: 60_000, ..by_sentinels(&[&behind, &one, &two]) };
    tokio::time::timeout(TIMEOUT, master(patient).connect()).await.expect("no wait").unwrap();
    // The others are gone: the client waits for the one that is left.
    one.signal("STOP");
    two.signal("STOP");
    let short = RedisOptions { timeout_ms: 200, ..by_sentinels(&[&behind, &one, &two]) };
    assert_eq!(refused(&master(short)).await, RedisFault::Timeout);
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn what_is_wrong_with_sentinels_is_said() {
    let (redis, port) = Redis::on_tcp(&["--requirepass", "hunter22"]);
    let plain = Sentinel::start(port, "sentinel auth-pass mymaster hunter22");
    let locked = Sentinel::start(port, "sentinel auth-pass mymaster hunter22\nrequirepass hunter22");
    let file = write(redis.folder(), "password", "hunter22\n");
    let wrong = write(redis.folder(), "wrong", "hunter23\n");
    for sentinel in [&plain, &locked] {
        master(with_password(by_sentinels(&[sentinel]), &file)).connect().await.unwrap();
        assert_eq!(refused(&master(with_password(by_sentinels(&[sentinel]), &wrong))).await, RedisFault::Password);
        assert_eq!(refused(&master(by_sentinels(&[sentinel]))).await, RedisFault::NoPassword);
    }
    let sentinels = vec![("127.0.0.1".into(), plain.port)];
    let other = server(RedisAt::Sentinel { sentinels, master: "another".into() });
    assert_eq!(refused(&master(other)).await, RedisFault::NoMaster);
    assert_eq!(refused(&master(on_port(plain.port))).await, RedisFault::Protocol, "a sentinel is no Redis");
    let nobody = vec![("127.0.0.1".into(), free_port())];
    let nobody = server(RedisAt::Sentinel { sentinels: nobody, master: "mymaster".into() });
    assert_eq!(refused(&master(nobody)).await, RedisFault::Unreachable);
}

/// Two nodes of a cluster, and our key's slot on the second.
pub fn cluster() -> ((Redis, u16), (Redis, u16)) {
    let node = || {
        let bus = free_port().to_string();
        let (redis, port) =
            Redis::on_tcp(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "60000"]);
        (redis, port, bus)
    };
    let ((one, one_port, _), (two, two_port, two_bus)) = (node(), node());
    let slot: u32 = one.ask(&["CLUSTER", "KEYSLOT", KEY]);
    let (before, after) = ((slot - 1).to_string(), (slot + 1).to_string());
    one.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", &before, &after, "16383"]);
    two.ask::<()>(&["CLUSTER", "ADDSLOTS", &slot.to_string()]);
    two.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "2"]);
    one.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", "1"]);
    one.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &two_port.to_string(), &two_bus]);
    for redis in [&one, &two] {
        wait_for("the cluster", || {
            redis.ask::<String>(&["CLUSTER", "INFO"]).contains("cluster_state:ok").then_some(())
        });
    }
    ((one, one_port), (two, two_port))
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn in_a_cluster_the_node_that_has_our_keys_is_followed() {
    let ((one, one_port), (two, two_port)) = cluster();
    let client = master(on_port(one_port));
    write_until(&client, "1").await;
    assert_eq!(two.get(KEY).as_deref(), Some("1"));
    // A Unix socket has no host to begin with.
    ask::<()>(&mut master(by_socket(&one)).connect().await.unwrap(), &["SET", KEY, "2"]).await.unwrap();
    // The slot moves while a connection is open.
    let mut connection = client.connect().await.unwrap();
    two.ask::<()>(&["DEL", KEY]);
    let slot = one.ask::<u32>(&["CLUSTER", "KEYSLOT", KEY]).to_string();
    let id: String = one.ask(&["CLUSTER", "MYID"]);
    for redis in [&one, &two] {
        redis.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
    }
    let error = ask::<()>(&mut connection, &["SET", KEY, "3"]).await.unwrap_err();
    assert_eq!(client.record_error(&error), RedisFault::Cluster);
    write_until(&client, "4").await;
    assert_eq!(one.get(KEY).as_deref(), Some("4"));
    assert_ne!(one_port, two_port);
}

/// A node whose slot has moved redirects once; then it may be shut down.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_clusters_word_outlives_the_node_that_gave_it() {
    let ((one, _), (mut two, two_port)) = cluster();
    let clients = [master(on_port(two_port)), master(on_port(two_port))];
    let (by_error, by_answer) = (clients[0].connect().await.unwrap(), clients[1].connect().await.unwrap());
    let slot = one.ask::<u32>(&["CLUSTER", "KEYSLOT", KEY]).to_string();
    let id: String = one.ask(&["CLUSTER", "MYID"]);
    for redis in [&one, &two] {
        redis.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
    }
    let error = ask::<()>(&mut by_error.clone(), &["GET", KEY]).await.unwrap_err();
    assert_eq!(clients[0].record_error(&error), RedisFault::Cluster);
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors().cmd("PING").cmd("GET").arg(KEY);
    let answers: Vec<redis::Value> = pipeline.query_async(&mut by_answer.clone()).await.unwrap();
    let refusals: Vec<_> = answers.iter().map(|answer| clients[1].record_refusal(answer)).collect();
    assert_eq!(refusals, [None, Some(RedisFault::Cluster)]);
    two.kill();
    for client in &clients {
        let mut connection = client.connect().await.unwrap();
        assert_eq!(ask::<Option<String>>(&mut connection, &["GET", KEY]).await.unwrap(), None);
    }
}

/// When the address of a redirect fails, it is forgotten, and the configured address is used again.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn where_a_cluster_sent_us_is_left_again_when_it_is_gone() {
    let ((one, one_port), (mut two, _)) = cluster();
    let client = master(on_port(one_port));
    write_until(&client, "1").await;
    two.kill();
    // The other one still redirects there.
    let fault = refused(&client).await;
    assert!(matches!(fault, RedisFault::Unreachable | RedisFault::Busy), "{fault:?}");
    let slot = one.ask::<u32>(&["CLUSTER", "KEYSLOT", KEY]).to_string();
    one.ask::<()>(&["CLUSTER", "DELSLOTS", &slot]);
    one.ask::<()>(&["CLUSTER", "ADDSLOTS", &slot]);
    write_until(&client, "2").await;
    assert_eq!(one.get(KEY).as_deref(), Some("2"));
}

/// Answers like a server with a password that redirects its clients, or like a sentinel. Records what it gets.
fn impostor(host: &str, elsewhere: u16) -> (u16, Arc<Mutex<String>>) {
    let listener = std::net::TcpListener::bind((host, 0)).unwrap();
    let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(String::new())));
    let noted = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let noted = noted.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    let words = String::from_utf8_lossy(&bytes[..length]).into_owned();
                    let answers: String = words.split("\r\n").map(|word| answer(word, elsewhere)).collect();
                    noted.lock().unwrap().push_str(&words);
                    stream.write_all(answers.as_bytes()).unwrap();
                }
            });
        }
    });
    (port, heard)
}

fn answer(word: &str, elsewhere: u16) -> String {
    match word {
        "AUTH" => "+OK\r\n".to_owned(),
        "PING" => "+PONG\r\n".to_owned(),
        "ROLE" => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_owned(),
        "EXISTS" => format!("-MOVED 1 127.0.0.2:{elsewhere}\r\n"),
        "GET-MASTER-ADDR-BY-NAME" => format!("*2\r\n$9\r\n127.0.0.2\r\n$5\r\n{elsewhere:05}\r\n"),
        _ => String::new(),
    }
}

#[tokio::test]
async fn neither_a_sentinels_answer_nor_a_clusters_decides_where_the_password_goes() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "password", "hunter22");
    let (elsewhere, heard) = impostor("127.0.0.2", 1);
    let (named, _) = impostor("127.0.0.1", elsewhere);
    let by_sentinel = RedisAt::Sentinel { sentinels: vec![("127.0.0.1".into(), named)], master: "mymaster".into() };
    for at in [by_sentinel, RedisAt::Tcp { host: "127.0.0.1".into(), port: named }] {
        let trusting = |hosts: &[&str]| {
            let trusted_hosts = hosts.iter().map(|host| TrustedHost::parse(host).unwrap()).collect();
            master(RedisOptions { trusted_hosts, ..with_password(server(at.clone()), &file) })
        };
        assert_eq!(refused(&trusting(&["10.0.0.0/8", "redis.internal"])).await, RedisFault::Untrusted);
        assert_eq!(*heard.lock().unwrap(), "", "nothing was sent there, least of all the password");
        // It redirects again, to nobody.
        assert_ne!(refused(&trusting(&["127.0.0.0/8"])).await, RedisFault::Untrusted);
        assert!(heard.lock().unwrap().contains("hunter22"), "where it may go it goes");
        heard.lock().unwrap().clear();
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_killed_server_is_noticed_and_found_again() {
    let mut redis = Redis::start(&[]);
    let client = master(by_socket(&redis));
    let mut connection = client.connect().await.unwrap();
    let mut subscriber = client.subscribe(&["news"]).await.unwrap();
    redis.kill();
    let gone = tokio::time::timeout(TIMEOUT, subscriber.next()).await.unwrap().unwrap();
    assert_eq!(gone.err(), Some(RedisFault::Dropped));
    let error = ask::<()>(&mut connection, &["PING"]).await.unwrap_err();
    assert_eq!(client.record_error(&error), RedisFault::Dropped);
    assert_eq!(refused(&client).await, RedisFault::Unreachable);
    redis.start_again();
    client.connect().await.unwrap();
    let mut subscriber = client.subscribe(&["news"]).await.unwrap();
    redis.ask::<()>(&["PUBLISH", "news", "again"]);
    assert_eq!(subscriber.next().await.unwrap().unwrap().get_payload_bytes(), b"again");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_server_that_hangs_is_given_up_at_the_deadline() {
    let (redis, port) = Redis::on_tcp(&[]);
    let client = master(on_port(port));
    let mut connection = client.connect().await.unwrap();
    let mut subscriber = client.subscribe(&["news"]).await.unwrap();
    redis.ask::<()>(&["PUBLISH", "news", "1"]);
    assert_eq!(subscriber.next().await.unwrap().unwrap().get_payload_bytes(), b"1");
    redis.signal("STOP");
    assert_eq!(refused(&client).await, RedisFault::Timeout);
    let error = ask::<()>(&mut connection, &["PING"]).await.unwrap_err();
    assert_eq!(client.record_error(&error), RedisFault::Timeout);
    assert_eq!(client.subscribe(&["news"]).await.err(), Some(RedisFault::Timeout));
    // However often the waiting is cancelled in between.
    let impatient = async {
        loop {
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(50), subscriber.next()).await {
                return heard.unwrap().err();
            }
        }
    };
    assert_eq!(tokio::time::timeout(TIMEOUT, impatient).await.unwrap(), Some(RedisFault::Timeout));
    redis.signal("CONT");
    until("it to answer", || client.connect()).await;
}

#[test]
#[ignore = "needs redis-server"]
fn a_sink_follows_its_sentinels() {
    let (mut first, port) = Redis::on_tcp(&[]);
    let (second, _) = Redis::replica_of(port, &[]);
    let sentinel = Sentinel::start(port, "");
    sentinel.knows_a_replica();
    let wechat = Wechat::start();
    let sink =
        format!("[[sink]]\nurl = \"redis+sentinel://127.0.0.1:{}/mymaster\"\ncheck_every_s = 1\n", sentinel.port);
    let node = Node::start(&wechat.config("", &sink), &[]);
    let key = format!("access_token:{APPID}");
    let token = wait_for("the token", || first.get(&key));
    first.kill();
    // The replica had the value already: it has to be written again.
    wait_for("a master", || second.is_master().then_some(()));
    second.ask::<()>(&["DEL", &key]);
    assert_eq!(wait_for("the token at the new master", || second.get(&key)), token);
    wait_for("good news", || (node.connect().stat("", "sink_0_last_error")? == "none").then_some(()));
}

/// What `check --live` says about the cluster store.
fn live(state: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[state]\npath = \"none\"\nsecret = \"sixteen-characters\"\n{state}\n");
    let file = write(folder.path(), "c.toml", &config);
    let (status, said) = run(tokencached().args(["check", "--live", "--config"]).arg(file));
    (status.success(), said)
}

#[test]
#[ignore = "needs redis-server"]
fn check_says_whether_the_state_can_be_shared() {
    let (_redis, port) = Redis::on_tcp(&[]);
    let (_replica, replica) = Redis::replica_of(port, &[]);
    let (well, said) = live(&format!("url = \"redis://127.0.0.1:{port}\""));
    assert!(well && said.contains("login works, and it is a master"), "{said}");
    assert!(!said.contains("sixteen-characters"), "{said}");
    let (well, said) = live(&format!("url = \"redis://127.0.0.1:{replica}\""));
    assert!(!well && said.contains("no: it is a read-only replica") && said.contains("what to do"), "{said}");
    let (well, said) = live(&format!("url = \"redis://127.0.0.1:{}\"", free_port()));
    assert!(!well && said.contains("it cannot be reached"), "{said}");
}
