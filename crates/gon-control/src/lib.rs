//! Roles of the control plane: api-server, network-controller, instance-manager.
