//! Words: ids, names, CIDRs, ports, MACs, states.
