//! A client that speaks frames, for what no driver would send.

use lab::postgres::USER;
use proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PATIENCE, port};

/// What came back.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// Kinds of the frames.
    pub kinds: String,
    /// SQLSTATE and message of the errors.
    pub errors: Vec<(String, String)>,
    /// Rows of one column each, as text.
    pub rows: Vec<String>,
}

/// Frames of a client, one behind the other.
#[derive(Default)]
pub struct Frames(pub Vec<u8>);

impl Frames {
    /// Query.
    pub fn query(mut self, sql: &str) -> Self {
        wire::craft::query(&mut self.0, sql.as_bytes());
        self
    }

    /// Parse without parameter types.
    pub fn parse(mut self, name: &str, sql: &str) -> Self {
        wire::craft::parse(&mut self.0, name.as_bytes(), format!("{sql}\0\0\0").as_bytes());
        self
    }

    /// Bind of text parameters to the unnamed portal; text results.
    pub fn bind(mut self, name: &str, values: &[&str]) -> Self {
        let mut tail = vec![0, 0, 0, u8::try_from(values.len()).unwrap()];
        for value in values {
            tail.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            tail.extend_from_slice(value.as_bytes());
        }
        tail.extend_from_slice(&[0, 0]);
        wire::craft::bind(&mut self.0, b"", name.as_bytes(), &tail, 0);
        self
    }

    /// Execute of the unnamed portal.
    pub fn execute(mut self) -> Self {
        wire::craft::frame(&mut self.0, b'E', |body| body.extend_from_slice(&[0; 5]));
        self
    }

    /// Bind and Execute.
    pub fn run(self, name: &str, values: &[&str]) -> Self {
        self.bind(name, values).execute()
    }

    /// Describe of a statement.
    pub fn describe(mut self, name: &str) -> Self {
        wire::craft::describe_statement(&mut self.0, name.as_bytes());
        self
    }

    /// Close of a statement.
    pub fn close(mut self, name: &str) -> Self {
        wire::craft::close_statement(&mut self.0, name.as_bytes());
        self
    }

    /// Sync.
    pub fn sync(mut self) -> Self {
        wire::craft::sync(&mut self.0);
        self
    }

    /// Flush.
    pub fn flush(mut self) -> Self {
        wire::craft::flush(&mut self.0);
        self
    }

    /// Terminate.
    pub fn terminate(mut self) -> Self {
        wire::craft::terminate(&mut self.0);
        self
    }

    /// CopyData.
    pub fn copy(mut self, data: &str) -> Self {
        wire::craft::frame(&mut self.0, b'd', |body| body.extend_from_slice(data.as_bytes()));
        self
    }

    /// CopyDone.
    pub fn copy_done(mut self) -> Self {
        wire::craft::frame(&mut self.0, b'c', |_| {});
        self
    }
}

