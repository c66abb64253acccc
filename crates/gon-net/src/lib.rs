//! Compiler: a node's network document to flows and firewall; pure.
