//! Contract between controllers and agents: node documents, reports, doorbells.
