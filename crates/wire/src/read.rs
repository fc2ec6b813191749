//! Reading frames without copying them.

use crate::{FRAME_BYTES_MAX, HEAD_BYTES};

/// Kind and whole length of one frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// First byte of the frame.
    pub kind: u8,
    /// Length of the frame in bytes, head included; at least [`HEAD_BYTES`].
    pub bytes: usize,
}

/// A frame breaks the protocol; the connection it came from must close.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Malformed;

/// Reads the head at the start of `buf`; `None` while fewer than five bytes are there.
///
/// # Errors
/// [`Malformed`] when the length is impossible.
pub fn head(buf: &[u8]) -> Result<Option<Head>, Malformed> {
    let [kind, a, b, c, d, ..] = *buf else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if !(4..FRAME_BYTES_MAX).contains(&length) {
        return Err(Malformed);
    }
    Ok(Some(Head { kind, bytes: length + 1 }))
}

/// Splits a zero-terminated string off `buf`: the string without its zero, and the rest.
///
/// # Errors
/// [`Malformed`] when there is no zero.
pub fn cstr(buf: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let end = memchr::memchr(0, buf).ok_or(Malformed)?;
    Ok((&buf[..end], &buf[end + 1..]))
}

/// Value of one field (`b'C'` SQLSTATE, `b'S'` severity, `b'M'` message, …) of an ErrorResponse or
/// NoticeResponse body.
pub fn error_field(body: &[u8], field: u8) -> Option<&[u8]> {
    let mut rest = body;
    while let [kind, tail @ ..] = rest {
        if *kind == 0 {
            return None;
        }
        let (value, after) = cstr(tail).ok()?;
        if *kind == field {
            return Some(value);
        }
        rest = after;
    }
    None
}

/// Rows named by a CommandComplete tag (`INSERT 0 5`, `SELECT 3`); 0 where it names none.
pub fn tag_rows(tag: &[u8]) -> u64 {
    let digits = tag.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let start = tag.len() - digits;
    if digits == 0 || start == 0 || tag[start - 1] != b' ' {
        return 0;
    }
    tag[start..].iter().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0')))
}

/// Body of the whole frame `frame`.
pub fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEAD_BYTES..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_needs_five_bytes() {
        assert_eq!(head(b"Q\0\0\0"), Ok(None));
        assert_eq!(head(b"Q\0\0\0\x04"), Ok(Some(Head { kind: b'Q', bytes: 5 })));
        assert_eq!(head(b"Q\0\0\0\x03"), Err(Malformed));
        assert_eq!(head(b"Q\xff\xff\xff\xff"), Err(Malformed));
    }

    #[test]
    fn tags_name_rows() {
        assert_eq!(tag_rows(b"INSERT 0 12"), 12);
        assert_eq!(tag_rows(b"SELECT 3"), 3);
        assert_eq!(tag_rows(b"BEGIN"), 0);
        assert_eq!(tag_rows(b""), 0);
        assert_eq!(tag_rows(b"7"), 0);
    }

    #[test]
    fn fields_are_found() {
        let body = b"SERROR\0C42601\0Mbad\0\0";
        assert_eq!(error_field(body, b'C'), Some(&b"42601"[..]));
        assert_eq!(error_field(body, b'D'), None);
    }
}
