//! Parameters of an address, the part after `?`: a fault is told in our own form and named by its parameter.

use crate::app::App;
use crate::reply::Refusal;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::sync::Arc;

/// Parameters that are read.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Parameters<T>, Refusal> {
        Query::<T>::try_from_uri(&parts.uri).map(|Query(read)| Parameters(read)).map_err(|error| {
            let told = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let (name, detail) = named(&told);
            Refusal::invalid(name, detail)
        })
    }
}

/// Tells the parameter's name from what is wrong with it. Our names have no blanks.
fn named(told: &str) -> (&str, &str) {
    told.split_once(": ").filter(|(name, _)| !name.contains(' ')).unwrap_or(("", told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its faults are looked at")]
    struct Asked {
        from: Option<u64>,
        name: Option<String>,
    }

    #[test]
    fn a_fault_is_named_by_its_parameter() {
        for (query, name) in [("from=x", "from"), ("name=a&from=-1", "from"), ("from=", "from"), ("from=1&from=2", "")] {
            let uri = format!("/?{query}").parse().expect("an address");
            let error = Query::<Asked>::try_from_uri(&uri).expect_err("faulty");
            let told = error.source().expect("a cause").to_string();
            let (found, detail) = named(&told);
            assert_eq!(found, name, "{query}: {told}");
            assert!(!detail.is_empty());
        }
    }
}
