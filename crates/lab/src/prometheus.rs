//! The installed Prometheus as a child process that scrapes one target, and its query interface.
//!
//! Dropping a [`Prometheus`] ends it and deletes its folder, and it does not outlive this process. Where none is
//! installed, [`StartError::Missing`] is the sentence to show. All calls block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

use crate::kept::Kept;

/// How long it may take until it is ready.
const START_MAX: Duration = Duration::from_secs(20);
/// How long it may take to leave after SIGTERM.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A free port may be taken by somebody else before Prometheus listens on it.
const ATTEMPTS: usize = 3;
/// Where packages and archives put the program, beside PATH.
const USUAL_PLACES: [&str; 5] =
    ["/usr/bin", "/usr/local/bin", "/opt/prometheus", "/usr/local/prometheus", "/opt/homebrew/bin"];

/// What it shall do.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// `address:port` of the metrics to scrape, under the job `poolwright`.
    pub target: &'a str,
    /// Text of a rules file.
    pub rules: &'a str,
    /// How often to scrape and to evaluate the rules: a whole number of seconds.
    pub scrape: Duration,
    /// It may be left running with [`Prometheus::leave_running`]; else it dies with this program, however that ends.
    pub outlives: bool,
}

/// Why there is no Prometheus.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// None is installed.
    #[error(
        "Prometheus is not installed, so the report will not show the dashboard's panels: install the package \
         `prometheus`, or put its program into PATH"
    )]
    Missing,
    /// A file or a process failed.
    #[error("cannot run Prometheus: {0}")]
    Io(#[from] std::io::Error),
    /// It ended before it was ready; the end of its log.
    #[error("Prometheus ended at once; its log says: {0}")]
    Ended(String),
    /// It was not ready in time; the end of its log.
    #[error("Prometheus was not ready within 20 s; its log says: {0}")]
    Silent(String),
}

/// A question that Prometheus did not answer.
#[derive(Debug, thiserror::Error)]
#[error("Prometheus did not answer `{question}`: {reason}")]
pub struct QueryError {
    /// The expression, or the page.
    pub question: String,
    /// Its own words, or the connection's.
    pub reason: String,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels, `__name__` among them where the expression keeps it.
    pub labels: BTreeMap<String, String>,
    /// (unix seconds, value), ascending; an instant query gives one. Values may be NaN or infinite.
    pub points: Vec<(f64, f64)>,
}

/// A running Prometheus; dropping it ends it.
#[derive(Debug)]
pub struct Prometheus {
    child: Option<Kept>,
    folder: Option<TempDir>,
    address: String,
    scrape: Duration,
    agent: ureq::Agent,
}

impl Prometheus {
    /// The program: in PATH, else in the usual places.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(USUAL_PLACES.iter().map(PathBuf::from))
            .map(|folder| folder.join("prometheus"))
            .find(|program| program.is_file())
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left behind.
    pub fn start(options: &Options<'_>) -> Result<Self, StartError> {
        let program = Self::program().ok_or(StartError::Missing)?;
        let mut failed = StartError::Missing;
        for _attempt in 0..ATTEMPTS {
            match Self::start_once(&program, options) {
                Ok(started) => return Ok(started),
                Err(error @ StartError::Ended(_)) => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    fn start_once(program: &Path, options: &Options<'_>) -> Result<Self, StartError> {
        let folder = tempfile::Builder::new().prefix("poolwright-prometheus-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("prometheus.yml"), configuration(options.target, options.scrape))?;
        std::fs::write(at("rules.yml"), options.rules)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = std::fs::File::create(at("log"))?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = Kept::start(command, (!options.outlives).then_some(libc::SIGTERM))?;
        // Its errors come with a JSON body that says more than the status.
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_MAX))
            .http_status_as_error(false)
            .build()
            .into();
        let address = format!("http://127.0.0.1:{port}");
        let started =
            Self { child: Some(child), folder: Some(folder), address, scrape: options.scrape, agent };
        started.wait_until_ready()?;
        Ok(started)
    }

    fn wait_until_ready(&self) -> Result<(), StartError> {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if !self.child.as_ref().is_some_and(Kept::is_running) {
                return Err(StartError::Ended(self.log()));
            }
            let answer = self.agent.get(format!("{}/-/ready", self.address)).call();
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(StartError::Silent(self.log()))
    }

    fn log(&self) -> String {
        let folder = self.folder.as_ref().map_or(Path::new(""), TempDir::path);
        let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(4)..].join("\n")
    }

    /// `http://127.0.0.1:port`: its page, and the address of the data source in Grafana.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How often it scrapes.
    #[must_use]
    pub fn scrape(&self) -> Duration {
        self.scrape
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Kept::pid)
    }

    /// Waits until it has scraped its target, at most `limit`; false when it has not. It looks for targets only every
    /// five seconds, so the first scrape comes about that long after its start.
    pub fn wait_for_scrape(&self, limit: Duration) -> bool {
        wait_for_scrape(&self.address, limit)
    }

    /// Leaves it running and its folder in place, for `--keep`; gives its process id and the folder.
    #[must_use]
    pub fn leave_running(mut self) -> (u32, PathBuf) {
        let pid = self.pid();
        self.child = None;
        (pid, self.folder.take().map(TempDir::keep).unwrap_or_default())
    }

