//! What is known of each pool's servers: what they report, what they allow, why they could not be reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Login, server};
use crate::handover::{ConnectFault, NewServer, PoolIndex};
use crate::settings::PoolSettings;

/// How old a server's limits may be before the next new connection asks again.
const FACTS_KEPT: Duration = Duration::from_secs(300);
/// How long a failed attempt to reach a server answers for the clients behind it: the pause between attempts.
const FAULT_KEPT: Duration = Duration::from_millis(500);
/// What is left of `login_timeout` to say why, when the server cannot be reached.
const FAREWELL: Duration = Duration::from_millis(200);

type Parameters = Arc<Vec<(String, String)>>;

/// What a pool's servers said of themselves last.
#[derive(Default)]
pub(super) struct Known {
    parameters: Option<Parameters>,
    fault: Option<(Instant, ConnectFault)>,
    facts: Option<(Instant, stats::ServerFacts)>,
}

impl Login {
    /// The parameters of the pool's servers; opens one to ask when none is known yet. A fault that may pass is
    /// waited out for `acquire_timeout`, as by a client that waits for a server.
    pub(super) async fn server_parameters(
        &self,
        index: PoolIndex,
        pool: &PoolSettings,
    ) -> Result<Parameters, ConnectFault> {
        let login_timeout = self.settings.read().login_timeout.saturating_sub(FAREWELL);
        let patience = match pool.acquire_timeout {
            Duration::ZERO => login_timeout,
            some => some.min(login_timeout),
        };
        let deadline = Instant::now() + patience;
        loop {
            let asked = tokio::time::timeout_at(deadline.into(), self.ask_server(index, pool)).await;
            let fault = match asked {
                Ok(Ok(parameters)) => return Ok(parameters),
                Ok(Err(fault)) => fault,
                Err(_elapsed) => self.last_fault(index, pool, patience),
            };
            if fault.is_permanent() || Instant::now() + FAULT_KEPT >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(FAULT_KEPT).await;
        }
    }

    /// One attempt, whose outcome also answers for others.
    async fn ask_server(&self, index: PoolIndex, pool: &PoolSettings) -> Result<Parameters, ConnectFault> {
        let _first = self.asking[index.index()].lock().await;
        {
            let known = self.known[index.index()].lock();
            if let Some(parameters) = &known.parameters {
                return Ok(Arc::clone(parameters));
            }
            if let Some((at, fault)) = &known.fault
                && at.elapsed() < FAULT_KEPT
            {
                return Err(fault.clone());
            }
        }
        let result = server::connect(&pool.server, true).await;
        let mut known = self.known[index.index()].lock();
        match result {
            Ok(server) => {
                known.facts = server.facts.map(|facts| (Instant::now(), facts));
                let parameters = Arc::new(server.parameters);
                known.parameters = Some(Arc::clone(&parameters));
                Ok(parameters)
            }
            Err(fault) => {
                known.fault = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    /// Why there was no answer in time.
    fn last_fault(&self, index: PoolIndex, pool: &PoolSettings, patience: Duration) -> ConnectFault {
        let known = self.known[index.index()].lock().fault.clone();
        known.map(|(_, fault)| fault).unwrap_or_else(|| {
            let address = &pool.server.address;
            let seconds = patience.as_secs_f64();
            let text = format!("could not connect to PostgreSQL at {address}: no answer within {seconds} s");
            ConnectFault::new(b"08001", text)
        })
    }

    /// Opens a server for a worker, and notes what it says of itself.
    pub(crate) async fn open(&self, index: PoolIndex) -> Result<NewServer, ConnectFault> {
        let settings = Arc::clone(&self.settings.read());
        let known = &self.known[index.index()];
        let asked = known.lock().facts.as_ref().is_some_and(|(at, _)| at.elapsed() < FACTS_KEPT);
        let server = server::connect(&settings.pools[index.index()].server, !asked).await?;
        let mut known = known.lock();
        known.parameters = Some(Arc::new(server.parameters.clone()));
        known.fault = None;
        if let Some(facts) = &server.facts {
            known.facts = Some((Instant::now(), facts.clone()));
        }
        Ok(server)
    }

    /// The limits of the PostgreSQL that allows the fewest connections.
    pub(crate) fn server_facts(&self) -> Option<stats::ServerFacts> {
        let known = self.known.iter().filter_map(|known| known.lock().facts.clone());
        known.map(|(_, facts)| facts).min_by_key(|facts| facts.max_connections)
    }
}
