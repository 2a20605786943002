//! What the metadata of a call says: above all, which database is meant.

use tonic::{
    Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};

/// Every name that some client gives the database.
const DATABASE_KEYS: [&str; 4] = ["database", "bucket", "bucket-name", "iox-namespace-name"];

/// The database that the call is about.
pub(super) fn database(metadata: &MetadataMap) -> Result<String, Status> {
    let mut found: Option<&str> = None;
    for value in DATABASE_KEYS.iter().flat_map(|key| metadata.get_all(*key)) {
        let name = value
            .to_str()
            .map_err(|_not_ascii| Status::invalid_argument("the database name is not ASCII"))?;
        if found.is_some_and(|known| known != name) {
            return Err(Status::invalid_argument(format!(
                "the headers {} name different databases",
                DATABASE_KEYS.join(", ")
            )));
        }
        found = Some(name);
    }
    found
        .map(str::to_owned)
        .ok_or_else(|| Status::invalid_argument("no 'database' header in request"))
}

/// Refuses a statement that is not SQL, instead of reading it as such.
pub(super) fn refuse_influxql(metadata: &MetadataMap) -> Result<(), Status> {
    match metadata.get("x-influxdata-query-language") {
        Some(language) if language.as_bytes().eq_ignore_ascii_case(b"influxql") => {
            Err(Status::invalid_argument("InfluxQL is not supported yet"))
        }
        _ => Ok(()),
    }
}

/// The bearer token that the call carries.
pub(super) fn bearer(metadata: &MetadataMap) -> Option<MetadataValue<Ascii>> {
    let value = metadata.get("authorization")?;
    let is_bearer = value.as_bytes().starts_with(b"Bearer ");
    is_bearer.then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_must_name_one_database() {
        assert_eq!(database(&metadata(&[("database", "a")])).unwrap(), "a");
        assert_eq!(
            database(&metadata(&[("bucket-name", "a"), ("bucket", "a")])).unwrap(),
            "a"
        );
        assert!(database(&metadata(&[("bucket", "a"), ("database", "b")])).is_err());
        let missing = database(&MetadataMap::new()).unwrap_err();
        assert_eq!(missing.message(), "no 'database' header in request");
        assert_eq!(missing.code(), tonic::Code::InvalidArgument);
    }

    fn metadata(pairs: &[(&'static str, &'static str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in pairs {
            metadata.insert(*key, MetadataValue::from_static(value));
        }
        metadata
    }
}
