//! Who has to see which files, and for how long they stay.

use outrigger_catalog::{
    grants::Grants,
    progress::EntryRange,
    trigger::{ErrorBehavior, TriggerDefinition, TriggerEvent},
};

use outrigger_model::{clock::Timestamp, ids::TriggerId};

use super::*;

/// Two databases; the first has the tables `a` and `b`, the second `a`.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (name, entry, tables) in [("db", 1, &["a", "b"][..]), ("other", 2, &["a"])] {
        let create = catalog.create_database(name, None).unwrap();
        catalog.apply(Sequence(entry), create).unwrap();
        for table in tables {
            for change in catalog.create_table_with(name, table, Vec::new()).unwrap() {
                catalog.apply(Sequence(entry), change).unwrap();
            }
        }
    }
    catalog
}

fn follow(catalog: &mut Catalog, name: &str, event: TriggerEvent, entry: u64) -> TriggerId {
    let definition = TriggerDefinition {
        name: name.to_owned(),
        plugin: "p.py".to_owned(),
        pin: None,
        event,
        arguments: None,
        error_behavior: ErrorBehavior::Log,
        disabled: false,
        timeout: None,
        run_async: false,
        grants: Grants::default(),
    };
    let create = catalog.create_trigger("db", definition, false).unwrap();
    catalog.apply(Sequence(entry), create).unwrap();
    catalog.trigger("db", name).unwrap().id
}

fn only(table: &str) -> TriggerEvent {
    let table_name = table.to_owned();
    TriggerEvent::SingleTableParquetPersist { table_name }
}

fn file(table: u32, number: u64) -> (TableId, Arc<ParquetFile>) {
    let file = ParquetFile {
        path: format!("{table}/{number}"),
        size_bytes: 10,
        row_count: 3,
        min_time: 1,
        max_time: 2,
        sequence: number,
    };
    (TableId(table), Arc::new(file))
}

fn announce(
    catalog: &Catalog,
    began: u64,
    files: &[(TableId, Arc<ParquetFile>)],
) -> Vec<Arc<Announcement>> {
    let commit = Commit {
        snapshot: Sequence(began),
        edition: 0,
        began: Sequence(began),
        reason: Reason::Snapshot,
        catalog,
    };
    commit.announce(files.iter().cloned(), &[])
}

/// All announcements, told in one log entry each.
fn logged(announced: &[Arc<Announcement>], first: u64) -> Announcements {
    let mut announcements = Announcements::default();
    announcements.pend(announced.iter().cloned());
    for (announcement, entry) in announced.iter().zip(first..) {
        let announcement = Announcement::clone(announcement);
        announcements.log(Sequence(entry), Timestamp(5), announcement);
    }
    assert_eq!(announcements.pending(), []);
    announcements
}

fn paths(delivery: &FileDelivery) -> Vec<&str> {
    let files = delivery.files.iter();
    files.map(|file| file.file.path.as_str()).collect()
}

const TO_THE_END: (Sequence, Sequence) = (Sequence(0), Sequence(100));

#[test]
fn nothing_is_told_that_nobody_follows() {
    let mut catalog = catalog();
    let files = [file(1, 7), file(2, 7), file(3, 7)];
    assert_eq!(announce(&catalog, 10, &files), []);
    follow(&mut catalog, "rows", TriggerEvent::AllTablesWalWrite, 3);
    assert_eq!(announce(&catalog, 10, &files), []);
    follow(&mut catalog, "b", only("b"), 4);
    let told = announce(&catalog, 10, &files);
    assert_eq!((told.len(), &told[0].files[0].file), (1, &*files[1].1));
    let all = follow(
        &mut catalog,
        "all",
        TriggerEvent::AllTablesParquetPersist,
        5,
    );
    let told = announce(&catalog, 10, &files);
    // The third is another database's.
    assert_eq!(told[0].files.len(), 2);
    let announcements = logged(&told, 11);
    let delivery = announcements.read((&catalog, all), TO_THE_END, 100);
    assert_eq!(paths(&delivery), ["1/7", "2/7"]);
    assert_eq!(delivery.entries, Some((Sequence(11), Sequence(11))));
    assert_eq!(delivery.through, Sequence(100));
}

