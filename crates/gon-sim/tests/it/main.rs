//! The simulation: many seeds, and defects planted in it that must be found.

mod planted;
mod seeds;
