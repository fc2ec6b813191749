//! What a statement is aimed at: parameters, prepared statements, tables.

use crate::lexer::{Lexer, Token};
use crate::{Command, scan};

fn is(token: Option<Token<'_>>, known: &str) -> bool {
    matches!(token, Some(Token::Word(word)) if word.eq_ignore_ascii_case(known.as_bytes()))
}

/// The parameter that a single SET (not LOCAL) sets, as written; `TimeZone` for SET TIME ZONE, `client_encoding`
/// for SET NAMES. `None` for anything else, several statements included.
pub fn set_target(sql: &[u8]) -> Option<&[u8]> {
    let shape = scan(sql);
    if shape.command != Command::Set || shape.statements != 1 || !shape.complete {
        return None;
    }
    let mut lexer = Lexer::new(sql);
    lexer.next();
    let mut token = lexer.next();
    if is(token, "SESSION") {
        token = lexer.next();
        if is(token, "CHARACTERISTICS") || is(token, "AUTHORIZATION") {
            return None;
        }
    }
    if is(token, "LOCAL") || is(token, "TRANSACTION") || is(token, "CONSTRAINTS") {
        return None;
    }
    if is(token, "TIME") {
        return Some(b"TimeZone");
    }
    if is(token, "NAMES") {
        return Some(b"client_encoding");
    }
    match token {
        // `SET a.b` is a custom parameter: not one that is reported.
        Some(Token::Word(name)) if lexer.next() != Some(Token::Symbol(b".")) => Some(name),
        Some(Token::Quoted(name)) => name.get(1..name.len() - 1),
        _ => None,
    }
}

/// The name that a single DEALLOCATE drops, folded as PostgreSQL folds names; `None` for ALL and all else.
pub fn deallocate_name(sql: &[u8]) -> Option<Vec<u8>> {
    let shape = scan(sql);
    if shape.command != Command::Deallocate || shape.statements != 1 || !shape.complete {
        return None;
    }
    let mut lexer = Lexer::new(sql);
    lexer.next();
    let mut token = lexer.next();
    if is(token, "PREPARE") {
        token = lexer.next();
    }
    if is(token, "ALL") { None } else { name(token?) }
}

/// A name as PostgreSQL stores it: unquoted ones in lower case, quotes taken off.
fn name(token: Token<'_>) -> Option<Vec<u8>> {
    match token {
        Token::Word(word) => Some(word.to_ascii_lowercase()),
        Token::Quoted(quoted) => {
            let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
            let mut name = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(byte) = bytes.next() {
                name.push(*byte);
                if *byte == b'"' {
                    bytes.next();
                }
            }
            Some(name)
        }
        _ => None,
    }
}

/// Tables that a query names, without doubles, as far as they can be told without a parser: names behind FROM,
/// JOIN, INTO, UPDATE and TABLE that are neither functions nor common table expressions.
pub fn tables(sql: &[u8]) -> Vec<String> {
    let tokens: Vec<Token<'_>> = Lexer::new(sql).collect();
    let at = |n: usize| tokens.get(n).copied();
    let mut found: Vec<String> = Vec::new();
    let mut n = 0;
    while n < tokens.len() {
        let before = n.checked_sub(1).and_then(at);
        let from = is(at(n), "FROM") && !is(before, "DISTINCT") && !inside_function(&tokens, n);
        let update = is(at(n), "UPDATE") && !["FOR", "DO", "ON", "KEY"].iter().any(|word| is(before, word));
        let begins = from || update || ["JOIN", "INTO", "TABLE"].iter().any(|word| is(at(n), word));
        n += 1;
        if !begins {
            continue;
        }
        loop {
            while ["ONLY", "LATERAL", "IF", "NOT", "EXISTS"].iter().any(|word| is(at(n), word)) {
                n += 1;
            }
            let Some((table, end)) = qualified(&tokens, n) else { break };
            n = end;
            let function = from && at(n) == Some(Token::Symbol(b"("));
            if !function && !is_cte(&tokens, &table) && !found.contains(&table) {
                found.push(table);
            }
            if !from {
                break;
            }
            // FROM a AS x, b y: on to the next name of the list.
            if is(at(n), "AS") {
                n += 1;
            }
            if matches!(at(n), Some(Token::Word(_) | Token::Quoted(_)))
                && at(n + 1) == Some(Token::Symbol(b","))
            {
                n += 1;
            }
            if at(n) != Some(Token::Symbol(b",")) {
                break;
            }
            n += 1;
        }
    }
    found
}

/// `schema.table` at `n`, and where it ends.
fn qualified(tokens: &[Token<'_>], mut n: usize) -> Option<(String, usize)> {
    let mut full = String::from_utf8_lossy(&name(*tokens.get(n)?)?).into_owned();
    n += 1;
    while tokens.get(n) == Some(&Token::Symbol(b".")) {
        let Some(part) = tokens.get(n + 1).and_then(|token| name(*token)) else { break };
        full.push('.');
        full.push_str(&String::from_utf8_lossy(&part));
        n += 2;
    }
    Some((full, n))
}

/// `extract(year FROM x)` and its like.
fn inside_function(tokens: &[Token<'_>], n: usize) -> bool {
    let start = n.saturating_sub(4);
    tokens[start..n].windows(2).any(|pair| {
        pair[1] == Token::Symbol(b"(")
            && ["EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"].iter().any(|word| is(Some(pair[0]), word))
    })
}

fn is_cte(tokens: &[Token<'_>], table: &str) -> bool {
    tokens.windows(3).any(|three| {
        is(Some(three[1]), "AS")
            && matches!(three[2], Token::Symbol(b"("))
            && name(three[0]).is_some_and(|name| name == table.as_bytes())
    }) && tokens.iter().any(|token| is(Some(*token), "WITH"))
}
