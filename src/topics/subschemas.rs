//! The subschemas of one schema document, and which applies which.
//!
//! Nothing outside the document is ever reached: a reference that is not to one of its own
//! subschemas is refused. Keywords of all drafts are followed, so that no subschema is overlooked.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::pattern;
use super::schema::{Place, SchemaError};
use crate::escape::Escaped;

/// Most subschemas in one document.
pub(super) const SUBSCHEMAS_MAX: usize = 2_000;
/// Longest JSON pointer to a subschema, in bytes: each one is kept.
pub(super) const POINTER_SIZE_MAX: usize = 4 << 10;
/// How many names or values of a list are compared in the time of one check.
const NAMES_PER_CHECK: usize = 10;

/// Keywords that apply one subschema to the same value.
const IN_PLACE_ONE: [&str; 4] = ["not", "if", "then", "else"];
/// Keywords that apply a list of subschemas to the same value.
const IN_PLACE_LIST: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords that apply named subschemas to the same value.
const IN_PLACE_NAMED: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords of which one subschema is enough.
const ALTERNATIVES: [&str; 2] = ["anyOf", "oneOf"];
/// Keywords that hold named subschemas which are applied only by reference.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// References that are resolved while a message is checked.
const DYNAMIC: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// One subschema. Others are named by their place in the list of all.
#[derive(Debug, Default)]
pub(super) struct Subschema {
    /// JSON pointer into the document.
    pub(super) at: String,
    /// How much work its own keywords are, in checks.
    pub(super) checks: usize,
    /// Applied to the same value.
    pub(super) in_place: Vec<usize>,
    /// Applied to the same value by `$ref`.
    pub(super) referred: Vec<usize>,
    /// Whether it asks what the ones in place have evaluated.
    pub(super) asks_evaluated: bool,
    /// Whether it offers several subschemas, one of which is enough.
    pub(super) has_alternatives: bool,
    pub(super) fields: Inner,
    pub(super) items: Inner,
    /// Applied to the names of fields.
    pub(super) names: Vec<usize>,
}

/// What is applied to the values inside an object or an array.
#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Applied to the one at this key or index.
    pub(super) fixed: BTreeMap<String, usize>,
    /// Applied to those that are not fixed.
    pub(super) rest: Vec<usize>,
    /// Applied to any, whatever else is.
    pub(super) any: Vec<usize>,
    /// Applied to any, and again each time that it is asked what is evaluated.
    pub(super) asked: Vec<usize>,
}

/// Finds the subschemas of `document`, the whole one first.
///
/// # Errors
/// The document has too many, or refers to what is not one of them.
pub(super) fn subschemas(document: &Value, id: &str) -> Result<Vec<Subschema>, SchemaError> {
    let mut walk = Walk::default();
    walk.add(String::new(), document);
    let mut next = 0;
    while let Some((pointer, value)) = walk.found.get(next).cloned() {
        if next >= SUBSCHEMAS_MAX {
            return Err(SchemaError::TooMany);
        }
        let mut subschema = Subschema {
            checks: 1,
            ..Subschema::default()
        };
        if let Value::Object(map) = value {
            refuse_embedded(&pointer, map, id)?;
            walk.read(&pointer, map, next, &mut subschema);
        }
        subschema.at = pointer;
        walk.subschemas.push(subschema);
        next += 1;
    }
    if walk.has_long_pointer {
        return Err(SchemaError::LongPointer);
    }
    walk.resolve()?;
    Ok(walk.subschemas)
}

/// Refuses what would make a reference mean something else than it says.
fn refuse_embedded(at: &str, map: &Map<String, Value>, id: &str) -> Result<(), SchemaError> {
    let keyword = |keyword: &str| (Place::new(at), Escaped::new(keyword));
    if let Some(dynamic) = DYNAMIC.iter().find(|name| map.contains_key(**name)) {
        let (at, keyword) = keyword(dynamic);
        return Err(SchemaError::Dynamic { at, keyword });
    }
    let embeds = |name: &&str| !at.is_empty() && map.get(*name).is_some_and(Value::is_string);
    if let Some(embedded) = [id, "$schema"].iter().find(|name| embeds(name)) {
        let (at, keyword) = keyword(embedded);
        return Err(SchemaError::Embedded { at, keyword });
    }
    Ok(())
}

