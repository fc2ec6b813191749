//! What one statement does to which columns, read from PostgreSQL's own parse tree.

mod reader;

use pg_query::protobuf::node::Node as N;
use pg_query::{NodeEnum, NodeRef};

use crate::catalog::Catalog;
use reader::{Reader, add, text};

/// What a statement is, as far as advice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SELECT.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// Anything else: no advice.
    Other,
}

/// The use a statement makes of one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Use {
    /// Schema of the table.
    pub schema: String,
    /// Name of the table.
    pub table: String,
    /// Alias or name that the statement knows it by.
    pub alias: String,
    /// Columns compared for equality with a value.
    pub equal: Vec<String>,
    /// Columns compared with a column of another table.
    pub joined: Vec<String>,
    /// Columns compared by <, >, BETWEEN.
    pub range: Vec<String>,
    /// ORDER BY columns, if all of ORDER BY is of this table, with `true` for DESC.
    pub order: Vec<(String, bool)>,
    /// Whether a LIMIT stands on the same level.
    pub limited: bool,
    /// Conditions without a value, which a partial index may have as its predicate.
    pub filters: Vec<Filter>,
    /// Expressions of one column that are compared for equality with a value, with that column.
    pub computed: Vec<(String, String)>,
    /// All columns of the table that the statement reads; `None` if it may read any.
    pub read: Option<Vec<String>>,
}

/// A condition on one column without a value: `IS NULL`, `IS NOT NULL`, or a boolean's truth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// The column, unquoted.
    pub column: String,
    /// What is said of it.
    pub test: Test,
}

/// What a [`Filter`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// `IS NULL`.
    Null,
    /// `IS NOT NULL`.
    NotNull,
    /// The boolean column itself.
    True,
    /// `NOT` the boolean column.
    False,
}

impl Filter {
    /// The condition as SQL.
    pub fn sql(&self) -> String {
        let column = crate::quote(&self.column);
        match self.test {
            Test::Null => format!("{column} IS NULL"),
            Test::NotNull => format!("{column} IS NOT NULL"),
            Test::True => column,
            Test::False => format!("NOT {column}"),
        }
    }
}

/// The table that a statement changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Write {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Columns that an UPDATE sets; `None` for an INSERT, which writes all.
    pub set: Option<Vec<String>>,
}

/// A statement, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is.
    pub kind: Kind,
    /// Every table it uses, subqueries included.
    pub uses: Vec<Use>,
    /// What it changes, if it adds or updates rows.
    pub write: Option<Write>,
}

/// A normalised text that parses: `interval $1`, left where `interval '1 day'` stood, becomes `$1::interval`.
pub fn parsable(sql: &str) -> String {
    const TYPES: [&str; 7] = ["interval", "date", "time", "timestamp", "timestamptz", "uuid", "inet"];
    let Ok(scan) = pg_query::scan(sql) else { return sql.to_owned() };
    let mut out = String::new();
    let mut copied = 0;
    let place = |at: i32| usize::try_from(at).unwrap_or(0);
    for pair in scan.tokens.windows(2) {
        let (word, value) =
            (place(pair[0].start)..place(pair[0].end), place(pair[1].start)..place(pair[1].end));
        let (Some(name), Some(parameter)) = (sql.get(word.clone()), sql.get(value.clone())) else { continue };
        let typed = TYPES.iter().any(|known| known.eq_ignore_ascii_case(name)) && parameter.starts_with('$');
        if typed && copied <= word.start {
            out.push_str(&sql[copied..word.start]);
            out.push_str(&format!("{parameter}::{name}"));
            copied = value.end;
        }
    }
    out.push_str(&sql[copied..]);
    out
}

/// Reads one statement; `None` if it does not parse or is several.
pub fn read(sql: &str, catalog: &Catalog) -> Option<Statement> {
    let tree = pg_query::parse(&parsable(sql)).ok()?;
    let [raw] = tree.protobuf.stmts.as_slice() else { return None };
    let mut reader = Reader::new(catalog);
    let mut write = None;
    let kind = match raw.stmt.as_ref()?.node.as_ref()? {
        NodeEnum::SelectStmt(select) => {
            reader.select(select);
            Kind::Select
        }
        NodeEnum::InsertStmt(insert) => {
            if let Some(N::SelectStmt(select)) = insert.select_stmt.as_ref().and_then(|n| n.node.as_ref()) {
                reader.select(select);
            }
            write = reader.written(insert.relation.as_ref(), None);
            Kind::Insert
        }
        NodeEnum::UpdateStmt(update) => {
            reader.level(update.relation.as_ref(), &update.from_clause, update.where_clause.as_deref());
            let set = update.target_list.iter().filter_map(|target| match &target.node {
                Some(N::ResTarget(target)) => Some(target.name.clone()),
                _ => None,
            });
            write = reader.written(update.relation.as_ref(), Some(set.collect()));
            Kind::Update
        }
        NodeEnum::DeleteStmt(delete) => {
            reader.level(delete.relation.as_ref(), &delete.using_clause, delete.where_clause.as_deref());
            Kind::Delete
        }
        _ => Kind::Other,
    };
    if let [used] = reader.uses.as_mut_slice() {
        used.read = columns_read(&tree.protobuf);
    }
    Some(Statement { kind, uses: reader.uses, write })
}

/// Names of all columns in the statement; `None` where `*` stands for them.
fn columns_read(tree: &pg_query::protobuf::ParseResult) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for (node, ..) in tree.nodes() {
        if let NodeRef::ColumnRef(column) = node {
            add(&mut names, text(column.fields.last()?)?);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::parsable;

    #[test]
    fn a_type_before_a_parameter_becomes_a_cast() {
        let sql = "SELECT date, x FROM t WHERE at > now() - INTERVAL $1 AND \"date\" = $2 AND d < date $3";
        let expected =
            "SELECT date, x FROM t WHERE at > now() - $1::INTERVAL AND \"date\" = $2 AND d < $3::date";
        assert_eq!(parsable(sql), expected);
        assert_eq!(parsable("SELECT 'interval $1' -- ü"), "SELECT 'interval $1' -- ü");
    }
}
