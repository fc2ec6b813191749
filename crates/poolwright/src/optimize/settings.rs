//! The configuration file of the `serve` child: written anew for every change, then SIGHUP.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use toml::{Table, Value};

use crate::report::model::PoolSettings;

/// A live rewrite as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewrite {
    /// Its id, shown in console and metrics.
    pub id: String,
    /// The full normalised text that it replaces.
    pub original: String,
    /// What is sent instead.
    pub replacement: String,
    /// Both return the same rows.
    pub same_rows: bool,
}

/// Everything the child is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `address:port` for clients.
    pub listen: String,
    /// `address:port` of the metrics.
    pub metrics: String,
    /// Name of the pool and of the database that clients ask for.
    pub pool: String,
    /// URL of PostgreSQL, with its password: never on a command line.
    pub server: String,
    /// The pool's limits.
    pub limits: PoolSettings,
    /// Live rewrites in force.
    pub rewrites: Vec<Rewrite>,
}

impl Settings {
    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut pool = Table::new();
        // In the file `${NAME}` stands for an environment variable; in a URL `%24` is the same sign.
        pool.insert("server".into(), self.server.replace("${", "%24{").into());
        pool.insert("max".into(), Value::Integer(self.limits.max.into()));
        pool.insert("min".into(), Value::Integer(self.limits.min.into()));
        pool.insert("idle_timeout".into(), format!("{}ms", self.limits.idle_timeout_ms).into());
        pool.insert("query_timeout".into(), format!("{}ms", self.limits.query_timeout_ms).into());
        let mut root = Table::new();
        root.insert("listen".into(), self.listen.clone().into());
        root.insert("pool".into(), Table::from_iter([(self.pool.clone(), Value::Table(pool))]).into());
        root.insert(
            "metrics".into(),
            Table::from_iter([("listen".to_owned(), Value::from(self.metrics.clone()))]).into(),
        );
        if !self.rewrites.is_empty() {
            let rewrites = self.rewrites.iter().map(|rewrite| self.rewrite(rewrite)).collect();
            root.insert("rewrite".into(), Value::Array(rewrites));
        }
        root.to_string()
    }

    /// The URL of the pool for clients: they log in as the pooler itself does.
    ///
    /// # Errors
    /// The server's URL is none, or has no password.
    pub fn client_url(&self) -> Result<String, String> {
        let config: tokio_postgres::Config =
            self.server.parse().map_err(|error| format!("this is not a database URL: {error}"))?;
        let password = config.get_password().ok_or("the URL has no password, and clients log in with it")?;
        Ok(format!(
            "postgres://{}:{}@{}/{}",
            percent(config.get_user().unwrap_or_default().as_bytes()),
            percent(password),
            self.listen,
            percent(self.pool.as_bytes()),
        ))
    }

    fn rewrite(&self, rewrite: &Rewrite) -> Value {
        let rows = if rewrite.same_rows { "same" } else { "different" };
        let pairs = [
            ("pool", self.pool.as_str()),
            ("id", &rewrite.id),
            ("original", &rewrite.original),
            ("replacement", &rewrite.replacement),
            ("rows", rows),
        ];
        Value::Table(pairs.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect())
    }

    /// Replaces `path` in one step, readable by its owner alone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension("new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(self.to_toml().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    }
}

/// Percent-encoding of all but letters and digits.
fn percent(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn settings() -> Settings {
        Settings {
            listen: "127.0.0.1:0".into(),
            metrics: "127.0.0.1:0".into(),
            pool: "an app\"".into(),
            server: "postgres://u:p@h/d".into(),
            limits: PoolSettings { max: 15, min: 5, idle_timeout_ms: 30_000, query_timeout_ms: 10_000 },
            rewrites: vec![Rewrite {
                id: "r1".into(),
                original: "SELECT a\nFROM \"t\"".into(),
                replacement: "SELECT a FROM \"t\" LIMIT 100".into(),
                same_rows: false,
            }],
        }
    }

    #[test]
    fn the_file_reads_back_whatever_the_names() {
        let table: Table = settings().to_toml().parse().unwrap();
        assert_eq!(table["pool"]["an app\""]["idle_timeout"].as_str(), Some("30000ms"));
        assert_eq!(table["rewrite"][0]["original"].as_str(), Some("SELECT a\nFROM \"t\""));
        assert_eq!(table["rewrite"][0]["rows"].as_str(), Some("different"));
    }

    #[test]
    fn the_password_is_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serve.toml");
        settings().write(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
