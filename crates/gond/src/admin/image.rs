//! `gond image build`

use std::path::Path;
use std::str::FromStr as _;

use anyhow::Context;
use gon_driver::image::{Recipe, build as build_images};

use crate::terminal;

/// Makes the images that are missing or out of date.
pub async fn build(images_dir: &Path, names: &[String]) -> anyhow::Result<()> {
    let mut recipes = Vec::new();
    for name in names {
        if name == "all" {
            recipes.extend(Recipe::ALL);
        } else {
            recipes.push(Recipe::from_str(name)?);
        }
    }
    recipes.dedup();
    let progress = |recipe: Recipe, what: &str| terminal::line(&format!("{recipe}: {what}"));
    let built = build_images(images_dir, &recipes, &progress)
        .await
        .with_context(|| format!("images in {}", images_dir.display()))?;
    for image in built {
        let how = if image.fresh { "made" } else { "up to date" };
        terminal::line(&format!(
            "{}: {how} ({:.1} s) in {}",
            image.recipe,
            image.took.as_secs_f64(),
            image.dir.display()
        ));
    }
    Ok(())
}
