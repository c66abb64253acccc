//! What a person sees: tables, JSON, errors. The only place that prints.
#![expect(clippy::print_stdout, reason = "printing is what this module is for")]

use anyhow::Context;
use base64::Engine;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Columns of the lists people look at most; others show id, name and state.
fn columns(resource: &str) -> &'static [&'static str] {
    match resource {
        "instances" => &[
            "id",
            "name",
            "state",
            "instance_type",
            "private_ip",
            "public_ip",
            "availability_zone",
            "auto_recover",
        ],
        "vpcs" => &["id", "name", "state", "cidr_block"],
        "subnets" => {
            &["id", "name", "vpc_id", "cidr_block", "availability_zone", "available_ip_address_count"]
        }
        "security-groups" => &["id", "name", "vpc_id", "description"],
        "network-acls" => &["id", "name", "vpc_id", "is_default"],
        "route-tables" => &["id", "name", "vpc_id", "is_main"],
        "internet-gateways" => &["id", "name", "vpc_id"],
        "network-interfaces" => &[
            "id",
            "status",
            "subnet_id",
            "private_ip",
            "public_ip",
            "instance_id",
            "device_index",
            "description",
        ],
        "prefix-lists" => &["id", "name", "max_entries", "version"],
        "addresses" => &["id", "public_ip", "instance_id", "private_ip"],
        "key-pairs" => &["id", "name", "key_type", "fingerprint"],
        "images" => &["id", "name", "kind", "description"],
        "instance-types" => &["name", "vcpus", "memory_mib"],
        "nodes" => &[
            "id",
            "name",
            "state",
            "availability_zone",
            "accelerator",
            "instances",
            "address",
            "last_report_at",
        ],
        "operations" => &["id", "action", "state", "resource_id", "error", "created_at"],
        _ => &["id", "name", "state"],
    }
}

/// One cell: text as it is, everything else as JSON; what is missing is a dash. Control characters cannot reach the
/// terminal: an instance's name is somebody's input.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A list, as a table or as JSON.
pub fn list(resource: &str, items: &[Value], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(items)?);
        return Ok(());
    }
    let columns = columns(resource);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|c| c.to_uppercase().replace('_', " ")));
    for item in items {
        table.add_row(columns.iter().map(|column| cell(item.get(column))));
    }
    println!("{table}");
    Ok(())
}

/// One resource, as JSON.
pub fn one(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// What a change answered: its state in a line, or JSON.
pub fn changed(id: &str, answer: Value, json: bool) -> anyhow::Result<()> {
    if json {
        return one(&answer);
    }
    match answer.get("state") {
        Some(state) => println!("{id}: {}", cell(Some(state))),
        None => println!("{id}: done"),
    }
    Ok(())
}

/// A console's bytes, as they are: what a terminal would have shown.
pub fn console(answer: &Value) -> anyhow::Result<()> {
    use std::io::Write;
    let text = answer.get("output").and_then(Value::as_str).unwrap_or_default();
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(text).context("the console output is not base64")?;
    std::io::stdout().write_all(&bytes)?;
    Ok(())
}

/// An error with its causes, for a person.
#[expect(clippy::print_stderr, reason = "the last word of a failed command")]
pub fn error(error: &anyhow::Error) {
    eprintln!("gon: {error:#}");
}

/// A call, for `--verbose`. Secrets are not shown: bodies of `/auth` are left out.
#[expect(clippy::print_stderr, reason = "what --verbose is for")]
pub fn trace(method: &hyper::Method, path: &str, body: Option<&Value>) {
    match body {
        Some(body) if !path.starts_with("/api/v1/auth") => eprintln!("{method} {path} {body}"),
        _ => eprintln!("{method} {path}"),
    }
}

/// A line of progress.
pub fn line(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_a_cell() {
        assert_eq!(cell(Some(&Value::from("a\u{1b}[2Jb"))), "a?[2Jb");
        assert_eq!(cell(None), "-");
        assert_eq!(cell(Some(&Value::from(3))), "3");
    }
}
