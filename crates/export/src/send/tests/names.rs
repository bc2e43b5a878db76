//! Names: resolved once per connection, every answer judged, the connection pinned to what was judged.

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn named(peer: &Peer) -> HttpRequest {
    post(&format!("http://store.test:{}/", peer.port))
}

#[tokio::test]
async fn one_bad_address_refuses_the_lot() {
    let peer = Peer::answering(OK).await;
    for (bad, what) in [
        ("10.0.0.1", "a private address"),
        ("::ffff:10.0.0.1", "a private address"),
        ("169.254.169.254", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("::1", "a loopback address"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "unspecified"),
    ] {
        // Also behind more good ones than would ever be tried.
        let many: Vec<&str> = ["127.0.0.1"; 40].into_iter().chain([bad]).collect();
        for row in [&[bad, "127.0.0.1"][..], &["127.0.0.1", bad], &many] {
            let door = Door::with_resolver(policy(&["127.0.0.0/8"]), Table::new(&[row]));
            let Err(Failure::Refused(text)) = send(&door, named(&peer)).await else { panic!("{bad} is let through") };
            assert!(text.starts_with("store.test leads to ") && text.contains(what), "{text}");
        }
    }
    assert_eq!(peer.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_moves_is_pinned_for_the_connection_and_judged_again_for_the_next() {
    let peer = Peer::answering(OK).await;
    let table = Table::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let door = Door::with_resolver(policy(&["127.0.0.0/8"]), table.clone());
    assert_eq!(status(&send(&door, named(&peer)).await), Some(200));
    assert_eq!((table.calls(), peer.accepted()), (1, 1), "one lookup, one connection");
    assert!(matches!(send(&door, named(&peer)).await, Err(Failure::Refused(_))));
    assert_eq!((table.calls(), peer.accepted()), (2, 1));
}

#[tokio::test]
async fn lines_over_tcp_go_through_the_same_judgement() {
    let peer = Peer::start(|stream| async move { drop(stream) }).await;
    for rows in [&["10.0.0.1"][..], &["127.0.0.1", "10.0.0.1"]] {
        let door = Door::with_resolver(policy(&["127.0.0.0/8"]), Table::new(&[rows]));
        let sent = door.send(&Outgoing::Tcp(lines("carbon.test", peer.port, "a 1 1\n")), AMPLE).await;
        assert!(matches!(sent, Err(Failure::Refused(_))), "{sent:?}");
    }
    assert_eq!(peer.accepted(), 0);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_dead() {
    let peer = Peer::answering(OK).await;
    let door = Door::with_resolver(policy(&["127.0.0.0/8"]), Table::new(&[&["127.0.0.2", "127.0.0.3", "127.0.0.1"]]));
    assert_eq!(status(&send(&door, named(&peer)).await), Some(200));
    let door = Door::with_resolver(policy(&["127.0.0.0/8"]), Table::new(&[&["127.0.0.2"; 2000]]));
    let Err(Failure::Connect(text)) = send(&door, named(&peer)).await else { panic!("nobody listens there") };
    assert!(text.starts_with(&format!("cannot connect to store.test:{}: ", peer.port)), "{text}");
}

#[tokio::test]
async fn lookups_that_give_nothing() {
    struct Never;
    impl Resolve for Never {
        fn resolve<'a>(&'a self, _name: &'a str) -> Resolving<'a> {
            Box::pin(std::future::pending())
        }
    }
    let brief = Times { connect: SHORT, ..TIMES };
    for (door, part) in [
        (Door::with_times(policy(&[]), Never, brief), "no answer in time"),
        (Door::with_times(policy(&[]), Table::new(&[]), TIMES), "store.test"),
        (Door::with_times(policy(&[]), Table::new(&[&[]]), TIMES), "no address"),
    ] {
        let Err(Failure::Dns(text)) = send(&door, post("http://store.test/s3cret")).await else { panic!("{part}") };
        assert!(text.starts_with("cannot resolve store.test: ") && text.contains(part) && !text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn localhost_is_127_0_0_1_for_the_system_resolver() {
    let peer = Peer::answering(OK).await;
    let door = Door::new(policy(&["127.0.0.0/8"]));
    for name in ["localhost", "LOCALHOST.", "metrics.localhost"] {
        assert_eq!(status(&send(&door, post(&format!("http://{name}:{}/", peer.port))).await), Some(200), "{name}");
    }
}

#[tokio::test]
async fn the_server_itself_is_not_a_store() {
    let peer = Peer::answering(OK).await;
    for own in ["127.0.0.1", "0.0.0.0"] {
        let own = std::net::SocketAddr::new(own.parse().expect("an address"), peer.port);
        let policy = EgressPolicy { own: vec![own], ..policy(&["127.0.0.0/8"]) };
        let door = Door::with_resolver(policy, Table::new(&[&["127.0.0.1"]]));
        assert!(matches!(send(&door, named(&peer)).await, Err(Failure::Refused(_))), "{own}");
    }
    assert_eq!(peer.accepted(), 0);
}
