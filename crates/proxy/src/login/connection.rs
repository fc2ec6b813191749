//! A socket with what was read from it: frames in, bytes out. For start-up and authentication only.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::handover::Socket;

/// The largest message taken before a client is authenticated, as in PostgreSQL (`PG_MAX_AUTH_TOKEN_LENGTH`).
pub const LOGIN_BYTES_MAX: usize = 65_535;
/// The largest start-up packet, as in PostgreSQL (`MAX_STARTUP_PACKET_LENGTH`).
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// TCP or Unix.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A dead peer is noticed after about a minute of silence and five unanswered probes.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(5)
}

impl Stream {
    /// A TCP socket as both sides need it: TCP_NODELAY and keepalive on.
    ///
    /// # Errors
    /// When the socket is gone already.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
        Ok(Self::Tcp(stream))
    }
}

/// A stream and the bytes read from it that nobody has taken yet.
pub struct Connection {
    stream: Stream,
    received: Vec<u8>,
}

fn broken(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Connection {
    /// A fresh connection.
    pub fn new(stream: Stream) -> Self {
        Self { stream, received: Vec::with_capacity(512) }
    }

    async fn fill(&mut self, bytes: usize) -> io::Result<()> {
        while self.received.len() < bytes {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read_buf(&mut self.received).await?,
                Stream::Unix(stream) => stream.read_buf(&mut self.received).await?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// True when bytes are there that nobody has taken.
    pub fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// One start-up packet (no kind byte), without its length.
    ///
    /// # Errors
    /// On a length outside 8 to `STARTUP_BYTES_MAX`, and when the socket fails.
    pub async fn startup_packet(&mut self) -> io::Result<Vec<u8>> {
        self.fill(4).await?;
        let length = length_at(&self.received, 0);
        if !(8..=STARTUP_BYTES_MAX).contains(&length) {
            return Err(broken("invalid length of startup packet"));
        }
        self.fill(length).await?;
        let packet = self.received[4..length].to_vec();
        self.received.drain(..length);
        Ok(packet)
    }

    /// One message: its kind and body.
    ///
    /// # Errors
    /// On a body over `LOGIN_BYTES_MAX`, and when the socket fails.
    pub async fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        self.fill(5).await?;
        let length = length_at(&self.received, 1);
        if !(4..=LOGIN_BYTES_MAX).contains(&length) {
            return Err(broken("invalid message length"));
        }
        self.fill(length + 1).await?;
        let kind = self.received[0];
        let body = self.received[5..=length].to_vec();
        self.received.drain(..=length);
        Ok((kind, body))
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    /// Waits until the peer closes; what it sends is thrown away.
    pub async fn closed(&mut self) {
        loop {
            self.received.clear();
            if self.fill(1).await.is_err() {
                return;
            }
        }
    }

    /// The socket, non-blocking, out of tokio's hands, and the bytes read but not taken.
    ///
    /// # Errors
    /// When it cannot be taken off tokio's event queue.
    pub fn into_parts(self) -> io::Result<(Socket, Vec<u8>)> {
        let socket = match self.stream {
            Stream::Tcp(stream) => Socket::Tcp(stream.into_std()?),
            Stream::Unix(stream) => Socket::Unix(stream.into_std()?),
        };
        Ok((socket, self.received))
    }
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map_or(0, |four| u32::from_be_bytes(four) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tcp_sockets_send_at_once_and_notice_dead_peers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for stream in [stream, accepted] {
            let Stream::Tcp(stream) = Stream::tcp(stream).unwrap() else { panic!("no TCP") };
            let socket = SockRef::from(&stream);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 5);
        }
    }
}
