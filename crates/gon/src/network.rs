//! `gon network …`: the changes of networks that take more than an id. What is listed, shown and deleted is so by
//! `gon list`, `gon get` and `gon delete`.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::output;
use crate::session::{self, Api};

/// What to do. Every change is answered when it is in force on every node, with `--wait`.
#[derive(Subcommand)]
pub enum Verb {
    /// Create the VPC of launches that name no subnet.
    CreateDefaultVpc,
    /// Give a VPC another block.
    AddBlock {
        /// `vpc-…`.
        vpc: String,
        /// The block, such as 10.1.0.0/16.
        block: String,
    },
    /// Take a further block from a VPC.
    RemoveBlock {
        /// `vpc-…`.
        vpc: String,
        /// `vpc-cidr-assoc-…`.
        association: String,
    },
    /// Add a route.
    AddRoute {
        /// `rtb-…`.
        table: String,
        /// The destination, such as 0.0.0.0/0, or a prefix list, `pl-…`.
        destination: String,
        /// `igw-…`, `i-…` or `eni-…`.
        target: String,
    },
    /// Give a route another target.
    ReplaceRoute {
        /// `rtb-…`.
        table: String,
        /// The destination of the route: a block, or `pl-…`.
        destination: String,
        /// `igw-…`, `i-…` or `eni-…`.
        target: String,
    },
    /// Remove a route.
    RemoveRoute {
        /// `rtb-…`.
        table: String,
        /// The destination of the route: a block, or `pl-…`.
        destination: String,
    },
    /// Let a subnet follow a route table.
    Associate {
        /// `rtb-…`.
        table: String,
        /// `subnet-…`.
        subnet: String,
    },
    /// Let a subnet follow another route table; of the main association, make that the VPC's main one.
    ReplaceAssociation {
        /// The table it follows, `rtb-…`.
        table: String,
        /// `rtbassoc-…`.
        association: String,
        /// The table to follow, `rtb-…`.
        to: String,
    },
    /// Let a subnet follow the main route table again.
    Disassociate {
        /// `rtb-…`.
        table: String,
        /// `rtbassoc-…`.
        association: String,
    },
    /// Create a network interface.
    CreateInterface {
        /// `subnet-…`.
        subnet: String,
        /// Its groups, `sg-…`; the VPC's default one unless given.
        #[arg(long = "group")]
        groups: Vec<String>,
        /// Its address; any free one unless given.
        #[arg(long)]
        private_ip: Option<String>,
        /// So many further addresses.
        #[arg(long)]
        secondary: Option<u32>,
        /// For people.
        #[arg(long)]
        description: Option<String>,
    },
    /// Attach a network interface to a stopped instance.
    Attach {
        /// `eni-…`.
        interface: String,
        /// `i-…`.
        instance: String,
        /// Its slot, 1 to 7.
        #[arg(long, default_value_t = 1)]
        slot: u8,
    },
    /// Detach a network interface from its stopped instance.
    Detach {
        /// `eni-…`.
        interface: String,
    },
    /// Give a network interface further addresses.
    AssignIps {
        /// `eni-…`.
        interface: String,
        /// These.
        #[arg(required_unless_present = "count")]
        addresses: Vec<String>,
        /// Any free ones, so many.
        #[arg(long, conflicts_with = "addresses")]
        count: Option<u32>,
    },
    /// Take further addresses from a network interface.
    UnassignIps {
        /// `eni-…`.
        interface: String,
        /// These.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Drop packets neither from nor to an interface's addresses, or let it forward for others.
    SourceDestCheck {
        /// `eni-…`.
        interface: String,
        /// `on` or `off`.
        #[arg(value_parser = ["on", "off"])]
        check: String,
    },
    /// Create a prefix list.
    CreatePrefixList {
        /// Its name.
        name: String,
        /// How many entries it may have.
        #[arg(long)]
        max_entries: u32,
        /// Its blocks.
        blocks: Vec<String>,
    },
    /// Change the blocks of a prefix list.
    ChangePrefixList {
        /// `pl-…`.
        list: String,
        /// A block to add.
        #[arg(long)]
        add: Vec<String>,
        /// A block to remove.
        #[arg(long)]
        remove: Vec<String>,
    },
}

/// What is asked of the API.
#[derive(Debug, PartialEq)]
enum Call {
    Post(String, Value),
    Put(String, Value),
    Delete(String),
}

fn entries(blocks: &[String]) -> Vec<Value> {
    blocks.iter().map(|cidr| json!({ "cidr": cidr })).collect()
}

/// The field that a route's destination stands in.
fn destination_field(destination: &str) -> &'static str {
    if destination.starts_with("pl-") { "destination_prefix_list_id" } else { "destination_cidr" }
}

