//! TLS to a store: the machine's roots, the store's own authority beside them, TLS 1.2 and later. Nothing here can switch the
//! check of a certificate off.

use super::Failure;
use super::connect::{Peer, reason};
use super::mask::printable;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

/// The roots every store trusts, read at the first use: many installations never need them.
#[derive(Default)]
pub(super) struct Roots {
    config: OnceLock<Arc<ClientConfig>>,
    pub(super) certificates: OnceLock<RootCertStore>,
}

impl Roots {
    /// The machine's certificates, so that a company's own authority counts here too; `SSL_CERT_FILE` and `SSL_CERT_DIR` say
    /// where they are, and setting those is the operator's right. A machine without any gets Mozilla's list.
    fn certificates(&self) -> &RootCertStore {
        self.certificates.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            roots
        })
    }

    /// What a connection is configured with. The one without an own authority is shared, because it also remembers sessions.
    fn config(&self, ca_pem: Option<&str>) -> Result<Arc<ClientConfig>, Failure> {
        let Some(pem) = ca_pem else {
            return Ok(self.config.get_or_init(|| config_with(self.certificates().clone())).clone());
        };
        let mut roots = self.certificates().clone();
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let unreadable = || Failure::Tls("ca_pem: holds something that is not a certificate in PEM form".to_owned());
            roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
            added += 1;
        }
        if added == 0 {
            return Err(Failure::Tls("ca_pem: holds no certificate in PEM form".to_owned()));
        }
        Ok(config_with(roots))
    }
}

fn config_with(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring has the suites of TLS 1.2 and 1.3");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Makes `stream` a TLS connection with a peer that has proved to be `peer`'s host.
pub(super) async fn handshake(
    roots: &Roots,
    peer: &Peer,
    ca_pem: Option<&str>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let connector = TlsConnector::from(roots.config(ca_pem)?);
    let name = server_name(&peer.host).ok_or_else(|| Failure::Tls(format!("{} cannot stand in a certificate", peer.host)))?;
    connector.connect(name, stream).await.map_err(|error| match tls_fault(&error) {
        Some(fault) => Failure::Tls(format!("no TLS with {peer}: {fault}")),
        None => Failure::Broken(format!("no TLS with {peer}: {}", reason(&error))),
    })
}

/// The name a certificate has to show; a final dot does not count.
fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).ok(),
        Host::Ipv4(ip) => Some(ServerName::from(std::net::IpAddr::V4(*ip))),
        Host::Ipv6(ip) => Some(ServerName::from(std::net::IpAddr::V6(*ip))),
    }
}

/// What TLS found fault with, if an error comes from TLS and not from the network below it. A TLS 1.3 server that wants a
/// client certificate says so only after the handshake, so answers are searched for this too.
pub(super) fn tls_fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<rustls::Error>() {
            return Some(printable(fault.to_string().as_bytes()));
        }
        // An I/O error hides the error it was made from behind that error's own source.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
