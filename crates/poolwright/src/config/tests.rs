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

#[test]
fn a_password_stays_out_of_messages() {
    let said = from_url("postgres://bot:se@cret@127.0.0.1/bot").unwrap_err().to_string();
    assert!(said.contains("%40") && !said.contains("cret@"), "{said}");
    let said = load(Path::new("postgres://bot:secret@127.0.0.1/bot")).unwrap_err().to_string();
    assert!(said.contains("bot:******@") && !said.contains("secret"), "{said}");
}

const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// The keys in the table under a heading of the reference.
fn documented(heading: &str) -> Vec<&'static str> {
    let section = REFERENCE.split("\n## ").find(|section| section.lines().next() == Some(heading)).unwrap();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn the_reference_has_every_key_that_the_parser_knows() {
    let pool = "[pool.a]\nserver = \"\"";
    for (heading, text) in [
        ("`[pool.NAME]`", pool),
        ("`[auth]`", "[auth]"),
        ("`[console]`", "[console]"),
        ("`[metrics]`", "[metrics]"),
        ("`[[rewrite]]`", "[[rewrite]]"),
    ] {
        assert_eq!(documented(heading), file::known_keys(text), "{heading}");
    }
    let tables = ["auth", "pool", "rewrite", "metrics", "console"];
    let mut top = file::known_keys("");
    top.retain(|key| !tables.contains(&key.as_str()));
    assert_eq!(documented("Top level"), top);
}

#[test]
fn the_reference_tells_the_defaults() {
    let whole = REFERENCE.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let variable = |name: &str| (name == "APP_PASSWORD").then(|| "s3cret".to_owned());
    let whole = parse(whole, "reference", &variable).unwrap();
    let bare = "[pool.app]\nserver = \"postgres://app:s3cret@db.internal:5432/app\"";
    let bare = parse(bare, "bare", &variable).unwrap();
    assert_eq!((whole.settings, whole.metrics), (bare.settings, bare.metrics));
}

#[test]
fn nonsense_is_refused_where_it_stands() {
    let pool = "[pool.a]\nserver = \"postgres://u:p@h/d\"\n";
    let cases = [
        ("max = \"ten\"", "the text \"ten\" stands where a whole number, not negative is wanted", "\"ten\""),
        ("max = -1", "the number -1 stands where a whole number, not negative is wanted", "-1"),
        ("max = 20000", "must be at most 10000", "20000"),
        ("idle_timeout = 30", "the number 30 stands where text in quotation marks is wanted", "30"),
        ("connect_timeout = \"0\"", "must be longer than 0", "\"0\""),
        ("lifetime = \"366d\"", "must be at most \"365d\"", "\"366d\""),
        ("mode = \"statement\"", "mode must be \"transaction\" or \"session\"", "\"statement\""),
        ("statements_per_server = 0", "must be at least 1", "0"),
        ("users = {}", "an empty list of users: nobody could log in", "{}"),
        ("users = { a = \"\" }", "user \"a\" has an empty password, which never logs in", "\"\""),
    ];
    for (line, message, place) in cases {
        let (told, _, span) = fault(&format!("{pool}{line}\n"));
        assert_eq!((told.as_str(), span.as_str()), (message, place), "{line}");
    }
    let whole = |text: &str| fault(&format!("{text}\n{pool}")).0;
    assert_eq!(whole("listen = []"), "listen is an empty list: nobody could connect");
    assert_eq!(whole("listen = 6432"), "write \"IP:PORT\", or a list of such");
    assert!(whole("listen = \"db:x\"").contains("is no address"));
    assert_eq!(whole("workers = 65"), "workers must be between 1 and 64");
    assert_eq!(whole("client_max = 0"), "must be at least 1");
    assert_eq!(whole("login_timeout = \"0s\""), "must be longer than 0");
    let server = |url: &str| fault(&format!("[pool.a]\nserver = \"{url}\"\n")).0;
    assert!(server("postgres://u:p@h1,h2/d").contains("several hosts"));
    assert!(server("postgres://u:p@h/d?sslmode=require").contains("TLS"));
    assert!(server("postgres://u@h/d").contains("no password"));
    assert!(server("mysql://u:p@h/d").contains("postgres://user:password@host"));
    assert!(!server("postgres://u:verysecret@h:port/d").contains("verysecret"));
    assert!(fault(&format!("{pool}{pool}")).0.contains("duplicate key"));
    let rewrite =
        "[[rewrite]]\npool = \"a\"\nid = \"q\"\noriginal = \"x\"\nreplacement = \"y\"\nrows = \"same\"\n";
    assert!(fault(&format!("{pool}{rewrite}{rewrite}")).0.contains("different ids"));
    let long = "n".repeat(64);
    assert!(fault(&format!("[pool.{long}]\nserver = \"postgres://u:p@h/d\"\n")).0.contains("1 to 63 bytes"));
    assert!(fault("[pool.pgbouncer]\nserver = \"postgres://u:p@h/d\"\n").0.contains("console"));
}

#[test]
fn connection_words_keep_their_password_to_themselves() {
    let error = super::load(std::path::Path::new("host=db user=app password=s3cret dbname=app")).unwrap_err();
    assert!(error.message.starts_with("cannot read host=db user=app password=…: "), "{}", error.message);
    assert!(error.help.is_some());
}
