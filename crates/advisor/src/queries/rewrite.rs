//! Rewritten statements, made on PostgreSQL's own parse tree and printed by its own printer.

use pg_query::NodeEnum;
use pg_query::protobuf::{InsertStmt, Node, ParseResult, SelectStmt, node::Node as N};

use crate::catalog::{Catalog, Table};
use crate::statement::{self, Statement, Use};

/// The LIMIT that is put where none was.
pub const LIMIT_ROWS: u32 = 100;

fn parse(sql: &str) -> Option<ParseResult> {
    Some(pg_query::parse(&statement::parsable(sql.trim().trim_end_matches(';'))).ok()?.protobuf)
}

fn select_of(tree: &mut ParseResult) -> Option<&mut SelectStmt> {
    let [raw] = tree.stmts.as_mut_slice() else { return None };
    match raw.stmt.as_mut()?.node.as_mut()? {
        NodeEnum::SelectStmt(select) => Some(select),
        _ => None,
    }
}

/// A piece of a SELECT, made by the parser: `pick` takes it out of `SELECT … FROM t <tail>`.
fn piece<T>(tail: &str, pick: impl Fn(&mut SelectStmt) -> Option<T>) -> Option<T> {
    let mut tree = parse(&format!("SELECT 1 FROM t {tail}"))?;
    pick(select_of(&mut tree)?)
}

fn print(tree: &ParseResult) -> Option<String> {
    pg_query::deparse(tree).ok()
}

/// A plain SELECT of rows: no aggregate, grouping, set operation or LIMIT.
fn rows_only(select: &SelectStmt) -> bool {
    let aggregate = select.target_list.iter().any(|target| match &target.node {
        Some(N::ResTarget(target)) => target.val.as_ref().is_some_and(|value| called(value)),
        _ => false,
    });
    select.larg.is_none()
        && select.group_clause.is_empty()
        && select.limit_count.is_none()
        && select.locking_clause.is_empty()
        && select.into_clause.is_none()
        && !aggregate
}

/// Whether a known aggregate is called.
fn called(node: &Node) -> bool {
    const AGGREGATES: [&str; 11] = [
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "array_agg",
        "string_agg",
        "json_agg",
        "jsonb_agg",
        "bool_and",
        "bool_or",
    ];
    match &node.node {
        Some(N::FuncCall(call)) => call.funcname.last().is_some_and(
            |name| matches!(&name.node, Some(N::String(name)) if AGGREGATES.contains(&name.sval.as_str())),
        ),
        Some(N::TypeCast(cast)) => cast.arg.as_deref().is_some_and(called),
        Some(N::CoalesceExpr(call)) => call.args.iter().any(called),
        _ => false,
    }
}

/// `sql` with a LIMIT; `None` where one would change more than the number of rows.
pub(super) fn with_limit(sql: &str) -> Option<String> {
    let mut tree = parse(sql)?;
    let select = select_of(&mut tree)?;
    if !rows_only(select) {
        return None;
    }
    let donor = piece(&format!("LIMIT {LIMIT_ROWS}"), |donor| donor.limit_count.take())?;
    select.limit_count = Some(donor);
    select.limit_option = pg_query::protobuf::LimitOption::Count as i32;
    print(&tree)
}

/// Whether a SELECT has no WHERE at all.
pub(super) fn unfiltered(sql: &str) -> bool {
    parse(sql)
        .and_then(|mut tree| {
            let select = select_of(&mut tree)?;
            Some(select.where_clause.is_none() && select.larg.is_none() && !select.from_clause.is_empty())
        })
        .unwrap_or(false)
}

/// `sql` with `WHERE alias.column = $n`.
pub(super) fn with_where(sql: &str, alias: &str, column: &str) -> Option<String> {
    let mut tree = parse(sql)?;
    let number = highest(sql) + 1;
    let select = select_of(&mut tree)?;
    let condition = format!("WHERE {}.{} = ${number}", crate::quote(alias), crate::quote(column));
    select.where_clause = Some(piece(&condition, |donor| donor.where_clause.take())?);
    print(&tree)
}

