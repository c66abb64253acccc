//! Why the service does not do what it is asked. Knows EC2's codes, not HTTP's.

use std::borrow::Cow;

use gon_store::StoreError;
use gon_types::IdError;

/// What kind of no it is; the API turns it into a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something in the request is wrong.
    Invalid,
    /// Nobody is signed in.
    Unauthenticated,
    /// The role does not allow it.
    Denied,
    /// Not there, or not yours.
    NotFound,
    /// Not in this state, or something stands in the way.
    Conflict,
    /// It changed since it was read (`If-Match`).
    Changed,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON.
    NotJson,
    /// No such method on this path.
    NoSuchMethod,
    /// Too many calls.
    TooMany,
    /// Not now.
    Unavailable,
    /// Lost a race inside PostgreSQL; trying again may succeed.
    Retry,
    /// Ours to mend.
    Internal,
}

/// A no, with what the user needs to know and what only we need to know.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// What kind.
    pub kind: Kind,
    /// EC2's code.
    pub code: Cow<'static, str>,
    /// For the user.
    pub detail: String,
    /// The field that is wrong.
    pub field: Option<Cow<'static, str>>,
    /// Ids of what stands in the way.
    pub blockers: Vec<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// For us.
    #[source]
    pub cause: Option<Box<StoreError>>,
}

/// What the service returns.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    /// A no of this kind.
    pub fn new(kind: Kind, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.into(),
            detail: detail.into(),
            field: None,
            blockers: vec![],
            retry_after: None,
            cause: None,
        }
    }
    /// The field has a value it cannot have.
    pub fn invalid(field: impl Into<Cow<'static, str>>, why: impl Into<String>) -> Self {
        Self::of_field("InvalidParameterValue", field, why)
    }
    /// The field has a value it cannot have, and EC2 has a code of its own for that.
    pub fn of_field(
        code: impl Into<Cow<'static, str>>,
        field: impl Into<Cow<'static, str>>,
        why: impl Into<String>,
    ) -> Self {
        let mut refusal = Self::new(Kind::Invalid, code, why);
        refusal.field = Some(field.into());
        refusal
    }
    /// The field must be given.
    pub fn missing(field: impl Into<Cow<'static, str>>) -> Self {
        let field = field.into();
        let detail = format!("{field} is required");
        Self::of_field("MissingParameter", field, detail)
    }
    /// In this field.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }
    /// These stand in the way.
    #[must_use]
    pub fn blocked_by(mut self, blockers: Vec<String>) -> Self {
        self.blockers = blockers;
        self
    }
    /// Something stands in the way.
    pub fn dependency(detail: impl Into<String>, blockers: Vec<String>) -> Self {
        Self::new(Kind::Conflict, "DependencyViolation", detail).blocked_by(blockers)
    }
    /// Not in this state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, code, detail)
    }
    /// There is no such thing, or it is somebody else's.
    pub fn not_found(ec2_error: &'static str, noun: &str, shown: impl std::fmt::Display) -> Self {
        let code = format!("{ec2_error}.NotFound");
        Self::new(Kind::NotFound, code, format!("the {noun} '{shown}' does not exist"))
    }
    /// It changed since it was read.
    pub fn changed() -> Self {
        Self::new(
            Kind::Changed,
            "PreconditionFailed",
            "it has changed since you read it: read it again, then repeat the change",
        )
        .field("If-Match")
    }
    /// Ours to mend; `what` is for the log.
    pub fn internal(what: &'static str) -> Self {
        tracing::error!(what, "internal error");
        Self::new(Kind::Internal, "InternalError", "something went wrong on our side")
    }
}

impl From<IdError> for Refusal {
    fn from(error: IdError) -> Self {
        Self::new(Kind::Invalid, format!("{}.Malformed", error.ec2_error), error.to_string())
    }
}

