//! netlink: follows.
