//! From text in a request to words of `gon_types`, or a refusal that names the field.

use std::borrow::Cow;

use gon_store::reference::Ref;
use gon_types::Name;
use gon_types::id::{IdRef, Resource as Kind};

use super::error::{Refusal, Result};

/// A name people give to resources.
pub fn name(field: &'static str, text: &str) -> Result<String> {
    match text.parse::<Name>() {
        Ok(name) => Ok(name.into()),
        Err(error) => Err(Refusal::invalid(field, error.to_string())),
    }
}

/// A name, or what to use when none is given.
pub fn name_or(field: &'static str, text: Option<&str>, default: impl FnOnce() -> String) -> Result<String> {
    text.map_or_else(|| Ok(default()), |text| name(field, text))
}

/// A description, at most 255 printable characters.
pub fn description(field: &'static str, text: &str) -> Result<()> {
    if text.chars().count() > 255 {
        return Err(Refusal::invalid(field, "must be at most 255 characters"));
    }
    if !gon_core::security_group::is_printable(text) {
        return Err(Refusal::invalid(field, "must not contain control characters"));
    }
    Ok(())
}

/// An id of a resource of kind `R`.
pub fn id<R: Kind>(field: impl Into<Cow<'static, str>>, text: &str) -> Result<IdRef<R>> {
    text.parse::<IdRef<R>>().map_err(|error| Refusal::from(error).field(field))
}

/// The id as a statement looks for it.
pub fn reference<R: Kind>(field: impl Into<Cow<'static, str>>, text: &str) -> Result<Ref> {
    Ok(id::<R>(field, text)?.into())
}

/// At least one field of a change must be given.
pub fn some_change(given: bool) -> Result<()> {
    if given {
        Ok(())
    } else {
        Err(Refusal::new(super::Kind::Invalid, "MissingParameter", "nothing to change was given"))
    }
}
