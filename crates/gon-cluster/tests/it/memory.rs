use gon_cluster::MemoryLiveness;

use crate::conformance;

#[tokio::test]
async fn liveness_of_one_process_conforms() {
    conformance::all(|| async { MemoryLiveness::new() }).await;
}
