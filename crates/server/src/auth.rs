//! Who asks: bearer tokens of our own API, made for programs or opened by a user's login. A token bound to a project sees nothing of
//! the others, not even that they exist.
//!
//! A browser sends its session as a cookie. So that no other site's page can act for a user, such a request needs a header that only our
//! own page can set, and must not name another origin (reliability 5.3).

use crate::app::App;
use crate::reply::Refusal;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use catalog::{Access, Project, Scope, SessionAccess, Snapshot, token_hash};
use model::ProjectId;
use std::sync::Arc;

/// A caller with a valid token.
pub(crate) struct Caller {
    identity: Identity,
    /// The SHA-256 of the token's text.
    hash: [u8; 32],
    snapshot: Arc<Snapshot>,
}

/// Whose a token is.
enum Identity {
    /// A program's.
    Token(Access),
    /// A user's, opened by a login.
    User(SessionAccess),
}

impl Caller {
    /// Refuses a caller whose token may do less than `scope`.
    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Refusal> {
        // A submission token ships inside applications: it opens nothing here.
        if self.scope() == Scope::Submit || self.scope() < scope {
            let detail = format!("this needs a token of scope {scope}; yours is of scope {}", self.scope());
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Authorization", detail));
        }
        Ok(())
    }

    /// The project of that name, if the caller may see it with `scope`; the same answer for a hidden and a missing one.
    pub(crate) fn project(&self, name: &str, scope: Scope) -> Result<Project, Refusal> {
        self.needs(scope)?;
        self.projects().find(|project| project.name == name).cloned().ok_or_else(|| Refusal::missing(&format!("project {name:?}")))
    }

    /// The projects the caller may see.
    pub(crate) fn projects(&self) -> impl Iterator<Item = &Project> {
        let bound = self.bound();
        self.snapshot.projects.iter().filter(move |project| bound.is_none_or(|bound| bound == project.id))
    }

    /// What the caller may do.
    pub(crate) fn scope(&self) -> Scope {
        match &self.identity {
            Identity::Token(access) => access.scope,
            Identity::User(session) => session.role.scope(),
        }
    }

    /// The one project that the caller is bound to. Users see every project.
    pub(crate) fn bound(&self) -> Option<ProjectId> {
        match &self.identity {
            Identity::Token(access) => access.project,
            Identity::User(_) => None,
        }
    }

    /// The caller's session, if it was opened by a login.
    pub(crate) fn session(&self) -> Option<&SessionAccess> {
        match &self.identity {
            Identity::Token(_) => None,
            Identity::User(session) => Some(session),
        }
    }

    /// Refuses a token bound to one project where something of the whole server is asked for.
    pub(crate) fn unbound(&self) -> Result<(), Refusal> {
        if self.bound().is_some() {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Authorization", "this needs a token that is not bound to one project"));
        }
        Ok(())
    }

    /// Whether the caller would still be let in, for an answer that lasts. Looking does not count as a use of a session.
    pub(crate) fn is_still_welcome(&self, app: &App) -> bool {
        match &self.identity {
            Identity::Token(_) => app.catalog.published().tokens.contains_key(&self.hash),
            Identity::User(_) => app.catalog.is_session_open(&self.hash, app.reports.now()),
        }
    }

    /// The configuration the request is judged by.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How the audit log names the caller.
    pub(crate) fn name(&self) -> String {
        match &self.identity {
            Identity::Token(access) => format!("token {}", access.id),
            Identity::User(session) => format!("user {}", session.user),
        }
    }

    /// The caller that a token's text stands for; `None` when it is unknown, revoked, or its session has ended.
    pub(crate) fn of_token(app: &Arc<App>, token: &str) -> Option<Caller> {
        let snapshot = app.catalog.published();
        // Looked up by hash: how long it takes says nothing about how much of a guess was right.
        let hash = token_hash(token);
        if let Some(access) = snapshot.tokens.get(&hash) {
            return Some(Caller { identity: Identity::Token(*access), hash, snapshot });
        }
        let session = app.catalog.session(&hash, app.reports.now())?;
        if session.write_due {
            // Nobody waits for it: what is not written ends the session a little early after a restart, no more.
            let app = app.clone();
            tokio::spawn(async move {
                if let Err(error) = app.catalog(move |app, _| app.catalog.write_session_use(&hash)).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot write when a session was used");
                }
            });
        }
        Some(Caller { identity: Identity::User(session), hash, snapshot })
    }
}

/// Name of a browser's session cookie.
pub(crate) const SESSION_COOKIE: &str = "crashmeter_session";
/// A header that a page of another site cannot send without being asked about first, which is never allowed.
const PAGE_HEADER: &str = "x-crashmeter-page";

fn session_cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(name, token)| *name == SESSION_COOKIE && !token.is_empty()).map(|(_, token)| token.to_owned())
}

/// Whether a request comes from a page of this server: under its public address, or under the one that the browser asked.
fn from_our_page(app: &App, headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        origin == app.public_url.origin().ascii_serialization() || (host.is_some() && host == text(header::HOST))
    };
    headers.contains_key(PAGE_HEADER) && text(header::ORIGIN).is_none_or(ours)
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Refusal> {
        let refusal = |detail: &str| Refusal::new(StatusCode::UNAUTHORIZED, "Authorization", detail);
        let header = parts.headers.get(header::AUTHORIZATION);
        if let (None, Some(token)) = (header, session_cookie(&parts.headers)) {
            if !from_our_page(app, &parts.headers) {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "Origin", "a session's cookie is taken from this server's own page only"));
            }
            return Caller::of_token(app, &token).ok_or_else(|| refusal("this session has ended; log in again"));
        }
        let header = header.ok_or_else(|| {
            refusal("send a token: Authorization: Bearer <token>; POST /api/v1/login opens one, the first start wrote one into admin.token")
        })?;
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(|| refusal("must be Bearer <token>"))?;
        Caller::of_token(app, token.trim()).ok_or_else(|| refusal("this token is unknown or was revoked, or its session has ended"))
    }
}
