//! Random clients on few servers, from a seed that is printed, against the same clients each on a PostgreSQL of its
//! own: whatever is shared, cut and interleaved, every client must get the same answers.
//! Set POOLWRIGHT_SEED to repeat one run, POOLWRIGHT_LIVES to have more or fewer.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stdout, clippy::disallowed_methods)]

mod play;
mod postgres;

use play::{Burst, Judge, Random, Rewrites, burst};
use postgres::Postgres;
use relay::{Client, Context, Need, Rewriting, Server, Statements, Unfinished};

const SERVERS: usize = 2;
const CLIENTS: usize = 4;

struct Peer {
    session: Client,
    bursts: Vec<Burst>,
    /// Sent and not taken by the relay yet.
    wire: Vec<u8>,
    held: Vec<u8>,
    awaited: usize,
    got: Vec<u8>,
    counted: usize,
    server: Option<usize>,
}

struct Backend {
    session: Server,
    postgres: Postgres,
    held: Vec<u8>,
    client: Option<usize>,
}

struct World {
    random: Random,
    statements: Statements,
    /// `None` in some lives.
    rewrites: Option<Rewrites>,
    clients: Vec<Peer>,
    servers: Vec<Backend>,
    per_server: usize,
    now_us: u64,
}

/// Frames without ParameterStatus, whose place in the stream nobody promises.
fn readable(bytes: &[u8]) -> Vec<String> {
    // Sync has the same letter, and no body.
    let (mut rest, mut frames) = (bytes, Vec::new());
    while let Some(head) = wire::head(rest).unwrap() {
        let frame = &rest[..head.bytes];
        if head.kind != b'S' || head.bytes == 5 {
            let body = String::from_utf8_lossy(&frame[5..]).replace('\0', ".");
            frames.push(format!("{}[{body}]", char::from(head.kind)));
        }
        rest = &rest[head.bytes..];
    }
    assert!(rest.is_empty());
    frames
}

