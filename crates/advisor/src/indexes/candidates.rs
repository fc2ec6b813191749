//! Which indexes could serve which statements.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Table};
use crate::statement::{Filter, Kind, Statement, Use};

/// Most columns in one candidate.
const WIDTH_MAX: usize = 3;

/// Widest row part that is worth carrying in an index only to answer from it, in bytes.
const INCLUDE_BYTES_MAX: f64 = 64.0;
/// Most columns carried so.
const INCLUDE_MAX: usize = 3;

/// An index that might help.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Schema of its table.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Key columns with `true` for DESC; of an expression, the column in it.
    pub columns: Vec<(String, bool)>,
    /// Columns carried so that the table need not be read.
    pub include: Vec<String>,
    /// The key, where it is no column.
    pub expression: Option<String>,
    /// Predicate of a partial index: column, and what follows it.
    pub filter: Option<Filter>,
}

impl Candidate {
    /// Names of the key columns.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether every look-up of `self` could be served by `other`, which does more.
    pub fn prefix_of(&self, other: &Candidate) -> bool {
        let theirs = other.names();
        self.schema == other.schema
            && self.table == other.table
            && self != other
            && self.expression == other.expression
            && self.filter == other.filter
            && theirs.starts_with(&self.names())
            && (self.columns.len() < other.columns.len() || self.include.len() < other.include.len())
            && self.include.iter().all(|name| other.include.contains(name) || theirs.contains(name))
    }

    /// Whether a change of `column` changes the index.
    pub fn holds(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == column)
            || self.include.iter().any(|name| name == column)
            || self.filter.as_ref().is_some_and(|filter| filter.column == column)
    }

    /// `schema.table (a, b DESC) INCLUDE (c) WHERE d IS NULL`.
    pub fn target(&self) -> String {
        let plain = |(name, descending): &(String, bool)| {
            format!("{}{}", crate::quote(name), if *descending { " DESC" } else { "" })
        };
        let keys = match &self.expression {
            Some(expression) => format!("({expression})"),
            None => self.columns.iter().map(plain).collect::<Vec<_>>().join(", "),
        };
        let carried: Vec<String> = self.include.iter().map(|name| crate::quote(name)).collect();
        let carried =
            if carried.is_empty() { String::new() } else { format!(" INCLUDE ({})", carried.join(", ")) };
        let filter =
            self.filter.as_ref().map(|filter| format!(" WHERE {}", filter.sql())).unwrap_or_default();
        format!("{}.{} ({keys}){carried}{filter}", crate::quote(&self.schema), crate::quote(&self.table))
    }

    /// Size guessed from rows and widths, in bytes; used where the server cannot say.
    pub fn bytes(&self, table: &Table) -> f64 {
        table.rows * (self.entry_bytes(table) + 16.0) / 0.9
    }

    /// Mean width of the values in one entry, in bytes.
    pub fn entry_bytes(&self, table: &Table) -> f64 {
        let names = self.columns.iter().map(|(name, _)| name).chain(&self.include);
        names.filter_map(|name| table.column(name)).map(|column| column.width_bytes).sum()
    }
}

/// A table of fewer pages is read as fast as an index of it.
const PAGES_MIN: u64 = 8;
/// Share of all calls from which a statement on a small table is worth an index.
const HOT_SHARE_MIN: f64 = 0.1;

