//! stub
use super::manifest::Draft;
use super::{ImageError, Progress, digest_of};
use std::path::Path;
pub(super) fn digest() -> String {
    digest_of(&["debian-12 0"], &[])
}
pub(super) async fn build(_work: &Path, _out: &Path, _progress: Progress<'_>) -> Result<Draft, ImageError> {
    Err(ImageError::Contents("not yet".into()))
}
