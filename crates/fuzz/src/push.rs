//! What holds for every store that we send to and every batch: each point is sent once or left out with a reason, the same batch is
//! the same bytes, and a strict reader finds in each body just the points that the payload tells of.

use crate::batch::{batch, is_short, page};
use adapters::{About, Adapter, Encoded, HeaderText, NOTES_MAX, Outgoing, Payload, Push, Snippet};
use model::{Batch, Page};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// A store to encode for.
pub(crate) struct Store {
    /// The adapter.
    pub(crate) adapter: &'static str,
    /// Its settings as JSON.
    pub(crate) fields: &'static str,
    /// Lines of a body without those of its pieces.
    pub(crate) frame_lines: usize,
    /// Most bytes of a body.
    pub(crate) bytes_max: usize,
    /// Reads a body as strictly as the format allows, and panics where it is not sound.
    pub(crate) read: fn(&str, &[u8]) -> Vec<Sample>,
}

/// What a strict reader finds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Name and labels in whatever form the reader likes, no two series alike.
    pub(crate) series: String,
    /// The value.
    pub(crate) value: f64,
    /// The time in seconds.
    pub(crate) secs: u64,
}

/// An adapter by name and settings, which are sound.
pub(crate) fn adapter(name: &str, fields: &str) -> Adapter {
    let fields = serde_json::from_str(fields).expect("a JSON object");
    Adapter::parse(name, &fields).expect("sound settings")
}

/// The laws over the window in the input, for each of these stores.
pub(crate) fn check(input: &[u8], stores: &[Store]) -> String {
    let (page, _) = page(input);
    let batch = batch(&page);
    let mut outcome = String::new();
    for store in stores {
        let adapter = adapter(store.adapter, store.fields);
        let push = adapter.as_push().expect("a store that we send to");
        let encoded = push.encode(&batch);
        assert_eq!(encoded, push.encode(&batch), "encoded twice");
        let series = check_points(store, push, &batch, &encoded);
        check_order(store, push, &batch, &encoded, series);
        encoded.payloads.iter().for_each(|payload| check_payload(store, push, payload));
        check_texts(&adapter, &page);
        for outgoing in push.metadata(&batch) {
            let Outgoing::Http(request) = outgoing else { panic!("metadata over TCP") };
            serde_json::from_slice::<serde_json::Value>(&request.body).expect("metadata is JSON");
        }
        let excluded: BTreeSet<&str> = encoded.excluded.iter().map(|excluded| excluded.reason).collect();
        let told = format!("{} {} {excluded:?} ", encoded.payloads.len().min(2), encoded.notes.len().min(3));
        outcome.push_str(&told);
    }
    outcome
}

