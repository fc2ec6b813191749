//! Session parameters that differ from a fresh server connection's.

use wire::{Malformed, cstr};

use crate::{Client, Fault, Server};

/// Parameters that PostgreSQL reports and nobody can SET.
const FIXED: [&[u8]; 6] = [
    b"server_version",
    b"server_encoding",
    b"integer_datetimes",
    b"is_superuser",
    b"session_authorization",
    b"in_hot_standby",
];

/// A small ordered list of names and values with a hash over it, independent of order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    list: Vec<(Vec<u8>, Vec<u8>)>,
    hash: u64,
}

fn pair_hash(name: &[u8], value: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.iter().map(u8::to_ascii_lowercase).chain([0]).chain(value.iter().copied()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

impl Parameters {
    /// Hash of the whole set; equal sets have equal hashes.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Value of `name` (names know no case).
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.list.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|(n, v)| (n.as_slice(), v.as_slice()))
    }

    /// Sets `name`.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.hash = self.hash.wrapping_add(pair_hash(name, value));
        self.list.push((name.into(), value.into()));
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &[u8]) {
        if let Some(at) = self.list.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)) {
            let (name, value) = self.list.swap_remove(at);
            self.hash = self.hash.wrapping_sub(pair_hash(&name, &value));
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.list.clear();
        self.hash = 0;
    }

    /// Whether a reported parameter can be SET at all.
    pub fn settable(name: &[u8]) -> bool {
        !FIXED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name))
    }

    /// The statement that turns a server with `self` into one with `wanted`; `None` when nothing is
    /// to do. `reported` are the server's present reported values.
    pub fn restore_sql(&self, wanted: &Self, reported: &Self) -> Option<Vec<u8>> {
        let mut sql = Vec::new();
        for (name, _) in self.iter().filter(|(name, _)| wanted.get(name).is_none()) {
            sql.extend_from_slice(b"RESET ");
            identifier(&mut sql, name);
            sql.extend_from_slice(b"; ");
        }
        for (name, value) in wanted.iter() {
            if self.get(name).or_else(|| reported.get(name)) == Some(value) {
                continue;
            }
            sql.extend_from_slice(b"SELECT pg_catalog.set_config(");
            literal(&mut sql, name);
            sql.push(b',');
            literal(&mut sql, value);
            sql.extend_from_slice(b",false); ");
        }
        (!sql.is_empty()).then_some(sql)
    }
}

fn identifier(sql: &mut Vec<u8>, name: &[u8]) {
    // A dotted name is two identifiers; the dot stays outside the quotes.
    for (i, part) in name.split(|b| *b == b'.').enumerate() {
        if i > 0 {
            sql.push(b'.');
        }
        sql.push(b'"');
        for byte in part.iter().filter(|b| **b != 0) {
            if *byte == b'"' {
                sql.push(b'"');
            }
            sql.push(*byte);
        }
        sql.push(b'"');
    }
}

fn literal(sql: &mut Vec<u8>, value: &[u8]) {
    sql.extend_from_slice(b"E'");
    for byte in value.iter().filter(|b| **b != 0) {
        if matches!(byte, b'\'' | b'\\') {
            sql.push(*byte);
        }
        sql.push(*byte);
    }
    sql.push(b'\'');
}

impl Server {
    /// The client's settings are there: take over the spelling that the server reports for them.
    pub(crate) fn restored(&mut self, client: Option<&mut Client>) {
        let Some(client) = client else { return };
        let wanted = client.parameters.clone();
        for (name, value) in wanted.iter() {
            if let Some(reported) = self.reported.get(name)
                && reported != value
            {
                client.parameters.set(name, reported);
            }
            if self.initial.get(name).is_some() && self.initial.get(name) == self.reported.get(name) {
                client.parameters.remove(name);
            }
        }
        self.differs = client.parameters.clone();
    }

    pub(crate) fn parameter(
        &mut self,
        client: Option<&mut Client>,
        body: &[u8],
        silent: bool,
    ) -> Result<(), Fault> {
        let (name, rest) = cstr(body).map_err(|Malformed| Fault::Protocol)?;
        let (value, _) = cstr(rest).map_err(|Malformed| Fault::Protocol)?;
        self.reported.set(name, value);
        if silent || !Parameters::settable(name) {
            return Ok(());
        }
        let initial = self.initial.get(name) == Some(value);
        let sets = [Some(&mut self.differs), client.map(|c| &mut c.parameters)];
        for set in sets.into_iter().flatten() {
            if initial {
                set.remove(name);
            } else {
                set.set(name, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_to_the_hash() {
        let (mut a, mut b) = (Parameters::default(), Parameters::default());
        a.set(b"x", b"1");
        a.set(b"y", b"2");
        b.set(b"Y", b"2");
        b.set(b"x", b"0");
        b.set(b"X", b"1");
        assert_eq!(a.hash(), b.hash());
        a.clear();
        b.remove(b"x");
        b.remove(b"y");
        assert_eq!(a.hash(), b.hash());
    }

    #[test]
    fn restore_quotes() {
        let (mut have, mut want) = (Parameters::default(), Parameters::default());
        have.set(b"a.b", b"1");
        want.set(b"application_name", b"it's \\");
        let sql = have.restore_sql(&want, &Parameters::default()).unwrap();
        assert_eq!(
            String::from_utf8(sql).unwrap(),
            "RESET \"a\".\"b\"; SELECT pg_catalog.set_config(E'application_name',E'it''s \\\\',false); "
        );
        assert!(want.restore_sql(&want.clone(), &Parameters::default()).is_none());
    }
}
