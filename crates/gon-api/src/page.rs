//! What lists and changes have in common.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// One page of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The resources.
    pub items: Vec<T>,
    /// Where the next page begins: send it as `cursor`. Null on the last page.
    pub next_cursor: Option<String>,
}

/// `VpcPage` for a page of VPCs: the derived name would be the same for all.
impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        T::schemas(schemas);
        schemas.push((T::name().into_owned(), T::schema()));
    }
}
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let text_or_null = SchemaType::from_iter([Type::String, Type::Null]);
        ObjectBuilder::new()
            .description(Some("One page of a list, newest first."))
            .property("items", ArrayBuilder::new().items(Ref::from_schema_name(T::name())))
            .property(
                "next_cursor",
                ObjectBuilder::new().schema_type(text_or_null).description(Some(
                    "Where the next page begins: send it as `cursor`. Null on the last page.",
                )),
            )
            .required("items")
            .required("next_cursor")
            .into()
    }
}

/// How far a change has come: on how many of the nodes that must have it in force it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// The generation of what was changed: of the VPC, or of the instance.
    pub generation: i64,
    /// Nodes that must have it in force.
    pub nodes: i64,
    /// Those that have.
    pub acked: i64,
}

impl Applied {
    /// Whether it is in force everywhere.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.acked >= self.nodes
    }
}

/// Asks to be answered only when something has come about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer when the instance is `running`, `stopped` or `terminated`, or when the change is `applied` on every node;
    /// or when the time is up, whichever is first.
    pub wait: Option<String>,
    /// How long at most, seconds: 1 to 60, 30 unless given.
    pub timeout: Option<String>,
}

/// No query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct NoQuery {}

/// The query of a list: `limit`, `cursor` and what it can be narrowed to.
macro_rules! list_query {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub struct $name {
            /// Resources per page: 1 to 1000, 100 unless given.
            pub limit: Option<String>,
            /// The `next_cursor` of the page before.
            pub cursor: Option<String>,
            $($(#[$field_doc])* pub $field: Option<String>,)*
        }
        impl $name {
            /// `limit` and `cursor`.
            #[must_use]
            pub fn window(&self) -> (Option<&str>, Option<&str>) {
                (self.limit.as_deref(), self.cursor.as_deref())
            }
        }
    };
}
pub(crate) use list_query;
