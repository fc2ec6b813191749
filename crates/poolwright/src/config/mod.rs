//! The configuration file: TOML with human units and `${VAR}`, checked into `proxy::Settings`.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, NamedSource, SourceSpan};
use proxy::Settings;
use proxy::settings::{AuthMethod, ConsoleSettings, ListenAddress};
use thiserror::Error;

mod file;
mod masked;
mod problem;
mod units;
mod url;

pub use url::{connection, destination, server_settings};

/// Clients are awaited here unless the file says otherwise.
pub const LISTEN: &str = "127.0.0.1:6432";
/// Metrics are served here unless the file says otherwise.
pub const METRICS_LISTEN: &str = "127.0.0.1:9127";

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file, or a URL, as the program runs it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data plane's.
    pub settings: Settings,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// What is wrong with a configuration, with its place in the file.
#[derive(Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct ConfigError {
    message: String,
    #[help]
    help: Option<String>,
    #[source_code]
    source_code: Option<NamedSource<String>>,
    #[label("here")]
    span: Option<SourceSpan>,
}

impl ConfigError {
    fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, source_code: None, span: None }
    }
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read, is no TOML, has an unknown key or a bad value.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path).map_err(|why| unreadable(path, &why))?;
    parse(&text, &path.display().to_string(), &|name| std::env::var(name).ok())
}

/// What is said of a file that cannot be read; a URL that was taken for one keeps its password to itself.
fn unreadable(path: &Path, why: &str) -> ConfigError {
    let mut name = path.display().to_string();
    let key = "password=";
    let words = name.find(key);
    if let Some(at) = words {
        name.truncate(at + key.len());
        name.push('…');
    }
    let help = (words.is_some() || name.contains("://")).then(|| {
        "a file is wanted here; poolwright serve takes postgres://user:password@host:5432/database too"
            .to_owned()
    });
    ConfigError { help, ..ConfigError::plain(format!("cannot read {}: {why}", masked::text(&name))) }
}

/// The file's text, or a sentence.
fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if file.metadata().is_ok_and(|about| about.is_dir()) {
        return Err("it is a directory; name the file in it".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MB; is it a configuration?", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        format!("it is no text: byte {} is not UTF-8", good + 1)
    })
}

/// As `load`, from text; `variable` answers for `${VAR}`.
///
/// # Errors
/// As `load`.
pub fn parse(
    text: &str,
    name: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    file::parse(text, variable).map_err(|problem| ConfigError {
        // Where there is no place to point at, the message names the file.
        message: if problem.span.is_some() {
            problem.message
        } else {
            format!("{name}: {}", problem.message)
        },
        help: problem.help,
        source_code: Some(NamedSource::new(name, masked::text(text)).with_language("toml")),
        span: problem.span.map(|span| (span.start, span.len()).into()),
    })
}

/// The configuration of `serve postgres://…`: one pool, named as the URL's database.
///
/// # Errors
/// When the URL cannot be read, or has no password (clients log in by SCRAM with it).
pub fn from_url(text: &str) -> Result<Config, ConfigError> {
    let server = server_settings(text).map_err(ConfigError::plain)?;
    if server.password.is_empty() {
        return Err(ConfigError {
            help: Some("give one, or write a file with [auth] method and users".to_owned()),
            ..ConfigError::plain("the URL has no password, and clients log in with it by SCRAM-SHA-256")
        });
    }
    let pool = proxy::settings::PoolSettings::new(server.database.clone(), server);
    Ok(Config {
        settings: settings(vec![listen_address(LISTEN)?], vec![pool]),
        metrics: METRICS_LISTEN.parse().ok(),
    })
}

fn settings(listen: Vec<ListenAddress>, pools: Vec<proxy::settings::PoolSettings>) -> Settings {
    Settings {
        listen,
        client_max: 1_000,
        workers: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
        auth: AuthMethod::Scram,
        login_timeout: std::time::Duration::from_secs(15),
        console: ConsoleSettings::default(),
        pools,
    }
}

/// `HOST:PORT`, or a directory (the socket file is `.s.PGSQL.6432` in it) that begins with `/`.
///
/// # Errors
/// When it is neither.
pub fn listen_address(text: &str) -> Result<ListenAddress, ConfigError> {
    if text.starts_with('/') {
        let path = PathBuf::from(text);
        let is_file = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".s.PGSQL."));
        return Ok(ListenAddress::Unix(if is_file { path } else { path.join(".s.PGSQL.6432") }));
    }
    let text = text.replacen("localhost", "127.0.0.1", 1);
    text.parse().map(ListenAddress::Tcp).map_err(|_| {
        ConfigError::plain(format!(
            "\"{text}\" is no address: write IP:PORT, or a directory for a Unix socket"
        ))
    })
}

#[cfg(test)]
mod tests;
