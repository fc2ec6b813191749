//! Writing frames: each function appends one whole frame to the caller's buffer.

/// An error to be told to a client.
#[derive(Clone, Debug)]
pub struct ErrorReply<'a> {
    /// `ERROR` or `FATAL`.
    pub severity: &'a str,
    /// Five-character SQLSTATE.
    pub code: &'a str,
    /// Primary message.
    pub message: &'a str,
    /// DETAIL, when there is something to add.
    pub detail: Option<&'a str>,
    /// HINT, when there is one.
    pub hint: Option<&'a str>,
}

/// Appends a frame whose body `write` appends.
pub fn frame(buf: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    buf.push(kind);
    let start = buf.len();
    buf.extend_from_slice(&[0; 4]);
    write(buf);
    let length = u32::try_from(buf.len() - start).unwrap_or(u32::MAX);
    buf[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn text(buf: &mut Vec<u8>, value: &[u8]) {
    buf.extend(value.iter().copied().filter(|b| *b != 0));
    buf.push(0);
}

/// ErrorResponse.
pub fn error(buf: &mut Vec<u8>, reply: &ErrorReply<'_>) {
    frame(buf, b'E', |b| {
        for (field, value) in [
            (b'S', Some(reply.severity)),
            (b'V', Some(reply.severity)),
            (b'C', Some(reply.code)),
            (b'M', Some(reply.message)),
            (b'D', reply.detail),
            (b'H', reply.hint),
        ] {
            if let Some(value) = value {
                b.push(field);
                text(b, value.as_bytes());
            }
        }
        b.push(0);
    });
}

/// ReadyForQuery with transaction status `I`, `T` or `E`.
pub fn ready(buf: &mut Vec<u8>, status: u8) {
    buf.extend_from_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// ParseComplete.
pub fn parse_complete(buf: &mut Vec<u8>) {
    buf.extend_from_slice(b"1\0\0\0\x04");
}

/// CloseComplete.
pub fn close_complete(buf: &mut Vec<u8>) {
    buf.extend_from_slice(b"3\0\0\0\x04");
}

/// ParameterStatus.
pub fn parameter_status(buf: &mut Vec<u8>, name: &str, value: &str) {
    frame(buf, b'S', |b| {
        text(b, name.as_bytes());
        text(b, value.as_bytes());
    });
}

/// Query with one text, which must hold no zero byte.
pub fn query(buf: &mut Vec<u8>, sql: &[u8]) {
    frame(buf, b'Q', |b| text(b, sql));
}

/// Sync.
pub fn sync(buf: &mut Vec<u8>) {
    buf.extend_from_slice(b"S\0\0\0\x04");
}

/// Flush.
pub fn flush(buf: &mut Vec<u8>) {
    buf.extend_from_slice(b"H\0\0\0\x04");
}

/// Terminate.
pub fn terminate(buf: &mut Vec<u8>) {
    buf.extend_from_slice(b"X\0\0\0\x04");
}

/// CopyFail with a reason.
pub fn copy_fail(buf: &mut Vec<u8>, reason: &str) {
    frame(buf, b'f', |b| text(b, reason.as_bytes()));
}

/// Parse under `name`; `tail` is the rest of the body: text, zero, parameter types.
pub fn parse(buf: &mut Vec<u8>, name: &[u8], tail: &[u8]) {
    frame(buf, b'P', |b| {
        text(b, name);
        b.extend_from_slice(tail);
    });
}

/// Close of a prepared statement.
pub fn close_statement(buf: &mut Vec<u8>, name: &[u8]) {
    frame(buf, b'C', |b| {
        b.push(b'S');
        text(b, name);
    });
}

/// Describe of a prepared statement.
pub fn describe_statement(buf: &mut Vec<u8>, name: &[u8]) {
    frame(buf, b'D', |b| {
        b.push(b'S');
        text(b, name);
    });
}

/// Bind of `statement` to `portal`; `tail` is the rest of the body: formats and values. `missing` bytes of it follow
/// later.
pub fn bind(buf: &mut Vec<u8>, portal: &[u8], statement: &[u8], tail: &[u8], missing: usize) {
    let start = buf.len() + 1;
    frame(buf, b'B', |b| {
        text(b, portal);
        text(b, statement);
        b.extend_from_slice(tail);
    });
    let length = u32::try_from(buf.len() - start + missing).unwrap_or(u32::MAX);
    buf[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_their_length() {
        let mut buf = Vec::new();
        query(&mut buf, b"SELECT 1");
        let head = crate::head(&buf).unwrap().unwrap();
        assert_eq!((head.kind, head.bytes), (b'Q', buf.len()));
    }

    #[test]
    fn errors_hold_no_stray_zero() {
        let mut buf = Vec::new();
        let reply =
            ErrorReply { severity: "ERROR", code: "53300", message: "a\0b", detail: Some("d"), hint: None };
        error(&mut buf, &reply);
        assert_eq!(crate::error_field(&buf[5..], b'M'), Some(&b"ab"[..]));
        assert_eq!(crate::error_field(&buf[5..], b'D'), Some(&b"d"[..]));
    }
}