fn ready(bytes: &[u8], at: &mut usize) -> usize {
    let mut count = 0;
    while let Some(head) = wire::head(&bytes[*at..]).unwrap() {
        if bytes.len() - *at < head.bytes {
            break;
        }
        count += usize::from(head.kind == b'Z');
        *at += head.bytes;
    }
    count
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let clients = (0..CLIENTS)
            .map(|number| Peer {
                session: Client::new(number as u64 + 1, []),
                bursts: (0..2 + random.below(8)).map(|_| burst(&mut random)).collect(),
                wire: Vec::new(),
                held: Vec::new(),
                awaited: 0,
                got: Vec::new(),
                counted: 0,
                server: None,
            })
            .collect();
        let servers = (0..SERVERS)
            .map(|_| Backend {
                session: Server::new([("zone", "UTC")]),
                postgres: Postgres::new(),
                held: Vec::new(),
                client: None,
            })
            .collect();
        let per_server = 1 + random.below(6);
        let rewrites = seed.is_multiple_of(2).then(Rewrites::default);
        Self { random, statements: Statements::default(), rewrites, clients, servers, per_server, now_us: 1 }
    }

    /// Some bytes from a client, or to it: one step of the world. False when nothing is left to do.
    fn step(&mut self) -> bool {
        self.now_us += 1;
        let able: Vec<usize> = (0..CLIENTS).filter(|at| self.client_can(*at)).collect();
        let speaking: Vec<usize> =
            (0..SERVERS).filter(|at| !self.servers[*at].postgres.output.is_empty()).collect();
        if able.is_empty() && speaking.is_empty() {
            return false;
        }
        let choice = self.random.below(able.len() + speaking.len());
        if choice < able.len() {
            self.client_speaks(able[choice]);
        } else {
            self.server_speaks(speaking[choice - able.len()]);
        }
        true
    }

    fn client_can(&self, at: usize) -> bool {
        let client = &self.clients[at];
        let waits = client.server.is_none()
            && !client.held.is_empty()
            && self.servers.iter().all(|server| server.client.is_some());
        !waits && (!client.wire.is_empty() || !client.bursts.is_empty() && client.awaited == 0)
            || !waits && client.server.is_none() && !client.held.is_empty()
    }

    fn client_speaks(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.wire.is_empty() && client.awaited == 0 && !client.bursts.is_empty() {
            let burst = client.bursts.remove(0);
            client.wire = burst.frames;
            client.awaited = burst.ready;
        }
        // Mostly whole, sometimes in pieces.
        let whole = client.wire.len();
        let n = if self.random.below(3) == 0 { self.random.below(whole + 1) } else { whole };
        let bytes: Vec<u8> = client.wire.drain(..n).collect();
        client.held.extend_from_slice(&bytes);
        self.pump(at);
    }

    fn pump(&mut self, at: usize) {
        loop {
            let client = &mut self.clients[at];
            let mut to_server = Vec::new();
            let server = client.server.map(|server| &mut self.servers[server].session);
            let mut context = Context {
                inspect: &mut Judge,
                statements: &mut self.statements,
                per_server: self.per_server,
                per_client: 100,
                now_us: self.now_us,
                rewriting: self.rewrites.as_mut().map(|rewrites| rewrites as &mut dyn Rewriting),
            };
            let held = std::mem::take(&mut client.held);
            let step = client.session.take(server, &held, &mut to_server, &mut client.got, &mut context);
            client.held = held[step.consumed..].to_vec();
            if let Some(server) = client.server {
                self.servers[server].postgres.take(&to_server);
            }
            self.count(at);
            match step.need {
                Need::More => return,
                Need::Server => {
                    let Some(free) = self.servers.iter().position(|server| server.client.is_none()) else {
                        return;
                    };
                    self.link(at, free);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn link(&mut self, at: usize, free: usize) {
        let server = &mut self.servers[free];
        assert!(server.session.at_rest());
        server.client = Some(at);
        self.clients[at].server = Some(free);
        let mut to_server = Vec::new();
        server.session.restore(&mut self.clients[at].session, &mut to_server);
        server.postgres.take(&to_server);
    }

    fn count(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let ready = ready(&client.got, &mut client.counted);
        assert!(ready <= client.awaited, "a ReadyForQuery too many");
        client.awaited -= ready;
    }

    fn server_speaks(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let all = server.postgres.output.len();
        let n = if self.random.below(3) == 0 { 1 + self.random.below(all) } else { all };
        server.held.extend(server.postgres.output.drain(..n));
        let mut client = server.client.map(|client| &mut self.clients[client]);
        let mut nowhere = Vec::new();
        let (session, got) = match client.as_mut() {
            Some(client) => (Some(&mut client.session), &mut client.got),
            None => (None, &mut nowhere),
        };
        let mut events = Vec::new();
        let received = server.session.receive(session, &server.held, got, &mut events, self.now_us);
        server.postgres.take(&std::mem::take(&mut server.session.resend));
        if let Some(rewrites) = self.rewrites.as_mut() {
            for number in server.session.failed_rewrites.drain(..) {
                rewrites.failed[number as usize] = true;
            }
            rewrites.applied += events.iter().filter(|event| event.rewrite == 1).count() as u64;
        }
        assert_eq!(received.fault, None);
        assert!(nowhere.is_empty());
        server.held.drain(..received.consumed);
        let Some(client) = server.client else { return };
        self.count(client);
        if received.at_rest && (self.clients[client].awaited == 0 || self.random.below(2) == 0) {
            self.servers[at].client = None;
            self.clients[client].server = None;
        }
        self.pump(client);
    }

    /// The last client of a server leaves: what is unfinished is brought to rest as a worker does it.
    fn leave(&mut self, at: usize) {
        let Some(server_at) = self.clients[at].server else { return };
        for _ in 0..10 {
            let server = &mut self.servers[server_at];
            let mut to_server = Vec::new();
            match server.session.unfinished() {
                Unfinished::Nothing => break,
                Unfinished::Owes => {}
                Unfinished::Copy { extended } => {
                    server.session.inject_copy_fail("gone", &mut to_server);
                    if extended {
                        server.session.inject_sync(&mut to_server);
                    }
                }
                Unfinished::Batch => server.session.inject_sync(&mut to_server),
                Unfinished::Transaction => server.session.inject(b"ROLLBACK", &mut to_server),
                Unfinished::Torn => panic!("torn"),
            }
            server.postgres.take(&to_server);
            let said = std::mem::take(&mut server.postgres.output);
            let client = &mut self.clients[at];
            let mut events = Vec::new();
            server.held.extend_from_slice(&said);
            let session = Some(&mut client.session);
            let received = server.session.receive(session, &server.held, &mut client.got, &mut events, 1);
            server.held.drain(..received.consumed);
            assert_eq!(received.fault, None);
        }
        let server = &mut self.servers[server_at];
        assert!(server.session.at_rest(), "not at rest after its client left");
        assert_eq!(server.postgres.status, b'I');
        server.client = None;
    }
}

/// What each client gets on a PostgreSQL of its own.
fn alone(seed: u64) -> Vec<Vec<String>> {
    let world = World::new(seed);
    let conversation = |client: &Peer| {
        let mut postgres = Postgres::new();
        for burst in &client.bursts {
            postgres.take(&burst.frames);
        }
        readable(&postgres.output)
    };
    world.clients.iter().map(conversation).collect()
}

/// One life; gives the number of replacements executed, and of rewrites given up.
fn live(seed: u64) -> [u64; 2] {
    println!("POOLWRIGHT_SEED={seed}");
    let expected = alone(seed);
    let mut world = World::new(seed);
    let mut steps = 0;
    while world.step() {
        steps += 1;
        assert!(steps < 100_000, "no end");
    }
    let held: Vec<usize> = world.servers.iter().filter_map(|server| server.client).collect();
    for (at, expected) in expected.iter().enumerate() {
        let client = &world.clients[at];
        let got = readable(&client.got);
        // A transaction left open keeps its server, perhaps for ever: others may have to wait at the end.
        let done = client.bursts.is_empty() && client.awaited == 0;
        assert!(done || held.len() == SERVERS, "client {at} got stuck");
        if let Some(wrong) = got.iter().zip(expected).position(|(got, expected)| got != expected) {
            let sent: Vec<_> =
                World::new(seed).clients[at].bursts.iter().map(|b| readable(&b.frames).join(" ")).collect();
            panic!("client {at} sent {sent:#?}, then got {:?}, not {:?}", &got[..=wrong], &expected[wrong]);
        }
        assert!(!done || got.len() == expected.len(), "client {at} misses something");
    }
    for at in 0..CLIENTS {
        world.leave(at);
    }
    let rewrites = world.rewrites.unwrap_or_default();
    assert!(!rewrites.failed[1], "a good rewrite was given up");
    [rewrites.applied, rewrites.failed.iter().filter(|failed| **failed).count() as u64]
}

#[test]
fn clients_get_what_they_would_get_alone() {
    if let Ok(seed) = std::env::var("POOLWRIGHT_SEED") {
        live(seed.parse().unwrap());
        return;
    }
    let lives = std::env::var("POOLWRIGHT_LIVES").map_or(300, |lives| lives.parse().unwrap());
    let [replaced, refused] =
        (1..=lives).map(live).fold([0, 0], |sum, one| [sum[0] + one[0], sum[1] + one[1]]);
    assert!(replaced > lives / 10 && refused > lives / 10, "{replaced} replaced, {refused} refused");
}
