//! The simulation: many seeds, defects planted in it that must be found; and a storm on real controllers.

mod planted;
mod seeds;
mod storm;
