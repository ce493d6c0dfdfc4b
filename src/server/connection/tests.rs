//! Deadlines, back-pressure and fairness: connections driven in virtual time, over streams in memory.

pub mod world;

use std::rc::Rc;

use self::world::{Client, World, limits, seconds};
use super::output::{TLS_BUFFER_BYTES, waiting};
use super::*;
use crate::server::Limits;

/// More than three quarters of the connections there may be.
fn crowd(world: &Rc<World>) -> Vec<Client> {
    (0..=world.shared.limits.max_connections * 3 / 4).map(|_| world.connect(64)).collect()
}

#[test]
fn under_pressure_a_line_that_trickles_in_is_given_up_ten_seconds_after_its_first_byte() {
    let world = World::new(limits());
    let _crowd = crowd(&world);
    let client = world.connect(1024);
    world.sleep(seconds(3600));
    client.expect("mn\r\n", "MN\r\n");
    assert!((10..=12).contains(&client.trickle(b"g")));
    assert_eq!(world.stats.request_timeouts.get(), 1);
    assert_eq!(world.stats.idle_kicks.get(), 0, "this is not idleness");
}

#[test]
fn a_person_may_type_slowly_while_nothing_is_scarce() {
    let world = World::new(limits());
    let client = world.connect(1024);
    client.type_slowly("get access_token:wx1\r", seconds(3));
    let token = "a token".repeat(70);
    client.expect("\n", &format!("VALUE access_token:wx1 0 {}\r\n{token}\r\nEND\r\n", token.len()));
    client.type_slowly("set k 0 0 26\r\nwhat a person has to say!!\r", seconds(5));
    client.expect("\n", "STORED\r\n");
    // One pause to look something up.
    client.type_slowly("get ", seconds(50));
    client.expect("nothing\r\n", "END\r\n");
    assert_eq!(world.stats.request_timeouts.get(), 0);
}

#[test]
fn who_stops_typing_is_given_up_after_a_minute_and_who_never_ends_after_ten() {
    let world = World::new(limits());
    let client = world.connect(1024);
    client.type_slowly("get acc", seconds(3));
    let begun = world.now_ms();
    assert_eq!(client.read(8).len(), 0);
    assert_eq!(world.seconds_since(begun), 57, "a minute after the last byte, of which three seconds are over");
    assert_eq!(world.stats.request_timeouts.get(), 1);

    assert!((600..=602).contains(&world.connect(1024).trickle(b"g")));
    // What is too long to have been typed keeps its old deadline.
    let client = world.connect(8192);
    client.write(format!("get {}", "k".repeat(2100)).as_bytes());
    assert!((10..=12).contains(&client.trickle(b"g")));
}

#[test]
fn ten_thousand_half_typed_lines_are_all_gone_once_there_is_pressure() {
    let world = World::new(Limits { max_connections: 14_000, in_flight_bytes_max: 2 << 20, ..limits() });
    let open = || world.shared.service.stats.curr_connections.load(Relaxed);
    let mut slow = Vec::new();
    for _ in 0..10_000 {
        let client = world.connect(64);
        client.write(b"g");
        slow.push(client);
    }
    world.sleep(seconds(50));
    assert_eq!(open(), 10_000, "nobody is in need of what they have");
    // Places get scarce...
    let others: Vec<Client> = (0..600).map(|_| world.connect(64)).collect();
    world.sleep(seconds(3));
    assert_eq!(open(), 600);
    let client = world.connect(1024);
    client.expect("mn\r\n", "MN\r\n");
    drop((slow, others));
    // ...or memory.
    let slow = world.connect(64);
    slow.write(b"g");
    world.sleep(seconds(50));
    let mut half = world.connect(2 << 20);
    half.write(b"set k 0 0 1040000\r\n");
    for _ in 0..2 {
        let other = world.connect(2 << 20);
        other.write(b"set k 0 0 1040000\r\n");
        other.write([b'v'; 700_000]);
        world.sleep(seconds(1));
        if world.shared.is_under_pressure() {
            world.sleep(seconds(3));
            assert_eq!(slow.read(8).len(), 0, "it has had its time");
            return;
        }
        half = other;
    }
    drop(half);
    panic!("there is never any pressure");
}

