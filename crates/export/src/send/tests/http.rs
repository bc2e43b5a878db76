//! What HTTP peers can do to a request, and what may go out.

use super::*;
use model::Secret;
use std::process::Command;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn the_request_goes_out_as_the_adapter_made_it() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let peer = Peer::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let request = request(&mut stream).await.expect("a request");
            stream.write_all(OK.as_bytes()).await.expect("the answer is taken");
            tell.send(request).await.expect("the test waits");
        }
    })
    .await;
    let mut request = post(&format!("http://store.test:{}/api/v2/write?org=a%20b&bucket=c", peer.port));
    request.headers.push(("authorization", HeaderText::Secret(Secret::new("Token key"))));
    let reply = send(&door(), request).await;
    assert_eq!(reply, Ok(Reply::Http { status: 200, retry_after: None, body: b"ok".to_vec() }));
    let (head, body) = told.recv().await.expect("the peer got it");
    assert_eq!(body, b"a 1\n");
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "POST /api/v2/write?org=a%20b&bucket=c HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: store.test:{}", peer.port);
    let agent = concat!("user-agent: crashmeter/", env!("CARGO_PKG_VERSION"));
    // No accept-encoding: nothing is unpacked here, so nothing may come packed.
    assert_eq!(lines, ["authorization: Token key", "content-length: 4", "content-type: text/plain", host.as_str(), agent]);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_and_its_connection_closed() {
    let lengthy = "HTTP/1.1 400 Bad\r\ncontent-length: 104857600\r\n\r\n";
    for (head, unit) in
        [("HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\n\r\n", "400\r\n"), ("HTTP/1.1 400 Bad\r\n\r\n", ""), (lengthy, "")]
    {
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let unit = if unit.is_empty() { "x".repeat(1024) } else { format!("{unit}{}\r\n", "x".repeat(1024)) };
        let peer = Peer::start(move |mut stream| {
            let (tell, unit) = (tell.clone(), unit.clone());
            async move {
                request(&mut stream).await;
                stream.write_all(head.as_bytes()).await.expect("the head is taken");
                tell.send(flood(&mut stream, unit.as_bytes()).await).await.expect("the test waits");
            }
        })
        .await;
        let Ok(Reply::Http { status: 400, body, .. }) = send(&door(), post(&peer.url())).await else { panic!("no answer to {head}") };
        assert!(body == vec![b'x'; 65_536], "{} bytes", body.len());
        let flooded = told.recv().await.expect("the flood ends");
        assert!(flooded < 32 << 20, "{flooded} bytes went through the door");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_only_when_its_answer_was_read_to_the_end() {
    for (length, connections) in [(0, 1), (65_536, 1), (65_537, 2)] {
        let peer = Peer::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length))).await;
        let door = door();
        for _ in 0..2 {
            let Ok(Reply::Http { body, .. }) = send(&door, post(&peer.url())).await else { panic!("no answer of {length}") };
            assert_eq!(body.len(), length.min(65_536));
        }
        assert_eq!(peer.accepted(), connections, "{length} bytes");
    }
}

