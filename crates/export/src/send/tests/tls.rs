//! Certificates that must be taken and those that must not, and peers that disturb the handshake.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// An authority of our own.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Certificate for `names`, by the authority or else by itself.
fn acceptor(names: &[&str], by: Option<&CertifiedIssuer<'_, KeyPair>>, expired: bool) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect("parameters");
    if expired {
        params.not_after = date_time_ymd(2001, 1, 1);
    }
    let certificate = match by {
        Some(authority) => params.signed_by(&key, authority),
        None => params.self_signed(&key),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("a certificate").der().clone()], key);
    TlsAcceptor::from(Arc::new(config.expect("a server")))
}

/// HTTP over TLS; a client that turns away is no fault of the peer's.
async fn serving(acceptor: TlsAcceptor) -> Peer {
    Peer::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while request(&mut stream).await.is_some() && stream.write_all(OK).await.is_ok() {}
        }
    })
    .await
}

fn secure(host: &str, peer: &Peer, ca_pem: Option<String>) -> HttpRequest {
    HttpRequest { ca_pem, ..post(&format!("https://{host}:{}/s3cret", peer.port)) }
}

#[tokio::test]
async fn the_stores_own_authority_is_trusted_for_the_names_it_signed() {
    let authority = authority();
    let peer = serving(acceptor(&["store.test", "127.0.0.1"], Some(&authority), false)).await;
    for host in ["store.test", "store.test.", "STORE.test", "127.0.0.1"] {
        let reply = send(&door(), secure(host, &peer, Some(authority.pem()))).await;
        assert_eq!(status(&reply), Some(200), "{host}: {reply:?}");
    }
}

#[tokio::test]
async fn certificates_that_prove_nothing_need_attention() {
    let (ours, other) = (authority(), authority());
    for (what, acceptor, ca) in [
        ("unknown authority", acceptor(&["store.test"], Some(&ours), false), None),
        ("another authority", acceptor(&["store.test"], Some(&other), false), Some(ours.pem())),
        ("self-signed", acceptor(&["store.test"], None, false), None),
        ("wrong name", acceptor(&["other.test"], Some(&ours), false), Some(ours.pem())),
        ("expired", acceptor(&["store.test"], Some(&ours), true), Some(ours.pem())),
    ] {
        let peer = serving(acceptor).await;
        let Err(failure @ Failure::Tls(_)) = send(&door(), secure("store.test", &peer, ca)).await else { panic!("{what} is accepted") };
        assert!(failure.needs_attention());
        let text = failure.to_string();
        assert!(text.contains("certificate") && text.contains("store.test") && !text.contains("s3cret"), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_kept_connection_lends_its_trust_to_nobody() {
    let authority = authority();
    let peer = serving(acceptor(&["store.test"], Some(&authority), false)).await;
    let door = door();
    for _ in 0..2 {
        assert_eq!(status(&send(&door, secure("store.test", &peer, Some(authority.pem()))).await), Some(200));
    }
    assert_eq!(peer.accepted(), 1);
    assert!(matches!(send(&door, secure("store.test", &peer, None)).await, Err(Failure::Tls(_))));
    assert_eq!(peer.accepted(), 2);
}

#[tokio::test]
async fn an_authority_that_cannot_be_read_is_named() {
    let peer = Peer::answering(OK).await;
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "rubbish", broken, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        let failure = send(&door(), secure("store.test", &peer, Some(pem.to_owned()))).await;
        assert!(matches!(failure, Err(Failure::Tls(ref text)) if text.starts_with("ca_pem: ")), "{pem:?}: {failure:?}");
    }
}

#[tokio::test]
async fn a_disturbed_handshake_is_tried_again_and_a_peer_without_tls_is_not() {
    let hanging = Peer::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let brief = door_with(Times { connect: SHORT, ..TIMES });
    let failure = tokio::time::timeout(AMPLE / 2, send(&brief, secure("store.test", &hanging, None))).await;
    assert_eq!(failure.expect("a handshake has its own bound"), Err(Failure::TimedOut));

    let closing = Peer::start(|mut stream| async move {
        stream.read_u8().await.expect("a first byte");
        stream.shutdown().await.expect("an orderly end");
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.expect("an orderly end");
    })
    .await;
    let failure = send(&door(), secure("store.test", &closing, None)).await;
    assert!(matches!(failure, Err(Failure::Broken(_))), "{failure:?}");

    let plain = Peer::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("the answer is taken");
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.expect("an orderly end");
    })
    .await;
    let failure = send(&door(), secure("store.test", &plain, None)).await;
    assert!(matches!(failure, Err(Failure::Tls(_))), "{failure:?}");
}

#[tokio::test]
async fn lines_go_through_tls_too() {
    let authority = authority();
    let acceptor = acceptor(&["carbon.test"], Some(&authority), false);
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let peer = Peer::start(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut taken = Vec::new();
            stream.read_to_end(&mut taken).await.expect("an orderly end of TLS");
            tell.send(taken).await.expect("the test waits");
        }
    })
    .await;
    let sent = Outgoing::Tcp(TcpLines { tls: true, ..lines("carbon.test", peer.port, "a 1 1\n") });
    assert!(matches!(door().send(&sent, AMPLE).await, Err(Failure::Tls(_))), "an unknown authority");

    let door = door();
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    door.0.roots.certificates.set(roots).expect("not read yet");
    assert_eq!(door.send(&sent, AMPLE).await, Ok(Reply::Tcp));
    assert_eq!(told.recv().await.as_deref(), Some(&b"a 1 1\n"[..]));
}
