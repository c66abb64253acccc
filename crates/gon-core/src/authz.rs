//! Who may do what: one door, one table.
//!
//! Every route names its [`Action`]; there is no other way to register one. Whose a thing is, is asked of PostgreSQL
//! in the same statement that reads or changes it, so an object here is only "of this account" or "of the site".

use uuid::Uuid;

/// What a user is in its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs the site as well.
    Admin,
    /// Uses it.
    Member,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: Uuid,
    /// The account it acts for.
    pub account: Uuid,
    /// What it is there.
    pub role: Role,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// Something that belongs to an account, or would.
    Of(Uuid),
    /// Something that belongs to the whole site: its nodes.
    Site,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident: $reach:ident;)*) => {
        /// Everything that can be asked for, by EC2's name where it has one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action { $($(#[$doc])* #[allow(missing_docs)] $name,)* }
        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// Its name, as in the audit log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
            const fn reach(self) -> Reach {
                match self { $(Self::$name => Reach::$reach,)* }
            }
        }
    };
}

/// How far an action goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Reads what the account has.
    Read,
    /// Changes what the account has.
    Write,
    /// Concerns the site.
    Operate,
}

actions! {
    CreateVpc: Write; DescribeVpcs: Read; ModifyVpc: Write; DeleteVpc: Write; CreateDefaultVpc: Write;
    AssociateVpcCidrBlock: Write; DisassociateVpcCidrBlock: Write;
    CreateSubnet: Write; DescribeSubnets: Read; ModifySubnetAttribute: Write; DeleteSubnet: Write;
    CreateRouteTable: Write; DescribeRouteTables: Read; ModifyRouteTable: Write; DeleteRouteTable: Write;
    CreateRoute: Write; DeleteRoute: Write; AssociateRouteTable: Write; DisassociateRouteTable: Write;
    ReplaceRoute: Write; ReplaceRouteTableAssociation: Write;
    CreateInternetGateway: Write; DescribeInternetGateways: Read; ModifyInternetGateway: Write;
    DeleteInternetGateway: Write; AttachInternetGateway: Write; DetachInternetGateway: Write;
    CreateSecurityGroup: Write; DescribeSecurityGroups: Read; ModifySecurityGroup: Write; DeleteSecurityGroup: Write;
    AuthorizeSecurityGroup: Write; RevokeSecurityGroup: Write;
    CreateManagedPrefixList: Write; DescribeManagedPrefixLists: Read; ModifyManagedPrefixList: Write;
    DeleteManagedPrefixList: Write;
    CreateNetworkAcl: Write; DescribeNetworkAcls: Read; ModifyNetworkAcl: Write; DeleteNetworkAcl: Write;
    CreateNetworkAclEntry: Write; ReplaceNetworkAclEntry: Write; DeleteNetworkAclEntry: Write;
    ReplaceNetworkAclAssociation: Write;
    CreateKeyPair: Write; DescribeKeyPairs: Read; DeleteKeyPair: Write;
    DescribeImages: Read; DescribeInstanceTypes: Read; DescribeNetworkInterfaces: Read;
    CreateNetworkInterface: Write; ModifyNetworkInterfaceAttribute: Write; DeleteNetworkInterface: Write;
    AttachNetworkInterface: Write; DetachNetworkInterface: Write;
    AssignPrivateIpAddresses: Write; UnassignPrivateIpAddresses: Write;
    AllocateAddress: Write; DescribeAddresses: Read; ReleaseAddress: Write;
    AssociateAddress: Write; DisassociateAddress: Write;
    RunInstances: Write; DescribeInstances: Read; ModifyInstanceAttribute: Write; TerminateInstances: Write;
    StartInstances: Write; StopInstances: Write; RebootInstances: Write; GetConsoleOutput: Read;
    DescribeNodes: Operate; CordonNode: Operate; UncordonNode: Operate; DrainNode: Operate; RemoveNode: Operate;
    TracePacket: Operate;
    DescribeOperations: Read; CancelOperation: Write;
    DescribeSelf: Read; WatchEvents: Read;
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is another account's: to be answered as if it were not there.
    #[error("no such thing")]
    NotYours,
    /// The role does not reach that far.
    #[error("your role does not allow this")]
    Role,
}

/// Whether the actor may do that to the object. Everything not said here is denied.
pub fn authorize(actor: &Actor, action: Action, object: Object) -> Result<(), Denied> {
    if let Object::Of(account) = object
        && account != actor.account
    {
        return Err(Denied::NotYours);
    }
    match (action.reach(), actor.role, object) {
        (Reach::Operate, Role::Admin, Object::Site) => Ok(()),
        (Reach::Read | Reach::Write, Role::Admin | Role::Member, Object::Of(_)) => Ok(()),
        _ => Err(Denied::Role),
    }
}

/// What an action is about when the route does not say: the site for operators' actions, the account's own otherwise.
#[must_use]
pub const fn object_of(action: Action, account: Uuid) -> Object {
    match action.reach() {
        Reach::Operate => Object::Site,
        Reach::Read | Reach::Write => Object::Of(account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_total_and_denies_by_default() {
        let mine = Uuid::from_u128(1);
        let other = Uuid::from_u128(2);
        for &action in Action::ALL {
            for role in [Role::Admin, Role::Member] {
                let actor = Actor { user: mine, account: mine, role };
                assert_eq!(authorize(&actor, action, Object::Of(other)), Err(Denied::NotYours), "{action:?}");
                let operate = action.reach() == Reach::Operate;
                assert_eq!(
                    authorize(&actor, action, Object::Of(mine)).is_ok(),
                    !operate,
                    "{action:?} {role:?}"
                );
                let site = authorize(&actor, action, Object::Site).is_ok();
                assert_eq!(site, operate && role == Role::Admin, "{action:?} {role:?}");
            }
            assert!(action.name().bytes().all(|b| b.is_ascii_alphabetic()) && action.name().len() <= 64);
        }
    }
}
