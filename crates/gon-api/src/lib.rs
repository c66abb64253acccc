//! Contract of the REST API: requests, responses, errors, client.

pub mod client;
