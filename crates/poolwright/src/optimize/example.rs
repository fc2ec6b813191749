//! The example that `demo` runs on, embedded as files; no name in it is known to the program.

use super::plan::Known;

const SCHEMA: &str = include_str!("../../../../examples/discord-bot/schema.sql");
const DATA: &str = include_str!("../../../../examples/discord-bot/data.sql");
const WORKLOAD: &str = include_str!("../../../../examples/discord-bot/workload.toml");

/// The statements that make the tables.
pub fn schema() -> &'static str {
    SCHEMA
}

/// The statements that fill them, at a scale.
pub fn data(scale: f64) -> String {
    DATA.replace("{{scale}}", &scale.to_string())
}

/// The workload's statements, heaviest operation first, with the operation's weight in place of a count.
///
/// # Errors
/// The file is no workload.
pub fn declared() -> Result<Vec<Known>, String> {
    let table: toml::Table = WORKLOAD.parse().map_err(|error| format!("the example's workload: {error}"))?;
    let mut known = Vec::new();
    for operation in table.get("operation").and_then(toml::Value::as_array).into_iter().flatten() {
        let weight = operation.get("weight").and_then(toml::Value::as_integer).unwrap_or(1);
        for statement in operation.get("statement").and_then(toml::Value::as_array).into_iter().flatten() {
            if let Some(sql) = statement.get("sql").and_then(toml::Value::as_str) {
                let calls = u64::try_from(weight).unwrap_or(1);
                known.push(Known { query: sql.to_owned(), calls, ..Known::default() });
            }
        }
    }
    known.sort_by_key(|statement| std::cmp::Reverse(statement.calls));
    if known.is_empty() { Err("the example's workload has no statement".to_owned()) } else { Ok(known) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_example_has_statements_and_scales() {
        assert!(super::declared().unwrap().len() > 3);
        assert!(!super::data(0.05).contains("{{"));
        assert!(super::schema().contains("CREATE TABLE"));
    }
}
