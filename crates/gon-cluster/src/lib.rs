//! Door to liveness: who is alive, who leads.
