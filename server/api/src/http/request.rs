//! What a request carries: its body within limits, its JSON, its query string.

use std::io::{self, Read};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use http::{HeaderMap, StatusCode, Uri, header};
use outrigger_model::{
    bytes::ByteSize,
    error::{ErrorKind, Report},
};
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;

use crate::error::HttpError;

/// Compressed bodies of more bytes are not unpacked on an async thread.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// The parameters in the URL; an absent query string is an empty one.
pub(crate) fn parse_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, HttpError> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default())
        .map_err(|error| HttpError::invalid(format!("serde error: {error}")))
}

/// The parameters in the URL, or what to say if there is no query string at all.
pub(crate) fn require_query<T: DeserializeOwned>(uri: &Uri, missing: &str) -> Result<T, HttpError> {
    if uri.query().is_none() {
        return Err(HttpError::invalid(missing));
    }
    parse_query(uri)
}

/// The body as JSON, which its content type must say.
pub(crate) async fn json<T: DeserializeOwned>(
    request: Request,
    limit: ByteSize,
) -> Result<T, HttpError> {
    if !says_json(request.headers()) {
        let text = "unacceptable content-type, expected: application/json";
        return Err(HttpError::with_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            text,
        ));
    }
    parse_json(&body(request, limit).await?)
}

/// The parameters in the URL if it has any; else the body as JSON.
pub(crate) async fn query_or_json<T: DeserializeOwned>(
    request: Request,
    limit: ByteSize,
) -> Result<T, HttpError> {
    if request.uri().query().is_some() {
        return parse_query(request.uri());
    }
    json(request, limit).await
}

/// Bytes as JSON, whatever their content type.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HttpError> {
    serde_json::from_slice(bytes)
        .map_err(|error| HttpError::invalid(format!("serde json error: {error}")))
}

/// The body, unpacked.
pub(crate) async fn body(request: Request, limit: ByteSize) -> Result<Bytes, HttpError> {
    let is_gzip = match request.headers().get(header::CONTENT_ENCODING) {
        None => false,
        Some(encoding) => match encoding.to_str() {
            Ok("identity") => false,
            Ok("gzip") => true,
            other => {
                let name = other.unwrap_or("not ASCII text");
                let text = format!("unacceptable content-encoding: {name}");
                return Err(HttpError::invalid(text));
            }
        },
    };
    let sent = receive(request.into_body(), limit).await?;
    if !is_gzip {
        return Ok(sent);
    }
    if sent.len() <= INLINE_BYTES_MAX {
        return unpack(&sent, limit);
    }
    spawn_blocking(move || unpack(&sent, limit))
        .await
        .map_err(|error| HttpError::new(ErrorKind::Internal, Report(&error).to_string()))?
}

async fn receive(body: Body, limit: ByteSize) -> Result<Bytes, HttpError> {
    let mut chunks = body.into_data_stream();
    let mut received = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            HttpError::invalid(format!("error reading request body: {}", Report(&error)))
        })?;
        if received.len() + chunk.len() > limit.0 {
            return Err(too_large(limit));
        }
        received.extend_from_slice(&chunk);
    }
    Ok(received.into())
}

fn unpack(packed: &[u8], limit: ByteSize) -> Result<Bytes, HttpError> {
    let mut unpacked = Vec::new();
    // One byte more than allowed tells that there is more.
    let bound = u64::try_from(limit.0).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoder = MultiGzDecoder::new(packed).take(bound);
    let read: io::Result<usize> = decoder.read_to_end(&mut unpacked);
    read.map_err(|error| HttpError::invalid(format!("error decoding gzip stream: {error}")))?;
    if unpacked.len() > limit.0 {
        return Err(too_large(limit));
    }
    Ok(unpacked.into())
}

fn too_large(limit: ByteSize) -> HttpError {
    let text = format!("max request size ({} bytes) exceeded", limit.0);
    HttpError::with_status(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// `application/json` or `application/…+json`, whatever parameters follow.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str())
    else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence
        .to_ascii_lowercase()
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::response::IntoResponse;
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const LIMIT: ByteSize = ByteSize(100);

    #[tokio::test]
    async fn bodies_of_several_gzip_members_are_joined() {
        let packed = [gzip(b"a f=1\n"), gzip(b"b f=2\n")].concat();
        let read = body(request("gzip", packed), LIMIT).await.unwrap();
        assert_eq!(&read[..], b"a f=1\nb f=2\n");
        let plain = body(request("identity", b"x".to_vec()), LIMIT)
            .await
            .unwrap();
        assert_eq!(&plain[..], b"x");
    }

    #[tokio::test]
    async fn the_limit_holds_as_sent_and_unpacked() {
        check_refused("identity", vec![b'x'; 101], 413).await;
        check_refused("gzip", gzip(&[b'x'; 101]), 413).await;
        assert!(
            body(request("gzip", gzip(&[b'x'; 100])), LIMIT)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn other_encodings_and_broken_gzip_are_refused() {
        check_refused("br", Vec::new(), 400).await;
        check_refused("gzip", b"not gzip".to_vec(), 400).await;
        let mut cut = gzip(b"a f=1");
        cut.truncate(cut.len() - 4);
        check_refused("gzip", cut, 400).await;
    }

    #[test]
    fn content_types_that_mean_json() {
        for good in [
            "application/json",
            "application/JSON; charset=utf-8",
            "application/x+json",
        ] {
            assert!(says_json(&content_type(good)), "{good}");
        }
        for bad in ["text/plain", "application/jsonx", "json"] {
            assert!(!says_json(&content_type(bad)), "{bad}");
        }
        assert!(!says_json(&HeaderMap::new()));
    }

    fn content_type(value: &'static str) -> HeaderMap {
        let value = http::HeaderValue::from_static(value);
        HeaderMap::from_iter([(header::CONTENT_TYPE, value)])
    }

    fn request(encoding: &str, body: Vec<u8>) -> Request {
        let builder = Request::builder().header(header::CONTENT_ENCODING, encoding);
        builder.body(Body::from(body)).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn check_refused(encoding: &str, sent: Vec<u8>, status: u16) {
        let error = body(request(encoding, sent), LIMIT).await.unwrap_err();
        assert_eq!(error.into_response().status().as_u16(), status);
    }
}