/// `sql` paged by its key: rows after the last one seen, in the order it has, with no OFFSET.
pub(super) fn keyset(sql: &str, used: &Use, table: &Table) -> Option<String> {
    let mut keys = used.order.clone();
    let descending = keys.first()?.1;
    // A row comparison goes one way only.
    if keys.iter().any(|(_, other)| *other != descending) {
        return None;
    }
    let names: Vec<String> = keys.iter().map(|(name, _)| name.clone()).collect();
    if !table.unique_in(&names) {
        let unique = table.indexes.iter().filter(|index| index.unique && index.plain);
        let shortest = unique.min_by_key(|index| index.columns.len())?;
        keys.extend(
            shortest.columns.iter().filter(|name| !names.contains(name)).map(|n| (n.clone(), descending)),
        );
    }
    // A comparison with NULL finds nothing: rows without the key would be lost.
    if !keys.iter().all(|(name, _)| table.column(name).is_some_and(|column| column.not_null)) {
        return None;
    }
    let mut tree = parse(sql)?;
    let select = select_of(&mut tree)?;
    let offset = select.limit_offset.take()?;
    // The place that OFFSET had is free again for the first of the keys.
    let free = match &offset.node {
        Some(N::ParamRef(parameter)) => u32::try_from(parameter.number).ok(),
        _ => None,
    };
    let highest = highest(sql);
    let numbers = free.into_iter().chain(highest + 1..);
    let alias = crate::quote(&used.alias);
    let columns: Vec<String> =
        keys.iter().map(|(name, _)| format!("{alias}.{}", crate::quote(name))).collect();
    let values: Vec<String> = numbers.take(keys.len()).map(|number| format!("${number}")).collect();
    let sign = if descending { "<" } else { ">" };
    let compare = format!("({}) {sign} ({})", columns.join(", "), values.join(", "));
    let ways: Vec<String> =
        columns.iter().map(|c| format!("{c}{}", if descending { " DESC" } else { "" })).collect();
    let (mut condition, sort) = piece(&format!("WHERE {compare} ORDER BY {}", ways.join(", ")), |donor| {
        Some((donor.where_clause.take()?, std::mem::take(&mut donor.sort_clause)))
    })?;
    if let Some(filter) = select.where_clause.take() {
        let mut both = piece("WHERE a AND b", |donor| donor.where_clause.take())?;
        if let Some(N::BoolExpr(and)) = &mut both.node {
            and.args = vec![*filter, *condition];
        }
        condition = both;
    }
    select.where_clause = Some(condition);
    select.sort_clause = sort;
    print(&tree)
}

/// Whether an INSERT has VALUES of one row.
pub(super) fn inserts_one_row(sql: &str) -> bool {
    let insert = |tree: ParseResult| match tree.stmts.into_iter().next()?.stmt?.node? {
        NodeEnum::InsertStmt(insert) => one_row(&insert),
        _ => None,
    };
    parse(sql).and_then(insert).is_some()
}

