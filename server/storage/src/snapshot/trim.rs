//! Which log entries may go once a snapshot covers them.

use outrigger_catalog::{Catalog, trigger::Trigger};
use outrigger_model::ids::Sequence;

use super::Config;

/// What may be removed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Trim {
    /// Every entry up to this one.
    pub(super) through: Sequence,
    /// Triggers that lose entries by it.
    pub(super) skipped: Vec<Skipped>,
}

/// A trigger that lags so far behind that it loses entries.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Skipped {
    pub(super) database: String,
    pub(super) trigger: String,
    pub(super) entries: u64,
}

/// What may go of the entries behind `removed` that a snapshot up to `covered` covers: all
/// but the last ones, and all that no trigger has still to see, if it does not lag too far.
pub(super) fn trim(
    catalog: &Catalog,
    removed: Sequence,
    covered: Sequence,
    config: &Config,
) -> Trim {
    let unneeded = Sequence(covered.0.saturating_sub(config.entries_kept));
    let bound = Sequence(unneeded.0.min(covered.0.saturating_sub(config.lag_max)));
    let slowest = followers(catalog)
        .map(|(_, trigger)| trigger.progress.cursor())
        .min();
    let through = slowest
        .map_or(unneeded, |cursor| cursor.min(unneeded))
        .max(bound)
        .max(removed);
    let skipped = followers(catalog).filter_map(|(database, trigger)| {
        let missing = (removed.0 + 1..=through.0)
            .filter(|entry| !trigger.progress.includes(Sequence(*entry)))
            .count() as u64;
        (missing > 0).then(|| Skipped {
            database: database.to_owned(),
            trigger: trigger.definition.name.clone(),
            entries: missing,
        })
    });
    Trim {
        through,
        skipped: skipped.collect(),
    }
}

/// The triggers that follow the log. A disabled one goes on where it is enabled.
pub(crate) fn followers(catalog: &Catalog) -> impl Iterator<Item = (&str, &Trigger)> {
    let all = catalog.triggers();
    all.filter(|(_, trigger)| trigger.definition.follows_the_log() && !trigger.definition.disabled)
        .map(|(database, trigger)| (database.name.as_str(), trigger.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU64, time::Duration};

    use outrigger_catalog::{
        grants::Grants,
        progress::EntryRange,
        trigger::{ErrorBehavior, TriggerDefinition, TriggerEvent},
    };
    use outrigger_model::{bytes::ByteSize, ids::TriggerId};

    use super::*;

    fn config(entries_kept: u64, lag_max: u64) -> Config {
        Config {
            window: Duration::from_mins(10),
            entries: NonZeroU64::MIN,
            memory: ByteSize::mib(1),
            entries_kept,
            lag_max,
            ..Config::default()
        }
    }

    fn with_trigger(event: TriggerEvent, disabled: bool, cursor: u64) -> Catalog {
        let mut catalog = Catalog::default();
        let create = catalog.create_database("db", None).unwrap();
        catalog.apply(Sequence(1), create).unwrap();
        let definition = TriggerDefinition {
            name: "t".to_owned(),
            plugin: "p.py".to_owned(),
            pin: None,
            event,
            arguments: None,
            error_behavior: ErrorBehavior::Log,
            disabled,
            timeout: None,
            run_async: false,
            grants: Grants::default(),
        };
        let create = catalog.create_trigger("db", definition, true).unwrap();
        catalog.apply(Sequence(2), create).unwrap();
        let (after, through) = (Sequence(0), Sequence(cursor));
        catalog.complete(TriggerId(1), EntryRange { after, through });
        catalog
    }

    #[track_caller]
    fn check(catalog: &Catalog, (kept, lag): (u64, u64), through: u64, skipped: u64) {
        let trim = trim(catalog, Sequence(5), Sequence(100), &config(kept, lag));
        let entries: u64 = trim.skipped.iter().map(|skipped| skipped.entries).sum();
        assert_eq!((trim.through.0, entries), (through, skipped), "{trim:?}");
    }

    #[test]
    fn the_last_entries_are_kept() {
        check(&Catalog::default(), (10, 1000), 90, 0);
        check(&Catalog::default(), (0, 1000), 100, 0);
        check(&Catalog::default(), (98, 1000), 5, 0);
        check(&Catalog::default(), (1000, 1000), 5, 0);
    }

    #[test]
    fn what_a_trigger_has_still_to_see_is_kept_unless_it_lags_too_far() {
        let all = || TriggerEvent::AllTablesWalWrite;
        check(&with_trigger(all(), false, 40), (10, 1000), 40, 0);
        check(&with_trigger(all(), false, 40), (10, 70), 40, 0);
        check(&with_trigger(all(), false, 40), (10, 50), 50, 10);
        check(&with_trigger(all(), false, 3), (10, 50), 50, 45);
        check(&with_trigger(all(), false, 95), (10, 50), 90, 0);
        // The entries that are kept in any case are kept for it too.
        check(&with_trigger(all(), false, 40), (60, 10), 40, 0);
    }

    #[test]
    fn others_need_nothing() {
        let duration = Duration::from_secs(1);
        check(
            &with_trigger(TriggerEvent::Every { duration }, false, 3),
            (10, 1000),
            90,
            0,
        );
        check(
            &with_trigger(TriggerEvent::AllTablesWalWrite, true, 3),
            (10, 1000),
            90,
            0,
        );
    }

    #[test]
    fn what_was_dealt_with_beyond_the_cursor_is_not_lost() {
        let mut catalog = with_trigger(TriggerEvent::AllTablesWalWrite, false, 40);
        let (after, through) = (Sequence(42), Sequence(48));
        catalog.complete(TriggerId(1), EntryRange { after, through });
        check(&catalog, (10, 50), 50, 4);
    }
}
