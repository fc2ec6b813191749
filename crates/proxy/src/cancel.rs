//! Cancel requests: to the server that works for the client now, or to nobody.

use std::time::Duration;

use crate::handover::{CancelKey, CancelTarget};
use crate::login::server;
use crate::worker::Workers;

/// Delivers one. The server is not lent again until PostgreSQL has closed the cancel connection: by then the signal
/// has been sent.
pub(crate) async fn deliver(workers: &Workers, key: CancelKey) {
    let CancelTarget::Server { settings, key, guard } = workers.cancel(key) else { return };
    let limit = settings.connect_timeout.max(Duration::from_secs(1));
    let mut connection = match tokio::time::timeout(limit, server::dial(&settings.address)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(fault)) => {
            tracing::warn!("a cancel request was not delivered: {fault}");
            return guard.delivered();
        }
        Err(_elapsed) => {
            tracing::warn!("a cancel request was not delivered: {} does not answer", settings.address);
            return guard.delivered();
        }
    };
    let send = async {
        let length = u32::try_from(12 + key.secret.len()).unwrap_or(0);
        let mut packet = length.to_be_bytes().to_vec();
        packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
        packet.extend_from_slice(&key.pid.to_be_bytes());
        packet.extend_from_slice(&key.secret);
        if connection.send(&packet).await.is_ok() {
            connection.closed().await;
        }
    };
    match tokio::time::timeout(limit, send).await {
        Ok(()) => guard.delivered(),
        // Dropped, the guard has the server closed: the signal may still come.
        Err(_elapsed) => tracing::warn!("a cancel request to {} took too long", settings.address),
    }
}
