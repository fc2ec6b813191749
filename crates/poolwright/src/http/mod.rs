//! Metrics, snapshot and events over HTTP. Everything is made from a snapshot, off the data path.

mod fingerprints;
mod metrics;
mod selection;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;

/// Largest body of a request in bytes.
const BODY_LIMIT_BYTES: usize = 4_096;

/// Most characters of the kind and of the id of an event.
const NAME_LIMIT: usize = 64;

/// Where answers come from; the proxy, or a stand-in in tests.
pub(crate) trait Source: Send + Sync + 'static {
    fn snapshot(&self) -> stats::Snapshot;
    fn event(&self, kind: &str, id: &str);
}

impl Source for proxy::Proxy {
    fn snapshot(&self) -> stats::Snapshot {
        proxy::Proxy::snapshot(self)
    }

    fn event(&self, kind: &str, id: &str) {
        proxy::Proxy::event(self, kind, id);
    }
}

/// Answers HTTP until the listener fails.
pub async fn serve(listener: TcpListener, proxy: Arc<proxy::Proxy>) -> std::io::Result<()> {
    serve_source(listener, proxy).await
}

/// [`serve`] from any source.
pub(crate) async fn serve_source(listener: TcpListener, source: Arc<dyn Source>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/snapshot.json", get(snapshot))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/events", post(event))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(Shared { source, memory: Arc::default() });
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

#[derive(Clone)]
struct Shared {
    source: Arc<dyn Source>,
    memory: Arc<Mutex<metrics::Memory>>,
}

async fn metrics(State(shared): State<Shared>) -> Result<Response, StatusCode> {
    let Shared { source, memory } = shared;
    let rendered = tokio::task::spawn_blocking(move || {
        // Locked before the snapshot is taken: of two scrapes at a time, the later has the later snapshot.
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        metrics::render(&source.snapshot(), &mut memory)
    });
    let text = rendered.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The whole state. `?checkouts=0` leaves the record of checkouts out, which is most of its size.
async fn snapshot(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(options): Query<HashMap<String, String>>,
) -> Result<Response, StatusCode> {
    local(peer)?;
    let without = options.get("checkouts").is_some_and(|value| value == "0");
    let taken = tokio::task::spawn_blocking(move || {
        let mut snapshot = shared.source.snapshot();
        if without {
            snapshot.pools.iter_mut().for_each(|pool| pool.checkouts.clear());
        }
        serde_json::to_vec(&snapshot)
    });
    let json = taken.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let json = json.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Body of `POST /events`.
#[derive(Deserialize)]
struct NewEvent {
    kind: String,
    id: String,
}

async fn event(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: axum::body::Bytes,
) -> Result<StatusCode, (StatusCode, String)> {
    local(peer).map_err(|status| (status, "events are taken from this machine only\n".to_owned()))?;
    let bad = |message: String| (StatusCode::BAD_REQUEST, message + "\n");
    let event: NewEvent = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    for name in [&event.kind, &event.id] {
        if name.is_empty() || name.chars().count() > NAME_LIMIT || name.chars().any(char::is_control) {
            return Err(bad(format!("kind and id have 1 to {NAME_LIMIT} printable characters")));
        }
    }
    shared.source.event(&event.kind, &event.id);
    Ok(StatusCode::NO_CONTENT)
}

/// Query text and control are for this machine only, whatever address the listener has.
fn local(peer: SocketAddr) -> Result<(), StatusCode> {
    if peer.ip().to_canonical().is_loopback() { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}
