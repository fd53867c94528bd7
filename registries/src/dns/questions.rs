//! When to ask what, and whether it is one name that fails or whoever answers. No I/O.
//!
//! A question is asked again when its answer's time has passed, and one that failed soon, then more and more seldom. A
//! failure alone does not show whose it is: most questions are not asked lately, and what was answered an hour ago proves
//! nothing of now. So a failure raises a doubt, in which a few of those that were answered are asked at once as witnesses.
//! One answer ends it; if all of them fail too, it is the server's.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::answers::Question;
use crate::http_client::{growing_pause, jittered};

/// How many questions are asked at once.
pub(super) const AT_ONCE: usize = 16;
/// How many of them may be such as brought nothing the last time.
const FAILING_AT_ONCE: usize = 8;
/// How soon a question is asked again that brought nothing, the first time and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often at least one of those that fail is asked: whoever is back is seen soon.
const SCOUT: Duration = Duration::from_secs(3);
/// Over what time those that fail are asked again once one of them is answered.
const ALL_AGAIN: Duration = Duration::from_secs(2);
/// How long silence lasts, after its first sign, before it is taken for the server's.
const SILENT: Duration = Duration::from_secs(2);
/// How many questions that were answered are asked again in doubt.
const WITNESSES: usize = 5;
/// For how long an answer shows that the server is there when a question fails that failed before.
const PROOF: Duration = Duration::from_secs(8);

/// All that is asked, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Questions {
    each: BTreeMap<Question, Turn>,
    doubt: Option<Doubt>,
    /// When something was answered last.
    answered_at: Option<Instant>,
}

/// What is to become of a question.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// When it is asked next; none while it is asked.
    next: Option<Instant>,
    /// How often it brought nothing, one time after the other.
    failed: u32,
}

/// Something failed, and nothing was answered since.
#[derive(Debug)]
struct Doubt {
    since: Instant,
    /// What failed first.
    first: Question,
    /// Whether all that failed met silence.
    is_silence: bool,
    /// Who was asked again.
    witnesses: BTreeSet<Question>,
}

impl Questions {
    /// Begins and ends asking, by what is wanted now.
    pub(super) fn want(&mut self, wanted: BTreeSet<Question>, now: Instant) {
        self.each.retain(|question, _| wanted.contains(question));
        for question in wanted {
            self.each.entry(question).or_insert(Turn { next: Some(now), failed: 0 });
        }
        if let Some(doubt) = &mut self.doubt {
            doubt.witnesses.retain(|question| self.each.contains_key(question));
        }
    }

    /// Whether it is asked at all.
    pub(super) fn contains(&self, question: &Question) -> bool {
        self.each.contains_key(question)
    }

    /// Whether anything was ever answered.
    pub(super) fn has_answers(&self) -> bool {
        self.answered_at.is_some()
    }

    /// Those that brought nothing the last time.
    pub(super) fn failing(&self) -> impl Iterator<Item = &Question> {
        self.each.iter().filter(|(_, turn)| turn.failed > 0).map(|(question, _)| question)
    }

    /// What raised the doubt whether anybody answers at all.
    pub(super) fn in_doubt(&self) -> Option<&Question> {
        self.doubt.as_ref().map(|doubt| &doubt.first)
    }

    /// Whether nothing but silence was ever met.
    pub(super) fn began_in_silence(&self) -> bool {
        !self.has_answers() && self.doubt.as_ref().is_some_and(|doubt| doubt.is_silence)
    }

    /// A question that was asked then is answered, for so long.
    pub(super) fn answered(&mut self, question: &Question, asked_at: Instant, holds: Duration, now: Instant) {
        let Some(turn) = self.each.get_mut(question) else { return };
        let is_back = turn.failed > 0;
        *turn = Turn { next: Some(now + holds), failed: 0 };
        self.answered_at = Some(now);
        // What was on its way while a server began to fail is no witness for it; whoever is silent says nothing at all.
        let is_proof = |doubt: &Doubt| doubt.is_silence || asked_at >= doubt.since;
        if self.doubt.as_ref().is_some_and(is_proof) {
            self.doubt = None;
        }
        if is_back {
            for next in
                self.each.values_mut().filter(|turn| turn.failed > 0).filter_map(|it| it.next.as_mut())
            {
                *next = (*next).min(now + ALL_AGAIN.mul_f64(fastrand::f64()));
            }
        }
    }

