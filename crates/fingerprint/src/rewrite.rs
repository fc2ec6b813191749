//! What a live rewrite needs: the values of a query's normalised places, and a text to put them into.

use std::collections::BTreeSet;

use crate::lexer::{Lexer, Token};
use crate::normal::{Part, Parts};
use crate::{Command, Effects, scan};

/// For each place `$1`, `$2`, … of the normalised text what stands there in `sql`: a literal with its signs, or
/// the parameter itself. A place that is not used is `None`. `None` for the whole when the text is cut off, or
/// when normalising folds several values into one place, as in `IN (1, 2)`.
pub fn values(sql: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut found: Vec<Option<&[u8]>> = Vec::new();
    let mut literals = Vec::new();
    let mut parts = Parts::new(sql);
    while let Some(part) = parts.next() {
        match part {
            Part::Param(number) => {
                let place = usize::from(number).checked_sub(1)?;
                if found.len() <= place {
                    found.resize(place + 1, None);
                }
                found[place] = Some(b"");
            }
            Part::Literal(text) => {
                literals.push(parts.signs_from.map_or(Some(text), |signs| span(sql, signs, text))?);
            }
            _ => {}
        }
    }
    if parts.folded || !parts.complete() {
        return None;
    }
    found.extend(literals.into_iter().map(Some));
    Some(found)
}

/// The part of `sql` from the start of `first` to the end of `last`, both parts of it.
fn span<'a>(sql: &'a [u8], first: &[u8], last: &[u8]) -> Option<&'a [u8]> {
    let base = sql.as_ptr().addr();
    let (from, to) = (first.as_ptr().addr(), last.as_ptr().addr() + last.len());
    sql.get(from.checked_sub(base)?..to.checked_sub(base)?)
}

/// True for one complete SELECT that writes nothing as far as its words tell, and leaves nothing in its session.
/// A column named like a command (`delete`) makes it false: better so.
pub fn reads_only(sql: &[u8]) -> bool {
    let shape = scan(sql);
    if shape.command != Command::Select
        || shape.statements != 1
        || !shape.complete
        || shape.effects != Effects::empty()
    {
        return false;
    }
    !Lexer::new(sql).any(|token| {
        matches!(token, Token::Word(word) if
            ["INSERT", "UPDATE", "DELETE", "MERGE", "INTO"].iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes())))
    })
}

/// A text with places `$n` for values.
#[derive(Clone, Debug)]
pub struct Template {
    /// Text, and the place behind it.
    pieces: Vec<(Box<[u8]>, u16)>,
    end: Box<[u8]>,
}

impl Template {
    /// Splits `text` at its parameters.
    pub fn new(text: &str) -> Self {
        let sql = text.trim_end_matches([';', ' ', '\t', '\r', '\n']).as_bytes();
        let (mut pieces, mut from) = (Vec::new(), 0);
        let mut lexer = Lexer::new(sql);
        while let Some(token) = lexer.next() {
            let Token::Param(number) = token else { continue };
            let end = lexer.position();
            let digits = sql[from..end].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            pieces.push((sql[from..end - digits - 1].into(), number));
            from = end;
        }
        Self { pieces, end: sql[from..].into() }
    }

    /// The places used.
    pub fn places(&self) -> BTreeSet<u16> {
        self.pieces.iter().map(|(_, place)| *place).collect()
    }

    /// The text with `values` in their places; an empty value keeps `$n`. `None` when one is missing.
    pub fn fill(&self, values: &[Option<&[u8]>]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        for (piece, place) in &self.pieces {
            text.extend_from_slice(piece);
            let value = (*values.get(usize::from(*place).checked_sub(1)?)?)?;
            if value.is_empty() {
                text.extend_from_slice(format!("${place}").as_bytes());
            } else if matches!(value[0], b'-' | b'+') {
                // Signs must not touch what stands before: `-` and `-1` would be a comment.
                text.extend_from_slice(b"(");
                text.extend_from_slice(value);
                text.extend_from_slice(b")");
            } else {
                text.extend_from_slice(value);
            }
        }
        text.extend_from_slice(&self.end);
        Some(text)
    }

    /// The text as it was written.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (piece, place) in &self.pieces {
            text.extend_from_slice(piece);
            text.extend_from_slice(format!("${place}").as_bytes());
        }
        text.extend_from_slice(&self.end);
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::normalize;

    fn filled(original: &str, template: &str) -> Option<String> {
        let values = values(original.as_bytes())?;
        Some(String::from_utf8(Template::new(template).fill(&values)?).unwrap())
    }

    #[test]
    fn literals_go_where_the_normalised_text_has_them() {
        let sql = "select a from t where b = 'x''y' and c > - 5 and d = $1";
        assert_eq!(normalize(sql.as_bytes(), 200), "SELECT a FROM t WHERE b = $2 AND c > $3 AND d = $1");
        assert_eq!(
            filled(sql, "SELECT a FROM t WHERE d = $1 AND b = $2 AND c >$3 LIMIT 10; ").unwrap(),
            "SELECT a FROM t WHERE d = $1 AND b = 'x''y' AND c >(- 5) LIMIT 10"
        );
    }

    #[test]
    fn lists_are_left_alone() {
        assert_eq!(values(b"SELECT 1 FROM t WHERE a IN (1, 2)"), None);
        assert_eq!(values(b"SELECT 1 FROM t WHERE a IN ($1, $2)"), None);
        assert!(values(b"SELECT 1 FROM t WHERE a IN (1)").is_some());
        assert_eq!(values(b"SELECT 'a"), None);
    }

    #[test]
    fn a_template_is_its_text() {
        let text = "SELECT '$1', a$2, $12 FROM t WHERE b = $1";
        assert_eq!(Template::new(text).text(), text.as_bytes());
        assert_eq!(Template::new(text).places(), BTreeSet::from([1, 12]));
    }

    #[test]
    fn only_plain_selects_are_read_only() {
        for yes in ["SELECT 1", "WITH a AS (SELECT 1) SELECT * FROM a", "(SELECT 1) UNION SELECT 2;"] {
            assert!(reads_only(yes.as_bytes()), "{yes}");
        }
        for no in [
            "SELECT 1; SELECT 2",
            "WITH a AS (DELETE FROM t RETURNING b) SELECT * FROM a",
            "SELECT a INTO b FROM c",
            "SELECT a FROM t FOR UPDATE",
            "SELECT set_config('a', 'b', false)",
            "INSERT INTO t SELECT 1",
            "SELECT 'a",
        ] {
            assert!(!reads_only(no.as_bytes()), "{no}");
        }
    }
}
