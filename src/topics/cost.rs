//! How much work a schema can make of one message: a bound that is known before any message comes.
//!
//! A validator applies subschemas again and again, without looking at the clock. A schema whose
//! bound is over the limit is refused, so that no message can make checking it long or deep.

use std::collections::BTreeMap;

use super::schema::{Place, SchemaError};
use super::subschemas::{Inner, Subschema};

/// Most checks that one value of a message and the values around it can take. Also bounds how deep
/// checks nest on the stack.
pub(super) const CHECKS_MAX: usize = 1_000;

/// Subschemas, and how often each is applied.
type Applied = Vec<(usize, usize)>;

/// A subschema at a key, how often it is applied, and instead of which others.
type Fixed<'a> = (usize, usize, &'a [usize]);

/// The most checks that a schema makes from the whole message down to one value, in messages
/// nested up to `depth_max` levels.
///
/// # Errors
/// There are too many, or a subschema applies itself to the same value without end.
pub(super) fn bound(all: &[Subschema], depth_max: usize) -> Result<usize, SchemaError> {
    let ranks = ranks(all)?;
    let places = 0..all.len();
    let reached: Vec<Reach<'_>> = places.map(|place| Reach::of(all, place, &ranks)).collect();
    let mut costs: Vec<usize> = reached.iter().map(|reach| reach.checks).collect();
    for _ in 0..depth_max {
        let deeper: Vec<usize> = reached.iter().map(|reach| reach.cost(&costs)).collect();
        let is_over = deeper[0] > CHECKS_MAX;
        if is_over || deeper == costs {
            costs = deeper;
            break;
        }
        costs = deeper;
    }
    match costs[0] {
        n if n > CHECKS_MAX => Err(SchemaError::TooCostly),
        n => Ok(n),
    }
}

/// Gives each subschema a rank below all that it applies in place.
fn ranks(all: &[Subschema]) -> Result<Vec<usize>, SchemaError> {
    let mut n_above = vec![0_usize; all.len()];
    for target in all.iter().flat_map(in_place) {
        n_above[target] += 1;
    }
    let is_top = |place: &usize| n_above[*place] == 0;
    let mut order: Vec<usize> = (0..all.len()).filter(is_top).collect();
    let mut ranks = vec![0; all.len()];
    let mut next = 0;
    while let Some(place) = order.get(next).copied() {
        ranks[place] = next;
        for target in in_place(&all[place]) {
            n_above[target] -= 1;
            if n_above[target] == 0 {
                order.push(target);
            }
        }
        next += 1;
    }
    match n_above.iter().position(|n| *n > 0) {
        Some(place) => {
            let at = Place::new(&all[place].at);
            Err(SchemaError::Circular { at })
        }
        None => Ok(ranks),
    }
}

fn in_place(subschema: &Subschema) -> impl Iterator<Item = usize> + '_ {
    let referred = subschema.referred.iter();
    subschema.in_place.iter().chain(referred).copied()
}

/// All that one subschema applies to the same value, itself among it.
struct Reach<'a> {
    checks: usize,
    fields: Group<'a>,
    items: Group<'a>,
    names: Applied,
}

/// What is applied to the values inside.
#[derive(Default)]
struct Group<'a> {
    /// To those without a fixed subschema.
    all: Applied,
    /// At a key: what is applied there, and what of `all` is not.
    fixed: BTreeMap<&'a str, Vec<Fixed<'a>>>,
}

impl<'a> Reach<'a> {
    fn of(all: &'a [Subschema], start: usize, ranks: &[usize]) -> Self {
        let mut reach = Self {
            checks: 0,
            fields: Group::default(),
            items: Group::default(),
            names: Vec::new(),
        };
        // By rank, so that one is taken when all that apply it are counted. The last part tells
        // checking from asking what is evaluated, for which the validator checks once more.
        let mut open = BTreeMap::from([((ranks[start], start, false), 1_usize)]);
        while let Some(((_, place, is_asking), n)) = open.pop_first() {
            let subschema = &all[place];
            reach.checks += n * subschema.checks;
            if reach.checks > CHECKS_MAX {
                reach.checks = CHECKS_MAX + 1;
                return reach;
            }
            let mut apply = |target: usize, is_asking| {
                *open.entry((ranks[target], target, is_asking)).or_default() += n;
            };
            for target in &subschema.in_place {
                apply(*target, false);
                if is_asking {
                    apply(*target, true);
                }
            }
            for target in &subschema.referred {
                apply(*target, is_asking);
            }
            if subschema.asks_evaluated && !is_asking {
                apply(place, true);
            }
            reach.fields.add(&subschema.fields, n, is_asking);
            reach.items.add(&subschema.items, n, is_asking);
            if !is_asking {
                let names = subschema.names.iter().map(|target| (*target, n));
                reach.names.extend(names);
            }
        }
        reach
    }

    /// With what the subschemas cost on values one level less deep.
    fn cost(&self, costs: &[usize]) -> usize {
        let names = sum(&self.names, costs);
        let inner = self.fields.cost(costs).max(self.items.cost(costs));
        (self.checks + inner.max(names)).min(CHECKS_MAX + 1)
    }
}

impl<'a> Group<'a> {
    fn add(&mut self, inner: &'a Inner, n: usize, is_asking: bool) {
        self.all
            .extend(inner.asked.iter().map(|target| (*target, n)));
        if is_asking {
            return;
        }
        let others = inner.rest.iter().chain(&inner.any);
        self.all.extend(others.map(|target| (*target, n)));
        for (key, target) in &inner.fixed {
            let at_key = self.fixed.entry(key).or_default();
            at_key.push((*target, n, &inner.rest));
        }
    }

    fn cost(&self, costs: &[usize]) -> usize {
        let all = sum(&self.all, costs);
        let at_key = |applied: &Vec<Fixed<'_>>| {
            let more: usize = applied.iter().map(|(t, n, _)| costs[*t] * n).sum();
            let less: usize = applied
                .iter()
                .map(|(_, n, rest)| rest.iter().map(|target| costs[*target] * n).sum::<usize>())
                .sum();
            all + more - less
        };
        self.fixed.values().map(at_key).max().unwrap_or(0).max(all)
    }
}

fn sum(applied: &Applied, costs: &[usize]) -> usize {
    applied.iter().map(|(target, n)| costs[*target] * n).sum()
}
