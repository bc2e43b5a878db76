//! `/`: what this server is and where things are, as plain text.

use crate::app::App;
use axum::extract::State;
use std::sync::Arc;

pub(crate) async fn page(State(app): State<Arc<App>>) -> String {
    format!(
        "Crashmeter {}\n\n\
         Send reports to  {}\n\
         API              {}  (described by {})\n\
         Health           {}  {}  {}\n\n\
         This version has no web page yet: use the API or the command line (crashmeter --help).\n",
        crate::VERSION,
        app.submission_url("<token>"),
        app.public("api/v1"),
        app.public("api/openapi.json"),
        app.public("healthz"),
        app.public("readyz"),
        app.public("metrics"),
    )
}
