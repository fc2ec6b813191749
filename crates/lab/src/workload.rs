//! The workload file: named operations with weights, their statements, and how each parameter is drawn.
//!
//! An *arrival* runs one operation; an operation runs its statements in order on one connection. `after` statements
//! are those of the repaired application; each names the fault it `fixes`.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;

/// Most operations, statements of an operation, and repeats of a statement.
const LIMIT: usize = 1_000;

/// A checked workload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Operations a second, in all.
    #[serde(rename = "rate")]
    pub rate_ops: f64,
    /// The pool as the application has it today.
    pub before: Before,
    /// Where keys come from.
    #[serde(default)]
    pub keys: BTreeMap<String, Keys>,
    /// What arrives.
    #[serde(rename = "operation")]
    pub operations: Vec<Operation>,
}

/// The pool before: server connections.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Most connections.
    pub max: u32,
    /// Connections held when idle.
    pub min: u32,
}

/// A family of integer keys: key n is `first + n * step`, for n below `count`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many there are (multiplied by the scale when the data is).
    pub count: u64,
    /// Key number 0.
    pub first: i64,
    /// Distance between two keys.
    pub step: i64,
}

/// One thing the application does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its name in reports.
    pub name: String,
    /// Its share of the arrivals, relative to the others.
    pub weight: f64,
    /// Its statements, in order.
    #[serde(rename = "statement")]
    pub statements: Vec<Statement>,
    /// Its statements in the repaired application; empty when it stays as it is.
    #[serde(default)]
    pub after: Vec<Statement>,
}

/// One statement of an operation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Its text, parameters as `$1`, `$2`, …
    pub sql: String,
    /// How each parameter is drawn, `$1` first.
    #[serde(default)]
    pub params: Vec<Param>,
    /// Times it runs in a row, each with parameters of its own.
    #[serde(default = "once")]
    pub repeat: u32,
    /// Runs once for each row that the statement before it returned, instead of `repeat` times.
    #[serde(default)]
    pub for_each_row: bool,
    /// The kind of finding it is the remedy of (`after` statements only).
    #[serde(default)]
    pub fixes: Option<String>,
    /// Kinds of findings on this statement that the application's owner agrees to, also where they change the rows.
    #[serde(default)]
    pub accept: Vec<String>,
}

fn once() -> u32 {
    1
}

/// How one parameter is drawn.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// From this family of keys.
    pub key: Option<String>,
    /// Key number = count * r^skew with r uniform in [0, 1): 1 is uniform, more is more skewed.
    pub skew: Option<f64>,
    /// Added to the key at each repeat of the statement, from one draw for the operation.
    pub climb: Option<i64>,
    /// An integer, both ends included.
    pub between: Option<[i64; 2]>,
    /// One of these.
    pub choice: Option<Vec<String>>,
    /// This column of the rows that the statement before returned.
    pub column: Option<usize>,
    /// Drawn once for all repeats of the statement.
    #[serde(default)]
    pub once: bool,
    /// An array of this many draws (of at most this many rows for `column`), as PostgreSQL's array text.
    pub array: Option<u32>,
}

/// What is wrong with a workload file, and where.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct WorkloadError {
    /// One sentence that says what, and what to do.
    pub message: String,
    /// The bytes of the file it is about, where known.
    pub span: Option<Range<usize>>,
}

impl WorkloadError {
    /// Line and column of the fault, counted from 1.
    #[must_use]
    pub fn position(&self, text: &str) -> Option<(usize, usize)> {
        let start = self.span.as_ref()?.start.min(text.len());
        let before = text.get(..start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
        Some((line, column))
    }
}

impl Workload {
    /// Reads and checks a workload file.
    ///
    /// # Errors
    /// What is wrong, where, and what would be right.
    pub fn parse(text: &str) -> Result<Self, WorkloadError> {
        let workload: Self = toml::from_str(text)
            .map_err(|e| WorkloadError { message: e.message().to_owned(), span: e.span() })?;
        workload.check().map_err(|(message, about)| WorkloadError {
            message,
            span: text.find(&about).map(|at| at..at + about.len()),
        })?;
        Ok(workload)
    }

    /// The same with `scale` times as many keys in each family (at least one).
    #[must_use]
    pub fn scaled(mut self, scale: f64) -> Self {
        for keys in self.keys.values_mut() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let count = (keys.count as f64 * scale) as u64;
            keys.count = count.max(1);
        }
        self
    }

    /// A sentence, and the piece of the file it is about.
    fn check(&self) -> Result<(), (String, String)> {
        if !(self.rate_ops > 0.0 && self.rate_ops <= 1e6) {
            return Err((
                "`rate` must be above 0 and at most 1,000,000 operations a second".into(),
                "rate".into(),
            ));
        }
        if self.before.max == 0 || self.before.min > self.before.max {
            return Err((
                "`before` needs max of at least 1 and min of at most max".into(),
                "[before]".into(),
            ));
        }
        if self.operations.is_empty() || self.operations.len() > LIMIT {
            return Err((
                format!("give between 1 and {LIMIT} [[operation]] entries"),
                "[[operation]]".into(),
            ));
        }
        if let Some((name, _)) = self.keys.iter().find(|(_, keys)| keys.count == 0) {
            return Err((
                format!("key family `{name}` needs a count of at least 1"),
                format!("[keys.{name}]"),
            ));
        }
        let mut names = std::collections::BTreeSet::new();
        for operation in &self.operations {
            let about = |message: String| (message, operation.name.clone());
            if !names.insert(&operation.name) {
                return Err(about(format!("two operations are called `{}`", operation.name)));
            }
            if !(operation.weight >= 0.0 && operation.weight.is_finite()) {
                return Err(about(format!("`{}` needs a weight of 0 or more", operation.name)));
            }
            if operation.statements.is_empty() || operation.statements.len() > LIMIT {
                return Err(about(format!("`{}` needs between 1 and {LIMIT} statements", operation.name)));
            }
            for list in [&operation.statements, &operation.after] {
                for (number, statement) in list.iter().enumerate() {
                    self.check_statement(statement, number)
                        .map_err(|message| (message, statement.sql.clone()))?;
                }
            }
        }
        if self.operations.iter().map(|o| o.weight).sum::<f64>() <= 0.0 {
            return Err(("at least one operation needs a weight above 0".into(), "weight".into()));
        }
        Ok(())
    }

