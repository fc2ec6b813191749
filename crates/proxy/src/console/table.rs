//! Answers of the console: columns, rows, and how they look in frames.

use wire::craft;

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int4,
    Int8,
}

/// Name and type.
pub(super) type Column = (&'static str, Kind);

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Text(String),
    Number(u64),
    Null,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Cell {
    fn from(truth: bool) -> Self {
        Self::Number(truth.into())
    }
}

impl From<Option<u64>> for Cell {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

/// One row; as many cells as there are columns.
pub(super) type Row = Vec<Cell>;

/// RowDescription. `formats` as in Bind: none, one for all, or one for each column.
pub(super) fn describe(out: &mut Vec<u8>, columns: &[Column], formats: &[i16]) {
    craft::frame(out, b'T', |out| {
        out.extend_from_slice(&count(columns.len()));
        for (at, (name, kind)) in columns.iter().enumerate() {
            let (oid, bytes): (u32, i16) = match kind {
                Kind::Text => (25, -1),
                Kind::Int4 => (23, 4),
                Kind::Int8 => (20, 8),
            };
            out.extend_from_slice(name.as_bytes());
            // No table, no attribute number.
            out.extend_from_slice(&[0; 7]);
            out.extend_from_slice(&oid.to_be_bytes());
            out.extend_from_slice(&bytes.to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&format(formats, at).to_be_bytes());
        }
    });
}

/// DataRow.
pub(super) fn row(out: &mut Vec<u8>, columns: &[Column], row: &[Cell], formats: &[i16]) {
    craft::frame(out, b'D', |out| {
        out.extend_from_slice(&count(columns.len()));
        for (at, (cell, (_, kind))) in row.iter().zip(columns).enumerate() {
            match (cell, kind, format(formats, at)) {
                (Cell::Null, ..) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                (Cell::Number(number), Kind::Int4, 1) => {
                    value(out, &i32::try_from(*number).unwrap_or(i32::MAX).to_be_bytes());
                }
                (Cell::Number(number), Kind::Int8, 1) => {
                    value(out, &i64::try_from(*number).unwrap_or(i64::MAX).to_be_bytes());
                }
                (Cell::Number(number), ..) => value(out, number.to_string().as_bytes()),
                (Cell::Text(text), ..) => value(out, text.as_bytes()),
            }
        }
    });
}

/// CommandComplete.
pub(super) fn complete(out: &mut Vec<u8>, tag: &str) {
    craft::frame(out, b'C', |out| {
        out.extend_from_slice(tag.as_bytes());
        out.push(0);
    });
}

fn format(formats: &[i16], at: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(at).copied().unwrap_or(0),
    }
}

fn count(columns: usize) -> [u8; 2] {
    u16::try_from(columns).unwrap_or(u16::MAX).to_be_bytes()
}

fn value(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}
