//! The simulation: many seeds, defects planted in it that must be found; and a storm on real controllers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod planted;
mod recovery;
mod seeds;
mod storm;

/// Held by the storm: it measures time, and wants the processors for itself. The others share it.
static PROCESSORS: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// A share of the processors.
fn share() -> std::sync::RwLockReadGuard<'static, ()> {
    PROCESSORS.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
