//! Roles of a worker: hypervisor, network, container and storage agents.
