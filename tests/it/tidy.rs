//! The house rules that a machine can see.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const TEST_LINES_MAX: usize = 120;
const LINE_SIZE_MAX: usize = 120;
const ARCHITECTURE_LINES_MAX: usize = 140;

#[test]
fn imports_keep_to_the_layers() {
    let allowed = layers();
    let mut seen = BTreeSet::new();
    for file in sources("src") {
        let module = module_of(&file);
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let may = allowed
            .get(&module)
            .unwrap_or_else(|| panic!("{module} is in no layer of ARCHITECTURE.md"));
        for import in imports(&read(&file)) {
            let fits = import == module || may.contains(&import);
            assert!(
                fits,
                "{}: {module} imports {import}, which its layer does not allow",
                file.display()
            );
            seen.insert((module.clone(), import));
        }
    }
    // A permission that nobody uses is an arrow that is not there.
    for (module, may) in &allowed {
        for import in may {
            assert!(
                seen.contains(&(module.clone(), import.clone())),
                "{module} does not import {import}"
            );
        }
    }
}

#[test]
fn layers_have_no_cycle() {
    let allowed = layers();
    let mut done: BTreeSet<&String> = BTreeSet::new();
    while done.len() < allowed.len() {
        let next: Vec<_> = allowed
            .iter()
            .filter(|(module, may)| {
                !done.contains(module) && may.iter().all(|import| done.contains(import))
            })
            .map(|(module, _)| module)
            .collect();
        assert!(
            !next.is_empty(),
            "the arrows of ARCHITECTURE.md run in a circle"
        );
        done.extend(next);
    }
}

#[test]
fn files_and_functions_stay_small() {
    for file in sources("src").into_iter().chain(sources("tests")) {
        let text = read(&file);
        let n_lines = text.lines().count();
        let ceiling = if file.starts_with("src") {
            FILE_LINES_MAX
        } else {
            2 * FILE_LINES_MAX
        };
        assert!(n_lines <= ceiling, "{} has {n_lines} lines", file.display());
        for (name, length) in functions(&text) {
            assert!(
                length
                    <= if file.starts_with("src") {
                        FUNCTION_LINES_MAX
                    } else {
                        TEST_LINES_MAX
                    },
                "{}: {name} has {length} lines",
                file.display()
            );
        }
    }
    assert!(read(Path::new("ARCHITECTURE.md")).lines().count() <= ARCHITECTURE_LINES_MAX);
}

#[test]
fn nothing_is_left_undone() {
    let marks = [
        ["to", "do!"].concat(),
        ["unimplemen", "ted!"].concat(),
        ["db", "g!("].concat(),
        ["FIX", "ME"].concat(),
    ];
    for file in sources("src").into_iter().chain(sources("tests")) {
        for (number, line) in read(&file).lines().enumerate() {
            for mark in &marks {
                assert!(
                    !line.contains(mark.as_str()),
                    "{}:{}: {mark}",
                    file.display(),
                    number + 1
                );
            }
            assert!(
                !file.starts_with("src") || line.chars().count() <= LINE_SIZE_MAX,
                "{}:{} is too long",
                file.display(),
                number + 1
            );
        }
    }
}

#[test]
fn every_source_opens_with_what_it_owns() {
    for file in sources("src") {
        assert!(
            read(&file).starts_with("//! "),
            "{} has no opening words",
            file.display()
        );
    }
}

#[test]
fn each_fact_has_one_home() {
    let homes = [
        ("rustls_pemfile", "src/tls/pem.rs"),
        ("redb::", "src/database"),
        ("x509_parser", "src/tls/x509"),
        ("println!", "nowhere"),
        ("std::env", "src/cli"),
        ("process::exit", "nowhere"),
    ];
    let also: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "redb::",
            &[
                "src/log/cursors.rs",
                "src/log/embedded.rs",
                "src/index/dedup.rs",
                "src/index/embedded.rs",
                "src/index/history.rs",
                "src/index/requests.rs",
                "src/index/tables.rs",
                "src/index/topics.rs",
            ][..],
        ),
        (
            "x509_parser",
            &[
                "src/pki/crl.rs",
                "src/pki/csr.rs",
                "src/pki/inspect.rs",
                "src/pki/key.rs",
                "src/pki/show.rs",
                "src/pki/vet.rs",
            ][..],
        ),
    ]);
    for file in sources("src") {
        let name = file.display().to_string();
        let text: String = read(&file)
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for (mark, home) in homes {
            let elsewhere = also
                .get(mark)
                .is_some_and(|files| files.contains(&name.as_str()));
            let fits = name.starts_with(home) || elsewhere || !text.contains(mark);
            assert!(fits, "{name}: {mark} belongs to {home}");
        }
    }
}

/// The table in ARCHITECTURE.md: a module, and what it may import.
fn layers() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(Path::new("ARCHITECTURE.md"));
    let table = text
        .split("```layers\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let lines = table
        .expect("ARCHITECTURE.md has a table of layers")
        .lines();
    lines
        .filter_map(|line| line.split_once("->"))
        .map(|(module, imports)| {
            (
                module.trim().to_owned(),
                imports.split_whitespace().map(str::to_owned).collect(),
            )
        })
        .collect()
}

fn imports(text: &str) -> BTreeSet<String> {
    text.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_lowercase() || matches!(c, '_' | '0'..='9'))
                .collect()
        })
        .filter(|name: &String| !name.is_empty())
        .collect()
}

fn module_of(file: &Path) -> String {
    let part = file
        .components()
        .nth(1)
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    part.trim_end_matches(".rs").to_owned()
}

/// Functions of a text as rustfmt lays it out: from `fn` to the brace in the same column.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) fn ",
            "pub(crate) fn ",
            "pub(super) async fn ",
            "const fn ",
            "pub const fn ",
        ]
        .iter()
        .any(|head| code.starts_with(head));
        if !is_function {
            continue;
        }
        let end = format!("{}}}", " ".repeat(line.len() - code.len()));
        let length = lines[start..]
            .iter()
            .position(|line| *line == end)
            .unwrap_or(0)
            + 1;
        found.push((code.chars().take(60).collect(), length));
    }
    found
}

fn sources(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