#[test]
fn a_value_that_trickles_in_is_given_up_and_never_seen() {
    let world = World::new(limits());
    for (head, allowed) in [("set k 0 0 100000\r\n", 66), ("set k 0 0 9000000\r\n", 60 + 549), ("ms k 100000\r\n", 66)]
    {
        let client = world.connect(1 << 20);
        client.write(head.as_bytes());
        let took = client.trickle(b"v");
        assert!((allowed..allowed + 3).contains(&took), "{head}: {took} s");
    }
    world.connect(1024).expect("get k\r\n", "END\r\n");
    assert_eq!(world.in_flight(), 0);
}

#[test]
fn a_slow_but_steady_value_arrives() {
    let world = World::new(limits());
    let client = world.connect(1 << 20);
    // Refused ones must be thrown away as patiently as others are received.
    for (bytes, answer) in [(1_000_000, "STORED\r\n"), (8_000_000, "SERVER_ERROR object too large for cache\r\n")] {
        client.write(format!("set k 0 0 {bytes}\r\n").as_bytes());
        for _ in 0..bytes / 20_000 {
            client.write([b'v'; 20_000]);
            world.sleep(seconds(1));
        }
        client.expect("\r\n", answer);
    }
}

#[test]
fn a_pipeline_that_always_ends_in_mid_request_has_all_the_time_it_needs() {
    let world = World::new(limits());
    let client = world.connect(1024);
    client.expect("mn\r\nm", "MN\r\n");
    for _ in 0..600 {
        world.sleep(seconds(1));
        client.expect("n\r\nm", "MN\r\n");
    }
    for _ in 0..60 {
        client.expect("n\r\nset k 0 0 5\r\n12", "MN\r\n");
        world.sleep(seconds(9));
        client.expect("345\r\nm", "STORED\r\n");
    }
}

#[test]
fn only_a_silent_client_is_idle() {
    let world = World::new(Limits { idle_timeout: Some(seconds(5)), ..limits() });
    let client = world.connect(1024);
    for _ in 0..10 {
        world.sleep(seconds(4));
        client.expect("mn\r\n", "MN\r\n");
    }
    let begun = world.now_ms();
    assert_eq!(client.read(8).len(), 0);
    assert_eq!(world.seconds_since(begun), 5);
    assert_eq!(world.stats.idle_kicks.get(), 1);
}

#[test]
fn a_client_that_never_reads_costs_little_and_is_given_up() {
    let world = World::new(limits());
    let value = "v".repeat(1_000_000);
    world.connect(2 << 20).expect(&format!("set k 0 0 1000000\r\n{value}\r\n"), "STORED\r\n");

    let client = world.connect(8192);
    let begun = world.now_ms();
    // Each asks for a megabyte.
    while world.seconds_since(begun) < 29 {
        client.write_some(b"get k\r\n");
        world.sleep(Duration::from_millis(10));
    }
    client.connection(|connection| {
        assert!(connection.output.len() <= OUTPUT_BYTES_MAX + value.len() + 100, "{}", connection.output.len());
        assert!(connection.input.len() <= 2 * BUFFER_BYTES, "it read on while nobody took its answers");
    });
    while client.write(b"get k\r\n") {}
    assert_eq!(world.seconds_since(begun), 30);
    assert_eq!(world.stats.write_timeouts.get(), 1);
}

#[test]
fn a_client_behind_a_modem_gets_everything() {
    let world = World::new(limits());
    let client = world.connect(4096);
    let value = "v".repeat(1_000_000);
    client.expect(&format!("set k 0 0 1000000\r\n{value}\r\n"), "STORED\r\n");
    client.write(b"get k\r\n");
    let whole = format!("VALUE k 0 1000000\r\n{value}\r\nEND\r\n");
    let mut answer = Vec::new();
    while answer.len() < whole.len() {
        // 14,400 baud, in bursts.
        world.sleep(seconds(20));
        answer.extend(client.read_exactly(36_000.min(whole.len() - answer.len())));
    }
    assert!(answer == whole.as_bytes());
}

