//! How connections are made: timeouts, proxies, and whom TLS trusts.

use std::{fs, path::Path, time::Duration};

use reqwest::{Certificate, Url, tls};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::error::{CertificateError, ClientError};
use crate::connection::ServerArgs;

/// How long to try to reach the server. There is no limit for its answer: a query may take long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP client that trusts whom the arguments say.
pub(super) fn http_client(server: &ServerArgs) -> Result<reqwest::Client, ClientError> {
    // Fails when another client did the same before, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("influxdb3-cli/", env!("CARGO_PKG_VERSION")));
    if is_loopback(&server.host) {
        builder = builder.no_proxy();
    }
    builder = match (&server.tls_ca, server.host.scheme()) {
        // Not even looking for the system's certificates lets this work where there are none.
        (_, "http") => builder.tls_certs_only([]),
        (Some(path), _) => builder.tls_certs_merge(certificates(path)?),
        (None, _) => builder,
    };
    builder
        .tls_version_min(tls::Version::TLS_1_3)
        .tls_danger_accept_invalid_certs(server.tls_no_verify)
        .build()
        .map_err(|source| ClientError::Setup { source })
}

/// A proxy would look for the server on its own machine.
fn is_loopback(host: &Url) -> bool {
    matches!(host.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let bytes = fs::read(path).map_err(|source| ClientError::ReadCertificate {
        path: path.to_owned(),
        source,
    })?;
    let is_der = path.extension().is_some_and(|extension| extension == "der");
    parse_certificates(bytes, is_der).map_err(|source| ClientError::InvalidCertificate {
        path: path.to_owned(),
        source,
    })
}

/// The HTTP client would take nonsense, and trust nobody.
fn parse_certificates(bytes: Vec<u8>, is_der: bool) -> Result<Vec<Certificate>, CertificateError> {
    let certificates = if is_der {
        vec![CertificateDer::from(bytes)]
    } else {
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>()?
    };
    if certificates.is_empty() {
        return Err(CertificateError::None);
    }
    for certificate in &certificates {
        RootCertStore::empty().add(certificate.clone())?;
    }
    certificates
        .iter()
        .map(|certificate| Ok(Certificate::from_der(certificate)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_certificate() {
        let error = parse_certificates(b"nonsense".to_vec(), false).expect_err("no PEM");
        assert_eq!(error.to_string(), "it contains no PEM certificate");
        let error = parse_certificates(b"nonsense".to_vec(), true).expect_err("no DER");
        assert!(matches!(error, CertificateError::Invalid(_)), "{error:?}");
    }

    #[test]
    fn a_proxy_is_not_asked_for_this_machine() {
        let check = |host: &str| is_loopback(&host.parse().expect("a URL"));
        assert!(check("http://127.0.0.1:8181"));
        assert!(check("http://[::1]:8181"));
        assert!(check("https://localhost"));
        assert!(!check("https://example.com"));
    }
}
