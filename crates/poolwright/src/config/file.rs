//! The file as serde sees it, and its way into `Settings`.

use std::collections::BTreeMap;
use std::ops::Range;

use proxy::settings::{AuthMethod, Mode, PoolSettings, Rewrite, UserSettings};
use serde::Deserialize;
use toml::Spanned;

use super::{Config, LISTEN, METRICS_LISTEN, listen_address, settings, units, url};

/// A message and its place in the text.
pub(super) struct Problem {
    pub message: String,
    pub help: Option<String>,
    pub span: Option<Range<usize>>,
}

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
    #[serde(default)]
    admins: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    viewers: BTreeMap<String, Spanned<String>>,
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
    statements_per_client: Option<usize>,
    statements_per_server: Option<usize>,
    #[serde(default)]
    users: BTreeMap<String, Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRewrite {
    pool: Spanned<String>,
    id: String,
    original: String,
    replacement: String,
    rows: Spanned<String>,
    #[serde(default)]
    parameter_types: Vec<u32>,
}

fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Problem {
    Problem { message: message.into(), help: None, span: Some(value.span()) }
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
        settings.client_max = positive(max)?;
    }
    if let Some(workers) = &file.workers {
        if !(1..=64).contains(workers.as_ref()) {
            return Err(at(workers, "workers must be between 1 and 64"));
        }
        settings.workers = *workers.as_ref();
    }
    duration(&file.login_timeout, &mut settings.login_timeout)?;
    if let Some(method) = &file.auth.method {
        settings.auth = match method.as_ref().as_str() {
            "scram" | "scram-sha-256" => AuthMethod::Scram,
            "md5" => AuthMethod::Md5,
            "trust" => AuthMethod::Trust,
            _ => return Err(at(method, "method must be \"scram-sha-256\", \"md5\" or \"trust\"")),
        };
    }
    settings.console.admins = users(&file.console.admins, variable)?;
    settings.console.viewers = users(&file.console.viewers, variable)?;
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

fn positive(value: &Spanned<u32>) -> Result<u32, Problem> {
    if *value.as_ref() == 0 { Err(at(value, "must be at least 1")) } else { Ok(*value.as_ref()) }
}

fn duration(value: &Option<Spanned<String>>, target: &mut std::time::Duration) -> Result<(), Problem> {
    if let Some(value) = value {
        *target = units::duration(value.as_ref()).map_err(|message| at(value, message))?;
    }
    Ok(())
}

fn pool(name: &str, whole: &Spanned<Pool>, variable: Variable<'_>) -> Result<PoolSettings, Problem> {
    let file = whole.as_ref();
    if matches!(name, "poolwright" | "pgbouncer") {
        return Err(at(whole, format!("the pool name \"{name}\" is the console's")));
    }
    let address =
        units::expand(file.server.as_ref(), variable).map_err(|message| at(&file.server, message))?;
    let server = url::server_settings(&address).map_err(|message| at(&file.server, message))?;
    let mut pool = PoolSettings::new(name, server);
    if let Some(max) = &file.max {
        pool.max = positive(max)?;
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
    duration(&file.connect_timeout, &mut pool.server.connect_timeout)?;
    duration(&file.lifetime, &mut pool.lifetime)?;
    duration(&file.idle_in_transaction_timeout, &mut pool.idle_in_transaction_timeout)?;
    if let Some(mode) = &file.mode {
        pool.mode = match mode.as_ref().as_str() {
            "transaction" => Mode::Transaction,
            "session" => Mode::Session,
            _ => return Err(at(mode, "mode must be \"transaction\" or \"session\"")),
        };
    }
    pool.statements_per_client = file.statements_per_client.unwrap_or(pool.statements_per_client);
    pool.statements_per_server = file.statements_per_server.unwrap_or(pool.statements_per_server);
    pool.users = users(&file.users, variable)?;
    Ok(pool)
}

fn users(
    file: &BTreeMap<String, Spanned<String>>,
    variable: Variable<'_>,
) -> Result<Vec<UserSettings>, Problem> {
    let user = |(name, password): (&String, &Spanned<String>)| {
        let password = units::expand(password.as_ref(), variable).map_err(|message| at(password, message))?;
        Ok(UserSettings { name: name.clone(), password })
    };
    file.iter().map(user).collect()
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
    pool.rewrites.push(Rewrite {
        id: rewrite.id.clone(),
        original: rewrite.original.clone(),
        replacement: rewrite.replacement.clone(),
        same_rows,
        parameter_types: rewrite.parameter_types.clone(),
    });
    Ok(())
}

/// Serde's message; for an unknown key the name that was probably meant.
fn from_toml(error: &toml::de::Error) -> Problem {
    let message = error.message().trim().to_owned();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let help = message
        .starts_with("unknown field")
        .then(|| {
            let unknown = quoted.next()?;
            let nearest = quoted.min_by_key(|known| distance(unknown, known))?;
            (distance(unknown, nearest) <= 3).then(|| format!("did you mean \"{nearest}\"?"))
        })
        .flatten();
    let message = if message.starts_with("unknown field") {
        format!("unknown key {}", message.split('`').nth(1).unwrap_or_default())
    } else {
        message
    };
    Problem { message, help, span: error.span() }
}

/// Levenshtein's, for short names.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}