/// A client that speaks frames.
pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects, nothing more.
    pub async fn dial(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }

    /// Sends bytes as they are; the peer may have closed already.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _closed = self.0.write_all(bytes).await;
    }

    /// Sends a start-up packet of protocol `minor` of 3 with these parameters.
    pub async fn startup(&mut self, minor: u8, parameters: &[(&str, &str)]) {
        let mut body = vec![0, 3, 0, minor];
        for (name, value) in parameters {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(value.as_bytes());
            body.push(0);
        }
        body.push(0);
        self.packet(&body).await;
    }

    /// Sends a packet without kind byte.
    pub async fn packet(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap();
        self.send(&[&length.to_be_bytes(), body].concat()).await;
    }

    /// Sends a frame.
    pub async fn frame(&mut self, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap();
        self.send(&[&[kind][..], &length.to_be_bytes(), body].concat()).await;
    }

    /// Logs in where nobody is asked for a password, with these settings.
    pub async fn login(proxy: &Proxy, parameters: &[(&str, &str)]) -> Self {
        Self::login_with_key(proxy, parameters).await.0
    }

    /// The same, and what a CancelRequest for it holds.
    pub async fn login_with_key(proxy: &Proxy, parameters: &[(&str, &str)]) -> (Self, Vec<u8>) {
        let mut raw = Self::dial(port(proxy)).await;
        raw.startup(0, &[&[("user", USER), ("database", "app")], parameters].concat()).await;
        let mut key = Vec::new();
        loop {
            match raw.next().await.expect("the log-in is refused") {
                (b'K', body) => key = body,
                (b'Z', _) => return (raw, key),
                _ => {}
            }
        }
    }

    /// Asks the proxy to cancel what the client of this key does; returns when the proxy has taken it.
    pub async fn cancel(port: u16, key: &[u8]) {
        let mut raw = Self::dial(port).await;
        raw.packet(&[&80_877_102_u32.to_be_bytes()[..], key].concat()).await;
        assert!(raw.next().await.is_none());
    }

    /// One byte that is no frame.
    pub async fn byte(&mut self) -> u8 {
        tokio::time::timeout(PATIENCE, self.0.read_u8()).await.unwrap().unwrap()
    }

    /// Logs in by SCRAM, up to ReadyForQuery.
    pub async fn scram_login(&mut self, user: &str, password: &str, database: &str) {
        use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
        self.startup(0, &[("user", user), ("database", database)]).await;
        assert_eq!(self.next().await.unwrap().0, b'R');
        let mut exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = exchange.message().to_vec();
        let length = u32::try_from(first.len()).unwrap();
        self.frame(b'p', &[b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], &first].concat()).await;
        exchange.update(&self.next().await.unwrap().1[4..]).unwrap();
        let last = exchange.message().to_vec();
        self.frame(b'p', &last).await;
        exchange.finish(&self.next().await.unwrap().1[4..]).unwrap();
        assert!(self.kinds().await.ends_with('Z'));
    }

    /// The next frame; `None` when the proxy closed the connection.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let kind = self.0.read_u8().await.ok()?;
            let length = self.0.read_u32().await.ok()?;
            let mut body = vec![0; usize::try_from(length).unwrap() - 4];
            self.0.read_exact(&mut body).await.ok()?;
            Some((kind, body))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the proxy says nothing")
    }

    /// Sends frames and reads up to the `ready`th ReadyForQuery.
    pub async fn converse(&mut self, frames: &[u8], ready: usize) -> Answer {
        self.send(frames).await;
        self.answer(ready).await
    }

    /// Reads up to the `ready`th ReadyForQuery, or to the end.
    pub async fn answer(&mut self, mut ready: usize) -> Answer {
        let mut answer = Answer::default();
        while ready > 0 {
            let Some((kind, body)) = self.next().await else { break };
            ready -= usize::from(kind == b'Z');
            answer.kinds.push(char::from(kind));
            match kind {
                b'E' => {
                    let field =
                        |f| String::from_utf8_lossy(wire::error_field(&body, f).unwrap()).into_owned();
                    answer.errors.push((field(b'C'), field(b'M')));
                }
                b'D' => {
                    let column = body.get(6..).unwrap_or_default();
                    answer.rows.push(String::from_utf8_lossy(column).into_owned());
                }
                _ => {}
            }
        }
        answer
    }

    /// Frames up to ReadyForQuery, as their kinds.
    pub async fn kinds(&mut self) -> String {
        let mut kinds = String::new();
        while let Some((kind, _)) = self.next().await {
            kinds.push(char::from(kind));
            if kind == b'Z' {
                break;
            }
        }
        kinds
    }

    /// The error that comes next, as SQLSTATE and message, and that the connection closes behind it.
    pub async fn fatal(&mut self) -> (String, String) {
        let (kind, body) = self.next().await.expect("closed without a word");
        assert_eq!(char::from(kind), 'E');
        let field = |kind| String::from_utf8(wire::error_field(&body, kind).unwrap().to_vec()).unwrap();
        assert_eq!(field(b'S'), "FATAL");
        assert!(self.next().await.is_none(), "still open");
        (field(b'C'), field(b'M'))
    }
}
