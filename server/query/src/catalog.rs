//! Which schemas and tables a query can name.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        SchemaProvider, TableProvider,
    },
    error::Result,
};
use outrigger_storage::Snapshot;

use crate::{live::LiveTable, system::SystemTables, table::StoredTable};

/// The one catalog of a query.
pub(crate) const CATALOG: &str = "public";
/// The schema of the user's tables, in which names without a schema are looked up.
pub(crate) const USER_SCHEMA: &str = "iox";
/// The schema of the server's tables.
pub(crate) const SYSTEM_SCHEMA: &str = "system";

/// What a query on `database` can name; the snapshot is of that database.
pub(crate) fn catalog_list(
    snapshot: Arc<Snapshot>,
    database: &str,
    live: Arc<[Arc<dyn LiveTable>]>,
) -> Result<Arc<dyn CatalogProviderList>> {
    let catalog = MemoryCatalogProvider::new();
    let user = UserTables(snapshot.clone());
    catalog.register_schema(USER_SCHEMA, Arc::new(user))?;
    let system = SystemTables::new(snapshot, database, live);
    catalog.register_schema(SYSTEM_SCHEMA, Arc::new(system))?;
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok(Arc::new(list))
}

/// The user's tables. A provider is made when a query names its table.
#[derive(Debug)]
struct UserTables(Arc<Snapshot>);

#[async_trait]
impl SchemaProvider for UserTables {
    fn table_names(&self) -> Vec<String> {
        // What is deleted can be read as long as it is there, by who knows its name.
        let tables = self.0.tables().iter();
        tables
            .filter(|(_, view)| !view.is_deleted())
            .map(|(name, _)| name.clone())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let view = self.0.tables().get(name).cloned();
        Ok(view.map(|view| Arc::new(StoredTable::new(name, view)) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.tables().contains_key(name)
    }
}
