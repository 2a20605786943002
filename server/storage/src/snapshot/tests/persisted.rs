//! Each committed file is told to who follows files, exactly once, and stays until it was seen;
//! whenever the store dies.

use std::collections::BTreeSet;

use outrigger_catalog::CatalogChange;

use super::*;
use crate::{CommittedFile, Reason};

impl Running {
    /// What a trigger gets that has seen nothing behind `after`; and how far.
    fn files_behind(&self, trigger: u32, after: Sequence) -> (Vec<CommittedFile>, Sequence) {
        let feed = self.storage.feed();
        let delivery = feed.files(TriggerId(trigger), (after, None), usize::MAX);
        (delivery.files, delivery.through)
    }

    async fn follow_files(&self, name: &str) {
        let event = TriggerEvent::AllTablesParquetPersist;
        self.create_trigger_on(name, event, false).await;
    }

    /// Waits until a trigger has so many files to see.
    async fn until_told(&self, trigger: u32, count: usize) -> Vec<CommittedFile> {
        for _ in 0..10_000 {
            let (files, _) = self.files_behind(trigger, Sequence(0));
            if files.len() == count {
                return files;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?}", self.files_behind(trigger, Sequence(0)));
    }

    async fn deal_with(&self, trigger: u32, through: Sequence) {
        let range = EntryRange {
            after: Sequence(0),
            through,
        };
        let commit = Commit {
            writes: Vec::new(),
            done: Some((TriggerId(trigger), range)),
            change: None,
            journal: Box::new(|_| JournalRows::default()),
            trace: Trace::unrecorded(),
        };
        self.storage.commit(commit).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn joined_files_stay_until_they_were_seen_also_over_restarts() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, joining()).await;
    server.write("m f=1 1").await;
    server.follow_files("t").await;
    for time in 2..10 {
        server.write(&format!("m f={time} {time}")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // All of them are told, then what was made of them.
    let last = |files: &[CommittedFile]| files.last().map(|file| file.reason);
    let mut told = server.files_behind(1, Sequence(0)).0;
    while last(&told) != Some(Reason::Compaction) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        told = server.files_behind(1, Sequence(0)).0;
    }
    let joined = told.last().unwrap().clone();
    let names_of = |files: &[CommittedFile]| {
        let names = files.iter().map(|file| file.file.path.clone());
        names.collect::<BTreeSet<_>>()
    };
    let all = names_of(&told);
    assert_eq!(all.len(), told.len(), "each once");
    assert!(joined.replaces.len() >= 2);
    assert!(joined.replaces.iter().all(|name| all.contains(name)));
    drop((told, joined));
    for _ in 0..2 {
        server.storage.state().tidy_announcements();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let lying: BTreeSet<_> = names(&store, "dbs").await.into_iter().collect();
        assert!(all.is_subset(&lying), "{all:?} {lying:?}");
    }
    server.kill().await;
    let server = start(&store, joining()).await;
    let (told, through) = server.files_behind(1, Sequence(0));
    assert!(all.is_subset(&names_of(&told)));
    let lag = server.storage.feed().files_lag(TriggerId(1));
    assert_eq!(lag.entries, told.len() as u64, "one of each commit");
    drop(told);
    let lying: BTreeSet<_> = names(&store, "dbs").await.into_iter().collect();
    assert!(all.is_subset(&lying), "{all:?} {lying:?}");
    server.deal_with(1, through).await;
    assert_eq!(server.storage.feed().files_lag(TriggerId(1)).entries, 0);
    check_nothing_is_left(&store, &server).await;
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn files_that_are_too_old_stay_for_who_lags_and_those_of_deleted_tables_do_not() {
    let store = Arc::new(InMemory::new());
    let server = start(&store, joining()).await;
    server.write("m f=1 1").await;
    server.follow_files("t").await;
    server.write("m f=1 1\ngone f=1 1").await;
    let told = server.until_told(1, 2).await;
    drop(told);
    // All of it is from 1970.
    let retention = Some(Duration::from_hours(1));
    let change = move |catalog: &outrigger_catalog::Catalog| catalog.set_retention("db", retention);
    server.storage.change(change).await.unwrap();
    while !server.storage.state().files().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(names(&store, "dbs").await.len(), 2);
    let now = Some(HardDelete::At(Timestamp(0)));
    let deleted = server.storage.delete_table("db", "gone", now).await;
    deleted.unwrap();
    let told = server.until_told(1, 1).await;
    assert_eq!(told[0].table, "m");
    drop(told);
    while names(&store, "dbs").await.len() > 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Who is disabled, will not see them.
    let change = |_: &outrigger_catalog::Catalog| {
        let (id, disabled) = (TriggerId(1), true);
        Ok(Some(CatalogChange::SetTriggerDisabled { id, disabled }))
    };
    server.storage.change(change).await.unwrap();
    while !names(&store, "dbs").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_lags_too_far_loses_the_oldest_files_and_they_go() {
    let store = Arc::new(InMemory::new());
    let config = Config {
        lag_max: 6,
        ..joining()
    };
    let server = start(&store, config).await;
    server.write("m f=1 1").await;
    server.follow_files("t").await;
    for time in 2..40 {
        server.write(&format!("m f={time} {time}")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (files, through) = server.files_behind(1, Sequence(0));
    assert!(!files.is_empty() && files.len() < 8, "{files:?}");
    drop(files);
    server.deal_with(1, through).await;
    check_nothing_is_left(&store, &server).await;
    server.stop().await;
}

/// What a trigger was told before the store died.
async fn work(server: &Running, told: &mut Vec<String>, follows: &mut bool) {
    server.try_write("m f=0 0").await.unwrap();
    server.follow_files("t").await;
    *follows = true;
    for time in 1..14 {
        server
            .try_write(&format!("m f={time} {time}"))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (files, _) = server.files_behind(1, Sequence(0));
        *told = files.into_iter().map(|file| file.file.path).collect();
    }
}

/// The store dies at every change in turn; the trigger sees nothing until the end.
#[tokio::test(start_paused = true)]
async fn wherever_a_server_dies_each_file_is_told_once_and_can_be_read() {
    let mut changes = 0;
    loop {
        let store = Arc::new(InMemory::new());
        let failing = Arc::new(Failing::after(changes, store.clone()));
        let (mut told, mut follows) = (Vec::new(), false);
        let server = try_start(failing.clone(), joining()).await.unwrap();
        let died = tokio::select! {
            () = work(&server, &mut told, &mut follows) => false,
            () = failing.died() => true,
        };
        server.kill().await;
        let mut server = start(&store, joining()).await;
        if !follows && server.storage.catalog().trigger("db", "t").is_err() {
            server.write("m f=0 0").await;
            server.follow_files("t").await;
        }
        for time in 20..24 {
            server.write(&format!("m f={time} {time}")).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        server.stop().await;
        server = start(&store, joining()).await;
        while !server.storage.state().pending().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (files, _) = server.files_behind(1, Sequence(0));
        let names: Vec<_> = files.iter().map(|file| file.file.path.as_str()).collect();
        let context = format!("after {changes} changes: {told:?} {names:?}");
        // What it was told, it is told again, in the same order, and each file once.
        let before: Vec<_> = told.iter().map(String::as_str).collect();
        assert!(names.starts_with(&before), "{context}");
        let all: BTreeSet<_> = names.iter().copied().collect();
        assert_eq!(all.len(), names.len(), "{context}");
        for file in &files {
            let object = store.get(&Path::from(file.file.path.as_str())).await;
            assert_eq!(object.unwrap().meta.size, file.file.size_bytes, "{context}");
        }
        // Each point was written once, so it is in one file of a snapshot; only the first may
        // have been in one before anybody followed.
        let made = files.iter().filter(|file| file.reason == Reason::Snapshot);
        let made: u64 = made.map(|file| file.file.row_count).sum();
        let there = points(&server.storage, "db", "m").await.num_rows() as u64;
        assert!(
            (there - 1..=there).contains(&made),
            "{made} of {there} {context}"
        );
        drop(files);
        server.stop().await;
        if !died {
            break;
        }
        changes += 1;
    }
    assert!(changes > 40, "{changes} changes");
}