#[test]
fn half_received_values_share_a_bounded_memory() {
    let world = World::new(Limits { in_flight_bytes_max: 2 << 20, ..limits() });
    let small = world.connect(1024);
    small.expect("set d 0 0 1\r\nx\r\n", "STORED\r\n");
    // Announcing costs nothing.
    let mut boasters = Vec::new();
    for _ in 0..50 {
        let client = world.connect(1 << 20);
        client.write(b"set a 0 0 1000000\r\n0123456789");
        boasters.push(client);
    }
    small.expect("set b 0 0 3\r\nabc\r\nget b\r\n", "STORED\r\nVALUE b 0 3\r\nabc\r\nEND\r\n");

    let mut halves = Vec::new();
    for _ in 0..3 {
        let client = world.connect(1 << 20);
        client.write(b"set c 0 0 900000\r\n");
        client.write([b'v'; 600_000]);
        world.sleep(seconds(1));
        assert!(world.in_flight() <= 2 << 20);
        halves.push(client);
    }
    let block = "v".repeat(900_000);
    let late = world.connect(1 << 20);
    late.expect(&format!("set d 0 0 900000\r\n{block}\r\n"), "STORED\r\n");
    // Those who had to give way are told so, and stay in step. As with any store that fails, nobody reads what was to be
    // replaced.
    let rest = "v".repeat(300_000);
    for client in &mut halves[..2] {
        let answer = "SERVER_ERROR out of memory storing object\r\nMN\r\n";
        client.expect(&format!("{rest}\r\nmn\r\n"), answer);
    }
    late.expect("get c\r\n", "END\r\n");
    halves[2].expect(&format!("{rest}\r\nmn\r\n"), "STORED\r\nMN\r\n");
    assert_eq!(world.stats.in_flight_refusals.get(), 2);
    drop(halves);
    drop(boasters);
    world.run();
    late.expect(&format!("ms d 900000\r\n{block}\r\n"), "HD\r\n");
    assert_eq!(world.in_flight(), 0, "every share came back");
}

/// Begins a value of a megabyte and stops.
fn half_send(world: &Rc<World>) -> Client {
    let client = world.connect(1 << 20);
    client.write(b"set half 0 0 1040000\r\n");
    client.write([b'v'; 1_030_000]);
    client
}

#[test]
fn sixty_six_half_sent_values_keep_nobody_from_storing() {
    let world = World::new(Limits { in_flight_bytes_max: 64 << 20, ..limits() });
    let mut halves = Vec::new();
    for _ in 0..66 {
        halves.push(half_send(&world));
        world.run();
    }
    let begun = world.now_ms();
    let block = "v".repeat(100_000);
    for _ in 0..20 {
        world.connect(1 << 20).expect(&format!("set new 0 0 100000\r\n{block}\r\n"), "STORED\r\n");
    }
    assert_eq!(world.now_ms(), begun, "nobody waits for a deadline");
    assert!(world.in_flight() <= 64 << 20);
    // Not one more than must has to give way: each new value needs a tenth of what that frees.
    assert!((1..=5).contains(&world.stats.in_flight_refusals.get()));
}

#[test]
fn a_steady_sender_is_not_pushed_out_by_those_who_stop() {
    let world = World::new(Limits { in_flight_bytes_max: 4 << 20, ..limits() });
    let steady = world.connect(1 << 20);
    let mut halves = Vec::new();
    steady.write(b"set steady 0 0 1000000\r\n");
    for _ in 0..10 {
        steady.write([b'v'; 100_000]);
        halves.push(half_send(&world));
        world.sleep(seconds(1));
        assert!(world.in_flight() <= 4 << 20);
    }
    steady.expect("\r\n", "STORED\r\n");
    assert!(world.stats.in_flight_refusals.get() >= 5);
}

