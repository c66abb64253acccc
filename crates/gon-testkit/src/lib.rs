//! Test support: throw-away PostgreSQL, namespaces, fake agents.
