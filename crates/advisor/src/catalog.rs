//! What the database says of its tables, columns and indexes.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use crate::AdvisorError;

/// One column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// `format_type` of it without its modifier, as in `bigint`: a cast to it never cuts off anything.
    pub type_name: String,
    /// Whether it is declared NOT NULL.
    pub not_null: bool,
    /// Whether a default B-tree operator class takes its type.
    pub btree: bool,
    /// Mean width in bytes, from the statistics; 8 where there are none.
    pub width_bytes: f64,
    /// Distinct values, negative as a share of the rows (pg_stats); 0 where unknown.
    pub distinct: f64,
}

/// One index that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Its name, unquoted.
    pub name: String,
    /// Names of its key columns in order; empty for an expression.
    pub columns: Vec<String>,
    /// Whether each key column is descending.
    pub descending: Vec<bool>,
    /// A B-tree, valid or being built, with no predicate: one that any look-up may use.
    pub plain: bool,
    /// Whether PostgreSQL uses it, or will when its build has ended.
    pub valid: bool,
    /// Whether it is unique.
    pub unique: bool,
}

/// One table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its schema, unquoted.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// Rows, as the statistics have it; never negative.
    pub rows: f64,
    /// Pages of 8 KiB, as the file has it now.
    pub pages: u64,
    /// Whether it is partitioned (no index can be built concurrently on the parent).
    pub partitioned: bool,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Its indexes.
    pub indexes: Vec<Index>,
}

/// A table smaller than this is read whole in less time than advice is worth: rows.
pub const SMALL_ROWS: f64 = 1_000.0;
/// The same in pages of 8 KiB.
pub const SMALL_PAGES: u64 = 32;

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Too small for advice: few rows, or few pages.
    pub fn small(&self) -> bool {
        self.rows < SMALL_ROWS || self.pages < SMALL_PAGES
    }

    /// `schema.name`, quoted where needed.
    pub fn qualified(&self) -> String {
        format!("{}.{}", crate::quote(&self.schema), crate::quote(&self.name))
    }

    /// Whether a plain index does what one on these columns would: the first `free` of them in any order, the
    /// rest in order, all in their directions or all in the opposite ones.
    pub fn served(&self, columns: &[(String, bool)], free: usize) -> bool {
        let (any, rest) = columns.split_at(free.min(columns.len()));
        self.indexes.iter().filter(|index| index.plain && index.columns.len() >= columns.len()).any(|index| {
            let (front, back) = index.columns.split_at(any.len());
            let turned: Vec<bool> = rest
                .iter()
                .zip(index.descending.iter().skip(any.len()))
                .map(|((_, wanted), there)| wanted != there)
                .collect();
            any.iter().all(|(name, _)| front.contains(name))
                && rest.iter().zip(back).all(|((name, _), there)| name == there)
                && turned.windows(2).all(|pair| pair[0] == pair[1])
        })
    }

    /// Whether a plain index holds only the first columns of these: a longer one would stand beside it.
    pub fn begun(&self, columns: &[(String, bool)]) -> bool {
        self.indexes.iter().filter(|index| index.plain && !index.columns.is_empty()).any(|index| {
            index.columns.len() < columns.len()
                && index.columns.iter().zip(columns).all(|(there, (name, _))| there == name)
        })
    }

    /// The invalid index on just these key columns, if a failed build left one.
    pub fn leftover(&self, columns: &[String]) -> Option<&Index> {
        self.indexes.iter().find(|index| !index.valid && index.columns == columns)
    }

    /// Whether a unique index lies wholly within these columns: at most one row answers.
    pub fn unique_in(&self, columns: &[String]) -> bool {
        self.indexes.iter().any(|index| {
            index.unique
                && index.plain
                && !index.columns.is_empty()
                && index.columns.iter().all(|column| columns.contains(column))
        })
    }

    /// Estimated distinct values of a column.
    pub fn distinct(&self, name: &str) -> f64 {
        let distinct = self.column(name).map_or(0.0, |column| column.distinct);
        if distinct < 0.0 { -distinct * self.rows } else { distinct }
    }
}

/// The user tables of one database.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    tables: BTreeMap<(String, String), Table>,
    /// Names that an index may not take any more, by schema.
    relations: Vec<String>,
    /// Where unqualified names are looked up, in order.
    pub schemas: Vec<String>,
}