/// `INSERT INTO t (a, b) SELECT rows.a, now() FROM unnest($1::x[]) rows(a)` for an INSERT of one row: a parameter
/// for an array of each value, expressions without parameters as they stand.
pub(super) fn unnest(sql: &str, catalog: &Catalog) -> Option<String> {
    let mut tree = parse(sql)?;
    let [raw] = tree.stmts.as_mut_slice() else { return None };
    let Some(NodeEnum::InsertStmt(insert)) = raw.stmt.as_mut()?.node.as_mut() else { return None };
    // Two rows of one statement may not update the same third one.
    let updates = |c: &pg_query::protobuf::OnConflictClause| {
        c.action() == pg_query::protobuf::OnConflictAction::OnconflictUpdate
    };
    if insert.on_conflict_clause.as_deref().is_some_and(updates) {
        return None;
    }
    let relation = insert.relation.as_ref()?;
    let schema = Some(relation.schemaname.as_str()).filter(|schema| !schema.is_empty());
    let table = catalog.resolve(schema, &relation.relname)?;
    let values = one_row(insert)?;
    let mut columns: Vec<String> = insert
        .cols
        .iter()
        .filter_map(|column| match &column.node {
            Some(N::ResTarget(target)) => Some(target.name.clone()),
            _ => None,
        })
        .collect();
    if columns.is_empty() {
        columns = table.columns.iter().take(values.len()).map(|column| column.name.clone()).collect();
    }
    if columns.len() != values.len() {
        return None;
    }
    let (mut arrays, mut names, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (name, value) in columns.iter().zip(&values) {
        if varies(value) {
            let type_name = &table.column(name)?.type_name;
            // unnest takes arrays of arrays apart to the last element.
            if type_name.ends_with("[]") {
                return None;
            }
            arrays.push(format!("${}::{type_name}[]", arrays.len() + 1));
            names.push(crate::quote(name));
            targets.push(format!("rows.{}", crate::quote(name)));
        } else if number_free(value) {
            targets.push("NULL".to_owned());
        } else {
            return None;
        }
    }
    if arrays.is_empty() {
        return None;
    }
    let (targets, arrays, names) = (targets.join(", "), arrays.join(", "), names.join(", "));
    let mut source = parse(&format!("SELECT {targets} FROM unnest({arrays}) AS rows({names})"))?;
    for (target, value) in select_of(&mut source)?.target_list.iter_mut().zip(values) {
        if let Some(N::ResTarget(target)) = &mut target.node
            && !varies(&value)
        {
            target.val = Some(Box::new(value));
        }
    }
    insert.select_stmt = source.stmts.into_iter().next()?.stmt;
    print(&tree)
}

/// The values of the one row of an INSERT; `None` if it has several rows or no VALUES.
fn one_row(insert: &InsertStmt) -> Option<Vec<Node>> {
    let Some(N::SelectStmt(select)) = insert.select_stmt.as_ref()?.node.as_ref() else { return None };
    let [row] = select.values_lists.as_slice() else { return None };
    let Some(N::List(row)) = &row.node else { return None };
    Some(row.items.clone())
}

/// Whether a value is given by the client: a parameter, also under a cast.
fn varies(node: &Node) -> bool {
    parameter(node).is_some()
}

/// Whether an expression needs no parameter: a constant, DEFAULT aside, or a call without one (`now()`).
fn number_free(node: &Node) -> bool {
    match &node.node {
        Some(N::AConst(_) | N::SqlvalueFunction(_)) => true,
        Some(N::FuncCall(call)) => call.args.iter().all(number_free),
        Some(N::TypeCast(cast)) => cast.arg.as_deref().is_some_and(number_free),
        _ => false,
    }
}

/// `column = $n` turned into `column = ANY($n)`, with the column among the answers so that they can be told apart.
pub(super) fn any(sql: &str, statement: &Statement, catalog: &Catalog) -> Option<String> {
    let used = statement.uses.iter().find(|used| used.equal.len() == 1)?;
    let column = used.equal.first()?;
    let table = catalog.resolve(Some(&used.schema), &used.table)?;
    let type_name = &table.column(column)?.type_name;
    let mut tree = parse(sql)?;
    let select = select_of(&mut tree)?;
    if select.limit_count.is_some() || !rows_only(select) {
        return None;
    }
    let filter = select.where_clause.as_deref_mut()?;
    let number = replace(filter, column)?;
    let array =
        piece(&format!("WHERE x = ANY(${number}::{type_name}[])"), |donor| donor.where_clause.take())?;
    widen(filter, column, &array);
    if !answers(select, column) {
        let target = format!("SELECT {}.{}", crate::quote(&used.alias), crate::quote(column));
        let mut donor = parse(&target)?;
        select.target_list.append(&mut select_of(&mut donor)?.target_list);
    }
    print(&tree)
}

/// The parameter that the column is compared with.
fn replace(node: &Node, column: &str) -> Option<i32> {
    match &node.node {
        Some(N::BoolExpr(all)) => all.args.iter().find_map(|part| replace(part, column)),
        Some(N::AExpr(compare)) if names(compare.lexpr.as_deref()?, column) => {
            parameter(compare.rexpr.as_deref()?)
        }
        _ => None,
    }
}

fn widen(node: &mut Node, column: &str, array: &Node) {
    let Some(N::AExpr(array)) = &array.node else { return };
    match &mut node.node {
        Some(N::BoolExpr(all)) => all
            .args
            .iter_mut()
            .for_each(|part| widen(part, column, &Node { node: Some(N::AExpr(array.clone())) })),
        Some(N::AExpr(compare))
            if compare.lexpr.as_deref().is_some_and(|side| names(side, column))
                && compare.rexpr.as_deref().and_then(parameter).is_some() =>
        {
            compare.kind = array.kind;
            compare.rexpr.clone_from(&array.rexpr);
        }
        _ => {}
    }
}

fn parameter(node: &Node) -> Option<i32> {
    match &node.node {
        Some(N::ParamRef(parameter)) => Some(parameter.number),
        Some(N::TypeCast(cast)) => parameter(cast.arg.as_deref()?),
        _ => None,
    }
}

fn names(node: &Node, column: &str) -> bool {
    let Some(N::ColumnRef(reference)) = &node.node else { return false };
    matches!(reference.fields.last().and_then(|n| n.node.as_ref()), Some(N::String(name)) if name.sval == column)
}

/// Whether the column, or all columns, are among the answers.
fn answers(select: &SelectStmt, column: &str) -> bool {
    select.target_list.iter().any(|target| {
        let Some(N::ResTarget(target)) = &target.node else { return false };
        let Some(value) = target.val.as_deref() else { return false };
        let star = matches!(&value.node, Some(N::ColumnRef(reference))
            if matches!(reference.fields.last().and_then(|n| n.node.as_ref()), Some(N::AStar(_))));
        star || names(value, column)
    })
}

/// The highest `$n` in a statement, 0 if none.
fn highest(sql: &str) -> u32 {
    let Ok(scan) = pg_query::scan(sql) else { return 0 };
    let numbers = scan.tokens.iter().filter_map(|token| {
        let (start, end) = (usize::try_from(token.start).ok()?, usize::try_from(token.end).ok()?);
        sql.get(start..end)?.strip_prefix('$')?.parse::<u32>().ok()
    });
    numbers.max().unwrap_or(0)
}
