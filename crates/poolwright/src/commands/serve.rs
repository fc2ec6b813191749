//! `poolwright serve FILE|URL`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use proxy::Proxy;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, ConfigError};
use crate::{http, output};

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
            Some(listener.map_err(|error| format!("cannot serve metrics on {address}: {error}"))?)
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
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => reload(args, &proxy),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => {
                let limit = Duration::from_secs(args.drain_timeout);
                tokio::select! {
                    all_left = proxy.drain(limit) => if !all_left {
                        output::note("drain time-out: closing the clients that are left");
                    },
                    _ = signals.interrupt.recv() => {}
                }
                break;
            }
        }
    }
    if let Some(http) = http {
        http.abort();
    }
    proxy.stop();
    Ok(())
}

/// A bad file changes nothing.
fn reload(args: &Args, proxy: &Proxy) {
    if args.is_url() {
        return output::note("nothing to reload: started from a URL");
    }
    match args.config() {
        Err(error) => output::report(&error.into()),
        Ok(config) => match proxy.reload(config.settings) {
            Ok(changes) if changes.is_empty() => output::note("reloaded: nothing changed"),
            Ok(changes) => output::note(&format!("reloaded: {}", changes.join("; "))),
            Err(error) => output::error(&format!("not reloaded: {error}")),
        },
    }
}
