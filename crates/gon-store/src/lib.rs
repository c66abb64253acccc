//! Door to PostgreSQL.