#[test]
fn a_half_sent_get_line_that_has_to_give_way_is_closed() {
    let world = World::new(Limits { in_flight_bytes_max: 2 << 20, ..limits() });
    let line = world.connect(1 << 20);
    line.write(format!("get{}", " k".repeat(400_000)).as_bytes());
    world.sleep(seconds(1));
    let _halves = [half_send(&world), half_send(&world)];
    world.sleep(seconds(1));
    assert!(line.has_ended());
}

/// Asks for a key and reads nothing.
fn ask_and_read_nothing(world: &Rc<World>, key: &str) -> Client {
    let client = world.connect(1024);
    client.write(format!("get {key}\r\n").as_bytes());
    world.sleep(Duration::from_millis(10));
    client
}

fn store(world: &Rc<World>, key: &str, length: usize) {
    let block = "v".repeat(length);
    let client = world.connect(2 << 20);
    client.expect(&format!("set {key} 0 0 {length}\r\n{block}\r\n"), "STORED\r\n");
}

fn expect_value(client: &mut Client, key: &str, length: usize) {
    let value = format!("VALUE {key} 0 {length}\r\n{}\r\nEND\r\n", "v".repeat(length));
    client.expect(&format!("get {key}\r\n"), &value);
}

#[test]
fn readers_that_read_nothing_cost_one_value_between_them() {
    let world = World::new(limits());
    store(&world, "k", 1_000_000);
    let mut readers = Vec::new();
    for _ in 0..60 {
        readers.push(ask_and_read_nothing(&world, "k"));
    }
    assert_eq!(world.in_flight(), 0, "the value is in the cache and nowhere else");
    store(&world, "k", 999_999);
    assert!((1_000_000..1_001_000).contains(&world.in_flight()), "{}: once, not for each", world.in_flight());
    expect_value(&mut world.connect(1024), "k", 999_999);
    // Those who begin to read get the value they asked for, whole.
    let value = format!("VALUE k 0 1000000\r\n{}\r\nEND\r\n", "v".repeat(1_000_000));
    readers[0].expect("", &value);
    drop(readers);
    world.sleep(seconds(1));
    assert_eq!(world.in_flight(), 0);
}

#[test]
fn what_readers_hold_of_values_that_are_gone_is_bounded() {
    let world = World::new(Limits { in_flight_bytes_max: 4 << 20, ..limits() });
    let mut readers = Vec::new();
    let (mut most, mut steady) = (0, world.connect(1024));
    for _ in 0..20 {
        store(&world, "k", 1_000_000);
        for _ in 0..3 {
            readers.push(ask_and_read_nothing(&world, "k"));
        }
        expect_value(&mut steady, "k", 1_000_000);
        most = most.max(world.in_flight());
    }
    assert!((3 << 20..=5 << 20).contains(&most), "{most}");
    // The oldest had to give way, and no more of them than must: three hold each value.
    let closed = world.stats.answer_refusals.get();
    assert!((45..=51).contains(&closed), "{closed}");
    assert!(world.in_flight() <= 4 << 20);
}

#[test]
fn answers_of_many_small_values_are_bounded_over_all_connections_and_all_are_served() {
    let world = World::new(Limits { in_flight_bytes_max: 2 << 20, ..limits() });
    store(&world, "k", 2000);
    let many = "k ".repeat(500);
    let mut readers = Vec::new();
    for _ in 0..50 {
        readers.push(ask_and_read_nothing(&world, &many));
        assert!(world.in_flight() <= 2 << 20, "{}", world.in_flight());
    }
    assert!(world.in_flight() > 1 << 20);
    assert_eq!(world.stats.answer_refusals.get(), 0, "they queue less, and nobody is closed");
    let whole = format!("VALUE k 0 2000\r\n{}\r\n", "v".repeat(2000)).repeat(500) + "END\r\n";
    world.connect(1024).expect(&format!("get {many}\r\n"), &whole);
    readers[0].expect("", &whole);
    readers[49].expect("", &whole);
}

