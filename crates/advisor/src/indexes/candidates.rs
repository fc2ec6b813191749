//! Which indexes could serve which statements.

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Table};
use crate::statement::{Statement, Use};

/// Most columns in one candidate.
const WIDTH_MAX: usize = 3;

/// An index that might help.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Schema of its table.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Key columns with `true` for DESC.
    pub columns: Vec<(String, bool)>,
}

impl Candidate {
    /// Names of the key columns.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether every look-up of `self` could be served by `other`, which has more columns.
    pub fn prefix_of(&self, other: &Candidate) -> bool {
        self.schema == other.schema
            && self.table == other.table
            && self.columns.len() < other.columns.len()
            && other.names().starts_with(&self.names())
    }

    /// `table USING btree (a, b DESC)`.
    pub fn target(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, descending)| {
                format!("{}{}", crate::quote(name), if *descending { " DESC" } else { "" })
            })
            .collect();
        format!("{}.{} ({})", crate::quote(&self.schema), crate::quote(&self.table), columns.join(", "))
    }

    /// Size guessed from rows and widths, in bytes; used where the server cannot say.
    pub fn bytes(&self, table: &Table) -> f64 {
        let width: f64 =
            self.names().iter().filter_map(|name| table.column(name)).map(|column| column.width_bytes).sum();
        table.rows * (width + 16.0) / 0.9
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
            for columns in of_use(used, table) {
                let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
                let indexable =
                    names.iter().all(|name| table.column(name).is_some_and(|column| column.btree));
                if names.is_empty() || !indexable || served(table, used, &columns) {
                    continue;
                }
                let candidate =
                    Candidate { schema: table.schema.clone(), table: table.name.clone(), columns };
                let places = found.entry(candidate).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
    }
    found
}

/// Column lists for one use of a table: equality columns (most distinct first), then a range or ORDER BY.
fn of_use(used: &Use, table: &Table) -> Vec<Vec<(String, bool)>> {
    let mut equal = used.equal.clone();
    equal.sort_by(|a, b| table.distinct(b).total_cmp(&table.distinct(a)));
    equal.truncate(WIDTH_MAX);
    let ascending = |names: &[String]| names.iter().map(|name| (name.clone(), false)).collect::<Vec<_>>();
    let mut lists: Vec<Vec<(String, bool)>> = Vec::new();
    let mut prefixes: Vec<Vec<String>> = vec![equal.clone()];
    prefixes.extend(equal.iter().map(|name| vec![name.clone()]));
    for join in used.joined.iter().filter(|name| !equal.contains(name)) {
        prefixes.push(vec![join.clone()]);
        prefixes.push([std::slice::from_ref(join), &equal].concat());
        prefixes.push([&equal[..], std::slice::from_ref(join)].concat());
    }
    for prefix in prefixes {
        lists.push(ascending(&prefix));
        for range in used.range.iter().filter(|name| !prefix.contains(name)) {
            lists.push(ascending(&[&prefix[..], std::slice::from_ref(range)].concat()));
        }
        let order: Vec<(String, bool)> =
            used.order.iter().filter(|(name, _)| !prefix.contains(name)).cloned().collect();
        if !order.is_empty() && (used.limited || !prefix.is_empty()) {
            lists.push([ascending(&prefix), order].concat());
        }
    }
    lists.retain(|list| !list.is_empty() && list.len() <= WIDTH_MAX);
    lists.sort();
    lists.dedup();
    lists
}

/// Whether what exists does already what this list would do.
fn served(table: &Table, used: &Use, columns: &[(String, bool)]) -> bool {
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let equal: Vec<String> = used.equal.iter().chain(&used.joined).cloned().collect();
    // At most one row answers a look-up by a unique key: nothing is left to narrow down.
    table.served(&names)
        || table.unique_in(&used.equal)
        || (table.unique_in(&equal) && table.served(&names[..1]))
}
