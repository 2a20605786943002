//! How does a request get its answer from a plugin?

use outrigger_model::{error::Report, trace::Span};
use outrigger_storage::journal::LogLevel;
use outrigger_supervisor::{ExitReason, InvocationError, Response};
use tracing::Instrument;

use super::{Attempt, Failure, Next, Occasion, Ran, Runner};
use crate::{requests::AnswerError, wording};

impl Runner {
    /// Runs the plugin once and returns its answer; its lines are committed first.
    pub(crate) async fn answer(&self, occasion: &Occasion) -> Result<Response, AnswerError> {
        let span = self.begin(occasion, &occasion.origin, 1);
        let lines = self.log_span(occasion, &span);
        self.answer_within(occasion, span).instrument(lines).await
    }

    async fn answer_within(
        &self,
        occasion: &Occasion,
        mut span: Span,
    ) -> Result<Response, AnswerError> {
        let attempt = &Attempt {
            occasion,
            number: 1,
            trace: span.trace(),
        };
        let Ran { result, account } = self.run(attempt, &mut span).await;
        let error = match result {
            Ok(mut finished) => {
                let response = finished.response.take();
                let response = response.ok_or_else(AnswerError::unavailable)?;
                if finished.lines.is_empty() {
                    // Nothing to make durable that the client would have to wait for.
                    let text = wording::finished(account.wall);
                    self.say(attempt, LogLevel::Info, text).await;
                    self.engine.logger.account(account).await;
                    return Ok(response);
                }
                return match self.on_finished(attempt, finished, account).await {
                    Next::Done => Ok(response),
                    _ => Err(AnswerError::unavailable()),
                };
            }
            Err(Failure::Source(error)) => AnswerError::Plugin(Report(&error).to_string()),
            Err(Failure::Invocation(error)) => {
                let text = self.voice(attempt).failure("running request", &error);
                self.say(attempt, LogLevel::Error, text).await;
                answer_error(error)
            }
        };
        self.engine.logger.account(account).await;
        Err(error)
    }
}

fn answer_error(error: InvocationError) -> AnswerError {
    match error {
        // There was no function to call.
        InvocationError::Plugin(failure) if failure.exception.is_empty() => {
            AnswerError::Plugin(failure.message)
        }
        InvocationError::Load(failure) | InvocationError::Plugin(failure) => {
            AnswerError::Plugin(format!("Python function call failed: {failure}"))
        }
        InvocationError::Worker {
            reason: reason @ ExitReason::DeadlineExceeded { .. },
            ..
        } => AnswerError::Deadline(reason.to_string()),
        InvocationError::Worker {
            reason: reason @ ExitReason::Unwanted,
            ..
        } => AnswerError::Unavailable {
            text: reason.to_string(),
            retry_after: None,
        },
        InvocationError::Worker { reason, .. } => AnswerError::Plugin(reason.to_string()),
        InvocationError::Paused { left, .. } => AnswerError::Unavailable {
            text: error.to_string(),
            retry_after: Some(left),
        },
        InvocationError::HostLost | InvocationError::Stopped => {
            AnswerError::broken_off(&error.to_string())
        }
        InvocationError::Host(_) | InvocationError::Released => AnswerError::unavailable(),
    }
}