/// Constraint to EC2's code, words and field: what a refusal by PostgreSQL means to the user. A constraint that is not
/// here is a defect of ours: the checks before it should have answered.
const CONSTRAINTS: &[(&str, Kind, &str, &str, Option<&str>)] = &[
    (
        "instances_auto_recover_leader",
        Kind::Conflict,
        "UnsupportedOperation",
        "an instance manager of the version before leads: it recovers no instances",
        Some("auto_recover"),
    ),
    (
        "vpcs_cidr_block_check",
        Kind::Invalid,
        "InvalidVpc.Range",
        "must be between /16 and /28",
        Some("cidr_block"),
    ),
    (
        "vpcs_cidr_block_reserved",
        Kind::Invalid,
        "InvalidParameterValue",
        "overlaps a range that this site keeps for itself",
        Some("cidr_block"),
    ),
    (
        "vpcs_default_key",
        Kind::Conflict,
        "DefaultVpcAlreadyExists",
        "the account already has a default VPC",
        None,
    ),
    (
        "vpc_cidr_blocks_range_check",
        Kind::Invalid,
        "InvalidVpc.Range",
        "must be between /16 and /28",
        Some("cidr_block"),
    ),
    (
        "vpc_cidr_blocks_limit_check",
        Kind::Conflict,
        "CidrLimitExceeded",
        "the VPC has its five blocks",
        Some("cidr_block"),
    ),
    (
        "vpc_cidr_blocks_restricted_check",
        Kind::Invalid,
        "InvalidVpc.Range",
        "is restricted for this VPC",
        Some("cidr_block"),
    ),
    (
        "vpc_cidr_blocks_no_overlap",
        Kind::Conflict,
        "InvalidVpc.Range",
        "overlaps a block of the VPC",
        Some("cidr_block"),
    ),
    (
        "vpc_cidr_blocks_block_key",
        Kind::Conflict,
        "InvalidVpc.Range",
        "is a block of the VPC already",
        Some("cidr_block"),
    ),
    (
        "vpc_cidr_blocks_route_check",
        Kind::Conflict,
        "InvalidVpc.Range",
        "is the same as or larger than the destination of a route of the VPC",
        Some("cidr_block"),
    ),
    (
        "vpc_cidr_blocks_vpc_fkey",
        Kind::NotFound,
        "InvalidVpcID.NotFound",
        "the VPC does not exist",
        Some("vpc_id"),
    ),
    (
        "subnets_cidr_block_check",
        Kind::Invalid,
        "InvalidSubnet.Range",
        "must be between /16 and /28",
        Some("cidr_block"),
    ),
    (
        "subnets_inside_vpc_check",
        Kind::Invalid,
        "InvalidSubnet.Range",
        "is not inside the VPC's block",
        Some("cidr_block"),
    ),
    (
        "subnets_no_overlap",
        Kind::Conflict,
        "InvalidSubnet.Conflict",
        "overlaps another subnet of the VPC",
        Some("cidr_block"),
    ),
    (
        "subnets_block_fkey",
        Kind::Invalid,
        "InvalidSubnet.Range",
        "is not inside a block of the VPC",
        Some("cidr_block"),
    ),
    ("subnets_vpc_fkey", Kind::NotFound, "InvalidVpcID.NotFound", "the VPC does not exist", Some("vpc_id")),
    (
        "internet_gateways_vpc_fkey",
        Kind::NotFound,
        "InvalidVpcID.NotFound",
        "the VPC does not exist",
        Some("vpc_id"),
    ),
    (
        "internet_gateways_vpc_key",
        Kind::Conflict,
        "Resource.AlreadyAssociated",
        "the VPC already has an internet gateway",
        Some("vpc_id"),
    ),
    (
        "internet_gateways_detached_check",
        Kind::Conflict,
        "DependencyViolation",
        "the internet gateway is attached to a VPC",
        None,
    ),
    (
        "route_tables_vpc_fkey",
        Kind::NotFound,
        "InvalidVpcID.NotFound",
        "the VPC does not exist",
        Some("vpc_id"),
    ),
    // Two replaced the main table at once: the second attempt finds the new one.
    ("route_tables_main_key", Kind::Retry, "Unavailable", "the main table was replaced meanwhile", None),
    ("vpc_cidr_blocks_slot_key", Kind::Retry, "Unavailable", "another block was added meanwhile", None),
    (
        "route_table_associations_subnet_key",
        Kind::Conflict,
        "Resource.AlreadyAssociated",
        "the subnet already follows a route table of its own",
        Some("subnet_id"),
    ),
    (
        "route_table_associations_subnet_fkey",
        Kind::NotFound,
        "InvalidSubnetID.NotFound",
        "the subnet does not exist",
        Some("subnet_id"),
    ),
    (
        "route_table_associations_table_fkey",
        Kind::NotFound,
        "InvalidRouteTableID.NotFound",
        "the route table does not exist",
        None,
    ),
    (
        "routes_destination_key",
        Kind::Conflict,
        "RouteAlreadyExists",
        "the route table already has a route to that destination",
        Some("destination_cidr"),
    ),
    (
        "routes_prefix_list_key",
        Kind::Conflict,
        "RouteAlreadyExists",
        "the route table already has a route to that prefix list",
        Some("destination_prefix_list_id"),
    ),
    (
        "routes_prefix_list_fkey",
        Kind::NotFound,
        "InvalidPrefixListID.NotFound",
        "the prefix list does not exist",
        Some("destination_prefix_list_id"),
    ),
    (
        "routes_limit",
        Kind::Conflict,
        "RouteLimitExceeded",
        "a route table would have more than 50 routes; one to a prefix list counts for as many as the list has room for",
        None,
    ),
    (
        "routes_not_local_check",
        Kind::Invalid,
        "InvalidParameterValue",
        "is the VPC's own block or part of it",
        Some("destination_cidr"),
    ),
    (
        "routes_not_link_local_check",
        Kind::Invalid,
        "InvalidParameterValue",
        "is link-local, which is never routed",
        Some("destination_cidr"),
    ),
    (
        "routes_gateway_fkey",
        Kind::NotFound,
        "InvalidInternetGatewayID.NotFound",
        "the internet gateway does not exist",
        Some("target_id"),
    ),
    (
        "security_groups_name_key",
        Kind::Conflict,
        "InvalidGroup.Duplicate",
        "the VPC already has a security group of that name",
        Some("name"),
    ),
    (
        "security_groups_vpc_fkey",
        Kind::NotFound,
        "InvalidVpcID.NotFound",
        "the VPC does not exist",
        Some("vpc_id"),
    ),
    (
        "security_group_rules_duplicate_key",
        Kind::Conflict,
        "InvalidPermission.Duplicate",
        "the security group already has that rule",
        None,
    ),
    (
        "security_group_rules_group_fkey",
        Kind::NotFound,
        "InvalidGroup.NotFound",
        "the security group does not exist",
        None,
    ),
    (
        "security_group_rules_peer_group_fkey",
        Kind::NotFound,
        "InvalidGroup.NotFound",
        "the security group does not exist in this VPC",
        Some("source_destination"),
    ),
    (
        "security_group_rules_peer_list_fkey",
        Kind::NotFound,
        "InvalidPrefixListID.NotFound",
        "the prefix list does not exist",
        Some("source_destination"),
    ),
    (
        "prefix_lists_room",
        Kind::Conflict,
        "PrefixListMaxEntriesExceeded",
        "the prefix list would have more entries than it may have",
        Some("max_entries"),
    ),
    (
        "network_acls_vpc_fkey",
        Kind::NotFound,
        "InvalidVpcID.NotFound",
        "the VPC does not exist",
        Some("vpc_id"),
    ),
    (
        "network_acl_entries_key",
        Kind::Conflict,
        "NetworkAclEntryAlreadyExists",
        "the network ACL already has an entry of that number in that direction",
        Some("rule_number"),
    ),
    (
        "network_acl_entries_acl_fkey",
        Kind::NotFound,
        "InvalidNetworkAclID.NotFound",
        "the network ACL does not exist",
        None,
    ),
    (
        "network_acl_associations_acl_fkey",
        Kind::NotFound,
        "InvalidNetworkAclID.NotFound",
        "the network ACL does not exist",
        None,
    ),
    (
        "key_pairs_name_key",
        Kind::Conflict,
        "InvalidKeyPair.Duplicate",
        "there is already a key pair of that name",
        Some("name"),
    ),
    (
        "instances_subnet_fkey",
        Kind::NotFound,
        "InvalidSubnetID.NotFound",
        "the subnet does not exist",
        Some("subnet_id"),
    ),
    (
        "network_interfaces_subnet_fkey",
        Kind::NotFound,
        "InvalidSubnetID.NotFound",
        "the subnet does not exist",
        Some("subnet_id"),
    ),
    (
        "network_interfaces_slot_key",
        Kind::Invalid,
        "InvalidParameterValue",
        "the instance already has an interface attached at that device index",
        Some("device_index"),
    ),
    (
        "network_interfaces_instance_fkey",
        Kind::Invalid,
        "InvalidParameterValue",
        "the instance is of another VPC, or is terminated",
        Some("instance_id"),
    ),
    (
        "network_interfaces_primary_stays",
        Kind::Conflict,
        "OperationNotPermitted",
        "the primary interface of an instance cannot be detached",
        None,
    ),
    (
        "network_interfaces_in_use",
        Kind::Conflict,
        "InvalidNetworkInterface.InUse",
        "the interface is attached already",
        None,
    ),
    (
        "network_interfaces_instance_stopped",
        Kind::Conflict,
        "IncorrectInstanceState",
        "the instance is not stopped",
        Some("instance_id"),
    ),
    (
        "network_interfaces_same_zone",
        Kind::Invalid,
        "InvalidParameterCombination",
        "the interface and the instance are in different availability zones",
        Some("instance_id"),
    ),
    (
        "interface_addresses_private_ip_key",
        Kind::Retry,
        "InvalidIPAddress.InUse",
        "the address is in use in the subnet",
        Some("private_ip"),
    ),
    (
        "interface_addresses_range_check",
        Kind::Invalid,
        "InvalidParameterValue",
        "interfaces cannot have it in the subnet",
        Some("private_ips"),
    ),
    (
        "interface_addresses_limit",
        Kind::Conflict,
        "PrivateIpAddressLimitExceeded",
        "an interface has at most 15 secondary addresses",
        Some("private_ips"),
    ),
    (
        "instances_image_fkey",
        Kind::NotFound,
        "InvalidAMIID.NotFound",
        "the image does not exist",
        Some("image_id"),
    ),
    (
        "network_interface_security_groups_group_fkey",
        Kind::NotFound,
        "InvalidGroup.NotFound",
        "the security group does not exist",
        Some("security_group_ids"),
    ),
    (
        "nodes_capacity_check",
        Kind::Conflict,
        "InsufficientInstanceCapacity",
        "the node has no room for that",
        Some("instance_type"),
    ),
    (
        "instances_state_edge_check",
        Kind::Conflict,
        "IncorrectInstanceState",
        "the instance is not in a state for that",
        None,
    ),
    (
        "public_ips_interface_fkey",
        Kind::Conflict,
        "IncorrectInstanceState",
        "the instance is going away",
        None,
    ),
    (
        "public_ips_interface_key",
        Kind::Conflict,
        "Resource.AlreadyAssociated",
        "the interface already has a public address",
        None,
    ),
    (
        "nodes_removed_empty",
        Kind::Retry,
        "DependencyViolation",
        "an instance came to the node meanwhile",
        None,
    ),
    // Two transactions drew the same random number, or the same key was used twice at once: the second attempt settles it.
    ("network_interfaces_mac_key", Kind::Retry, "InternalError", "try again", None),
    ("idempotency_keys_key", Kind::Retry, "InternalError", "try again", None),
];

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let found = error.constraint().and_then(|name| CONSTRAINTS.iter().find(|(known, ..)| *known == name));
        let mut refusal = match (&error, found) {
            (_, Some((_, kind, code, detail, field))) => {
                let mut refusal = Self::new(*kind, *code, *detail);
                refusal.field = field.map(Cow::Borrowed);
                refusal
            }
            (StoreError::Conflict(_), None) => {
                let mut refusal = Self::new(
                    Kind::Retry,
                    "Unavailable",
                    "concurrent changes got in each other's way: try again",
                );
                refusal.retry_after = Some(1);
                refusal
            }
            (StoreError::Unavailable(_), None) => {
                let mut refusal =
                    Self::new(Kind::Unavailable, "Unavailable", "the database is unavailable: try again");
                refusal.retry_after = Some(1);
                refusal
            }
            (StoreError::OutcomeUnknown(_), None) => {
                let mut refusal = Self::new(
                    Kind::Unavailable,
                    "OutcomeUnknown",
                    "whether the change was made is not known: repeat it with the same Idempotency-Key",
                );
                refusal.retry_after = Some(1);
                refusal
            }
            // What callers expect to find they look for by name; this one nobody expected.
            _ => Self::new(Kind::Internal, "InternalError", "something went wrong on our side"),
        };
        refusal.cause = Some(Box::new(error));
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constraint_is_in_the_schema() {
        let schema = concat!(
            include_str!("../../../gon-store/migrations/0001_create_schema.sql"),
            include_str!("../../../gon-store/migrations/0002_cluster.sql"),
            include_str!("../../../gon-store/migrations/0005_auto_recover.sql"),
            include_str!("../../../gon-store/migrations/0006_network_acls.sql"),
            include_str!("../../../gon-store/migrations/0007_network_objects.sql"),
            include_str!("../../../gon-store/migrations/0008_prefix_lists.sql"),
            include_str!("../../../gon-store/migrations/0010_prefix_list_routes.sql"),
        );
        for (name, ..) in CONSTRAINTS {
            assert!(schema.contains(name), "{name} is not in the schema");
        }
        let mut names: Vec<_> = CONSTRAINTS.iter().map(|c| c.0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CONSTRAINTS.len());
    }
}
