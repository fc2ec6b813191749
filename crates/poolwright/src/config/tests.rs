#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;

const GOOD: &str = r#"
listen = "127.0.0.1:7000"
[pool.bot]
server = "postgres://bot:${PW}@db.internal:5433/live"
max = 20
idle_timeout = "250ms"
[[rewrite]]
pool = "bot"
id = "q1"
original = "SELECT $1"
replacement = "SELECT $1 LIMIT 1"
rows = "different"
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, "test.toml", &|name| (name == "PW").then(|| "s3cret".to_owned()))
}

fn fault(text: &str) -> (String, Option<String>, String) {
    let error = read(text).unwrap_err();
    let span = error.span.map(|span| text[span.offset()..span.offset() + span.len()].to_owned());
    (error.message, error.help, span.unwrap_or_default())
}

#[test]
fn a_file_becomes_settings() {
    let config = read(GOOD).unwrap();
    let pool = &config.settings.pools[0];
    assert_eq!((pool.max, pool.min, pool.idle_timeout), (20, 5, Duration::from_millis(250)));
    assert_eq!(pool.server.password, "s3cret");
    assert_eq!(
        (pool.server.database.as_str(), pool.server.address.to_string().as_str()),
        ("live", "db.internal:5433")
    );
    assert!(!pool.rewrites[0].same_rows);
    assert_eq!(config.settings.auth, AuthMethod::Scram);
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let (message, help, span) = fault(&GOOD.replace("idle_timeout", "idle_timout"));
    assert_eq!(message, "unknown key idle_timout");
    assert_eq!(help.as_deref(), Some("did you mean \"idle_timeout\"?"));
    assert_eq!(span, "idle_timout");
}

#[test]
fn a_bad_value_points_at_itself() {
    assert_eq!(fault(&GOOD.replace("250ms", "fast")).2, "\"fast\"");
    assert_eq!(fault(&GOOD.replace("max = 20", "max = 0")).2, "0");
    assert_eq!(fault(&GOOD.replace("max = 20", "max = 3\nmin = 4")).0, "min is 4, above max, which is 3");
    assert_eq!(fault(&GOOD.replace("PW", "NOPE")).0, "the environment variable NOPE is not set");
    assert_eq!(fault(&GOOD.replace("pool = \"bot\"", "pool = \"cat\"")).0, "there is no pool \"cat\"");
    assert!(fault("listen = \"x\"").0.contains("no pool"));
}

#[test]
fn a_url_needs_no_file() {
    let config = from_url("postgres://bot:pw@127.0.0.1:5432/bot").unwrap();
    assert_eq!(config.settings.pools[0].name, "bot");
    assert_eq!(config.settings.listen[0].to_string(), LISTEN);
    assert!(from_url("postgres://bot@127.0.0.1/bot").is_err());
}
