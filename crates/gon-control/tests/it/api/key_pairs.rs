//! Key pairs.

use serde_json::json;

use super::Api;
use super::harness::id;

const ED25519: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzQhzvr2rUAe9FS1qSkTpoyNFkWUXzqhf6rHjIY0VxP somebody@somewhere";

#[tokio::test]
async fn pairs_are_made_or_imported_under_names_of_their_own() {
    let api = Api::new().await;
    let made = api.post("/key-pairs", json!({ "name": "made" })).await.ok();
    assert_eq!(made["key_type"], "ed25519");
    assert!(made["fingerprint"].as_str().unwrap().starts_with("SHA256:"));
    assert!(made["public_key"].as_str().unwrap().ends_with(" made"));
    let imported = api.post("/key-pairs", json!({ "name": "mine", "public_key": ED25519 })).await.ok();
    assert!(imported.get("private_key").is_none());
    assert!(imported["public_key"].as_str().unwrap().ends_with(" mine"), "{imported}");
    assert_eq!(
        api.post("/key-pairs", json!({ "name": "mine" })).await.problem(),
        (409, "InvalidKeyPair.Duplicate")
    );
    let found = api.get("/key-pairs?name=mine").await.ok();
    assert_eq!(found["items"], json!([imported]));
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-dss AAAA",
        "-----BEGIN PRIVATE KEY-----",
        &"x".repeat(20_000),
    ] {
        let answer = api.post("/key-pairs", json!({ "name": "bad", "public_key": bad })).await;
        assert_eq!((answer.problem(), answer.field()), ((400, "InvalidKey.Format"), Some("public_key")));
    }
    assert_eq!(api.delete(&format!("/key-pairs/{}", id(&imported))).await.status, 204);
    api.post("/key-pairs", json!({ "name": "mine" })).await.ok();
}

#[tokio::test]
async fn an_instance_keeps_the_key_it_was_launched_with() {
    let api = Api::furnished().await;
    let vpc = api.vpc("10.0.0.0/16").await;
    let subnet = api.subnet(id(&vpc), "10.0.1.0/24").await;
    let key = api.post("/key-pairs", json!({ "name": "k", "public_key": ED25519 })).await.ok();
    let instance = api.launch(id(&subnet), json!({ "key_name": "k" })).await.ok();
    assert_eq!(api.delete(&format!("/key-pairs/{}", id(&key))).await.status, 204);
    assert_eq!(api.get(&format!("/instances/{}", id(&instance))).await.ok()["key_name"], "k");
    assert_eq!(api.count("select count(*) from instances where public_key like 'ssh-ed25519 %'").await, 1);
    let gone = api.launch(id(&subnet), json!({ "key_name": "k" })).await;
    assert_eq!(gone.problem(), (404, "InvalidKeyPair.NotFound"));
}
