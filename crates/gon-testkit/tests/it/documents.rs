//! What operators are told rests on tests: each that the page on faults names is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names of all functions in tests, anywhere.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                functions(&path, names);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let after = text.split("\nfn ").chain(text.split("\nasync fn ")).skip(1);
            names.extend(after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

/// What stands between backticks and looks like the name of a test: words, four at least.
fn named(text: &str) -> BTreeSet<&str> {
    let words = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    text.split('`').skip(1).step_by(2).filter(words).filter(|name| name.matches('_').count() >= 3).collect()
}

#[test]
fn every_test_that_the_page_on_faults_names_exists() {
    let page = std::fs::read_to_string(root().join("docs/ops/faults.md")).unwrap();
    let named = named(&page);
    let mut there = BTreeSet::new();
    for folder in ["crates", "e2e"] {
        functions(&root().join(folder), &mut there);
    }
    let missing: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(named.len() > 25, "the page is read wrongly: {named:?}");
    // Every row of its tables names one.
    for row in page.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        assert!(cells[0].trim() == "what" || !self::named(cells[cells.len() - 1]).is_empty(), "{row}");
    }
}

/// Sources of tests, each with the crate that it belongs to.
fn tests(folder: &Path, crate_name: &str, found: &mut Vec<(String, PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            tests(&path, crate_name, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            found.push((crate_name.to_owned(), path, text));
        }
    }
}

/// `make test-long` runs every test that has more to do there, and each of them is there.
#[test]
fn the_long_run_has_every_test_that_is_longer_in_it() {
    let mut sources = Vec::new();
    for folder in std::fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        tests(&folder.path().join("tests/it"), &name, &mut sources);
    }
    tests(&root().join("e2e/tests/it"), "e2e", &mut sources);
    let list = std::fs::read_to_string(root().join("scripts/long-tests")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let listed: Vec<(&str, &str)> =
        lines.map(|line| line.split(" #").next().unwrap().split_once(' ').unwrap()).collect();
    let file = |test: &str| test.rsplit_once("::").unwrap().0.replace("::", "/") + ".rs";
    for (crate_name, test) in &listed {
        let function = format!("fn {}(", test.rsplit("::").next().unwrap());
        let is_it = |(other, path, text): &(String, PathBuf, String)| {
            other == crate_name && path.ends_with(file(test)) && text.contains(&function)
        };
        assert!(sources.iter().any(is_it), "{crate_name} {test} is not there");
    }
    // Not this crate's, which only talks about it.
    for (crate_name, path, text) in sources.iter().filter(|(name, ..)| name != "gon-testkit") {
        let longer = text.contains("measure(");
        let named = listed.iter().any(|(other, test)| other == crate_name && path.ends_with(file(test)));
        assert_eq!(longer, named, "{crate_name} {}", path.display());
    }
}
