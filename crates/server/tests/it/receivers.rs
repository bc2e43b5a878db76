//! Real metric stores on free loopback ports, each with its own temporary folder, and what they hold, read through their own APIs.
//!
//! Nothing here knows Crashmeter. Each receiver has a test that writes to it by hand and reads back.

pub(crate) mod capture;
pub(crate) mod collectd;
pub(crate) mod datadog;
pub(crate) mod graphite;
pub(crate) mod influx;
pub(crate) mod parsers;
pub(crate) mod prometheus;
pub(crate) mod pushgateway;
pub(crate) mod relay;
pub(crate) mod victoria;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

/// How long a store may take to show what was written; Graphite registers tags after up to 3 s.
pub(crate) const VISIBLE: Duration = Duration::from_secs(20);

/// One series as a store gives it back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// Labels or tags, with the name among them as the store spells it (`name` or `__name__`).
    pub(crate) labels: BTreeMap<String, String>,
    /// Unix milliseconds and value, in the store's order; a store that keeps doubles shows them twice.
    pub(crate) samples: Vec<(u64, f64)>,
}

/// A receiver that tests running at one time share: started by the first that wants it, ended when the last lets go.
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Nothing started yet.
    pub(crate) const fn new() -> Shared<T> {
        Shared(Mutex::new(Weak::new()))
    }

    /// The running one, or a new one.
    pub(crate) fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.upgrade().unwrap_or_else(|| {
            let started = Arc::new(start());
            *slot = Arc::downgrade(&started);
            started
        })
    }
}

/// Unix seconds by the machine's clock.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

/// Labels from pairs, for comparing.
pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A map of texts out of a JSON object.
fn text_map(object: &serde_json::Value) -> BTreeMap<String, String> {
    let object = object.as_object().unwrap_or_else(|| panic!("not an object: {object}"));
    object
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_else(|| panic!("{key} is no text: {value}")).to_owned()))
        .collect()
}

#[test]
fn a_shared_receiver_lives_as_long_as_its_last_user() {
    static SHARED: Shared<u32> = Shared::new();
    let first = SHARED.get(|| 1);
    assert_eq!(*SHARED.get(|| 2), 1, "still in use, so not started anew");
    drop(first);
    assert_eq!(*SHARED.get(|| 3), 3);
}
