//! Open vSwitch: follows.
