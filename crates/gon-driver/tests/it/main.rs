//! The doors against the real host.

mod run;