fn call(verb: Verb) -> anyhow::Result<Call> {
    let path = session::path_of;
    let below = |id: &str, rest: &str| path(id).map(|path| format!("{path}/{rest}"));
    let route = |destination: String, target: String| json!({ destination_field(&destination): destination, "target_id": target });
    Ok(match verb {
        Verb::CreateDefaultVpc => Call::Post("/api/v1/vpcs/default".to_owned(), json!({})),
        Verb::AddBlock { vpc, block } => {
            Call::Post(below(&vpc, "cidr-blocks")?, json!({ "cidr_block": block }))
        }
        Verb::RemoveBlock { vpc, association } => {
            Call::Delete(below(&vpc, &format!("cidr-blocks/{}", session::escape(&association)))?)
        }
        Verb::AddRoute { table, destination, target } => {
            Call::Post(below(&table, "routes")?, route(destination, target))
        }
        Verb::ReplaceRoute { table, destination, target } => {
            Call::Put(below(&table, "routes")?, route(destination, target))
        }
        Verb::RemoveRoute { table, destination } => Call::Delete(below(
            &table,
            &format!("routes?{}={}", destination_field(&destination), session::escape(&destination)),
        )?),
        Verb::Associate { table, subnet } => {
            Call::Post(below(&table, "associations")?, json!({ "subnet_id": subnet }))
        }
        Verb::ReplaceAssociation { table, association, to } => {
            let rest = format!("associations/{}", session::escape(&association));
            Call::Put(below(&table, &rest)?, json!({ "route_table_id": to }))
        }
        Verb::Disassociate { table, association } => {
            Call::Delete(below(&table, &format!("associations/{}", session::escape(&association)))?)
        }
        Verb::CreateInterface { subnet, groups, private_ip, secondary, description } => {
            let groups = (!groups.is_empty()).then_some(groups);
            let body = json!({
                "subnet_id": subnet, "security_group_ids": groups, "private_ip": private_ip,
                "secondary_private_ip_count": secondary, "description": description,
            });
            Call::Post("/api/v1/network-interfaces".to_owned(), body)
        }
        Verb::Attach { interface, instance, slot } => {
            Call::Post(below(&interface, "attach")?, json!({ "instance_id": instance, "device_index": slot }))
        }
        Verb::Detach { interface } => Call::Post(below(&interface, "detach")?, json!({})),
        Verb::AssignIps { interface, addresses, count } => {
            let addresses = (!addresses.is_empty()).then_some(addresses);
            Call::Post(below(&interface, "private-ips")?, json!({ "private_ips": addresses, "count": count }))
        }
        Verb::UnassignIps { interface, addresses } => {
            Call::Post(below(&interface, "private-ips/unassign")?, json!({ "private_ips": addresses }))
        }
        Verb::SourceDestCheck { interface, check } => {
            Call::Put(path(&interface)?, json!({ "source_dest_check": check == "on" }))
        }
        Verb::CreatePrefixList { name, max_entries, blocks } => {
            let body = json!({ "name": name, "max_entries": max_entries, "entries": entries(&blocks) });
            Call::Post("/api/v1/prefix-lists".to_owned(), body)
        }
        Verb::ChangePrefixList { list, add, remove } => {
            Call::Put(path(&list)?, json!({ "add_entries": entries(&add), "remove_entries": remove }))
        }
    })
}

/// Does it; with `wait`, answers when it is in force on every node, or after a minute.
pub async fn run(api: &mut Api, verb: Verb, wait: bool, json: bool) -> anyhow::Result<()> {
    let waiting = |path: String| match (wait, path.contains('?')) {
        (false, _) => path,
        (true, false) => format!("{path}?wait=applied&timeout=60"),
        (true, true) => format!("{path}&wait=applied&timeout=60"),
    };
    let answer = match call(verb)? {
        Call::Post(path, body) => api.post(&waiting(path), &body).await?,
        Call::Put(path, body) => api.put(&waiting(path), &body).await?,
        Call::Delete(path) => api.delete(&waiting(path)).await?,
    };
    if json {
        return output::one(&answer);
    }
    let id = answer.get("id").and_then(Value::as_str).unwrap_or("done");
    match answer.get("applied").filter(|applied| applied.is_object()) {
        Some(applied) => {
            let count = |key: &str| applied.get(key).and_then(Value::as_i64).unwrap_or(0);
            output::line(&format!("{id}: applied {}/{}", count("acked"), count("nodes")));
        }
        None => output::line(id),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_a_call() {
        let attach = Verb::Attach { interface: "eni-1".to_owned(), instance: "i-2".to_owned(), slot: 3 };
        let body = json!({ "instance_id": "i-2", "device_index": 3 });
        assert_eq!(
            call(attach).unwrap(),
            Call::Post("/api/v1/network-interfaces/eni-1/attach".to_owned(), body)
        );
        let gone = Verb::RemoveRoute { table: "rtb-1".to_owned(), destination: "0.0.0.0/0".to_owned() };
        let path = "/api/v1/route-tables/rtb-1/routes?destination_cidr=0.0.0.0%2F0".to_owned();
        assert_eq!(call(gone).unwrap(), Call::Delete(path));
        let (table, list) = ("rtb-1".to_owned(), "pl-2".to_owned());
        let gone = Verb::RemoveRoute { table: table.clone(), destination: list.clone() };
        let routes = "/api/v1/route-tables/rtb-1/routes";
        let path = format!("{routes}?destination_prefix_list_id=pl-2");
        assert_eq!(call(gone).unwrap(), Call::Delete(path));
        let made = Verb::AddRoute { table, destination: list, target: "igw-3".to_owned() };
        let body = json!({ "destination_prefix_list_id": "pl-2", "target_id": "igw-3" });
        assert_eq!(call(made).unwrap(), Call::Post(routes.to_owned(), body));
        assert!(call(Verb::Detach { interface: "x".to_owned() }).is_err());
    }
}
