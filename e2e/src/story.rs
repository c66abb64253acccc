//! A test as a story: a scene is built, something happens in it, and it is taken down, whatever happened.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::namespace::Namespace;
use crate::say;

/// Where a story happens.
pub trait Scene: Sized {
    /// Builds one.
    ///
    /// # Errors
    /// When a part is missing or does not come up.
    fn start(name: &str) -> anyhow::Result<Self>;
    /// All that helps to see what went wrong.
    fn diagnosis(&self) -> String;
    /// Where to look around in it, and its directory.
    fn place(&self) -> (&Namespace, &Path);
    /// Takes everything down.
    ///
    /// # Errors
    /// With what is left; it is removed all the same.
    fn end(self) -> anyhow::Result<()>;
}

/// Builds a scene, lets `story` happen in it, and takes it down; says all that is known when the story goes wrong.
///
/// # Panics
/// When the story fails, or when something of the scene is left afterwards.
#[expect(clippy::panic, reason = "test support: the caller is a test")]
pub fn tell<S: Scene>(name: &str, story: impl FnOnce(&S) -> anyhow::Result<()>) {
    let start = Instant::now();
    let scene = match S::start(name) {
        Ok(scene) => scene,
        Err(error) => panic!("{name}: not even built: {error:#}"),
    };
    say!("{name}: ready after {} ms", start.elapsed().as_millis());
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&scene)));
    let told = told.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    if let Err(error) = &told {
        say!("{name} FAILED: {error:#}\n{}", scene.diagnosis());
        hold(&scene);
    }
    let told_in = start.elapsed();
    let ended = scene.end();
    say!(
        "{name}: told in {:.1} s, with teardown {:.1} s",
        told_in.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    match (told, ended) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(left)) => panic!("{name}: {left:#}"),
        (Err(error), Ok(())) => panic!("{name}: {error:#}"),
        (Err(error), Err(left)) => panic!("{name}: {error:#}; and then: {left:#}"),
    }
}

/// With `GON_E2E_HOLD=1`, keeps a failed scene until its directory has a file `go-on`: for a look around.
fn hold(scene: &impl Scene) {
    if std::env::var_os("GON_E2E_HOLD").is_none() {
        return;
    }
    let (inside, directory) = scene.place();
    let go_on = directory.join("go-on");
    say!("held: look around with `ip netns exec {} bash`; then touch {}", inside.name(), go_on.display());
    while !go_on.exists() {
        std::thread::sleep(Duration::from_millis(200));
    }
}
