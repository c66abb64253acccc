//! Door to the message bus: doorbells.
