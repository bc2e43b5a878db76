//! An HTTP endpoint for stores that cannot be had as programs: it answers as it is told, keeps what it got, and reads Circonus' and
//! Grafana's bodies into series.

use super::Series;
use crate::process::loopback;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Request line and headers.
    pub(crate) head: String,
    /// The body, unpacked if it was packed.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// A running endpoint; its thread ends with the test's process.
pub(crate) struct Capture {
    port: u16,
    got: Arc<Mutex<Vec<Request>>>,
}

impl Capture {
    /// Answers every request alike.
    pub(crate) fn always(status: u16, body: &'static str) -> Capture {
        Capture::answering(move |_| (status, body.to_owned()))
    }

    /// Takes points as the Circonus broker does: its answer counts them (metric-stores 7.4).
    pub(crate) fn circonus() -> Capture {
        Capture::answering(|request| (200, format!("{{ \"stats\": {} }}", request.json().as_object().map_or(0, |object| object.len()))))
    }

    /// Takes points as Grafana's gateway does (metric-stores 4.3).
    pub(crate) fn grafana() -> Capture {
        Capture::answering(|request| {
            let published = request.json().as_array().map_or(0, Vec::len);
            (200, format!("{{\"Invalid\": 0, \"Published\": {published}}}"))
        })
    }

    /// Answers with what a function makes of a request: status and body.
    pub(crate) fn answering(answer: impl Fn(&Request) -> (u16, String) + Send + 'static) -> Capture {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let got = Arc::new(Mutex::new(Vec::new()));
        let record = got.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A peer that breaks off has nothing to tell.
                let _ = stream.and_then(|stream| serve(stream, &answer, &record));
            }
        });
        Capture { port, got }
    }

    /// An address of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", loopback(self.port))
    }

    /// Everything so far.
    pub(crate) fn got(&self) -> Vec<Request> {
        self.got.lock().expect("nobody panics with the lock").clone()
    }

    /// The series of a name in Circonus' bodies, by their stream tags (plain ones only).
    pub(crate) fn circonus_series(&self, name: &str) -> Vec<Series> {
        let mut found: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
        for request in self.got() {
            for (key, metric) in request.json().as_object().expect("an object") {
                let (stem, tags) = key.split_once("|ST[").unwrap_or((key, "]"));
                if stem == name {
                    let sample = (metric["_ts"].as_u64().expect("a time in ms"), metric["_value"].as_f64().expect("a number"));
                    found.entry(tags.trim_end_matches(']').to_owned()).or_default().push(sample);
                }
            }
        }
        series(found, ',', ':')
    }

    /// The series of a name in Grafana's bodies.
    pub(crate) fn grafana_series(&self, name: &str) -> Vec<Series> {
        let mut found: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
        for request in self.got() {
            for metric in request.json().as_array().expect("an array").iter().filter(|metric| metric["name"] == name) {
                let tags: Vec<&str> = metric["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
                let sample = (metric["time"].as_u64().expect("a time in s") * 1_000, metric["value"].as_f64().expect("a number"));
                found.entry(tags.join("\n")).or_default().push(sample);
            }
        }
        series(found, '\n', '=')
    }
}

fn series(found: BTreeMap<String, Vec<(u64, f64)>>, between: char, within: char) -> Vec<Series> {
    let one = |(tags, samples): (String, Vec<(u64, f64)>)| {
        let pairs = tags.split(between).filter_map(|tag| tag.split_once(within));
        Series { labels: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(), samples }
    };
    found.into_iter().map(one).collect()
}

fn serve(stream: TcpStream, answer: &impl Fn(&Request) -> (u16, String), record: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length, mut packed) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        packed |= header == "content-encoding: gzip";
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if packed {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut unpacked)?;
        body = unpacked;
    }
    let request = Request { head, body };
    let (status, said) = answer(&request);
    // Before the answer, so that whoever has the answer finds the request here.
    record.lock().expect("nobody panics with the lock").push(request);
    write!(reader.into_inner(), "HTTP/1.1 {status} Told\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{said}", said.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;
    use crate::receivers::labels;

    #[test]
    fn bodies_by_hand_are_answered_and_read_into_series() {
        let circonus = Capture::circonus();
        let body =
            r#"{"a`n|ST[k:v,l:w]":{"_type":"n","_value":2.5,"_ts":7000},"a`n":{"_value":1.0,"_ts":7000},"b":{"_value":1.0,"_ts":1}}"#;
        let reply = http::call("PUT", &circonus.url("/trap"), &[], body).expect("an answer").expect(200);
        assert_eq!(reply.json()["stats"], 3);
        let found = circonus.circonus_series("a`n");
        assert_eq!(found[1], Series { labels: labels([("k", "v"), ("l", "w")]), samples: vec![(7_000, 2.5)] });
        assert_eq!((found.len(), &found[0].labels), (2, &labels([])));
        let grafana = Capture::grafana();
        let body = r#"[{"name":"m","tags":["k=v"],"value":2,"time":7},{"name":"m","tags":[],"value":3,"time":7}]"#;
        assert_eq!(http::call("POST", &grafana.url("/metrics"), &[], body).expect("an answer").expect(200).json()["Published"], 2);
        assert_eq!(grafana.grafana_series("m")[1], Series { labels: labels([("k", "v")]), samples: vec![(7_000, 2.0)] });
        assert!(grafana.got()[0].head.starts_with("POST /metrics "), "{:?}", grafana.got());
    }
}
