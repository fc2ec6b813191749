//! `postgres://user:password@host:port/database`, as libpq and every driver read it.

use std::path::PathBuf;
use std::time::Duration;

use proxy::settings::{ServerAddress, ServerSettings};
use tokio_postgres::config::{Host, SslMode};

/// A connection URL as the driver reads it.
///
/// # Errors
/// A sentence, without the password.
pub fn connection(text: &str) -> Result<tokio_postgres::Config, String> {
    let config: tokio_postgres::Config = text.parse().map_err(|error| {
        format!("not a PostgreSQL URL ({error}); write postgres://user:password@host:5432/database")
    })?;
    // Else the rest of a password is taken for a host, looked up, and told to logs and clients.
    if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
        return Err("the URL has more than one @; in a user or password write %40 for @, %2F for /, \
            %3A for :, %3F for ? and %25 for %"
            .to_owned());
    }
    Ok(config)
}

/// Where a connection leads, as errors name it.
pub fn destination(config: &tokio_postgres::Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(host)) => format!("{host}:{port}"),
        Some(Host::Unix(folder)) => format!("{}/.s.PGSQL.{port}", folder.display()),
        None => "the default host".to_owned(),
    }
}

/// One server from a connection URL. Connect time-out 5 s unless the URL has `connect_timeout`.
///
/// # Errors
/// A sentence, without the password.
pub fn server_settings(text: &str) -> Result<ServerSettings, String> {
    let config = connection(text)?;
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
