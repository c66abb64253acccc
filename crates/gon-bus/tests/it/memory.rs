use gon_bus::MemoryBus;

use crate::conformance;

#[tokio::test]
async fn the_bus_of_one_process_conforms() {
    conformance::all(|| async { MemoryBus::new() }).await;
}
