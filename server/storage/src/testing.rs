//! How tests read what is stored: without a query engine.

use arrow::{array::RecordBatch, compute::concat_batches};
use object_store::{ObjectStoreExt as _, path::Path};

use crate::{
    Storage,
    files::decode_rows,
    merge::conform,
    points::{PointMerger, sort_points},
};

/// The points of a table, from files and memory, sorted.
pub(crate) async fn points(storage: &Storage, database: &str, table: &str) -> RecordBatch {
    let snapshot = storage.snapshot(database).unwrap();
    let view = &snapshot.tables()[table];
    let schema = view.schema().arrow();
    let mut batches = Vec::new();
    for file in view.files().iter() {
        let object = storage.files().get(&Path::from(file.path.as_str())).await;
        let bytes = object.unwrap().bytes().await.unwrap();
        assert_eq!(bytes.len() as u64, file.size_bytes);
        let rows = decode_rows(bytes).unwrap();
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(count as u64, file.row_count);
        let rows = rows.iter().map(|rows| conform(rows, &schema).unwrap());
        batches.extend(rows);
    }
    batches.extend(view.batches().unwrap());
    let all = sort_points(&concat_batches(&schema, &batches).unwrap()).unwrap();
    let mut merger = PointMerger::new(&schema).unwrap();
    let first = merger.push(all).unwrap();
    let parts = [first, merger.finish().unwrap()];
    concat_batches(&schema, parts.iter().flatten()).unwrap()
}
