//! Opens one server connection: connect, start-up, authentication, up to ReadyForQuery.

use std::io;
use std::time::Instant;

use postgres_protocol::authentication::{md5_hash, sasl};
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, Stream};
use crate::handover::{BackendKey, ConnectFault, NewServer};
use crate::settings::{ServerAddress, ServerSettings, micros};

/// How many connections PostgreSQL allows, and how many of them it keeps for others.
const FACTS: &[u8] =
    b"SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections'), \
    coalesce(current_setting('reserved_connections', true), '0')";

/// Connects and logs in within `connect_timeout`; with `ask`, asks for the server's limits as well.
///
/// # Errors
/// PostgreSQL's own SQLSTATE and message where it sent an error, else 08001 or 08P01 with the reason.
pub async fn connect(settings: &ServerSettings, ask: bool) -> Result<NewServer, ConnectFault> {
    match tokio::time::timeout(settings.connect_timeout, open(settings, ask)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ConnectFault::new(
            b"08001",
            format!(
                "could not connect to PostgreSQL at {}: no answer within {} s (connect_timeout)",
                settings.address,
                settings.connect_timeout.as_secs_f64()
            ),
        )),
    }
}

/// Connects a socket, nothing more.
///
/// # Errors
/// 08001 with the system's reason.
pub async fn dial(address: &ServerAddress) -> Result<Connection, ConnectFault> {
    let dialled = match address {
        ServerAddress::Tcp { host, port } => {
            TcpStream::connect((host.as_str(), *port)).await.and_then(Stream::tcp)
        }
        ServerAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
    };
    dialled.map(Connection::new).map_err(|error| {
        ConnectFault::new(b"08001", format!("could not connect to PostgreSQL at {address}: {error}"))
    })
}

async fn open(settings: &ServerSettings, ask: bool) -> Result<NewServer, ConnectFault> {
    let started = Instant::now();
    let lost = |error: io::Error| {
        ConnectFault::new(b"08006", format!("lost PostgreSQL at {} during log-in: {error}", settings.address))
    };
    let mut connection = dial(&settings.address).await?;
    connection.send(&startup(settings)).await.map_err(lost)?;
    let mut scram = None;
    let mut parameters = Vec::new();
    let mut key = BackendKey::default();
    loop {
        let (kind, body) = connection.message().await.map_err(lost)?;
        match kind {
            b'R' => {
                if let Some(answer) = authenticate(settings, &body, &mut scram)? {
                    let mut out = Vec::new();
                    wire::craft::frame(&mut out, b'p', |out| out.extend_from_slice(&answer));
                    connection.send(&out).await.map_err(lost)?;
                }
            }
            b'S' => parameters.extend(pair(&body)),
            b'K' if body.len() >= 4 => {
                key.pid = i32::from_be_bytes([body[0], body[1], body[2], body[3]]);
                key.secret = body[4..].to_vec();
            }
            b'E' => return Err(said(settings, &body)),
            b'Z' => break,
            b'N' | b'v' => {}
            _ => return Err(malformed(settings)),
        }
    }
    let connect_us = micros(started.elapsed());
    let facts = if ask { facts(&mut connection).await.map_err(lost)? } else { None };
    let (socket, received) = connection.into_parts().map_err(lost)?;
    Ok(NewServer { socket, parameters, key, connect_us, received, facts })
}

/// Asks for the server's limits; `None` when it does not want to say.
async fn facts(connection: &mut Connection) -> io::Result<Option<stats::ServerFacts>> {
    let mut out = Vec::new();
    wire::craft::query(&mut out, FACTS);
    connection.send(&out).await?;
    let mut facts = None;
    loop {
        match connection.message().await? {
            (b'D', row) => facts = limits(&row),
            (b'Z', _) => return Ok(facts),
            _ => {}
        }
    }
}

/// The three columns of a DataRow of `FACTS`.
fn limits(row: &[u8]) -> Option<stats::ServerFacts> {
    let mut rest = row.get(2..)?;
    let mut column = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (value, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        std::str::from_utf8(value).ok()?.parse::<u32>().ok()
    };
    let max_connections = column()?;
    let reserved_connections = column()?.saturating_add(column()?);
    Some(stats::ServerFacts { max_connections, reserved_connections })
}

fn malformed(settings: &ServerSettings) -> ConnectFault {
    ConnectFault::new(b"08P01", format!("{} does not answer like PostgreSQL", settings.address))
}

fn startup(settings: &ServerSettings) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
    for text in ["user", &settings.user, "database", &settings.database, "application_name", "poolwright"] {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    packet.push(0);
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// The answer to an authentication request; `None` where none is due.
fn authenticate(
    settings: &ServerSettings,
    body: &[u8],
    scram: &mut Option<sasl::ScramSha256>,
) -> Result<Option<Vec<u8>>, ConnectFault> {
    let (code, data) = body.split_first_chunk::<4>().ok_or_else(|| malformed(settings))?;
    let failed = |what: &str| {
        ConnectFault::new(
            b"28000",
            format!("log-in at {} as \"{}\": {what}", settings.address, settings.user),
        )
    };
    match u32::from_be_bytes(*code) {
        0 => Ok(None),
        3 => Ok(Some([settings.password.as_bytes(), b"\0"].concat())),
        5 => {
            let salt: [u8; 4] = data.try_into().map_err(|_| malformed(settings))?;
            let hash = md5_hash(settings.user.as_bytes(), settings.password.as_bytes(), salt);
            Ok(Some([hash.as_bytes(), b"\0"].concat()))
        }
        10 => {
            if !data.split(|byte| *byte == 0).any(|name| name == sasl::SCRAM_SHA_256.as_bytes()) {
                return Err(failed("the server wants a SASL mechanism that is not SCRAM-SHA-256"));
            }
            let exchange =
                sasl::ScramSha256::new(settings.password.as_bytes(), sasl::ChannelBinding::unsupported());
            let first = exchange.message();
            let length = i32::try_from(first.len()).unwrap_or(0);
            let answer = [b"SCRAM-SHA-256\0".as_slice(), &length.to_be_bytes(), first].concat();
            *scram = Some(exchange);
            Ok(Some(answer))
        }
        11 => {
            let exchange = scram.as_mut().ok_or_else(|| malformed(settings))?;
            exchange.update(data).map_err(|error| failed(&error.to_string()))?;
            Ok(Some(exchange.message().to_vec()))
        }
        12 => {
            let exchange = scram.as_mut().ok_or_else(|| malformed(settings))?;
            exchange.finish(data).map_err(|error| failed(&error.to_string()))?;
            Ok(None)
        }
        other => Err(failed(&format!("authentication method {other} is not supported"))),
    }
}

fn pair(body: &[u8]) -> Option<(String, String)> {
    let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
    Some((texts.next()?, texts.next()?))
}

/// PostgreSQL's own error.
fn said(settings: &ServerSettings, body: &[u8]) -> ConnectFault {
    let code = wire::error_field(body, b'C').and_then(|code| code.try_into().ok()).unwrap_or(*b"08001");
    let text = wire::error_field(body, b'M').unwrap_or(b"the connection was refused");
    ConnectFault::new(&code, format!("PostgreSQL at {}: {}", settings.address, String::from_utf8_lossy(text)))
}
