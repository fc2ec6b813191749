//! Open-loop load: operations start at times drawn beforehand, whatever the answers take. An operation never waits
//! for a connection of the generator, since free ones are opened ahead. Latency counts from the intended time.

mod connection;
mod draw;
mod measure;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

pub use connection::{Answer, Connection, Failure, Target};
pub use draw::{Draws, schedule};
pub use measure::{Histogram, LoadResult, OperationResult, Tick};

use crate::workload::{Operation, Statement, Workload};
use measure::Measure;

/// Free connections that the generator keeps ahead of the arrivals.
const AHEAD: usize = 32;
/// How long answers are waited for after the last arrival.
const DRAIN: Duration = Duration::from_secs(5);

/// One run.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where to, as `postgres://…`.
    pub url: String,
    /// What arrives.
    pub workload: Arc<Workload>,
    /// Kinds of findings that the application has repaired: those operations run their `after` statements.
    pub fixed: BTreeSet<String>,
    /// Operations a second.
    pub rate_ops: f64,
    /// How long operations arrive.
    pub duration: Duration,
    /// Draws arrivals and parameters.
    pub seed: u64,
    /// Number of the run in a series with one seed: arrivals are those of the others, parameters are drawn anew, for
    /// the same values again within a minute would be repeated reads.
    pub round: u64,
    /// Most connections of the generator; an arrival beyond them counts as an error.
    pub connections_max: usize,
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The URL is none.
    #[error("{0}")]
    Url(String),
    /// The first connection failed.
    #[error("cannot connect for the load: {0}")]
    Connect(String),
    /// Stopped from outside.
    #[error("the load was stopped")]
    Stopped,
}

/// Shared by the dispatcher and the operations under way.
struct Run {
    plan: LoadPlan,
    target: Target,
    free: parking::Stack,
    measure: Measure,
    started: Instant,
    /// Set once: operations still under way end at once, and their connections with them.
    over: tokio::sync::watch::Sender<bool>,
    open: AtomicU64,
}

/// The free connections. A plain mutex: held for a push or a pop.
mod parking {
    use super::Connection;
    use std::sync::{Mutex, PoisonError};

    #[derive(Default)]
    pub struct Stack(Mutex<Vec<Connection>>);

    impl Stack {
        pub fn push(&self, connection: Connection) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        pub fn pop(&self) -> Option<Connection> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
        }
        pub fn len(&self) -> usize {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
        }
    }
}

/// Runs the load to its end.
///
/// # Errors
/// See [`LoadError`]; errors of single operations are counted in the result.
pub async fn run(plan: LoadPlan) -> Result<LoadResult, LoadError> {
    let target = Target::parse(&plan.url).map_err(LoadError::Url)?;
    let arrivals = schedule(&plan.workload, plan.rate_ops, plan.duration.as_secs_f64(), plan.seed);
    let names = plan.workload.operations.iter().map(|o| o.name.clone()).collect();
    let run = Arc::new(Run {
        measure: Measure::new(names, plan.duration),
        target,
        free: parking::Stack::default(),
        // Moved to the moment the connections are open.
        started: Instant::now(),
        over: tokio::sync::watch::Sender::new(false),
        open: AtomicU64::new(0),
        plan,
    });
    open_ahead(&run, AHEAD).await?;
    let run = match Arc::try_unwrap(run) {
        Ok(fresh) => Arc::new(Run { started: Instant::now() + Duration::from_millis(50), ..fresh }),
        Err(shared) => shared,
    };
    let _stop = StopOnDrop(Arc::clone(&run));
    let grower = tokio::spawn(grow(Arc::clone(&run)));
    let sampler = tokio::spawn(sample(Arc::clone(&run)));
    let offered = arrivals.len();
    dispatch(Arc::clone(&run), arrivals).await?;
    drain(&run, offered as u64).await;
    run.over.send_replace(true);
    let _ = grower.await;
    let _ = sampler.await;
    Ok(run.measure.result(&run.plan, offered as u64))
}

async fn open_ahead(run: &Arc<Run>, count: usize) -> Result<(), LoadError> {
    for _ in 0..count.min(run.plan.connections_max) {
        let connection = Connection::open(&run.target).await.map_err(|e| LoadError::Connect(describe(&e)))?;
        run.open.fetch_add(1, Ordering::Relaxed);
        run.free.push(connection);
    }
    Ok(())
}

