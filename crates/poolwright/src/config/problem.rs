//! What is wrong in the file, in words, and where.

use std::ops::Range;

use toml::Spanned;

/// A message and its place in the text.
pub(super) struct Problem {
    pub message: String,
    pub help: Option<String>,
    pub span: Option<Range<usize>>,
}

/// A message at a value.
pub(super) fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Problem {
    Problem { message: message.into(), help: None, span: Some(value.span()) }
}

/// Serde's message; for an unknown key the name that was probably meant.
pub(super) fn from_toml(error: &toml::de::Error) -> Problem {
    let message = error.message().trim().to_owned();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let help = message
        .starts_with("unknown field")
        .then(|| {
            let unknown = quoted.next()?;
            let nearest = quoted.min_by_key(|known| distance(unknown, known))?;
            (distance(unknown, nearest) <= 3).then(|| format!("did you mean \"{nearest}\"?"))
        })
        .flatten();
    let message = if message.starts_with("unknown field") {
        format!("unknown key {}", message.split('`').nth(1).unwrap_or_default())
    } else {
        wanted(&message)
    };
    Problem { message, help, span: error.span() }
}

/// Levenshtein's, for short names.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

/// Serde's names of types in words of the file: `invalid type: string "x", expected u32`.
fn wanted(message: &str) -> String {
    let Some((found, expected)) = message.split_once(", expected ") else {
        let of_listen = message.contains("untagged enum Listen");
        return if of_listen {
            "write \"IP:PORT\", or a list of such".to_owned()
        } else {
            message.to_owned()
        };
    };
    let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let found = found.replace('`', "").replace("string ", "the text ").replace("integer ", "the number ");
    let expected = match expected {
        "u32" | "usize" | "u16" => "a whole number, not negative",
        "a string" => "text in quotation marks",
        "a map" | "struct Pool" | "struct Auth" | "struct Metrics" | "struct Console" => "a table",
        other => other,
    };
    format!("{found} stands where {expected} is wanted")
}
