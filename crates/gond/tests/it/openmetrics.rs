//! What `/metrics` says, read as strictly as Prometheus reads it.

use std::collections::BTreeMap;

/// A metric with its samples.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: String,
    /// What it is.
    pub help: String,
    /// Name, labels and value of each sample.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Metrics by the name under which they are queried: counters end with `_total`, infos with `_info`.
pub type Metrics = BTreeMap<String, Family>;

fn endings(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    }
}

/// Reads a page.
pub fn read(text: &str) -> Result<Metrics, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut ended = false;
    for line in text.lines() {
        if ended {
            return Err(format!("something after the end: {line}"));
        }
        if line == "# EOF" {
            ended = true;
        } else if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, text) = (words.next(), words.next(), words.next());
            let (Some(what), Some(name), Some(text)) = (what, name, text) else {
                return Err(format!("not a description: {line}"));
            };
            if name != current && families.contains_key(name) {
                return Err(format!("{name} is described twice"));
            }
            current = name.to_owned();
            let family = families.entry(current.clone()).or_default();
            match what {
                "HELP" => family.help = text.to_owned(),
                "TYPE" => family.kind = text.to_owned(),
                "UNIT" => {}
                _ => return Err(format!("not a description: {line}")),
            }
        } else {
            let (name, labels, value) = sample(line).ok_or_else(|| format!("not a sample: {line}"))?;
            let family = families.get_mut(&current).ok_or_else(|| format!("of no metric: {line}"))?;
            let ending = name.strip_prefix(&current).unwrap_or("?");
            if !endings(&family.kind).contains(&ending) {
                return Err(format!("no sample of {current}, a {}: {line}", family.kind));
            }
            if value.is_nan() || (matches!(family.kind.as_str(), "counter" | "histogram") && value < 0.0) {
                return Err(format!("not a value: {line}"));
            }
            family.samples.push((name, labels, value));
        }
    }
    if !ended {
        return Err("it breaks off".to_owned());
    }
    let queried = families.into_iter().map(|(name, family)| {
        let ending =
            if matches!(family.kind.as_str(), "counter" | "info") { endings(&family.kind)[0] } else { "" };
        (format!("{name}{ending}"), family)
    });
    Ok(queried.collect())
}

fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (before, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match before.split_once('{') {
        None => (before, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let mut all = BTreeMap::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        // No value of ours has a quote in it.
        let (value, after) = after.split_once('"')?;
        if !is_name(label) || all.insert(label.to_owned(), value.to_owned()).is_some() {
            return None;
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    is_name(name).then(|| (name.to_owned(), all, value))
}

/// A row of `docs/ops/metrics.md`.
#[derive(Debug)]
pub struct Documented {
    /// What it is.
    pub kind: String,
    /// In what it is counted.
    pub unit: String,
    /// The services that have it.
    pub services: Vec<String>,
}

/// The tables of `docs/ops/metrics.md`.
pub fn documented() -> BTreeMap<String, Documented> {
    let text = include_str!("../../../../docs/ops/metrics.md");
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        // Alarms are in a table of three.
        let [name, kind, unit, services, meaning] = cells.as_slice() else { continue };
        assert!(!unit.is_empty() && meaning.len() > 5, "{line}");
        let row = Documented {
            kind: (*kind).to_owned(),
            unit: (*unit).to_owned(),
            services: services.split(", ").map(ToOwned::to_owned).collect(),
        };
        assert!(all.insert(name.trim_matches('`').to_owned(), row).is_none(), "twice: {name}");
    }
    all
}

#[test]
fn what_is_no_page_is_refused() {
    let good = "# HELP a_b Text.\n# TYPE a_b counter\na_b_total{x=\"1\",y=\"2\"} 3\n# EOF\n";
    let metrics = read(good).unwrap();
    assert_eq!(metrics["a_b_total"].samples[0].1.len(), 2);
    assert_eq!(metrics["a_b_total"].help, "Text.");
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\na_b_total 1\n"),
        ("a_b_total{", "a_b{"),
        (" 3", " three"),
        (" 3", " -3"),
        ("y=", "x="),
        ("# TYPE a_b counter\n", ""),
        ("# EOF", "# HELP c x\n# TYPE c gauge\nc 1\n# HELP a_b x\n# EOF"),
    ] {
        assert!(good.contains(from));
        assert!(read(&good.replace(from, to)).is_err(), "planted: {from:?} is {to:?}");
    }
}
