//! How databases and tables are deleted: first softly, under another name, so that the old
//! name is free; then for good, when their time has come; then they are forgotten.

use std::time::Duration;

use outrigger_model::{
    clock::Timestamp,
    ids::DatabaseId,
    names::{DATABASE_NAME_BYTES_MAX, INTERNAL_DATABASE},
};
use serde::{Deserialize, Serialize};

use crate::{Catalog, CatalogChange, CatalogError, Database};

/// That something is deleted, and when it goes for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Deletion {
    /// When its data goes, in nanoseconds since the epoch; never if `None`.
    pub hard: Option<i64>,
    /// Its data is gone; only the record of it is left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purged: bool,
}

/// What a user says about the time at which data goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HardDelete {
    /// It stays, under its new name.
    Never,
    /// At that time; at once if that has passed.
    At(Timestamp),
}

impl HardDelete {
    fn time(self) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::At(time) => Some(time.0),
        }
    }
}

/// A deletion that is about to be made.
#[derive(Clone, Debug)]
pub struct Deleting {
    /// What the new name ends with: the time of the deletion.
    pub stamp: String,
    /// When the data goes, if the user has said so.
    pub asked: Option<HardDelete>,
    /// When it goes else.
    pub default: HardDelete,
}

impl Deleting {
    fn hard(&self) -> Option<i64> {
        self.asked.unwrap_or(self.default).time()
    }
}

impl Catalog {
    /// The change that deletes a database softly; or, if it is deleted already, changes the
    /// time at which its data goes.
    pub fn delete_database(
        &self,
        name: &str,
        deleting: &Deleting,
    ) -> Result<CatalogChange, CatalogError> {
        if name == INTERNAL_DATABASE {
            return Err(CatalogError::Internal);
        }
        let database = self.database(name)?;
        let hard = deleting.hard();
        let new_name = match database.deletion {
            Some(deletion) if deletion.purged || deleting.asked.is_none() => {
                return Err(CatalogError::Deleted(name.to_owned()));
            }
            Some(_) => database.name.clone(),
            None => {
                let taken = |name: &str| self.database(name).is_ok();
                vacant(name, &deleting.stamp, DATABASE_NAME_BYTES_MAX, taken).parse()?
            }
        };
        Ok(CatalogChange::SoftDeleteDatabase {
            id: database.id,
            name: new_name,
            hard,
        })
    }

    /// The change that deletes a table likewise.
    pub fn delete_table(
        &self,
        database: &str,
        name: &str,
        deleting: &Deleting,
    ) -> Result<CatalogChange, CatalogError> {
        if database == INTERNAL_DATABASE {
            return Err(CatalogError::Internal);
        }
        let database = self.live_database(database)?;
        let table = database
            .tables
            .get(name)
            .ok_or_else(|| CatalogError::NoTable {
                database: database.name.to_string(),
                table: name.to_owned(),
            })?;
        let new_name = match table.deletion {
            Some(deletion) if deletion.purged || deleting.asked.is_none() => {
                return Err(CatalogError::Deleted(name.to_owned()));
            }
            Some(_) => name.to_owned(),
            None => {
                let taken = |name: &str| database.tables.contains_key(name);
                vacant(name, &deleting.stamp, usize::MAX, taken)
            }
        };
        Ok(CatalogChange::SoftDeleteTable {
            database: database.id,
            id: table.id,
            name: new_name,
            hard: deleting.hard(),
        })
    }

    /// The change that is due at this time, if any: the data of something deleted goes, or,
    /// so long after it, the record of it.
    pub fn due(&self, now: Timestamp, grace: Duration) -> Option<CatalogChange> {
        let grace = i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX);
        let stage = |deletion: Option<Deletion>| {
            let Deletion { hard, purged } = deletion?;
            let grace = if purged { grace } else { 0 };
            let due = hard?.saturating_add(grace);
            (due <= now.0).then_some(purged)
        };
        self.databases().find_map(|database| {
            let id = database.id;
            match stage(database.deletion) {
                Some(false) => return Some(CatalogChange::PurgeDatabase { id }),
                Some(true) => return Some(CatalogChange::DeleteDatabase { id }),
                None => {}
            }
            let tables = database.tables.values();
            let mut due = tables.filter_map(|table| Some((table.id, stage(table.deletion)?)));
            let (table, purged) = due.next()?;
            Some(if purged {
                CatalogChange::DeleteTable {
                    database: id,
                    id: table,
                }
            } else {
                CatalogChange::PurgeTable {
                    database: id,
                    id: table,
                }
            })
        })
    }

    /// The database of that id, unless it is deleted.
    pub fn live_database_by_id(&self, id: DatabaseId) -> Result<&Database, CatalogError> {
        let database = self.database_by_id(id).ok_or(CatalogError::UnknownId {
            what: "database",
            id: id.0,
        })?;
        database.live()
    }

    /// The database of that name, unless it is deleted.
    pub fn live_database(&self, name: &str) -> Result<&Database, CatalogError> {
        self.database(name)?.live()
    }
}

impl Database {
    fn live(&self) -> Result<&Self, CatalogError> {
        match self.deletion {
            None => Ok(self),
            Some(_) => Err(CatalogError::Deleted(self.name.to_string())),
        }
    }
}

