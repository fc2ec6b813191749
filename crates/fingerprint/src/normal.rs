//! The canonical stream of tokens: what is hashed, and what `normalize` shows.

use crate::lexer::{Lexer, Token};

/// A token after folding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Word; its case does not matter.
    Word(&'a [u8]),
    /// Quoted name, as it stands.
    Quoted(&'a [u8]),
    /// Literal, with its sign taken off.
    Literal(&'a [u8]),
    /// Parameter.
    Param(u16),
    /// Punctuation.
    Symbol(&'a [u8]),
}

/// Folds: signs before literals into them, `IN ($1, $2, …)` and `ARRAY[$1, $2, …]` to their first value, and
/// the rows of `VALUES` to the first row.
pub(crate) struct Parts<'a> {
    lexer: Lexer<'a>,
    /// True where an operand is expected, so that `-1` is a literal and `a - 1` is not.
    operand: bool,
    /// Signs were looked behind already: no literal there.
    signs: bool,
    last_word: Fold,
    /// Inside a list of nothing but values.
    list: bool,
    depth: u32,
    /// Depth at which rows of VALUES are folded.
    rows: Option<u32>,
    /// Several values were folded into one.
    pub folded: bool,
    /// The signs in front of the literal just read, from the first one on.
    pub signs_from: Option<&'a [u8]>,
}

/// What the word just read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    Nothing,
    In,
    Array,
    Rows,
}

impl<'a> Parts<'a> {
    pub fn new(sql: &'a [u8]) -> Self {
        Self {
            lexer: Lexer::new(sql),
            operand: true,
            signs: false,
            last_word: Fold::Nothing,
            list: false,
            depth: 0,
            rows: None,
            folded: false,
            signs_from: None,
        }
    }

    /// False once the text turned out to be cut off.
    pub fn complete(&self) -> bool {
        self.lexer.complete
    }

    fn word(&mut self, word: &'a [u8]) -> Part<'a> {
        self.operand = operand_follows(word);
        self.last_word = if word.eq_ignore_ascii_case(b"IN") {
            Fold::In
        } else if word.eq_ignore_ascii_case(b"ARRAY") {
            Fold::Array
        } else if word.eq_ignore_ascii_case(b"VALUES") {
            Fold::Rows
        } else {
            Fold::Nothing
        };
        Part::Word(word)
    }

    fn symbol(&mut self, symbol: &'a [u8], begun: Fold) -> Part<'a> {
        self.operand = !matches!(symbol, b")" | b"]");
        match symbol {
            b"(" | b"[" => {
                if begun == Fold::Rows && symbol == b"(" {
                    self.rows = Some(self.depth);
                }
                let end: &[u8] = if symbol == b"(" { b")" } else { b"]" };
                let lists = begun == Fold::In && symbol == b"(" || begun == Fold::Array && symbol == b"[";
                self.list = lists && plain_list(self.lexer.clone(), end);
                self.depth += 1;
            }
            b")" | b"]" => {
                self.depth = self.depth.saturating_sub(1);
                self.list = false;
                if self.rows == Some(self.depth) {
                    self.rows = None;
                    self.skip_rows();
                }
            }
            _ => {}
        }
        Part::Symbol(symbol)
    }

    /// Moves past `, value` as often as it comes.
    fn skip_values(&mut self) {
        loop {
            let mut ahead = self.lexer.clone();
            if ahead.next() != Some(Token::Symbol(b",")) || !value(&mut ahead) {
                return;
            }
            self.lexer = ahead;
            self.folded = true;
        }
    }

    /// Moves past `, ( … )` as often as it comes.
    fn skip_rows(&mut self) {
        loop {
            let mut ahead = self.lexer.clone();
            if ahead.next() != Some(Token::Symbol(b",")) || ahead.next() != Some(Token::Symbol(b"(")) {
                return;
            }
            let mut depth = 1u32;
            while depth > 0 {
                match ahead.next() {
                    Some(Token::Symbol(b"(" | b"[")) => depth += 1,
                    Some(Token::Symbol(b")" | b"]")) => depth -= 1,
                    Some(_) => {}
                    None => return,
                }
            }
            self.lexer = ahead;
            self.folded = true;
        }
    }
}

/// Reads one value, signs included.
fn value(lexer: &mut Lexer<'_>) -> bool {
    let mut token = lexer.next();
    while let Some(Token::Symbol(b"-" | b"+")) = token {
        token = lexer.next();
    }
    matches!(token, Some(Token::Literal(_) | Token::Param(_)))
}

/// True when values and commas lead to `end`.
fn plain_list(mut lexer: Lexer<'_>, end: &[u8]) -> bool {
    loop {
        if !value(&mut lexer) {
            return false;
        }
        match lexer.next() {
            Some(Token::Symbol(b",")) => {}
            Some(Token::Symbol(symbol)) => return symbol == end,
            _ => return false,
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let mut token = self.lexer.next()?;
        self.signs_from = None;
        if self.operand && !self.signs && matches!(token, Token::Symbol(b"-" | b"+")) {
            let mut ahead = self.lexer.clone();
            let mut behind = ahead.next();
            while let Some(Token::Symbol(b"-" | b"+")) = behind {
                behind = ahead.next();
            }
            if let Some(literal @ Token::Literal(_)) = behind {
                if let Token::Symbol(sign) = token {
                    self.signs_from = Some(sign);
                }
                self.lexer = ahead;
                token = literal;
            } else {
                self.signs = true;
            }
        }
        if !matches!(token, Token::Symbol(b"-" | b"+")) {
            self.signs = false;
        }
        let begun = std::mem::replace(&mut self.last_word, Fold::Nothing);
        Some(match token {
            Token::Word(word) => self.word(word),
            Token::Symbol(symbol) => self.symbol(symbol, begun),
            Token::Quoted(name) => {
                self.operand = false;
                Part::Quoted(name)
            }
            Token::Literal(_) | Token::Param(_) => {
                self.operand = false;
                if self.list {
                    self.skip_values();
                }
                match token {
                    Token::Param(number) => Part::Param(number),
                    Token::Literal(text) => Part::Literal(text),
                    _ => return None,
                }
            }
        })
    }
}

/// True for words behind which `-1` is a literal.
fn operand_follows(word: &[u8]) -> bool {
    const WORDS: &[&str] = &[
        "AND",
        "BETWEEN",
        "BY",
        "CASE",
        "DISTINCT",
        "ELSE",
        "FETCH",
        "FIRST",
        "HAVING",
        "ILIKE",
        "IN",
        "LIKE",
        "LIMIT",
        "NEXT",
        "NOT",
        "OFFSET",
        "ON",
        "OR",
        "RETURNING",
        "SELECT",
        "SET",
        "THEN",
        "TO",
        "USING",
        "VALUES",
        "WHEN",
        "WHERE",
    ];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}