    /// A question brought nothing.
    pub(super) fn failed(&mut self, question: &Question, is_silence: bool, now: Instant) {
        let is_soon = |next: Option<Instant>| next.is_none_or(|next| next <= now + SCOUT);
        let has_scout =
            self.each.iter().any(|(other, turn)| other != question && turn.failed > 0 && is_soon(turn.next));
        let Some(turn) = self.each.get_mut(question) else { return };
        let is_news = turn.failed == 0;
        let pause = growing_pause(AGAIN, turn.failed);
        let pause = if has_scout { pause } else { pause.min(jittered(SCOUT)) };
        *turn = Turn { next: Some(now + pause), failed: turn.failed.saturating_add(1) };
        let is_proven = self.answered_at.is_some_and(|at| now.duration_since(at) < PROOF);
        match &mut self.doubt {
            Some(doubt) => doubt.is_silence &= is_silence,
            None if is_news || !is_proven => {
                let (first, witnesses) = (question.clone(), BTreeSet::new());
                self.doubt = Some(Doubt { since: now, first, is_silence, witnesses });
            }
            None => {}
        }
    }

    /// Whether it is the server that fails. While that is in doubt, witnesses are called.
    pub(super) fn is_lost(&mut self, now: Instant) -> bool {
        let Some(doubt) = &mut self.doubt else { return false };
        if doubt.is_silence && now.duration_since(doubt.since) >= SILENT {
            return true;
        }
        if doubt.witnesses.is_empty() {
            doubt.witnesses = call(&mut self.each, now);
        }
        if doubt.witnesses.is_empty() {
            // Those that are on their way may be answered yet.
            return self.each.values().all(|turn| turn.failed > 0);
        }
        doubt.witnesses.iter().all(|witness| self.each.get(witness).is_some_and(|turn| turn.failed > 0))
    }

    /// When silence will have lasted long enough.
    pub(super) fn decided_at(&self) -> Option<Instant> {
        self.doubt.as_ref().filter(|doubt| doubt.is_silence).map(|doubt| doubt.since + SILENT)
    }

    /// What is due and may be asked, what waited longest first: so many that with those that are asked already there are
    /// not too many. Those that are never answered do not hold up others. Also says when to come again, none when that is
    /// up to an answer.
    pub(super) fn due(
        &mut self,
        now: Instant,
        mut may_be_asked: impl FnMut(&Question) -> bool,
    ) -> (Vec<Question>, Option<Instant>) {
        let asked = |turn: &&Turn| turn.next.is_none();
        let mut free = AT_ONCE.saturating_sub(self.each.values().filter(asked).count());
        let mut failing = self.each.values().filter(asked).filter(|turn| turn.failed > 0).count();
        let mut asks = Vec::new();
        let is_due = |turn: &Turn| turn.next.is_some_and(|next| next <= now);
        let mut due: Vec<_> = self.each.iter_mut().filter(|(_, turn)| free > 0 && is_due(turn)).collect();
        // Names of one zone stand side by side, and a zone falls silent as a whole.
        fastrand::shuffle(&mut due);
        // Witnesses first: what they say decides about all others.
        let witnesses = self.doubt.as_ref().map(|doubt| &doubt.witnesses);
        let is_witness = |question: &Question| witnesses.is_some_and(|all| all.contains(question));
        due.sort_by_key(|(question, turn)| (!is_witness(question), turn.next));
        for (question, turn) in due {
            if free == 0 {
                break;
            }
            let has_failed = turn.failed > 0;
            if (has_failed && failing >= FAILING_AT_ONCE) || !may_be_asked(question) {
                continue;
            }
            failing += usize::from(has_failed);
            free -= 1;
            turn.next = None;
            asks.push(question.clone());
        }
        if free == 0 {
            return (asks, None);
        }
        let may_come = |turn: &&Turn| turn.failed == 0 || failing < FAILING_AT_ONCE;
        let again = self.each.values().filter(may_come).filter_map(|turn| turn.next).min();
        (asks, again)
    }
}

/// Has some of those that were answered asked at once: such of other zones first, as a zone may be lost alone.
fn call(each: &mut BTreeMap<Question, Turn>, now: Instant) -> BTreeSet<Question> {
    let answered = |turn: &Turn| turn.failed == 0 && turn.next.is_some();
    let mut good: Vec<_> = each.iter_mut().filter(|(_, turn)| answered(turn)).collect();
    fastrand::shuffle(&mut good);
    let mut zones = BTreeSet::new();
    good.sort_by_cached_key(|((name, _), _)| {
        let zone = name.split_once('.').map_or(String::new(), |(_, zone)| zone.to_owned());
        !zones.insert(zone)
    });
    let called = good.into_iter().take(WITNESSES).map(|(question, turn)| {
        turn.next = turn.next.map(|next| next.min(now));
        question.clone()
    });
    called.collect()
}

#[cfg(test)]
mod tests {
    use super::{super::answers::Kind, *};

