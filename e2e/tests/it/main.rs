//! The end-to-end proof. Each test is a story told of a cloud of its own; see [`e2e::world`].

mod cluster;
mod console;
mod crash;
mod crash_points;
mod debian;
mod down;
mod harness;
mod isolation;
mod lifecycle;
mod pages;
mod services;
mod slice;
mod spoof;