#[tokio::test]
async fn a_kept_connection_that_the_peer_closed_costs_no_attempt() {
    let peer = Peer::start(|mut stream| async move {
        request(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.expect("the answer is taken");
    })
    .await;
    let door = door();
    for sent in 1..=3 {
        assert_eq!(status(&send(&door, post(&peer.url())).await), Some(200));
        assert_eq!(peer.accepted(), sent);
        let gone = async {
            while door.0.idle.open() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(AMPLE, gone).await.expect("the closed connection is noticed");
    }
}

#[tokio::test]
async fn bytes_that_may_have_arrived_are_not_sent_again() {
    // The second request of the kept connection is read, and then the connection breaks: its outcome is unknown.
    let peer = Peer::start(|mut stream| async move {
        request(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.expect("the answer is taken");
        request(&mut stream).await;
    })
    .await;
    let door = door();
    assert_eq!(status(&send(&door, post(&peer.url())).await), Some(200));
    assert!(matches!(send(&door, post(&peer.url())).await, Err(Failure::Broken(_))));
    assert_eq!(peer.accepted(), 1);
}

#[tokio::test]
async fn redirects_are_answers() {
    let bait = Peer::answering(OK).await;
    for code in [301, 302, 303, 307, 308] {
        for location in [bait.url(), "http://169.254.169.254/latest".to_owned(), "/write".to_owned(), "file:///etc/passwd".to_owned()] {
            let peer = Peer::answering(format!("HTTP/1.1 {code} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")).await;
            assert_eq!(status(&send(&door(), post(&peer.url())).await), Some(code));
            assert_eq!(peer.accepted(), 1);
        }
    }
    assert_eq!(bait.accepted(), 0);
}

#[tokio::test]
async fn every_way_to_keep_us_waiting_ends_at_the_deadline() {
    let silent = Peer::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let dripping = |head: &'static str| {
        Peer::start(move |mut stream| async move {
            request(&mut stream).await;
            stream.write_all(head.as_bytes()).await.expect("the head is taken");
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    };
    let informing = Peer::start(|mut stream| async move {
        request(&mut stream).await;
        flood(&mut stream, b"HTTP/1.1 100 Continue\r\n\r\n").await;
    })
    .await;
    let drip_body = dripping("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
    let drip_head = dripping("HTTP/1.1 200 OK\r\nx-slow: ").await;
    for peer in [silent, drip_body, drip_head, informing] {
        let (door, outgoing) = (door(), Outgoing::Http(post(&peer.url())));
        let failure = tokio::time::timeout(AMPLE, door.send(&outgoing, SHORT)).await.expect("the deadline ends it");
        assert_eq!(failure, Err(Failure::TimedOut));
    }
}

#[tokio::test]
async fn what_is_not_a_whole_answer_is_a_broken_one() {
    let long_head = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "y".repeat(17_000));
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (answer, part) in [
        ("", "ended before the answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "connection"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhal", "connection"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "connection"),
        ("HTTP/1.1 200", "ended before the answer"),
        ("SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
        ("<html>hello</html>", "not HTTP"),
        ("HTTP/1.1 20 OK\r\n\r\n", "not HTTP"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx", "not HTTP"),
        (&long_head, "16 KiB"),
        (&many_headers, "100 fields"),
    ] {
        let answer = answer.to_owned();
        let peer = Peer::start(move |mut stream| {
            let answer = answer.clone();
            async move {
                request(&mut stream).await;
                // The door may have gone before the last byte of a bad answer.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        match send(&door(), post(&peer.url())).await {
            Err(Failure::Broken(text)) => assert!(text.contains(part), "{part}: {text}"),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reset_is_a_broken_connection_wherever_it_falls() {
    for before in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let peer = Peer::start(move |mut stream| async move {
            request(&mut stream).await;
            stream.write_all(before.as_bytes()).await.expect("the beginning is taken");
            reset(stream);
        })
        .await;
        assert!(matches!(send(&door(), post(&peer.url())).await, Err(Failure::Broken(_))), "{before:?}");
    }
}

#[tokio::test]
async fn odd_answers_that_are_answers() {
    let informed = format!("{}{OK}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(50));
    let head_of_15k = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(15_000));
    for (answer, expected, retry_after, body) in [
        ("HTTP/1.1 999 Odd\r\ncontent-length: 1\r\n\r\nx", 999, None, &b"x"[..]),
        ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, None, b"x"),
        ("HTTP/1.1 204 No Content\r\n\r\nnobody reads this", 204, None, b""),
        ("HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", 429, Some(7), b""),
        (
            "HTTP/1.1 503 Slow\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:07 GMT\r\ncontent-length: 0\r\n\r\n",
            503,
            Some(30),
            b"",
        ),
        ("HTTP/1.1 503 Slow\r\nretry-after: \u{e4}\r\ncontent-length: 0\r\n\r\n", 503, None, b""),
        // The bytes of a packed answer are handed on packed: no decompression, no bomb.
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x00\x08\x00", 200, None, b"\x1f\x00\x08\x00"),
        (&informed, 200, None, b"ok"),
        (&head_of_15k, 200, None, b""),
    ] {
        let peer = Peer::answering(answer.to_owned()).await;
        assert_eq!(send(&door(), post(&peer.url())).await, Ok(Reply::Http { status: expected, retry_after, body: body.to_vec() }));
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_taken_is_an_answer() {
    let peer = Peer::start(|mut stream| async move {
        head(&mut stream).await.expect("a request");
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.expect("the answer is taken");
        std::future::pending::<()>().await;
    })
    .await;
    let mut request = post(&peer.url());
    request.body = vec![b'x'; 64 << 20];
    assert_eq!(status(&send(&door(), request).await), Some(413));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_not_shown() {
    let peer = Peer::answering(OK).await;
    for value in ["s3cret\r\nx-evil: 1", "s3cret\n", "s3cret\0", "s3cr\u{e9}t", "s3cret\x7f"] {
        for text in [HeaderText::Plain(value.to_owned()), HeaderText::Secret(Secret::new(value))] {
            let mut request = post(&peer.url());
            request.headers.push(("dd-api-key", text));
            let Err(failure @ Failure::Refused(_)) = send(&door(), request).await else { panic!("{value:?} is sent") };
            assert!(failure.needs_attention());
            assert!(failure.to_string().contains("dd-api-key") && !failure.to_string().contains("s3c"), "{failure}");
        }
    }
    assert_eq!(peer.accepted(), 0);
}

#[tokio::test]
async fn a_url_that_is_older_than_the_rules_is_refused() {
    let peer = Peer::answering(OK).await;
    for start in ["ftp://", "http://user@", "http://user:s3cret@"] {
        let sent = send(&door(), post(&format!("{start}127.0.0.1:{}/", peer.port))).await;
        assert!(matches!(sent, Err(Failure::Refused(ref text)) if text.starts_with("url: ") && !text.contains("s3cret")), "{sent:?}");
    }
    assert_eq!(peer.accepted(), 0);
}

#[tokio::test]
async fn secrets_stay_out_of_failures_and_answers() {
    let echoing = Peer::start(|mut stream| async move {
        let (head, _) = request(&mut stream).await.expect("a request");
        let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).await.expect("the answer is taken");
    })
    .await;
    let closing = Peer::start(|stream| async move { drop(stream) }).await;
    let babbling = Peer::answering("s3cret\r\n\r\n").await;
    let at = |port: u16| format!("127.0.0.1:{port}");
    for host in [at(echoing.port), at(closing.port), at(babbling.port), at(1), "10.0.0.1".to_owned(), "127.0.0.1:22".to_owned()] {
        let mut request = post(&format!("http://{host}/httptrap/s3cret/x?api_key=s3cret"));
        request.headers.push(("authorization", HeaderText::Secret(Secret::new("Bearer s3cret"))));
        let shown = match send(&door(), request).await {
            Ok(Reply::Http { body, .. }) => {
                let shown = String::from_utf8(body).expect("text");
                assert!(shown.contains("***"), "{shown}");
                shown
            }
            other => format!("{other:?}"),
        };
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test]
async fn loopback_is_closed_until_it_is_listed() {
    let peer = Peer::answering(OK).await;
    let closed = Door::with_resolver(policy(&[]), Table::new(&[&["127.0.0.1"]]));
    for host in ["127.0.0.1", "127.1", "[::ffff:127.0.0.1]", "localhost", "store.test"] {
        let Err(Failure::Refused(text)) = send(&closed, post(&format!("http://{host}:{}/", peer.port))).await else {
            panic!("{host} is open")
        };
        assert!(text.contains("--allow-egress 127.0.0.0/8"), "{text}");
    }
    assert_eq!(peer.accepted(), 0);
    assert_eq!(status(&send(&door(), post(&peer.url())).await), Some(200));
}

/// Proxies come from the environment, which a test cannot set for itself: this runs the next test in a process that has them.
#[test]
fn proxies_of_the_environment_are_ignored() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    proxy.set_nonblocking(true).expect("a socket option");
    let url = format!("http://{}", proxy.local_addr().expect("an address"));
    let mut child = Command::new(std::env::current_exe().expect("this test binary"));
    child.args(["--exact", "send::tests::http::loopback_is_closed_until_it_is_listed"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, &url);
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().expect("the child runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(proxy.accept().map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
}