    fn check_statement(&self, statement: &Statement, number: usize) -> Result<(), String> {
        let used = highest_parameter(&statement.sql);
        if used != statement.params.len() {
            return Err(format!(
                "this statement uses parameters up to ${used}, but `params` describes {}",
                statement.params.len()
            ));
        }
        if statement.repeat == 0 || statement.repeat as usize > LIMIT {
            return Err(format!("`repeat` must be between 1 and {LIMIT}"));
        }
        let needs_rows = statement.for_each_row || statement.params.iter().any(|p| p.column.is_some());
        if needs_rows && number == 0 {
            return Err(
                "the first statement has no rows before it: `column` and `for_each_row` need some".into()
            );
        }
        for param in &statement.params {
            self.check_param(param)?;
        }
        Ok(())
    }

    fn check_param(&self, param: &Param) -> Result<(), String> {
        let sources =
            [param.key.is_some(), param.between.is_some(), param.choice.is_some(), param.column.is_some()];
        if sources.iter().filter(|s| **s).count() != 1 {
            return Err("each parameter needs exactly one of `key`, `between`, `choice` and `column`".into());
        }
        if let Some(name) = &param.key
            && !self.keys.contains_key(name)
        {
            let known: Vec<&str> = self.keys.keys().map(String::as_str).collect();
            return Err(format!("no key family `{name}`; there are: {}", known.join(", ")));
        }
        if param.skew.is_some_and(|s| !(s > 0.0 && s <= 100.0)) {
            return Err("`skew` must be above 0 and at most 100".into());
        }
        if param.between.is_some_and(|[low, high]| low > high) {
            return Err("`between` needs the lower end first".into());
        }
        if param.choice.as_ref().is_some_and(Vec::is_empty) {
            return Err("`choice` needs at least one value".into());
        }
        if param.array.is_some_and(|n| n == 0 || n as usize > LIMIT) {
            return Err(format!("`array` must be between 1 and {LIMIT}"));
        }
        Ok(())
    }
}

/// The highest n of `$n` in `sql`, 0 without any. Quoted text is not looked into.
fn highest_parameter(sql: &str) -> usize {
    let mut highest = 0;
    for (number, piece) in sql.split('\'').enumerate() {
        if number % 2 == 1 {
            continue;
        }
        for rest in piece.split('$').skip(1) {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            highest = highest.max(digits.parse().unwrap_or(0));
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "rate = 20\n[before]\nmax = 20\nmin = 20\n[keys.user]\ncount = 10\nfirst = 5\nstep = 2\n\
        [[operation]]\nname = \"look\"\nweight = 1\n[[operation.statement]]\nsql = \"select $1::int8\"\n\
        params = [{ key = \"user\" }]\n";

    fn fault(from: &str, to: &str) -> (String, Option<(usize, usize)>) {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        let error = Workload::parse(&text).unwrap_err();
        let position = error.position(&text);
        (error.message, position)
    }

    #[test]
    fn reads_a_workload_and_scales_its_keys() {
        let workload = Workload::parse(GOOD).unwrap().scaled(0.5);
        assert_eq!(workload.keys["user"].count, 5);
        assert_eq!(workload.operations[0].statements[0].repeat, 1);
        assert_eq!(Workload::parse(GOOD).unwrap().scaled(0.0001).keys["user"].count, 1);
    }

    #[test]
    fn points_at_what_is_wrong() {
        let (message, position) = fault("weight", "wieght");
        assert!(message.contains("wieght") && message.contains("weight"), "{message}");
        assert_eq!(position, Some((11, 1)));
        let (message, position) = fault("key = \"user\"", "key = \"usr\"");
        assert!(message.contains("`usr`") && message.contains("user"), "{message}");
        assert_eq!(position.map(|p| p.0), Some(13));
        let (message, _) = fault("$1", "$2");
        assert!(message.contains("up to $2"), "{message}");
        let (message, _) = fault("rate = 20", "rate = -1");
        assert!(message.contains("`rate`"), "{message}");
        let (message, _) = fault("{ key = \"user\" }", "{ column = 0 }");
        assert!(message.contains("no rows before"), "{message}");
    }

    #[test]
    fn the_example_is_a_good_workload() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/discord-bot/workload.toml");
        let workload = Workload::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((workload.before.max, workload.before.min), (20, 20));
        let fixed: Vec<_> =
            workload.operations.iter().flat_map(|o| &o.after).filter_map(|s| s.fixes.as_deref()).collect();
        for kind in ["one_row_inserts", "n_plus_one", "repeated_reads", "offset_paging", "missing_where"] {
            assert!(fixed.contains(&kind), "{kind}");
        }
    }
}
