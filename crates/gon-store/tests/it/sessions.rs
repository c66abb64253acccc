//! Refresh tokens.

use gon_store::sessions::{Presented, family_of, issue, present, revoke};
use uuid::Uuid;

#[tokio::test]
async fn a_token_is_used_once_and_its_second_use_revokes_the_family() {
    let database = gon_testkit::database().await;
    gon_store::admin::script(
        &database.store,
        "insert into accounts (id, name) values ('00000000-0000-0000-0000-0000000000a1', 'a');
         insert into users (id, account_id, username, email, password_hash) values
           ('00000000-0000-0000-0000-0000000000b1', '00000000-0000-0000-0000-0000000000a1', 'ann', 'a@b', '$argon2id$x')",
    )
    .await
    .unwrap();
    let mut conn = database.store.conn().await.unwrap();
    let (user, family, other) = (Uuid::from_u128(0xb1), Uuid::from_u128(1), Uuid::from_u128(2));
    issue(&mut conn, &[1; 32], user, family, 30).await.unwrap();
    issue(&mut conn, &[2; 32], user, family, 30).await.unwrap();
    issue(&mut conn, &[3; 32], user, other, 30).await.unwrap();
    issue(&mut conn, &[4; 32], user, other, -1).await.unwrap();
    assert_eq!(present(&mut conn, &[9; 32]).await.unwrap(), Presented::Unknown);
    assert_eq!(present(&mut conn, &[4; 32]).await.unwrap(), Presented::Unknown, "expired");
    assert_eq!(present(&mut conn, &[1; 32]).await.unwrap(), Presented::Taken { user, family });
    assert_eq!(present(&mut conn, &[1; 32]).await.unwrap(), Presented::Reused { user, family });
    assert_eq!(present(&mut conn, &[2; 32]).await.unwrap(), Presented::Unknown, "its family is revoked");
    assert_eq!(family_of(&mut conn, &[3; 32]).await.unwrap(), Some((other, user)));
    revoke(&mut conn, other).await.unwrap();
    assert_eq!(present(&mut conn, &[3; 32]).await.unwrap(), Presented::Unknown);
}
