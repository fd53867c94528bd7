//! What was answered to each question, and what of it stands. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use weft_core::merge::PLAINTEXT_FROM_STATE;

use super::settings::{Followed, Source};

/// How long what stands is as good as new although nobody confirms it: as long as what is read from disk.
const OLD_AFTER: Duration = PLAINTEXT_FROM_STATE;

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Addresses of version 4.
    A,
    /// Addresses of version 6.
    Aaaa,
    /// Hosts and ports that offer a service.
    Srv,
}

/// A question: a name in lower case without a dot at its end.
pub(super) type Question = (String, Kind);

/// A host and port that offer a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Offer {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// As a question has it; empty when the service is not to be had.
    pub(super) target: String,
}

/// An answer that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// In the order of the answer.
    Addresses(Vec<IpAddr>),
    /// In the order of the answer.
    Offers(Vec<Offer>),
    /// The name is there, and has none of these.
    Nothing,
    /// There is no such name.
    NoName,
}

impl Answer {
    /// Whatever the order: servers turn it from answer to answer.
    fn says_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Addresses(one), Self::Addresses(other)) => {
                one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
            }
            (Self::Offers(one), Self::Offers(other)) => {
                one.iter().collect::<BTreeSet<_>>() == other.iter().collect()
            }
            (one, other) => one == other,
        }
    }
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This.
    Answer(Answer),
    /// That there is no such thing, without the record of who may say so.
    Unproven(Answer),
    /// Nothing that answers the question.
    Failed(Failure),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// Whether nobody said anything at all.
    pub(super) is_silence: bool,
    /// Whether the server would not say.
    pub(super) is_refusal: bool,
}

/// What is known of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) stands: Option<Answer>,
    /// Why the last try brought nothing; none when it did.
    pub(super) failure: Option<Failure>,
    /// When it was answered last.
    pub(super) answered_at: Option<Instant>,
    /// Whether the answer was ever another one than the first.
    pub(super) has_changed: bool,
}

impl Known {
    /// Takes in what was said. What fails leaves what stands; so does what is denied without proof, where there was
    /// something.
    pub(super) fn take(&mut self, said: Said, now: Instant) {
        match said {
            Said::Answer(answer) => self.answered(answer, now),
            Said::Failed(failure) => self.failure = Some(failure),
            Said::Unproven(answer) => match &self.stands {
                Some(Answer::Addresses(_) | Answer::Offers(_)) => {
                    let why = "the server denies it, and does not show that the zone does (no SOA)".into();
                    self.failure = Some(Failure { why, is_silence: false, is_refusal: false });
                }
                _ => self.answered(answer, now),
            },
        }
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        self.has_changed |= self.stands.as_ref().is_some_and(|before| !before.says_the_same_as(&answer));
        (self.stands, self.failure, self.answered_at) = (Some(answer), None, Some(now));
    }

    fn has_addresses(&self) -> bool {
        matches!(&self.stands, Some(Answer::Addresses(addresses)) if !addresses.is_empty())
    }

    /// Whether what stands is held to for so long without an answer that others are asked first.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        let age = self.answered_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.failure.is_some() && age > OLD_AFTER
    }
}

/// What is known of all questions.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) known: BTreeMap<Question, Known>,
}

impl Answers {
    /// The questions that must be answered for what is followed: more once it is known which hosts offer a service.
    pub(super) fn wanted(&self, followed: &[Followed]) -> BTreeSet<Question> {
        let mut wanted = BTreeSet::new();
        let addresses = |name: &str| [(name.to_owned(), Kind::A), (name.to_owned(), Kind::Aaaa)];
        for followed in followed {
            match &followed.source {
                Source::Host(name, _) => wanted.extend(addresses(name)),
                Source::Service(name) => {
                    let question = (name.clone(), Kind::Srv);
                    for offer in self.offers(name).unwrap_or_default() {
                        if !offer.target.is_empty() {
                            wanted.extend(addresses(&offer.target));
                        }
                    }
                    wanted.insert(question);
                }
            }
        }
        wanted
    }

    /// Who offers a service, as far as an answer stands.
    pub(super) fn offers(&self, name: &str) -> Option<&[Offer]> {
        match self.known.get(&(name.to_owned(), Kind::Srv))?.stands.as_ref()? {
            Answer::Offers(offers) => Some(offers),
            _ => Some(&[]),
        }
    }

    /// Whether something that is followed was never answered, and all else is as it was first answered: then what was
    /// known of the service before is worth more than a part of it. A name that has addresses of one family is answered:
    /// many servers of names say nothing to questions for the other.
    pub(super) fn is_partial(&self, followed: &Followed) -> bool {
        let is_unheard = |question: &Question| {
            self.known.get(question).is_none_or(|known| known.stands.is_none())
                && !self.has_other_addresses(question)
        };
        let wanted = self.wanted(std::slice::from_ref(followed));
        let has_changed =
            |question: &Question| self.known.get(question).is_some_and(|known| known.has_changed);
        wanted.iter().any(is_unheard) && !wanted.iter().any(has_changed)
    }

    /// Whether a name has addresses of the other family than the question is for.
    fn has_other_addresses(&self, (name, kind): &Question) -> bool {
        let other = match kind {
            Kind::A => Kind::Aaaa,
            Kind::Aaaa => Kind::A,
            Kind::Srv => return false,
        };
        self.known.get(&(name.clone(), other)).is_some_and(Known::has_addresses)
    }