/// Candidates with the places (in `statements`) of those that they might serve. `shares` are the statements' parts
/// of all calls.
pub fn candidates(
    statements: &[Statement],
    shares: &[f64],
    catalog: &Catalog,
) -> BTreeMap<Candidate, Vec<usize>> {
    let mut found: BTreeMap<Candidate, Vec<usize>> = BTreeMap::new();
    for (place, statement) in statements.iter().enumerate() {
        for used in &statement.uses {
            let Some(table) = catalog.resolve(Some(&used.schema), &used.table) else { continue };
            let hot = shares.get(place).is_some_and(|share| *share >= HOT_SHARE_MIN);
            if table.pages < PAGES_MIN || (table.small() && !hot) || table.partitioned {
                continue;
            }
            let mut add = |candidate: Candidate| {
                let places = found.entry(candidate).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            };
            for (columns, free) in of_use(used, table) {
                let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
                if !indexable(table, &names) || served(table, used, &columns, free) {
                    continue;
                }
                let (schema, name) = (table.schema.clone(), table.name.clone());
                let plain = Candidate { schema, table: name, columns, ..Candidate::default() };
                for filter in used.filters.iter().filter(|filter| !names.contains(&filter.column)) {
                    add(Candidate { filter: Some(filter.clone()), ..plain.clone() });
                }
                if let Some(include) = carried(statement, used, table, &names) {
                    add(Candidate { include, ..plain.clone() });
                }
                add(plain);
            }
            for (column, expression) in &used.computed {
                add(Candidate {
                    schema: table.schema.clone(),
                    table: table.name.clone(),
                    columns: vec![(column.clone(), false)],
                    expression: Some(expression.clone()),
                    ..Candidate::default()
                });
            }
        }
    }
    // A partial index is for those alone who all say its predicate.
    let whole: BTreeMap<Candidate, usize> = found
        .iter()
        .filter(|(c, _)| c.filter.is_none())
        .map(|(c, places)| (c.clone(), places.len()))
        .collect();
    found.retain(|candidate, places| {
        let plain = Candidate { filter: None, ..candidate.clone() };
        candidate.filter.is_none() || whole.get(&plain) == Some(&places.len())
    });
    found
}

fn indexable(table: &Table, names: &[String]) -> bool {
    !names.is_empty() && names.iter().all(|name| table.column(name).is_some_and(|column| column.btree))
}

/// The few narrow columns that a statement reads besides the key, if an index could answer it alone.
fn carried(statement: &Statement, used: &Use, table: &Table, names: &[String]) -> Option<Vec<String>> {
    if statement.kind != Kind::Select || statement.uses.len() != 1 {
        return None;
    }
    let mut rest: Vec<String> =
        used.read.as_ref()?.iter().filter(|name| !names.contains(name)).cloned().collect();
    rest.sort();
    let width: f64 = rest.iter().filter_map(|name| table.column(name)).map(|column| column.width_bytes).sum();
    (!rest.is_empty() && rest.len() <= INCLUDE_MAX && width <= INCLUDE_BYTES_MAX).then_some(rest)
}

/// Column lists for one use of a table: equality columns (most distinct first), then a range or ORDER BY; with the
/// number of columns at the front whose order does not matter.
fn of_use(used: &Use, table: &Table) -> Vec<(Vec<(String, bool)>, usize)> {
    let mut equal = used.equal.clone();
    equal.sort_by(|a, b| table.distinct(b).total_cmp(&table.distinct(a)));
    equal.truncate(WIDTH_MAX);
    let ascending = |names: &[String]| names.iter().map(|name| (name.clone(), false)).collect::<Vec<_>>();
    let mut lists: Vec<(Vec<(String, bool)>, usize)> = Vec::new();
    let mut prefixes: Vec<Vec<String>> = vec![equal.clone()];
    prefixes.extend(equal.iter().map(|name| vec![name.clone()]));
    for join in used.joined.iter().filter(|name| !equal.contains(name)) {
        prefixes.push(vec![join.clone()]);
        prefixes.push([std::slice::from_ref(join), &equal].concat());
        prefixes.push([&equal[..], std::slice::from_ref(join)].concat());
    }
    for prefix in prefixes {
        let free = prefix.len();
        lists.push((ascending(&prefix), free));
        for range in used.range.iter().filter(|name| !prefix.contains(name)) {
            lists.push((ascending(&[&prefix[..], std::slice::from_ref(range)].concat()), free));
        }
        let order: Vec<(String, bool)> =
            used.order.iter().filter(|(name, _)| !prefix.contains(name)).cloned().collect();
        if !order.is_empty() && (used.limited || !prefix.is_empty()) {
            lists.push(([ascending(&prefix), order].concat(), free));
        }
    }
    lists.retain(|(list, _)| !list.is_empty() && list.len() <= WIDTH_MAX);
    lists.sort();
    lists.dedup();
    lists
}

/// Whether what exists does already what this list would do.
fn served(table: &Table, used: &Use, columns: &[(String, bool)], free: usize) -> bool {
    let equal: Vec<String> = used.equal.iter().chain(&used.joined).cloned().collect();
    // At most one row answers a look-up by a unique key: nothing is left to narrow down.
    table.served(columns, free)
        || table.unique_in(&used.equal)
        || (table.unique_in(&equal) && table.served(&columns[..1], 1))
}
