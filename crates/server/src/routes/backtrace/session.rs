//! Login, logout, and what clients ask a server about itself before and after.

use super::{Asker, Denied, Parameters};
use crate::app::App;
use crate::routes::login::open_session;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use catalog::LoginError;
use model::Secret;
use serde_json::{Value as Json_, json};
use std::sync::Arc;

/// The numbers of the one universe and of everybody who asks: clients want numbers, and keep them as owners of what they make.
pub(super) const UNIVERSE: u32 = 1;
pub(super) const OWNER: u32 = 1;

/// Takes a name and a password, or a token, in a form; the reply is what clients keep as their configuration.
pub(super) async fn login(State(app): State<Arc<App>>, body: Result<Bytes, BytesRejection>) -> Result<Json<Json_>, Denied> {
    let form = body?;
    let form = Parameters::read(std::str::from_utf8(&form).map_err(|_| Denied::new("invalid credentials"))?);
    if let Some(token) = form.get("token") {
        let caller = Asker::of(&app, token)?;
        return Ok(Json(session(&app, token, &caller.name())));
    }
    let (Some(user), Some(password)) = (form.get("username"), form.get("password")) else {
        return Err(Denied::new("invalid credentials: log in with a name and a password, or with a token"));
    };
    match open_session(&app, user, &Secret::new(password)).await {
        Ok(opened) => Ok(Json(session(&app, opened.token.reveal(), &opened.user))),
        Err(LoginError::Catalog(error)) => Err(Denied::from(error)),
        Err(error) => Err(Denied::new(format!("invalid credentials: {error}"))),
    }
}

fn session(app: &App, token: &str, user: &str) -> Json_ {
    let url = &app.public_url;
    let universe = &app.universe;
    json!({
        "token": token, "uid": OWNER, "user": {"uid": OWNER, "username": user, "role": "member", "superuser": 0},
        "universe": {"id": UNIVERSE, "name": universe}, "universes": {universe.as_str(): {"id": UNIVERSE}},
        // Where reports go: the same host, as clients take the host from the address they log in at.
        "endpoints": {"post": [{"protocol": url.scheme(), "port": url.port_or_known_default()}]},
        "services": [], "version": crate::VERSION,
    })
}

/// Ends the session, where the token is of one; whoever logs out is answered alike.
pub(super) async fn logout(State(app): State<Arc<App>>, asker: Result<Asker, Denied>) -> Result<Json<Json_>, Denied> {
    if let Ok(asker) = asker
        && let Some(hash) = asker.caller.session().map(|session| session.hash)
    {
        app.catalog(move |app, now| app.catalog.logout(&hash, now)).await?;
    }
    Ok(Json(json!({"response": "ok"})))
}

/// Always: the first start has made an administrator.
pub(super) async fn is_configured() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], "1").into_response()
}

/// What `login` answers, for a token that is known already.
pub(super) async fn config(State(app): State<Arc<App>>, asker: Asker) -> Json<Json_> {
    let mut session = session(&app, "", &asker.caller.name());
    session.as_object_mut().expect("written as an object").remove("token");
    Json(session)
}