#[test]
fn a_reader_of_a_few_bytes_now_and_then_is_given_up() {
    let world = World::new(limits());
    store(&world, "k", 1_000_000);
    let client = ask_and_read_nothing(&world, "k");
    let begun = world.now_ms();
    while !client.read(10).is_empty() {
        world.sleep(seconds(25));
        assert!(world.seconds_since(begun) < 10_000, "it holds memory for ever");
        if world.stats.write_timeouts.get() > 0 {
            break;
        }
    }
    assert!((60..=90).contains(&world.seconds_since(begun)), "{}", world.seconds_since(begun));
    assert_eq!(world.stats.write_timeouts.get(), 1);
}

#[test]
fn what_waits_is_counted_beyond_the_first_buffers_and_tls_keeps_some_too() {
    let mut output = Output::default();
    output.extend_from_slice(&[b'x'; 100]);
    assert_eq!(waiting(BUFFER_BYTES, &output, false, 7), MemoryUse { bytes: 0, shared_bytes: 0, moved_bytes: 7 });
    *output = Vec::with_capacity(3 * BUFFER_BYTES);
    let bytes = |tls| waiting(2 * BUFFER_BYTES, &output, tls, 0).bytes;
    assert_eq!((bytes(false), bytes(true)), (3 * 16_384, 3 * 16_384 + TLS_BUFFER_BYTES as u64));
}

#[test]
fn a_value_the_system_has_no_memory_for_is_refused_in_step() {
    let world = World::new(limits());
    let client = world.connect(1 << 20);
    client.write(b"set k 0 0 500000\r\n");
    client.write([b'v'; 100_000]);
    world.sleep(seconds(1));
    // As the reader finds it out when its buffer cannot grow.
    client.connection(|connection| connection.no_room = true);
    client.write([b'v'; 1_000]);
    world.sleep(seconds(1));
    client.write([b'v'; 399_000]);
    client.expect("\r\nmn\r\n", "SERVER_ERROR out of memory storing object\r\nMN\r\n");
    assert_eq!(world.stats.in_flight_refusals.get(), 1);
}

#[test]
fn a_long_pipeline_gives_its_neighbours_a_turn() {
    let world = World::new(limits());
    let (greedy, modest) = (world.connect(1 << 20), world.connect(1024));
    greedy.write("mn\r\n".repeat(100_000).as_bytes());
    let mut turns = Vec::new();
    for _ in 0..20 {
        modest.expect("mn\r\n", "MN\r\n");
        turns.push(world.stats.conn_yields.get());
    }
    assert!(turns[0] <= 3, "the first answer came after {} turns of the neighbour", turns[0]);
    assert!(turns[19] <= 100, "the twentieth came after {}", turns[19]);
    assert!(greedy.read_exactly(400_000) == "MN\r\n".repeat(100_000).as_bytes());
    assert!(world.stats.conn_yields.get() > 4000);
}

#[test]
fn a_get_of_half_a_million_keys_is_walked_once_and_gives_its_neighbours_turns() {
    for (command, hit) in [("get", true), ("gets", true), ("get", false)] {
        let world = World::new(limits());
        let (greedy, modest) = (world.connect(1 << 20), world.connect(1024));
        if hit {
            modest.expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        }
        let (keys_before, words_before) = (world.stats.cmd_get.get(), crate::protocol::walked::words());
        let request = format!("{command}{}\r\n", " k".repeat(500_000));
        greedy.write_some(request.as_bytes());
        world.run_until("its first keys", || world.stats.cmd_get.get() > keys_before);
        let mut keys = world.stats.cmd_get.get();
        for _ in 0..20 {
            modest.expect("mn\r\n", "MN\r\n");
            let now = world.stats.cmd_get.get();
            // The neighbour needs three turns: to send, to be served and to see the answer.
            assert!(now - keys <= 4 * KEYS_PER_TURN as u64, "{command}: {} keys before a neighbour's turn", now - keys);
            keys = now;
        }
        let (whole, value) = (
            greedy.ask("", "END\r\n"),
            if command == "gets" { "VALUE k 0 1 1\r\nx\r\n" } else { "VALUE k 0 1\r\nx\r\n" },
        );
        assert!(whole == if hit { value.repeat(500_000) + "END\r\n" } else { "END\r\n".into() });
        assert_eq!(world.stats.cmd_get.get() - keys_before, 500_000);
        let walked = crate::protocol::walked::words() - words_before;
        assert!(walked <= 500_000 + 1000, "{command}: {walked} words");
    }
}

