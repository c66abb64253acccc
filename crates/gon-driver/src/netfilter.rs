//! netfilter: follows.
