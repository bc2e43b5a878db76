//! What Graphite-like peers can do to lines.

use super::*;

async fn write(door: &Door, peer: &Peer, body: impl Into<Vec<u8>>) -> Result<Reply, Failure> {
    door.send(&Outgoing::Tcp(lines("127.0.0.1", peer.port, body)), AMPLE).await
}

/// Peer that takes everything to the end, after saying `greeting`, and hands it to the test.
async fn taking(greeting: &'static [u8]) -> (Peer, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let (tell, told) = tokio::sync::mpsc::channel(8);
    let peer = Peer::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(greeting).await.expect("the greeting is taken");
            let mut taken = Vec::new();
            stream.read_to_end(&mut taken).await.expect("an orderly end");
            tell.send(taken).await.expect("the test waits");
        }
    })
    .await;
    (peer, told)
}

#[tokio::test]
async fn lines_arrive_whole_and_the_connection_is_half_closed() {
    let big = b"crashmeter.a.b.count 1 1700000000\n".repeat(100_000);
    for (greeting, body) in [(&b""[..], &b"a 1 1700000000\n"[..]), (b"welcome\r\n", b"a 1 1700000000\n"), (b"", &big)] {
        let (peer, mut told) = taking(greeting).await;
        assert_eq!(write(&door(), &peer, body).await, Ok(Reply::Tcp));
        assert!(told.recv().await.expect("the peer got them") == body);
    }
}

#[tokio::test]
async fn every_payload_has_its_own_connection() {
    let (peer, mut told) = taking(b"").await;
    let door = door();
    for body in [b"a 1 1\n", b"a 2 2\n"] {
        assert_eq!(write(&door, &peer, *body).await, Ok(Reply::Tcp));
        assert_eq!(told.recv().await.as_deref(), Some(&body[..]));
    }
    assert_eq!(peer.accepted(), 2);
}

#[tokio::test]
async fn a_peer_that_never_closes_is_not_waited_for() {
    let peer = Peer::start(|mut stream| async move {
        stream.read_to_end(&mut Vec::new()).await.expect("an orderly end");
        std::future::pending::<()>().await;
    })
    .await;
    let door = door_with(Times { drain: Duration::from_millis(50), ..TIMES });
    let sent = tokio::time::timeout(AMPLE / 2, write(&door, &peer, "a 1 1\n")).await;
    assert_eq!(sent.expect("the wait is bounded"), Ok(Reply::Tcp));
}

#[tokio::test]
async fn a_peer_that_closes_at_once_gets_no_line() {
    let door = door_with(Times { quiet: AMPLE, ..TIMES });
    let closing = Peer::start(|stream| async move { drop(stream) }).await;
    let Err(Failure::Broken(text)) = write(&door, &closing, "a 1 1\n").await else { panic!("a lost line counts as sent") };
    assert!(text.contains("before any line"), "{text}");
    let resetting = Peer::start(|stream| async move { reset(stream) }).await;
    assert!(matches!(write(&door, &resetting, "a 1 1\n").await, Err(Failure::Broken(_))));
}

#[tokio::test]
async fn a_peer_that_breaks_off_leaves_the_outcome_unknown() {
    let line = b"crashmeter.a.b.count 1 1700000000\n";
    for (body, read) in [(line.to_vec(), 5), (line.repeat(1_000_000), 5_000_000)] {
        // Closing with unread data resets the connection, as does a process that dies.
        let peer = Peer::start(move |mut stream| async move {
            stream.read_exact(&mut vec![0; read]).await.expect("the first bytes");
        })
        .await;
        assert!(matches!(write(&door(), &peer, body).await, Err(Failure::Broken(_))), "closed after {read} bytes");
    }
    let peer = Peer::start(|mut stream| async move {
        stream.read_to_end(&mut Vec::new()).await.expect("an orderly end");
        reset(stream);
    })
    .await;
    assert!(matches!(write(&door(), &peer, *line).await, Err(Failure::Broken(_))), "reset after the last byte");
}

#[tokio::test]
async fn a_peer_that_never_reads_ends_at_the_deadline() {
    let peer = Peer::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let sent = Outgoing::Tcp(lines("127.0.0.1", peer.port, vec![b'x'; 64 << 20]));
    let failure = tokio::time::timeout(AMPLE, door().send(&sent, SHORT)).await.expect("the deadline ends it");
    assert_eq!(failure, Err(Failure::TimedOut));
}

#[tokio::test]
async fn a_peer_that_talks_without_end_is_heard_a_little_and_left() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let peer = Peer::start(move |stream| {
        let tell = tell.clone();
        async move {
            let (mut reading, mut writing) = stream.into_split();
            let reads = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
            tell.send(flood(&mut writing, &[b'x'; 1024]).await).await.expect("the test waits");
            reads.abort();
        }
    })
    .await;
    assert_eq!(write(&door(), &peer, "a 1 1\n").await, Ok(Reply::Tcp));
    let flooded = told.recv().await.expect("the flood ends");
    assert!(flooded < 32 << 20, "{flooded} bytes went through the door");
}

#[tokio::test]
async fn host_fields_that_are_no_hosts_are_refused() {
    let peer = Peer::start(|stream| async move { drop(stream) }).await;
    for host in ["", " 127.0.0.1", "127.0.0.1\n", "a b", "http://127.0.0.1", "127.0.0.1:2003", "user@127.0.0.1", "a..b"] {
        let sent = door().send(&Outgoing::Tcp(lines(host, peer.port, "a 1 1\n")), AMPLE).await;
        assert!(matches!(sent, Err(Failure::Refused(ref text)) if text.starts_with("host: ")), "{host:?}: {sent:?}");
    }
    let sent = door().send(&Outgoing::Tcp(lines("carbon.test", 6379, "a 1 1\n")), AMPLE).await;
    assert!(matches!(sent, Err(Failure::Refused(ref text)) if text.starts_with("port: ")), "{sent:?}");
    assert_eq!(peer.accepted(), 0);
}