#[derive(Default)]
struct Walk<'a> {
    found: Vec<(String, &'a Value)>,
    by_pointer: HashMap<String, usize>,
    by_anchor: HashMap<&'a str, usize>,
    references: Vec<(usize, &'a str)>,
    subschemas: Vec<Subschema>,
    has_long_pointer: bool,
}

impl<'a> Walk<'a> {
    fn add(&mut self, pointer: String, value: &'a Value) -> usize {
        let place = self.found.len();
        self.has_long_pointer |= pointer.len() > POINTER_SIZE_MAX;
        // One over the limit is enough to refuse them all.
        if self.has_long_pointer || place > SUBSCHEMAS_MAX {
            return place;
        }
        self.by_pointer.insert(pointer.clone(), place);
        self.found.push((pointer, value));
        place
    }

    fn one(&mut self, at: &str, map: &'a Map<String, Value>, keyword: &str) -> Option<usize> {
        let value = map.get(keyword)?;
        let is_schema = value.is_object() || value.is_boolean();
        is_schema.then(|| self.add(format!("{at}/{keyword}"), value))
    }

    fn list(&mut self, at: &str, map: &'a Map<String, Value>, keyword: &str) -> Vec<usize> {
        let list = map.get(keyword).and_then(Value::as_array);
        let items = list.into_iter().flatten().enumerate();
        items
            .map(|(index, item)| self.add(format!("{at}/{keyword}/{index}"), item))
            .collect()
    }

    fn named(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        keyword: &str,
    ) -> BTreeMap<String, usize> {
        let entries = map.get(keyword).and_then(Value::as_object);
        let mut named = BTreeMap::new();
        for (name, value) in entries.into_iter().flatten() {
            // A dependency can also be a list of names.
            if value.is_array() {
                continue;
            }
            let escaped = name.replace('~', "~0").replace('/', "~1");
            let place = self.add(format!("{at}/{keyword}/{escaped}"), value);
            named.insert(name.clone(), place);
        }
        named
    }

    fn read(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        place: usize,
        subschema: &mut Subschema,
    ) {
        for keyword in IN_PLACE_ONE {
            subschema.in_place.extend(self.one(at, map, keyword));
        }
        for keyword in IN_PLACE_LIST {
            subschema.in_place.extend(self.list(at, map, keyword));
        }
        for keyword in IN_PLACE_NAMED {
            let named = self.named(at, map, keyword);
            subschema.in_place.extend(named.into_values());
        }
        for keyword in DEFINITIONS {
            self.named(at, map, keyword);
        }
        self.one(at, map, "contentSchema");
        subschema.fields = self.fields(at, map);
        subschema.items = self.items(at, map);
        subschema.names.extend(self.one(at, map, "propertyNames"));
        subschema.asks_evaluated = ["unevaluatedProperties", "unevaluatedItems"]
            .iter()
            .any(|keyword| map.contains_key(*keyword));
        subschema.has_alternatives = ALTERNATIVES
            .iter()
            .any(|keyword| map.contains_key(*keyword));
        subschema.checks += own_checks(map);
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(anchor)) = map.get(keyword) {
                self.by_anchor.insert(anchor, place);
            }
        }
        if let Some(Value::String(reference)) = map.get("$ref") {
            self.references.push((place, reference));
        }
    }

    fn fields(&mut self, at: &str, map: &'a Map<String, Value>) -> Inner {
        let matched = self.named(at, map, "patternProperties");
        let unevaluated = self.one(at, map, "unevaluatedProperties");
        Inner {
            fixed: self.named(at, map, "properties"),
            rest: Vec::from_iter(self.one(at, map, "additionalProperties")),
            any: matched.into_values().collect(),
            asked: Vec::from_iter(unevaluated),
        }
    }

    fn items(&mut self, at: &str, map: &'a Map<String, Value>) -> Inner {
        let mut first = self.list(at, map, "prefixItems");
        if first.is_empty() {
            first = self.list(at, map, "items");
        }
        let rest = ["items", "additionalItems"].map(|keyword| self.one(at, map, keyword));
        let asked = ["contains", "unevaluatedItems"].map(|keyword| self.one(at, map, keyword));
        Inner {
            fixed: (0..)
                .map(|index: usize| index.to_string())
                .zip(first)
                .collect(),
            rest: rest.into_iter().flatten().collect(),
            any: Vec::new(),
            asked: asked.into_iter().flatten().collect(),
        }
    }

    fn resolve(&mut self) -> Result<(), SchemaError> {
        for (place, reference) in std::mem::take(&mut self.references) {
            let mistake = || {
                let at = Place::new(&self.subschemas[place].at);
                (at, Escaped::new(reference))
            };
            let Some(fragment) = reference.strip_prefix('#') else {
                let (at, reference) = mistake();
                return Err(SchemaError::External { at, reference });
            };
            let pointed = self.by_pointer.get(fragment);
            let Some(target) = pointed.or_else(|| self.by_anchor.get(fragment)) else {
                let (at, reference) = mistake();
                return Err(SchemaError::Missing { at, reference });
            };
            self.subschemas[place].referred.push(*target);
        }
        Ok(())
    }
}

/// What the keywords of one schema cost beside their subschemas.
fn own_checks(map: &Map<String, Value>) -> usize {
    let named = map.get("patternProperties").and_then(Value::as_object);
    let pattern = map.get("pattern").and_then(Value::as_str);
    let patterns = named.into_iter().flat_map(Map::keys).map(String::as_str);
    let pattern_checks: usize = patterns.chain(pattern).map(pattern::checks).sum();
    let n_names: usize = map
        .iter()
        .filter(|(keyword, _)| !DEFINITIONS.contains(&keyword.as_str()))
        .map(|(_, value)| match value {
            Value::Array(list) => list.len(),
            Value::Object(named) => named.len(),
            _ => 0,
        })
        .sum();
    pattern_checks + n_names / NAMES_PER_CHECK
}
