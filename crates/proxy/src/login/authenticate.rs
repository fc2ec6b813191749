//! Who the client is: SCRAM-SHA-256, md5 or trust.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use super::connection::Connection;
use super::scram::{Exchange, Verifier};
use super::{Fault, Login, Refusal};
use crate::settings::AuthMethod;

fn wrong(user: &str) -> Fault {
    Refusal::new("28P01", "password", format!("password authentication failed for user \"{user}\"")).into()
}

/// Nobody is asked for a password. With no list of users only the pool's own user makes sense.
pub(super) fn trusted(known_pool: bool, password: Option<&str>, user: &str) -> Result<(), Fault> {
    if known_pool && password.is_none() { Err(wrong(user)) } else { Ok(()) }
}

/// Has `user` prove `password`. An unknown user (`None`) goes through the same exchange, and fails.
pub(super) async fn prove(
    login: &Login,
    connection: &mut Connection,
    method: AuthMethod,
    password: Option<&str>,
    user: &str,
) -> Result<(), Fault> {
    let md5_stored = password.is_some_and(|text| text.starts_with("md5") && text.len() == 35);
    let scram_stored = password.is_some_and(|text| text.starts_with("SCRAM-SHA-256$"));
    let fits = if md5_stored || (method == AuthMethod::Md5 && !scram_stored) {
        md5(connection, user, password).await?
    } else {
        scram(login, connection, user, password).await?
    };
    // An empty password never logs in, as in PostgreSQL.
    if fits && password.is_some_and(|text| !text.is_empty()) { Ok(()) } else { Err(wrong(user)) }
}

async fn ask(connection: &mut Connection, code: u32, data: &[u8]) -> Result<(), Fault> {
    let mut out = Vec::new();
    wire::craft::frame(&mut out, b'R', |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(data);
    });
    Ok(connection.send(&out).await?)
}

async fn answer(connection: &mut Connection) -> Result<Vec<u8>, Fault> {
    match connection.message().await? {
        (b'p', body) => Ok(body),
        (kind, _) => {
            let text = format!("expected password response, got message type {kind}");
            Err(Refusal::new("08P01", "protocol", text).into())
        }
    }
}

async fn md5(connection: &mut Connection, user: &str, password: Option<&str>) -> Result<bool, Fault> {
    let salt: [u8; 4] = rand::random();
    ask(connection, 5, &salt).await?;
    let given = answer(connection).await?;
    let given = given.strip_suffix(b"\0").unwrap_or(&given);
    let text = password.unwrap_or_default();
    let inner = match text.strip_prefix("md5") {
        Some(stored) if stored.len() == 32 => stored.to_owned(),
        _ => hex(&Md5::new().chain_update(text).chain_update(user).finalize()),
    };
    let wanted = format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()));
    Ok(bool::from(wanted.as_bytes().ct_eq(given)) && password.is_some())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn scram(
    login: &Login,
    connection: &mut Connection,
    user: &str,
    password: Option<&str>,
) -> Result<bool, Fault> {
    let malformed = || Fault::from(Refusal::new("08P01", "protocol", "malformed SCRAM message"));
    let verifier = match password.filter(|text| !text.is_empty()) {
        Some(text) => login.verifier(text),
        None => std::sync::Arc::new(Verifier::mock(user, &login.mock_seed)),
    };
    ask(connection, 10, b"SCRAM-SHA-256\0\0").await?;
    let first = answer(connection).await?;
    let (mechanism, rest) = wire::cstr(&first).map_err(|_| malformed())?;
    if mechanism != b"SCRAM-SHA-256" {
        return Err(malformed());
    }
    let first = rest.get(4..).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(malformed)?;
    let nonce = hex(&rand::random::<[u8; 18]>());
    let exchange = Exchange::start(&verifier, first, &nonce).ok_or_else(malformed)?;
    ask(connection, 11, exchange.server_first().as_bytes()).await?;
    let last = answer(connection).await?;
    let last = std::str::from_utf8(&last).map_err(|_| malformed())?;
    match exchange.finish(last) {
        Some(proof) => {
            ask(connection, 12, proof.as_bytes()).await?;
            Ok(true)
        }
        None => Ok(false),
    }
}
