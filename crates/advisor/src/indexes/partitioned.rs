//! Partitioned tables: no index can be built concurrently on the parent, so what is wanted is said instead.

use std::collections::BTreeSet;

use super::Observed;
use crate::catalog::{Catalog, Table};
use crate::quote;

/// One remark for each column that a large partitioned table is searched by with no index.
pub(super) fn remarks(catalog: &Catalog, observed: &[Observed]) -> Vec<String> {
    let mut said = BTreeSet::new();
    for used in observed.iter().flat_map(|statement| &statement.read.uses) {
        let table = catalog.resolve(Some(&used.schema), &used.table);
        let Some(table) = table.filter(|table| table.partitioned && !table.small()) else { continue };
        for column in used.equal.iter().chain(&used.joined) {
            let keys = [(column.clone(), false)];
            if !table.served(&keys, 1) && !table.unique_in(std::slice::from_ref(column)) {
                said.insert(remark(table, column));
            }
        }
    }
    said.into_iter().collect()
}

fn remark(table: &Table, column: &str) -> String {
    let (name, column) = (table.qualified(), quote(column));
    format!(
        "{name} is partitioned and is searched by {column} with no index; none is built here, for CONCURRENTLY does \
         not work on a partitioned table. By hand: CREATE INDEX ON ONLY {name} ({column}), then for each partition \
         CREATE INDEX CONCURRENTLY on ({column}) and ALTER INDEX … ATTACH PARTITION."
    )
}
