//! Normalised text, for people to read and for rewrites to match.

use crate::normal::{Part, Parts};
use crate::shape::scan;

/// The text without comments and literals, one space where one is needed, keywords in capitals, at most about
/// `limit_bytes` long (then it ends in ` …`). Parameters keep their numbers; literals get the numbers after the
/// highest. Text that ends inside a string or comment is reduced to its command word.
pub fn normalize(sql: &[u8], limit_bytes: usize) -> String {
    let shape = scan(sql);
    if !shape.complete {
        return shape.command.as_str().to_owned();
    }
    let mut next = Parts::new(sql)
        .map(|part| if let Part::Param(number) = part { number } else { 0 })
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    let mut last = Spacing::Open;
    for part in Parts::new(sql) {
        let before = text.len();
        let spacing = spacing_of(part);
        if space_between(last, part, spacing) {
            text.push(' ');
        }
        match part {
            Part::Word(word) => push_word(&mut text, word),
            Part::Quoted(bytes) | Part::Symbol(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
            Part::Param(number) => text.push_str(&format!("${number}")),
            Part::Literal(_) => {
                next = next.saturating_add(1);
                text.push_str(&format!("${next}"));
            }
        }
        if text.len() > limit_bytes {
            text.truncate(before);
            text.push_str(" …");
            break;
        }
        last = spacing;
    }
    // A final semicolon says nothing.
    text.truncate(text.trim_end_matches([';', ' ']).len());
    text
}

/// How a part gets along with its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spacing {
    /// `(` `[` `.` `::` or the beginning: nothing follows at a distance.
    Open,
    /// A name: a parenthesis may follow at once.
    Name,
    /// `)` `]` or a value.
    Closed,
    /// Keywords and operators.
    Apart,
}

fn spacing_of(part: Part<'_>) -> Spacing {
    match part {
        Part::Word(word) if is_keyword(word) => Spacing::Apart,
        Part::Word(_) | Part::Quoted(_) => Spacing::Name,
        Part::Literal(_) | Part::Param(_) | Part::Symbol(b")" | b"]") => Spacing::Closed,
        Part::Symbol(b"(" | b"[" | b"." | b"::") => Spacing::Open,
        Part::Symbol(_) => Spacing::Apart,
    }
}

fn space_between(last: Spacing, part: Part<'_>, spacing: Spacing) -> bool {
    if last == Spacing::Open {
        // Colons that touch would be read as other symbols.
        return matches!(part, Part::Symbol(symbol) if symbol[0] == b':');
    }
    match part {
        Part::Symbol(b"," | b";" | b")" | b"]") => false,
        Part::Symbol(b"." | b"::") => last == Spacing::Apart,
        Part::Symbol(b"(") => last != Spacing::Name,
        Part::Symbol(b"[") => last == Spacing::Closed && spacing == Spacing::Apart,
        _ => true,
    }
}

fn push_word(text: &mut String, word: &[u8]) {
    let keyword = is_keyword(word);
    for piece in String::from_utf8_lossy(word).chars() {
        text.push(if keyword { piece.to_ascii_uppercase() } else { piece.to_ascii_lowercase() });
    }
}

const KEYWORDS: &[&str] = &[
    "ABORT",
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CALL",
    "CASE",
    "CLOSE",
    "COMMIT",
    "CONFLICT",
    "COPY",
    "CREATE",
    "CROSS",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DESC",
    "DISCARD",
    "DISTINCT",
    "DO",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "FETCH",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LISTEN",
    "NOT",
    "NOTHING",
    "NOTIFY",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "ONLY",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PREPARE",
    "RECURSIVE",
    "RESET",
    "RETURNING",
    "RIGHT",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "THEN",
    "TO",
    "TRANSACTION",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "USING",
    "VACUUM",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

fn is_keyword(word: &[u8]) -> bool {
    KEYWORDS.iter().any(|keyword| word.eq_ignore_ascii_case(keyword.as_bytes()))
}
