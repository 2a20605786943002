//! The worker protocol as Rust types: generated from `outrigger/plugin/v1/*.proto`.
//!
//! The generated code is committed, so that nobody needs protoc or a build script;
//! `tests/generated.rs` compares it with what the .proto files give. What the
//! messages mean stands in docs/protocol.md.

/// Version 1 of the protocol.
pub mod v1 {
    #![expect(
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::excessive_nesting,
        missing_docs,
        unused_qualifications,
        reason = "generated code"
    )]

    include!("generated/outrigger.plugin.v1.rs");
}

/// The number in `Hello.protocol` and `HostReady.protocol`.
pub const PROTOCOL_VERSION: u32 = 2;

/// The most bytes of one message from a worker; a synchronous write is the largest.
pub const FROM_WORKER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most bytes of a Flight ticket, which may hold a query.
pub const TICKET_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of one frame between host and server.
pub const HOST_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of one message to a spare.
pub const TO_SPARE_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of one message from a spare.
pub const FROM_SPARE_BYTES_MAX: usize = 64 * 1024;
