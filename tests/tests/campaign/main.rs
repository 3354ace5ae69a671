//! Programs die and stop at any moment under load. Whoever is left reads whole
//! blocks or an error, nobody hangs, and everything that the dead held comes back.

mod client;
mod kills;
mod policies;

mod session;

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Of this run: `CAPIO_TESTS_SEED`, or always the same.
    pub(crate) fn new(salt: u64) -> Self {
        let seed = std::env::var("CAPIO_TESTS_SEED").ok();
        let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt)
    }

    /// A number below `n`.
    pub(crate) fn pick(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// `long` in the long campaign, else `short`.
pub(crate) fn many(short: u64, long: u64) -> u64 {
    if std::env::var_os("CAPIO_TEST_LONG").is_some() {
        long
    } else {
        short
    }
}