/// Rows and pages of a partitioned table are those of its partitions.
const TABLES: &str = "
SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       (CASE WHEN c.relkind = 'r' THEN c.reltuples::pg_catalog.float8 ELSE p.tuples END),
       (CASE WHEN c.relkind = 'r' THEN COALESCE(pg_catalog.pg_relation_size(c.oid), 0) ELSE p.bytes END / 8192)::pg_catalog.int8,
       c.relkind = 'p'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (SELECT COALESCE(pg_catalog.sum(GREATEST(l.reltuples, 0)), 0)::pg_catalog.float8 AS tuples,
                          COALESCE(pg_catalog.sum(pg_catalog.pg_relation_size(l.oid)), 0) AS bytes
                   FROM pg_catalog.pg_partition_tree(c.oid) t JOIN pg_catalog.pg_class l ON l.oid = t.relid
                   WHERE t.isleaf) p ON c.relkind = 'p'
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

const COLUMNS: &str = "
SELECT a.attrelid, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, -1),
       EXISTS (SELECT 1 FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
               WHERE m.amname = 'btree' AND o.opcdefault AND (o.opcintype = a.atttypid
                 OR t.typname = 'varchar' OR t.typtype = 'e')),
       COALESCE(s.avg_width, NULLIF(a.attlen, -1), 32)::pg_catalog.float8,
       COALESCE(s.n_distinct, 0)::pg_catalog.float8, a.attnotnull
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
  AND s.attname = a.attname AND NOT s.inherited
WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY a.attrelid, a.attnum";

const INDEXES: &str = "
SELECT i.indrelid, c.relname::pg_catalog.text,
       ARRAY(SELECT a.attname::pg_catalog.text FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[])
             WITH ORDINALITY AS k(attnum, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place <= i.indnkeyatts ORDER BY k.place),
       ARRAY(SELECT (o.flag & 1) = 1 FROM pg_catalog.unnest(i.indoption::pg_catalog.int2[])
             WITH ORDINALITY AS o(flag, place) ORDER BY o.place),
       m.amname = 'btree' AND v.valid AND i.indpred IS NULL AND i.indexprs IS NULL,
       i.indisunique, v.valid
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL (SELECT i.indisvalid OR EXISTS (SELECT 1 FROM pg_catalog.pg_stat_progress_create_index p
                    WHERE p.index_relid = i.indexrelid)) AS v(valid)
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = c.relam";

const RELATIONS: &str = "SELECT DISTINCT relname::pg_catalog.text FROM pg_catalog.pg_class";

impl Catalog {
    /// Reads the catalog over a session that `search_path` already protects.
    pub async fn read(client: &Client, schemas: Vec<String>) -> Result<Catalog, AdvisorError> {
        let mut by_oid: BTreeMap<u32, Table> = BTreeMap::new();
        for row in client.query(TABLES, &[]).await? {
            let table = Table {
                schema: row.get(1),
                name: row.get(2),
                rows: row.get::<_, f64>(3).max(0.0),
                pages: u64::try_from(row.get::<_, i64>(4)).unwrap_or(0),
                partitioned: row.get(5),
                columns: Vec::new(),
                indexes: Vec::new(),
            };
            by_oid.insert(row.get(0), table);
        }
        for row in client.query(COLUMNS, &[]).await? {
            if let Some(table) = by_oid.get_mut(&row.get(0)) {
                table.columns.push(Column {
                    name: row.get(1),
                    type_name: row.get(2),
                    btree: row.get(3),
                    width_bytes: row.get(4),
                    distinct: row.get(5),
                    not_null: row.get(6),
                });
            }
        }
        for row in client.query(INDEXES, &[]).await? {
            if let Some(table) = by_oid.get_mut(&row.get(0)) {
                table.indexes.push(Index {
                    name: row.get(1),
                    columns: row.get(2),
                    descending: row.get(3),
                    plain: row.get(4),
                    unique: row.get(5),
                    valid: row.get(6),
                });
            }
        }
        let relations = client.query(RELATIONS, &[]).await?.iter().map(|row| row.get(0)).collect();
        let tables = by_oid.into_values().map(|t| ((t.schema.clone(), t.name.clone()), t)).collect();
        Ok(Catalog { tables, relations, schemas })
    }

    /// A catalog of these tables, for tests and for advice without a database.
    pub fn of(tables: Vec<Table>, schemas: Vec<String>) -> Catalog {
        let tables = tables.into_iter().map(|t| ((t.schema.clone(), t.name.clone()), t)).collect();
        Catalog { tables, relations: Vec::new(), schemas }
    }

    /// The table that `schema.name` (or `name` on the search path) means.
    pub fn resolve(&self, schema: Option<&str>, name: &str) -> Option<&Table> {
        let find = |schema: &str| self.tables.get(&(schema.to_owned(), name.to_owned()));
        match schema {
            Some(schema) => find(schema),
            None => self.schemas.iter().find_map(|schema| find(schema)),
        }
    }

    /// Whether a relation of that name exists in any schema.
    pub fn taken(&self, name: &str) -> bool {
        self.relations.iter().any(|relation| relation == name)
    }
}
