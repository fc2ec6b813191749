//! PostgreSQL's lexical rules, as far as fingerprints need them (src/backend/parser/scan.l).

/// A piece of SQL. Text is borrowed from the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// Keyword or unquoted identifier.
    Word(&'a [u8]),
    /// Quoted identifier, with its quotes.
    Quoted(&'a [u8]),
    /// Number, string, bit string or dollar-quoted string.
    Literal(&'a [u8]),
    /// `$1`.
    Param(u16),
    /// One byte of punctuation, or one operator of several.
    Symbol(&'a [u8]),
}

/// Splits SQL into tokens; comments and white space are skipped.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    /// False once a string, quoted name or comment had no end.
    pub complete: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8]) -> Self {
        // The protocol's terminator is not part of the text.
        let end = sql.iter().position(|byte| *byte == 0).unwrap_or(sql.len());
        Self { sql: &sql[..end], at: 0, complete: true }
    }

    /// Bytes read so far: the end of the token given last.
    pub fn position(&self) -> usize {
        self.at
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek(0) {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    let rest = &self.sql[self.at..];
                    self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                }
                b'/' if self.peek(1) == b'*' => self.skip_comment(),
                _ => return,
            }
        }
    }

    /// Block comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.sql.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.complete = false;
    }

    /// Moves past a text in quotes, the opening one included; a doubled quote stands for itself.
    fn skip_quoted(&mut self, quote: u8, backslash: bool) {
        self.at += 1;
        while self.at < self.sql.len() {
            let byte = self.peek(0);
            if backslash && byte == b'\\' {
                self.at = (self.at + 2).min(self.sql.len());
            } else if byte == quote && self.peek(1) == quote {
                self.at += 2;
            } else {
                self.at += 1;
                if byte == quote && !(backslash && self.continued()) {
                    return;
                }
            }
        }
        self.complete = false;
    }

    /// A string goes on behind blanks with a line's end among them (scan.l, `quotecontinue`), and keeps its kind:
    /// moves behind the next opening quote.
    fn continued(&mut self) -> bool {
        let mut ahead = self.clone();
        let end = ahead.at;
        while matches!(ahead.peek(0), b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
            || ahead.peek(0) == b'-' && ahead.peek(1) == b'-'
        {
            ahead.skip_line();
        }
        let goes_on =
            ahead.peek(0) == b'\'' && memchr::memchr2(b'\n', b'\r', &self.sql[end..ahead.at]).is_some();
        if goes_on {
            self.at = ahead.at + 1;
        }
        goes_on
    }

    /// Moves past one blank or the rest of a line that is a comment.
    fn skip_line(&mut self) {
        if self.peek(0) == b'-' {
            let rest = &self.sql[self.at..];
            self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        } else {
            self.at += 1;
        }
    }

    /// `$tag$ … $tag$`; false when this `$` begins no such string.
    fn skip_dollar_quoted(&mut self) -> bool {
        let rest = &self.sql[self.at..];
        let Some(tag_end) = memchr::memchr(b'$', &rest[1..]) else { return false };
        let tag = &rest[..tag_end + 2];
        let name = &tag[1..tag.len() - 1];
        if name.first().is_some_and(u8::is_ascii_digit) || !name.iter().all(|byte| is_word(*byte)) {
            return false;
        }
        match memchr::memmem::find(&rest[tag.len()..], tag) {
            Some(found) => self.at += 2 * tag.len() + found,
            None => {
                self.at = self.sql.len();
                self.complete = false;
            }
        }
        true
    }

    fn skip_number(&mut self) {
        let mut last = 0;
        while self.at < self.sql.len() {
            let byte = self.peek(0);
            let sign =
                matches!(byte, b'+' | b'-') && matches!(last, b'e' | b'E') && self.peek(1).is_ascii_digit();
            // `1..2` in a slice or PL/pgSQL range: the dots are not part of the number.
            let dots = byte == b'.' && self.peek(1) == b'.';
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || sign) || dots {
                return;
            }
            last = byte;
            self.at += 1;
        }
    }

    fn parameter(&mut self) -> Token<'a> {
        self.at += 1;
        let start = self.at;
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
        let number = self.sql[start..self.at]
            .iter()
            .fold(0u16, |number, digit| number.saturating_mul(10).saturating_add(u16::from(digit - b'0')));
        Token::Param(number)
    }

    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        while is_word(self.peek(0)) || self.peek(0) == b'$' {
            self.at += 1;
        }
        let word = &self.sql[start..self.at];
        // E'…', B'…', X'…', N'…' and U&'…', U&"…".
        if let [prefix] = word {
            let prefix = prefix.to_ascii_lowercase();
            if self.peek(0) == b'\'' && matches!(prefix, b'e' | b'b' | b'x' | b'n') {
                self.skip_quoted(b'\'', prefix == b'e');
                return Token::Literal(&self.sql[start..self.at]);
            }
            if prefix == b'u' && self.peek(0) == b'&' && matches!(self.peek(1), b'\'' | b'"') {
                let quote = self.peek(1);
                self.at += 1;
                self.skip_quoted(quote, false);
                let text = &self.sql[start..self.at];
                return if quote == b'"' { Token::Quoted(text) } else { Token::Literal(text) };
            }
        }
        Token::Word(word)
    }

    /// Operators of several characters; a comment's start ends one (scan.l, `operator`).
    fn symbol(&mut self) -> Token<'a> {
        let start = self.at;
        if self.peek(0) == b':' && matches!(self.peek(1), b':' | b'=') {
            self.at += 2;
            return Token::Symbol(&self.sql[start..self.at]);
        }
        self.at += 1;
        if is_operator(self.sql[start]) {
            while is_operator(self.peek(0))
                && !matches!((self.peek(0), self.peek(1)), (b'-', b'-') | (b'/', b'*'))
            {
                self.at += 1;
            }
            // Multi-character operators end in + or - only with certain others inside.
            let special = |byte: &u8| b"~!@#%^&|`?".contains(byte);
            while self.at - start > 1
                && matches!(self.sql[self.at - 1], b'+' | b'-')
                && !self.sql[start..self.at - 1].iter().any(special)
            {
                self.at -= 1;
            }
        }
        Token::Symbol(&self.sql[start..self.at])
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let start = self.at;
        let first = *self.sql.get(start)?;
        Some(match first {
            b'\'' => {
                self.skip_quoted(b'\'', false);
                Token::Literal(&self.sql[start..self.at])
            }
            b'"' => {
                self.skip_quoted(b'"', false);
                Token::Quoted(&self.sql[start..self.at])
            }
            b'$' if self.peek(1).is_ascii_digit() => self.parameter(),
            b'$' if self.skip_dollar_quoted() => Token::Literal(&self.sql[start..self.at]),
            b'0'..=b'9' => {
                self.skip_number();
                Token::Literal(&self.sql[start..self.at])
            }
            b'.' if self.peek(1).is_ascii_digit() => {
                self.skip_number();
                Token::Literal(&self.sql[start..self.at])
            }
            byte if is_word(byte) => self.word(),
            _ => self.symbol(),
        })
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_operator(byte: u8) -> bool {
    b"+-*/<>=~!@#%^&|`?".contains(&byte)
}
