//! Choosing: the largest saving per byte, again and again, until nothing is left that pays.

use std::collections::{BTreeMap, BTreeSet};

use super::candidates::{Candidate, candidates};
use super::plan::{Plan, Planner};
use super::{IndexAdvice, Observed, name};
use crate::AdvisorError;
use crate::catalog::Catalog;
use crate::statement::Use;

/// An index must take this share off the cost of some statement.
const GAIN_SHARE_MIN: f64 = 0.10;
/// A longer index must take this share off what its own prefix left.
const WIDEN_SHARE_MIN: f64 = 0.25;
/// An index beside an existing one on its first columns must take this share off.
const BESIDE_SHARE_MIN: f64 = 0.50;
/// What one new entry costs a write, in the planner's units, besides its bytes: about one page found and changed.
const ENTRY_COST: f64 = 1.0;
/// The same for each byte of the entry: what is logged and, later, written.
const ENTRY_BYTE_COST: f64 = 1.0 / 64.0;
/// Rows written for each call on a table from which its pages are seldom all visible, as an answer from the index
/// alone needs them.
const STIRRED_SHARE_MIN: f64 = 0.05;
/// Statements cheaper than this are left alone: the planner's units.
const COST_MIN: f64 = 15.0;
/// No statement may become dearer by more than this share.
const REGRESSION_SHARE_MAX: f64 = 0.02;
/// Most plans asked for; what was not priced by then is not advised.
const PLANS_MAX: usize = 5_000;
/// Most indexes advised in one go.
const INDEXES_MAX: usize = 20;

type Costs = BTreeMap<usize, f64>;

struct Chosen {
    candidate: Candidate,
    bytes: f64,
}

struct Priced {
    candidate: Candidate,
    bytes: f64,
    costs: Costs,
    score: f64,
}

struct Search<'a> {
    planner: &'a Planner<'a>,
    catalog: &'a Catalog,
    observed: &'a [Observed],
    before: Vec<Option<Plan>>,
    now: Vec<f64>,
    chosen: Vec<Chosen>,
    /// What was asked already and still holds: no index was chosen since on a table that bears on it.
    priced: BTreeMap<Candidate, Option<(f64, Costs)>>,
    /// Plans asked for so far.
    plans: usize,
}

/// Picks indexes for the observed statements.
pub(super) async fn choose(
    planner: &Planner<'_>,
    catalog: &Catalog,
    observed: &[Observed],
) -> Result<Vec<IndexAdvice>, AdvisorError> {
    let reads: Vec<_> = observed.iter().map(|statement| statement.read.clone()).collect();
    let calls: f64 = observed.iter().map(|statement| statement.calls).sum();
    let shares: Vec<f64> = observed.iter().map(|statement| statement.calls / calls.max(1.0)).collect();
    let mut left = candidates(&reads, &shares, catalog);
    let touched: BTreeSet<usize> = left.values().flatten().copied().collect();
    let mut before = Vec::new();
    for (place, statement) in observed.iter().enumerate() {
        before.push(if touched.contains(&place) || reads_table(&left, statement) {
            planner.plan(&statement.sql).await?
        } else {
            None
        });
    }
    let now = before.iter().map(|plan| plan.as_ref().map_or(0.0, |plan| plan.cost)).collect();
    let mut search = Search {
        planner,
        catalog,
        observed,
        before,
        now,
        chosen: Vec::new(),
        priced: BTreeMap::new(),
        plans: 0,
    };
    if !planner.supposes() {
        return search.without_supposing(&left);
    }
    left.retain(|_, places| places.iter().any(|place| search.now[*place] >= COST_MIN));
    while search.chosen.len() < INDEXES_MAX {
        let Some(best) = search.best(&left).await? else { break };
        left.remove(&best.candidate);
        search.take(best);
    }
    search.finish().await
}

fn reads_table(candidates: &BTreeMap<Candidate, Vec<usize>>, statement: &Observed) -> bool {
    statement.read.uses.iter().any(|used| {
        candidates.keys().any(|candidate| candidate.table == used.table && candidate.schema == used.schema)
    })
}

fn uses(statement: &Observed, candidate: &Candidate) -> bool {
    let same = |used: &Use| used.table == candidate.table && used.schema == candidate.schema;
    statement.read.uses.iter().any(same)
}

