//! The keys of a strong keyspace under simulation, by what is done with them.

use coterie::types::Key;

use crate::dice::Dice;

/// How many keys of each kind there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Put, deleted, compared and set.
    pub(crate) registers: usize,
    /// Appended to.
    pub(crate) lists: usize,
    /// Two keys of one tag, always written together.
    pub(crate) pairs: usize,
}

/// What one operation touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Register(Key),
    List(Key),
    Pair(Key, Key),
}

impl Keys {
    pub(crate) fn draw(dice: &mut Dice) -> Keys {
        let mut few = |most| usize::try_from(dice.between(1, most)).expect("few keys");
        Keys { registers: few(4), lists: few(3), pairs: few(2) }
    }

    /// Everything that operations touch.
    pub(crate) fn places(self) -> Vec<Place> {
        let registers = (0..self.registers).map(register).map(Place::Register);
        let lists = (0..self.lists).map(list).map(Place::List);
        let pairs = (0..self.pairs).map(pair).map(|(left, right)| Place::Pair(left, right));
        registers.chain(lists).chain(pairs).collect()
    }
}

fn register(number: usize) -> Key {
    Key::from(format!("register-{number}"))
}

fn list(number: usize) -> Key {
    Key::from(format!("list-{number}"))
}

fn pair(number: usize) -> (Key, Key) {
    (Key::from(format!("{{pair-{number}}}-left")), Key::from(format!("{{pair-{number}}}-right")))
}

/// Whether a key's value is a list.
pub(crate) fn is_list(key: &Key) -> bool {
    key.0.starts_with(b"list-")
}

impl Place {
    /// Its keys.
    pub(crate) fn keys(&self) -> Vec<&Key> {
        match self {
            Place::Register(key) | Place::List(key) => vec![key],
            Place::Pair(left, right) => vec![left, right],
        }
    }
}
