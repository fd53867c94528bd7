//! How a record is changed: read, decided, swapped, and from the start again where somebody else was faster or the
//! store's answer was lost. A decision must therefore come out the same when it finds its own work done.

use std::time::{Duration, Instant};

use serde::{Serialize, de::DeserializeOwned};

use crate::hub::store::{Entry, Expected, Put, Store, StoreError};

/// How long a store may be away while a change is tried again: that long three servers take to choose a new leader.
const PATIENCE: Duration = Duration::from_secs(8);
/// The pauses between tries.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of who was overtaken.
const OVERTAKEN: Duration = Duration::from_millis(20);

/// What is to become of a record, and what the change answers then.
pub(super) enum Step<R, T> {
    /// It stays as it is.
    Keep(T),
    /// It is written.
    Put(R, T),
    /// It is removed.
    Remove(T),
}

/// Changes one record as `decide` says.
pub(super) async fn change<R, T, E>(
    store: &dyn Store,
    key: &str,
    mut decide: impl FnMut(Option<&R>) -> Result<Step<R, T>, E>,
) -> Result<T, E>
where
    R: Serialize + DeserializeOwned,
    E: From<StoreError>,
{
    let decide = |known: Option<&Entry>| {
        let known: Option<R> = known.map(parse).transpose()?;
        Ok(match decide(known.as_ref())? {
            Step::Keep(value) => Step::Keep(value),
            Step::Put(record, value) => Step::Put(encode(&record)?, value),
            Step::Remove(value) => Step::Remove(value),
        })
    };
    change_entry(store, key, decide).await
}

/// Changes what a key holds as `decide` says, whether or not it can be read.
pub(super) async fn change_entry<T, E: From<StoreError>>(
    store: &dyn Store,
    key: &str,
    mut decide: impl FnMut(Option<&Entry>) -> Result<Step<Vec<u8>, T>, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        let outcome = once(store, key, &mut decide).await;
        match outcome {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => overtaken().await,
            Ok(Err(decided)) => return Err(decided),
            Err(StoreError::Unreachable(_)) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
            }
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// Somebody else was faster. Of many who want the same key one is done with each round, and the others need not ask as fast
/// as the store answers.
pub(super) async fn overtaken() {
    tokio::time::sleep(OVERTAKEN.mul_f64(fastrand::f64())).await;
}

/// One try: the answer, or none when the record was another one meanwhile.
async fn once<T, E>(
    store: &dyn Store,
    key: &str,
    decide: &mut impl FnMut(Option<&Entry>) -> Result<Step<Vec<u8>, T>, E>,
) -> Result<Result<Option<T>, E>, StoreError> {
    let known = store.get(key).await?;
    let decided = decide(known.as_ref());
    let expected = known.map_or(Expected::Absent, |entry| Expected::Version(entry.version));
    let (put, value) = match decided {
        Ok(Step::Keep(value)) => return Ok(Ok(Some(value))),
        Ok(Step::Put(record, value)) => (Some(Put::durable(record)), value),
        Ok(Step::Remove(value)) => (None, value),
        Err(fault) => return Ok(Err(fault)),
    };
    Ok(Ok(store.swap(key, expected, put).await?.then_some(value)))
}

/// The record of an entry.
pub(super) fn parse<R: DeserializeOwned>(entry: &Entry) -> Result<R, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|fault| StoreError::Failed(format!("the record {} cannot be read: {fault}", entry.key)))
}

/// A record as it is kept.
pub(super) fn encode(record: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|fault| StoreError::Failed(fault.to_string()))
}
