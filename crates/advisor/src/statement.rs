//! What one statement does to which columns, read from PostgreSQL's own parse tree.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExprKind, BoolExprType, ColumnRef, Node, RangeVar, SelectStmt, SortByDir, node::Node as N,
};

use crate::catalog::{Catalog, Table};

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
}

/// A statement, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// What it is.
    pub kind: Kind,
    /// Every table it uses, subqueries included.
    pub uses: Vec<Use>,
}

/// Reads one statement; `None` if it does not parse or is several.
pub fn read(sql: &str, catalog: &Catalog) -> Option<Statement> {
    let tree = pg_query::parse(sql).ok()?;
    let [raw] = tree.protobuf.stmts.as_slice() else { return None };
    let mut reader = Reader { catalog, uses: Vec::new() };
    let kind = match raw.stmt.as_ref()?.node.as_ref()? {
        NodeEnum::SelectStmt(select) => {
            reader.select(select);
            Kind::Select
        }
        NodeEnum::InsertStmt(insert) => {
            if let Some(N::SelectStmt(select)) = insert.select_stmt.as_ref().and_then(|n| n.node.as_ref()) {
                reader.select(select);
            }
            Kind::Insert
        }
        NodeEnum::UpdateStmt(update) => {
            reader.level(update.relation.as_ref(), &update.from_clause, update.where_clause.as_deref());
            Kind::Update
        }
        NodeEnum::DeleteStmt(delete) => {
            reader.level(delete.relation.as_ref(), &delete.using_clause, delete.where_clause.as_deref());
            Kind::Delete
        }
        _ => Kind::Other,
    };
    Some(Statement { kind, uses: reader.uses })
}

struct Reader<'a> {
    catalog: &'a Catalog,
    uses: Vec<Use>,
}

