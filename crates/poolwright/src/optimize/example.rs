//! The example that `demo` runs on, embedded as files; no name in it is known to the program.

use lab::workload::Workload;

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

/// What the example's application does, at a scale.
///
/// # Errors
/// The file is no workload.
pub fn workload(scale: f64) -> Result<Workload, String> {
    let workload = Workload::parse(WORKLOAD).map_err(|error| format!("the example's workload: {error}"))?;
    Ok(workload.scaled(scale))
}

/// Ids of the findings that the example agrees to by name, in its own workload file.
pub fn accepted(workload: &Workload) -> Vec<String> {
    let statements = workload.operations.iter().flat_map(|operation| &operation.statements);
    statements
        .flat_map(|statement| {
            let id = fingerprint::hex(fingerprint::scan(statement.sql.as_bytes()).id);
            statement.accept.iter().map(move |kind| format!("{kind}-{id}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_example_has_statements_and_scales() {
        assert!(super::workload(1.0).unwrap().operations.len() > 3);
        assert!(!super::data(0.05).contains("{{"));
        assert!(super::schema().contains("CREATE TABLE"));
    }
}
