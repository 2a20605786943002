//! Does a worker take the rows that it has asked for?
//!
//! The server makes the next rows of a stream only once the last ones are on their way, so a
//! reader that stops costs little memory. But what it holds on to, a query and its snapshot, it
//! would hold until its deadline.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, stream::BoxStream};
use parking_lot::Mutex;

/// What waits to be taken by one invocation.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    waiting: BTreeSet<Offer>,
}

/// Some rows of a stream; never the same number twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Offer(u64);

#[cfg(test)]
impl Offer {
    pub(crate) fn numbered(number: u64) -> Self {
        Self(number)
    }
}

impl Offers {
    /// What has waited longest.
    pub(crate) fn oldest(&self) -> Option<Offer> {
        self.0.lock().waiting.first().copied()
    }

    fn make(&self) -> Offer {
        let mut numbers = self.0.lock();
        numbers.last += 1;
        let offer = Offer(numbers.last);
        numbers.waiting.insert(offer);
        offer
    }

    fn end(&self, offer: Offer) {
        self.0.lock().waiting.remove(&offer);
    }
}

/// A stream whose items wait until the next one is asked for.
pub(crate) struct Offered<T> {
    stream: BoxStream<'static, T>,
    offers: Arc<Offers>,
    current: Option<Offer>,
}

impl<T> Offered<T> {
    pub(crate) fn new(stream: BoxStream<'static, T>, offers: Arc<Offers>) -> Self {
        Self {
            stream,
            offers,
            current: None,
        }
    }

    fn on_taken(&mut self) {
        if let Some(offer) = self.current.take() {
            self.offers.end(offer);
        }
    }
}

impl<T> Stream for Offered<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.on_taken();
        let next = self.stream.as_mut().poll_next(cx);
        if matches!(next, Poll::Ready(Some(_))) {
            self.current = Some(self.offers.make());
        }
        next
    }
}

impl<T> Drop for Offered<T> {
    fn drop(&mut self) {
        self.on_taken();
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream};

    use super::*;

    #[test]
    fn what_was_given_waits_until_more_is_asked_for() {
        let offers = Arc::new(Offers::default());
        let numbers = stream::iter(0..2).chain(stream::pending()).boxed();
        let mut offered = Offered::new(numbers, offers.clone());
        assert_eq!(offers.oldest(), None);
        assert_eq!(offered.next().now_or_never(), Some(Some(0)));
        let first = offers.oldest().unwrap();
        assert_eq!(offered.next().now_or_never(), Some(Some(1)));
        assert_ne!(offers.oldest(), Some(first));
        // Now the reader waits, and not the server.
        assert_eq!(offered.next().now_or_never(), None);
        assert_eq!(offers.oldest(), None);
    }

    #[test]
    fn nothing_waits_in_a_stream_that_is_gone() {
        let offers = Arc::new(Offers::default());
        let mut left = Offered::new(stream::repeat(7).boxed(), offers.clone());
        let mut other = Offered::new(stream::repeat(7).boxed(), offers.clone());
        left.next().now_or_never();
        other.next().now_or_never();
        let first = offers.oldest().unwrap();
        drop(left);
        assert!(offers.oldest().unwrap() > first);
        drop(other);
        assert_eq!(offers.oldest(), None);
    }
}