    fn question(name: &str) -> Question {
        (name.to_owned(), Kind::A)
    }

    fn asked(questions: &mut Questions, now: Instant) -> BTreeSet<Question> {
        questions.due(now, |_| true).0.into_iter().collect()
    }

    /// Follows names, each answered for an hour.
    fn answered(names: &[&str], now: Instant) -> Questions {
        let mut questions = Questions::default();
        questions.want(names.iter().map(|name| question(name)).collect(), now);
        for name in asked(&mut questions, now) {
            questions.answered(&name, now, Duration::from_secs(3600), now);
        }
        questions
    }

    #[test]
    fn one_name_that_fails_is_not_the_server_and_all_witnesses_are() {
        let begin = Instant::now();
        let names = ["a.one", "b.one", "c.one", "d.one", "e.one", "f.one", "g.one", "x.two"];
        for are_lost in [false, true] {
            let mut questions = answered(&names, begin);
            let now = begin + Duration::from_secs(60);
            questions.failed(&question("a.one"), false, now);
            assert!(!questions.is_lost(now), "others may know");
            let witnesses = asked(&mut questions, now);
            assert_eq!(witnesses.len(), WITNESSES);
            assert!(witnesses.contains(&question("x.two")), "one of each zone first: {witnesses:?}");
            for witness in &witnesses {
                assert!(!questions.is_lost(now));
                if are_lost || witness.0 != "x.two" {
                    questions.failed(witness, false, now);
                } else {
                    questions.answered(witness, now, Duration::from_secs(3600), now);
                }
            }
            assert_eq!(questions.is_lost(now), are_lost);
            assert_eq!(questions.in_doubt().is_some(), are_lost);
        }
    }

    #[test]
    fn what_was_on_its_way_is_no_witness_unless_there_is_silence() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(60);
        for is_silence in [false, true] {
            let mut questions = answered(&["a.one", "b.one"], begin);
            questions.failed(&question("a.one"), is_silence, later);
            questions.answered(&question("b.one"), begin, Duration::from_secs(3600), later);
            assert_eq!(questions.in_doubt().is_none(), is_silence);
        }
        let mut questions = answered(&["a.one", "b.one"], begin);
        questions.failed(&question("a.one"), true, later);
        assert!(!questions.is_lost(later));
        assert_eq!(questions.decided_at(), Some(later + SILENT));
        assert!(questions.is_lost(later + SILENT), "a silent witness need not be waited for");
    }

    #[test]
    fn a_name_that_always_fails_calls_witnesses_only_where_nothing_was_answered_lately() {
        let begin = Instant::now();
        let mut questions = answered(&["a.one", "b.one"], begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        questions.failed(&question("a.one"), false, at(1));
        assert!(!questions.is_lost(at(1)));
        for witness in asked(&mut questions, at(1)) {
            questions.answered(&witness, at(1), Duration::from_secs(3600), at(1));
        }
        questions.failed(&question("a.one"), false, at(3));
        assert_eq!(questions.in_doubt(), None);
        questions.failed(&question("a.one"), false, at(30));
        assert!(questions.in_doubt().is_some() && !questions.is_lost(at(30)));
        questions.failed(&question("b.one"), false, at(30));
        assert!(questions.is_lost(at(30)));
    }

    #[test]
    fn those_that_fail_are_asked_soon_by_one_of_them_and_all_once_it_is_answered() {
        let begin = Instant::now();
        let names: Vec<String> = (0..40).map(|number| format!("n{number}.one")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut questions = Questions::default();
        questions.want(names.iter().map(|name| question(name)).collect(), begin);
        let mut now = begin;
        let mut last_asked = begin;
        while now < begin + Duration::from_secs(120) {
            for question in &asked(&mut questions, now) {
                assert!(now - last_asked <= SCOUT.mul_f64(1.3), "{:?}", now - last_asked);
                last_asked = now;
                questions.failed(question, false, now);
            }
            let (_, again) = questions.due(now, |_| false);
            now = again.unwrap_or(now).max(now + Duration::from_millis(10));
        }
        let next = |questions: &Questions| -> Vec<Duration> {
            questions.each.values().map(|turn| turn.next.unwrap().saturating_duration_since(now)).collect()
        };
        assert!(next(&questions).iter().filter(|next| **next > ALL_AGAIN).count() > 20, "they wait by now");
        questions.answered(&question("n1.one"), now, Duration::from_secs(1), now);
        let next = next(&questions);
        assert!(next.iter().all(|next| *next <= ALL_AGAIN), "{next:?}");
        assert!(
            next.iter().any(|next| *next < ALL_AGAIN / 3) && next.iter().any(|next| *next > ALL_AGAIN / 2)
        );
    }
}