#[test]
fn a_trigger_sees_the_files_of_its_table_and_only_commits_that_began_after_it() {
    let mut catalog = catalog();
    let all = follow(
        &mut catalog,
        "all",
        TriggerEvent::AllTablesParquetPersist,
        5,
    );
    let told = announce(&catalog, 6, &[file(1, 6), file(2, 6)]);
    let late = follow(&mut catalog, "late", only("a"), 7);
    let told = [told, announce(&catalog, 8, &[file(1, 8), file(2, 8)])].concat();
    let announcements = logged(&told, 9);
    for (trigger, expected) in [(all, &["1/6", "2/6", "1/8", "2/8"][..]), (late, &["1/8"])] {
        let delivery = announcements.read((&catalog, trigger), TO_THE_END, 100);
        assert_eq!(paths(&delivery), expected);
        let lag = announcements.lag(&catalog, trigger, Sequence(0));
        assert_eq!(lag.rows, 3 * expected.len() as u64);
        assert_eq!(lag.since, Some(Timestamp(5)));
    }
}

#[test]
fn an_event_has_no_more_files_than_it_may_unless_one_entry_has() {
    let mut catalog = catalog();
    let all = follow(
        &mut catalog,
        "all",
        TriggerEvent::AllTablesParquetPersist,
        5,
    );
    let commits = (6..9).flat_map(|n| announce(&catalog, n, &[file(1, n), file(2, n)]));
    let announcements = logged(&commits.collect::<Vec<_>>(), 10);
    for (files_max, through, count) in [(1, 10, 2), (4, 11, 4), (5, 11, 4), (6, 100, 6)] {
        let delivery = announcements.read((&catalog, all), TO_THE_END, files_max);
        assert_eq!(
            (delivery.through, delivery.files.len()),
            (Sequence(through), count),
            "{files_max}"
        );
    }
    let behind = (Sequence(10), Sequence(11));
    let delivery = announcements.read((&catalog, all), behind, 100);
    assert_eq!(paths(&delivery), ["1/7", "2/7"]);
}

#[test]
fn many_files_of_a_commit_stand_in_several_entries() {
    let mut catalog = catalog();
    follow(&mut catalog, "all", only("a"), 5);
    let files: Vec<_> = (0..2500).map(|n| file(1, n)).collect();
    let told = announce(&catalog, 6, &files);
    let counts: Vec<_> = told.iter().map(|told| told.files.len()).collect();
    assert_eq!(counts, [1000, 1000, 500]);
    assert_eq!(logged(&told, 7).logged.len(), 3);
}

#[test]
fn a_file_stays_until_everybody_has_seen_it() {
    let mut catalog = catalog();
    let [one, two] = ["one", "two"].map(|name| {
        let event = TriggerEvent::AllTablesParquetPersist;
        follow(&mut catalog, name, event, 5)
    });
    let told = announce(&catalog, 6, &[file(1, 6)]);
    let mut pending = Announcements::default();
    pending.pend(told.iter().cloned());
    assert_eq!(pending.kept(&catalog, Sequence(0)).len(), 1);
    let mut announcements = logged(&told, 7);
    drop((pending, told));
    let range = EntryRange {
        after: Sequence(0),
        through: Sequence(7),
    };
    for (seen, kept) in [(one, 1), (two, 0)] {
        assert_eq!(announcements.kept(&catalog, Sequence(0)).len(), 1);
        // Entries that are gone, nobody will see.
        assert!(announcements.kept(&catalog, Sequence(7)).is_empty());
        catalog.complete(seen, range);
        assert_eq!(announcements.kept(&catalog, Sequence(0)).len(), kept);
        announcements.tidy(&catalog, Sequence(0));
        assert_eq!(announcements.logged.len(), kept);
    }
}

#[test]
fn what_is_handed_out_stays_whatever_happens_to_the_log() {
    let mut catalog = catalog();
    let all = follow(
        &mut catalog,
        "all",
        TriggerEvent::AllTablesParquetPersist,
        5,
    );
    let mut announcements = logged(&announce(&catalog, 6, &[file(1, 6)]), 7);
    let delivery = announcements.read((&catalog, all), TO_THE_END, 100);
    announcements.tidy(&catalog, Sequence(50));
    assert_eq!(announcements.kept(&catalog, Sequence(50)).len(), 1);
    assert_eq!(announcements.lag(&catalog, all, Sequence(50)).entries, 0);
    drop(delivery);
    assert!(announcements.kept(&catalog, Sequence(50)).is_empty());
    announcements.tidy(&catalog, Sequence(50));
    assert_eq!(announcements.held_bytes(), 0);
}