impl Reader<'_> {
    fn select(&mut self, select: &SelectStmt) {
        for side in [&select.larg, &select.rarg].into_iter().flatten() {
            self.select(side);
        }
        for cte in select.with_clause.iter().flat_map(|with| &with.ctes) {
            if let Some(N::CommonTableExpr(cte)) = &cte.node
                && let Some(N::SelectStmt(inner)) = cte.ctequery.as_ref().and_then(|n| n.node.as_ref())
            {
                self.select(inner);
            }
        }
        let first = self.uses.len();
        self.level(None, &select.from_clause, select.where_clause.as_deref());
        let order = self.order(&select.sort_clause, first);
        for used in &mut self.uses[first..] {
            used.limited = select.limit_count.is_some();
            if let Some((place, columns)) = &order
                && *place == used.alias
            {
                used.order = columns.clone();
            }
        }
        for target in &select.target_list {
            if let Some(N::ResTarget(target)) = &target.node
                && let Some(value) = &target.val
            {
                self.subqueries(value);
            }
        }
    }

    fn level(&mut self, target: Option<&RangeVar>, from: &[Node], filter: Option<&Node>) {
        let first = self.uses.len();
        if let Some(range) = target {
            self.table(range);
        }
        let mut conditions = Vec::new();
        for item in from {
            self.from(item, &mut conditions);
        }
        conditions.extend(filter.cloned());
        for condition in &conditions {
            self.condition(condition, first);
        }
    }

    fn table(&mut self, range: &RangeVar) {
        let schema = Some(range.schemaname.as_str()).filter(|schema| !schema.is_empty());
        if let Some(table) = self.catalog.resolve(schema, &range.relname) {
            let alias = range.alias.as_ref().map_or(&range.relname, |alias| &alias.aliasname).clone();
            let (schema, table) = (table.schema.clone(), table.name.clone());
            self.uses.push(Use { schema, table, alias, ..Use::default() });
        }
    }

    fn from(&mut self, item: &Node, conditions: &mut Vec<Node>) {
        match &item.node {
            Some(N::RangeVar(range)) => self.table(range),
            Some(N::JoinExpr(join)) => {
                let first = self.uses.len();
                for side in [&join.larg, &join.rarg].into_iter().flatten() {
                    self.from(side, conditions);
                }
                conditions.extend(join.quals.as_deref().cloned());
                for column in join.using_clause.iter().filter_map(text) {
                    for used in &mut self.uses[first..] {
                        add(&mut used.joined, column);
                    }
                }
            }
            Some(N::RangeSubselect(inner)) => {
                if let Some(N::SelectStmt(select)) = inner.subquery.as_ref().and_then(|n| n.node.as_ref()) {
                    self.select(select);
                }
            }
            _ => {}
        }
    }

    fn condition(&mut self, node: &Node, first: usize) {
        match &node.node {
            Some(N::BoolExpr(all)) if all.boolop() == BoolExprType::AndExpr => {
                for part in &all.args {
                    self.condition(part, first);
                }
            }
            Some(N::AExpr(compare)) => {
                let (Some(left), Some(right)) = (&compare.lexpr, &compare.rexpr) else { return };
                let operator = compare.name.first().and_then(text).unwrap_or_default();
                self.compare(compare.kind(), operator, left, right, first);
                self.compare(compare.kind(), operator, right, left, first);
                self.subqueries(left);
                self.subqueries(right);
            }
            Some(N::SubLink(link)) => {
                if let Some(N::ColumnRef(column)) = link.testexpr.as_ref().and_then(|n| n.node.as_ref())
                    && let Some((place, name)) = self.find(column, first)
                {
                    add(&mut self.uses[place].joined, &name);
                }
                self.subqueries(node);
            }
            _ => self.subqueries(node),
        }
    }

    fn compare(&mut self, kind: AExprKind, operator: &str, side: &Node, other: &Node, first: usize) {
        let Some(N::ColumnRef(column)) = &side.node else { return };
        let Some((place, name)) = self.find(column, first) else { return };
        let partner = match &other.node {
            Some(N::ColumnRef(column)) => self.find(column, 0).filter(|(other, _)| *other != place),
            _ => None,
        };
        let used = &mut self.uses[place];
        match (kind, operator) {
            (AExprKind::AexprOp, "=") if partner.is_some() => add(&mut used.joined, &name),
            (AExprKind::AexprOp | AExprKind::AexprOpAny | AExprKind::AexprIn, "=") if value(other) => {
                add(&mut used.equal, &name);
            }
            (AExprKind::AexprOp, "<" | ">" | "<=" | ">=") | (AExprKind::AexprBetween, _) => {
                add(&mut used.range, &name);
            }
            _ => {}
        }
    }

    /// The use and column that a reference means, innermost level first.
    fn find(&self, column: &ColumnRef, first: usize) -> Option<(usize, String)> {
        let names: Vec<&str> = column.fields.iter().filter_map(text).collect();
        let (alias, name) = match names.as_slice() {
            [name] => (None, *name),
            [.., alias, name] => (Some(*alias), *name),
            [] => return None,
        };
        let fits = |place: &usize| {
            let used = &self.uses[*place];
            alias.is_none_or(|alias| alias == used.alias)
                && self.of(used).is_some_and(|table| table.column(name).is_some())
        };
        let place = (first..self.uses.len()).find(fits).or_else(|| (0..first).find(fits))?;
        Some((place, name.to_owned()))
    }

    fn of(&self, used: &Use) -> Option<&Table> {
        self.catalog.resolve(Some(&used.schema), &used.table)
    }

    fn order(&self, sort: &[Node], first: usize) -> Option<(String, Vec<(String, bool)>)> {
        let mut owner = None;
        let mut columns = Vec::new();
        for item in sort {
            let Some(N::SortBy(by)) = &item.node else { return None };
            let Some(N::ColumnRef(column)) = by.node.as_ref().and_then(|n| n.node.as_ref()) else {
                return None;
            };
            let (place, name) = self.find(column, first)?;
            if *owner.get_or_insert(place) != place {
                return None;
            }
            columns.push((name, by.sortby_dir() == SortByDir::SortbyDesc));
        }
        Some((self.uses.get(owner?)?.alias.clone(), columns))
    }

    /// Reads every SELECT inside an expression.
    fn subqueries(&mut self, node: &Node) {
        match &node.node {
            Some(N::SubLink(link)) => {
                if let Some(N::SelectStmt(select)) = link.subselect.as_ref().and_then(|n| n.node.as_ref()) {
                    self.select(select);
                }
            }
            Some(N::BoolExpr(expression)) => expression.args.iter().for_each(|part| self.subqueries(part)),
            Some(N::FuncCall(call)) => call.args.iter().for_each(|part| self.subqueries(part)),
            Some(N::CoalesceExpr(call)) => call.args.iter().for_each(|part| self.subqueries(part)),
            _ => {}
        }
    }
}

/// Whether a node is a value at run time: a parameter, a constant, a list or array of them, a cast of one.
fn value(node: &Node) -> bool {
    match &node.node {
        Some(N::ParamRef(_) | N::AConst(_)) => true,
        Some(N::TypeCast(cast)) => cast.arg.as_deref().is_some_and(value),
        Some(N::AArrayExpr(array)) => array.elements.iter().all(value),
        Some(N::List(list)) => list.items.iter().all(value),
        Some(N::SubLink(_)) => true,
        _ => false,
    }
}

fn text(node: &Node) -> Option<&str> {
    match &node.node {
        Some(N::String(name)) => Some(&name.sval),
        _ => None,
    }
}

fn add(list: &mut Vec<String>, name: &str) {
    if !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}
