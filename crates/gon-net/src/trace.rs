//! An interpreter of flow tables: where would this packet go, and through which flows?
