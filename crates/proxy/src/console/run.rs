//! Carries out what changes something.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::command::Command;
use super::{Complaint, Request};
use crate::PoolIndex;
use crate::login::Login;

/// How long PAUSE waits for the servers to come back.
const PAUSE_LIMIT: Duration = Duration::from_secs(30);
/// How long RELOAD may take.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

/// Carries out `command`; its tag.
pub(super) async fn run(login: &Login, command: &Command) -> Result<&'static str, Complaint> {
    match command {
        Command::Reload => reload(login).await,
        Command::Pause(name) => {
            let pools = pools(login, name.as_deref())?;
            pools.iter().for_each(|pool| login.workers.pause(*pool, true));
            login.event("pause", name.as_deref().unwrap_or("all"));
            returned(login, &pools).await
        }
        Command::Resume(name) => {
            let pools = pools(login, name.as_deref())?;
            pools.iter().for_each(|pool| login.workers.pause(*pool, false));
            login.event("resume", name.as_deref().unwrap_or("all"));
            Ok("RESUME")
        }
        Command::KillClient(id) => {
            let there = login.workers.kill_client(*id);
            there
                .then_some("KILL_CLIENT")
                .ok_or_else(|| Complaint::missing(format!("there is no client {id}")))
        }
        Command::Revoke { pool, id } => {
            let pool = match pool {
                None => None,
                Some(name) => pools(login, Some(name))?.first().copied(),
            };
            if !login.workers.revoke(pool, id) {
                return Err(Complaint::missing(format!("there is no rewrite \"{id}\" in force")));
            }
            login.event("revoke", id);
            Ok("REVOKE")
        }
        Command::Shutdown { drain } => {
            ask(login, Request::Shutdown { drain: *drain })?;
            Ok("SHUTDOWN")
        }
        _ => Err(Complaint::new("XX000", "this command changes nothing")),
    }
}

fn pools(login: &Login, name: Option<&str>) -> Result<Vec<PoolIndex>, Complaint> {
    let settings = login.settings.read().clone();
    let Some(name) = name else {
        return Ok((0..settings.pools.len()).map(|at| PoolIndex(at as u16)).collect());
    };
    let found = settings.pool_named(name).map(|(index, _)| vec![index]);
    found.ok_or_else(|| Complaint::new("3D000", format!("there is no pool \"{name}\"")))
}

fn ask(login: &Login, request: Request) -> Result<(), Complaint> {
    let full = |_| Complaint::new("57P03", "the program does not take requests now; try again");
    login.requests.try_send(request).map_err(full)
}

async fn reload(login: &Login) -> Result<&'static str, Complaint> {
    let (answer, told) = oneshot::channel();
    ask(login, Request::Reload(answer))?;
    match tokio::time::timeout(RELOAD_LIMIT, told).await {
        Ok(Ok(Ok(_changes))) => Ok("RELOAD"),
        Ok(Ok(Err(problem))) => Err(Complaint::new("F0000", problem)),
        _ => Err(Complaint::new("57014", "the reload did not end in time; see the log")),
    }
}

/// Waits until no server of these pools is lent.
async fn returned(login: &Login, pools: &[PoolIndex]) -> Result<&'static str, Complaint> {
    let deadline = Instant::now() + PAUSE_LIMIT;
    loop {
        let lent: u32 = pools.iter().map(|pool| login.workers.lent(*pool).0).sum();
        if lent == 0 {
            return Ok("PAUSE");
        }
        if Instant::now() >= deadline {
            let seconds = PAUSE_LIMIT.as_secs();
            let text = format!("{lent} server(s) are still lent after {seconds} s; the pool stays paused");
            return Err(Complaint {
                hint: "SHOW CLIENTS names who has them; RESUME ends the pause.",
                ..Complaint::new("57014", text)
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
