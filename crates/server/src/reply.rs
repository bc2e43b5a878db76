//! Replies that say no: `problem+json` for our own API, the Backtrace error body for submissions. Neither ever holds a secret. And the
//! header that makes a reply a file to save.

use crate::ask::Unanswered;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::CatalogError;
use model::Problem;
use serde::Serialize;
use serde_json::json;

/// A refusal of our own API (RFC 9457): every fault named by its field.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    problems: Vec<Problem>,
}

/// The body of a refusal.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The status in words.
    title: String,
    /// What is wrong and what would mend it.
    detail: String,
    /// The first faulty field; empty when the request as a whole is at fault.
    field: String,
    /// Every fault, when there are several.
    problems: Vec<ProblemPart>,
    /// Names this request in the server's log.
    request_id: String,
}

/// One fault of several.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ProblemPart {
    field: String,
    detail: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, field: &str, detail: impl Into<String>) -> Refusal {
        Refusal { status, problems: vec![Problem::new(field, detail)] }
    }

    pub(crate) fn invalid(field: &str, detail: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, field, detail)
    }

    pub(crate) fn missing(what: &str) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "", format!("there is no {what}"))
    }

    /// What is at fault.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The same refusal of something that is a part of what was asked: every field is named below that part.
    pub(crate) fn below(mut self, part: &str) -> Refusal {
        for problem in &mut self.problems {
            problem.field = if problem.field.is_empty() { part.to_owned() } else { format!("{part}.{}", problem.field) };
        }
        self
    }

    /// Something failed on our side: the cause goes to the log, not to the client.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Refusal {
        tracing::error!(error, "request failed");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "", "the server could not do this; its log says why")
    }
}

impl From<Vec<Problem>> for Refusal {
    fn from(problems: Vec<Problem>) -> Refusal {
        Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, problems }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal::from(vec![problem])
    }
}

impl From<Unanswered> for Refusal {
    fn from(unanswered: Unanswered) -> Refusal {
        match unanswered {
            Unanswered::Busy => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "", unanswered.to_string()),
            Unanswered::TooLong => Refusal::invalid("", unanswered.to_string()),
        }
    }
}

impl From<CatalogError> for Refusal {
    fn from(error: CatalogError) -> Refusal {
        let detail = error.to_string();
        match error {
            CatalogError::Missing(_) => Refusal::new(StatusCode::NOT_FOUND, "", detail),
            CatalogError::Exists(_) => Refusal::new(StatusCode::CONFLICT, "name", detail),
            CatalogError::Changed { .. } | CatalogError::Outdated => Refusal::new(StatusCode::PRECONDITION_FAILED, "If-Match", detail),
            CatalogError::LastAdmin(_) => Refusal::new(StatusCode::CONFLICT, "", detail),
            CatalogError::Personal(_) => Refusal::invalid("query.group", detail),
            CatalogError::Grouped { .. } => Refusal::new(StatusCode::CONFLICT, "personal", detail),
            other => Refusal::internal(&other),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let request_id = hex::encode(catalog::random_bytes::<8>());
        let first = self.problems.first().cloned().unwrap_or_else(|| Problem::new("", "the request cannot be served"));
        tracing::info!(status = self.status.as_u16(), field = first.field, detail = first.detail, request_id, "refused");
        let several = if self.problems.len() > 1 { self.problems } else { Vec::new() };
        let body = ProblemBody {
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            detail: first.detail,
            field: first.field,
            problems: several.into_iter().map(|Problem { field, detail }| ProblemPart { field, detail }).collect(),
            request_id,
        };
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A refused submission. SDKs take any 200 for success, whatever its body, so this is never one (backtrace-api 1.7).
pub(crate) fn refused_submission(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": {"code": status.as_u16(), "message": message}}))).into_response()
}

/// Names a file to save. A client's own name for it may hold anything: what a header cannot hold plainly is replaced there, and
/// given as it is in the encoded form (RFC 6266).
pub(crate) fn disposition(name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '/' | '%' | ';') || c == ' ' { c } else { '_' })
        .collect();
    let encoded: String = name
        .bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect();
    let text = match plain == name {
        true => format!("attachment; filename=\"{plain}\""),
        false => format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"),
    };
    HeaderValue::from_str(&text).expect("nothing but plain characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_break_out_of_its_header() {
        for (name, expected) in [
            ("log.txt", "attachment; filename=\"log.txt\""),
            ("a b-c_1.dmp", "attachment; filename=\"a b-c_1.dmp\""),
            ("x\"; a=\"b", "attachment; filename=\"x__ a=_b\"; filename*=UTF-8''x%22%3B%20a%3D%22b"),
            ("a\r\nSet-Cookie: b", "attachment; filename=\"a__Set-Cookie: b\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b"),
            ("../ä", "attachment; filename=\".._\u{5f}\"; filename*=UTF-8''..%2F%C3%A4"),
        ] {
            assert_eq!(disposition(name), expected, "{name:?}");
        }
    }
}
