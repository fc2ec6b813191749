//! A non-blocking socket of either kind, registered with an event queue.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::{Interest, Registry, Token, event::Source};

use crate::handover::Socket;

/// A registered socket.
pub(super) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                Self::Tcp(mio::net::TcpStream::from_std(tcp))
            }
            Socket::Unix(unix) => {
                unix.set_nonblocking(true)?;
                Self::Unix(mio::net::UnixStream::from_std(unix))
            }
        })
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Unix(unix) => unix,
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().register(registry, token, Interest::READABLE)
    }

    /// Watches for room to write as well, or no longer.
    pub(super) fn watch_writing(&mut self, registry: &Registry, token: Token, on: bool) -> io::Result<()> {
        let interest = if on { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.source().reregister(registry, token, interest)
    }

    /// Nothing more will be written. A peer that is gone already does not mind.
    pub(super) fn end_writing(&mut self) {
        let _gone = match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
        };
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // A socket that is already gone needs no farewell.
        let _ = self.source().deregister(registry);
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buf),
            Self::Unix(unix) => unix.read(buf),
        }
    }

    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(buf),
            Self::Unix(unix) => unix.write(buf),
        }
    }

    /// Writes as much of `out` as goes; true when some is left.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut at = 0;
        while at < out.len() {
            match self.write(&out[at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if at == out.len() {
            out.clear();
            out.shrink_to(64 << 10);
        } else {
            out.drain(..at);
        }
        Ok(!out.is_empty())
    }
}