#[test]
fn a_get_that_touches_and_is_broken_off_goes_on_touching() {
    let world = World::new(limits());
    world.connect(1024).expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    // All of it comes at once: a longer `gat` line without its end is given up.
    let request = format!("gat 100{}\r\nmn\r\n", " k".repeat(7000));
    let answer = world.connect(1 << 20).ask(&request, "MN\r\n");
    assert!(answer == "VALUE k 0 1\r\nx\r\n".repeat(7000) + "END\r\nMN\r\n");
    assert_eq!(world.stats.touch_hits.get(), 7000);
}

#[test]
fn a_get_that_is_held_in_its_midst_goes_on_where_it_was_and_is_held_once() {
    let world = World::with_first_fetch(limits());
    world.connect(1024).expect("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    let many = " k".repeat(20_000);
    let request = format!("get{many} access_token:wx2{many} access_token:wx2{many}\r\n");
    let (words_before, begun) = (crate::protocol::walked::words(), world.now_ms());
    let answer = world.connect(1 << 20).ask(&request, "END\r\n");
    assert!(answer == "VALUE k 0 1\r\nx\r\n".repeat(60_000) + "END\r\n");
    assert_eq!(world.now_ms() - begun, 700, "one request is held once");
    let walked = crate::protocol::walked::words() - words_before;
    assert!(walked <= 60_002 + 200, "{walked} words");
}

#[test]
fn a_turn_does_not_move_what_is_left_for_the_next() {
    let world = World::new(limits());
    let mut connection = world.connection();
    connection.input = b"mn\r\n".repeat(50_000);
    for turn in 1..=3 {
        assert!(matches!(connection.execute(Now::read()), Next::Turn));
        assert_eq!((connection.input.len(), connection.start), (200_000, turn * 20 * 4));
        connection.give_turn();
    }
}

#[test]
fn a_request_is_not_parsed_again_before_it_is_whole() {
    let world = World::new(limits());
    let client = world.connect(1 << 20);
    client.write(format!("set{}k 0 0 100000\r\n", " ".repeat(1000)));
    world.run();
    let before = crate::protocol::walked::words();
    for _ in 0..100 {
        client.write([b'v'; 1000]);
        world.run();
    }
    client.expect("\r\n", "STORED\r\n");
    assert!(crate::protocol::walked::words() - before <= 10);
}

#[test]
fn an_idle_connection_holds_no_buffer_and_has_no_deadline() {
    let world = World::new(limits());
    let client = world.connect(1024);
    client.expect("get a\r\n", "END\r\n");
    world.sleep(seconds(100));
    client.connection(|connection| {
        assert_eq!((connection.input.capacity(), connection.output.capacity()), (0, 0));
        assert_eq!(connection.begin_reading(), None);
    });
}

#[test]
fn a_half_sent_request_does_not_keep_a_buffer_that_grew_for_an_earlier_one() {
    let world = World::new(limits());
    let large = format!("set k 0 0 1000000\r\n{}\r\n", "v".repeat(1_000_000));
    let input =
        |client: &Client| client.connection(|connection| (connection.input.clone(), connection.input.capacity()));
    // In its own connection, before or in the same read...
    for tail in ["", "g"] {
        let client = world.connect(2 << 20);
        client.write(format!("{large}{tail}"));
        world.sleep(seconds(1));
        client.write(b"et");
        world.sleep(seconds(1));
        let (bytes, capacity) = input(&client);
        assert_eq!(bytes, format!("{tail}et").as_bytes());
        assert!(capacity <= 2 * BUFFER_BYTES, "{capacity} bytes");
    }
    // ...or in another, whose buffer the worker has kept.
    for part in ["g".into(), format!("set k 0 0 90000\r\n{}", "v".repeat(20_000))] {
        let client = world.connect(2 << 20);
        client.write(part);
        world.sleep(seconds(1));
        let (_, capacity) = input(&client);
        assert!(capacity < 200_000, "{capacity} bytes");
    }
}
