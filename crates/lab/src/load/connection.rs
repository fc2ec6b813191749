//! A small client of our own: each statement is Parse (unnamed), Bind, Describe, Execute and Sync in one write with
//! text parameters of types the server infers, which is what node-postgres sends.

use std::io;

use bytes::{Buf, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    host: String,
    port: u16,
    user: String,
    password: Vec<u8>,
    database: String,
}

impl Target {
    /// From `postgres://user:password@host:port/database`.
    ///
    /// # Errors
    /// A sentence when it is no such URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let config: tokio_postgres::Config = url.parse().map_err(|e| format!("not a PostgreSQL URL: {e}"))?;
        let host = config.get_hosts().iter().find_map(|host| match host {
            tokio_postgres::config::Host::Tcp(name) => Some(name.clone()),
            _ => None,
        });
        let user = config.get_user().unwrap_or("postgres").to_owned();
        Ok(Self {
            host: host.unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: config.get_ports().first().copied().unwrap_or(5432),
            database: config.get_dbname().unwrap_or(&user).to_owned(),
            password: config.get_password().unwrap_or_default().to_vec(),
            user,
        })
    }
}

/// Why a statement did not answer.
#[derive(Debug)]
pub enum Failure {
    /// The server's ErrorResponse: SQLSTATE and message. The connection can be used again.
    Server(String, String),
    /// The connection is gone.
    Connection(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// What a statement answered: rows, and the values of one column.
#[derive(Debug, Default)]
pub struct Answer {
    /// Rows returned.
    pub rows: u64,
    /// Text of the asked-for column, row by row.
    pub column: Vec<Option<String>>,
}

/// A connection that is logged in.
pub struct Connection {
    stream: TcpStream,
    received: BytesMut,
    out: BytesMut,
}

impl Connection {
    /// Connects and logs in (trust, cleartext, md5 or SCRAM-SHA-256).
    ///
    /// # Errors
    /// The server's words, or the system's.
    pub async fn open(target: &Target) -> Result<Self, Failure> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        let mut made = Self { stream, received: BytesMut::with_capacity(8192), out: BytesMut::new() };
        let parameters = [
            ("user", target.user.as_str()),
            ("database", target.database.as_str()),
            ("client_encoding", "UTF8"),
            ("application_name", "poolwright load"),
        ];
        frontend::startup_message(parameters, &mut made.out)?;
        made.send().await?;
        made.log_in(target).await?;
        Ok(made)
    }

    async fn log_in(&mut self, target: &Target) -> Result<(), Failure> {
        let mut scram: Option<sasl::ScramSha256> = None;
        loop {
            match self.next().await? {
                backend::Message::AuthenticationOk => {}
                backend::Message::AuthenticationCleartextPassword => {
                    frontend::password_message(&target.password, &mut self.out)?;
                    self.send().await?;
                }
                backend::Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(target.user.as_bytes(), &target.password, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.out)?;
                    self.send().await?;
                }
                backend::Message::AuthenticationSasl(_) => {
                    let client =
                        sasl::ScramSha256::new(&target.password, sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, client.message(), &mut self.out)?;
                    scram = Some(client);
                    self.send().await?;
                }
                backend::Message::AuthenticationSaslContinue(body) => {
                    let client = scram.as_mut().ok_or_else(unexpected)?;
                    client.update(body.data())?;
                    frontend::sasl_response(client.message(), &mut self.out)?;
                    self.send().await?;
                }
                backend::Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or_else(unexpected)?.finish(body.data())?;
                }
                backend::Message::ErrorResponse(body) => return Err(error_of(&body)),
                backend::Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// Runs one statement; collects the text of `column` when asked to.
    ///
    /// # Errors
    /// The server's error (the connection stays usable), or that of the connection.
    pub async fn run(
        &mut self,
        sql: &str,
        params: &[String],
        column: Option<usize>,
    ) -> Result<Answer, Failure> {
        frontend::parse("", sql, [], &mut self.out)?;
        let text = |value: &String, out: &mut BytesMut| {
            out.extend_from_slice(value.as_bytes());
            Ok(postgres_protocol::IsNull::No)
        };
        frontend::bind("", "", [], params, text, [], &mut self.out).map_err(|_| unexpected())?;
        frontend::describe(b'P', "", &mut self.out)?;
        frontend::execute("", 0, &mut self.out)?;
        frontend::sync(&mut self.out);
        self.send().await?;
        let mut answer = Answer::default();
        let mut failure = None;
        loop {
            match self.next().await? {
                backend::Message::DataRow(body) => {
                    answer.rows += 1;
                    if let Some(wanted) = column {
                        let range = body.ranges().nth(wanted)?.flatten();
                        let value = range.and_then(|r| body.buffer().get(r));
                        answer.column.push(value.map(|v| String::from_utf8_lossy(v).into_owned()));
                    }
                }
                backend::Message::ErrorResponse(body) => failure = Some(error_of(&body)),
                backend::Message::ReadyForQuery(_) => return failure.map_or(Ok(answer), Err),
                _ => {}
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    async fn next(&mut self) -> io::Result<backend::Message> {
        loop {
            if let Some(message) = backend::Message::parse(&mut self.received)? {
                return Ok(message);
            }
            if self.received.remaining() == 0 {
                self.received.reserve(8192);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the server sent something that does not belong here")
}

fn error_of(body: &backend::ErrorResponseBody) -> Failure {
    let (mut state, mut message) = (String::new(), String::new());
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => state = value(),
            b'M' => message = value(),
            _ => {}
        }
    }
    Failure::Server(state, message)
}
