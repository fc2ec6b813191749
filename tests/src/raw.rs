//! A client that sends whatever bytes a test wants.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use lab::postgres::USER;

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// One frame: kind, length, body.
///
/// # Panics
/// When `body` has 4 GiB or more.
#[must_use]
pub fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

/// A start-up packet of protocol 3.0.
///
/// # Panics
/// Never with parameters of less than 4 GiB.
#[must_use]
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}

/// A connection on which a test speaks the protocol by hand. Its site needs [`crate::TRUST`].
pub struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connects, nothing more.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn dial(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        socket.set_write_timeout(Some(ANSWER_LIMIT)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket }
    }

    /// Connects and logs in where nobody is asked for a password.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn log_in(port: u16) -> Self {
        let mut raw = Self::dial(port);
        raw.send(&startup(&[("user", USER), ("database", "postgres")])).unwrap();
        raw.until(b'Z').unwrap();
        raw
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Sends a Query message.
    ///
    /// # Panics
    /// When the peer has closed.
    pub fn ask(&mut self, sql: &str) {
        self.send(&frame(b'Q', format!("{sql}\0").as_bytes())).unwrap();
    }

    /// One message.
    ///
    /// # Errors
    /// When the peer has closed, or says nothing for 15 s.
    pub fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        self.socket.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// Messages up to and with one of `kind`.
    ///
    /// # Errors
    /// As [`Raw::message`].
    pub fn until(&mut self, kind: u8) -> io::Result<Vec<(u8, Vec<u8>)>> {
        let mut all = Vec::new();
        loop {
            let message = self.message()?;
            let end = message.0 == kind;
            all.push(message);
            if end {
                return Ok(all);
            }
        }
    }

    /// Runs one statement: its rows' first columns, or the error's SQLSTATE.
    ///
    /// # Errors
    /// The SQLSTATE.
    ///
    /// # Panics
    /// When the connection fails.
    pub fn query(&mut self, sql: &str) -> Result<Vec<String>, String> {
        self.ask(sql);
        let messages = self.until(b'Z').unwrap();
        if let Some((_, body)) = messages.iter().find(|(kind, _)| *kind == b'E') {
            return Err(field(body, b'C'));
        }
        let rows = messages.iter().filter(|(kind, _)| *kind == b'D').map(|(_, body)| first_column(body));
        Ok(rows.collect())
    }

    /// Everything up to the peer's closing; the SQLSTATE of the last error among it, empty without one.
    ///
    /// # Panics
    /// When the peer does not close.
    pub fn farewell(&mut self) -> String {
        let mut code = String::new();
        loop {
            match self.message() {
                Ok((b'E', body)) => code = field(&body, b'C'),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection stays open")
                }
                Err(_) => return code,
            }
        }
    }

    /// Says that nothing more comes, and goes on reading.
    ///
    /// # Panics
    /// When the socket is gone.
    pub fn finish(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes at once, with whatever is unread (the peer sees a reset where something is).
    pub fn hang_up(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A field of an ErrorResponse.
fn field(body: &[u8], wanted: u8) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(&[wanted]))
        .map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned())
}

fn first_column(row: &[u8]) -> String {
    let length = row.get(2..6).map_or(0, |four| i32::from_be_bytes([four[0], four[1], four[2], four[3]]));
    let end = 6 + usize::try_from(length).unwrap_or(0);
    String::from_utf8_lossy(row.get(6..end).unwrap_or_default()).into_owned()
}
