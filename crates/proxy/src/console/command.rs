//! The console's language: one command from its text.

/// What SHOW can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Help,
    Version,
    Pools,
    Databases,
    Clients,
    Servers,
    Stats,
    Fingerprints,
    Rewrites,
    Events,
    Config,
    Lists,
    State,
}

impl Topic {
    /// All, with the word after SHOW.
    pub(super) const ALL: [(&'static str, Self); 14] = [
        ("HELP", Self::Help),
        ("VERSION", Self::Version),
        ("POOLS", Self::Pools),
        ("DATABASES", Self::Databases),
        ("CLIENTS", Self::Clients),
        ("SERVERS", Self::Servers),
        ("STATS", Self::Stats),
        ("STATS_TOTALS", Self::Stats),
        ("FINGERPRINTS", Self::Fingerprints),
        ("REWRITES", Self::Rewrites),
        ("EVENTS", Self::Events),
        ("CONFIG", Self::Config),
        ("LISTS", Self::Lists),
        ("STATE", Self::State),
    ];
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing but blanks.
    Empty,
    Show(Topic),
    /// `SELECT 1`, which drivers send to see whether anybody is there.
    One,
    /// `SELECT version()`.
    Version,
    Begin,
    Commit,
    Rollback,
    /// SET, RESET, DISCARD and DEALLOCATE: drivers send them by themselves; taken, without effect. The tag.
    Ignored(&'static str),
    Reload,
    /// All pools, or the one named.
    Pause(Option<String>),
    Resume(Option<String>),
    /// The client with this id of SHOW CLIENTS.
    KillClient(i32),
    /// The rewrite, of one pool or of all that have it.
    Revoke {
        pool: Option<String>,
        id: String,
    },
    /// At once, or when the transactions have ended.
    Shutdown {
        drain: bool,
    },
}

impl Command {
    /// True when it changes something: for administrators only.
    pub(super) fn changes(&self) -> bool {
        matches!(
            self,
            Self::Reload
                | Self::Pause(_)
                | Self::Resume(_)
                | Self::KillClient(_)
                | Self::Revoke { .. }
                | Self::Shutdown { .. }
        )
    }
}

/// The commands of a text, which `;` parts. A text that cannot be understood is told back as a sentence.
pub(super) fn parse(text: &str) -> Result<Vec<Command>, String> {
    let mut commands = Vec::new();
    for words in statements(text)? {
        commands.push(command(&words)?);
    }
    if commands.is_empty() {
        commands.push(Command::Empty);
    }
    Ok(commands)
}

fn command(words: &[Word]) -> Result<Command, String> {
    let upper: Vec<String> = words.iter().map(Word::upper).collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    Ok(match upper.as_slice() {
        ["SHOW", topic] => Topic::ALL
            .iter()
            .find(|(name, _)| name == topic)
            .map(|(_, topic)| Command::Show(*topic))
            .ok_or_else(|| format!("there is no SHOW {topic}"))?,
        ["SELECT", "1"] => Command::One,
        ["SELECT", "VERSION()" | "PG_CATALOG.VERSION()"] => Command::Version,
        ["BEGIN", ..] | ["START", "TRANSACTION", ..] => Command::Begin,
        ["COMMIT", ..] | ["END", ..] => Command::Commit,
        ["ROLLBACK", ..] | ["ABORT", ..] => Command::Rollback,
        ["SET", _, ..] => Command::Ignored("SET"),
        ["RESET", _, ..] => Command::Ignored("RESET"),
        ["DISCARD", "ALL"] => Command::Ignored("DISCARD ALL"),
        ["DEALLOCATE", _, ..] => Command::Ignored("DEALLOCATE"),
        ["RELOAD"] => Command::Reload,
        ["PAUSE"] => Command::Pause(None),
        ["PAUSE", _] => Command::Pause(Some(words[1].text.clone())),
        ["RESUME"] => Command::Resume(None),
        ["RESUME", _] => Command::Resume(Some(words[1].text.clone())),
        ["KILL_CLIENT", id] => {
            Command::KillClient(id.parse().map_err(|_| format!("\"{id}\" is no id of SHOW CLIENTS"))?)
        }
        ["REVOKE", _] => Command::Revoke { pool: None, id: words[1].text.clone() },
        ["REVOKE", _, _] => Command::Revoke { pool: Some(words[1].text.clone()), id: words[2].text.clone() },
        ["SHUTDOWN"] => Command::Shutdown { drain: false },
        ["SHUTDOWN", "WAIT_FOR_SERVERS"] => Command::Shutdown { drain: true },
        [first, ..] => return Err(format!("the console does not know this form of {first}")),
        [] => Command::Empty,
    })
}

/// One word of a command.
#[derive(Debug, Default, PartialEq)]
struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    /// In capitals, unless it was quoted.
    fn upper(&self) -> String {
        if self.quoted { self.text.clone() } else { self.text.to_ascii_uppercase() }
    }
}

/// Splits at blanks, commas and `;`; knows quotes and comments as SQL does.
fn statements(text: &str) -> Result<Vec<Vec<Word>>, String> {
    let mut statements = vec![Vec::new()];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").ok_or("a comment is not closed")?.1;
        } else if first == ';' {
            statements.push(Vec::new());
            rest = &rest[1..];
        } else {
            let word;
            (word, rest) = if matches!(first, '"' | '\'') { quoted(rest, first)? } else { plain(rest) };
            if let Some(statement) = statements.last_mut() {
                statement.push(word);
            }
        }
        rest = rest.trim_start();
    }
    statements.retain(|words| !words.is_empty());
    Ok(statements)
}

