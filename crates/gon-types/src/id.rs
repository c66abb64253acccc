//! Typed ids. Stored as a UUIDv7, shown as EC2 shows them: `<prefix>-` and the last 17 hex digits of the UUID.
//!
//! Assumes that ids are made by the application (`Id::new`, UUIDv7), so that the last 17 digits carry 62 random
//! bits and sort columns stay time-ordered. Promises that an id of one resource cannot be passed for another.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A kind of resource that has ids.
pub trait Resource: 'static {
    /// The prefix a person sees, without the dash (`vpc`).
    const PREFIX: &'static str;
    /// The resource in the words of an error message (`VPC`).
    const NOUN: &'static str;
    /// The first part of EC2's error codes for this resource (`InvalidVpcID`).
    const EC2_ERROR: &'static str;
}

/// The id of a resource of kind `R`.
pub struct Id<R: Resource>(Uuid, PhantomData<fn() -> R>);

impl<R: Resource> Id<R> {
    /// A new id, time-ordered (UUIDv7). Reads the clock and the random source: not for pure code.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7(), PhantomData)
    }
    /// An id from its stored form.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
    /// The stored form.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
    /// The 17 hex digits a person sees after the prefix.
    #[must_use]
    pub fn short(self) -> String {
        let hex = self.0.simple().to_string();
        hex[hex.len() - SHORT_LEN..].to_owned()
    }
}

impl<R: Resource> Default for Id<R> {
    fn default() -> Self {
        Self::new()
    }
}
impl<R: Resource> Clone for Id<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R: Resource> Copy for Id<R> {}
impl<R: Resource> PartialEq for Id<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<R: Resource> Eq for Id<R> {}
impl<R: Resource> PartialOrd for Id<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<R: Resource> Ord for Id<R> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<R: Resource> std::hash::Hash for Id<R> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<R: Resource> fmt::Display for Id<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", R::PREFIX, self.short())
    }
}
impl<R: Resource> fmt::Debug for Id<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
/// Between our own processes an id travels whole (the UUID), never shortened.
impl<R: Resource> Serialize for Id<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
impl<'de, R: Resource> Deserialize<'de> for Id<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::deserialize(deserializer).map(Self::from_uuid)
    }
}

/// How many hex digits of the UUID a person sees.
pub const SHORT_LEN: usize = 17;

/// An id as a client wrote it: whole (`018f…` UUID) or shown (`vpc-0123456789abcdef0`).
/// Resolving the shown form to a stored one is a look-up in a unique column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdRef<R: Resource> {
    /// The stored id itself.
    Whole(Id<R>),
    /// The last 17 hex digits, lower case.
    Short(String),
}

/// Why a text is not an id of the resource asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the id of a {noun}: expected {prefix}- and 17 hex digits, or a UUID")]
pub struct IdError {
    /// What the client wrote, cut to 64 characters.
    pub text: String,
    /// The resource in words.
    pub noun: &'static str,
    /// The prefix expected.
    pub prefix: &'static str,
    /// First part of EC2's code; `<this>.Malformed` is the whole.
    pub ec2_error: &'static str,
}

impl<R: Resource> FromStr for IdRef<R> {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || IdError {
            text: text.chars().take(64).collect(),
            noun: R::NOUN,
            prefix: R::PREFIX,
            ec2_error: R::EC2_ERROR,
        };
        if let Some(short) = text.strip_prefix(R::PREFIX).and_then(|rest| rest.strip_prefix('-')) {
            let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if short.len() == SHORT_LEN && short.bytes().all(is_hex) {
                return Ok(Self::Short(short.to_owned()));
            }
            return Err(malformed());
        }
        if text.len() == 36 {
            return Uuid::try_parse(text)
                .map(|uuid| Self::Whole(Id::from_uuid(uuid)))
                .map_err(|_| malformed());
        }
        Err(malformed())
    }
}

