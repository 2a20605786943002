//! What is known of a process at the other end of the workers' socket.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::{Duration, Instant};

/// One connection's peer.
#[derive(Debug)]
pub(crate) struct Peer {
    /// As the kernel says.
    pub(crate) pid: u32,
    began: Instant,
    /// Milliseconds from `began` until it was last heard.
    heard_ms: AtomicU64,
    proven: AtomicBool,
}

impl Peer {
    pub(crate) fn new(pid: u32) -> Self {
        Self {
            pid,
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            proven: AtomicBool::new(false),
        }
    }

    /// Something came from it: a message, or only the answer to a ping, which its gRPC
    /// library gives without Python.
    pub(crate) fn on_heard(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(elapsed, Ordering::Relaxed);
    }

    /// When something last came from it.
    pub(crate) fn heard(&self) -> Instant {
        self.began + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// It has shown a secret that only a worker of ours knows.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}
