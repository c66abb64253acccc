//! Rules: pure decisions, no IO.