/// A name that nothing has: the old one and the stamp, and a number if need be.
fn vacant(name: &str, stamp: &str, bytes_max: usize, taken: impl Fn(&str) -> bool) -> String {
    // Room for the number too.
    let room = bytes_max.saturating_sub(stamp.len() + 8);
    let kept = name.floor_char_boundary(room.min(name.len()));
    let base = format!("{}-{stamp}", &name[..kept]);
    let numbered = (2..).map(|number: u32| format!("{base}-{number}"));
    let mut names = std::iter::once(base.clone()).chain(numbered);
    names
        .find(|name| !taken(name))
        .expect("the numbers don't end before the databases do")
}

#[cfg(test)]
mod tests {
    use outrigger_model::ids::Sequence;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn deleting(asked: Option<HardDelete>) -> Deleting {
        Deleting {
            stamp: "20261123T021500".to_owned(),
            asked,
            default: HardDelete::At(Timestamp(500)),
        }
    }

    fn apply(catalog: &mut Catalog, change: CatalogChange) {
        catalog.apply(Sequence(9), change).unwrap();
    }

    /// A database `db` with the table `t`.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for change in catalog.create_table_with("db", "t", Vec::new()).unwrap() {
            apply(&mut catalog, change);
        }
        catalog
    }

    fn names(catalog: &Catalog) -> Vec<&str> {
        let databases = catalog.databases();
        databases.map(|database| database.name.as_str()).collect()
    }

    #[test]
    fn a_deleted_database_leaves_its_name_and_goes_in_two_steps() {
        let mut catalog = catalog();
        let delete = catalog.delete_database("db", &deleting(None)).unwrap();
        apply(&mut catalog, delete);
        assert_eq!(names(&catalog), ["db-20261123T021500"]);
        assert!(matches!(
            catalog.live_database("db-20261123T021500"),
            Err(CatalogError::Deleted(_))
        ));
        let create = catalog.create_database("db", None).unwrap();
        apply(&mut catalog, create);
        let again = catalog.delete_database("db", &deleting(None)).unwrap();
        apply(&mut catalog, again);
        assert_eq!(
            names(&catalog),
            ["db-20261123T021500", "db-20261123T021500-2"]
        );

        // The one is kept, the other goes.
        let never = deleting(Some(HardDelete::Never));
        let keep = catalog.delete_database("db-20261123T021500-2", &never);
        apply(&mut catalog, keep.unwrap());
        assert_eq!(catalog.due(Timestamp(499), DAY), None);
        let id = DatabaseId(1);
        let purge = CatalogChange::PurgeDatabase { id };
        assert_eq!(catalog.due(Timestamp(500), DAY), Some(purge.clone()));
        apply(&mut catalog, purge);
        assert!(catalog.database_by_id(id).unwrap().tables.is_empty());
        assert_eq!(catalog.due(Timestamp(501), DAY), None);
        let forget = CatalogChange::DeleteDatabase { id };
        let later = Timestamp(i64::MAX);
        assert_eq!(catalog.due(later, DAY), Some(forget.clone()));
        let again = catalog.delete_database("db-20261123T021500", &never);
        assert!(matches!(again, Err(CatalogError::Deleted(_))), "{again:?}");
        apply(&mut catalog, forget);
        assert_eq!(catalog.due(later, DAY), None);
        assert_eq!(names(&catalog), ["db-20261123T021500-2"]);
    }

    #[test]
    fn a_deleted_table_leaves_its_name_and_outlives_a_snapshot() {
        let mut catalog = catalog();
        let now = deleting(Some(HardDelete::At(Timestamp(7))));
        let delete = catalog.delete_table("db", "t", &now).unwrap();
        apply(&mut catalog, delete);
        for change in catalog.create_table_with("db", "t", Vec::new()).unwrap() {
            apply(&mut catalog, change);
        }
        let mut catalog = Catalog::from_image(catalog.image());
        let database = catalog.database("db").unwrap();
        let tables: Vec<_> = database.tables.values().collect();
        let deleted: Vec<_> = tables
            .iter()
            .map(|table| table.deletion.is_some())
            .collect();
        assert_eq!(deleted, [false, true], "{tables:?}");
        let purge = catalog.due(Timestamp(7), DAY).unwrap();
        assert!(
            matches!(purge, CatalogChange::PurgeTable { .. }),
            "{purge:?}"
        );
        apply(&mut catalog, purge);
        let forget = catalog.due(Timestamp(i64::MAX), DAY).unwrap();
        apply(&mut catalog, forget);
        assert_eq!(catalog.database("db").unwrap().tables.len(), 1);
        assert_eq!(catalog.due(Timestamp(i64::MAX), DAY), None);
    }

    #[test]
    fn the_longest_names_have_room_for_the_stamp() {
        let name = "x".repeat(DATABASE_NAME_BYTES_MAX);
        let mut catalog = Catalog::default();
        for _ in 0..12 {
            let create = catalog.create_database(&name, None).unwrap();
            apply(&mut catalog, create);
            let delete = catalog.delete_database(&name, &deleting(None)).unwrap();
            apply(&mut catalog, delete);
        }
        assert_eq!(catalog.databases().count(), 12);
    }
}