/// Every point is in one place, and what stands there is the point. Answers the series of each point that is sent.
fn check_points(store: &Store, push: &dyn Push, batch: &Batch, encoded: &Encoded) -> BTreeMap<u32, String> {
    let secs = push.description().time_secs(batch.window);
    let (mut series, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for payload in &encoded.payloads {
        let samples = (store.read)(store.fields, &payload.body());
        let points: Vec<u32> = payload.points().collect();
        assert_eq!(samples.len(), points.len(), "samples of a body, and points that it tells of");
        for (sample, point) in samples.into_iter().zip(points) {
            let value = batch.points[point as usize].value;
            assert!(sample.value == value && sample.secs == secs, "{sample:?} for {value} at {secs}");
            assert!(taken.insert(sample.series.clone()), "two points are one series: {}", sample.series);
            assert_eq!(series.insert(point, sample.series), None, "the point {point} is sent twice");
        }
    }
    let mut left: Vec<u32> = encoded.excluded.iter().map(|excluded| excluded.point).collect();
    left.extend(series.keys());
    left.sort_unstable();
    assert!(left.iter().copied().eq(0..batch.points.len() as u32), "each point once: {left:?}");
    for excluded in &encoded.excluded {
        let point = &batch.points[excluded.point as usize];
        let twin = batch.points.iter().filter(|other| other.series == point.series).count() > 1;
        assert!(!point.value.is_finite() || twin || !is_short(&point.series), "{point:?} is left out: {}", excluded.reason);
    }
    assert!(encoded.notes.len() <= NOTES_MAX);
    series
}

/// Which name a series gets does not depend on the order of the points.
fn check_order(store: &Store, push: &dyn Push, batch: &Batch, encoded: &Encoded, series: BTreeMap<u32, String>) {
    let all: BTreeSet<_> = batch.points.iter().map(|point| &point.series).collect();
    if encoded.excluded.iter().any(|excluded| batch.points[excluded.point as usize].value.is_finite()) || all.len() < batch.points.len() {
        return;
    }
    let last = batch.points.len() as u32;
    let backwards = Batch { points: batch.points.iter().rev().cloned().collect(), ..*batch };
    let again = push.encode(&backwards);
    let points = again.payloads.iter().flat_map(Payload::points);
    let samples = again.payloads.iter().flat_map(|payload| (store.read)(store.fields, &payload.body()));
    let found: BTreeMap<u32, String> = points.zip(samples).map(|(point, sample)| (last - 1 - point, sample.series)).collect();
    assert_eq!(found, series, "the series of each point, encoded backwards");
}

/// A payload can be kept, read again and halved without a change of its pieces, and its request carries its body.
fn check_payload(store: &Store, push: &dyn Push, payload: &Payload) {
    let body = payload.body();
    assert_eq!(payload.body_bytes(), body.len());
    assert!(!payload.is_empty() && (payload.len() == 1 || body.len() <= store.bytes_max), "{} bytes", body.len());
    assert_eq!(body.iter().filter(|&&byte| byte == b'\n').count(), lines(store, payload), "lines of\n{}", String::from_utf8_lossy(&body));
    assert_eq!(Payload::from_bytes(&payload.to_bytes()).as_ref(), Some(payload), "kept and read again");
    if let Some((left, right)) = payload.halves() {
        assert!(payload.pieces().eq(left.pieces().chain(right.pieces())), "halves");
        (store.read)(store.fields, &left.body());
        (store.read)(store.fields, &right.body());
    }
    match push.request(payload) {
        Outgoing::Tcp(lines) => assert_eq!(lines.body, body, "what goes out"),
        Outgoing::Http(request) => {
            let header = |wanted| request.headers.iter().find(|(name, _)| *name == wanted).map(|(_, text)| text.masked());
            let sent = match header("content-encoding") {
                None => request.body.clone(),
                Some("gzip") => {
                    let mut inflated = Vec::new();
                    flate2::read::GzDecoder::new(request.body.as_slice()).read_to_end(&mut inflated).expect("gzip");
                    inflated
                }
                Some("snappy") => snap::raw::Decoder::new().decompress_vec(&request.body).expect("snappy"),
                Some(other) => panic!("the encoding {other}"),
            };
            assert_eq!(sent, body, "what goes out");
            for (name, text) in &request.headers {
                let text = match text {
                    HeaderText::Plain(text) => text,
                    HeaderText::Secret(secret) => secret.reveal(),
                };
                assert!(!text.chars().any(char::is_control), "the header {name}");
            }
        }
    }
}

fn lines(store: &Store, payload: &Payload) -> usize {
    // Bodies that are not text have no lines to count.
    if store.frame_lines == usize::MAX {
        return payload.body().iter().filter(|&&byte| byte == b'\n').count();
    }
    // Between the pieces of a JSON body stands a comma and a line end; pieces of line protocols bring their own.
    let between = if store.frame_lines == 0 { payload.len() } else { payload.len() - 1 };
    store.frame_lines + between
}

/// Texts to paste about a window are made without a panic, and those in JSON are JSON.
pub(crate) fn check_texts(adapter: &Adapter, page: &Page) {
    // Whether address and password are shown is left to chance.
    let reveal = page.series.len() % 2 == 1;
    let url = reveal.then_some("https://crash.example/pull/s3cret/metrics");
    let snippets: Vec<Snippet> = adapter.snippets(&About { store: "it's \"a\" store\n", page, url, reveal });
    for snippet in snippets.iter().filter(|snippet| snippet.language == "json") {
        serde_json::from_str::<serde_json::Value>(&snippet.text).unwrap_or_else(|error| panic!("{}: {error}", snippet.title));
    }
}