    /// Its version, for example `2.42.0`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn version(&self) -> Result<String, QueryError> {
        #[derive(Deserialize)]
        struct Build {
            version: String,
        }
        self.get::<Build>("status/buildinfo", &[]).map(|build| build.version)
    }

    /// What `expr` is at one moment.
    ///
    /// # Errors
    /// The expression is wrong, or there is no answer within 10 s.
    pub fn query(&self, expr: &str, at_s: f64) -> Result<Vec<Series>, QueryError> {
        let time = at_s.to_string();
        self.get::<Data>("query", &[("query", expr), ("time", &time)]).map(Data::series)
    }

    /// What `expr` was over time, both ends included, every `step_s` seconds (at most 11,000 of them).
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub fn query_range(
        &self,
        expr: &str,
        from_s: f64,
        to_s: f64,
        step_s: u64,
    ) -> Result<Vec<Series>, QueryError> {
        let (start, end, step) = (from_s.to_string(), to_s.to_string(), step_s.max(1).to_string());
        let pairs = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
        self.get::<Data>("query_range", &pairs).map(Data::series)
    }

    /// The data of any page under `/api/v1/`.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub fn get<T: serde::de::DeserializeOwned>(
        &self,
        page: &str,
        pairs: &[(&str, &str)],
    ) -> Result<T, QueryError> {
        let question = pairs.first().map_or(page, |pair| pair.1);
        let failed = |reason: String| QueryError { question: question.to_owned(), reason };
        let mut request = self.agent.get(format!("{}/api/v1/{page}", self.address));
        for (name, value) in pairs {
            request = request.query(name, value);
        }
        let mut answer = request.call().map_err(|error| failed(error.to_string()))?;
        let answer: Answer<T> = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_json()
            .map_err(|error| failed(error.to_string()))?;
        answer.data.ok_or_else(|| failed(answer.error))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child.end(&[libc::SIGTERM], LEAVE_MAX);
        }
    }
}

/// As [`Prometheus::wait_for_scrape`], of the Prometheus at this address.
#[must_use]
pub fn wait_for_scrape(address: &str, limit: Duration) -> bool {
    let began = Instant::now();
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).build().into();
    while began.elapsed() < limit {
        let answer = agent.get(format!("{address}/api/v1/query")).query("query", "up == 1").call();
        let answer = answer.and_then(|mut answer| answer.body_mut().read_json::<Answer<Data>>());
        if answer.is_ok_and(|answer| answer.data.is_some_and(|data| !data.series().is_empty())) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// A dashboard's expression with its variables filled in: any job, instance and pool; `range_s` seconds for
/// `$__rate_interval` and `$__range`.
#[must_use]
pub fn fill_in(expr: &str, range_s: u64) -> String {
    let range = format!("{range_s}s");
    let expr = expr.replace("$__rate_interval", &range).replace("$__range", &range);
    let anything = ["$job", "$instance", "$pool", "$datasource"];
    let expr = anything.iter().fold(expr, |expr, variable| expr.replace(variable, ".*"));
    expr.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Rules are evaluated with every scrape, so that short runs have them too.
fn configuration(target: &str, scrape: Duration) -> String {
    let every = scrape.as_secs().max(1);
    // As JSON, which is YAML: no name can break out of its quotes.
    serde_json::json!({
        "global": {
            "scrape_interval": format!("{every}s"),
            "scrape_timeout": format!("{every}s"),
            "evaluation_interval": format!("{every}s"),
        },
        "rule_files": ["rules.yml"],
        "scrape_configs": [{ "job_name": "poolwright", "static_configs": [{ "targets": [target] }] }],
    })
    .to_string()
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    #[serde(default)]
    error: String,
}

/// See <https://prometheus.io/docs/prometheus/latest/querying/api/#expression-query-result-formats>.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Matrix(Vec<Row>),
    Vector(Vec<Row>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Row {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    value: Option<(f64, String)>,
}

impl Data {
    fn series(self) -> Vec<Series> {
        let rows = match self {
            Self::Matrix(rows) | Self::Vector(rows) => rows,
            Self::Scalar(value) => {
                vec![Row { metric: BTreeMap::new(), values: Vec::new(), value: Some(value) }]
            }
        };
        let number = |(at, text): (f64, String)| (at, text.parse().unwrap_or(f64::NAN));
        rows.into_iter()
            .map(|row| Series {
                labels: row.metric,
                points: row.values.into_iter().chain(row.value).map(number).collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_form_are_read() {
        let read = |text: &str| serde_json::from_str::<Answer<Data>>(text).unwrap().data.unwrap().series();
        let matrix = read(
            r#"{"status":"success","data":{"resultType":"matrix","result":
               [{"metric":{"pool":"a"},"values":[[1.5,"2"],[2.5,"NaN"],[3.5,"+Inf"]]}]}}"#,
        );
        assert_eq!(matrix[0].labels["pool"], "a");
        assert_eq!(matrix[0].points[0], (1.5, 2.0));
        assert!(matrix[0].points[1].1.is_nan() && matrix[0].points[2].1.is_infinite());
        let vector = read(r#"{"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.25"]}]}}"#);
        assert_eq!(vector[0].points, [(1.0, 0.25)]);
        let scalar = read(r#"{"data":{"resultType":"scalar","result":[7,"1"]}}"#);
        assert_eq!(scalar[0].points, [(7.0, 1.0)]);
    }

    #[test]
    fn what_it_says_on_its_way_out_is_told() {
        let scrape = Duration::from_secs(1);
        let options = Options { target: "127.0.0.1:1", rules: "groups: nonsense", scrape, outlives: false };
        let error = Prometheus::start(&options).unwrap_err().to_string();
        assert!(error.contains("ended at once") && error.contains("rules.yml"), "{error}");
    }

    #[test]
    fn the_configuration_names_its_target() {
        let text = configuration("127.0.0.1:9127", Duration::from_secs(2));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["global"]["scrape_interval"], "2s");
        assert_eq!(value["scrape_configs"][0]["static_configs"][0]["targets"][0], "127.0.0.1:9127");
    }
}