    /// Whether all is answered that what is followed rests on. A family of which a name has no addresses is not missed
    /// where the other has some.
    pub(super) fn confirm(&self, followed: &Followed) -> bool {
        let is_missed = |question: &Question| {
            let known = self.known.get(question).filter(|known| known.failure.is_some());
            known.is_some_and(|known| known.has_addresses() || !self.has_other_addresses(question))
        };
        !self.wanted(std::slice::from_ref(followed)).iter().any(is_missed)
    }

    /// What is known of a name's addresses. That it has none of version 6 says nothing of those of version 4.
    pub(super) fn host(&self, name: &str, now: Instant) -> Host {
        let mut host = Host { is_denied: true, ..Host::default() };
        for kind in [Kind::A, Kind::Aaaa] {
            let Some(known) = self.known.get(&(name.to_owned(), kind)) else { continue };
            let tells = kind == Kind::A || known.has_addresses() || known.has_changed;
            host.is_answered |= known.stands.is_some() && tells;
            host.is_denied &= known.stands == Some(Answer::NoName);
            if let Some(Answer::Addresses(addresses)) = &known.stands {
                host.addresses.extend(addresses);
                host.old.extend(addresses.iter().filter(|_| known.is_old(now)));
            }
            host.failures.extend(known.failure.as_ref().map(|failure| failure.why.clone()));
        }
        host.is_denied &= host.is_answered;
        host.failures.dedup();
        host
    }
}

/// What is known of a name's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Whether enough of its questions was ever answered to say what addresses it has.
    pub(super) is_answered: bool,
    /// Whether there is no such name.
    pub(super) is_denied: bool,
    /// In the order of the answers, version 4 first.
    pub(super) addresses: Vec<IpAddr>,
    /// Those that nobody has confirmed for long.
    pub(super) old: BTreeSet<IpAddr>,
    /// Why the last tries brought nothing.
    pub(super) failures: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Answer {
        Answer::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn failed() -> Said {
        Said::Failed(Failure { why: "SERVFAIL".into(), is_silence: false, is_refusal: false })
    }

    #[test]
    fn only_proof_takes_away_what_stands() {
        let (mut known, now) = (Known::default(), Instant::now());
        known.take(Said::Unproven(Answer::Nothing), now);
        assert_eq!(known.stands, Some(Answer::Nothing), "nothing was there");
        let two = addresses(&["10.0.0.1", "10.0.0.2"]);
        let mut turned = Known::default();
        turned.take(Said::Answer(two), now);
        turned.take(Said::Answer(addresses(&["10.0.0.2", "10.0.0.1"])), now);
        assert!(!turned.has_changed, "an order is none of its own");
        known.take(Said::Answer(addresses(&["10.0.0.1"])), now);
        assert!(known.has_changed);
        for said in [failed(), Said::Unproven(Answer::NoName), Said::Unproven(Answer::Nothing)] {
            known.take(said, now);
            assert_eq!(known.stands, Some(addresses(&["10.0.0.1"])));
            assert!(known.failure.is_some());
        }
        known.take(Said::Answer(Answer::NoName), now);
        assert_eq!((known.stands, known.failure), (Some(Answer::NoName), None));
    }

    #[test]
    fn what_is_not_answered_any_more_is_not_confirmed() {
        let (mut answers, begun) = (Answers::default(), Instant::now());
        let followed = Followed {
            service: "db.default".parse().unwrap(),
            source: Source::Host("db.example".into(), 5432),
            mode: super::super::settings::Mode::Strict,
            locality: weft_core::locality::Locality::new("eu").unwrap(),
        };
        let mut take = |kind, said, seconds| {
            let now = begun + Duration::from_secs(seconds);
            answers.known.entry(("db.example".to_owned(), kind)).or_default().take(said, now);
            (answers.confirm(&followed), answers.host("db.example", now).is_answered)
        };
        let none_of_6 = take(Kind::Aaaa, Said::Answer(Answer::Nothing), 1);
        assert_eq!(none_of_6, (true, false), "that says nothing of version 4");
        assert_eq!(take(Kind::A, failed(), 2), (false, false), "nobody ever said");
        assert_eq!(take(Kind::A, Said::Answer(addresses(&["10.0.0.1"])), 3), (true, true));
        assert_eq!(take(Kind::Aaaa, failed(), 4), (true, true), "a family that it has none of");
        assert_eq!(take(Kind::A, failed(), 5), (false, true), "its addresses are as old");
        assert_eq!(take(Kind::Aaaa, Said::Answer(addresses(&["fd00::1"])), 6), (false, true));
        assert_eq!(take(Kind::A, Said::Answer(addresses(&["10.0.0.1"])), 7), (true, true));
    }

    #[test]
    fn one_family_that_fails_keeps_its_addresses_beside_the_new_ones_of_the_other() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let mut take = |kind, said| {
            answers.known.entry(("db.example".to_owned(), kind)).or_default().take(said, now);
            answers.host("db.example", now)
        };
        let host = take(Kind::A, failed());
        assert!(!host.is_answered && !host.is_denied);
        take(Kind::A, Said::Answer(addresses(&["10.0.0.1"])));
        take(Kind::Aaaa, Said::Answer(addresses(&["fd00::1"])));
        take(Kind::Aaaa, failed());
        let host = take(Kind::A, Said::Answer(addresses(&["10.0.0.2"])));
        assert_eq!(host.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(host.failures, ["SERVFAIL"]);
        assert!(!take(Kind::A, Said::Answer(Answer::NoName)).is_denied, "the other family has not said so");
        assert!(take(Kind::Aaaa, Said::Answer(Answer::NoName)).is_denied);
    }
}
