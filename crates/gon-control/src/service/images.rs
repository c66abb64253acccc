//! What can be launched: images that nodes hold, and the catalog of types.

use gon_api::images::{Image, InstanceType, ListImages, ListInstanceTypes};
use gon_api::page::{NoQuery, Page};
use gon_core::catalog::INSTANCE_TYPES;
use gon_store::images::{self, ImageRow};
use gon_store::reference::Ref;
use gon_types::id::ImageId;

use super::Cx;
use super::error::Result;
use crate::api::One;

type Kind = gon_types::id::Image;

fn show(row: ImageRow) -> Image {
    Image {
        id: ImageId::from_uuid(row.id).to_string(),
        uuid: row.id,
        name: row.name,
        description: row.description,
        kind: row.kind,
        architecture: row.architecture,
        state: "available".to_owned(),
        min_memory_mib: row.min_memory_mib,
        disk_gib: row.disk_gib,
        public: row.public,
        created_at: row.created_at,
    }
}

/// Lists images.
pub async fn list(cx: Cx, (): (), query: ListImages, (): ()) -> Result<Page<Image>> {
    let window = cx.window("images", query.window())?;
    let mut conn = cx.conn().await?;
    let rows = images::list(&mut conn, cx.account(), query.name.as_deref(), window).await?;
    Ok(cx.page("images", window, rows, |r| r.id, show))
}

/// Describes an image.
pub async fn get(cx: Cx, One(id): One<Kind>, _: NoQuery, (): ()) -> Result<Image> {
    let mut conn = cx.conn().await?;
    Ok(show(Cx::found(images::get(&mut conn, cx.account(), &Ref::from(&id)).await, &id)?))
}

/// Lists instance types, smallest first within their family; they are few, and all on one page.
pub async fn list_types(cx: Cx, (): (), query: ListInstanceTypes, (): ()) -> Result<Page<InstanceType>> {
    cx.window("instance-types", query.window())?;
    let items = INSTANCE_TYPES
        .iter()
        .filter(|t| query.name.as_deref().is_none_or(|name| name == t.name))
        .map(|t| InstanceType { name: t.name.to_owned(), vcpus: t.vcpus, memory_mib: t.memory_mib })
        .collect();
    Ok(Page { items, next_cursor: None })
}
