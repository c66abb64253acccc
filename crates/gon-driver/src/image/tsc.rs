//! How fast this machine's timestamp counter runs. Guests under emulation see the same counter.

use std::sync::OnceLock;

/// The counter's frequency in kHz, measured once per process (20 ms); `None` where there is no such counter.
#[must_use]
pub fn host_tsc_khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Option<u64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<u64> {
    let epoch = std::time::Instant::now();
    let nanoseconds = || epoch.elapsed().as_nanos() as i128;
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it unless they ask it not to.
    let ticks = || i128::from(unsafe { std::arch::x86_64::_rdtsc() });
    // A pair of readings between which we were not interrupted: of several, the one taken fastest.
    let sample = || {
        let pairs = (0..16).map(|_| {
            let (before, tick, after) = (nanoseconds(), ticks(), nanoseconds());
            (after - before, (before + after) / 2, tick)
        });
        pairs.min_by_key(|(took, ..)| *took)
    };
    let (_, start, first) = sample()?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    let (_, end, last) = sample()?;
    let khz = (last - first).checked_mul(1_000_000)?.checked_div(end - start)?;
    // Outside of this it is not a counter of time (some emulators count instructions).
    u64::try_from(khz).ok().filter(|khz| (100_000..=20_000_000).contains(khz))
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree() {
        let (a, b) = (super::measure().unwrap() as f64, super::measure().unwrap() as f64);
        assert!((a / b - 1.0).abs() < 0.002, "{a} {b}");
    }
}
