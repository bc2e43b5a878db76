//! Questions of people: evaluated off the async threads, a bounded number at one time, given up when they take too long or whoever
//! asked has gone. The sealer is not among them.

use reports::Cancel;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a question waits for others to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a question may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    /// Too many others are being answered.
    #[error("other queries are running; try again soon")]
    Busy,
    /// It was given up.
    #[error("the query took more than {} s and was stopped; narrow its time frame", DEADLINE.as_secs())]
    TooLong,
}

/// Sets the cancellation when it is dropped: by the end of the request, or because the client hung up before.
struct Gone(Cancel);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Does blocking work for a person once there is room. The work goes on until it notices its `Cancel`, and takes up its room until
/// it has ended.
pub(crate) async fn ask<T: Send + 'static>(
    room: &Arc<Semaphore>,
    work: impl FnOnce(&Cancel) -> T + Send + 'static,
) -> Result<T, Unanswered> {
    ask_within(room, PATIENCE, DEADLINE, work).await
}

async fn ask_within<T: Send + 'static>(
    room: &Arc<Semaphore>,
    patience: Duration,
    deadline: Duration,
    work: impl FnOnce(&Cancel) -> T + Send + 'static,
) -> Result<T, Unanswered> {
    let place = tokio::time::timeout(patience, room.clone().acquire_owned()).await.map_err(|_| Unanswered::Busy)?;
    let place = place.expect("the semaphore is never closed");
    let gone = Gone(Cancel::default());
    let cancel = gone.0.clone();
    let work = tokio::task::spawn_blocking(move || {
        let _place = place;
        work(&cancel)
    });
    let done = tokio::time::timeout(deadline, work).await.map_err(|_| Unanswered::TooLong)?;
    Ok(done.expect("a panic in a query stops the request"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    #[tokio::test]
    async fn work_is_told_when_whoever_asked_has_gone_and_frees_its_room_at_its_end() {
        let room = Arc::new(Semaphore::new(1));
        let (started, begun) = tokio::sync::oneshot::channel();
        let (ended, outcome) = mpsc::channel();
        let of_question = room.clone();
        let question = tokio::spawn(async move {
            let work = move |cancel: &Cancel| {
                started.send(()).expect("the test waits");
                let begun = Instant::now();
                while !cancel.is_set() && begun.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
                ended.send(cancel.is_set()).expect("the test waits");
            };
            ask(&of_question, work).await.expect("there is room");
        });
        begun.await.expect("it has begun");
        assert_eq!(ask_within(&room, Duration::ZERO, DEADLINE, |_| ()).await, Err(Unanswered::Busy));
        question.abort();
        let _place = room.acquire().await.expect("never closed");
        assert_eq!(outcome.try_recv(), Ok(true));
    }

    #[tokio::test]
    async fn an_answer_comes_back() {
        let room = Arc::new(Semaphore::new(1));
        assert!(!ask(&room, Cancel::is_set).await.expect("there is room"));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_stopped() {
        let room = Arc::new(Semaphore::new(1));
        let endless = |cancel: &Cancel| {
            while !cancel.is_set() {
                std::thread::yield_now();
            }
        };
        assert_eq!(ask_within(&room, PATIENCE, Duration::from_millis(1), endless).await, Err(Unanswered::TooLong));
        let _place = room.acquire().await.expect("its room is free again");
    }
}
