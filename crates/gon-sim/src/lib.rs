//! A deterministic simulation of controllers, agents and what is between them.
