//! Health and metrics of the agents: follows.
