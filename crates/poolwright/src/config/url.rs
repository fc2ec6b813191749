//! `postgres://user:password@host:port/database`, as libpq and every driver read it.

use std::path::PathBuf;
use std::time::Duration;

use proxy::settings::{ServerAddress, ServerSettings};
use tokio_postgres::config::{Host, SslMode};

/// One server from a connection URL. Connect time-out 5 s unless the URL has `connect_timeout`.
///
/// # Errors
/// A sentence, without the password.
pub fn server_settings(text: &str) -> Result<ServerSettings, String> {
    let config: tokio_postgres::Config = text.parse().map_err(|error| {
        format!("not a PostgreSQL URL ({error}); write postgres://user:password@host:5432/database")
    })?;
    if config.get_hosts().len() > 1 {
        return Err("the URL names several hosts; a pool has one server".to_owned());
    }
    if config.get_ssl_mode() == SslMode::Require {
        return Err(
            "the URL demands TLS (sslmode), which connections to PostgreSQL do not have yet".to_owned()
        );
    }
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let address = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => ServerAddress::Tcp { host: host.clone(), port },
        Some(Host::Unix(folder)) => {
            ServerAddress::Unix(PathBuf::from(folder).join(format!(".s.PGSQL.{port}")))
        }
        None => return Err("the URL names no host".to_owned()),
    };
    let user = config.get_user().ok_or("the URL names no user")?.to_owned();
    Ok(ServerSettings {
        address,
        database: config.get_dbname().unwrap_or(&user).to_owned(),
        password: String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned(),
        connect_timeout: config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(5)),
        user,
    })
}