/// Keeps free connections ahead of the arrivals, off their path.
async fn grow(run: Arc<Run>) {
    while !*run.over.borrow() {
        let room = (run.open.load(Ordering::Relaxed) as usize) < run.plan.connections_max;
        if run.free.len() < AHEAD && room {
            match Connection::open(&run.target).await {
                Ok(connection) => {
                    run.open.fetch_add(1, Ordering::Relaxed);
                    run.free.push(connection);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        } else {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Notes the backlog ten times a second.
async fn sample(run: Arc<Run>) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    while !*run.over.borrow() {
        tick.tick().await;
        run.measure.note_backlog(run.started);
    }
}

/// Starts each operation at its time, from a thread of its own that sleeps exactly.
async fn dispatch(run: Arc<Run>, arrivals: Vec<(f64, usize)>) -> Result<(), LoadError> {
    let handle = tokio::runtime::Handle::current();
    let (done, wait) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("load arrivals".into())
        .spawn(move || {
            raise_priority();
            for (number, (at, operation)) in arrivals.into_iter().enumerate() {
                let intended = run.started + Duration::from_secs_f64(at);
                std::thread::sleep(intended.saturating_duration_since(Instant::now()));
                if *run.over.borrow() {
                    return;
                }
                run.measure.arrived();
                handle.spawn(until_over(Arc::clone(&run), operation, number as u64, intended));
            }
            let _ = done.send(());
        })
        .map_err(|e| LoadError::Connect(e.to_string()))?;
    wait.await.map_err(|_| LoadError::Stopped)
}

/// Ends dispatcher, grower, sampler and what is under way, when the run is over or its future is dropped.
struct StopOnDrop(Arc<Run>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.over.send_replace(true);
    }
}

/// The generator goes before what it loads, where it may; where it may not, its lateness shows it.
#[allow(unsafe_code)]
fn raise_priority() {
    // SAFETY: setpriority takes plain numbers; 0 means the calling thread on Linux. A refusal is harmless.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

async fn drain(run: &Run, offered: u64) {
    let until = Instant::now() + DRAIN;
    while run.measure.answered() < offered && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One operation, to its end or to that of the run: what is still under way then would spoil the next run.
async fn until_over(run: Arc<Run>, index: usize, number: u64, intended: Instant) {
    let mut over = run.over.subscribe();
    tokio::select! {
        () = operate(Arc::clone(&run), index, number, intended) => {}
        _ended = over.wait_for(|over| *over) => {}
    }
}

/// One operation, from its intended time to its last answer.
async fn operate(run: Arc<Run>, index: usize, number: u64, intended: Instant) {
    let operation = &run.plan.workload.operations[index];
    let connection = match run.free.pop() {
        Some(connection) => connection,
        None if run.open.load(Ordering::Relaxed) as usize >= run.plan.connections_max => {
            return run.measure.failed(index, intended, "the generator has no connection left");
        }
        None => match Connection::open(&run.target).await {
            Ok(connection) => {
                run.open.fetch_add(1, Ordering::Relaxed);
                connection
            }
            Err(error) => return run.measure.failed(index, intended, &describe(&error)),
        },
    };
    run.measure.sent(intended);
    let statements = statements_of(operation, &run.plan.fixed);
    let seed = run.plan.seed.wrapping_add(run.plan.round.rotate_right(16))
        ^ (number.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (connection, outcome) = perform(&run, connection, statements, seed).await;
    match connection {
        Some(connection) => run.free.push(connection),
        None => drop(run.open.fetch_sub(1, Ordering::Relaxed)),
    }
    match outcome {
        Ok(()) => run.measure.completed(index, intended),
        Err(message) => run.measure.failed(index, intended, &message),
    }
}

/// The statements an operation runs: those of `after` once the fault they fix has been reported and accepted.
#[must_use]
pub fn statements_of<'a>(operation: &'a Operation, fixed: &BTreeSet<String>) -> &'a [Statement] {
    let repaired = !operation.after.is_empty()
        && operation.after.iter().all(|s| s.fixes.as_ref().is_some_and(|kind| fixed.contains(kind)));
    if repaired { &operation.after } else { &operation.statements }
}

async fn perform(
    run: &Run,
    mut connection: Connection,
    statements: &[Statement],
    seed: u64,
) -> (Option<Connection>, Result<(), String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows: Vec<Option<String>> = Vec::new();
    for (position, statement) in statements.iter().enumerate() {
        let wanted = statements.get(position + 1).and_then(column_needed);
        let mut draws = Draws::new(&run.plan.workload, statement);
        let times = if statement.for_each_row { rows.len() } else { statement.repeat as usize };
        let mut returned = Vec::new();
        for row in 0..times {
            let params = draws.next(&mut random, &rows, row);
            let sent = Instant::now();
            match connection.run(&statement.sql, &params, wanted).await {
                Ok(mut answer) => {
                    run.measure.query(sent);
                    returned.append(&mut answer.column);
                }
                Err(Failure::Server(state, message)) => {
                    return (Some(connection), Err(format!("{state}: {message}")));
                }
                Err(Failure::Connection(error)) => return (None, Err(error.to_string())),
            }
        }
        rows = returned;
    }
    (Some(connection), Ok(()))
}

/// The column of its predecessor that a statement uses; rows are counted by column 0 when it only repeats.
fn column_needed(statement: &Statement) -> Option<usize> {
    statement.params.iter().find_map(|p| p.column).or(statement.for_each_row.then_some(0))
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Server(state, message) => format!("{state}: {message}"),
        Failure::Connection(error) => error.to_string(),
    }
}
