//! One pass over a parse tree: which column of which table is compared with what.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExprKind, BoolExprType, ColumnRef, Node, NullTestType, RangeVar, SelectStmt, SortByDir, node::Node as N,
};

use super::{Filter, Test, Use, Write};
use crate::catalog::{Catalog, Table};

/// Collects the uses of tables, level by level.
pub(super) struct Reader<'a> {
    catalog: &'a Catalog,
    pub(super) uses: Vec<Use>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, uses: Vec::new() }
    }

    pub(super) fn written(&self, relation: Option<&RangeVar>, set: Option<Vec<String>>) -> Option<Write> {
        let relation = relation?;
        let schema = Some(relation.schemaname.as_str()).filter(|schema| !schema.is_empty());
        let table = self.catalog.resolve(schema, &relation.relname)?;
        Some(Write { schema: table.schema.clone(), table: table.name.clone(), set })
    }

    pub(super) fn select(&mut self, select: &SelectStmt) {
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

    pub(super) fn level(&mut self, target: Option<&RangeVar>, from: &[Node], filter: Option<&Node>) {
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
            _ => {
                self.filter(node, first);
                self.subqueries(node);
            }
        }
    }

    /// A condition that needs no value.
    fn filter(&mut self, node: &Node, first: usize) {
        let (column, test) = match &node.node {
            Some(N::ColumnRef(column)) => (column, Test::True),
            Some(N::BoolExpr(not)) if not.boolop() == BoolExprType::NotExpr => {
                match not.args.first().and_then(|node| node.node.as_ref()) {
                    Some(N::ColumnRef(column)) => (column, Test::False),
                    _ => return,
                }
            }
            Some(N::NullTest(null)) => match null.arg.as_ref().and_then(|node| node.node.as_ref()) {
                Some(N::ColumnRef(column)) if null.nulltesttype() == NullTestType::IsNull => {
                    (column, Test::Null)
                }
                Some(N::ColumnRef(column)) => (column, Test::NotNull),
                _ => return,
            },
            _ => return,
        };
        if let Some((place, column)) = self.find(column, first) {
            let filter = Filter { column, test };
            let filters = &mut self.uses[place].filters;
            if !filters.contains(&filter) {
                filters.push(filter);
            }
        }
    }

    fn compare(&mut self, kind: AExprKind, operator: &str, side: &Node, other: &Node, first: usize) {
        let Some(N::ColumnRef(column)) = &side.node else {
            if operator == "=" && value(other) {
                self.computed(side, first);
            }
            return;
        };
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

    /// A function of one column, or a cast of it.
    fn computed(&mut self, side: &Node, first: usize) {
        let mut bare = side.clone();
        let inner = match &mut bare.node {
            Some(N::FuncCall(call)) => match call.args.as_mut_slice() {
                [argument] => argument,
                _ => return,
            },
            Some(N::TypeCast(cast)) => match cast.arg.as_deref_mut() {
                Some(argument) => argument,
                None => return,
            },
            _ => return,
        };
        let Some(N::ColumnRef(column)) = &mut inner.node else { return };
        let Some((place, name)) = self.find(column, first) else { return };
        column.fields.drain(..column.fields.len().saturating_sub(1));
        if let Some(expression) = expression(bare) {
            let computed = (name, expression);
            let known = &mut self.uses[place].computed;
            if !known.contains(&computed) {
                known.push(computed);
            }
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

/// An expression as the printer has it.
fn expression(node: Node) -> Option<String> {
    let mut tree = pg_query::parse("SELECT 1").ok()?.protobuf;
    let select = match tree.stmts.first_mut()?.stmt.as_mut()?.node.as_mut()? {
        NodeEnum::SelectStmt(select) => select,
        _ => return None,
    };
    match select.target_list.first_mut()?.node.as_mut()? {
        N::ResTarget(target) => target.val = Some(Box::new(node)),
        _ => return None,
    }
    Some(pg_query::deparse(&tree).ok()?.strip_prefix("SELECT ")?.to_owned())
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

pub(super) fn text(node: &Node) -> Option<&str> {
    match &node.node {
        Some(N::String(name)) => Some(&name.sval),
        _ => None,
    }
}

pub(super) fn add(list: &mut Vec<String>, name: &str) {
    if !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}