fn plain(text: &str) -> (Word, &str) {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ';' | '"' | '\'')).unwrap_or(text.len());
    (Word { text: text[..end].to_owned(), quoted: false }, &text[end..])
}

/// A doubled quote stands for itself.
fn quoted(text: &str, quote: char) -> Result<(Word, &str), String> {
    let mut word = Word { text: String::new(), quoted: true };
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            word.text.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            word.text.push(quote);
        } else {
            return Ok((word, &text[at + 1..]));
        }
    }
    Err("a quote is not closed".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_people_write_them() {
        let show = |topic| Command::Show(topic);
        assert_eq!(parse("show pools;").unwrap(), [show(Topic::Pools)]);
        assert_eq!(parse("  SHOW\tStats_Totals -- all\n").unwrap(), [show(Topic::Stats)]);
        assert_eq!(parse("/* driver */ select 1").unwrap(), [Command::One]);
        assert_eq!(parse("").unwrap(), [Command::Empty]);
        assert_eq!(parse(" ; ;").unwrap(), [Command::Empty]);
        assert_eq!(parse("BEGIN; SHOW VERSION").unwrap(), [Command::Begin, show(Topic::Version)]);
        assert_eq!(parse("SET extra_float_digits = 3").unwrap(), [Command::Ignored("SET")]);
        assert_eq!(parse("PAUSE \"My Pool\"\"s\"").unwrap(), [Command::Pause(Some("My Pool\"s".into()))]);
        let revoke = Command::Revoke { pool: Some("bot".into()), id: "q;1".into() };
        assert_eq!(parse("revoke bot 'q;1'").unwrap(), [revoke]);
        assert_eq!(parse("KILL_CLIENT 17").unwrap(), [Command::KillClient(17)]);
        assert_eq!(parse("SHUTDOWN WAIT_FOR_SERVERS").unwrap(), [Command::Shutdown { drain: true }]);
    }

    #[test]
    fn what_is_no_command_is_said() {
        assert_eq!(parse("SHOW tables").unwrap_err(), "there is no SHOW TABLES");
        assert!(parse("DROP TABLE t").unwrap_err().contains("DROP"));
        assert!(parse("SHUTDOWN 'now'").unwrap_err().contains("SHUTDOWN"));
        assert_eq!(parse("PAUSE \"x").unwrap_err(), "a quote is not closed");
        assert_eq!(parse("/* x").unwrap_err(), "a comment is not closed");
        assert!(parse("KILL_CLIENT x").unwrap_err().contains("SHOW CLIENTS"));
        assert!(parse("KILL_CLIENT 99999999999").is_err());
    }
}
