//! SCRAM-SHA-256 as the server plays it (RFC 5802, RFC 7677), without channel binding.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const ITERATIONS: u32 = 4096;

/// What is stored of a password: enough to check a proof, not enough to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
    /// Made up for a user who does not exist: no proof fits.
    mock: bool,
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length; the error of `new_from_slice` cannot occur.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn salted(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let Ok(keyed) = Hmac::<Sha256>::new_from_slice(password) else { return [0; 32] };
    let step = |input: &[&[u8]]| -> [u8; 32] {
        let mut mac = keyed.clone();
        for part in input {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    };
    let mut round = step(&[salt, &[0, 0, 0, 1]]);
    let mut sum = round;
    for _ in 1..iterations {
        round = step(&[&round]);
        for (total, byte) in sum.iter_mut().zip(round) {
            *total ^= byte;
        }
    }
    sum
}

impl Verifier {
    /// From a clear-text password. Costs some milliseconds.
    pub fn from_password(password: &str, salt: [u8; 16]) -> Self {
        let prepared =
            stringprep::saslprep(password).map_or_else(|_| password.to_owned(), |text| text.into_owned());
        let salted = salted(prepared.as_bytes(), &salt, ITERATIONS);
        let client_key = hmac(&salted, &[b"Client Key"]);
        Self {
            iterations: ITERATIONS,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
            mock: false,
        }
    }

    /// For a user who does not exist: the same salt every time, so that probing shows nothing.
    pub fn mock(user: &str, seed: &[u8; 32]) -> Self {
        let salt = hmac(seed, &[user.as_bytes()]);
        Self {
            iterations: ITERATIONS,
            salt: salt[..16].to_vec(),
            stored_key: [0; 32],
            server_key: [0; 32],
            mock: true,
        }
    }

    /// From pg_authid: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count_salt, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = count_salt.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|count| *count > 0)?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: BASE64.decode(stored_key).ok()?.try_into().ok()?,
            server_key: BASE64.decode(server_key).ok()?.try_into().ok()?,
            mock: false,
        })
    }
}

/// An exchange after the client's first message.
pub struct Exchange<'a> {
    verifier: &'a Verifier,
    header: String,
    client_first_bare: String,
    nonce: String,
    server_first: String,
}

impl<'a> Exchange<'a> {
    /// Reads the client's first message; `server_nonce` is random printable text without a comma. `None`: malformed,
    /// or channel binding demanded.
    pub fn start(verifier: &'a Verifier, client_first: &str, server_nonce: &str) -> Option<Self> {
        let mut fields = client_first.splitn(3, ',');
        let (flag, authzid, bare) = (fields.next()?, fields.next()?, fields.next()?);
        if !matches!(flag, "n" | "y") || !authzid.is_empty() {
            return None;
        }
        let client_nonce = bare.strip_prefix("n=")?.split_once(",r=")?.1.split(',').next()?;
        if client_nonce.is_empty() {
            return None;
        }
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        Some(Self {
            verifier,
            header: format!("{flag},,"),
            client_first_bare: bare.to_owned(),
            nonce,
            server_first,
        })
    }

    /// What the client is sent first.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Checks the client's last message; the server's last one, or `None` when the proof is wrong.
    pub fn finish(&self, client_final: &str) -> Option<String> {
        let (without_proof, proof) = client_final.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let binding = fields.next()?.strip_prefix("c=")?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        if binding != BASE64.encode(&self.header) || nonce != self.nonce {
            return None;
        }
        let proof: [u8; 32] = BASE64.decode(proof).ok()?.try_into().ok()?;
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = hmac(&self.verifier.stored_key, &[message.as_bytes()]);
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        let fits = bool::from(stored.ct_eq(&self.verifier.stored_key)) && !self.verifier.mock;
        let server = hmac(&self.verifier.server_key, &[message.as_bytes()]);
        fits.then(|| format!("v={}", BASE64.encode(server)))
    }
}