impl Search<'_> {
    async fn best(&mut self, left: &BTreeMap<Candidate, Vec<usize>>) -> Result<Option<Priced>, AdvisorError> {
        let mut best: Option<Priced> = None;
        for candidate in left.keys() {
            if self.chosen.iter().any(|chosen| candidate.prefix_of(&chosen.candidate)) {
                continue;
            }
            if !candidate.include.is_empty() && self.stirred(candidate) {
                continue;
            }
            if !self.priced.contains_key(candidate) {
                if self.plans >= PLANS_MAX {
                    continue;
                }
                let asked = self.price(candidate).await?;
                self.plans += asked.as_ref().map_or(0, |(_, costs)| costs.len());
                self.priced.insert(candidate.clone(), asked);
            }
            let Some(Some((bytes, costs))) = self.priced.get(candidate).cloned() else { continue };
            let prefix = self.chosen.iter().find(|chosen| chosen.candidate.prefix_of(candidate));
            let share = self.share(candidate, prefix.is_some());
            let upkeep = self.upkeep(candidate) - prefix.map_or(0.0, |chosen| self.upkeep(&chosen.candidate));
            let Some(saved) = self.saved(&costs, share, upkeep) else { continue };
            let more = (bytes - prefix.map_or(0.0, |chosen| chosen.bytes)).max(8192.0);
            let score = saved / more;
            if best.as_ref().is_none_or(|best| score > best.score) {
                best = Some(Priced { candidate: candidate.clone(), bytes, costs, score });
            }
        }
        Ok(best)
    }

    /// The share that it must take off the cost of some statement.
    fn share(&self, candidate: &Candidate, widens: bool) -> f64 {
        let table = self.catalog.resolve(Some(&candidate.schema), &candidate.table);
        if table.is_some_and(|table| table.begun(&candidate.columns)) {
            BESIDE_SHARE_MIN
        } else if widens || !candidate.include.is_empty() || candidate.filter.is_some() {
            WIDEN_SHARE_MIN
        } else {
            GAIN_SHARE_MIN
        }
    }

    /// What the observed writes would pay for the index, in the planner's units: each row added, and each row of
    /// which a column in it changes. The latter loses its heap-only update, and counts twice.
    fn upkeep(&self, candidate: &Candidate) -> f64 {
        let Some(table) = self.catalog.resolve(Some(&candidate.schema), &candidate.table) else { return 0.0 };
        let entry = ENTRY_COST + candidate.entry_bytes(table) * ENTRY_BYTE_COST;
        self.written(candidate) * entry
    }

    /// Whether the observed writes change the table too often for answers from an index alone.
    fn stirred(&self, candidate: &Candidate) -> bool {
        let written = self.observed.iter().filter(|statement| {
            let write = statement.read.write.as_ref();
            write.is_some_and(|w| w.table == candidate.table && w.schema == candidate.schema)
        });
        let calls = self.observed.iter().filter(|statement| uses(statement, candidate));
        let (rows, calls): (f64, f64) = (written.map(|s| s.rows).sum(), calls.map(|s| s.calls).sum());
        rows > calls * STIRRED_SHARE_MIN
    }

    /// Entries that the observed writes would make.
    fn written(&self, candidate: &Candidate) -> f64 {
        let entries = self.observed.iter().filter_map(|statement| {
            let write = statement.read.write.as_ref()?;
            if write.table != candidate.table || write.schema != candidate.schema {
                return None;
            }
            match &write.set {
                None => Some(statement.rows),
                Some(set) if set.iter().any(|column| candidate.holds(column)) => Some(statement.rows * 2.0),
                Some(_) => None,
            }
        });
        entries.sum()
    }

    /// Costs of every statement on the candidate's table with it and all chosen so far (less its own prefix).
    async fn price(&self, candidate: &Candidate) -> Result<Option<(f64, Costs)>, AdvisorError> {
        self.planner.forget().await?;
        for chosen in self.chosen.iter().filter(|chosen| !chosen.candidate.prefix_of(candidate)) {
            self.planner.suppose(&chosen.candidate).await?;
        }
        let Some((_, bytes)) = self.planner.suppose(candidate).await? else { return Ok(None) };
        let mut costs = Costs::new();
        for (place, statement) in self.observed.iter().enumerate() {
            if uses(statement, candidate)
                && self.before[place].is_some()
                && let Some(plan) = self.planner.plan(&statement.sql).await?
            {
                costs.insert(place, plan.cost);
            }
        }
        Ok(Some((bytes, costs)))
    }

    /// Cost saved over all calls less the upkeep; `None` if nothing is, a statement gets dearer, or none gains enough.
    fn saved(&self, costs: &Costs, share: f64, upkeep: f64) -> Option<f64> {
        let mut saved = -upkeep;
        let mut pays = false;
        for (place, cost) in costs {
            let now = self.now[*place];
            if *cost > now * (1.0 + REGRESSION_SHARE_MAX) {
                return None;
            }
            pays |= now >= COST_MIN && now - cost >= now * share;
            saved += (now - cost) * self.observed[*place].calls;
        }
        (pays && saved > 0.0).then_some(saved)
    }

    fn take(&mut self, best: Priced) {
        let observed = self.observed;
        let together = |candidate: &Candidate| {
            observed.iter().any(|statement| uses(statement, candidate) && uses(statement, &best.candidate))
        };
        self.priced.retain(|candidate, _| !together(candidate));
        self.chosen.retain(|chosen| !chosen.candidate.prefix_of(&best.candidate));
        for (place, cost) in &best.costs {
            self.now[*place] = *cost;
        }
        self.chosen.push(Chosen { candidate: best.candidate, bytes: best.bytes });
    }

    /// Each chosen index alone against the plans as they are, for its own before and after.
    async fn finish(&self) -> Result<Vec<IndexAdvice>, AdvisorError> {
        let mut advice: Vec<IndexAdvice> = Vec::new();
        for chosen in &self.chosen {
            self.planner.forget().await?;
            self.planner.suppose(&chosen.candidate).await?;
            let mut gains: Vec<(f64, usize, Plan)> = Vec::new();
            for (place, statement) in self.observed.iter().enumerate() {
                let Some(before) = &self.before[place] else { continue };
                if uses(statement, &chosen.candidate)
                    && let Some(after) = self.planner.plan(&statement.sql).await?
                    && before.cost - after.cost > before.cost * GAIN_SHARE_MIN
                {
                    gains.push(((before.cost - after.cost) * statement.calls, place, after));
                }
            }
            gains.sort_by(|a, b| b.0.total_cmp(&a.0));
            let places: Vec<usize> = gains.iter().map(|gain| gain.1).collect();
            let after = gains.into_iter().next().map(|gain| gain.2);
            advice.extend(self.advice(&chosen.candidate, chosen.bytes, &places, after, "hypopg", &advice));
        }
        Ok(advice)
    }

    /// Where no index can be supposed: one for each large table read whole, on its most selective columns.
    fn without_supposing(
        &self,
        left: &BTreeMap<Candidate, Vec<usize>>,
    ) -> Result<Vec<IndexAdvice>, AdvisorError> {
        let mut advice: Vec<IndexAdvice> = Vec::new();
        for (candidate, places) in left {
            let Some(table) = self.catalog.resolve(Some(&candidate.schema), &candidate.table) else {
                continue;
            };
            let bare =
                candidate.include.is_empty() && candidate.filter.is_none() && candidate.expression.is_none();
            let selective =
                bare && candidate.columns.len() == 1 && table.distinct(&candidate.columns[0].0) >= 50.0;
            let scans: Vec<usize> = places
                .iter()
                .copied()
                .filter(|place| {
                    let scanned = format!("Seq Scan on {}", crate::quote(&candidate.table));
                    self.before[*place]
                        .as_ref()
                        .is_some_and(|plan| plan.cost >= COST_MIN && plan.text.contains(&scanned))
                })
                .collect();
            let looked_up = scans.iter().any(|place| {
                self.observed[*place].read.uses.iter().any(|used| {
                    used.table == candidate.table
                        && used.equal.iter().chain(&used.joined).any(|name| *name == candidate.columns[0].0)
                })
            });
            if selective && looked_up {
                let bytes = candidate.bytes(table);
                advice.extend(self.advice(candidate, bytes, &scans, None, "explain", &advice));
            }
        }
        Ok(advice)
    }

    fn advice(
        &self,
        candidate: &Candidate,
        bytes: f64,
        places: &[usize],
        after: Option<Plan>,
        method: &str,
        given: &[IndexAdvice],
    ) -> Option<IndexAdvice> {
        let table = self.catalog.resolve(Some(&candidate.schema), &candidate.table)?;
        let first = *places.first()?;
        let before = self.before[first].as_ref()?;
        let columns = candidate.names();
        let names: Vec<String> = given.iter().map(|advice| advice.name.clone()).collect();
        let name = name(table, &columns, self.catalog, &names);
        let calls: f64 = places.iter().map(|place| self.observed[*place].calls).sum();
        let verdict = match &after {
            Some(after) => format!("the planner's cost falls from {:.0} to {:.0}", before.cost, after.cost),
            None => {
                format!("the planner's cost is {:.0}; without HypoPG the gain is not priced", before.cost)
            }
        };
        let reason = format!(
            "{} of {} rows is read by {} statement(s) in {calls:.0} calls with no index on ({}); {verdict}{}{}.",
            table.name,
            table.rows,
            places.len(),
            columns.join(", "),
            match self.written(candidate) {
                0.0 => String::new(),
                entries => format!("; the observed writes make {entries:.0} entries in it"),
            },
            table.leftover(&columns).map_or_else(String::new, |index| format!(
                "; a build that failed left {} on the same columns, which is of no use: drop it",
                crate::quote(&index.name)
            )),
        );
        let quoted = crate::quote(&name);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(IndexAdvice {
            sql_up: format!("CREATE INDEX CONCURRENTLY {quoted} ON {}", candidate.target()),
            sql_down: format!("DROP INDEX CONCURRENTLY IF EXISTS {}.{quoted}", crate::quote(&table.schema)),
            schema: table.schema.clone(),
            table: table.name.clone(),
            columns,
            reason,
            fingerprints: places.iter().map(|place| self.observed[*place].id.clone()).collect(),
            plan_before: before.text.clone(),
            cost_before: before.cost,
            cost_after: after.as_ref().map(|plan| plan.cost),
            plan_after: after.map(|plan| plan.named(&name).text),
            name,
            size_bytes: bytes.max(0.0) as u64,
            method: method.to_owned(),
        })
    }
}
