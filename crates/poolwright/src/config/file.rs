//! The file as serde sees it, and its way into `Settings`.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy::settings::{AuthMethod, Mode, PoolSettings, Rewrite, UserSettings};
use serde::Deserialize;
use toml::Spanned;

use super::problem::{Problem, at, from_toml};
use super::{Config, LISTEN, METRICS_LISTEN, listen_address, settings, units, url};

/// Most clients, servers of a pool, and prepared statements of a client or server, that may be asked for.
const CLIENTS_MAX: u32 = 1_000_000;
const SERVERS_MAX: u32 = 10_000;
const STATEMENTS_MAX: u32 = 100_000;
/// The longest time-out.
const DURATION_MAX: Duration = Duration::from_secs(365 * 86_400);
/// As long as a database's name may be in PostgreSQL (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Spanned<Listen>>,
    client_max: Option<Spanned<u32>>,
    workers: Option<Spanned<usize>>,
    login_timeout: Option<Spanned<String>>,
    #[serde(default)]
    auth: Auth,
    #[serde(default)]
    pool: BTreeMap<String, Spanned<Pool>>,
    #[serde(default)]
    rewrite: Vec<Spanned<FileRewrite>>,
    #[serde(default)]
    metrics: Metrics,
    #[serde(default)]
    console: Console,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Listen {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Auth {
    method: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Metrics {
    listen: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Console {
    admins: Option<Spanned<Users>>,
    viewers: Option<Spanned<Users>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    server: Spanned<String>,
    max: Option<Spanned<u32>>,
    min: Option<Spanned<u32>>,
    idle_timeout: Option<Spanned<String>>,
    query_timeout: Option<Spanned<String>>,
    acquire_timeout: Option<Spanned<String>>,
    connect_timeout: Option<Spanned<String>>,
    lifetime: Option<Spanned<String>>,
    idle_in_transaction_timeout: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    statements_per_client: Option<Spanned<u32>>,
    statements_per_server: Option<Spanned<u32>>,
    users: Option<Spanned<Users>>,
}

type Users = BTreeMap<String, Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRewrite {
    pool: Spanned<String>,
    id: Spanned<String>,
    original: String,
    replacement: String,
    rows: Spanned<String>,
    #[serde(default)]
    parameter_types: Vec<u32>,
}

type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn parse(text: &str, variable: Variable<'_>) -> Result<Config, Problem> {
    let file: File = toml::from_str(text).map_err(|error| from_toml(&error))?;
    let mut pools = Vec::new();
    for (name, pool) in &file.pool {
        pools.push(self::pool(name, pool, variable)?);
    }
    if pools.is_empty() {
        return Err(Problem {
            message: "no pool: the file has no [pool.NAME]".to_owned(),
            help: Some("[pool.app]\nserver = \"postgres://user:password@host:5432/app\"".to_owned()),
            span: None,
        });
    }
    for rewrite in &file.rewrite {
        add_rewrite(rewrite.as_ref(), &mut pools)?;
    }
    let addresses = match &file.listen {
        None => vec![LISTEN.to_owned()],
        Some(listen) => match listen.as_ref() {
            Listen::One(address) => vec![address.clone()],
            Listen::Several(addresses) => addresses.clone(),
        },
    };
    if addresses.is_empty() {
        return Err(Problem {
            message: "listen is an empty list: nobody could connect".to_owned(),
            help: None,
            span: file.listen.as_ref().map(Spanned::span),
        });
    }
    let mut listen = Vec::new();
    for address in &addresses {
        listen.push(listen_address(address).map_err(|error| Problem {
            message: error.message,
            help: None,
            span: file.listen.as_ref().map(Spanned::span),
        })?);
    }
    let mut settings = settings(listen, pools);
    if let Some(max) = &file.client_max {
        settings.client_max = number(max, 1, CLIENTS_MAX)?;
    }
    if let Some(workers) = &file.workers {
        if !(1..=64).contains(workers.as_ref()) {
            return Err(at(workers, "workers must be between 1 and 64"));
        }
        settings.workers = *workers.as_ref();
    }
    span(&file.login_timeout, &mut settings.login_timeout)?;
    if let Some(method) = &file.auth.method {
        settings.auth = match method.as_ref().as_str() {
            "scram" | "scram-sha-256" => AuthMethod::Scram,
            "md5" => AuthMethod::Md5,
            "trust" => AuthMethod::Trust,
            _ => return Err(at(method, "method must be \"scram-sha-256\", \"md5\" or \"trust\"")),
        };
    }
    for (pool, written) in settings.pools.iter().zip(file.pool.values()) {
        if settings.auth != AuthMethod::Trust && pool.users.is_empty() && pool.server.password.is_empty() {
            let text = "the URL has no password, and clients log in with it";
            let help = Some("give one, or list [pool.NAME.users], or set [auth] method".to_owned());
            return Err(Problem { help, ..at(&written.as_ref().server, text) });
        }
    }
    settings.console.admins = users(file.console.admins.as_ref(), variable)?;
    settings.console.viewers = users(file.console.viewers.as_ref(), variable)?;
    let metrics = match &file.metrics.listen {
        None => METRICS_LISTEN.parse().ok(),
        Some(text) if text.as_ref() == "off" => None,
        Some(text) => match text.as_ref().parse() {
            Ok(address) => Some(address),
            Err(_) => return Err(at(text, "write IP:PORT, or \"off\"")),
        },
    };
    Ok(Config { settings, metrics })
}

fn number(value: &Spanned<u32>, least: u32, most: u32) -> Result<u32, Problem> {
    let number = *value.as_ref();
    if number < least {
        Err(at(value, format!("must be at least {least}")))
    } else if number > most {
        Err(at(value, format!("must be at most {most}")))
    } else {
        Ok(number)
    }
}

fn duration(value: &Option<Spanned<String>>, target: &mut Duration) -> Result<(), Problem> {
    if let Some(value) = value {
        *target = units::duration(value.as_ref()).map_err(|message| at(value, message))?;
        if *target > DURATION_MAX {
            return Err(at(value, "must be at most \"365d\""));
        }
    }
    Ok(())
}

/// As `duration`, where none cannot be meant.
fn span(value: &Option<Spanned<String>>, target: &mut Duration) -> Result<(), Problem> {
    duration(value, target)?;
    match value {
        Some(value) if target.is_zero() => Err(at(value, "must be longer than 0")),
        _ => Ok(()),
    }
}

fn pool(name: &str, whole: &Spanned<Pool>, variable: Variable<'_>) -> Result<PoolSettings, Problem> {
    let file = whole.as_ref();
    if matches!(name, "poolwright" | "pgbouncer") {
        return Err(at(whole, format!("the pool name \"{name}\" is the console's")));
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let text = format!("a pool's name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
        return Err(at(whole, text));
    }
    let address =
        units::expand(file.server.as_ref(), variable).map_err(|message| at(&file.server, message))?;
    let server = url::server_settings(&address).map_err(|message| at(&file.server, message))?;
    let mut pool = PoolSettings::new(name, server);
    if let Some(max) = &file.max {
        pool.max = number(max, 1, SERVERS_MAX)?;
        pool.min = pool.min.min(pool.max);
    }
    if let Some(min) = &file.min {
        pool.min = *min.as_ref();
        if pool.min > pool.max {
            return Err(at(min, format!("min is {}, above max, which is {}", pool.min, pool.max)));
        }
    }
    duration(&file.idle_timeout, &mut pool.idle_timeout)?;
    duration(&file.query_timeout, &mut pool.query_timeout)?;
    duration(&file.acquire_timeout, &mut pool.acquire_timeout)?;
    span(&file.connect_timeout, &mut pool.server.connect_timeout)?;
    duration(&file.lifetime, &mut pool.lifetime)?;
    duration(&file.idle_in_transaction_timeout, &mut pool.idle_in_transaction_timeout)?;
    if let Some(mode) = &file.mode {
        pool.mode = match mode.as_ref().as_str() {
            "transaction" => Mode::Transaction,
            "session" => Mode::Session,
            _ => return Err(at(mode, "mode must be \"transaction\" or \"session\"")),
        };
    }
    if let Some(limit) = &file.statements_per_client {
        pool.statements_per_client = number(limit, 1, STATEMENTS_MAX)? as usize;
    }
    if let Some(limit) = &file.statements_per_server {
        pool.statements_per_server = number(limit, 1, STATEMENTS_MAX)? as usize;
    }
    pool.users = users(file.users.as_ref(), variable)?;
    Ok(pool)
}

/// Leaving the list out means something else than an empty one, which nobody can mean.
fn users(file: Option<&Spanned<Users>>, variable: Variable<'_>) -> Result<Vec<UserSettings>, Problem> {
    let Some(file) = file else { return Ok(Vec::new()) };
    if file.as_ref().is_empty() {
        let help = Some("leave it out, or write NAME = \"password\"".to_owned());
        return Err(Problem { help, ..at(file, "an empty list of users: nobody could log in") });
    }
    let user = |(name, text): (&String, &Spanned<String>)| {
        let password = units::expand(text.as_ref(), variable).map_err(|message| at(text, message))?;
        if password.is_empty() {
            return Err(at(text, format!("user \"{name}\" has an empty password, which never logs in")));
        }
        Ok(UserSettings { name: name.clone(), password })
    };
    file.as_ref().iter().map(user).collect()
}

fn add_rewrite(rewrite: &FileRewrite, pools: &mut [PoolSettings]) -> Result<(), Problem> {
    let same_rows = match rewrite.rows.as_ref().as_str() {
        "same" => true,
        "different" => false,
        _ => return Err(at(&rewrite.rows, "rows must be \"same\" or \"different\"")),
    };
    let Some(pool) = pools.iter_mut().find(|pool| pool.name == *rewrite.pool.as_ref()) else {
        return Err(at(&rewrite.pool, format!("there is no pool \"{}\"", rewrite.pool.as_ref())));
    };
    let id = rewrite.id.as_ref();
    if id.is_empty() || pool.rewrites.iter().any(|other| other.id == *id) {
        return Err(at(&rewrite.id, format!("pool \"{}\" needs rewrites of different ids", pool.name)));
    }
    pool.rewrites.push(Rewrite {
        id: id.clone(),
        original: rewrite.original.clone(),
        replacement: rewrite.replacement.clone(),
        same_rows,
        parameter_types: rewrite.parameter_types.clone(),
    });
    Ok(())
}

/// Keys that the parser takes in a table, from what it says to one it does not know. `text` is the file up to there.
#[cfg(test)]
pub(super) fn known_keys(text: &str) -> Vec<String> {
    let error = toml::from_str::<File>(&format!("{text}\nnobody_has_this_key = 1\n")).err();
    let message = error.map(|error| error.message().to_owned()).unwrap_or_default();
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}
