//! The stream: words of a follower as they come, and a follower that outlives the stream that it broke off with.
//!
//! Every error of the server ends a stream. What was known then is still known, and is where the next stream goes on: it
//! asks for what changed, not for everything. It is known by the point that the last words were told with, so that nobody
//! goes on from words that were never taken over.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
    vec,
};

use futures_core::Stream;
use futures_util::stream;
use weft_core::registry::{Event, RegistryError, Resume, Scope};

use super::{
    absence::Absence, access::Access, client::Client, configured::Understood, convert::Surroundings,
    follower::Follower, owed::Doubt, settings::ConsulSettings,
};

/// What a stream is made of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) settings: Arc<ConsulSettings>,
    pub(super) around: Arc<Surroundings>,
    pub(super) access: Arc<Access>,
    pub(super) understood: Understood,
    pub(super) left: Left,
    pub(super) absence: Absence,
    pub(super) doubt: Doubt,
}

/// What a stream left that broke off; nothing otherwise. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Left(Arc<Mutex<Option<Parting>>>);

/// A follower whose stream broke off.
struct Parting {
    /// With what its last words were told.
    point: Resume,
    follower: Box<Follower>,
}

impl Left {
    fn keep(&self, parting: Parting) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(parting);
    }

    /// The follower of this point. Any other is of no use any more.
    fn take(&self, point: Option<&Resume>) -> Option<Box<Follower>> {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        left.filter(|left| Some(&left.point) == point).map(|left| left.follower)
    }
}

/// Follows the catalog until its consumer has enough, from a point where its follower is still known.
pub(super) fn follow(
    source: Source,
    scope: Scope,
    point: Option<Resume>,
) -> impl Stream<Item = Result<Event, RegistryError>> {
    let absence = source.absence.clone();
    let begin = State::Begin { source, scope, point };
    stream::unfold((begin, absence), |(mut state, absence)| async move {
        let item = state.next(&absence).await?;
        Some((item, (state, absence)))
    })
}

enum State {
    Begin { source: Source, scope: Scope, point: Option<Resume> },
    Following(Following),
    Over,
}

struct Following {
    follower: Box<Follower>,
    /// Words that are not given away yet.
    words: vec::IntoIter<Event>,
    left: Left,
    /// Tells this stream's points from all others.
    number: u64,
    /// How many words were told.
    told: u64,
    /// The point of the last words; none before any.
    point: Option<Resume>,
}

impl State {
    async fn next(&mut self, absence: &Absence) -> Option<Result<Event, RegistryError>> {
        loop {
            let error = match self {
                Self::Over => return None,
                Self::Begin { source, scope, point } => match Following::begin(source, scope, point.take()) {
                    Ok(following) => {
                        *self = Self::Following(following);
                        continue;
                    }
                    Err(error) => error,
                },
                Self::Following(following) => match following.next().await {
                    Ok(event) => return Some(Ok(event)),
                    Err(error) => error,
                },
            };
            // The driver watches again.
            if let Self::Following(following) = mem::replace(self, Self::Over) {
                following.leave();
            }
            return Some(Err(absence.explain(error, Instant::now())));
        }
    }
}

impl Following {
    fn begin(source: &Source, scope: &Scope, point: Option<Resume>) -> Result<Self, RegistryError> {
        let Source { settings, around, access, understood, left, doubt, .. } = source;
        // Certificates are read before anything: without them, what is left stays where it is.
        let client = Client::new(settings, access.clone())?;
        let (follower, point) = match left.take(point.as_ref()) {
            Some(mut follower) => {
                follower.ask_by(client);
                (follower, point)
            }
            None => {
                let held = point.as_ref().and_then(reached);
                let past = (doubt.clone(), held);
                (Box::new(Follower::new(client, settings, around, understood, scope, past)), None)
            }
        };
        let left = left.clone();
        Ok(Self { follower, words: Vec::new().into_iter(), left, number: fastrand::u64(..), told: 0, point })
    }

    async fn next(&mut self) -> Result<Event, RegistryError> {
        loop {
            if let Some(event) = self.words.next() {
                return Ok(event);
            }
            let mut words = self.follower.next().await?;
            self.told += 1;
            self.point = Some(point(self.number, self.told, self.follower.told_to()));
            for word in &mut words {
                if let Event::Commit { resume, .. } = word {
                    resume.clone_from(&self.point);
                }
            }
            self.words = words.into_iter();
        }
    }

    /// Leaves the follower to the next stream, where it told anything.
    fn leave(mut self) {
        if let Some(point) = self.point {
            self.follower.rest();
            self.left.keep(Parting { point, follower: self.follower });
        }
    }
}

/// The point of the words of this number of a stream; of a catalog that had come so far, for who starts from his disk.
fn point(stream: u64, told: u64, reached: Option<u64>) -> Resume {
    Resume(format!("{stream:016x}-{told}-{}", reached.unwrap_or_default()).into())
}

/// How far the catalog had come at a point.
fn reached(point: &Resume) -> Option<u64> {
    std::str::from_utf8(&point.0).ok()?.splitn(3, '-').nth(2)?.parse().ok().filter(|reached| *reached > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_says_how_far_the_catalog_had_come() {
        assert_eq!(reached(&point(u64::MAX, 7, Some(1234))), Some(1234));
        assert_eq!(reached(&point(1, 7, None)), None);
        for other in ["", "7", "00000000000000ff-7", "a-b-c", "1-2-3-4", "\u{ff}-1-5x"] {
            assert_eq!(reached(&Resume(other.to_owned().into())), None, "{other}");
        }
    }
}
