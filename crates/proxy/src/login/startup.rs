//! The start-up packet (protocol "Message Formats": StartupMessage, SSLRequest, GSSENCRequest, CancelRequest).

use std::io;

use super::Refusal;
use super::connection::Connection;
use crate::handover::CancelKey;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// What a client asked for.
pub(super) struct Startup {
    pub user: String,
    pub database: String,
    /// Settings, the `-c` ones of `options` included.
    pub parameters: Vec<(String, String)>,
}

pub(super) enum Request {
    Startup(Startup),
    Cancel(CancelKey),
}

fn broken(text: &'static str) -> super::Fault {
    Refusal::new("08P01", "protocol", text).into()
}

/// Reads packets until one is more than a question for encryption, which is answered with 'N'.
pub(super) async fn read(connection: &mut Connection) -> Result<Request, super::Fault> {
    let mut asked = 0;
    loop {
        let packet = connection.startup_packet().await?;
        let (code, rest) = packet.split_first_chunk::<4>().ok_or_else(|| broken("invalid startup packet"))?;
        match u32::from_be_bytes(*code) {
            SSL | GSSENC if asked < 2 => {
                asked += 1;
                // Sent ahead of the answer it would be taken for encrypted later (CVE-2021-23214).
                if connection.has_received() {
                    return Err(broken("received unencrypted data after SSL or GSS request"));
                }
                connection.send(b"N").await?;
            }
            CANCEL => {
                let (pid, secret) =
                    rest.split_first_chunk::<4>().ok_or_else(|| broken("invalid cancel request"))?;
                let Ok(secret) = secret.try_into() else {
                    return Err(io::Error::from(io::ErrorKind::Other).into());
                };
                return Ok(Request::Cancel(CancelKey { pid: i32::from_be_bytes(*pid), secret }));
            }
            version if version >> 16 == 3 => {
                let (startup, unknown) = parse(rest)?;
                if version & 0xffff != 0 || !unknown.is_empty() {
                    connection.send(&negotiate(&unknown)).await?;
                }
                return Ok(Request::Startup(startup));
            }
            version => {
                let text = format!("unsupported frontend protocol {}.{}", version >> 16, version & 0xffff);
                return Err(Refusal::new("0A000", "protocol", text).into());
            }
        }
    }
}

/// NegotiateProtocolVersion: 3.0 is the newest here, and these options are not known.
fn negotiate(unknown: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::craft::frame(&mut out, b'v', |out| {
        out.extend_from_slice(&0_u32.to_be_bytes());
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        for name in unknown {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
    });
    out
}

fn parse(packet: &[u8]) -> Result<(Startup, Vec<String>), super::Fault> {
    let mut startup = Startup { user: String::new(), database: String::new(), parameters: Vec::new() };
    let mut unknown = Vec::new();
    let mut rest = packet;
    loop {
        let (name, after) = text(rest)?;
        if name.is_empty() {
            if !after.is_empty() {
                return Err(broken("invalid startup packet layout: expected terminator as last byte"));
            }
            break;
        }
        let (value, after) = text(after)?;
        rest = after;
        match name.as_str() {
            "user" => startup.user = value,
            "database" => startup.database = value,
            "options" => options(&value, &mut startup.parameters)?,
            "replication" if matches!(value.as_str(), "0" | "off" | "false" | "no") => {}
            "replication" => {
                return Err(Refusal::new("0A000", "protocol", "replication is not supported").into());
            }
            _ if name.starts_with("_pq_.") => unknown.push(name),
            _ => startup.parameters.push((name, value)),
        }
    }
    if startup.user.is_empty() {
        return Err(
            Refusal::new("28000", "user", "no PostgreSQL user name specified in startup packet").into()
        );
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok((startup, unknown))
}

fn text(bytes: &[u8]) -> Result<(String, &[u8]), super::Fault> {
    let (text, rest) = wire::cstr(bytes).map_err(|_| broken("invalid startup packet layout"))?;
    let text = String::from_utf8(text.to_vec()).map_err(|_| broken("startup packet is not UTF-8"))?;
    Ok((text, rest))
}

/// `-c name=value`, `-cname=value` and `--name=value`, with backslash escapes, as PostgreSQL splits them.
fn options(text: &str, parameters: &mut Vec<(String, String)>) -> Result<(), super::Fault> {
    let mut words = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            ('\\', Some(word)) => word.extend(characters.next()),
            (space, _) if space.is_whitespace() => words.push(String::new()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => Some(setting.to_owned()),
            (None, Some("")) => words.next(),
            (None, Some(setting)) => Some(setting.to_owned()),
            (None, None) => None,
        };
        let Some((name, value)) = setting.as_deref().and_then(|setting| setting.split_once('=')) else {
            let text = format!("start-up option \"{word}\" is not supported");
            return Err(Refusal::new("0A000", "protocol", text).into());
        };
        parameters.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}
