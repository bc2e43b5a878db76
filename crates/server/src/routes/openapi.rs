//! The OpenAPI document, made from the handlers themselves.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Crashmeter",
        description = "Crash reports in, exact time-series metrics out.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        super::adapters::list,
        super::attributes::list,
        super::attributes::put,
        super::attributes::delete,
        super::audit::of_all,
        super::audit::of_project,
        super::audit::of_metric,
        super::audit_log::list,
        super::backfill::show,
        super::backfill::start,
        super::backfill::cancel,
        super::configuration::schema,
        super::configuration::show,
        super::configuration::plan,
        super::configuration::apply,
        super::events::stream,
        super::explain::explain,
        super::login::log_in,
        super::login::log_out,
        super::login::me,
        super::login::change_password,
        super::metric_sets::list,
        super::metric_sets::show_set,
        super::metric_sets::put_set,
        super::metric_sets::delete_set,
        super::metric_sets::put_metric,
        super::metric_sets::show_metric,
        super::metric_sets::delete_metric,
        super::metric_stores::list,
        super::metric_stores::put,
        super::metric_stores::show,
        super::metric_stores::delete,
        super::metric_stores::status,
        super::metric_stores::deliveries,
        super::metric_stores::ledger,
        super::metric_stores::send_now,
        super::metric_stores::pause,
        super::metric_stores::resume,
        super::metric_stores::rotate,
        super::metric_values::show,
        super::preview::run,
        super::projects::list,
        super::projects::create,
        super::projects::show,
        super::projects::attributes,
        super::projects::refusals,
        super::projects::report,
        super::projects::attachment,
        super::query::run,
        super::query::select,
        super::query::values,
        super::tokens::list,
        super::tokens::create,
        super::tokens::revoke,
        super::views::list,
        super::views::put,
        super::views::delete,
        super::wire::preview,
        super::wire::snippets,
        super::wire::test,
        super::wire::test_unsaved,
        super::users::list,
        super::users::create,
        super::users::edit,
        super::users::delete,
    )
)]
struct Api;

/// The document as served at `/api/openapi.json`.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Api::openapi();
    document.info.version = crate::VERSION.to_owned();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of scope query, edit or admin, or of a session that a login has opened."))
        .build();
    document.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    document
}

pub(crate) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

#[cfg(test)]
mod tests {
    /// `docs/openapi.json` is what clients are made from: a change of the API is seen as a change of that file. With
    /// `UPDATE_GOLDEN=1` in the environment it is written anew.
    #[test]
    fn the_document_in_docs_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let served = super::document().to_pretty_json().expect("plain data") + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &served).expect("written");
        }
        let kept = std::fs::read_to_string(path).expect("docs/openapi.json is there");
        assert!(kept == served, "the API has changed: look at the change and run this test with UPDATE_GOLDEN=1");
    }
}
