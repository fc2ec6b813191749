//! Draws operations and parameters from a workload; the same seed draws the same.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::workload::{Operation, Param, Statement, Workload};

/// When each operation is to start, in seconds from the beginning of the run, and which it is.
///
/// Arrivals are a Poisson process: gaps are exponential with mean `1 / rate_ops`.
#[must_use]
pub fn schedule(workload: &Workload, rate_ops: f64, duration_s: f64, seed: u64) -> Vec<(f64, usize)> {
    let mut random = StdRng::seed_from_u64(seed);
    let total: f64 = workload.operations.iter().map(|o| o.weight).sum();
    let mut arrivals = Vec::new();
    let mut at = 0.0;
    loop {
        at -= (1.0 - random.random::<f64>()).ln() / rate_ops;
        if at >= duration_s {
            return arrivals;
        }
        arrivals.push((at, pick(&workload.operations, random.random::<f64>() * total)));
    }
}

fn pick(operations: &[Operation], mut point: f64) -> usize {
    for (index, operation) in operations.iter().enumerate() {
        if point < operation.weight {
            return index;
        }
        point -= operation.weight;
    }
    operations.iter().rposition(|o| o.weight > 0.0).unwrap_or(0)
}

/// The parameters of one statement, over its repeats.
pub struct Draws<'a> {
    workload: &'a Workload,
    statement: &'a Statement,
    /// What `once` and `climb` keep from the first repeat.
    kept: Vec<Option<String>>,
}

impl<'a> Draws<'a> {
    /// For one statement of one operation.
    #[must_use]
    pub fn new(workload: &'a Workload, statement: &'a Statement) -> Self {
        Self { workload, statement, kept: vec![None; statement.params.len()] }
    }

    /// The next repeat's parameters. `rows` are the values the statement before it returned, `row` the one this
    /// repeat is for.
    pub fn next(&mut self, random: &mut StdRng, rows: &[Option<String>], row: usize) -> Vec<String> {
        let params = &self.statement.params;
        let mut values = Vec::with_capacity(params.len());
        for (param, kept) in params.iter().zip(&mut self.kept) {
            let value = match kept.as_deref() {
                Some(first) if param.once => first.to_owned(),
                Some(before) if param.climb.is_some() => climb(self.workload, param, before),
                _ => value(self.workload, param, random, rows, row),
            };
            *kept = Some(value.clone());
            values.push(value);
        }
        values
    }
}

fn climb(workload: &Workload, param: &Param, before: &str) -> String {
    let step = param.key.as_ref().and_then(|name| workload.keys.get(name)).map_or(1, |keys| keys.step);
    let value: i64 = before.parse().unwrap_or(0);
    (value + param.climb.unwrap_or(0) * step).to_string()
}

fn value(
    workload: &Workload,
    param: &Param,
    random: &mut StdRng,
    rows: &[Option<String>],
    row: usize,
) -> String {
    let Some(count) = param.array else {
        return single(workload, param, random, rows, row);
    };
    let count = count as usize;
    let items: Vec<String> = if param.column.is_some() {
        rows.iter().take(count).flatten().cloned().collect()
    } else {
        (0..count).map(|_| single(workload, param, random, rows, row)).collect()
    };
    format!("{{{}}}", items.join(","))
}

fn single(
    workload: &Workload,
    param: &Param,
    random: &mut StdRng,
    rows: &[Option<String>],
    row: usize,
) -> String {
    if let Some(keys) = param.key.as_ref().and_then(|name| workload.keys.get(name)) {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let number = (keys.count as f64 * random.random::<f64>().powf(param.skew.unwrap_or(1.0))) as i64;
        return (keys.first + number * keys.step).to_string();
    }
    if let Some([low, high]) = param.between {
        return random.random_range(low..=high).to_string();
    }
    if let Some(choice) = &param.choice {
        return choice[random.random_range(0..choice.len())].clone();
    }
    rows.get(row).and_then(Clone::clone).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot() -> Workload {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/discord-bot/workload.toml");
        Workload::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn arrivals_follow_the_rate_the_weights_and_the_seed() {
        let workload = bot();
        let arrivals = schedule(&workload, 100.0, 200.0, 7);
        assert!((19_400..20_600).contains(&arrivals.len()), "{}", arrivals.len());
        assert!(arrivals.is_sorted_by(|a, b| a.0 <= b.0));
        let total: f64 = workload.operations.iter().map(|o| o.weight).sum();
        for (index, operation) in workload.operations.iter().enumerate() {
            let share = arrivals.iter().filter(|a| a.1 == index).count() as f64 / arrivals.len() as f64;
            assert!((share - operation.weight / total).abs() < 0.02, "{} {share}", operation.name);
        }
        assert_eq!(arrivals, schedule(&workload, 100.0, 200.0, 7));
        assert_ne!(arrivals, schedule(&workload, 100.0, 200.0, 8));
    }

    #[test]
    fn keeps_climbs_and_collects() {
        let text = "rate = 1\n[before]\nmax = 1\nmin = 1\n[keys.k]\ncount = 100\nfirst = 1000\nstep = 10\n[[operation]]\n\
            name = \"x\"\nweight = 1\n[[operation.statement]]\nsql = \"select 1\"\n[[operation.statement]]\n\
            sql = \"select $1, $2, $3, $4\"\nrepeat = 3\nparams = [{ key = \"k\", climb = 2 }, { key = \"k\", once = true }, \
            { column = 0, array = 2 }, { between = [5, 5], array = 3 }]\n";
        let workload = Workload::parse(text).unwrap();
        let mut draws = Draws::new(&workload, &workload.operations[0].statements[1]);
        let mut random = StdRng::seed_from_u64(1);
        let rows = [Some("a".to_owned()), None, Some("b".to_owned()), Some("c".to_owned())];
        let first = draws.next(&mut random, &rows, 0);
        let second = draws.next(&mut random, &rows, 1);
        let start: i64 = first[0].parse().unwrap();
        assert!((1000..2000).contains(&start) && start % 10 == 0, "{start}");
        assert_eq!(second[0], (start + 20).to_string());
        assert_eq!(first[1], second[1]);
        assert_eq!(first[2], "{a}");
        assert_eq!(first[3], "{5,5,5}");
    }
}
