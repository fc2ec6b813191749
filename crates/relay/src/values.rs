//! Values of a Bind.

/// The `n`th (from 1) value of a Bind tail as an integer, text or binary.
pub(crate) fn bound_integer(tail: &[u8], n: u16) -> Option<u64> {
    let word = |at: usize| Some(u16::from_be_bytes(tail.get(at..at + 2)?.try_into().ok()?));
    let formats = word(0)?;
    let format_at = match formats {
        0 => None,
        1 => Some(2),
        _ => Some(2 * usize::from(n)),
    };
    let binary = format_at.and_then(word) == Some(1);
    let mut at = 2 + 2 * usize::from(formats);
    let count = word(at)?;
    at += 2;
    for i in 1..=count {
        let length = i32::from_be_bytes(tail.get(at..at + 4)?.try_into().ok()?);
        at += 4;
        let length = usize::try_from(length).unwrap_or(0);
        let value = tail.get(at..at + length)?;
        at += length;
        if i == n {
            if !binary {
                return std::str::from_utf8(value).ok()?.parse().ok();
            }
            return match length {
                8 => u64::try_from(i64::from_be_bytes(value.try_into().ok()?)).ok(),
                4 => u64::try_from(i32::from_be_bytes(value.try_into().ok()?)).ok(),
                _ => None,
            };
        }
    }
    None
}
