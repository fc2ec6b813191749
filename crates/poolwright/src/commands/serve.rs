//! `poolwright serve FILE|URL`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use proxy::{Proxy, Request};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, ConfigError};
use crate::{http, memory, output};

/// Arguments of `poolwright serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A configuration file, or postgres://user:password@host:port/database.
    #[arg(value_name = "FILE|URL")]
    pub source: String,
    /// Where clients are awaited: IP:PORT, or a directory for a Unix socket.
    #[arg(long)]
    pub listen: Option<String>,
    /// Where metrics are served: IP:PORT.
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// After SIGTERM, how long transactions may still run, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub drain_timeout: u64,
}

impl Args {
    fn is_url(&self) -> bool {
        self.source.starts_with("postgres://") || self.source.starts_with("postgresql://")
    }

    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = if self.is_url() {
            config::from_url(&self.source)?
        } else {
            config::load(Path::new(&self.source))?
        };
        if let Some(listen) = &self.listen {
            config.settings.listen = vec![config::listen_address(listen)?];
        }
        config.metrics = self.metrics_listen.or(config.metrics);
        Ok(config)
    }
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Serves until SIGINT (at once) or SIGTERM (after the transactions).
pub async fn run(args: Args) -> ExitCode {
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => {
            output::report(&error.into());
            return ExitCode::FAILURE;
        }
    };
    match start(&args, config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::error(&message);
            ExitCode::FAILURE
        }
    }
}

async fn start(args: &Args, config: Config) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let metrics = match config.metrics {
        None => None,
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|error| {
                format!("cannot serve metrics on {address}: {error} (--metrics-listen, [metrics] listen)")
            })?)
        }
    };
    let proxy = Arc::new(Proxy::start(config.settings).await.map_err(|error| error.to_string())?);
    for address in proxy.addresses() {
        output::note(&format!("listening on {address}"));
    }
    let http = metrics.map(|listener| {
        if let Ok(address) = listener.local_addr() {
            output::note(&format!("metrics on http://{address}/metrics"));
        }
        tokio::spawn(http::serve(listener, Arc::clone(&proxy)))
    });
    memory::hand_back_startup_code();
    await_end(args, &proxy, config.metrics, &mut signals).await;
    if let Some(http) = http {
        http.abort();
    }
    proxy.stop();
    Ok(())
}

/// Reloads as asked; returns when it is time to stop, the drain included.
async fn await_end(args: &Args, proxy: &Proxy, metrics: Option<SocketAddr>, signals: &mut Signals) {
    let Some(mut requests) = proxy.requests() else { return };
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                let _told = reload(args, proxy, metrics);
            }
            _ = signals.interrupt.recv() => return,
            _ = signals.terminate.recv() => return drain(args, proxy, signals).await,
            Some(request) = requests.recv() => match request {
                Request::Reload(answer) => {
                    // The console may have left.
                    let _left = answer.send(reload(args, proxy, metrics));
                }
                Request::Shutdown { drain: false } => return,
                Request::Shutdown { drain: true } => return drain(args, proxy, signals).await,
            },
        }
    }
}

/// Lets the transactions end, until the drain time-out or another signal to stop.
async fn drain(args: &Args, proxy: &Proxy, signals: &mut Signals) {
    let limit = Duration::from_secs(args.drain_timeout);
    output::note(&format!("draining: transactions may run for {} s more", limit.as_secs()));
    tokio::select! {
        all_left = proxy.drain(limit) => if !all_left {
            output::note("drain time-out: closing the clients that are left");
        },
        _ = signals.interrupt.recv() => output::note("interrupted: closing the clients that are left"),
        _ = signals.terminate.recv() => output::note("SIGTERM again: closing the clients that are left"),
    }
}

/// A bad file changes nothing. What changed, or what is wrong, is said on stderr, and returned.
fn reload(args: &Args, proxy: &Proxy, metrics: Option<SocketAddr>) -> Result<Vec<String>, String> {
    if args.is_url() {
        let text = "nothing to reload: started from a URL";
        output::note(text);
        return Err(text.to_owned());
    }
    let config = args.config().map_err(|error| {
        let text = format!("not reloaded, the old settings stay: {error}");
        output::error(&text);
        output::report(&error.into());
        text
    })?;
    if config.metrics != metrics {
        let name =
            |address: Option<SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
        let mut all = proxy.differences(&config.settings).restart;
        all.push(format!("metrics.listen: {} -> {}", name(metrics), name(config.metrics)));
        let text = format!("not reloaded, the old settings stay: this needs a restart: {}", all.join("; "));
        output::error(&text);
        return Err(text);
    }
    match proxy.reload(config.settings) {
        Ok(changes) if changes.is_empty() => {
            output::note("reloaded: nothing changed");
            Ok(changes)
        }
        Ok(changes) => {
            output::note(&format!("reloaded: {}", changes.join("; ")));
            Ok(changes)
        }
        Err(error) => {
            let text = format!("not reloaded, the old settings stay: {error}");
            output::error(&text);
            Err(text)
        }
    }
}
