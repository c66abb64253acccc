//! The door to the wire: the site's certificate authority, TLS between its services, and who speaks at the other end.
