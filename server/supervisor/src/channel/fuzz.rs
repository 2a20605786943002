//! Whatever a waiting worker says, and however it is cut, the server gets a message or a reason.
//! The seed stands in the failure; the last byte is followed by an end, so nothing may wait.

use std::time::Duration;

use outrigger_proto::v1::{LayerReport, Refused, Waiting};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::*;

/// What each seed tries once.
const SEEDS: u64 = 400;
/// Far longer than reading what is there; only a read that waits for ever takes so long.
const STUCK: Duration = Duration::from_secs(30);

fn sample(random: &mut StdRng) -> from_spare::Message {
    let text = "x".repeat(random.random_range(0..2000));
    match random.random_range(0..3) {
        0 => from_spare::Message::Waiting(Waiting {
            pid: random.random(),
        }),
        1 => from_spare::Message::Refused(Refused {
            layer: text.clone(),
            reason: text,
        }),
        _ => from_spare::Message::Confined(Confined {
            layers: (0..random.random_range(0..20))
                .map(|_| LayerReport {
                    name: text.clone(),
                    state: random.random(),
                    reason: text.clone(),
                })
                .collect(),
        }),
    }
}

/// Frames that are valid, mutated, or no frames at all.
fn said(random: &mut StdRng) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let mut bytes = FromSpare {
            message: Some(sample(random)),
        }
        .encode_to_vec();
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..3) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
                1 => bytes.truncate(at),
                _ => bytes.insert(at, random.random()),
            }
        }
        let length: u32 = match random.random_range(0..8) {
            0 => random.random(),
            1 => 0,
            _ => u32::try_from(bytes.len()).unwrap(),
        };
        all.extend(length.to_be_bytes());
        all.extend(bytes);
    }
    all
}

#[tokio::test]
async fn anything_that_is_said_is_a_message_or_a_reason() {
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let said = said(&mut random);
        let (mut ours, theirs) = Channel::pair().unwrap();
        let theirs = StdUnixStream::from(theirs);
        theirs.set_nonblocking(true).unwrap();
        let mut theirs = UnixStream::from_std(theirs).unwrap();
        let says = async move {
            let mut parts = said.chunks(random.random_range(1..700));
            // The server has closed its end where it has read enough.
            while let Some(part) = parts.next()
                && theirs.write_all(part).await.is_ok()
            {}
        };
        let hears = async {
            if seed % 2 == 0 {
                drop(ours.assign(Assign::default()).await);
            } else if ours.waiting(7).await.is_ok() {
                let _reason: ChannelError = ours.broken().await;
            }
        };
        let both = async { tokio::join!(says, hears) };
        let ended = timeout(STUCK, both).await;
        assert!(ended.is_ok(), "seed {seed}: the server waits for ever");
    }
}
