//! How a place in a trace is written: W3C Trace Context, Jaeger's header, and 25 bytes.
//!
//! What comes from outside is never trusted: anything that is not exactly as the formats say is
//! as if it were not there.

use std::fmt;

/// The longest header that is looked at. Longer ones of later versions of the format are ignored.
const TEXT_BYTES_MAX: usize = 256;
/// The length of version 00 of `traceparent`, and what later versions begin with.
const TRACEPARENT_BYTES: usize = 55;
/// The bit of the flags that says that somebody records the trace; the same in both formats.
const SAMPLED: u8 = 1;

/// A trace; never all zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TraceId(pub(super) [u8; 16]);

/// A span of a trace; never all zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SpanId(pub(super) [u8; 8]);

impl TraceId {
    /// As they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SpanId {
    /// As they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// A span, and whether its trace is recorded. Displayed as the value of a `traceparent` header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Whether whoever began the trace wants it recorded.
    pub sampled: bool,
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

impl TraceContext {
    /// How many bytes [`Self::to_bytes`] makes.
    pub const BYTES: usize = 25;

    /// Reads the value of a `traceparent` header: <https://www.w3.org/TR/trace-context/>.
    pub fn from_traceparent(text: &str) -> Option<Self> {
        let (fixed, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let mut parts = fixed.split('-');
        let mut part = |digits| parts.next().filter(|part| is_lower_hex(part, digits));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let complete = match version {
            "ff" => false,
            "00" => rest.is_empty(),
            // Later versions may say more after another dash.
            _ => rest.is_empty() || (rest.starts_with('-') && text.len() <= TEXT_BYTES_MAX),
        };
        let flags = u8::from_str_radix(flags, 16).ok()?;
        complete.then_some(())?;
        Self::new(
            u128::from_str_radix(trace, 16).ok()?,
            u64::from_str_radix(span, 16).ok()?,
            flags,
        )
    }

    /// Reads the value of Jaeger's `uber-trace-id`: `trace:span:parent:flags`, where leading
    /// zeros may be missing and the colons may be escaped as in a URL.
    pub fn from_uber_trace_id(text: &str) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let text = text.replace("%3A", ":").replace("%3a", ":");
        let mut parts = text.split(':');
        let mut part = |most: usize| parts.next().filter(|part| is_hex(part, most));
        let (trace, span, _parent, flags) = (part(32)?, part(16)?, part(16)?, part(2)?);
        parts.next().is_none().then_some(())?;
        Self::new(
            u128::from_str_radix(trace, 16).ok()?,
            u64::from_str_radix(span, 16).ok()?,
            u8::from_str_radix(flags, 16).ok()?,
        )
    }

    /// The context as bytes: trace, span, flags.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [u8::from(self.sampled); Self::BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.0);
        bytes[16..24].copy_from_slice(&self.span_id.0);
        bytes
    }

    /// Reads what [`Self::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, flags) = rest.split_first_chunk()?;
        Self::new(
            u128::from_be_bytes(*trace),
            u64::from_be_bytes(*span),
            *flags.first()?,
        )
    }

    fn new(trace: u128, span: u64, flags: u8) -> Option<Self> {
        (trace != 0 && span != 0).then(|| Self {
            trace_id: TraceId(trace.to_be_bytes()),
            span_id: SpanId(span.to_be_bytes()),
            sampled: flags & SAMPLED != 0,
        })
    }
}

fn is_lower_hex(text: &str, digits: usize) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == digits && text.bytes().all(is_digit)
}

fn is_hex(text: &str, digits_max: usize) -> bool {
    (1..=digits_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::from_traceparent(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert!(context.sampled);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        let unsampled = GOOD.replace("-01", "-00");
        let context = TraceContext::from_traceparent(&unsampled).unwrap();
        assert!(!context.sampled);
        assert_eq!(context.to_string(), unsampled);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
    }

    #[test]
    fn later_versions_and_flags_are_understood() {
        let read = TraceContext::from_traceparent;
        let context = read(GOOD).unwrap();
        assert_eq!(read(&GOOD.replacen("00", "cc", 1)), Some(context));
        let longer = format!("{}-what-comes", GOOD.replacen("00", "01", 1));
        assert_eq!(read(&longer), Some(context));
        assert_eq!(read(&GOOD.replace("-01", "-ff")), Some(context));
        assert!(!read(&GOOD.replace("-01", "-fe")).unwrap().sampled);
    }

    #[test]
    fn malformed_traceparents_are_as_if_they_were_not_there() {
        let many = "0".repeat(1_000_000);
        for text in [
            "",
            "-",
            "00",
            &GOOD[..54],
            &format!("{GOOD} "),
            &format!("{GOOD}-x"),
            &format!(" {GOOD}"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0g", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("4bf9", "+bf9"),
            &GOOD.replace("-01", "-+1"),
            &GOOD.replace('-', "_"),
            &GOOD.replacen('-', "0", 1),
            &format!("{}x", GOOD.replacen("00", "01", 1)),
            &format!("{}-{many}", GOOD.replacen("00", "01", 1)),
            &many,
            &"ä".repeat(40),
            "00-ä4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0ä",
            "\0\0-\0",
        ] {
            let shown: String = text.chars().take(80).collect();
            assert_eq!(TraceContext::from_traceparent(text), None, "{shown:?}");
        }
    }

    #[test]
    fn jaegers_header_is_read_too() {
        let read = TraceContext::from_uber_trace_id;
        let context = TraceContext::from_traceparent(GOOD);
        let same = "4bf92f3577b34da6a3ce929d0e0e4736:f067aa0ba902b7:0:1";
        assert_eq!(read(same), context);
        assert_eq!(read(&same.replace(':', "%3A")), context);
        assert_eq!(
            read("1:2:0:0").unwrap().to_string(),
            "00-00000000000000000000000000000001-0000000000000002-00"
        );
        let many = "1".repeat(1_000_000);
        for text in [
            "",
            ":::",
            "0:1:0:1",
            "1:0:0:1",
            "1:2:0",
            "1:2:0:1:5",
            "1:2:0:+1",
            &many,
        ] {
            let shown: String = text.chars().take(80).collect();
            assert_eq!(read(text), None, "{shown:?}");
        }
    }

    #[test]
    fn bytes_without_ids_are_no_context() {
        assert_eq!(TraceContext::from_bytes(&[0; 25]), None);
        let mut bytes = [0; 25];
        bytes[0] = 1;
        assert_eq!(TraceContext::from_bytes(&bytes), None);
    }
}
