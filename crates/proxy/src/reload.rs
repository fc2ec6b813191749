//! What a reload would change, and what of it needs a restart.

use crate::console::config_rows;
use crate::settings::Settings;

/// Differences between the settings in force and others, key by key, as `pool.app.max: 15 -> 20`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Take effect at once; no client is dropped.
    pub live: Vec<String>,
    /// Need a restart. A reload that has any changes nothing.
    pub restart: Vec<String>,
}

impl Differences {
    /// From `old` to `new`. Passwords are compared, but not shown.
    pub(crate) fn between(old: &Settings, new: &Settings) -> Self {
        let mut found = Self::default();
        let names =
            |settings: &Settings| settings.pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
        let (before, after) = (names(old), names(new));
        if before != after {
            found.restart.push(format!("the pools: {} -> {}", before.join(", "), after.join(", ")));
        }
        let (before, after) = (config_rows(old), config_rows(new));
        for (key, value, changeable) in &after {
            let Some((_, was, _)) = before.iter().find(|(known, ..)| known == key) else { continue };
            if was != value {
                let list = if *changeable { &mut found.live } else { &mut found.restart };
                list.push(format!("{key}: {was} -> {value}"));
            }
        }
        if old.console != new.console {
            found.add_unseen("console");
        }
        for (old, new) in old.pools.iter().zip(&new.pools).filter(|(old, new)| old.name == new.name) {
            let key = |name: &str| format!("pool.{}.{name}", new.name);
            if old.server.password != new.server.password {
                found.live.push(format!("{}: another password", key("server")));
            }
            if old.users != new.users {
                found.add_unseen(&key("users"));
            }
            if old.rewrites != new.rewrites {
                let (was, now) = (old.rewrites.len(), new.rewrites.len());
                found.live.push(format!("rewrites of pool {}: {was} -> {now}", new.name));
            }
        }
        found
    }

    /// A change of secrets alone; where names changed, that was said already.
    fn add_unseen(&mut self, key: &str) {
        if !self.live.iter().any(|told| told.starts_with(key)) {
            self.live.push(format!("{key}: other passwords"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{
        AuthMethod, ConsoleSettings, ListenAddress, Mode, PoolSettings, Rewrite, ServerAddress,
        ServerSettings, UserSettings,
    };

    fn settings() -> Settings {
        let server = ServerSettings {
            address: ServerAddress::Tcp { host: "db".to_owned(), port: 5432 },
            database: "d".to_owned(),
            user: "u".to_owned(),
            password: "old secret".to_owned(),
            connect_timeout: Duration::from_secs(5),
        };
        Settings {
            listen: vec![ListenAddress::Tcp(([127, 0, 0, 1], 6432).into())],
            client_max: 100,
            workers: 2,
            auth: AuthMethod::Scram,
            login_timeout: Duration::from_secs(15),
            console: ConsoleSettings::default(),
            pools: vec![PoolSettings::new("app", server)],
        }
    }

    fn difference(change: impl FnOnce(&mut Settings)) -> (Vec<String>, Vec<String>) {
        let mut new = settings();
        change(&mut new);
        let found = Differences::between(&settings(), &new);
        (found.live, found.restart)
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(difference(|_| {}), (vec![], vec![]));
    }

    #[test]
    fn what_needs_a_restart_is_named_whole() {
        let (live, restart) = difference(|new| {
            new.listen = vec![ListenAddress::Unix("/run/x".into())];
            new.workers = 4;
            new.pools[0].mode = Mode::Session;
            new.pools[0].server.database = "e".to_owned();
            new.pools[0].max = 20;
        });
        assert_eq!(live, ["pool.app.max: 15 -> 20"]);
        let all = [
            "listen: 127.0.0.1:6432 -> /run/x",
            "workers: 2 -> 4",
            "pool.app.server: postgres://u@db:5432/d -> postgres://u@db:5432/e",
            "pool.app.mode: transaction -> session",
        ];
        assert_eq!(restart, all);
        let (_, restart) = difference(|new| new.pools[0].name = "other".to_owned());
        assert_eq!(restart, ["the pools: app -> other"]);
    }

    #[test]
    fn what_changes_live_is_named_without_secrets() {
        let user = |password: &str| UserSettings { name: "guest".to_owned(), password: password.to_owned() };
        let (live, restart) = difference(|new| {
            new.client_max = 7;
            new.login_timeout = Duration::from_millis(1500);
            new.auth = AuthMethod::Md5;
            new.console.viewers = vec![user("hidden")];
            new.pools[0].idle_timeout = Duration::from_secs(90);
            new.pools[0].server.password = "new secret".to_owned();
            new.pools[0].users = vec![user("hidden")];
            new.pools[0].rewrites = vec![Rewrite {
                id: "q".to_owned(),
                original: "SELECT 1".to_owned(),
                replacement: "SELECT 2".to_owned(),
                same_rows: false,
                parameter_types: Vec::new(),
            }];
        });
        let all = [
            "client_max: 100 -> 7",
            "login_timeout: 15s -> 1500ms",
            "auth.method: scram-sha-256 -> md5",
            "console.viewers:  -> guest",
            "pool.app.idle_timeout: 30s -> 90s",
            "pool.app.users:  -> guest",
            "pool.app.server: another password",
            "rewrites of pool app: 0 -> 1",
        ];
        assert_eq!((live, restart), (all.map(str::to_owned).to_vec(), vec![]));
    }

    #[test]
    fn a_change_of_a_password_alone_is_seen() {
        let mut old = settings();
        old.pools[0].users = vec![UserSettings { name: "a".to_owned(), password: "1".to_owned() }];
        let mut new = old.clone();
        new.pools[0].users[0].password = "2".to_owned();
        assert_eq!(Differences::between(&old, &new).live, ["pool.app.users: other passwords"]);
    }
}