macro_rules! resources {
    ($($(#[$doc:meta])* $marker:ident $alias:ident = $prefix:literal, $noun:literal, $ec2:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $marker {}
        impl Resource for $marker {
            const PREFIX: &'static str = $prefix;
            const NOUN: &'static str = $noun;
            const EC2_ERROR: &'static str = $ec2;
        }
        #[doc = concat!("The id of a ", $noun, ", shown as `", $prefix, "-…`.")]
        pub type $alias = Id<$marker>;
    )*};
}

resources! {
    /// An account: the owner of resources.
    Account AccountId = "acct", "account", "InvalidAccountID";
    /// A person or program that signs in.
    User UserId = "user", "user", "InvalidUserID";
    /// A server that runs instances.
    Node NodeId = "node", "node", "InvalidNodeID";
    /// A virtual private cloud.
    Vpc VpcId = "vpc", "VPC", "InvalidVpcID";
    /// The association of a VPC with a block.
    VpcCidrBlock VpcCidrBlockId =
        "vpc-cidr-assoc", "VPC block association", "InvalidVpcCidrBlockAssociationIdError";
    /// A subnet of a VPC.
    Subnet SubnetId = "subnet", "subnet", "InvalidSubnetID";
    /// A virtual machine or container.
    Instance InstanceId = "i", "instance", "InvalidInstanceID";
    /// A security group.
    SecurityGroup SecurityGroupId = "sg", "security group", "InvalidGroup";
    /// A rule of a security group.
    SecurityGroupRule SecurityGroupRuleId = "sgr", "security group rule", "InvalidSecurityGroupRuleId";
    /// A route table.
    RouteTable RouteTableId = "rtb", "route table", "InvalidRouteTableID";
    /// The association of a route table with a subnet.
    RouteTableAssociation RouteTableAssociationId = "rtbassoc", "route table association", "InvalidAssociationID";
    /// An internet gateway.
    InternetGateway InternetGatewayId = "igw", "internet gateway", "InvalidInternetGatewayID";
    /// A network ACL.
    NetworkAcl NetworkAclId = "acl", "network ACL", "InvalidNetworkAclID";
    /// The association of a network ACL with a subnet.
    NetworkAclAssociation NetworkAclAssociationId = "aclassoc", "network ACL association", "InvalidAssociationID";
    /// A network interface (ENI).
    NetworkInterface NetworkInterfaceId = "eni", "network interface", "InvalidNetworkInterfaceID";
    /// The attachment of a network interface to an instance.
    Attachment AttachmentId = "eni-attach", "attachment", "InvalidAttachmentID";
    /// A managed list of blocks.
    PrefixList PrefixListId = "pl", "prefix list", "InvalidPrefixListID";
    /// An allocated public address.
    Address AddressId = "eipalloc", "address", "InvalidAllocationID";
    /// An SSH key pair.
    KeyPair KeyPairId = "key", "key pair", "InvalidKeyPair";
    /// A machine image.
    Image ImageId = "ami", "image", "InvalidAMIID";
    /// A block volume.
    Volume VolumeId = "vol", "volume", "InvalidVolume";
    /// A snapshot of a volume.
    Snapshot SnapshotId = "snap", "snapshot", "InvalidSnapshot";
    /// A background operation.
    Operation OperationId = "op", "operation", "InvalidOperationID";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_id_is_the_prefix_and_the_last_17_digits() {
        let uuid = Uuid::parse_str("018f0e2a-7b1c-7def-8123-456789abcdef").unwrap();
        assert_eq!(VpcId::from_uuid(uuid).to_string(), "vpc-f8123456789abcdef");
    }

    #[test]
    fn both_forms_parse_and_nothing_else_does() {
        let id = VpcId::new();
        assert_eq!(id.to_string().parse(), Ok(IdRef::<Vpc>::Short(id.short())));
        assert_eq!(id.uuid().to_string().parse(), Ok(IdRef::Whole(id)));
        for bad in [
            "",
            "vpc-",
            "vpc-123",
            "subnet-f8123456789abcdef",
            "vpc-F8123456789ABCDEF",
            "vpc-f8123456789abcdeg",
            "vpc_f8123456789abcdef",
            "018f0e2a7b1c7def8123456789abcdef",
            "vpc-f8123456789abcdef0",
            "'; drop table vpcs --",
        ] {
            assert!(bad.parse::<IdRef<Vpc>>().is_err(), "{bad}");
        }
    }
}
