//! SQL files run statement by statement, so that VACUUM may stand in them. A statement ends at a `;` at the end of a
//! line; function bodies therefore do not belong in such files. `{{name}}` is replaced before.

use tokio_postgres::Client;

/// `text` with each `{{name}}` replaced by its value.
#[must_use]
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

/// The statements of a file, comments in front of them included.
pub fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(";\n").map(str::trim).filter(|piece| {
        piece.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with("--"))
    })
}

/// Runs each statement on its own.
///
/// # Errors
/// PostgreSQL's, of the first statement that fails; those before it have been done.
pub async fn run(client: &Client, text: &str) -> Result<(), tokio_postgres::Error> {
    for statement in statements(text) {
        client.batch_execute(statement).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_ends_of_lines_and_skips_bare_comments() {
        let text = fill("-- one\nselect '{{a}};x'\n  , 2;\nvacuum;\n-- the end\n", &[("a", "7")]);
        assert_eq!(statements(&text).collect::<Vec<_>>(), ["-- one\nselect '7;x'\n  , 2;", "vacuum;"]);
    }
}
